import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.module import BasicConv2d, CSVModule, ImageModule, ResidualBlock


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("recipe", ["seed", "fixed"])
def test_parameter_counts_of_the_2021_system(recipe):
    assert parameters(ImageModule(recipe)) == 260_069
    assert parameters(CSVModule(recipe)) == 15_455


@pytest.mark.parametrize("recipe", ["seed", "fixed", "resnet"])
def test_shapes_and_ranges(recipe):
    module = ImageModule(recipe).eval()
    cst, findings = module(torch.rand(2, 3, 400, 650))
    assert cst.shape == (2,)
    assert findings.shape == (2, 4)
    probabilities = module.probabilities(findings)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_only_the_seed_recipe_ends_in_a_sigmoid():
    for make in (ImageModule, CSVModule):
        assert isinstance(make("seed").classify[-1], torch.nn.Sigmoid)
        assert isinstance(make("fixed").classify[-1], torch.nn.Linear)
        assert make("seed").state_dict().keys() == make("fixed").state_dict().keys()


def test_the_probability_of_continue_injection_is_that_of_class_1():
    module = CSVModule("fixed")
    torch.testing.assert_close(
        module.probabilities(torch.tensor([[0.0, 0.0], [-10.0, 10.0], [10.0, -10.0]])), torch.tensor([0.5, 1.0, 0.0])
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
@settings(deadline=None)
def test_another_crop_size_only_changes_the_first_layer_of_the_heads(rows, columns, seed):
    torch.manual_seed(seed)
    height, width = rows * 16, columns * 16
    module = ImageModule("seed", (height, width)).eval()
    with torch.inference_mode():
        cst, findings = module(torch.rand(1, 3, height, width))
    assert (cst.shape, findings.shape) == ((1,), (1, 4))


@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3),
    st.integers(1, 20), st.integers(1, 20),
)
@settings(deadline=None)
def test_both_branches_of_a_residual_block_agree(c_in, c_out, kernel_size, stride, dilation, height, width):
    block = ResidualBlock(c_in, c_out, kernel_size=kernel_size, stride=stride, dilation=dilation).eval()
    with torch.inference_mode():
        out = block(torch.rand(1, c_in, height, width))
    assert out.shape == (1, c_out, -(-height // stride), -(-width // stride))
    assert (out >= 0).all()


def test_the_shortcut_is_a_convolution_only_where_the_shape_changes():
    assert isinstance(ResidualBlock(8, 8).shortcut, torch.nn.Identity)
    for block in (ResidualBlock(8, 16), ResidualBlock(8, 8, stride=2)):
        assert isinstance(block.shortcut[0], torch.nn.Conv2d)
        assert block.shortcut[0].kernel_size == (1, 1)


def test_a_residual_block_adds_its_input():
    block = ResidualBlock(2, 2).eval()
    torch.nn.init.zeros_(block.layers[5].weight)
    torch.nn.init.zeros_(block.layers[5].bias)
    x = torch.rand(1, 2, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_basic_block_normalises_over_the_batch():
    out = BasicConv2d(3, 8).train().layers[:2](torch.rand(4, 3, 16, 16))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
