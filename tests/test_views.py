import numpy as np
import pandas as pd
import pytest

from config import VIEWS, View
from processing import columns as c
from processing.data_factory import processing_data
from processing.errors import PipelineError
from processing.images import crop_image, read_image
from processing.tables import read_processed
from processing.views import ViewReader, check_views, describe_view, keep_views, view_paths
from tests.helpers import put_screen

BSCAN, FUNDUS = VIEWS["bscan"], VIEWS["fundus"]
INFO = "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n7R,Male,60,DME,Avastin,0.5\n"


@pytest.fixture
def done(paths, monkeypatch):
    """Two test images of one eye, the second one with colours everywhere, with option 0 done."""
    folder = paths.source / "final" / "Test_Set" / "7R" / "Pre Injection OCT Images"
    put_screen(folder / "1.jpg", seed=1)
    put_screen(folder / "2.png", seed=2, grey=False)
    (folder.parent.parent / "test_info.csv").write_text(INFO)
    monkeypatch.setattr("processing.data_factory.draw_crop_preview", lambda *_: None)
    processing_data(paths)
    return paths


def table(paths):
    return read_processed(paths.test_table, c.TEST_COLUMNS)


def test_a_path_follows_from_row_and_view_also_where_codes_are_floats():
    row = {c.DATA_TYPE: "train", c.PATIENT: "7R", c.FINAL: 1.0, c.AFTER: 0, c.SIDE: 1.0, c.IMAGE: "眼 (1)"}
    images = pd.DataFrame([row])
    assert view_paths(images, BSCAN) == ["data/processed/img/train/7R_1_0_1_眼 (1).jpg"]
    assert view_paths(images, FUNDUS) == ["data/processed/fundus/train/7R_1_0_1_眼 (1).jpg"]
    assert view_paths(images.head(0), BSCAN) == []


def test_the_views_of_the_2021_system_and_their_description():
    assert BSCAN == (50, 450, 550, 1200, 1, "img", 1)
    assert (FUNDUS.height, FUNDUS.width, FUNDUS.channels) == (496, 496, 3)
    assert describe_view(BSCAN) == "50:450,550:1200"


def test_the_paths_are_those_of_the_tables(done):
    images = table(done)
    assert view_paths(images, BSCAN) == images[c.PROCESSED].tolist()
    for view in keep_views(VIEWS).values():
        assert all((done.root / name).is_file() for name in view_paths(images, view))
        assert all(done.view_folder(view) in (done.root / name).parents for name in view_paths(images, view))


@pytest.mark.parametrize(("view", "said"), [
    (View(450, 50, 550, 1200), "whole numbers are wanted"),
    (View(-50, 450, 550, 1200), "whole numbers are wanted"),
    (View(50, 50, 550, 1200), "whole numbers are wanted"),
    (View(50, 450, -1, 9), "whole numbers are wanted"),
    (View(50, 450, 550.0, 1200), "whole numbers are wanted"),
    (View(0, 100_000, 0, 100_000), "more than any screen has"),
    (View(0, 9, 0, 9, channels=2), "its channels are 2"),
    (View(0, 9, 0, 9, folder="../img"), "a name of letters and digits is wanted"),
    (View(0, 9, 0, 9, narrow=2), "its narrow is 2, a whole number that divides its 9 columns"),
    (View(0, 9, 0, 9, narrow=0), "its narrow is 0"),
    (View(0, 9, 0, 9, folder="IMG"), "is that of the view 'bscan'"),
])
def test_a_view_that_cannot_be_cut_is_refused_by_its_name(view, said):
    check_views(VIEWS)
    with pytest.raises(PipelineError, match=r"config.VIEWS\['odd'\] is") as caught:
        check_views(VIEWS | {"odd": view})
    assert said in str(caught.value)


def test_without_the_view_that_names_the_images_nothing_goes(paths):
    for views in ({"fundus": FUNDUS}, {"bscan": BSCAN._replace(folder=""), "fundus": FUNDUS}):
        with pytest.raises(PipelineError, match="no view 'bscan'"):
            check_views(views)


def test_a_view_that_is_not_kept_is_cut_from_the_screen_and_drawn_together(done, capsys):
    images, view = table(done), View(10, 90, 500, 620, channels=1, folder="", narrow=3)
    check_views(VIEWS | {"whole": view})
    reader = ViewReader(done, images, view)
    reader.check()
    assert capsys.readouterr().out == ""        # that is as it should be
    assert reader.names == images[c.SOURCE].tolist() and reader.files == reader.names
    screen = read_image(done.root / images[c.SOURCE].iloc[0])
    wanted = screen[10:90, 500:620].mean(axis=2).reshape(80, 40, 3).mean(axis=2)
    assert reader.read(0).shape == (1, 80, 40)
    assert np.abs(reader.read(0)[0].astype(float) - wanted).mean() < 3          # JPEG


