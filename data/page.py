"""report.html: an evaluation on one page that holds everything (no network, no script), in English and Chinese.

Reads the evaluation's pictures; writes report.html beside them. First what one asks first (how good, how sure, compared
with what), then the tables, then the pictures.
"""

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.confidence import PARTS, format_width
from data.scores import GROUPS, TOTAL, shorten
from processing import columns as c
from processing.files import write_text

Cell = tuple[str, str]      # of a table: what stands there, and smaller beneath it

TITLES = {      # of pictures, in their order
    "thickness.png": ("Central subfield thickness", "中心区视网膜厚度"),
    "acuity.png": ("Visual acuity", "视力"),
    "coverage.png": ("How sure: do intervals hold the truth, and do hits come true?",
                     "把握：区间是否包含真值，命中概率是否属实？"),
    "roc.png": ("ROC curves", "ROC 曲线"),
    "calibration.png": ("Calibration: does 70 % mean 70 %?", "校准：说 70 % 就是 70 % 吗？"),
    "noise.png": ("How the scores fall when thickness and findings are not the doctor's",
                  "厚度和征象并非医生所标时，得分如何下降"),
    "gallery.png": ("Best and worst eyes, by predicted thickness after treatment", "治疗后厚度预测最好和最差的眼"),
    "attention.png": ("Where the image model looks (Grad-CAM): the image of each finding that it is surest of",
                      "图像模型看哪里（Grad-CAM）：每种征象最有把握的图像"),
    "learning.png": ("Learning curves of the runs that were evaluated", "所评估的训练的学习曲线"),
}
CHINESE = {     # of words that stand in tables
    "model": "模型", "best constant": "最佳常数", "as before": "同治疗前", "the doctor's labels": "医生标注",
    "all": "全部", "lowest third": "最低三分之一", "middle third": "中间三分之一", "highest third": "最高三分之一",
    "preliminary": "初赛", "final": "决赛", "round": "轮次", "diagnosis": "诊断", "drug": "药物", TOTAL: "总分",
}
STYLE = """
body{font:15px/1.5 sans-serif;max-width:100em;margin:1.5em auto;padding:0 1em;color:#222}
h2 small,h1 small,.card small{color:#666;font-weight:normal}
img{width:100%;height:auto}
.cards{display:flex;flex-wrap:wrap;gap:1em}
.card{flex:1 1 13em;border:1px solid #ccc;border-radius:6px;padding:.7em 1em}
.card b{display:block;font-size:1.9em;line-height:1.3}
table{border-collapse:collapse;width:100%;table-layout:auto;font-size:.88em}
td,th{padding:.25em .4em;border-bottom:1px solid #ddd;text-align:right;vertical-align:top;overflow-wrap:anywhere}
.words,th{overflow-wrap:break-word}
.words{text-align:left}
td small{display:block;color:#666}
tr.total td{font-weight:bold;border-top:2px solid #888}
.real{background:#e5f2e5}.worse{background:#f8e4e0}
pre{background:#f4f4f4;padding:1em;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.3}
.pictures{display:grid;grid-template-columns:1fr;gap:1em 2em}
@media(min-width:1300px){.pictures{grid-template-columns:1fr 1fr}}
"""


