"""The examples in the docstrings of the program are run, and say what comes out."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import data
import model
import processing

ALONE = ["config", "model_config", "main"]
MODULES = ALONE + [
    module.name for floor in (processing, model, data) for module in walk_packages(floor.__path__, f"{floor.__name__}.")
]
FEWEST = 8      # docstrings with examples that are known to be there


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_come_true(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_the_examples_are_found():
    tests = [test for name in MODULES for test in doctest.DocTestFinder().find(import_module(name)) if test.examples]
    assert len(tests) >= FEWEST
