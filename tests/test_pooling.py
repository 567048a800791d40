"""How the images of a visit become one answer."""

import pytest
import torch

from model.pooling import GatedAttention, ImagePool, find_pool
from model_config import POOLS

VISITS = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)


@pytest.fixture
def pool():
    torch.manual_seed(0)
    pool = GatedAttention(5)
    for layer in (pool.content, pool.gate, pool.weight):
        torch.nn.init.normal_(layer.weight)     # weights that differ from image to image
    return pool


def attend(pool, features):
    """The weights by the paper's words, one image at a time."""
    scores = [pool.weight(torch.tanh(pool.content(one)) * torch.sigmoid(pool.gate(one))) for one in features]
    powers = torch.cat(scores).exp()
    return powers / powers.sum()


def test_every_pool_of_the_configuration_is_there():
    assert {name: find_pool(name).takes_visits for name in POOLS} == {"image": False, "visit": True}
    with pytest.raises(KeyError):
        find_pool("mean")


def test_images_alone_pass_as_they_are():
    features = torch.rand(3, 5)
    assert ImagePool(5)(features, None) is features
    assert list(ImagePool(5).parameters()) == []


def test_a_visits_features_are_a_mean_of_its_images_whose_weights_add_up_to_1(pool):
    torch.manual_seed(1)
    features = torch.rand(6, 5)
    pooled = pool(features, VISITS)
    for visit, own in zip(pooled, VISITS, strict=True):
        weights = attend(pool, features[own])
        assert weights.sum().item() == pytest.approx(1)
        torch.testing.assert_close(visit, weights @ features[own])
    assert attend(pool, features[:3]).std() > 0.01
    torch.testing.assert_close(pool(torch.ones(6, 5), VISITS), torch.ones(3, 5))
    torch.testing.assert_close(pooled[2], features[5])       # a single image stands for its visit


def test_images_of_other_visits_do_not_matter(pool):
    features = torch.rand(6, 5)
    other = torch.cat([features[:3], 100 * torch.rand(3, 5)])
    assert torch.equal(pool(features, VISITS)[0], pool(other, VISITS)[0])
    assert not torch.equal(pool(features, VISITS)[1], pool(other, VISITS)[1])
    features.requires_grad_()
    pool(features, VISITS)[1].sum().backward()
    assert (features.grad != 0).any(dim=1).tolist() == [False, False, False, True, True, False]


def test_the_order_of_the_images_does_not_matter(pool):
    features, order = torch.rand(6, 5), torch.tensor([4, 2, 5, 0, 3, 1])
    torch.testing.assert_close(pool(features[order], VISITS[:, order]), pool(features, VISITS))


def test_a_process_without_a_visit_has_no_answer_and_no_slope(pool):
    features = torch.rand(0, 5, requires_grad=True)
    pooled = pool(features, torch.zeros(0, 0, dtype=torch.bool))
    assert pooled.shape == (0, 5)
    pooled.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in pool.parameters())


def test_half_the_precision_gives_finite_weights(pool):
    features = (1000 * torch.rand(6, 5)).bfloat16()
    pooled = pool.bfloat16()(features, VISITS)
    assert pooled.dtype == torch.bfloat16 and pooled.isfinite().all()