def write_page(folder: Path, *, scores: pd.DataFrame, groups: pd.DataFrame, coverage: pd.DataFrame | None,
               noise: pd.DataFrame | None, how: tuple[str, str], notes: list[str], origin: str, commands: str) -> None:
    """Write report.html.

    Args:
        folder: of the evaluation, with its pictures.
        scores, groups: of data.scores.
        coverage: of data.confidence.score_coverage; None: there is none.
        noise: of data.scores.score_noise; None: there is none.
        how: a sentence on what was scored, in English and Chinese.
        notes: sentences on what flatters, or falls short.
        origin: lines that say which runs were evaluated.
        commands: how to do it again, one command a line.
    """
    parts = [
        _head("h1", "Held-out eyes", "未参与训练的眼"), _head("p", *how),
        _build_cards(scores, coverage), *(f"<p>{html.escape(note)}</p>" for note in notes),
        _head("h2", "Scores", "得分"),
        "<p>In brackets: 95 % over persons. 括号内：按人重抽样的 95 % 区间。</p>", _build_scores(scores),
        *_build_differences(scores), _head("h2", "By group", "分组"), _build_groups(groups),
    ]
    if coverage is not None:
        parts += [_head("h2", "How sure", "把握"), "<p>Intervals are to hold the truth of 80 %; hits are to come as "
                  "often as was told. 区间应包含 80 % 的真值；命中率应与所说概率一致。</p>", _build_coverage(coverage)]
    if noise is not None:
        parts += [_head("h2", *TITLES["noise.png"]), _build_noise(noise)]
    parts += [_head("h2", "Pictures", "图"), '<div class="pictures">', *_build_pictures(folder), "</div>",
              _head("h2", "Runs", "训练"), f"<pre>{html.escape(origin)}</pre>",
              _head("h2", "Do it again", "重做"), f"<pre>{html.escape(commands)}</pre>"]
    write_text(folder / "report.html", "\n".join([
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Held-out eyes</title>',
        '<meta name="viewport" content="width=device-width">',
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>', *parts, "</body></html>",
    ]) + "\n")


def _both(text: str) -> str:
    """A word as it is, and in Chinese."""
    return f"{text} {CHINESE[text]}" if text in CHINESE else text.replace(" recipe", " recipe 方案")


def _head(level: str, english: str, chinese: str) -> str:
    return f'<{level}>{html.escape(english)} <small lang="zh">{chinese}</small></{level}>'


def _build_cards(scores: pd.DataFrame, coverage: pd.DataFrame | None) -> str:
    """How good, compared with what, how sure."""
    totals = scores[scores["file"] == ""]
    cards = [(f"{_both(row.method)}: {_both(row.item)}", _number(row.score), f"{_interval(row.low, row.high)} 95 %")
             for row in totals.itertuples()]
    if coverage is not None:
        whole = coverage[coverage["part"] == PARTS[0]]
        for name, part in whole.groupby(whole["item"] == c.VA, sort=True):
            held = np.average(part["covered"], weights=part["rows"])
            what = "VA 视力" if name else "thickness 厚度"
            cards.append((f"80 % intervals 区间: {what}", f"{held:.0%}", "hold the truth 包含真值"))
    return '<div class="cards">' + "".join(
        f'<div class="card">{html.escape(title)}<b>{html.escape(value)}</b><small>{html.escape(beneath)}</small></div>'
        for title, value, beneath in cards) + "</div>"


