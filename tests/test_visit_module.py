"""The network of the recipe pretrained: visits, places, the average of its weights, and its loss."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from config import Paths, View
from model.augment import vary_scans
from model.dataset import Batch, read_places
from model.loss import DistributionLoss, ImageTargets
from model.specification import ImageSpecification
from model.trunks import COLUMNS, FLUIDS, Read
from model.visit_module import BINS, LOOKS_MM, FirstSight, Looks, Thickness, VisitModule, find_bins, find_speakers
from processing import columns as c
from processing.crop_record import GEOMETRY_COLUMNS
from processing.files import write_csv

VIEW = View(0, 64, 0, 64, channels=1, folder="")
VISITS = torch.tensor([[True, True, False, False], [False, False, True, True]])
PLACES = torch.tensor([[1.0, 0.0, 0], [1, 2.0, 0], [1, 1.5, 0], [0, 0, 0]])


def build(pool="visit", trunk="segmentation"):
    torch.manual_seed(0)
    return VisitModule(ImageSpecification(backbone=trunk, views={"bscan_full": VIEW}, pool=pool,
                                          heads="distribution"))


def make_batch():
    torch.manual_seed(1)
    return {"bscan_full": torch.rand(4, 1, 64, 64)}, VISITS, PLACES


def test_a_visit_has_one_distribution_and_each_image_its_findings():
    thickness, findings, visit_findings = build().eval()(*make_batch())
    assert thickness.shape == (2, BINS) and findings.shape == (4, 4) and visit_findings.shape == (2, 4)
    inputs, _, places = make_batch()
    assert build("image").eval()(inputs, None, places)[0].shape == (4, BINS)


def test_a_trunk_that_reads_nothing_gives_thickness_by_its_features():
    module = build(trunk="resnet18").eval()
    assert module.learning.first_sight is None and module(*make_batch())[0].shape == (2, BINS)
    before = module.learning.see(make_batch()[0])
    module.fit_standard([before])
    assert torch.allclose(module.averaged.standard.mean, before["bscan_full"].features.mean(dim=0), atol=1e-5)


def test_scans_near_the_fovea_speak_for_thickness_and_all_where_none_is_known_to_be():
    speak = find_speakers(PLACES, VISITS) & VISITS
    assert speak.tolist() == [[True, False, False, False], [False, False, True, False]]
    unknown = PLACES * torch.tensor([[1], [1], [0], [0]])
    assert (find_speakers(unknown, VISITS) & VISITS)[1].tolist() == [False, False, True, True]
    module, (inputs, visits, places) = build().eval(), make_batch()
    first, _, of_visits = module(inputs, visits, places)
    inputs["bscan_full"][1] = 0.5                   # the far scan of the first visit
    again, _, of_visits_again = module(inputs, visits, places)
    assert torch.allclose(first, again, atol=1e-5) and not torch.allclose(of_visits[0], of_visits_again[0], atol=1e-5)


PLACES_MM = torch.linspace(-4, 4, 33)


def make_read(*, logs=None, readable=9.0, marks=None):
    """Of two scans: `logs` of thickness by column, a number or 33."""
    columns = torch.zeros(2, 33, len(COLUMNS))
    if logs is not None:
        columns[:, :, :2] = torch.as_tensor(logs).view(1, -1, 1)
    return Read(columns, PLACES_MM.expand(2, -1), torch.full((2, 33), 1.0) * torch.as_tensor(readable),
                torch.zeros(2, len(FLUIDS)) if marks is None else marks)


def test_looks_reach_from_the_middle_outwards_and_leave_out_what_cannot_be_read():
    looks = Looks()
    found = looks(make_read(logs=PLACES_MM.abs()))[0, :, 0]
    assert found.shape == (len(LOOKS_MM),) and (found.diff() > 0).all() and found[0] < 0.06 and 1.5 < found[-1] < 2.5
    readable = torch.where(PLACES_MM.abs() < 0.6, -30.0, 9.0)
    assert looks(make_read(logs=PLACES_MM.abs(), readable=readable))[0, 2:, 0].min() > 0.6
    nothing = looks(make_read(logs=np.log(60.0), readable=-15.0))[0]
    assert torch.allclose(nothing[:, :2].exp(), torch.tensor(300.0), rtol=0.01)
    with torch.no_grad():
        looks.where.weight[-1, 0] = 50              # the widest look seeks the thickest
    assert looks(make_read(logs=PLACES_MM.abs()))[0, -1, 0] > 3.9


def test_before_it_has_learned_it_says_what_was_read():
    sight = FirstSight(["bscan_full"], ("IRF", "SRF", "PED", "HRF"))
    marks = torch.tensor([[3.0, -5, -6, 2], [-4, 1, -7, -8]])
    guess, _ = sight({"bscan_full": make_read(logs=np.log(310.0))})
    assert torch.allclose(guess.exp(), torch.full((2,), 310.0), atol=0.1)
    visits = torch.tensor([[True, True], [False, True]])
    of_images, of_visits = sight.find({"bscan_full": make_read(marks=marks)}, visits)
    assert torch.equal(of_images, marks) and of_visits.tolist() == [[3, 1, -6, 2], [-4, 1, -7, -8]]
    thickness = Thickness(5, reach=0.1)(torch.rand(2, 5), guess).softmax(dim=1)
    assert torch.allclose(thickness @ find_bins().log(), guess, atol=0.01)


def test_a_label_that_is_a_slip_does_not_outweigh_all_others():
    logits = Thickness(5, reach=0.1)(torch.zeros(1, 5), torch.tensor([np.log(300.0)]))
    targets = ImageTargets(torch.tensor([1200.0]), torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([True]))
    batch = Batch({}, None, targets, np.arange(1), np.arange(1), 1, PLACES[:1])
    assert 3 < DistributionLoss(find_bins())((logits, torch.zeros(1, 4), torch.zeros(1, 4)), batch)[1] < 9


def test_thickness_teaches_the_reading_of_membranes():
    module, batch = build().train(), make_batch()
    module(*batch)[0].log_softmax(dim=1)[:, 60].sum().backward()
    last = module.learning.trunks["bscan_full"].network.membranes[1]
    assert last.weight.grad[:8].abs().sum() > 0         # after them come those that say what can be read


@pytest.mark.parametrize("pool", ["image", "visit"])
def test_a_process_whose_share_is_empty_goes_on(pool):
    module = build(pool).train()
    found = module({"bscan_full": torch.zeros(0, 1, 64, 64)}, torch.zeros(0, 0, dtype=torch.bool), torch.zeros(0, 3))
    assert [tuple(one.shape) for one in found] == [(0, BINS), (0, 4), (0, 4)]
    sum(one.sum() for one in found).backward()
    assert all(parameter.grad is not None for parameter in module.learning.parameters())


def test_bf16_does_not_round_thickness():
    module, batch = build().eval(), make_batch()
    module.averaged.see = lambda inputs: seen           # the trunk's own rounding is no matter here
    seen = module.learning.see(batch[0])
    exact = module(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(*batch)
    assert all(torch.equal(one, other) for one, other in zip(exact, rounded, strict=True))


def test_the_answers_come_from_the_average_of_the_weights():
    module = build()
    first = copy.deepcopy(module.averaged.state_dict())
    with torch.no_grad():
        for parameter in module.learning.parameters():
            parameter.add_(1)
    module.average()
    weight = module.averaged.thickness.head[1].weight
    assert torch.allclose(weight, first["thickness.head.1.weight"] + 1 - 2 / 11, atol=1e-5)     # the first counts much
    for _ in range(3000):
        module.average()
    assert torch.allclose(weight, first["thickness.head.1.weight"] + 1, atol=0.02)
    assert all(not parameter.requires_grad for parameter in module.averaged.parameters())


def test_what_batch_norm_counted_is_averaged_as_the_weights_are():
    module = build()
    name = next(name for name, _ in module.learning.named_buffers() if name.endswith("running_mean"))
    module.learning.get_buffer(name).fill_(1)
    before = module.averaged.get_buffer(name).clone()
    module.average()
    assert torch.allclose(module.averaged.get_buffer(name), before + (1 - before) * (1 - 2 / 11), atol=1e-5)
    module.begin_average()
    assert torch.equal(module.averaged.get_buffer(name), module.learning.get_buffer(name)) and module.steps == 0


def make_targets(cst_um, finding):
    """Of the first visit images are labelled, of the second the eye."""
    return ImageTargets(torch.tensor(cst_um), torch.full((4, 4), finding), torch.full((2, 4), finding),
                        torch.tensor([True, False]))


def test_a_network_that_knows_has_no_loss_of_thickness_and_one_that_errs_has_more():
    targets = make_targets([300.0, 420.0], 0.0)
    batch = Batch({}, VISITS, targets, np.arange(4), np.arange(4), 2, PLACES)
    logs, loss = find_bins().log(), DistributionLoss(find_bins())

    def judge(factor):
        right = -0.5 * ((logs - (factor * targets.cst_um).log()[:, None]) / 0.045) ** 2
        return loss((right, torch.full((4, 4), -9.0), torch.full((2, 4), -9.0)), batch)

    assert judge(1)[1] == pytest.approx(0, abs=1e-4) and judge(1)[2] < 0.001
    assert judge(1.05)[1] < judge(1.2)[1] < judge(1.5)[1]


def test_labels_are_of_images_where_they_have_their_own_and_else_of_the_visit():
    targets = make_targets([300.0, 300.0], 1.0)
    batch = Batch({}, VISITS, targets, np.arange(4), np.arange(4), 2, PLACES)
    loss, flat = DistributionLoss(find_bins()), torch.zeros(2, BINS)
    sure, unsure = torch.full((4, 4), 9.0), torch.full((2, 4), 0.0)
    assert loss((flat, sure, unsure), batch)[2] == pytest.approx(np.log(2) / 2, abs=1e-3)     # the second visit's half
    assert loss((flat, torch.zeros(4, 4), torch.full((2, 4), 9.0)), batch)[2] == pytest.approx(np.log(2) / 2, abs=1e-3)


def test_places_are_read_as_option_0_wrote_them(tmp_path):
    paths = Paths(tmp_path)
    paths.geometry_table.parent.mkdir(parents=True)
    write_csv(paths.geometry_table, pd.DataFrame({
        c.SOURCE: ["a", "b", "d"], "pattern": ["radial", "volume", "unknown"], "distance_um": [0.0, -5200.0, np.nan],
    }).reindex(columns=GEOMETRY_COLUMNS))
    rows = pd.DataFrame({c.SOURCE: ["b", "a", "c", "d"]})
    assert read_places(rows, paths).tolist() == [[1, 3, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_changes_leave_the_retinas_height_true_and_depend_on_the_row_alone():
    scan = torch.zeros(6, 1, 200, 96)
    scan[:, :, 80:120] = 0.7
    varied = vary_scans({"bscan_full": scan}, np.arange(6), seed=1, epoch=2)["bscan_full"]
    height = (varied > 0.2).float().sum(dim=2)
    seen = height[height > 5]                       # a shadow may hide columns
    assert seen.median() == 40 and (seen - 40).abs().quantile(0.9) <= 2
    assert len({image.numpy().tobytes() for image in varied}) == 6
    again = vary_scans({"bscan_full": scan[3:4]}, np.array([3]), seed=1, epoch=2)["bscan_full"]
    assert torch.equal(again[0], varied[3])
    assert vary_scans({"bscan_full": scan[:0]}, np.arange(0), seed=1, epoch=2)["bscan_full"].shape == (0, 1, 200, 96)
