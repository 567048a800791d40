"""Crops with membranes and fluid drawn on them, for the pictures of an evaluation."""

import numpy as np
import pandas as pd
import pytest

from config import VIEWS, Paths
from data import report
from data.painted import paint_views
from processing import columns as c
from processing.crop_record import GEOMETRY_COLUMNS
from processing.errors import PipelineError
from processing.images import crop_image, read_image
from processing.overlays import BM_COLOR, ILM_COLOR
from processing.tables import read_processed


@pytest.fixture(scope="module")
def images(demo_root):
    return read_processed(demo_root.image_table, c.IMAGE_COLUMNS).head(2)


def find_color(picture, color):
    """Row of a colour (red first) in each column that has it, on average."""
    close = np.abs(picture[..., ::-1].astype(int) - color).max(axis=2) < 40
    return np.where(close.any(axis=0), (close * np.arange(len(close))[:, None]).sum(axis=0)
                    / np.maximum(close.sum(axis=0), 1), np.nan)


def test_membranes_lie_on_the_retina_of_the_crop(demo_root, images):
    view = VIEWS["bscan"]
    for source, picture in zip(images[c.SOURCE], paint_views(demo_root, list(images[c.SOURCE]), view), strict=True):
        plain = crop_image(read_image(demo_root.root / source), view)
        assert picture.shape == plain.shape and picture.dtype == np.uint8
        ilm, bm = find_color(picture, ILM_COLOR), find_color(picture, BM_COLOR)
        both = np.isfinite(ilm) & np.isfinite(bm)
        assert both.mean() > 0.3
        for column in np.flatnonzero(both)[::40]:
            above, within = plain[:max(1, int(ilm[column]) - 8)], plain[int(ilm[column]):int(bm[column])]
            assert within[:, column].mean() > above[:, column].mean() + 20     # the retina lies between the lines


def test_where_screens_are_gone_the_crops_are_shown_and_that_is_said(demo_root, images, tmp_path, capsys):
    lost = images.assign(**{c.SOURCE: "data/source/gone.jpg"})
    with pytest.raises(PipelineError, match="gone.jpg"):
        paint_views(Paths(tmp_path), list(lost[c.SOURCE]), VIEWS["bscan"])
    pictures, legend = report._paint(demo_root, lost, VIEWS["bscan"])
    assert len(pictures) == 2 and not legend and pictures[0].shape[2] == 3
    assert "The pictures show these crops without membranes and fluid." in capsys.readouterr().out


def test_the_gallery_shows_the_eyes_that_it_names(demo_root, tmp_path, monkeypatch):
    """Each eye's picture is that of a scan of its own after treatment."""
    train = read_processed(demo_root.train_table, c.TRAIN_COLUMNS)
    after = train[train[c.AFTER] == 1].drop_duplicates(c.SOURCE)
    eyes = train.drop_duplicates(c.PATIENT).set_index(c.PATIENT)
    predicted = pd.DataFrame({c.CST: eyes[c.CST] * np.linspace(1, 2, len(eyes)), c.VA: 0.5})
    shown = []
    monkeypatch.setattr(report, "paint_views", lambda _paths, sources, _view: sources)
    monkeypatch.setattr(report, "draw_gallery", lambda _path, rows, legend: shown.extend(rows))
    report.draw_gallery_of_eyes(tmp_path / "a.png", eyes, predicted, images=after, paths=demo_root)
    pictures = [picture for _, row in shown for picture in row]
    assert pictures and len({source for _, source, _ in pictures}) == len(pictures)
    source_of = after.set_index(c.SOURCE)[c.PATIENT]
    assert all(source_of[source] == caption.split(":")[0] for caption, source, _ in pictures)


def test_the_gallery_shows_the_scan_nearest_the_fovea(tmp_path):
    paths, scans = Paths(tmp_path), [("1L", "a", 900), ("1L", "b", -240), ("1L", "c", 480), ("1L", "d", None),
                                     ("2R", "e", None), ("2R", "f", None), ("2R", "g", None)]
    table = pd.DataFrame(scans, columns=[c.PATIENT, c.SOURCE, "distance_um"])
    paths.geometry_table.parent.mkdir(parents=True)
    table.reindex(columns=GEOMETRY_COLUMNS).to_csv(paths.geometry_table, index=False)
    images = table[[c.PATIENT, c.SOURCE]].iloc[::-1]
    assert report._choose_scans(images, paths)[c.SOURCE].to_dict() == {"1L": "b", "2R": "f"}
    assert report._choose_scans(images, Paths(tmp_path / "none"))[c.SOURCE].to_dict() == {"1L": "c", "2R": "f"}
