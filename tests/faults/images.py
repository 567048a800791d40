"""Images: damaged, odd and hostile files, each of which option 0 cuts rightly or names in problems.csv."""

import contextlib
import errno
import io
import os
import random
import shutil
import struct
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from config import VIEWS, Paths
from processing import columns as c
from processing.data_factory import processing_data
from processing.errors import PipelineError
from processing.files import write_text
from tests.faults import Figure, scaled
from tests.helpers import make_screen

BSCAN = VIEWS["bscan"]
IMAGES, BATCH = 2000, 200
EYE = "9501L"
VISIT = "Pre Injection OCT Images"
TEST_INFO = f"patient ID,gender,age,diagnosis,anti-VEGF,preVA\n{EYE},Female,77,CNVM,Avastin,0.32\n"
JPEG_QUALITY = 95                   # of crops
MEAN_ERROR, LARGE_ERROR, LARGE_SHARE = 1.5, 16, 0.002       # of a crop against the reference, in grey levels
ORIENTATION = 0x0112                # EXIF
RIGHT, NAMED, EITHER = "right", "named", "either"           # what must come of an image


class Kind(NamedTuple):
    """One way of being hostile."""

    make: object        # function (file, numbers, screen): writes the file
    wanted: str = EITHER
    share: int = 1      # how many more of these than of others


# ---- Makers. `screen` is uint8, H x W x 3; `numbers` is random.Random.

def _encode(screen, suffix=".jpg", *options):
    return cv2.imencode(suffix, screen, options)[1].tobytes()


def _jpeg(screen):
    return _encode(screen[..., 0])


def _png(screen):
    return _encode(screen[..., 0], ".png", cv2.IMWRITE_PNG_COMPRESSION, 1)


def _write(encode):
    """Make what `encode` gives of a screen."""
    return lambda file, numbers, screen: file.write_bytes(encode(screen))


