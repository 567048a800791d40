"""How one scan line cuts through a synthetic retina.

Reads and writes no file. Heights are um above Bruch's membrane (BM). Arrays have one element per column of
the B-scan, W in all; layers are numbered from the inner limiting membrane (ILM) down, as in LAYERS.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from processing.eye.anatomy import Sites, Visit, dome

PIXEL_ACROSS_UM = 11.5      # of a B-scan: 30 degrees on 768 columns
PIXEL_DOWN_UM = 3.87        # the device's depth scale
EDGE_PX = 390               # from the middle to the edge of a full B-scan

RADIAL_LINES, VOLUME_LINES = 6, 25          # B-scans of the two scan patterns
VOLUME_SPACING_UM = 240                     # between parallel lines: 20 degrees in 24 steps

# The last but one is the retinal pigment epithelium; the last what lies between it and BM where it is lifted.
LAYERS = ("RNFL", "GCL", "IPL", "INL", "OPL", "ONL", "ELM", "myoid", "ellipsoid", "interdigitation", "RPE",
          "below RPE")
ELM, RPE = LAYERS.index("ELM"), LAYERS.index("RPE")
# Tops of the layers from the ELM on (um above BM), measured on a B-scan of a normal eye, as the numbers below
OUTER_TOPS_UM = np.array([98.0, 85.0, 76.0, 50.0, 33.0, 4.0])
FAR_UM = 262                # thickness far from the fovea
BULGE_UM = 1600             # radius of the thicker retina around the pit
ONL_UM, ONL_FOVEA_UM = 45, 65       # thickness of the outer nuclear layer far out, and more at the fovea
ONL_SPREAD_UM = 500
USUAL_ROW = 262             # px: screen row of BM at the fovea of a thin retina

FOCUS_REACH_UM = 45         # how far beside its line a scan still picks up a focus
VISIBLE_UM = {"cyst": 15, "SRF": 25, "PED": 30}     # half height, heights: 6 to 8 rows, clear of the speckle
VISIBLE_COUNT = {"cysts": 2, "foci": 3}


@dataclass(frozen=True)
class Scan:
    """One line of a scan pattern, and how the head was held."""

    number: int             # 1 to `total`
    total: int              # 6: radial, 25: volume
    shift_px: float         # columns by which the fovea is right of the middle
    tilt_px: float          # rows by which the right edge is higher than the middle
    rise_px: float          # rows by which the retina is higher than usual

    @property
    def radial(self) -> bool:
        return self.total == RADIAL_LINES

    @property
    def direction(self) -> np.ndarray:
        """Unit vector of the line in the fundus picture, right and down."""
        if not self.radial:
            return np.array([1.0, 0.0])
        angle = np.pi * (self.number - 1) / self.total
        return np.array([np.sin(angle), -np.cos(angle)])

    @property
    def offset_um(self) -> float:
        """How far below the fovea the line passes; 0 for radial lines. The device counts a volume from below."""
        return 0.0 if self.radial else ((VOLUME_LINES + 1) / 2 - self.number) * VOLUME_SPACING_UM


class Section(NamedTuple):
    """What a scan cuts."""

    u_um: np.ndarray        # W
    v_um: np.ndarray        # W
    tops_um: np.ndarray     # len(LAYERS) x W: upper surface of each layer above BM
    bm_row: np.ndarray      # W: screen row of BM
    srf_um: np.ndarray      # W: height of subretinal fluid
    ped_um: np.ndarray      # W: height of RPE detachment
    cysts: np.ndarray       # n x 4: column, height above BM (um), half width, half height (um)
    foci: np.ndarray        # n x 3: column, height above BM (um), radius (um)


def cut_section(visit: Visit, scan: Scan, *, width: int) -> Section:
    """Cut a visit's retina along a scan line.

    Args:
        visit: anatomy.Visit.
        scan: Scan.
        width: columns of the B-scan, W.

    Returns:
        Section.
    """
    columns = np.arange(width) - (width - 1) / 2 - scan.shift_px
    along_um = columns * PIXEL_ACROSS_UM
    u_um, v_um = scan.direction[:, None] * along_um + np.array([[0.0], [scan.offset_um]])
    srf_um = visit.srf_um * dome(visit.eye.blisters, u_um, v_um)
    ped_um = visit.ped_um * dome(visit.eye.elevations, u_um, v_um)
    tops_um = _flat_tops(visit, u_um, v_um) + ped_um
    tops_um[:RPE] += srf_um
    swollen_px = 0.12 * (visit.cst_um - 250) / PIXEL_DOWN_UM    # the operator keeps a thick retina in view
    bm_row = (USUAL_ROW + swollen_px - scan.rise_px - scan.tilt_px * columns / EDGE_PX
              - visit.eye.curve_px * np.abs(columns / EDGE_PX) ** 2.5)      # 2.5: flat in the middle
    retina = Section(u_um, v_um, tops_um, bm_row, srf_um, ped_um, np.empty((0, 4)), np.empty((0, 3)))
    return retina._replace(cysts=_cut_cysts(visit, scan, retina), foci=_cut_foci(visit, scan, retina))


def _neural_thickness(visit, r_um):
    """Thickness ILM to BM (um) of a retina that lies flat on its RPE, and how much of it is swelling."""
    eye = visit.eye
    excess_um = visit.neural_um - eye.fovea_um
    depth_um = FAR_UM + eye.rim_um - eye.fovea_um
    if excess_um > 0:
        filled_um = depth_um * (1 - 1 / (1 + (excess_um / 200) ** 2))   # 200 um more: the pit is half filled
        swelling_um = (excess_um - filled_um) * np.exp(-(r_um / eye.swelling_um) ** 2)
    else:
        filled_um = 0.0
        swelling_um = excess_um * np.exp(-(r_um / 900) ** 2)        # 900 um: a thin fovea, a normal periphery
    pit_um = (depth_um - filled_um) * np.exp(-(r_um / eye.pit_um) ** 2)
    rim_um = eye.rim_um * np.exp(-(r_um / BULGE_UM) ** 2)
    return FAR_UM + rim_um - pit_um + swelling_um, swelling_um


def _flat_tops(visit, u_um, v_um):
    """Layer tops above BM (um), len(LAYERS) x W, without any fluid below the retina."""
    r_um = np.hypot(u_um, v_um)
    thickness_um, swelling_um = _neural_thickness(visit, r_um)
    swelling_um = np.clip(swelling_um, 0, 300)
    above_um = thickness_um - OUTER_TOPS_UM[0]
    onl_um = ONL_UM + ONL_FOVEA_UM * np.exp(-(r_um / ONL_SPREAD_UM) ** 2) + 0.5 * swelling_um
    onl_um = np.minimum(onl_um, 0.85 * above_um)        # some inner retina is left even in a thin fovea
    nasal = np.clip(u_um * (1 if visit.eye.right else -1) / 4000, 0, 1)
    shares = np.stack(np.broadcast_arrays(              # of RNFL, GCL, IPL, INL, OPL in the inner retina
        0.10 + 0.10 * np.clip(r_um / 3500, 0, 1) + 0.15 * nasal,
        0.20, 0.24, 0.19 + 0.001 * swelling_um, 0.16))
    from_below = np.cumsum(shares[::-1], axis=0)[::-1] / shares.sum(axis=0)
    inner_tops = OUTER_TOPS_UM[0] + onl_um + (above_um - onl_um) * from_below
    outer_tops = np.repeat(OUTER_TOPS_UM[:, None], r_um.size, axis=1)
    return np.concatenate([inner_tops, (OUTER_TOPS_UM[0] + onl_um)[None], outer_tops])


def _cut_cysts(visit, scan, section):
    """Cross-sections of the open cysts, small ones first: where two overlap, the larger one shows."""
    if not visit.irf:
        return np.empty((0, 4))
    count = int(np.clip(40 + (visit.cst_um - 250) / 4, 40, visit.eye.cysts.u_um.size))
    sites = Sites(*(values[:count] for values in visit.eye.cysts))
    hit, column, wide_um = _crossings(sites, scan, section, least_um=25)
    elm_um = section.tops_um[ELM, column]
    room_um = section.tops_um[0, column] - elm_um
    high_um = np.minimum(0.75 * wide_um, 0.32 * room_um)
    height_um = elm_um + np.clip((1 - sites.depth[hit]) * room_um, high_um + 6, room_um - high_um - 12)
    cysts = np.stack([column, height_um, wide_um, high_um], axis=1)
    return cysts[np.argsort(high_um, kind="stable")]


def _cut_foci(visit, scan, section):
    if not visit.hrf:
        return np.empty((0, 3))
    sites = visit.eye.foci
    reach = sites._replace(radius_um=sites.radius_um + FOCUS_REACH_UM)
    hit, column, _ = _crossings(reach, scan, section, least_um=0)
    elm_um = section.tops_um[ELM, column]
    height_um = elm_um + (1 - sites.depth[hit]) * (section.tops_um[0, column] - elm_um)
    return np.stack([column, height_um, sites.radius_um[hit]], axis=1)


def _crossings(sites, scan, section, *, least_um):
    """The sites that a scan cuts wider than `least_um`: index, column, and half width (um) of the cut."""
    along = scan.direction
    offset = np.stack([sites.u_um - section.u_um[0], sites.v_um - section.v_um[0]])
    column = np.rint(along @ offset / PIXEL_ACROSS_UM).astype(int)
    beside_um = along[0] * offset[1] - along[1] * offset[0]
    half_um = np.sqrt(np.clip(sites.radius_um ** 2 - beside_um ** 2, 0, None))
    hit = np.flatnonzero((half_um > least_um) & (column >= 0) & (column < section.u_um.size))
    return hit, column[hit], half_um[hit]


def visible_findings(section: Section, *, columns: slice) -> tuple[int, int, int, int]:
    """What one B-scan shows, as an annotator would tick it.

    Args:
        section: Section.
        columns: slice of the columns that count.

    Returns:
        four 0 / 1 in the order IRF, SRF, PED, HRF.
    """
    inside = np.zeros(section.u_um.size, bool)
    inside[columns] = True
    cysts = section.cysts[inside[section.cysts[:, 0].astype(int)]]
    foci = section.foci[inside[section.foci[:, 0].astype(int)]]
    return (int((cysts[:, 3] > VISIBLE_UM["cyst"]).sum() >= VISIBLE_COUNT["cysts"]),
            int(section.srf_um[columns].max() > VISIBLE_UM["SRF"]),
            int(section.ped_um[columns].max() > VISIBLE_UM["PED"]),
            int(len(foci) >= VISIBLE_COUNT["foci"]))
