"""Decode, crop, encode: bytes <-> arrays. Pixels are uint8, arrays H x W x 3 in OpenCV's order (blue first)."""

import struct
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from config import View
from processing.errors import PipelineError, is_out_of_memory
from processing.files import write_bytes

# A screen has 0.75 million pixels; a header that claims many more is damaged, or made to fill the memory
MAX_PIXELS = 50_000_000
DEPTHS = (8, 10, 12, 16)        # bits of a grey that devices use
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


class ImageError(PipelineError):
    """An image that cannot be read or cropped; the message is the reason, without the path."""


class ImageFileError(ImageError):
    """The system refused to read the file; whatever is in it may be sound."""


def read_image(path: Path) -> np.ndarray:
    """Read an image file of any name (non-ASCII too).

    Decodes from memory: given a path, OpenCV turns a truncated JPEG into a full-size wrong picture.

    Returns:
        uint8 array, H x W x 3, blue first; grey files have three equal channels.

    Raises:
        ImageError: the file cannot be read or decoded.
    """
    return decode_image(_read(path))


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Read an image file as a model sees it.

    Args:
        path: the file.
        channels: 1 or 3.

    Returns:
        uint8 array, channels x H x W, red first. Of one channel: what has colours is turned grey as cut_view does.

    Raises:
        ImageError: as read_image.
    """
    return decode_pixels(_read(path), channels)


def decode_pixels(data: bytes, channels: int) -> np.ndarray:
    """Decode the bytes of an image file as read_pixels does."""
    if data.startswith(_JPEG) and b"Exif\0\0" not in data:       # at once to what is wanted: less time
        width, height = read_size(data)
        stored = simplejpeg.decode_jpeg_header(data)[2]
        if width * height <= MAX_PIXELS and stored in (("Gray",) if channels == 1 else ("Gray", "YCbCr")):
            return _decode_strictly(data, "GRAY" if channels == 1 else "RGB").transpose(2, 0, 1)
    image = decode_image(data)
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[None] if channels == 1 else image[..., ::-1].transpose(2, 0, 1)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file into a uint8 array, H x W x 3, blue first.

    Raises:
        ImageError: no image, or a damaged one.
    """
    width, height = read_size(data)
    if width * height > MAX_PIXELS:
        raise ImageError(f"it claims to have {width} x {height} pixels, more than any screen")
    if not data.startswith(_JPEG):
        image = _imdecode(data, cv2.IMREAD_IGNORE_ORIENTATION)
    elif simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK"):
        _decode_strictly(data, "CMYK")
        image = _imdecode(data, cv2.IMREAD_IGNORE_ORIENTATION)
    else:
        image = _decode_strictly(data, "BGR")
    if b"Exif\0\0" in data and not np.array_equal(image, _imdecode(data)):
        raise ImageError("it carries a rotation mark (EXIF); which way is up is not certain. Save it without")
    return image


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror or error}") from error


def _decode_strictly(data, colours):
    """Decode a JPEG strictly: libjpeg itself only warns of damage within the picture and goes on, OpenCV with it."""
    try:
        return simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise ImageError(f"cannot be decoded: damaged ({error})") from error


def _imdecode(data, flags=0):
    """uint8 H x W x 3; of 16 bits a grey, which often hold 10 or 12, the upper eight of those."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | flags)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise
        raise ImageError(f"cannot be decoded: {error.err}") from error
    if image is None:
        raise ImageError("cannot be decoded: damaged")
    used = int(image.max()).bit_length()
    return (image >> next(bits for bits in DEPTHS if used <= bits) - DEPTHS[0]).astype(np.uint8)


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels that the header of a JPEG or PNG file states; nothing is decoded.

    Raises:
        ImageError: empty, another format, or no size in it.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(_JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            return width, height
    except (struct.error, ValueError) as error:
        raise ImageError(f"cannot be decoded: damaged in its header ({error})") from error
    raise ImageError("cannot be decoded: damaged, or neither JPEG nor PNG")


def crop_image(image: np.ndarray, view: View) -> np.ndarray:
    """Cut a view's box out of an image; what lies outside the image is black.

    Args:
        image: uint8 array, H x W x 3.
        view: its box in pixels, and how many columns become one; its channels do not matter here.

    Returns:
        uint8 array, view.height x view.width x 3.

    Raises:
        ImageError: the image holds nothing of the box.
    """
    part, wide = image[view.top:view.bottom, view.left:view.right], view.right - view.left
    if part.size == 0:
        height, width = image.shape[:2]
        raise ImageError(f"too small: {width} x {height} pixels hold nothing of the crop box")
    if part.shape[:2] != (view.height, wide):
        crop = np.zeros((view.height, wide, 3), np.uint8)
        crop[:part.shape[0], :part.shape[1]] = part
        part = crop
    if view.narrow == 1:
        return part
    return np.asarray(cv2.resize(part, (view.width, view.height), interpolation=cv2.INTER_AREA))


def cut_view(screen: np.ndarray, view: View) -> tuple[bytes, bool]:
    """The crop of a view as it is stored: a JPEG of view.channels channels, at OpenCV's default quality (95).

    A grey view of a screen that has colours there is turned grey by its luma as ITU-R BT.601 weighs it: 0.299 red +
    0.587 green + 0.114 blue. Of a grey pixel that is its own value.

    Args:
        screen: uint8 array, H x W x 3, blue first.
        view: what is cut out.

    Returns:
        data: the bytes of the JPEG file.
        turned_grey: whether colours were taken away.

    Raises:
        ImageError: the screen holds nothing of the view's box.
    """
    crop = crop_image(screen, view)
    grey = find_grey(crop) if view.channels == 1 else crop
    turned_grey = grey is None
    if grey is None:
        grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    return cv2.imencode(".jpg", grey)[1].tobytes(), turned_grey


def find_grey(image: np.ndarray) -> np.ndarray | None:
    """The one channel (H x W) of an H x W x 3 image whose three are equal in every pixel; None for any other."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)      # of a grey pixel, its own value
    return grey if cv2.norm(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), image, cv2.NORM_INF) == 0 else None


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encode an H x W x 3 image as JPEG at OpenCV's default quality (95).

    A grey image is stored with one channel: it decodes to the same pixels, in less time and space.
    """
    grey = find_grey(image)
    _, data = cv2.imencode(".jpg", image if grey is None else grey)
    return data.tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a uint8 image, H x W x 3, blue first, as JPEG, whole or not at all."""
    write_bytes(path, encode_jpeg(image))
