from math import e, log
from types import SimpleNamespace

import pytest
import torch

from model.loss import CSVLoss, DistributionLoss, ImageLoss, ImageTargets, VisitLoss

CERTAIN, DOUBT = log(1 + 1 / e), log(2)     # cross entropy of the logits 1 for a 1, and 0 for either
WRONG = log(1 + e)                          # of 1 for a 0


def batch_of(cst_um, findings, *, visit_findings=None, visits=None, has_image_labels=()):
    """A batch with labels alone."""
    findings = torch.tensor(findings)
    targets = ImageTargets(torch.tensor(cst_um), findings,
                           findings if visit_findings is None else torch.tensor(visit_findings),
                           torch.tensor(has_image_labels))
    return SimpleNamespace(targets=targets, visits=visits)


def test_image_loss_by_hand():
    findings = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    batch = batch_of([300.0, 300.0], [[0.0, 0, 1, 1], [1, 1, 0, 0]])
    total, regression, classification = ImageLoss()((torch.tensor([2.0, 3.0]), findings, findings), batch)
    assert regression.item() == pytest.approx(0.5)      # ((2 - 3)^2 + 0) / 2, in hundreds of um
    expected = (4 * DOUBT + 2 * CERTAIN + 2 * WRONG) / 8
    assert classification.item() == pytest.approx(expected)
    assert total.item() == pytest.approx(0.5 + 2 * expected)


# Three images of two visits: the first visit has two
VISITS = torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.bool)
OUTPUTS = (
    torch.tensor([2.0, 3.0]),                           # hundreds of um of each visit
    torch.tensor([[1.0, 0], [0, 0], [1, 1]]),           # of images
    torch.tensor([[1.0, 1], [0, 1]]),                   # of visits
)
LABELS = {"findings": [[1.0, 0], [1, 1], [1, 0]], "visit_findings": [[1.0, 0], [1, 0]]}
OF_IMAGES = ((CERTAIN + DOUBT) / 2 + DOUBT) / 2, (CERTAIN + WRONG) / 2      # of each visit
OF_EYES = (CERTAIN + WRONG) / 2, (DOUBT + WRONG) / 2


@pytest.mark.parametrize(("has_image_labels", "expected"), [
    ([True, True], (OF_IMAGES[0] + OF_IMAGES[1]) / 2),
    ([False, False], (OF_EYES[0] + OF_EYES[1]) / 2),
    ([True, False], (OF_IMAGES[0] + OF_EYES[1]) / 2),
    ([False, True], (OF_EYES[0] + OF_IMAGES[1]) / 2),
])
def test_visit_loss_by_hand(has_image_labels, expected):
    """Each visit weighs alike, whatever the number of its images; its findings count where their labels are."""
    batch = batch_of([300.0, 100.0], visits=VISITS, has_image_labels=has_image_labels, **LABELS)
    total, regression, classification = VisitLoss()(OUTPUTS, batch)
    assert regression.item() == pytest.approx((1 + 4) / 2)
    assert classification.item() == pytest.approx(expected)
    assert total.item() == pytest.approx(2.5 + 2 * expected)


def test_a_label_that_is_not_given_costs_nothing():
    """Of two visits one has no thickness, and some findings are not given: as if they were met, with no gradient."""
    nan = float("nan")
    bins = torch.linspace(5, 7, 64).exp()
    thickness = torch.rand(2, 64, requires_grad=True)
    findings = torch.zeros(3, 2, requires_grad=True)
    batch = batch_of([300.0, nan], [[1.0, nan], [nan, nan], [1, 0]], visit_findings=[[nan, nan], [1.0, nan]],
                     visits=VISITS, has_image_labels=[True, False])
    total, distance, classification = DistributionLoss(bins)((thickness, findings, torch.zeros(2, 2)), batch)
    whole = batch_of([300.0, 300.0], [[1.0, 1]] * 3, visit_findings=[[1.0, 1]] * 2, visits=VISITS,
                     has_image_labels=[True, True])
    alone = [DistributionLoss(bins)((torch.stack([row, row]), findings, torch.zeros(2, 2)), whole)[1]
             for row in thickness]
    assert distance.item() == pytest.approx(alone[0].item() / 2)
    assert classification.item() == pytest.approx((DOUBT / 4 + DOUBT / 2) / 2)      # visit 1: 1 of 4 labels; 2: 1 of 2
    total.backward()
    assert thickness.grad.isfinite().all() and findings.grad.isfinite().all()
    assert not thickness.grad[1].any() and not findings.grad[1].any() and thickness.grad[0].any()


def test_of_visits_of_one_image_both_losses_are_the_same():
    findings = torch.rand(3, 4)
    outputs = torch.rand(3), findings, findings
    batch = batch_of([250.0, 300.0, 200.0], (torch.rand(3, 4) > 0.5).float().tolist(),
                     visits=torch.eye(3, dtype=torch.bool), has_image_labels=[True, False, True])
    torch.testing.assert_close(VisitLoss()(outputs, batch), ImageLoss()(outputs, batch))


def test_csv_loss_by_hand():
    outputs = torch.tensor([0.5, 1.0]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([1.0, 1.0]), torch.tensor([0, 1])
    total, regression, classification = CSVLoss()(outputs, targets)
    assert regression.item() == pytest.approx(0.125)
    assert classification.item() == pytest.approx((DOUBT + CERTAIN) / 2)
    assert total.item() == pytest.approx(regression.item() + classification.item())


def test_the_seed_recipes_floor_as_documented():
    """Outputs of a Sigmoid taken for logits: a perfect answer still costs 0.313 a positive, 0.693 a negative."""
    for sure, floor in ((1.0, 0.3133), (0.0, 0.6931)):
        findings = torch.full((1, 4), sure)
        loss = ImageLoss()((torch.zeros(1), findings, findings), batch_of([0.0], findings.tolist()))
        assert loss[2].item() == pytest.approx(floor, abs=1e-4)
