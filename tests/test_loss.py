from math import e, log

import pytest
import torch

from model.loss import CSVLoss, ImageLoss


def test_image_loss_by_hand():
    outputs = torch.tensor([2.0, 3.0]), torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    targets = torch.tensor([300.0, 300.0]), torch.tensor([[0.0, 0, 1, 1], [1, 1, 0, 0]])
    total, (regression, classification) = ImageLoss()(outputs, targets)
    assert regression.item() == pytest.approx(0.5)      # ((2 - 3)^2 + 0) / 2, in hundreds of um
    expected = (4 * log(2) + 2 * log(1 + 1 / e) + 2 * log(1 + e)) / 8
    assert classification.item() == pytest.approx(expected)
    assert total.item() == pytest.approx(0.5 + 2 * expected)


def test_csv_loss_by_hand():
    outputs = torch.tensor([0.5, 1.0]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([1.0, 1.0]), torch.tensor([0, 1])
    total, (regression, classification) = CSVLoss()(outputs, targets)
    assert regression.item() == pytest.approx(0.125)
    assert classification.item() == pytest.approx((log(2) + log(1 + 1 / e)) / 2)
    assert total.item() == pytest.approx(regression.item() + classification.item())


def test_the_seed_recipes_floor_as_documented():
    """Outputs of a Sigmoid taken for logits: a perfect answer still costs 0.313 a positive, 0.693 a negative."""
    sure = torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[0.0, 0, 0, 0]])
    cst = torch.zeros(1)
    (_, positive), (_, negative) = (
        ImageLoss()((cst, findings), (cst, findings))[1] for findings in sure
    )
    assert positive.item() == pytest.approx(0.3133, abs=1e-4)
    assert negative.item() == pytest.approx(0.6931, abs=1e-4)
