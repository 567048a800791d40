"""Pictures of networks are drawn from their modules: shapes and parameters are what a forward pass finds."""

import cv2
import pytest

from config import View
from model.diagram import Part, draw_network, list_parts, record_shapes
from model.module import CSVModule, ImageModule
from model.portable import build_portable_eyes, build_portable_images
from model.specification import ImageSpecification
from tests.helpers import REPOSITORY

VIEWS = {"bscan": View(0, 64, 0, 96), "fundus": View(0, 64, 0, 64, channels=3, folder="fundus")}


def test_shapes_strides_and_parameters_are_the_modules():
    portable = build_portable_images(ImageModule())
    shapes = record_shapes(portable)
    parts = list_parts(portable.trunks["bscan"], shapes)
    assert parts[0] == Part("BasicConv2d", (8, 400, 650), 3 * 8 * 9 + 8 + 2 * 8, 1)
    assert parts[-1] == Part("BasicConv2d", (64, 2, 3), 64 * 64 * 9 + 64 + 2 * 64, 2)
    assert [part.shape for part in list_parts(portable.heads["findings"], shapes)] == [(192,), (96,), (4,)]
    portable = build_portable_eyes(CSVModule(), {})
    shapes = record_shapes(portable)
    assert [part.shape[0] for part in list_parts(portable.trunks["features"], shapes)] == [32, 64, 128, 32, 8]
    assert list_parts(portable.heads["VA"], shapes)[0] == Part("Linear", (4,), 8 * 4 + 4)


@pytest.mark.parametrize("portable", [
    build_portable_images(ImageModule(ImageSpecification("residual", VIEWS, "visit", "logits"))),
    build_portable_images(ImageModule(ImageSpecification("plain", {"fundus": VIEWS["fundus"]}))),
    build_portable_eyes(CSVModule("logits"), {}),
], ids=["both", "fundus", "eyes"])
def test_every_kind_of_network_can_be_drawn(tmp_path, portable):
    draw_network(tmp_path / "a.png", portable, "Model")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape[1] == 1400
    rim = [picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]]
    assert all((side == 255).all() for side in rim)     # nothing is cut off


def test_nothing_of_a_drawing_stays_in_the_module():
    portable = build_portable_eyes(CSVModule(), {})
    record_shapes(portable)
    assert not any(module._forward_hooks for module in portable.module.modules())


@pytest.mark.parametrize("name", ["ImageModule", "CSVModule"])
def test_the_pictures_of_the_documentation_are_there_and_small(name):
    assert 10_000 < (REPOSITORY / "docs" / f"{name}.png").stat().st_size < 300_000
