"""Synthetic eyes: the retina and its lesions, and what one visit finds of them.

Reads and writes no file. Places on the retina are (u, v) in um from the fovea, right and down in the fundus
picture. The lesions' sites belong to the eye, so that both visits, and all scans of a visit, cut the same
cysts, domes, foci and vessels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np

DISC_UM = 4300              # optic disc to fovea
AVASCULAR_UM = 550          # radius around the fovea without vessels
STEP_UM = 75                # vessels are drawn in steps of this length
THINNEST_UM = 115           # retina above fluid at the fovea: the outer layers and a trace more
SRF_UM = (50, 80, 220)      # height of subretinal fluid: range of the least that an eye shows, and the most
PED_UM = (60, 170)          # height of an RPE detachment
QUALITY_DB = (17, 34)       # from poor to excellent


class Sites(NamedTuple):
    """Places of lesions, one array element each: centre and radius (um), depth (0 ILM to 1 ELM)."""

    u_um: np.ndarray
    v_um: np.ndarray
    radius_um: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Eye:
    """What stays the same from visit to visit."""

    right: bool             # OD; the optic disc is then on the right
    fovea_um: float         # healthy thickness at the fovea, ILM to RPE
    rim_um: float           # how much the retina around the pit is thicker than far from it
    pit_um: float           # radius at which the pit has lost 1 - 1/e of its depth
    swelling_um: float      # radius over which oedema spreads
    choroid_um: float       # thickness of the choroid
    clarity: float          # share of the light that a clouded lens lets through; 1: usual
    curve_px: float         # rows by which the retina rises from the middle to the edge of the B-scan
    vessels: tuple          # of (float array n x 2 of u, v in um, width in um)
    cysts: Sites            # in the order in which oedema opens them
    blisters: Sites         # subretinal fluid
    elevations: Sites       # pigment epithelial detachments
    foci: Sites


@dataclass(frozen=True)
class Visit:
    """One eye on one day."""

    eye: Eye
    cst_um: float           # ILM to RPE at the fovea; counts fluid under the retina, not under the RPE
    irf: int                # 1: cysts in the retina
    srf: int                # 1: fluid under the retina
    ped: int                # 1: the RPE is lifted
    hrf: int                # 1: bright foci
    srf_um: float           # height of the subretinal fluid where it is highest
    ped_um: float           # height of the RPE detachment where it is highest
    quality_db: int         # signal quality as the device prints it

    @property
    def findings(self) -> tuple[int, int, int, int]:
        """IRF, SRF, PED, HRF."""
        return self.irf, self.srf, self.ped, self.hrf

    @property
    def neural_um(self) -> float:
        """Thickness of the retina itself at the fovea: CST without the fluid below it."""
        return self.cst_um - self.srf_um * dome(self.eye.blisters, 0, 0)


def grow_eye(rng: np.random.Generator, *, right: bool) -> Eye:
    """Invent an eye. The ranges are those of healthy eyes, and of macular oedema for the lesions.

    Args:
        rng: numpy Generator.
        right: True for a right eye.
    """
    return Eye(
        right=right,
        fovea_um=rng.uniform(195, 235),
        rim_um=rng.uniform(95, 130),
        pit_um=rng.uniform(400, 500),
        swelling_um=rng.uniform(1500, 2400),
        choroid_um=rng.uniform(170, 320),
        clarity=rng.uniform(0.92, 1.08),
        curve_px=rng.uniform(5, 40),
        vessels=grow_vessels(rng, right=right),
        cysts=_sort_by_distance(_scatter(rng, 140, 650, radius_um=(40, 230), depth=(0.3, 0.85)), rng),
        blisters=_scatter(rng, 1, 250, radius_um=(1300, 2400)),
        elevations=_scatter(rng, 2, 450, radius_um=(700, 1300)),
        foci=_scatter(rng, 260, 900, radius_um=(8, 20), depth=(0.15, 1.0)),
    )


def _scatter(rng, count, spread_um, *, radius_um, depth=(1, 1)):
    """Sites around the fovea, normally distributed; small ones are commoner than large ones."""
    u_um, v_um = rng.normal(0, spread_um, (2, count))
    small, large = radius_um
    return Sites(u_um, v_um, small + (large - small) * rng.random(count) ** 2, rng.uniform(*depth, count))


def _sort_by_distance(sites, rng):
    """Sites in a loose order of their distance from the fovea."""
    distance_um = np.hypot(sites.u_um, sites.v_um) + rng.normal(0, 250, sites.u_um.size)
    order = np.argsort(distance_um, kind="stable")
    return Sites(*(values[order] for values in sites))


def grow_vessels(rng: np.random.Generator, *, right: bool) -> tuple:
    """Retinal vessels: two arcades from the disc around the macula, with branches towards it.

    Returns:
        tuple of (float array n x 2: u, v in um; width in um).
    """
    nasal = 1 if right else -1
    vessels = []
    for side in (-1, -1, 1, 1):         # artery and vein above, artery and vein below
        start = np.array([nasal * DISC_UM, 0.0]) + rng.normal(0, 150, 2)
        heading = np.arctan2(side, -nasal * 0.5) + rng.normal(0, 0.15)
        turn = side * nasal * rng.uniform(0.010, 0.015)     # a radius of 5 to 7 mm
        trunk = _walk(rng, start, heading, turn=turn, wander=0.015, steps=120)
        width_um = rng.uniform(60, 100)
        vessels += [(trunk, 0.6 * width_um), (trunk[:70], width_um)]        # thinner towards the end
        for k in rng.integers(10, len(trunk), 6):
            inwards = np.arctan2(-trunk[k, 1], -trunk[k, 0]) + rng.normal(0, 0.7)
            branch = _walk(rng, trunk[k], inwards, turn=rng.normal(0, 0.008), wander=0.06, steps=40)
            vessels.append((branch, rng.uniform(15, 40)))
    return tuple(vessels)


def _walk(rng, start, heading, *, turn, wander, steps):
    """A winding path (n x 2, um) that ends before the avascular zone; angles in rad per step."""
    headings = heading + np.cumsum(turn + rng.normal(0, wander, steps))
    path = start + STEP_UM * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    inside = np.hypot(path[:, 0], path[:, 1]) < AVASCULAR_UM
    end = int(inside.argmax()) if inside.any() else steps
    return path[:max(end, 12)]          # 12: a trunk is longer than its first branching point


def plan_visit(eye: Eye, cst_um: float, findings: Sequence[int], *, rng: np.random.Generator) -> Visit:
    """Share out the thickness at the fovea between retina and subretinal fluid.

    Args:
        eye: Eye.
        cst_um: thickness at the fovea, 150 to 900 um.
        findings: four 0 / 1 in the order IRF, SRF, PED, HRF.
        rng: numpy Generator.

    Returns:
        Visit, whose scans through the fovea show exactly `cst_um` there.
    """
    irf, srf, ped, hrf = (int(found) for found in findings)
    share = rng.uniform(0.15, 0.4) if irf else 0.6      # without cysts it is mostly the fluid that lifts
    low, high, most = SRF_UM
    srf_um = srf * float(np.clip(share * (cst_um - eye.fovea_um), rng.uniform(low, high), most))
    at_fovea_um = srf_um * dome(eye.blisters, 0, 0)
    srf_um *= min(1.0, (cst_um - THINNEST_UM) / max(at_fovea_um, 1.0))
    ped_um = ped * rng.uniform(*PED_UM)
    return Visit(eye, cst_um, irf, srf, ped, hrf, srf_um, ped_um, int(rng.integers(*QUALITY_DB)))


@overload
def dome(sites: Sites, u_um: float, v_um: float) -> float: ...
@overload
def dome(sites: Sites, u_um: np.ndarray, v_um: np.ndarray) -> np.ndarray: ...
def dome(sites: Sites, u_um: float | np.ndarray, v_um: float | np.ndarray) -> Any:
    """Height (0 to 1) at places (u, v), arrays of one shape or numbers, of the highest of some domes."""
    u_um, v_um = np.asarray(u_um)[..., None], np.asarray(v_um)[..., None]
    distance = np.hypot(u_um - sites.u_um, v_um - sites.v_um) / sites.radius_um
    return (np.clip(1 - distance ** 2, 0, None) ** 1.2).max(axis=-1)    # 1.2: the rim runs out flat
