"""Synthetic eyes: the shape of a retina, what a visit finds in it, and how one scan cuts through it.

Reads and writes no file. Places on the retina are (u, v) in um from the fovea, right and down in the fundus
picture; heights are um above Bruch's membrane (BM). The lesions' sites belong to the eye: both visits, and all
scans of a visit, cut the same cysts, domes, foci and vessels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PIXEL_ACROSS_UM, PIXEL_DOWN_UM = 11.5, 3.87     # of a B-scan: 30 degrees on 768 columns; the device's depth scale

# Top of the layers below the outer nuclear layer (um above BM), measured on a normal B-scan:
# external limiting membrane, myoid, ellipsoid zone, interdigitation zone, RPE and its lower edge
OUTER_TOPS_UM = np.array([98.0, 85.0, 76.0, 50.0, 33.0, 4.0])
NEURAL_TOPS = 4                                 # of these, how many a detachment lifts off the RPE

RADIAL_LINES, VOLUME_LINES = 6, 25              # B-scans of the two scan patterns
VOLUME_SPACING_UM = 240                         # between parallel lines: 20 degrees / 24
THINNEST_UM = 115                               # neural retina at the fovea: the outer layers and a trace more


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
    curve_px: float         # how much higher BM lies 390 columns away from the centre
    vessels: tuple          # of (float array n x 2 of u, v in um, width in um)
    cysts: Sites            # in the order in which oedema opens them
    blisters: Sites         # subretinal fluid
    elevations: Sites       # pigment epithelial detachments
    foci: Sites


@dataclass(frozen=True)
class Visit:
    """One eye on one day."""

    eye: Eye
    cst_um: float           # ILM to RPE at the fovea: fluid under the retina counts, under the RPE it does not
    irf: int                # 1: cysts in the retina
    srf: int                # 1: fluid under the retina
    ped: int                # 1: the RPE is lifted
    hrf: int                # 1: bright foci
    srf_um: float           # height of the subretinal fluid where it is highest
    ped_um: float           # height of the RPE detachment where it is highest
    quality_db: int         # signal quality as the device prints it, 15 (poor) to 35

    @property
    def findings(self):
        """IRF, SRF, PED, HRF."""
        return self.irf, self.srf, self.ped, self.hrf


@dataclass(frozen=True)
class Scan:
    """One line of a scan pattern, and how the head was held."""

    number: int             # 1 to `total`
    total: int              # 6: radial, 25: volume
    shift_px: float         # columns by which the fovea is off the middle
    tilt_px: float          # rows by which the right edge is higher than the middle
    rise_px: float          # rows by which the retina is higher than usual

    @property
    def radial(self):
        return self.total == RADIAL_LINES

    @property
    def direction(self):
        """Unit vector of the line in the fundus picture, right and down."""
        if not self.radial:
            return np.array([1.0, 0.0])
        angle = np.pi * (self.number - 1) / self.total
        return np.array([np.sin(angle), -np.cos(angle)])

    @property
    def offset_um(self):
        """How far below the fovea the line passes; 0 for radial lines."""
        return 0.0 if self.radial else (self.number - (VOLUME_LINES + 1) / 2) * VOLUME_SPACING_UM


class Section(NamedTuple):
    """What a scan cuts: W columns."""

    u_um: np.ndarray        # W
    v_um: np.ndarray        # W
    tops_um: np.ndarray     # layers x W: upper surface of each layer above BM, ILM first, RPE's lower edge last
    bm_row: np.ndarray      # W: screen row of BM
    srf_um: np.ndarray      # W: height of subretinal fluid
    ped_um: np.ndarray      # W: height of RPE detachment
    cysts: np.ndarray       # n x 4: column, height above BM (um), half width, half height (um)
    foci: np.ndarray        # n x 3: column, height above BM (um), radius (um)


def grow_eye(rng, *, right):
    """Invent an eye.

    Args:
        rng: numpy Generator.
        right: True for a right eye.
    """
    return Eye(
        right=right, fovea_um=rng.uniform(195, 235), rim_um=rng.uniform(95, 130), pit_um=rng.uniform(400, 500),
        swelling_um=rng.uniform(1500, 2400), choroid_um=rng.uniform(170, 320), curve_px=rng.uniform(5, 40),
        vessels=grow_vessels(rng, right=right),
        cysts=_scatter(rng, 140, 650, radius_um=(40, 230), depth=(0.3, 0.85)),
        blisters=_scatter(rng, 1, 250, radius_um=(1300, 2400), depth=(1, 1)),
        elevations=_scatter(rng, 2, 450, radius_um=(700, 1300), depth=(1, 1)),
        foci=_scatter(rng, 260, 900, radius_um=(8, 20), depth=(0.15, 1.0)))


def _scatter(rng, count, spread_um, *, radius_um, depth):
    u_um, v_um = rng.normal(0, spread_um, (2, count))
    small, large = radius_um
    return Sites(u_um, v_um, small + (large - small) * rng.random(count) ** 2, rng.uniform(*depth, count))


def grow_vessels(rng, *, right):
    """Retinal vessels: two arcades from the disc around the macula, with branches towards it.

    Returns:
        tuple of (float array n x 2: u, v in um; width in um).
    """
    nasal = 1 if right else -1
    disc_um = np.array([nasal * 4300.0, 0.0])
    vessels = []
    for side in (-1, 1):
        for _ in range(2):
            start = disc_um + rng.normal(0, 150, 2)
            heading = np.arctan2(side, -nasal * 0.5) + rng.normal(0, 0.15)
            turn = side * nasal * rng.uniform(0.010, 0.015)
            trunk = _walk(rng, start, heading, turn=turn, wander=0.015, steps=120)
            width_um = rng.uniform(60, 100)
            vessels += [(trunk, 0.6 * width_um), (trunk[:70], width_um)]
            for k in rng.integers(10, len(trunk), 6):
                inwards = np.arctan2(-trunk[k, 1], -trunk[k, 0]) + rng.normal(0, 0.7)
                branch = _walk(rng, trunk[k], inwards, turn=rng.normal(0, 0.008), wander=0.06, steps=40)
                vessels.append((branch, rng.uniform(15, 40)))
    return tuple(vessels)


def _walk(rng, start, heading, *, turn, wander, steps):
    """A winding path of steps of 75 um, which ends where it would enter the vessel-free zone of the fovea."""
    headings = heading + np.cumsum(turn + rng.normal(0, wander, steps))
    path = start + 75 * np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    inside = np.hypot(path[:, 0], path[:, 1]) < 550
    return path[:inside.argmax()] if inside.any() and inside.argmax() > 1 else path


def plan_visit(eye, cst_um, findings, *, rng):
    """Share out the thickness at the fovea between retina and fluid.

    Args:
        eye: Eye.
        cst_um: thickness at the fovea, 150 to 900 um.
        findings: four 0 / 1 in the order IRF, SRF, PED, HRF.
        rng: numpy Generator.

    Returns:
        Visit, whose scans through the fovea show a thickness of exactly `cst_um` there.
    """
    irf, srf, ped, hrf = (int(f) for f in findings)
    share = rng.uniform(0.25, 0.5) if irf else 0.7      # without cysts it is the fluid below that lifts the retina
    srf_um = srf * np.clip(share * (cst_um - eye.fovea_um), rng.uniform(50, 80), 250)
    ped_um = ped * rng.uniform(60, 170)
    srf_um *= min(1.0, max(cst_um - THINNEST_UM, 0) / max(srf_um * _dome(eye.blisters, 0, 0), 1))
    return Visit(eye, cst_um, irf, srf, ped, hrf, srf_um, ped_um, int(rng.integers(17, 34)))


def _dome(sites, u_um, v_um):
    """Height (0 to 1) at (u, v) of the highest of some domes."""
    u_um, v_um = np.asarray(u_um)[..., None], np.asarray(v_um)[..., None]
    distance = np.hypot(u_um - sites.u_um, v_um - sites.v_um) / sites.radius_um
    return (np.clip(1 - distance ** 2, 0, None) ** 1.2).max(axis=-1)    # 1.2: the rim runs out flat


def cut_section(visit, scan, *, width):
    """Cut a visit's retina along a scan line.

    Args:
        visit: Visit.
        scan: Scan.
        width: columns of the B-scan, W.

    Returns:
        Section.
    """
    along_um = (np.arange(width) - (width - 1) / 2 - scan.shift_px) * PIXEL_ACROSS_UM
    u_um, v_um = scan.direction[:, None] * along_um + np.array([[0.0], [scan.offset_um]])
    srf_um = visit.srf_um * _dome(visit.eye.blisters, u_um, v_um)
    ped_um = visit.ped_um * _dome(visit.eye.elevations, u_um, v_um)
    tops_um = _layer_tops(visit, u_um, v_um)
    tops_um[:-2] += srf_um
    tops_um += ped_um
    columns = along_um / PIXEL_ACROSS_UM
    usual_row = 262 + 0.12 * (visit.cst_um - 250) / PIXEL_DOWN_UM   # the operator keeps a thick retina in view
    bm_row = (usual_row - scan.rise_px - scan.tilt_px * columns / 390
              - visit.eye.curve_px * np.abs(columns / 390) ** 2.5)
    section = Section(u_um, v_um, tops_um, bm_row, srf_um, ped_um, np.empty((0, 4)), np.empty((0, 3)))
    return section._replace(cysts=_cut_cysts(visit, scan, section), foci=_cut_foci(visit, scan, section))


def _layer_tops(visit, u_um, v_um):
    """Upper surfaces above BM (um), layers x W, of a retina that lies flat on its RPE."""
    eye, r_um = visit.eye, np.hypot(u_um, v_um)
    excess_um = visit.cst_um - visit.srf_um * _dome(eye.blisters, 0, 0) - eye.fovea_um
    pit_depth_um = 262 + eye.rim_um - eye.fovea_um                  # 262: thickness far from the fovea
    filled_um = pit_depth_um * (1 - 1 / (1 + (max(excess_um, 0) / 200) ** 2))   # swelling levels the pit
    swelling = (excess_um - filled_um) * np.exp(-(r_um / eye.swelling_um) ** 2)
    if excess_um < 0:
        swelling = excess_um * np.exp(-(r_um / 900) ** 2)           # a thin fovea does not thin the periphery
    pit = (pit_depth_um - filled_um) * np.exp(-(r_um / eye.pit_um) ** 2)
    above_um = 262 + eye.rim_um * np.exp(-(r_um / 1600) ** 2) - pit + swelling - OUTER_TOPS_UM[0]
    onl = 45 + 65 * np.exp(-(r_um / 500) ** 2) + 0.5 * np.clip(swelling + filled_um * (r_um < 0), 0, None)
    inner_um = above_um - np.minimum(onl, 0.85 * above_um)
    nerve_side = np.clip(u_um * (1 if eye.right else -1) / 4000, 0, 1)
    shares = np.stack([0.10 + 0.10 * np.clip(r_um / 3500, 0, 1) + 0.15 * nerve_side,    # RNFL
                       np.full_like(r_um, 0.20), np.full_like(r_um, 0.24),              # GCL, IPL
                       0.19 + 0.001 * np.clip(swelling, 0, 300), np.full_like(r_um, 0.16)])     # INL, OPL
    below = np.cumsum(shares[:0:-1], axis=0)[::-1] / shares.sum(axis=0)
    onl_um = above_um - inner_um + OUTER_TOPS_UM[0]
    inner_tops = onl_um + inner_um * np.concatenate([np.ones((1, r_um.size)), below])
    outer_tops = np.repeat(OUTER_TOPS_UM[:, None], r_um.size, axis=1)
    return np.concatenate([inner_tops, onl_um[None], outer_tops])


def _cut_cysts(visit, scan, section):
    if not visit.irf:
        return np.empty((0, 4))
    open_count = int(np.clip(40 + (visit.cst_um - 250) / 4, 40, 140))
    sites = Sites(*(a[:open_count] for a in visit.eye.cysts))
    column, cut_um = _crossings(sites, scan, section, reach_um=0)
    keep = (cut_um > 25) & (column >= 0) & (column < section.u_um.size)
    column, cut_um, depth = column[keep], cut_um[keep], sites.depth[keep]
    ilm_um, elm_um = section.tops_um[0, column], section.tops_um[6, column]
    room_um = ilm_um - elm_um
    half_um = np.minimum(cut_um * 0.75, 0.42 * room_um)
    height_um = elm_um + np.clip((1 - depth) * room_um, half_um + 6, room_um - half_um - 12)
    cysts = np.stack([column, height_um, cut_um, half_um], axis=1)
    return cysts[np.argsort(half_um, kind="stable")]       # where two overlap, the larger one shows


def _cut_foci(visit, scan, section):
    if not visit.hrf:
        return np.empty((0, 3))
    column, radius_um = _crossings(visit.eye.foci, scan, section, reach_um=45)
    keep = (radius_um > 0) & (column >= 0) & (column < section.u_um.size)
    column, depth = column[keep], visit.eye.foci.depth[keep]
    ilm_um, elm_um = section.tops_um[0, column], section.tops_um[6, column]
    height_um = elm_um + (1 - depth) * (ilm_um - elm_um)
    return np.stack([column, height_um, visit.eye.foci.radius_um[keep]], axis=1)


def _crossings(sites, scan, section, *, reach_um):
    """Column (int) nearest to each site, and the half width (um) of the site's sphere there; 0: passes by."""
    across = scan.direction
    start = np.array([section.u_um[0], section.v_um[0]])
    offset = np.stack([sites.u_um, sites.v_um]) - start[:, None]
    column = np.rint(across @ offset / PIXEL_ACROSS_UM).astype(int)
    distance_um = np.abs(across[0] * offset[1] - across[1] * offset[0])
    half_um = np.sqrt(np.clip((sites.radius_um + reach_um) ** 2 - distance_um ** 2, 0, None))
    return column, half_um


def visible_findings(section, *, columns):
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
    return (int((cysts[:, 3] > 15).sum() >= 2),             # two cysts at least 30 um high
            int(section.srf_um[columns].max() > 25),        # 25 um: 6 rows, above the speckle
            int(section.ped_um[columns].max() > 30),
            int(len(foci) >= 3))
