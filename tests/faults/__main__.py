"""Run the long counts; the exit status is 1 if any figure falls short."""

import argparse
import importlib
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

import tests.faults
from tests.helpers import heed_ctrl_c


def main():
    """Run the modules that the command line names, or all."""
    modules = [module.name for module in pkgutil.iter_modules(tests.faults.__path__) if module.name != "__main__"]
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"some of {', '.join(modules)}")
    parser.add_argument("--share", type=float, default=1.0, help="of each count")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(modules)
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    heed_ctrl_c()
    good = True
    for name in arguments.modules or modules:
        for count in importlib.import_module(f"tests.faults.{name}").FIGURES:
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                figure = count(arguments.share, Path(folder))
            print(f"{figure}  [{time.monotonic() - started:.0f} s]", flush=True)
            good &= figure.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