def _cut(encode):
    """Cut off at 1 to 99 %."""
    def make(file, numbers, screen):
        data = encode(screen)
        file.write_bytes(data[: len(data) * numbers.randint(1, 99) // 100])

    return make


def _changed(encode, count):
    """Change up to `count` bytes."""
    def make(file, numbers, screen):
        data = bytearray(encode(screen))
        for _ in range(numbers.randint(1, count)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        file.write_bytes(data)

    return make


def _with_pillow(mode, image_format, **options):
    """As Pillow writes an image of that mode."""
    def make(file, numbers, screen):
        Image.fromarray(screen[..., ::-1]).convert(mode).save(file, image_format, **options)

    return make


def _rotated(orientation):
    def make(file, numbers, screen):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        Image.fromarray(screen[..., ::-1]).save(file, "JPEG", exif=exif)

    return make


def _sized(height, width):
    return lambda file, numbers, screen: file.write_bytes(_encode(make_screen(height, width, seed=1)))


def _16_bit(file, numbers, screen):
    deep = screen[..., 0].astype(np.uint16) * 257
    file.write_bytes(_encode(deep, ".png", cv2.IMWRITE_PNG_COMPRESSION, 1))


def _giant_jpeg(file, numbers, screen):
    data = bytearray(_jpeg(screen))
    place = data.index(b"\xff\xc0") + 5
    data[place:place + 4] = struct.pack(">HH", 20_000, 20_000)
    file.write_bytes(data)


def _giant_png(file, numbers, screen):
    data = bytearray(_png(screen))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    file.write_bytes(data)


def _bytes(data):
    return lambda file, numbers, screen: file.write_bytes(data)


def _forbidden(file, numbers, screen):
    file.write_bytes(_jpeg(screen))
    file.chmod(0)


def _linked(name):
    """A link to `name`, from the image's own folder; {} is the image's own name."""
    return lambda file, numbers, screen: file.symlink_to(name.format(file.name))


def _linked_to_screen(file, numbers, screen):
    target = file.with_suffix(".bin")
    target.write_bytes(_jpeg(screen))
    file.symlink_to(target.name)


KINDS = {
    "good.jpg": Kind(_write(_jpeg), RIGHT, 2),
    "good.png": Kind(_write(_png), RIGHT),
    "colour.jpg": Kind(_write(_encode), RIGHT),
    "cut.jpg": Kind(_cut(_jpeg), EITHER, 12),
    "cut.png": Kind(_cut(_png), EITHER, 4),
    "changed.jpg": Kind(_changed(_jpeg, 3), EITHER, 8),
    "changed-more.jpg": Kind(_changed(_jpeg, 200), EITHER, 4),
    "changed.png": Kind(_changed(_png, 3), EITHER, 4),
    "empty.jpg": Kind(_bytes(b""), NAMED),
    "text.jpg": Kind(_bytes(b"OCT of the left eye\n" * 50), NAMED),
    "zeros.jpeg": Kind(_bytes(bytes(5000)), NAMED),
    "start-only.jpg": Kind(_bytes(b"\xff\xd8\xff"), NAMED),
    "folder.jpg": Kind(lambda file, numbers, screen: file.mkdir(), NAMED),
    "16-bit.png": Kind(_16_bit, RIGHT),
    "grey.jpg": Kind(_with_pillow("L", "JPEG"), RIGHT),
    "rgba.png": Kind(_with_pillow("RGBA", "PNG", compress_level=1), RIGHT),
    "grey-alpha.png": Kind(_with_pillow("LA", "PNG", compress_level=1), RIGHT),
    "palette.png": Kind(_with_pillow("P", "PNG", compress_level=1), RIGHT),
    "two-colours.png": Kind(_with_pillow("1", "PNG"), RIGHT),
    "cmyk.jpg": Kind(_with_pillow("CMYK", "JPEG"), RIGHT),
    "progressive.jpg": Kind(_with_pillow("RGB", "JPEG", progressive=True), RIGHT),
    "upright.jpg": Kind(_rotated(1), RIGHT),
    **{f"rotated-{number}.jpg": Kind(_rotated(number), NAMED) for number in range(2, 9)},
    "one-pixel.jpg": Kind(_sized(1, 1), NAMED),
    "left-of-box.jpg": Kind(_sized(596, BSCAN.left), NAMED),
    "smaller.jpg": Kind(_sized(BSCAN.top + 30, BSCAN.left + 40), RIGHT),
    "narrow.jpg": Kind(_sized(596, 1008), RIGHT),
    "wide.jpg": Kind(_sized(700, 1500), RIGHT),
    "giant.jpg": Kind(_giant_jpeg, NAMED),
    "giant.png": Kind(_giant_png, NAMED),
    "forbidden.jpg": Kind(_forbidden, NAMED),
    "loop.jpg": Kind(_linked("{}"), NAMED),
    "dangling.jpg": Kind(_linked("nowhere"), NAMED),
    "linked.jpg": Kind(_linked_to_screen, RIGHT),
    "into-a-folder.jpg": Kind(_linked("."), NAMED),
    **{f"{name.lower()}.jpg": Kind(_with_pillow("RGB", name), NAMED) for name in ("GIF", "BMP", "TIFF", "WEBP", "PPM")},
    "png-as.jpg": Kind(_write(_png), RIGHT),
    "jpeg-as.png": Kind(_write(_jpeg), RIGHT),
    "trailing.jpg": Kind(_write(lambda screen: _jpeg(screen) + bytes(1000)), RIGHT),
    "leading.jpg": Kind(_write(lambda screen: b"\n" + _jpeg(screen)), NAMED),
}


# ---- The count

class Result(NamedTuple):
    """What became of one image."""

    name: str
    fate: str           # RIGHT, NAMED, or what is wrong
    held: bool
    as_drawn: bool      # whether its pixels are those of the picture before it was damaged


def hostile_images(share, folder):
    """Hostile images by the batch, as the eye of a small source tree, through option 0."""
    count = scaled(IMAGES, share)
    names = [name for name, kind in KINDS.items() for _ in range(kind.share)]
    names = names if count >= len(names) else random.Random(1).sample(names, count)
    numbers, results = random.Random(0), []
    for first in range(0, count, BATCH):
        chosen = [names[case % len(names)] for case in range(first, min(first + BATCH, count))]
        results += _run_batch(folder / str(first), chosen, numbers, first)
        shutil.rmtree(folder / str(first))
    fates = Counter(result.fate for result in results)
    damaged = sum(result.fate == RIGHT and not result.as_drawn and result.name.startswith(("cut", "changed"))
                  for result in results)
    failures = [f"{result.name}: {result.fate}" for result in results if not result.held]
    detail = f"{fates[RIGHT]} right, {fates[NAMED]} named in problems.csv; of the right, {damaged} are damaged bytes " \
             "as Pillow, too, decodes them"
    return Figure("hostile images, each right or named, no traceback", len(results), len(results) - len(failures),
                  "; ".join([detail, *failures[:5]]))


def _run_batch(folder, names, numbers, first):
    """Make the images of a batch, run option 0 on them, and judge each."""
    paths = Paths(folder)
    place = paths.source / "final" / "Test_set" / EYE / VISIT
    place.mkdir(parents=True)
    write_text(place.parent.parent / "test_info.csv", TEST_INFO)
    screens = {}
    for number, name in enumerate(names):
        file = place / f"{first + number}-{name}"
        screens[file] = make_screen(seed=numbers.randrange(8))
        KINDS[name].make(file, numbers, screens[file])
    put_last = place / "whole.jpg"      # a batch of faulty images alone would be refused as a whole
    put_last.write_bytes(_jpeg(make_screen()))
    said = _process(paths)
    if said:
        return [Result(name, said, False, False) for name in names]
    images, problems = (pd.read_csv(table) for table in (paths.image_table, paths.problems))
    problems = problems[~problems["problem"].str.contains("cut all the same")]      # odd screens, which are used
    crops, named = dict(zip(images[c.SOURCE], images[c.PROCESSED], strict=True)), set(problems[c.SOURCE])
    return [_judge(paths, file, name, screens[file], crops, named)
            for name, file in zip(names, screens, strict=True)]


def _process(paths):
    """Option 0, with what it prints kept away from the terminal. Returns what went wrong, or nothing."""
    really = Path.read_bytes

    def read_bytes(path):       # a superuser's reading is not stopped by permissions
        if path.name.endswith("forbidden.jpg"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path)

    with _stderr_in_file() as errors, contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            with mock.patch.object(Path, "read_bytes", read_bytes):
                processing_data(paths)
        except PipelineError as error:
            return f"the stage stopped: {error}"
        except Exception as error:
            return f"the stage crashed: {error!r}"
        return "a traceback" if "Traceback" in said.getvalue() + errors.read_text(errors="replace") else ""


@contextlib.contextmanager
def _stderr_in_file():
    """Send what decoders written in C say to a file, too. Yields its path."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stderr")
        kept = os.dup(2)
        with open(file, "wb") as target:
            os.dup2(target.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _judge(paths, file, name, screen, crops, named):
    """Compare the crop with what Pillow makes of the same bytes; where it refuses them, with the picture itself."""
    source, wanted = paths.relative(file), KINDS[name].wanted
    if (source in crops) == (source in named):
        return Result(name, "neither right nor named, or both", False, False)
    if source in named:
        return Result(name, NAMED, wanted != RIGHT, False)
    crop = cv2.imread(str(paths.root / crops[source]))
    reference = _decode(file.read_bytes())
    as_drawn = crop is not None and _differ_little(crop, _as_crop(screen))
    right = crop is not None and (as_drawn if reference is None else _differ_little(crop, _as_crop(reference)))
    fate = RIGHT if right else "a wrong crop" + (" of what Pillow refuses" if reference is None else "")
    return Result(name, fate, right and wanted != NAMED, as_drawn)


def _decode(data):
    """Pixels by Pillow, uint8, H x W x 3, blue first; None where it refuses."""
    try:
        image = Image.open(io.BytesIO(data))
        pixels = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    except Exception:
        return None
    if pixels.ndim == 2:        # 16 bits: the high byte
        return np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return pixels[..., ::-1]


def _as_crop(screen):
    """The crop of a screen, through JPEG as option 0 stores it, but by Pillow."""
    part = screen[BSCAN.top:BSCAN.bottom, BSCAN.left:BSCAN.right]
    crop = np.zeros((BSCAN.height, BSCAN.width, 3), np.uint8)
    crop[:part.shape[0], :part.shape[1]] = part
    buffer = io.BytesIO()
    Image.fromarray(crop[..., ::-1]).convert("L").save(buffer, "JPEG", quality=JPEG_QUALITY)      # by BT.601, as we do
    return np.asarray(Image.open(buffer).convert("RGB"))[..., ::-1]


def _differ_little(crop, reference):
    error = np.abs(crop.astype(np.int16) - reference)
    return crop.shape == reference.shape and error.mean() < MEAN_ERROR and (error > LARGE_ERROR).mean() < LARGE_SHARE


FIGURES = [hostile_images]
