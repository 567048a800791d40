import pytest
import torch

from config import View
from model.gradcam import grad_cam
from model.module import ImageModule
from model.specification import ImageSpecification


def build(height, width, **what):
    views = {"bscan": View(0, height, 0, width), "fundus": View(0, 64, 0, 64, channels=3, folder="fundus")}
    return ImageModule(ImageSpecification(views={name: views[name] for name in what.pop("views", ["bscan"])}, **what))


def test_maps_are_of_each_finding_between_0_and_1():
    maps = grad_cam(build(400, 650, heads="logits"), {"bscan": torch.rand(2, 1, 400, 650)})
    assert maps.shape == (2, 4, 13, 21)
    assert maps.min() >= 0
    assert maps.amax(dim=(2, 3)).unique().tolist() in ([1.0], [0.0, 1.0], [0.0])


@pytest.mark.parametrize("what", [
    {}, {"backbone": "residual", "heads": "logits"}, {"views": ["bscan", "fundus"], "pool": "visit"},
])
def test_nothing_of_the_module_changes(what):
    module = build(64, 96, **what)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    inputs = {"bscan": torch.rand(1, 1, 64, 96), "fundus": torch.rand(1, 3, 64, 64)}
    assert grad_cam(module, inputs).shape[:2] == (1, 4)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_it_shows_where_a_bright_spot_made_the_difference():
    """Heads and blocks by hand: the score is the sum of what the blocks see, and they see brightness."""
    module = build(320, 320, heads="logits")
    module.classify = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4, bias=False))
    block = torch.nn.AvgPool2d(32)
    module.layers = torch.nn.Sequential(block)
    image = torch.zeros(1, 3, 320, 320)
    image[..., 96:128, 256:288] = 1
    module.classify(module.layers(image))
    torch.nn.init.ones_(module.classify[1].weight)
    maps = grad_cam(module, {"bscan": image})
    assert maps.shape == (1, 4, 10, 10)
    assert maps[0, 0].argmax().item() == 3 * 10 + 8
    assert maps[0, 0].count_nonzero() == 1
