import pytest
import torch

from model.gradcam import grad_cam
from model.module import ImageModule


def test_maps_are_of_each_finding_between_0_and_1():
    maps = grad_cam(ImageModule("fixed"), torch.rand(2, 3, 400, 650))
    assert maps.shape == (2, 4, 13, 21)
    assert maps.min() >= 0
    assert maps.amax(dim=(2, 3)).unique().tolist() in ([1.0], [0.0, 1.0], [0.0])


@pytest.mark.parametrize("recipe", ["seed", "resnet"])
def test_nothing_of_the_module_changes(recipe):
    module = ImageModule(recipe, (64, 96))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    grad_cam(module, torch.rand(1, 3, 64, 96))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_it_shows_where_a_bright_spot_made_the_difference():
    """Heads and blocks by hand: the score is the sum of what the blocks see, and they see brightness."""
    module = ImageModule("fixed", (320, 320))
    module.classify = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4, bias=False))
    block = torch.nn.AvgPool2d(32)
    module.layers = torch.nn.Sequential(block)
    image = torch.zeros(1, 3, 320, 320)
    image[..., 96:128, 256:288] = 1
    module.classify(module.layers(image))
    torch.nn.init.ones_(module.classify[1].weight)
    maps = grad_cam(module, image)
    assert maps.shape == (1, 4, 10, 10)
    assert maps[0, 0].argmax().item() == 3 * 10 + 8
    assert maps[0, 0].count_nonzero() == 1
