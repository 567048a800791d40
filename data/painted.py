"""Crops with what Model-Segmentation read of their scans drawn on them, for the pictures of an evaluation.

Reads screens; writes nothing. H and W pixels of a view.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from config import Paths, View
from model.registry import load_model
from model.segmentation_model import WEIGHTS
from processing.bscans import find_bscan
from processing.errors import PipelineError
from processing.images import ImageError, crop_image, read_image
from processing.overlays import paint_scan


def paint_views(paths: Paths, sources: Sequence[str], view: View) -> list[np.ndarray]:
    """Cut a view out of screens on whose B-scans membranes and fluid are drawn.

    Args:
        paths: config.Paths.
        sources: of the screens, relative to the root.
        view: what is cut out.

    Returns:
        uint8 arrays, H x W x 3, blue first.

    Raises:
        PipelineError: a screen cannot be read, or holds no B-scan, or nothing of the view.
    """
    screens = []
    for source in sources:
        try:
            screen = read_image(paths.root / source)
            screens.append((screen, find_bscan(screen)))
            crop_image(screen, view)
        except ImageError as error:
            raise PipelineError(f"{paths.root / source}: {error}.") from error
    network: Any = load_model(WEIGHTS, torch.device("cpu"), unit="scans")
    pictures = []
    for (screen, _), (scan, reading) in zip(screens, network.read(scan for _, scan in screens), strict=True):
        painted = paint_scan(scan.pixels, reading.ilm_row, reading.bm_row, reading.fluids)
        rows, columns = painted.shape[:2]
        screen[:rows, screen.shape[1] - columns:] = painted[..., ::-1]      # right of the fundus picture, or all of it
        pictures.append(crop_image(screen, view))
    return pictures
