"""What a scan shows beside the retina: choroid, vitreous, and what devices draw on the picture. No file.

Arrays are H x W float32, greys 0 to 255.
"""

import cv2
import numpy as np

from processing.eye import variety as v
from processing.eye.curves import Curves, Rng, make_texture, pick, pick_small, wave


def paint_choroid(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves) -> None:
    """All that lies below BM: choriocapillaris, stroma that fades, dark vessels, sclera."""
    frame = curves.frame
    depth = np.maximum(-heights, 0)
    thick_um = pick(rng, v.CHOROID_UM) * (1 + 0.2 * wave(rng, frame.columns, 900 / frame.um_across))
    thick_um = np.maximum(thick_um, 40).astype(np.float32)
    capillaries_um, bright = pick(rng, v.CAPILLARIES_UM), pick(rng, (60, 190))
    small = make_texture(rng, image.shape, (30 / frame.um_down, 110 / frame.um_across))
    large = make_texture(rng, image.shape, (85 / frame.um_down, 400 / frame.um_across))
    deep = np.clip((depth - 40) / 50, 0, 1)
    lumen = np.clip(pick(rng, (0.6, 2.2)) * (0.7 * small * (1 - deep) + (large + 0.4 * small) * deep) + 0.2, 0, 1)
    stroma = pick(rng, (45, 150))
    floor = pick(rng, (0, 60))
    fade = np.exp(-(depth / thick_um) ** pick(rng, (1.0, 2.4)))
    grey = floor + np.maximum(stroma - floor, 0) * fade * (1 - pick(rng, (0.1, 0.9)) * lumen)
    grey += np.maximum(bright - grey, 0) * np.exp(-np.square(np.square(depth / capillaries_um)))
    np.copyto(image, grey, where=heights < 0)


def paint_front(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves) -> None:
    """What lies above the retina: the vitreous, its detached face, floaters, an epiretinal membrane."""
    frame, ilm_um = curves.frame, curves.surfaces_um[0]
    if rng.random() < v.FLOATERS:
        floaters = make_texture(rng, image.shape, (120 / frame.um_down, 400 / frame.um_across))
        image += (heights > ilm_um) * np.clip(floaters - 0.8, 0, 1) * pick(rng, (5, 40))
    if rng.random() < v.HYALOID:
        off_um = pick_small(rng, v.HYALOID_UM) * (1 + 0.5 * wave(rng, frame.columns, pick(rng, (100, 500))))
        off_um = np.maximum(off_um, 0 if rng.random() < 0.3 else 8)
        line = np.exp(-((heights - ilm_um - off_um) / (0.6 * frame.um_down + pick(rng, (2, 9)))) ** 2)
        shown = np.clip(wave(rng, frame.columns, 120) + pick(rng, (-0.5, 1.5)), 0, 1)
        image += line * (shown * pick(rng, v.HYALOID_GREY)) * (heights > ilm_um)
    if rng.random() < v.EPIRETINAL:
        line = np.exp(-((heights - ilm_um + 5) / (frame.um_down + pick(rng, (2, 8)))) ** 2) * (heights <= ilm_um)
        shown = np.clip(wave(rng, frame.columns, 150) + pick(rng, (0, 2)), 0, 1)
        image += np.maximum(pick(rng, v.EPIRETINAL_GREY) - image, 0) * line * shown


def add_rims(rng: Rng, shown: np.ndarray) -> tuple[int, int, int, int]:
    """Black or white rims, drawn into `shown`: how many px at top, bottom, left, right."""
    rims = [int(pick_small(rng, v.RIM_PX)) if rng.random() < v.RIM else 0 for _ in range(4)]
    top, bottom, left, right = rims
    top = top // 2          # a wide one would hide the retina
    grey = 255 if rng.random() < 0.15 else int(pick(rng, (0, 6)))
    shown[:top], shown[len(shown) - bottom:] = grey, grey
    shown[:, :left], shown[:, shown.shape[1] - right:] = grey, grey
    return top, bottom, left, right


def add_marks(rng: Rng, shown: np.ndarray) -> None:
    """Scale bar, box and caption, as devices draw them into the picture."""
    rows, columns = shown.shape
    if rng.random() < v.SCALE_BAR:
        across, down, grey = int(pick(rng, (10, 60))), int(pick(rng, (20, 90))), int(pick(rng, (180, 255)))
        left, low = int(pick(rng, (4, 0.6 * columns))) if rng.random() < 0.3 else 10, rows - int(pick(rng, (6, 30)))
        corner = np.array([(left, low - down), (left, low), (left + across, low)], np.int32)
        cv2.polylines(shown, [corner], False, grey, int(rng.integers(1, 3)))
        cv2.putText(shown, "200 um", (left + 5, low - 5), cv2.FONT_HERSHEY_SIMPLEX, pick(rng, (0.3, 0.5)), grey, 1,
                    cv2.LINE_AA)
    if rng.random() < v.BOX:
        size, grey = int(pick(rng, (18, 60))), int(pick(rng, (120, 255)))
        left, top = int(rng.choice([3, columns - size - 4])), int(rng.choice([3, rows - size - 4]))
        cv2.rectangle(shown, (left, top), (left + size, top + size), int(pick(rng, (0, 255))), -1)
        cv2.rectangle(shown, (left, top), (left + size, top + size), grey, 1)
        for letter, place in zip("SINT", ((0.4, 0.3), (0.4, 0.95), (0.05, 0.6), (0.75, 0.6)), strict=True):
            at = (int(left + place[0] * size), int(top + place[1] * size))
            cv2.putText(shown, letter, at, cv2.FONT_HERSHEY_SIMPLEX, size / 130, grey, 1, cv2.LINE_AA)
    if rng.random() < v.CAPTION:
        at = int(pick(rng, (0, 0.5 * columns))), int(rng.choice([14, rows - 8]))
        cv2.putText(shown, "OCT 30 deg ART(15)", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, int(pick(rng, (150, 255))), 1)
