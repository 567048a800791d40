"""Images of a table's rows as batches: which images, in which order, cut between visits.

B images of a batch and V visits (V = B where each image stands alone), C channels, H and W pixels, K findings.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from config import Paths
from model.cache import PixelCache
from model.eye_features import PLAUSIBLE_CST_UM
from model.loss import ImageTargets
from model.pooling import find_pool
from model.specification import OWN_VISIT, ImageSpecification
from model.visit_features import NEAR_UM, read_labels
from processing import columns as c
from processing.crop_record import GeometryRecord
from processing.errors import PipelineError
from processing.geometry import RADIAL_PATTERN
from processing.views import ViewReader
from processing.visits import VISIT, number_visits

MAX_THREADS = 8             # that read; beyond this the disk or the model is the limit


class Portion(NamedTuple):
    """What a batch is made of."""

    rows: np.ndarray        # B indices of rows
    visits: np.ndarray      # B, the visit of each: 0, 1, ... within the batch, rising

    @property
    def visit_count(self) -> int:
        """How many visits it holds."""
        return int(self.visits[-1]) + 1 if len(self.visits) else 0

    def share(self, rank: int, count: int) -> "Portion":
        """The visits that process `rank` of `count` takes, numbered anew."""
        own = self.visits % count == rank
        return Portion(self.rows[own], self.visits[own] // count)


class Batch(NamedTuple):
    """What a step takes; of several processes each has its share of the visits."""

    inputs: dict[str, torch.Tensor]     # by view, B x C x H x W float32 in 0-1
    visits: torch.Tensor | None         # V x B bool: which images are of which visit; None: each stands alone
    targets: ImageTargets | None        # None where there are no labels
    rows: np.ndarray                    # indices of the whole batch's rows
    own_rows: np.ndarray                # of this process's share
    visit_count: int                    # of the whole batch
    places: torch.Tensor | None = None  # B x P float32: where the scans lie (read_places); None: the network asks not

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the network takes."""
        return (self.inputs, self.visits) if self.places is None else (self.inputs, self.visits, self.places)


