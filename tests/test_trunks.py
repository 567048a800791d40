"""Trunks of the recipe pretrained: which there are, their weights, and what is said where there are none."""

import re

import pytest
import torch
import torchvision

from config import View
from model.segmentation import FLUIDS, Reading
from model.trunks import (
    COLUMNS,
    HEIGHT_UM,
    NO_WEIGHTS,
    build_trunk,
    describe_columns,
    find_away,
    find_cached,
    load_trunk_weights,
)
from processing.errors import PipelineError

GREY = View(0, 96, 0, 128, channels=1, folder="", narrow=2)
COLOURED = View(0, 64, 0, 64, channels=3, folder="fundus")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torchvision's cache, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", ["segmentation", "resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_a_trunk_gives_the_features_that_it_says(name):
    trunk = build_trunk(name, GREY).eval()
    with torch.inference_mode():
        features, read = trunk(torch.rand(2, 1, GREY.height, GREY.width))
    assert features.shape == (2, trunk.features)
    if name != "segmentation":
        assert not trunk.reads and read is None
        return
    width = GREY.width // 2
    assert read.columns.shape == (2, width, len(COLUMNS)) and read.readable.shape == (2, width)
    assert trunk.reads and read.marks.shape == (2, len(FLUIDS)) and read.away_mm.shape == (2, width)
    assert torch.allclose(read.away_mm.diff(), torch.tensor(4 * 0.0115)) and read.away_mm.mean().abs() < 1e-6


def test_the_middle_is_that_of_the_scan_not_of_the_black_beside_it():
    images = torch.zeros(3, 1, 8, 30)
    images[0], images[1, :, 3, :20] = 0.5, 0.5              # a whole one, one of a narrow screen, and nothing
    away = find_away(images)
    assert away[0].mean() == 0 and away[0, -1] == 14
    assert away[1, :10].mean() == 0 and away[1, 0] == -9
    assert away[2].isfinite().all()


def make_reading(*, readable=9.0):
    """Of one scan of 100 rows and 8 columns: ILM at place 10, Bruch's membrane at 40; a PED of 5 places above it, in
    four columns; a focus in the vitreous, a dark spot in the choroid, and a cyst.
    """
    membranes = torch.full((1, 2, 50, 4), -30.0)
    membranes[0, 0, 10], membranes[0, 1, 40] = 0, 0
    fluids = torch.full((1, len(FLUIDS), 50, 4), -20.0)
    fluids[0, FLUIDS.index("PED"), 35:40] = 20
    fluids[0, FLUIDS.index("foci"), 3, 1] = 8
    fluids[0, FLUIDS.index("SRF"), 45, 1] = 8
    fluids[0, FLUIDS.index("IRF"), 20, 2] = 6
    return Reading(membranes, torch.full((1, 4), readable), fluids)


def test_thickness_is_counted_to_bruchs_membrane_and_to_what_lies_above_a_ped():
    columns, _, _, marks = describe_columns(make_reading(), torch.zeros(1, 4))
    thickness, above, ped = columns[0, :, 0].exp(), columns[0, :, 1].exp(), columns[0, :, COLUMNS.index("PED")]
    assert torch.allclose(thickness, torch.tensor(60 * 3.87), rtol=1e-3)
    assert torch.allclose(above, torch.tensor(50 * 3.87), rtol=1e-3)
    assert torch.allclose(ped * HEIGHT_UM, torch.tensor(10 * 3.87), rtol=1e-3)
    assert torch.allclose(marks[0], torch.tensor([6.0, -12, 20, -12]))        # what lies outside is no finding


def test_where_no_retina_is_there_is_no_finding():
    columns, _, _, marks = describe_columns(make_reading(readable=-3.0), torch.zeros(1, 4))
    assert (marks == -12).all() and columns[..., 2:].abs().max() < 1e-3


