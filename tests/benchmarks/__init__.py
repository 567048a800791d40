"""How fast, against a plain baseline in the same run: `python -m tests.benchmarks --help`."""
