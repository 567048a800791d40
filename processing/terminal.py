"""What the terminal shows: lines, and progress bars with the time left. Of several processes, the first one speaks."""

from tqdm import tqdm

from processing.parallel import RANK


def progress(items=None, *, total=None, label="", unit="it", leave=True):
    """Wrap `items` in a bar on the terminal (or give a bar to be updated by hand)."""
    return tqdm(items, total=total, desc=label, unit=unit, leave=leave, disable=bool(RANK) or None, dynamic_ncols=True)


def say(text):
    """Print a line without tearing a bar that is on the screen."""
    if RANK == 0:
        tqdm.write(text)