def _build_scores(scores: pd.DataFrame) -> str:
    methods = list(dict.fromkeys(scores["method"]))
    rows = []
    for (file, item), part in scores.groupby(["file", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        count = f"{cells['rows'].max():.0f}" if file else ""
        shown = [(_number(row.score), _interval(row.low, row.high) if np.isfinite(row.score) else "")
                 for row in cells.itertuples()]
        rows.append(("" if file else "total", [(shorten(file), ""), (_both(item), ""), (count, ""), *shown], ()))
    return _build_table(["file 文件", "item 项目", "rows 行数", *map(_both, methods)], rows, words=2)


def _build_differences(scores: pd.DataFrame) -> list[str]:
    """How far other methods lie from the first, where both answer the same eyes."""
    known = scores[scores["difference"].notna()]
    if known.empty:
        return []
    first, methods = scores["method"].iloc[0], list(dict.fromkeys(known["method"]))
    rows = []
    for (file, item), part in known.groupby(["file", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        shown = [(f"{row.difference:+.3f}", _interval(row.difference_low, row.difference_high, "+.3f"))
                 if np.isfinite(row.difference) else ("-", "") for row in cells.itertuples()]
        marks = ["real" if row.difference_low > 0 else "worse" if row.difference_high < 0 else ""
                 for row in cells.itertuples()]
        rows.append(("" if file else "total", [(shorten(file), ""), (_both(item), ""), *shown], marks))
    of_eyes = known[known["file"] != c.STAGE2_PIC]
    counts = of_eyes.groupby(["method", "file"])["difference_eyes"].max().unstack().reindex(methods)
    eyes = counts.get("", counts.sum(axis=1)).fillna(counts.sum(axis=1))        # of the total, or of both rounds
    heads = [f"{_both(method)}, {eyes[method]:.0f} eyes 眼" for method in methods]
    return [_head("h2", f"Difference from {_both(first)}", "与其差别"),
            "<p>Coloured: the interval of the difference does not hold 0. 着色：差别的区间不含 0。</p>",
            _build_table(["file 文件", "item 项目", *heads], rows, words=2)]


def _build_groups(groups: pd.DataFrame) -> str:
    rows = []
    for (group, value), part in groups.groupby(["group", "value"], sort=False):
        mean = part.iloc[-1]
        cells = _both(GROUPS[group][0]), _both(str(value)), str(mean["item"]), f"{mean['eyes']}", _number(mean["score"])
        rows.append(("", [(text, "") for text in cells], ()))
    return _build_table(["group 分组", "value 取值", "mean of 平均", "eyes 眼数", "score 得分"], rows, words=3)


def _build_coverage(coverage: pd.DataFrame) -> str:
    rows = [("total" if row.part == PARTS[0] else "",
             [(row.item, ""), (_both(row.round), ""), (_both(row.part), ""), (str(row.rows), ""),
              *((f"{value:.0%}", "") for value in (row.covered, row.hits, row.chance)), (format_width(row), "")], ())
            for row in coverage.itertuples()]
    return _build_table(["item 项目", "round 轮次", "true value 真值", "rows 行数", "held 包含", "hits 命中",
                         "told 所说", "width 宽度"], rows, words=3)


def _build_noise(noise: pd.DataFrame) -> str:
    shares = list(noise["noise"].unique())
    rows = []
    for (file, item), part in noise.groupby(["file", "item"], sort=False):
        values = part.set_index("noise")["score"].reindex(shares)
        rows.append(("", [(shorten(file), ""), (item, ""), *((_number(value), "") for value in values)], ()))
    return _build_table(["file 文件", "item 项目", *(f"noise 噪声 {share:g}" for share in shares)], rows, words=2)


def _build_table(head: list[str], rows: list[tuple[str, list[Cell], Any]], *, words: int) -> str:
    """A table; the first `words` columns are texts. Of each row: its class, its cells, the classes of the last ones."""
    heads = (f'<th class="{"words" if place < words else ""}">{html.escape(name)}</th>'
             for place, name in enumerate(head))
    lines = ["<table><tr>" + "".join(heads) + "</tr>"]
    for kind, cells, marks in rows:
        classes = ["words"] * words + [""] * (len(cells) - words - len(marks)) + list(marks)
        shown = "".join(
            f'<td class="{mark}">{html.escape(text)}' + (f"<small>{html.escape(beneath)}</small>" if beneath else "")
            + "</td>" for (text, beneath), mark in zip(cells, classes, strict=True))
        lines.append(f'<tr class="{kind}">{shown}</tr>')
    return "\n".join([*lines, "</table>"])


def _build_pictures(folder: Path) -> list[str]:
    return [
        f'<figure><figcaption><b>{html.escape(english)}</b> <small lang="zh">{chinese}</small></figcaption>'
        f'<img alt="{html.escape(english)}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / name).read_bytes()).decode()}"></figure>'
        for name, (english, chinese) in TITLES.items() if (folder / name).is_file()
    ]


def _number(score: float) -> str:
    return f"{score:.3f}" if np.isfinite(score) else "-"


def _interval(low: float, high: float, how: str = ".3f") -> str:
    return f"[{low:{how}}, {high:{how}}]"
