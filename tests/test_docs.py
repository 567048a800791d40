"""README for a newcomer, its Chinese twin, and the longer texts: short, equal, and leading somewhere."""

import re

import pytest

from tests.helpers import REPOSITORY

DOCS = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
ENGLISH = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CHINESE = (REPOSITORY / "docs" / "README.zh.md").read_text(encoding="utf-8")
MOST_LINES, MOST_BYTES = 150, 300_000


def blocks(text):
    """Code blocks; of the tree of rooms only the names, whose phrases are translated."""
    found = re.findall(r"```\n(.*?)```", text, re.S)
    return [re.sub(r"(?m)^([\w./]+/|\w+\.py) {2,}.*$", r"\1", block) for block in found]


def tables(text):
    """Of each table the code words of every cell, row by row."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([re.findall(r"`[^`]+`|[\d.]+ / [\d.]+", cell) for cell in line.strip("|").split("|")])
        elif rows:
            found.append(rows)
            rows = []
    return found


def test_the_readme_is_short_enough_to_be_read():
    assert len(ENGLISH.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("part", [
    blocks, tables,
    lambda text: [len(marks) for marks in re.findall(r"(?m)^(#+) ", text)],
    lambda text: [name.rsplit("/", 1)[-1] for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)],
    lambda text: [name.rsplit("/", 1)[-1] for name in re.findall(r"\]\(([^)]+)\)", text)][1:],
    lambda text: re.findall(r"(?m)^- ", text),
    lambda text: sorted(set(re.findall(r"`(python [^`]+)`", text))),
], ids=["blocks", "tables", "headings", "pictures", "links", "points", "commands"])
def test_both_languages_say_the_same(part):
    assert part(ENGLISH) and part(ENGLISH) == part(CHINESE)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere_and_pictures_are_small(path):
    for name in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        file = path.parent / name
        assert file.exists(), name
        if file.suffix in (".png", ".jpg"):
            assert file.stat().st_size < MOST_BYTES


def test_the_menu_in_the_readme_is_what_is_printed():
    import main

    menu = "".join(f"{option.number} -> {option.name}\n" for option in main.OPTIONS) + "q -> quit\n"
    assert menu in blocks(ENGLISH)
