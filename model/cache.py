"""Decoded images of a view in one file, so that no epoch decodes a JPEG anew.

data/processed/pixels-<view>.bin holds the pixels one image after the other, a byte for each channel;
pixels-<view>.npz says where each lies, what it was made of, and its checksum. Both are made when a training first wants
them, and anew when an image is new, gone or changed. H and W pixels, C channels.
"""

import hashlib
import math
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from config import Paths
from processing.errors import PipelineError
from processing.files import hold_lock, replace_file, stat_files
from processing.parallel import map_in_threads
from processing.terminal import progress, say
from processing.views import ViewReader

FORMAT = 2                          # raised when the layout changes
SPARE_BYTES = 2**30                 # of the disk, which the cache leaves free
SLOWER = "Images are decoded anew in each epoch: slower, with the same results."


class PixelCache:
    """Pixels by name. Made by `open_cache`.

    Args:
        file: where the pixels lie.
        pixels: uint8 array of all its bytes, maybe memory-mapped.
        places: dict of name -> (first byte, CRC-32); an image that could not be decoded has no place.
        shape: C, H, W of each image.
    """

    def __init__(self, file: Path, pixels: np.ndarray, places: dict[str, tuple[int, int]],
                 shape: tuple[int, int, int]):
        self._file, self._pixels, self._places, self._shape = file, pixels, places, shape
        self._verified: set[str] = set()
        self._is_whole = True

    def read(self, name: str) -> np.ndarray | None:
        """C x H x W uint8 of an image, red first where C is 3; None where it is not in the cache, or damaged there."""
        if name not in self._places:
            return None
        start, check = self._places[name]
        flat = self._pixels[start:start + math.prod(self._shape)]
        if name not in self._verified:
            if zlib.crc32(flat.data) != check:
                self._give_up()
                return None
            self._verified.add(name)
        return flat.reshape(self._shape)

    def _give_up(self) -> None:
        """Say once that there is damage, and let the next training make the cache anew."""
        if self._is_whole:
            self._is_whole = False
            say(f"{self._file} is damaged; the images that are hit are decoded from their files in each epoch: slower, "
                "with the same results. The next training makes it anew.")
            with suppress(OSError):
                self._file.with_suffix(".npz").unlink(missing_ok=True)


def open_cache(paths: Paths, name: str, reader: ViewReader) -> PixelCache | None:
    """The cache of a view's images, built first where there is none that fits.

    Args:
        paths: config.Paths.
        name: of the view.
        reader: of all images that trainings see, each once.

    Returns:
        PixelCache; or None where it cannot be built (disk full, folder not writable, another process builds it),
        which is said.
    """
    file, key = paths.processed / f"pixels-{name}.bin", _fingerprint(paths.root, reader)
    try:
        cache, reason = _open(file, reader, key)
        if cache is None:
            with hold_lock(file.with_suffix(".lock")):
                say(f"{file} {reason}; decoding {len(reader)} images.")
                _build(file, reader, key)
            cache, reason = _open(file, reader, key)
            if cache is None:
                say(f"{file} {reason}. {SLOWER}")
        return cache
    except PipelineError as error:
        say(f"{error} {SLOWER}")
        return None


def _fingerprint(root: Path, reader: ViewReader) -> str:
    """SHA-256 over what the cache is made of: the view, and path, size and time of each file that it is read from."""
    digest = hashlib.sha256(f"{FORMAT} {tuple(reader.view)}\n".encode())
    for name, state in zip(reader.files, stat_files(root, reader.files), strict=True):
        digest.update(f"{name}\t{state and state.st_size}\t{state and state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _shape(reader: ViewReader) -> tuple[int, int, int]:
    return reader.view.channels, reader.view.height, reader.view.width


def _open(file: Path, reader: ViewReader, key: str) -> tuple[PixelCache | None, str]:
    """(PixelCache, "") of the file that is there; or (None, why there is none that fits)."""
    index = file.with_suffix(".npz")
    if not (file.is_file() and index.is_file()):
        return None, "is not there yet"
    try:
        with np.load(index, allow_pickle=False) as content:
            made_of, size = str(content["key"]), int(content["size"])
            columns = [content[name].tolist() for name in ("names", "starts", "checks")]
        places = {name: (start, check) for name, start, check in zip(*columns, strict=True)}
        if made_of != key:
            return None, "is of other images"
        if file.stat().st_size != size:
            return None, "is not whole"
        if not places.keys() <= set(reader.names):
            return None, "is damaged"
        pixels = np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"
    except Exception:       # whatever a damaged index makes zipfile and numpy raise
        return None, "is damaged"
    return PixelCache(file, pixels, places, _shape(reader)), ""


def _build(file: Path, reader: ViewReader, key: str) -> None:
    """Decode all images into the file, on all cores, and write its index.

    Raises:
        PipelineError: no room, or the file cannot be written.
    """
    for leftover in file.parent.glob(".*.tmp.bin"):         # of a program that was killed while it built one
        leftover.unlink()
    needed, free = len(reader) * math.prod(_shape(reader)), shutil.disk_usage(file.parent).free
    if free < needed + SPARE_BYTES:
        raise PipelineError(f"{file} would need {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free.")

    def decode(index: int) -> np.ndarray | None:
        try:
            return np.ascontiguousarray(reader.read(index))
        except PipelineError:       # whoever wants the image is told why
            return None

    places, end = [], 0
    with replace_file(file) as temporary, open(temporary, "wb") as target:
        decoded = map_in_threads(decode, range(len(reader)))
        bar = progress(decoded, total=len(reader), label="decode", unit="image")
        for name, pixels in zip(reader.names, bar, strict=True):
            if pixels is not None:
                target.write(pixels.data)
                places.append((name, end, zlib.crc32(pixels.data)))
                end += pixels.size
    names, starts, checks = map(np.array, zip(*places, strict=True) if places else [()] * 3)
    with replace_file(file.with_suffix(".npz")) as temporary:
        np.savez(temporary, key=key, size=end, names=names, starts=starts, checks=checks)
