"""Where an image model looks: Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).

Reads and writes nothing. B images, C channels, H and W pixels, h and w of the map, K findings.
"""

import torch

from model.module import ImageModule

STRIDE = 32     # of the block whose output is looked at: a map of 13 x 21 for a crop of 400 x 650


def grad_cam(module: ImageModule, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """How much each place of the first view speaks for each finding.

    A map is the block's channels, weighted by the mean gradient of the finding's score, where that is positive.

    Args:
        module: on the device of the images.
        inputs: by view, B x C x H x W float32 in 0-1.

    Returns:
        B x K x h x w float32, each map from 0 to 1; all 0 where nothing speaks for the finding.
    """
    module.eval()
    images = module.normalise(inputs[next(iter(module.specification.views))])
    depth = _find_depth(module, images[:1])
    with torch.no_grad():
        start = module.layers[:depth](images)                               # B x C x h x w
        features = module.extract_features(inputs)                          # B x F, of all views
    with torch.enable_grad():
        seen = start.detach().requires_grad_()
        own = module.layers[depth:](seen).flatten(1)                        # B x F of the first view
        scores = module.classify(torch.cat([own, features[:, own.shape[1]:]], dim=1))       # B x K
        maps = []
        for finding in range(scores.shape[1]):
            gradient, = torch.autograd.grad(scores[:, finding].sum(), seen, retain_graph=True)
            weights = gradient.mean(dim=(2, 3), keepdim=True)               # B x C x 1 x 1
            maps.append((weights * seen).sum(dim=1).clamp(min=0).detach())  # B x h x w
    stacked = torch.stack(maps, dim=1)
    highest = stacked.amax(dim=(2, 3), keepdim=True)
    return torch.where(highest > 0, stacked / highest.clamp(min=torch.finfo(stacked.dtype).tiny), 0.0)


def _find_depth(module: ImageModule, image: torch.Tensor) -> int:
    """How many blocks it takes until the map is STRIDE times smaller than the view."""
    seen = image
    with torch.no_grad():
        for number, block in enumerate(module.layers, start=1):
            seen = block(seen)
            if seen.shape[-1] * STRIDE <= image.shape[-1] + STRIDE - 1:
                return number
    return len(module.layers)
