"""What an image model is, in plain values."""

import json

import pytest

from config import View
from model.specification import ImageSpecification
from processing import columns as c

PUBLISHED = ImageSpecification()


@pytest.mark.parametrize("what", [
    PUBLISHED,
    ImageSpecification("residual", {"fundus": View(0, 9, 1, 7, channels=3, folder="eye"), "bscan": View(1, 2, 3, 4)},
                       "visit", "logits", ("PED", "drusen"), c.PRE_CST, "image"),
])
def test_it_comes_back_from_json_as_it_was(what):
    back = ImageSpecification(**json.loads(json.dumps(what.to_plain())))
    assert back == what
    assert list(back.views) == list(what.views)         # their order is that of the joined features
    assert all(isinstance(view, View) for view in back.views.values())
    assert back.to_plain() == what.to_plain()


def test_the_published_checkpoints_see_what_the_2021_system_did():
    assert PUBLISHED.to_plain() == {
        "backbone": "plain", "pool": "image", "heads": "sigmoid", "findings": ["IRF", "SRF", "PED", "HRF"],
        "target": "CST", "normalise": "none",
        "views": {"bscan": {"top": 50, "bottom": 450, "left": 550, "right": 1200, "channels": 1, "folder": "img",
                            "narrow": 1}},
    }


def test_a_word_that_it_does_not_know_is_refused():
    with pytest.raises(TypeError, match="future"):
        ImageSpecification(**PUBLISHED.to_plain(), future=1)