def test_batch_norm_of_weights_that_have_learned_stays_as_they_learned_with_it():
    trunk = build_trunk("segmentation", GREY)
    assert trunk.train().network.training
    load_trunk_weights(trunk, "segmentation", "")
    assert trunk.train().training and not trunk.network.training
    assert build_trunk("resnet18", GREY).train().network.training
    again = build_trunk("segmentation", GREY)
    again.load_state_dict(trunk.state_dict())       # of a run that goes on
    assert not again.train().network.training and again.eval().network.training is False


def test_a_view_in_colour_keeps_its_channels():
    assert build_trunk("resnet18", COLOURED).eval()(torch.rand(2, 3, 64, 64)).features.shape == (2, 512)
    with pytest.raises(ValueError, match="grey views only"):
        build_trunk("segmentation", COLOURED)


@pytest.mark.parametrize(("name", "said"), [
    ("resnet_18", "Unknown model"), ("fcn_resnet50", "Unknown model"), ("vit_b_16", "takes no pictures of 96 x 64"),
])
def test_what_is_no_trunk_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        build_trunk(name, GREY)


def test_the_segmentations_weights_come_with_the_program():
    trunk = build_trunk("segmentation", GREY)
    before = trunk.network.stem[0].weight.clone()
    assert "Model-Segmentation.pt" in load_trunk_weights(trunk, "segmentation", "")
    assert not torch.equal(trunk.network.stem[0].weight, before)


def test_weights_of_torchvision_come_from_its_cache_and_a_grey_stem_adds_them_up(cache):
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), find_cached("resnet18"))
    assert find_cached("resnet18").parent == cache
    trunk = build_trunk("resnet18", GREY).eval()
    load_trunk_weights(trunk, "resnet18", "")
    assert torch.allclose(trunk.network.conv1.weight, whole.conv1.weight.sum(dim=1, keepdim=True))
    whole.eval().fc = torch.nn.Identity()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        centred = (images - 0.449) / 0.226
        assert torch.allclose(trunk(images).features, whole(centred.expand(-1, 3, -1, -1)), atol=1e-4)


def test_a_densenets_file_with_the_names_of_old_is_taken(cache):
    """torchvision's own files have them; a name had one dot more."""
    whole = torchvision.models.densenet121()
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
             for key, value in whole.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, find_cached("densenet121"))
    trunk = build_trunk("densenet121", GREY)
    load_trunk_weights(trunk, "densenet121", "")
    own = trunk.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in whole.state_dict().items()
               if "denselayer" in key)


def test_a_file_of_ones_own_will_do(tmp_path, cache):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "my own.pth")
    assert load_trunk_weights(build_trunk("resnet18", GREY), "resnet18", str(tmp_path / "my own.pth")).endswith(
        "my own.pth")


def test_without_weights_nothing_starts_unless_it_is_asked_for(cache):
    trunk = build_trunk("resnet18", GREY)
    with pytest.raises(PipelineError, match="no weights of resnet18.*downloads them.*--weights none"):
        load_trunk_weights(trunk, "resnet18", "")
    assert load_trunk_weights(trunk, "resnet18", NO_WEIGHTS).startswith("random numbers")


class Code:
    """What runs when a file that holds it is read without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("content", ["other", "code", "text", "list", "numbers"])
def test_a_file_that_holds_other_things_is_refused(tmp_path, content):
    file = tmp_path / "weights.pth"
    if content == "other":
        torch.save(torchvision.models.mobilenet_v3_small().state_dict(), file)
    elif content == "code":
        torch.save({"conv1.weight": Code(tmp_path / "it ran")}, file)
    elif content == "text":
        file.write_text("nothing")
    else:
        torch.save([torch.zeros(2)] if content == "list" else {"conv1.weight": 1.0}, file)
    with pytest.raises(PipelineError, match="other weights than|read safely|it must be a dict of tensors"):
        load_trunk_weights(build_trunk("resnet18", GREY), "resnet18", str(file))
    assert not (tmp_path / "it ran").exists()
