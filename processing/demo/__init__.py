"""Write a synthetic data set in exactly the real layout, with known answers.

Writes under a root: data/source (device screens and annotation tables of both rounds), data/submit (the three
templates), truth (the test eyes' answers, in the templates' form). Reads nothing. The same size and seed give
the same bytes. Nothing in it comes from a person.
"""

from contextlib import closing
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np

from config import Paths
from model_config import ConfigError
from processing import columns as c
from processing.demo.answers import write_tables
from processing.demo.cases import Case, invent_cases
from processing.eye.anatomy import Visit
from processing.eye.phantom import BSCAN_COLUMNS, NARROW_COLUMNS
from processing.eye.screen import render_fundus, render_screen
from processing.eye.section import RADIAL_LINES, VOLUME_LINES, Scan
from processing.files import write_bytes
from processing.parallel import CORES, map_in_threads
from processing.terminal import progress

JPEG_QUALITY = 80           # gives about 115 kB a screen, like the device
DATES = {c.PRE: "3/1/2021", c.POST: "9/1/2021"}     # six months apart
NARROW_EVERY, NARROW_FIRST = 25, 3   # in each set the fourth eye, and each 25th after it, has 512 columns
FELLOWS_IN = "preliminary/Train_set"        # untreated fellow eyes occur in training only
MOST_EYES = 499             # of one set: the number ranges of the IDs


@dataclass(frozen=True)
class DemoSize:
    """How much to invent. A set needs two eyes to hold both classes of each finding.

    Raises:
        ValueError: a number out of range.
    """

    preliminary_train: int = 28     # eyes, 2 or more
    preliminary_test: int = 8       # eyes, 2 or more
    final_train: int = 10           # eyes, 2 or more
    final_test: int = 8             # eyes, 2 or more
    images: int = 3                 # B-scans per eye and visit, 1 to 25; a radial pattern has 6 at most

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = (1, VOLUME_LINES) if field.name == "images" else (2, MOST_EYES)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{field.name} = {value!r}: a whole number from {low} to {high} is needed.")


SMALLEST = DemoSize(4, 3, 3, 2, images=1)   # for tests
DEFAULT = DemoSize()                        # 324 screens: the whole demonstration in three minutes
SIZES = {"smallest": SMALLEST, "default": DEFAULT}


def share_eyes(eyes: int, *, images: int = DEFAULT.images) -> DemoSize:
    """A size of so many eyes in all, in about the default size's proportions: two in each set at least.

    >>> share_eyes(120)
    DemoSize(preliminary_train=65, preliminary_test=17, final_train=21, final_test=17, images=3)

    Raises:
        ConfigError: too few or too many eyes for four sets.
    """
    default = np.array([DEFAULT.preliminary_train, DEFAULT.preliminary_test, DEFAULT.final_train, DEFAULT.final_test])
    wanted = 2 + (eyes - 8) * (default - 2) / (default - 2).sum()
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(counts - wanted, kind="stable")[:eyes - counts.sum()]] += 1       # the largest remainders
    try:
        return DemoSize(*[*counts.tolist(), images])
    except ValueError as error:
        raise ConfigError(f"{eyes} eyes cannot be shared over the four sets: {error}") from error


class Sitting(NamedTuple):
    """One eye's visit to the device."""

    case: Case
    injection: str          # columns.PRE or columns.POST
    scans: list             # of section.Scan
    files: list             # of Path: where each scan's screen goes
    width: int              # columns of the B-scans
    seed: np.random.SeedSequence

    @property
    def visit(self) -> Visit:
        return self.case.before if self.injection == c.PRE else self.case.after


