"""The one exception that a user sees as a message instead of a traceback, and the one fault that has many names."""

import errno

# As torch, its devices, OpenCV, numpy, oneDNN and C++ put it
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "insufficient memory", "bad_alloc")


class PipelineError(Exception):
    """What is wrong, where (file, row, column, value), and what to do: one or two lines for a person."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, on whichever device."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return not isinstance(error, PipelineError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
