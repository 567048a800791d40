"""A small sample of the long counts (python -m tests.faults) that need no process of their own.

Runs, menu and terminal have tests of theirs: test_resume, test_main, test_terminal.
"""

import importlib

import pytest

SHARE = 0.02
SAMPLED = ("checkpoints", "files", "images", "submissions", "tables")
COUNTS = [
    pytest.param(count, id=f"{module}-{count.__name__}")
    for module in SAMPLED
    for count in importlib.import_module(f"tests.faults.{module}").FIGURES
    if count.__name__ != "kill_while_saving"       # it forks, which a process with torch's threads must not
]


@pytest.mark.parametrize("count", COUNTS)
def test_a_sample_of_the_count(count, tmp_path):
    figure = count(SHARE, tmp_path)
    assert figure.good, str(figure)
