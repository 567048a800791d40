"""Decoded crops in one file, so that no epoch decodes a JPEG anew.

data/processed/pixels.bin holds the pixels one image after the other, a byte each where the image is grey, three
where it is coloured; pixels.npz says where each lies, what it was made of, and its checksum. Both are made when a
training first wants them, and anew when a crop is new, gone or changed. H and W pixels, C channels.
"""

import hashlib
import shutil
import zlib
from contextlib import suppress

import numpy as np

from processing.errors import PipelineError
from processing.files import locked, replacing, stat_files
from processing.images import ImageError, read_pixels
from processing.parallel import map_in_threads
from processing.terminal import progress, say

FORMAT = 1                          # raised when the layout changes
SPARE_BYTES = 2**30                 # of the disk, which the cache leaves free
SLOWER = "Crops are decoded anew in each epoch: slower, with the same results."


class PixelCache:
    """Pixels by file name. Made by `open_cache`.

    Args:
        file: where the pixels lie.
        pixels: uint8 array of all its bytes, maybe memory-mapped.
        places: dict of name -> (first byte, channels, CRC-32); an image that could not be decoded has no place.
        crop_size: H, W.
    """

    def __init__(self, file, pixels, places, crop_size):
        self._file, self._pixels, self._places, self._crop_size = file, pixels, places, crop_size
        self._verified, self._is_whole = set(), True

    def read(self, name):
        """C x H x W uint8 of an image, red first where C is 3; None where it is not in the cache, or damaged there."""
        if name not in self._places:
            return None
        start, channels, check = self._places[name]
        height, width = self._crop_size
        flat = self._pixels[start:start + channels * height * width]
        if name not in self._verified:
            if zlib.crc32(flat) != check:
                self._give_up()
                return None
            self._verified.add(name)
        return flat.reshape(channels, height, width)

    def _give_up(self):
        """Say once that there is damage, and let the next training make the cache anew."""
        if self._is_whole:
            self._is_whole = False
            say(f"{self._file} is damaged; the crops that are hit are decoded from their files in each epoch: slower, "
                "with the same results. The next training makes it anew.")
            with suppress(OSError):
                self._file.with_suffix(".npz").unlink(missing_ok=True)


def open_cache(paths, names, crop_size):
    """The cache of these crops, built first where there is none that fits.

    Args:
        paths: config.Paths.
        names: processed_path of each crop.
        crop_size: H, W in pixels that the crops have.

    Returns:
        PixelCache; or None where it cannot be built (disk full, folder not writable, another process builds it),
        which is said.
    """
    key = _fingerprint(paths.root, names, crop_size)
    try:
        cache, reason = _open(paths.pixel_cache, names, key, crop_size)
        if cache is None:
            with locked(paths.pixel_cache.with_suffix(".lock")):
                say(f"{paths.pixel_cache} {reason}; decoding {len(names)} crops.")
                _build(paths, names, crop_size, key)
            cache, reason = _open(paths.pixel_cache, names, key, crop_size)
        return cache
    except PipelineError as error:
        say(f"{error} {SLOWER}")
        return None


def _fingerprint(root, names, crop_size):
    """SHA-256 over what the cache is made of: path, size and time of each crop."""
    digest = hashlib.sha256(f"{FORMAT} {tuple(crop_size)}\n".encode())
    for name, state in zip(names, stat_files(root, names), strict=True):
        digest.update(f"{name}\t{state.st_size}\t{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _open(file, names, key, crop_size):
    """(PixelCache, "") of the file that is there; or (None, why there is none that fits)."""
    index = file.with_suffix(".npz")
    if not (file.is_file() and index.is_file()):
        return None, "is not there yet"
    try:
        with np.load(index, allow_pickle=False) as content:
            made_of, size = str(content["key"]), int(content["size"])
            columns = [content[name].tolist() for name in ("names", "starts", "channels", "checks")]
        places = {name: place for name, *place in zip(*columns, strict=True)}
        if made_of != key:
            return None, "is of other crops"
        if file.stat().st_size != size:
            return None, "is not whole"
        if not places.keys() <= set(names):
            return None, "is damaged"
        pixels = np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)
    except Exception:       # whatever a damaged index makes zipfile and numpy raise
        return None, "is damaged"
    return PixelCache(file, pixels, places, tuple(crop_size)), ""


def _build(paths, names, crop_size, key):
    """Decode all crops into the file, on all cores, and write its index.

    Raises:
        PipelineError: no room, or the file cannot be written.
    """
    height, width = crop_size
    file = paths.pixel_cache
    for leftover in file.parent.glob(".*.tmp.bin"):         # of a program that was killed while it built one
        leftover.unlink()
    free = shutil.disk_usage(file.parent).free
    if free < len(names) * height * width + SPARE_BYTES:
        raise PipelineError(f"{file} would need {len(names) * height * width / 1e9:.1f} GB, {free / 1e9:.1f} are free.")
    places, end = [], 0
    with replacing(file) as temporary, open(temporary, "wb") as target:
        decoded = map_in_threads(lambda name: _decode(paths.root / name), names)
        for name, pixels in zip(names, progress(decoded, total=len(names), label="decode", unit="image"), strict=True):
            if pixels is not None and pixels.shape[1:] == (height, width):
                target.write(pixels)
                places.append((name, end, len(pixels), zlib.crc32(pixels)))
                end += pixels.size
    columns = zip(*places, strict=True) if places else [()] * 4
    arrays = dict(zip(("names", "starts", "channels", "checks"), map(np.array, columns), strict=True))
    with replacing(file.with_suffix(".npz")) as temporary:
        np.savez(temporary, key=key, size=end, **arrays)


def _decode(file):
    """C x H x W uint8, contiguous; None where the crop cannot be read: reading it from its file says why."""
    try:
        return np.ascontiguousarray(read_pixels(file, 1))
    except ImageError:
        return None