def test_pixels_come_as_the_view_says_red_first(done):
    images = table(done)
    for view in VIEWS.values():
        reader = ViewReader(done, images, view)
        reader.check()
        assert len(reader) == 2
        assert reader.names == view_paths(images, view)
        for index, source in enumerate(images[c.SOURCE]):
            pixels = reader.read(index)
            assert (pixels.shape, pixels.dtype) == ((view.channels, view.height, view.width), np.uint8)
            screen = crop_image(read_image(done.root / source), view)[..., ::-1].transpose(2, 0, 1)
            wanted = screen if view.channels == 3 else np.tensordot([0.299, 0.587, 0.114], screen, 1)[None]
            assert np.abs(pixels - wanted.astype(float)).mean() < 12       # JPEG, its colours at half the resolution


def test_another_box_is_cut_from_the_screens_with_option_0s_very_pixels(done, capsys):
    images = table(done)
    moved = {name: view._replace(top=view.top + 9, bottom=view.bottom + 1) for name, view in VIEWS.items()}
    moved["fundus"] = moved["fundus"]._replace(channels=1)
    readers = {name: ViewReader(done, images, view) for name, view in moved.items()}
    in_memory = {name: [reader.read(0), reader.read(1)] for name, reader in readers.items()}
    readers["bscan"].check()
    assert "2 of 2 crops in data/processed/img were not cut with the box 59:451,550:1200; these images are cut from " \
           "their screens" in capsys.readouterr().out
    processing_data(done, moved)
    for name, view in moved.items():
        reader = ViewReader(done, images, view)
        for index, pixels in enumerate(in_memory[name]):
            np.testing.assert_array_equal(reader.read(index), pixels)
    capsys.readouterr()
    reader.check()
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_said_before_a_long_stage(done):
    images = table(done)
    (done.root / images[c.SOURCE][1]).unlink()
    ViewReader(done, images, BSCAN).check()         # its crop is there
    with pytest.raises(PipelineError, match=r"2 of 2 crops were not cut with the box 0:9,0:9, and 1 of their screens "
                                            r"are not there, the first is .*2\.png\. Put the screens back"):
        ViewReader(done, images, View(0, 9, 0, 9)).check()
    (done.root / images[c.PROCESSED][1]).unlink()
    with pytest.raises(PipelineError, match=r"1 of 2 crops are not there, the first is .*2\.jpg\. Option 0"):
        ViewReader(done, images, BSCAN).check()


def test_what_cannot_be_read_is_named_with_what_to_do(done):
    images = table(done)
    reader = ViewReader(done, images, FUNDUS)
    crop = done.root / reader.names[0]
    crop.write_bytes(crop.read_bytes()[:3000])
    with pytest.raises(PipelineError, match=r"7R_1_0_1_1\.jpg: .*damaged.* Option 0 \(processing_data\) cuts it anew"):
        reader.read(0)
    put_screen(crop, height=10, width=20)
    with pytest.raises(PipelineError, match="has 10 x 20 rows and columns, the box 0:496,0:496 has 496 x 496"):
        reader.read(0)
    crop.unlink()
    with pytest.raises(PipelineError, match=r"7R_1_0_1_1\.jpg: cannot be read: No such file"):
        reader.read(0)
    with pytest.raises(PipelineError, match=r"1\.jpg: too small: .*Option 0 \(processing_data\) leaves it out"):
        ViewReader(done, images, View(0, 9, 2000, 2009)).read(0)


def test_a_crop_that_somebody_saved_in_colour_is_read_grey(done):
    images = table(done)
    put_screen(done.root / images[c.PROCESSED][0], height=400, width=650, grey=False)
    assert ViewReader(done, images, BSCAN).read(0).shape == (1, 400, 650)


def test_without_a_record_or_with_an_older_one_the_screens_are_read(done):
    images = table(done)
    pixels = ViewReader(done, images, BSCAN).read(1)
    for content in (None, "processed_path,box\na,b\n", "\0\xff"):
        done.crop_record.unlink(missing_ok=True)
        if content:
            done.crop_record.write_bytes(content.encode("latin-1"))
        for name in images[c.PROCESSED]:
            (done.root / name).unlink(missing_ok=True)
        np.testing.assert_array_equal(ViewReader(done, images, BSCAN).read(1), pixels)
