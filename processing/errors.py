"""The one exception that a user sees as a message instead of a traceback."""


class PipelineError(Exception):
    """What is wrong, where (file, row, column, value), and what to do: one or two lines for a person."""