class ImageData:
    """Images of a table's rows, by view, with their labels if the table has them.

    Args:
        rows: DataFrame of train.csv or test.csv; for training with the specification's target and findings.
        paths: config.Paths.
        specification: ImageSpecification: which views, findings and target, and whether visits are answered whole.
        labelled: whether the labels are wanted.
        caches: dict of view -> model.cache.PixelCache with decoded images, or empty.
        placed: whether it is wanted where the scans lie.

    Raises:
        PipelineError: a label is no finite number.
    """

    def __init__(self, rows: pd.DataFrame, paths: Paths, specification: ImageSpecification, *, labelled: bool = False,
                 caches: dict[str, PixelCache | None] | None = None, placed: bool = False):
        self.readers = {name: ViewReader(paths, rows, view) for name, view in specification.views.items()}
        self._root, self._caches = paths.root, caches or {}
        self.takes_visits = find_pool(specification.pool).takes_visits
        self._visits = number_visits(rows)
        self.visit_of_row = self._visits if self.takes_visits else np.arange(len(rows))
        self.is_final = rows[c.FINAL].to_numpy() == 1       # findings are labelled image by image
        self.places = torch.from_numpy(read_places(rows, paths)) if placed else None
        self._labels = None         # N x (1 + K) float32: CST in um, findings; of OWN_VISIT NaN where none is given
        if labelled:
            columns = [specification.target, *specification.findings]
            if specification.target == OWN_VISIT:
                rows = _label_own_visits(rows, paths, columns)
            else:
                check_finite(rows, columns, list(map(self.name, range(len(rows)))))
            self._labels = torch.tensor(rows[columns].to_numpy(np.float32))
            if self.near is not None and not self.takes_visits:     # images alone: far ones do not speak for thickness
                has_near = pd.Series(self.near).groupby(self._visits).transform("any").to_numpy()
                self._labels[has_near & ~self.near, 0] = torch.nan

    def __len__(self) -> int:
        return len(self.visit_of_row)

    @property
    def near(self) -> np.ndarray | None:
        """N bool: which images are near the fovea, as find_near has it; None where it is not asked."""
        return None if self.places is None else find_near(self.places, torch.tensor(self._visits)).numpy()

    def name(self, row: int) -> str:
        """What the user knows a row by: the file of its first view."""
        return str(self._root / next(iter(self.readers.values())).names[row])

    def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The pixels of `rows` (maybe none), by view: B x C x H x W uint8.

        Raises:
            PipelineError: an image cannot be read.
        """
        return {view: self._read_view(view, rows) for view in self.readers}

    def _read_view(self, view: str, rows: np.ndarray) -> torch.Tensor:
        reader, cache = self.readers[view], self._caches.get(view)
        box = reader.view
        batch = np.empty((len(rows), box.channels, box.height, box.width), np.uint8)
        for place, row in zip(batch, rows, strict=True):
            pixels = None if cache is None else cache.read(reader.names[row])
            place[:] = reader.read(int(row)) if pixels is None else pixels
        return torch.from_numpy(batch)

    def targets(self, own: Portion, device: torch.device) -> ImageTargets | None:
        """The labels of a share of a batch on `device`; None where there are none."""
        if self._labels is None:
            return None
        first = own.rows if not self.takes_visits else own.rows[np.unique(own.visits, return_index=True)[1]]
        of_images = self._labels[own.rows].to(device, non_blocking=True)
        of_visits = of_images if not self.takes_visits else self._labels[first].to(device, non_blocking=True)
        is_final = torch.from_numpy(self.is_final[first]).to(device)
        return ImageTargets(of_visits[:, 0], of_images[:, 1:], of_visits[:, 1:], is_final)


def _label_own_visits(rows: pd.DataFrame, paths: Paths, columns: list[str]) -> pd.DataFrame:
    """Thickness of each image's own visit, and its findings; NaN where the doctor gave none and option 0 filled in, or
    gave one that no retina has."""
    given = read_labels(paths).reindex(pd.MultiIndex.from_frame(rows[VISIT])).set_axis(rows.index)
    thickness, *findings = columns
    known = rows[findings].where(given[findings].notna())
    return known.assign(**{thickness: given[c.CST].where(given[c.CST].between(*PLAUSIBLE_CST_UM))})


def read_places(rows: pd.DataFrame, paths: Paths) -> np.ndarray:
    """Where the scans of images lie, as geometry.csv has it: N x 3 float32.

    Whether the distance of their pattern's middle is known, that distance in mm (0 where not known, 3 at most), and
    whether the pattern is radial.
    """
    table = GeometryRecord(paths.geometry_table).table(rows[c.SOURCE]).drop_duplicates(c.SOURCE).set_index(c.SOURCE)
    table = table.reindex(rows[c.SOURCE])
    away_mm = table["distance_um"].abs().to_numpy(float) / 1000
    is_radial = (table["pattern"] == RADIAL_PATTERN).to_numpy()
    return np.stack([~np.isnan(away_mm), np.nan_to_num(away_mm).clip(0, 3), is_radial], axis=1).astype(np.float32)


def find_near(places: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
    """N bool: which scans are known to lie near the fovea: within NEAR_UM, or the nearest of their visit where none is.

    Args:
        places: N x 3 of read_places.
        visits: N numbers.
    """
    away = find_away(places)
    nearest = torch.full((int(visits.max()) + 1 if len(visits) else 0,), torch.inf).scatter_reduce(
        0, visits.long(), away, "amin")
    return (away <= find_limit(nearest)[visits.long()]) & away.isfinite()


def find_away(places: torch.Tensor) -> torch.Tensor:
    """N distances from the middle of the pattern, mm; infinite where not known."""
    return places[:, 1].masked_fill(places[:, 0] == 0, torch.inf)


def find_limit(nearest_mm: torch.Tensor) -> torch.Tensor:
    """Up to which distance the scans of a visit speak for its thickness, mm, by that of the nearest."""
    return nearest_mm.clamp(min=NEAR_UM / 1000)


def check_finite(table: pd.DataFrame, columns: list[str], names: list[str], *,
                 advice: str = "Option 0 (processing_data) makes the processed tables anew.") -> None:
    """Refuse NaN and infinity before they are trained on, predicted from or handed in.

    Args:
        table: DataFrame.
        columns: those that must hold finite numbers only.
        names: what the user knows each row by.
        advice: what the user can do.

    Raises:
        PipelineError: names the first rows, columns and values at fault.
    """
    values = table[columns].to_numpy(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        shown = "; ".join(f"{names[row]}: {columns[column]} is {values[row, column]}" for row, column in wrong[:5])
        raise PipelineError(f"{len(wrong)} values are no finite numbers ({shown}). {advice}")


# ---- Which images, in which order

def plan_epoch(visit_of_row: np.ndarray, *, seed: int, epoch: int, batch_size: int, near: np.ndarray | None = None
               ) -> list[Portion]:
    """A training epoch: visits in an order that seed and epoch decide alone, each with a random part of its images.

    Args:
        visit_of_row: N visit numbers.
        seed: of the run.
        epoch: its number, from 1.
        batch_size: images of a batch at most; a visit that has more makes a batch of its own.
        near: N bool, which images speak for their visit's thickness: of a visit that has any, one is among the chosen.

    Returns:
        list of Portion: every visit once, with one of its images or more.
    """
    rng = np.random.default_rng([seed, epoch])
    members = _group(visit_of_row)
    chosen = []
    for number in rng.permutation(len(members)):
        images = members[number]
        speakers = images[near[images]] if near is not None else images
        if len(images) > 1:
            images = np.sort(rng.choice(images, rng.integers(1, len(images) + 1), replace=False))
        if len(speakers) and not np.isin(speakers, images).any():
            images = np.sort(np.append(images, rng.choice(speakers)))
        chosen.append(images)
    return _cut(chosen, batch_size)


def plan_in_order(visit_of_row: np.ndarray, batch_size: int) -> list[Portion]:
    """Every image once, visit by visit, in batches for prediction; arguments as for plan_epoch."""
    return _cut(_group(visit_of_row), batch_size)


def _group(visit_of_row: np.ndarray) -> list[np.ndarray]:
    """Rows of each visit, by its number."""
    if not len(visit_of_row):
        return []
    order = np.argsort(visit_of_row, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(visit_of_row[order])) + 1)


def _cut(visits: list[np.ndarray], batch_size: int) -> list[Portion]:
    """Visits as portions of at most `batch_size` images, never torn."""
    portions, start, count = [], 0, 0
    sizes = [len(rows) for rows in visits]
    for number, size in enumerate([*sizes, batch_size + 1]):
        if count + size > batch_size and number > start:
            inside = np.arange(number - start).repeat(sizes[start:number])
            portions.append(Portion(np.concatenate(visits[start:number]), inside))
            start, count = number, 0
        count += size
    return portions


# ---- Batches of them

def build_batch(data: ImageData, inputs: dict[str, torch.Tensor], own: Portion, whole: Portion) -> Batch:
    """The batch of the images `inputs` (of the share `own` of the portion `whole`), with labels where there are any."""
    device = next(iter(inputs.values())).device
    visits = None
    if data.takes_visits:
        numbers = torch.from_numpy(own.visits).to(device)
        visits = numbers[None] == torch.arange(own.visit_count, device=device)[:, None]     # V x B
    places = None if data.places is None else data.places[own.rows].to(device)
    return Batch(inputs, visits, data.targets(own, device), whole.rows, own.rows, whole.visit_count, places)


def scale_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 images as float32 in 0-1."""
    return images.float().div_(255)
