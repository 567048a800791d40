import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config import View
from model.backbones import BasicConv2d, ResidualBlock, find_backbone
from model.module import CSVModule, ImageModule, fold_batch_norm
from model.specification import ImageSpecification
from tests.toys import SMALL, TWO

FULL = {"bscan": View(50, 450, 550, 1200), "fundus": View(0, 496, 0, 496, channels=3, folder="fundus")}
MADE_OF = {"seed": {}, "fixed": {"heads": "logits"}, "resnet": {"backbone": "residual", "heads": "logits"}}


def build(recipe="seed", **values):
    return ImageModule(ImageSpecification(**MADE_OF[recipe] | values))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("recipe", ["seed", "fixed"])
def test_parameter_counts_of_the_2021_system(recipe):
    assert parameters(build(recipe)) == 260_069
    assert parameters(CSVModule(MADE_OF[recipe].get("heads", "sigmoid"))) == 15_455


@pytest.mark.parametrize("recipe", ["seed", "fixed", "resnet"])
def test_shapes_and_ranges(recipe):
    module, inputs = build(recipe).eval(), {"bscan": torch.rand(2, 3, 400, 650)}
    cst, findings, visit_findings = module(inputs)
    assert cst.shape == (2,)
    assert findings.shape == (2, 4)
    assert visit_findings is findings       # each image stands alone
    cst_um, probabilities, _ = module.answer(inputs)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    torch.testing.assert_close(probabilities, findings if recipe == "seed" else torch.sigmoid(findings))
    torch.testing.assert_close(cst_um, (100 * cst).clamp(min=0))


def test_the_views_of_an_image_are_joined_side_by_side_each_with_a_trunk_of_its_own():
    module = build(views=FULL).eval()
    inputs = {"fundus": torch.rand(2, 3, 496, 496), "bscan": torch.rand(2, 1, 400, 650)}
    features = module.extract_features(inputs)
    assert features.shape == (2, 64 * 2 * 3 + 64 * 2 * 2)
    torch.testing.assert_close(features[:, :384], module.layers(inputs["bscan"]).flatten(1))
    torch.testing.assert_close(features[:, 384:], module.others["fundus"](inputs["fundus"]).flatten(1))
    assert [part.shape for part in module(inputs)] == [(2,), (2, 4), (2, 4)]
    assert module.regression[1].in_features == module.classify[1].in_features == 640


@pytest.mark.parametrize("findings", [("IRF",), ("IRF", "SRF", "PED", "HRF", "drusen")])
def test_a_head_gives_as_many_findings_as_there_are(findings):
    assert build(views=SMALL, findings=findings).eval()({"bscan": torch.rand(2, 1, 64, 96)})[1].shape == (2,
                                                                                                  len(findings))


@pytest.mark.parametrize("views", [SMALL, TWO])
def test_visits_have_one_thickness_and_findings_beside_those_of_their_images(views):
    torch.manual_seed(0)
    module = build("fixed", views=views, pool="visit").eval()
    inputs = {name: torch.rand(5, view.channels, view.height, view.width) for name, view in views.items()}
    visits = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    assert [part.shape for part in module(inputs, visits)] == [(3,), (5, 4), (3, 4)]
    cst, findings, visit_findings = module.answer(inputs, visits)
    assert [part.shape for part in (cst, findings, visit_findings)] == [(3,), (5, 4), (3, 4)]
    torch.testing.assert_close(visit_findings[1:], findings[3:])        # visits of one image


def test_one_thickness_in_um_never_negative():
    module = build("fixed", views=SMALL).eval()
    torch.nn.init.zeros_(module.regression[-1].weight)
    for bias, cst_um in ((2.5, 250), (-1.0, 0)):
        torch.nn.init.constant_(module.regression[-1].bias, bias)
        assert module.answer({"bscan": torch.rand(1, 1, 64, 96)})[0].item() == pytest.approx(cst_um)


