r"""Paths as people paste them: quoted, behind marks that nobody sees, as a shell or a browser writes them.

Asks which files exist; reads and writes none.
"""

import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from processing.columns import drop_unseen

QUOTES = "\"'`´‘’‚‛“”„‟‹›«»「」『』《》＂＇"
IS_POSIX = os.name == "posix"       # elsewhere a backslash stands between folders
# A word of a line: blanks in it are in quotes or, for a shell, behind a backslash
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|“[^”]*”|‘[^’]*’|""" + (r"\\.|" if IS_POSIX else "") + r"""[^\s"'“”‘’])+""")


def strip_pasted(text: str) -> str:
    r"""A text without blanks, quotes and marks that cannot be seen at its ends.

    >>> strip_pasted("\u202a“D:/my eyes”\u3000")
    'D:/my eyes'
    """
    first, end = 0, len(text)
    while first < end and _is_wrapping(text[first]):
        first += 1
    while first < end and _is_wrapping(text[end - 1]):
        end -= 1
    return text[first:end]


def _is_wrapping(sign: str) -> bool:
    return sign in QUOTES or unicodedata.category(sign) in ("Cf", "Cc", "Zs", "Zl", "Zp")


def read_path(text: str, exists: Callable[[str], bool] = os.path.exists) -> str:
    """The path that is meant by a text, ~ expanded: the first reading of it that exists.

    Args:
        text: as typed or pasted.
        exists: whether there is such a path; a relative one may be looked for in several folders.

    Returns:
        If none exists, the text without what was pasted around it.
    """
    readings = [os.path.expanduser(reading) for reading in _list_readings(text)]
    return next((reading for reading in readings if exists(reading)), readings[1])


def _list_readings(text: str) -> Iterator[str]:
    text = text.replace("\0", "")       # in no path
    yield text
    bare = _read_url(strip_pasted(text))
    yield bare
    if IS_POSIX:
        for words in (drop_unseen(text), bare):
            try:
                word, = shlex.split(words)
            except ValueError:          # several words, or a quotation mark without its second
                continue
            yield _read_url(word)
    plain = drop_unseen(bare)
    yield plain
    for form in ("NFC", "NFD", "NFKC"):
        yield unicodedata.normalize(form, plain)


def _read_url(text: str) -> str:
    """The path of a file:// URL; any other text as it is."""
    if not text.lower().startswith("file:"):
        return text
    path = unquote(re.sub("^file:(//localhost)?(//(?=/))?", "", text, flags=re.IGNORECASE))
    return re.sub("^/+(?=[A-Za-z]:)", "", path)


def read_paths(line: str) -> list[str]:
    """The paths in a line: one, or several with blanks between them, those with blanks in quotes or as for a shell."""
    whole = read_path(line)
    if os.path.exists(whole):
        return [whole]
    words = [read_path(word) for word in _WORD.findall(drop_unseen(line))]
    are_several = len(words) > 1 and (drop_unseen(line)[0] in QUOTES or any(map(os.path.exists, words)))
    return words if are_several else [whole]


def show(text: object) -> str:
    r"""A path for a message: signs that cannot be seen, or not told from a blank, by their numbers.

    >>> show("\u202aD:/eyes\u3000")
    '\\u202aD:/eyes\\u3000'
    """
    return "".join(f"\\u{ord(sign):04x}" if sign != " " and not sign.isprintable()
                   and unicodedata.category(sign) != "Cs" else sign for sign in str(text))
