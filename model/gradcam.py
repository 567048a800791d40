"""Where an image model looks: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).

Reads and writes nothing. B batch, C channels, H and W pixels, h and w of the map.
"""

import torch

STRIDE = 32     # of the block whose output is looked at: a map of 13 x 21 for a crop of 400 x 650


def grad_cam(module, images):
    """How much each place of the crops speaks for each finding.

    A map is the block's channels, weighted by the mean gradient of the finding's score, where that is positive.

    Args:
        module: ImageModule, on the device of the images.
        images: B x 3 x H x W float32 in 0-1.

    Returns:
        B x 4 x h x w float32, each map from 0 to 1; all 0 where nothing speaks for the finding.
    """
    module.eval()
    depth = _depth(module, images[:1])
    with torch.enable_grad():
        seen = module.layers[:depth](images).detach().requires_grad_()      # B x C x h x w
        scores = module.classify(module.layers[depth:](seen))               # B x 4
        maps = []
        for finding in range(scores.shape[1]):
            gradient, = torch.autograd.grad(scores[:, finding].sum(), seen, retain_graph=True)
            weights = gradient.mean(dim=(2, 3), keepdim=True)               # B x C x 1 x 1
            maps.append((weights * seen).sum(dim=1).clamp(min=0).detach())  # B x h x w
    maps = torch.stack(maps, dim=1)
    highest = maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(highest > 0, maps / highest.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)


def _depth(module, image):
    """How many blocks it takes until the map is STRIDE times smaller than the crop."""
    seen = image
    with torch.no_grad():
        for number, block in enumerate(module.layers, start=1):
            seen = block(seen)
            if seen.shape[-1] * STRIDE <= image.shape[-1] + STRIDE - 1:
                return number
    return len(module.layers)