def test_normalised_images_have_mean_0_and_spread_1_each_by_itself():
    images = torch.rand(3, 3, 64, 96) * torch.tensor([1.0, 0.3, 0.1]).view(3, 1, 1, 1) + 0.2
    plain, module = build(views=SMALL), build(views=SMALL, normalise="image")
    assert plain.normalise(images) is images
    normalised = module.normalise(images)
    torch.testing.assert_close(normalised.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(1, 2, 3)), torch.ones(3), atol=0.05, rtol=0)
    torch.testing.assert_close(module.normalise(images[1:2])[0], normalised[1])
    assert (module.normalise(torch.zeros(1, 1, 64, 96)) == 0).all()     # a black image has no spread


def test_the_trunks_get_normalised_images():
    plain, module = build(views=TWO).eval(), build(views=TWO, normalise="image").eval()
    module.load_state_dict(plain.state_dict())
    inputs = {name: torch.rand(2, view.channels, view.height, view.width) for name, view in TWO.items()}
    normalised = {name: module.normalise(images) for name, images in inputs.items()}
    assert torch.equal(module.extract_features(inputs), plain.extract_features(normalised))
    assert not torch.equal(module.extract_features(inputs), plain.extract_features(inputs))


@pytest.mark.parametrize("recipe", ["seed", "resnet"])
@pytest.mark.parametrize("normalise", ["none", "image"])
def test_one_channel_stands_for_three_equal_ones(recipe, normalise):
    torch.manual_seed(0)
    module, grey = build(recipe, views=SMALL, normalise=normalise), torch.rand(4, 1, 64, 96)
    one, three = module({"bscan": grey}), module({"bscan": grey.expand(-1, 3, -1, -1)})
    for ours, theirs in zip(one, three, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    one[0].sum().backward()
    slope = module.layers[0].layers[int(recipe == "resnet")].weight.grad
    assert torch.equal(slope[:, 0], slope[:, 1]) and torch.equal(slope[:, 1], slope[:, 2])


@pytest.mark.parametrize("recipe", ["seed", "resnet"])
def test_folded_batch_norms_predict_the_same(recipe):
    torch.manual_seed(0)
    module = build(recipe, views=TWO)

    def images(count):
        return {name: torch.rand(count, view.channels, view.height, view.width) for name, view in TWO.items()}

    for _ in range(3):
        module(images(4))        # statistics of its own
    folded, inputs = fold_batch_norm(module), images(2)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    for ours, theirs in zip(folded(inputs), module.eval()(inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())


def test_only_the_seed_recipe_ends_in_a_sigmoid():
    for seed, fixed in ((build("seed"), build("fixed")), (CSVModule("sigmoid"), CSVModule("logits"))):
        assert isinstance(seed.classify[-1], torch.nn.Sigmoid)
        assert isinstance(fixed.classify[-1], torch.nn.Linear)
        assert seed.state_dict().keys() == fixed.state_dict().keys()


def test_the_probability_of_continue_injection_is_that_of_class_1_and_va_never_negative():
    module = CSVModule("logits")
    for head in (module.classify, module.regression):
        torch.nn.init.zeros_(head[-1].weight)
    for scores, probability in (([0.0, 0.0], 0.5), ([-10.0, 10.0], 1.0), ([10.0, -10.0], 0.0)):
        module.classify[-1].bias.data = torch.tensor(scores)
        torch.testing.assert_close(module.answer(torch.rand(1, 16))[1], torch.tensor([probability]))
    for bias, va in ((0.4, 0.4), (-0.4, 0.0)):
        torch.nn.init.constant_(module.regression[-1].bias, bias)
        assert module.answer(torch.rand(1, 16))[0].item() == pytest.approx(va)


def test_what_there_is_no_backbone_of_is_a_key_error():
    with pytest.raises(KeyError):
        find_backbone("dense")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
@settings(deadline=None)
def test_another_crop_size_only_changes_the_first_layer_of_the_heads(rows, columns, seed):
    torch.manual_seed(seed)
    height, width = rows * 16, columns * 16
    module = build(views={"bscan": View(0, height, 0, width)}).eval()
    with torch.inference_mode():
        cst, findings, _ = module({"bscan": torch.rand(1, 3, height, width)})
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