def write_demo(paths: Paths, size: DemoSize = DEFAULT, *, seed: int = 2021) -> None:
    """Write source tree, templates and truth of a synthetic data set.

    Args:
        paths: config.Paths of a root that holds nothing real.
        size: DemoSize.
        seed: whole number, 0 or more; with `size` it determines every byte.

    Raises:
        PipelineError: a file could not be written.
    """
    case_seed, scan_seed = np.random.SeedSequence(seed).spawn(2)
    # The IDs of each set, by its folder. All start with 9; no person is in two sets
    people = {"preliminary/Train_set": _invent_patients(size.preliminary_train, first=1),
              "preliminary/Test_set": _invent_patients(size.preliminary_test, first=5001),
              "final/Train_Set": [f"{9001 + k}{'LR'[k % 2]}" for k in range(size.final_train)],
              "final/Test_set": [f"{9501 + k}{'LR'[k % 2]}" for k in range(size.final_test)]}
    rng = np.random.default_rng(case_seed)
    sets = {name: invent_cases(patients, rng, final=name.startswith("final"), fellows=name == FELLOWS_IN)
            for name, patients in people.items()}
    sittings = {name: _plan_sittings(cases, paths.source / name, size.images, seed=set_seed)
                for (name, cases), set_seed in zip(sets.items(), scan_seed.spawn(len(sets)), strict=True)}
    planned = [sitting for sittings_of_set in sittings.values() for sitting in sittings_of_set]
    # numpy and OpenCV work in threads, each visit from a seed of its own; more than four threads wait for each other
    counts = map_in_threads(_write_screens, planned, threads=min(4, CORES))
    with closing(counts), progress(total=sum(len(each.files) for each in planned), label="screens") as bar:
        for count in counts:
            bar.update(count)
    write_tables(paths, sets, sittings)


def _invent_patients(count, *, first):
    """`count` IDs; the first of every three persons brings both eyes."""
    patients, person = [], first
    while len(patients) < count:
        both = (person - first) % 3 == 0
        patients += [f"9000-{person:04d}{eye}" for eye in ("LR" if both else "LR"[person % 2])]
        person += 1
    return patients[:count]


def _plan_sittings(cases, folder, images, *, seed):
    """Both visits of each case: which lines are handed out, and under which names."""
    rng, sittings = np.random.default_rng(seed), []
    for index, case in enumerate(cases):
        radial = index % 2 == 0
        for injection, seed_here in zip((c.PRE, c.POST), seed.spawn(2), strict=True):
            total = RADIAL_LINES if radial else VOLUME_LINES
            scans = [Scan(number, total, *(float(v) for v in rng.normal(0, (10, 7, 10))))       # held nearly still
                     for number in choose_lines(images, radial=radial)]
            files = [_place_file(folder, case, index, after=injection == c.POST, line=k, number=scan.number)
                     for k, scan in enumerate(scans)]
            width = NARROW_COLUMNS if index % NARROW_EVERY == NARROW_FIRST else BSCAN_COLUMNS
            sittings.append(Sitting(case, injection, scans, files, width, seed_here))
    return sittings


def choose_lines(images: int, *, radial: bool) -> list[int]:
    """Numbers (from 1) of the lines that are handed out: `images` of them, for a volume around the middle."""
    if radial:
        count = min(images, RADIAL_LINES)
        return [1 + k * RADIAL_LINES // count for k in range(count)]
    step = 2 if 2 * images <= VOLUME_LINES else 1       # leaves the pit, and still meets the lesions
    first = (VOLUME_LINES + 1) // 2 - step * (images - 1) // 2
    return [first + step * k for k in range(images)]


def _place_file(folder, case, index, *, after, line, number):
    """Where a screen goes, under the naming variants of the real data."""
    visit = 2 if after else 1
    if folder.parent.name == "final":
        scan = 35 + index // 2              # the same names in two eyes
        stems = [f"{scan} ({number})", f"{scan}_00{visit}{number:03d}", f"{scan}. ({number})",
                 f"{scan}- {visit}_{number:06d}"]
        stem, when = stems[index // 2 % len(stems)], "Post" if after else "Pre"
        return folder / case.patient / f"{when} Injection OCT Images" / f"{stem}.jpg"
    stems = [f"{visit}{line:03d}", f"{visit}_{line:06d}", f"{visit}_{line:03d}",
             f"{visit} ({line})" if line else f"{visit}"]
    suffix = ".JPG" if (index, line, after) == (1, 0, True) else ".jpg"
    name = f"{case.patient}_{stems[index] if index < len(stems) else stems[0]}{suffix}"
    part = "TrainingSet" if folder.name == "Train_set" else f"PreliminaryValidationSet{1 + index % 4 // 3}"
    lettered = folder.name == "Test_set" and index % 3 == 2     # some folders carry the eye's letter too
    return folder / part / (case.patient if lettered else case.person) / name


def _write_screens(sitting):
    """Draw and write the screens of a visit; returns how many."""
    rng = np.random.default_rng(sitting.seed)
    fundus = render_fundus(sitting.visit.eye, rng)
    for scan, file in zip(sitting.scans, sitting.files, strict=True):
        screen = render_screen(sitting.visit, scan, rng, fundus=fundus, date=DATES[sitting.injection],
                               width=sitting.width)
        write_bytes(file, cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    return len(sitting.files)
