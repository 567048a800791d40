"""Scans to learn from: the truth that comes with each is what the picture shows."""

import cv2
import numpy as np
import pytest

from processing.eye import variety
from processing.eye.camera import Camera
from processing.eye.curves import draw_curves, draw_frame
from processing.eye.lesions import RING, measure_heights, paint_cysts
from processing.eye.lesson import FLUIDS, draw_lesson
from processing.eye.others import draw_other

COUNT = 40


@pytest.fixture(scope="module")
def lessons():
    return [draw_lesson([7, k], rows=496, columns=384) for k in range(COUNT)]


def test_a_seed_determines_every_byte():
    first, again, other = (draw_lesson([3, k], columns=128) for k in (5, 5, 6))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (200, 333), (496, 768)])
def test_any_size(rows, columns):
    lesson = draw_lesson(1, rows=rows, columns=columns)
    assert lesson.image.shape == (rows, columns) and lesson.image.dtype == np.uint8
    assert lesson.masks.shape == (len(FLUIDS), rows, columns)
    assert lesson.ilm_row.shape == lesson.bm_row.shape == lesson.is_readable.shape == (columns,)


def test_membranes_never_cross_and_fluid_lies_between_them(lessons):
    for lesson in lessons:
        seen = np.isfinite(lesson.ilm_row)
        assert (lesson.ilm_row[seen] < lesson.bm_row[seen]).all()
        rows = np.arange(len(lesson.image))[:, None]
        between = (rows >= lesson.ilm_row - 1) & (rows <= lesson.bm_row + 1)
        assert not (lesson.masks.any(axis=0) & ~between).any()
        assert not lesson.masks[:, :, ~seen].any()


def test_fluids_do_not_overlap_but_for_foci(lessons):
    assert all((lesson.masks[:3].sum(axis=0) <= 1).all() for lesson in lessons)


def test_what_is_marked_can_be_seen(lessons):
    """Fluid is darker than tissue, foci brighter than what is around them, the retina brighter than the vitreous."""
    darker, brighter, lit = [], [], []
    for lesson in lessons:
        image, rows = lesson.image.astype(float), np.arange(len(lesson.image))[:, None]
        tissue = (rows > lesson.ilm_row + 3) & (rows < lesson.bm_row - 3) & ~lesson.masks.any(axis=0)
        tissue &= lesson.is_readable
        vitreous = (rows < lesson.ilm_row - 6) & lesson.is_readable & (rows > 30)
        if min(tissue.sum(), vitreous.sum()) < 500:
            continue
        lit.append(image[tissue].mean() > image[vitreous].mean())
        for mask, reach, seen, sign in ((lesson.masks[0], 21, darker, -1), (lesson.masks[3], 9, brighter, 1)):
            mask = mask & lesson.is_readable
            if mask.sum() > 30:
                around = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach))).astype(bool) & tissue
                seen.append(sign * (image[mask].mean() - image[around].mean()) > 0)
    assert np.mean(lit) == np.mean(darker) == np.mean(brighter) == 1
    assert min(len(lit), len(darker), len(brighter)) >= 10


def plain_camera(**how):
    """A device that shows greys as they are."""
    usual = {"blur_px": (0, 0), "grain_px": (0, 0), "speckle": 0.2, "floor": 5, "lifted": 0, "fall_off": 0, "gamma": 1,
             "gain": 1, "offset": 0}
    return Camera(**{**usual, **how})


def test_a_cyst_is_even_and_can_be_told_from_the_darkest_tissue_about_it():
    """Across layers of 70 and 120 each piece has one grey, below 70 by as much as the noise there demands."""
    camera, seen = plain_camera(), 0
    for seed in range(30):
        rng = np.random.default_rng([4, seed])
        curves = draw_curves(rng, draw_frame(rng, 496, 384))
        heights = measure_heights(curves)
        image = np.where(heights // 40 % 2, 120, 70).astype(np.float32)
        mask = paint_cysts(rng, image, heights, curves, camera, np.ones(384, np.float32))
        count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        for number in range(1, count):
            piece = pieces == number
            ring = cv2.dilate(piece.astype(np.uint8), RING).astype(bool) & ~mask
            if ring.any() and (np.abs(image[ring] - 70) < 1e-3).mean() > 0.3:
                seen += 1
                assert np.ptp(image[piece]) < 1e-3
                assert image[piece][0] <= 70 - variety.LEAST_CONTRAST * camera.find_noise(np.float32(70)) + 1e-3
    assert seen > 40


def test_noise_that_black_cuts_off_is_not_taken_for_less():
    camera = plain_camera(offset=-20, speckle=0, floor=10)         # noise of 6 greys; what is below 20 is black
    assert camera.find_noise(np.float32([100, 22, 18])) == pytest.approx([6, 6, 4])


def test_columns_without_light_cannot_be_read_and_dim_ones_can():
    noisy, clear = plain_camera(floor=25), plain_camera(floor=2)
    assert noisy.find_hidden(np.float32([10, 29, 40, 120])).tolist() == [True, True, False, False]
    assert clear.find_hidden(np.float32([10, 29, 40, 120])).tolist() == [True, False, False, False]


def test_lessons_differ_widely(lessons):
    """With and without each fluid, thin and thick, dark and bright, with columns that cannot be read."""
    has = np.array([lesson.masks.any(axis=(1, 2)) for lesson in lessons]).mean(axis=0)
    assert ((has > 0.1) & (has < 0.8)).all()
    thickness = [np.nanmedian((lesson.bm_row - lesson.ilm_row) * lesson.um_down) for lesson in lessons]
    assert np.percentile(thickness, 5) < 260 and np.percentile(thickness, 95) > 400
    assert any(not lesson.is_readable.all() for lesson in lessons)
    scales = np.array([(lesson.um_down, lesson.um_across) for lesson in lessons])
    assert (scales.max(axis=0) > 1.7 * scales.min(axis=0)).all()


def test_pictures_without_a_retina_say_so_and_differ():
    others = [draw_other([5, k], rows=128, columns=192) for k in range(40)]
    assert len({other.image.tobytes() for other in others}) == 40
    for other in others:
        assert other.image.shape == (128, 192) and other.image.dtype == np.uint8
        assert np.isnan(other.ilm_row).all() and not other.is_readable.any() and not other.masks.any()
    assert np.array_equal(draw_other([5, 3], rows=64, columns=80).image, draw_other([5, 3], rows=64, columns=80).image)
    assert sum(other.image.std() > 3 for other in others) > 25      # few are even
