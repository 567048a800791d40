"""A small sample of each of the long counts (python -m tests.faults)."""

import importlib
import pkgutil

import pytest

import tests.faults

SHARE = 0.02
MODULES = [module.name for module in pkgutil.iter_modules(tests.faults.__path__) if module.name != "__main__"]
COUNTS = [
    pytest.param(count, id=f"{module}-{count.__name__}")
    for module in MODULES
    for count in importlib.import_module(f"tests.faults.{module}").FIGURES
]


@pytest.mark.parametrize("count", COUNTS)
def test_a_sample_of_the_count(count, tmp_path):
    figure = count(SHARE, tmp_path)
    assert figure.good, str(figure)
