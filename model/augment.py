"""Random changes of training images that leave the labels true. Reads and writes nothing.

B images, C channels, H and W pixels.
"""

import numpy as np
import torch

MOST_SHIFT, MOST_TILT = 0.12, 0.1       # of half the height: 30 rows, and 25 at either edge
MOST_SHADOW, MOST_GAMMA, MOST_SPECKLE = 0.7, 0.3, 0.25
CONTRAST, BRIGHTNESS = 0.15, 0.05       # largest change: devices and exposures differ by more than that


def vary_scans(inputs: dict[str, torch.Tensor], rows: np.ndarray, *, seed: int, epoch: int) -> dict[str, torch.Tensor]:
    """Change B-scans as eyes and operators do, and leave thickness true: `augment="scan"`.

    Mirror half of them; shift and tilt (the retina moves up or down by column, its height stays); a shadow; gamma;
    speckle. What an image gets depends on seed, epoch and row alone. Arguments as of vary_images; all views of an image
    are mirrored alike, and those in colour are not moved.
    """
    drawn = [np.random.default_rng([seed, epoch, row]) for row in rows.tolist()]
    numbers = np.stack([rng.random(8) for rng in drawn] or [np.empty(8)])[:len(rows)]
    device = next(iter(inputs.values())).device
    mirror, gamma, speckle, shift, tilt, place, wide, dark = (
        torch.tensor(column, dtype=torch.float32, device=device).view(-1, 1, 1, 1) for column in numbers.T)
    varied = {}
    for view, images in inputs.items():
        x = torch.where(mirror < 0.5, images.flip(3), images)
        across = torch.linspace(-1, 1, x.shape[3], device=device).view(1, 1, 1, -1)
        if x.shape[1] == 1:
            down = torch.linspace(-1, 1, x.shape[2], device=device).view(1, 1, -1, 1)
            moved = down + MOST_SHIFT * (2 * shift - 1) + MOST_TILT * (2 * tilt - 1) * across
            grid = torch.stack([across.expand(len(x), 1, *x.shape[2:]), moved.expand(len(x), 1, *x.shape[2:])], dim=-1)
            x = torch.nn.functional.grid_sample(x, grid[:, 0], padding_mode="border", align_corners=True)
            shadow = (-((across - 2.4 * place + 1.2) / (0.02 + 0.1 * wide)) ** 2).exp()
            x = x * (1 - MOST_SHADOW * dark * shadow)
        x = x.clamp(min=1e-4) ** (1 + MOST_GAMMA * (2 * gamma - 1))
        noise = np.empty(x.shape, np.float32)
        for own, rng in zip(noise, drawn, strict=True):
            rng.standard_normal(out=own, dtype=np.float32)
        varied[view] = (x * (1 + MOST_SPECKLE * speckle * torch.from_numpy(noise).to(device))).clamp(0, 1)
    return varied


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


VARY = {"mild": vary_images, "scan": vary_scans}
