"""report.html: what one asks first, tables, pictures; all in one file."""

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from data.page import write_page
from data.scores import DIFFERENCE
from processing import columns as c

COLUMNS = ["method", "file", "item", "score", "low", "high", "rows", *DIFFERENCE]
NAN = np.nan
SCORES = pd.DataFrame([
    ["model", c.STAGE1, c.VA, 0.6, 0.5, 0.7, 40, NAN, NAN, NAN, NAN],
    ["model", "", "total", 0.71, 0.6, 0.8, 14, NAN, NAN, NAN, NAN],
    ["fixed recipe", c.STAGE1, c.VA, 0.4, 0.3, 0.5, 40, -0.2, -0.3, -0.1, 30],
    ["fixed recipe", "", "total", 0.72, 0.6, 0.8, 14, 0.01, -0.1, 0.1, 30],
    ["fixed recipe", c.STAGE2_PIC, "IRF", 0.5, 0.4, 0.6, 99, 0.0, -0.1, 0.1, 99],       # of images, not of eyes
    ["as <before>", c.STAGE1, c.VA, NAN, NAN, NAN, 40, NAN, NAN, NAN, NAN],
    ["the doctor's labels", c.STAGE1, c.VA, 0.4, 0.3, 0.5, 83, 0.1, -0.1, 0.3, 83],
    ["the doctor's labels", c.STAGE2_CASE, c.VA, 0.4, 0.3, 0.5, 35, 0.1, -0.1, 0.3, 35],
], columns=COLUMNS)
GROUPS = pd.DataFrame([[c.FINAL, "final", 12, "x", 0.3], [c.FINAL, "final", 12, "total", 0.4]],
                      columns=["group", "value", "eyes", "item", "score"])
COVERAGE = pd.DataFrame([[c.CST, "final", "all", 30, 0.8, 0.5, 0.55, 0.2, "share"],
                         [c.PRE_CST, "final", "all", 10, 0.4, 0.5, 0.5, 0.2, "share"],
                         [c.VA, "final", "all", 30, 0.9, 0.6, 0.55, 0.4, "decimal"]],
                        columns=["item", "round", "part", "rows", "covered", "hits", "chance", "width", "unit"])


@pytest.fixture
def page(tmp_path):
    (tmp_path / "roc.png").write_bytes(b"a picture")
    write_page(tmp_path, scores=SCORES, groups=GROUPS, coverage=COVERAGE, noise=None, how=("Eyes & folds.", "眼与折。"),
               notes=["It flatters."], origin="Model-CSV, fold 0: <run>", commands="python main.py evaluate")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_one_asks_first_comes_first(page):
    first = page[:page.index("Scores")]
    assert re.findall(r"<b>([^<]+)</b>", first) == ["0.710", "0.720", "70%", "90%"]     # 30 of 0.8 and 10 of 0.4
    assert "[0.600, 0.800] 95 %" in first and "It flatters." in first and "Eyes &amp; folds." in first


def test_tables_hold_every_number_and_no_sign_is_taken_for_a_tag(page):
    assert "<td class=\"\">0.600<small>[0.500, 0.700]</small></td>" in page
    assert "as &lt;before&gt;" in page and "&lt;run&gt;" in page and "nan" not in page
    assert page.count("<table>") == page.count("</table>") == 4


def test_a_difference_that_is_real_is_marked(page):
    assert '<td class="worse">-0.200<small>[-0.300, -0.100]</small></td>' in page
    assert "fixed recipe 方案, 30 eyes 眼" in page and ", 118 eyes 眼" in page     # of the total, or of both rounds
    assert '<td class="">+0.010<small>[-0.100, +0.100]</small></td>' in page


def test_it_speaks_both_languages_and_holds_the_pictures_that_are_there(page):
    assert "得分" in page and 'lang="zh"' in page
    assert "model 模型: total 总分" in page and "all 全部" in page and "fixed recipe 方案" in page
    assert page.count("data:image/png;base64,") == 1 and "ROC curves" in page and "<script" not in page


def test_without_intervals_and_other_methods_there_are_no_empty_tables(tmp_path):
    alone = SCORES[SCORES["method"] == "model"]
    write_page(tmp_path, scores=alone, groups=GROUPS, coverage=None, noise=None, how=("", ""), notes=[], origin="",
               commands="")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Difference" not in page and "How sure" not in page and page.count("<table>") == 2


WIDTH = '<script>document.title = "wide " + document.documentElement.scrollWidth</script>'


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_ten_recipes_stand_beside_one_another_in_a_small_window(tmp_path):
    """1,000 px wide, nothing has to be scrolled sideways, and no word is broken."""
    other = SCORES[SCORES["method"] == "fixed recipe"]
    others = [other.assign(method=f"pretrained trunk_{number} recipe (2 of 5 folds)") for number in range(10)]
    write_page(tmp_path, scores=pd.concat([SCORES.head(2), *others]), groups=GROUPS, coverage=COVERAGE, noise=None,
               how=("", ""), notes=[], origin="", commands="")
    page = tmp_path / "report.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", WIDTH + "</body>"), encoding="utf-8")
    answer = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1000,1000",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, encoding="utf-8", timeout=120,
    )
    assert int(re.search("<title>wide ([0-9]+)", answer.stdout)[1]) <= 1000
