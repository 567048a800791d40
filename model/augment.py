"""Random changes of training images that leave the labels true. Reads and writes nothing.

B images, C channels, H and W pixels.
"""

import numpy as np
import torch

CONTRAST, BRIGHTNESS = 0.15, 0.05       # largest change: devices and exposures differ by more than that


def vary_images(inputs: dict[str, torch.Tensor], rows: np.ndarray, *, seed: int, epoch: int) -> dict[str, torch.Tensor]:
    """Mirror half of the images, and change contrast and brightness a little: `augment="mild"`.

    What an image gets depends on seed, epoch and row alone, so that a resumed run goes on as it would have.

    Args:
        inputs: by view, B x C x H x W float32 in 0-1; all views of an image are mirrored alike.
        rows: B indices.
        seed: of the run.
        epoch: its number.
    """
    drawn = np.stack([np.random.default_rng([seed, epoch, row]).random(3) for row in rows.tolist()] or [np.empty(3)])
    device = next(iter(inputs.values())).device
    mirror, contrast, brightness = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1) for values in drawn[:len(rows)].T
    )
    return {
        view: (torch.where(mirror < 0.5, images.flip(3), images) * (1 + CONTRAST * (2 * contrast - 1))
               + BRIGHTNESS * (2 * brightness - 1)).clamp(0, 1)
        for view, images in inputs.items()
    }
