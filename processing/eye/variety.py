"""How much the scans to learn from vary: what decides how well the network carries over, wide on purpose, each range
with its reason. Greys and shapes of single things stand beside the code that draws them.

A pair is (least, most), a number below 1 a chance. Lengths are um, times px are px, greys 0 to 255 as displayed.
"""

# ---- Scale: other devices, narrowed screens, pictures that were resized
USUAL_SCALE = 0.4                   # chance of the Spectralis' own scale, which most users have
USUAL_UM = (3.87, 11.5)             # its pixel: down, across
UM_DOWN, UM_ACROSS = (2.6, 6.0), (5.5, 17.0)    # from fine volume scans to 420 rows for 2.3 mm, and 9 mm on 512 columns

# ---- Where the retina lies
WHOLE_UM = 8800                     # a scan of 768 columns; narrower pictures are a part of it, at any place
BM_ROW = (0.42, 0.88)               # share of the rows: operators place it high or low
TILT = (-0.22, 0.22)                # um down for each um across: a scan off the pupil's middle
CURVATURE_UM = (-60, 420)           # by which the retina rises 4.4 mm from the middle: flat, myopic, mirrored rarely
WOBBLE_UM = (0, 14)                 # of all that lies beneath, by choroid and eye movement
OFF_FOVEA_UM = (0, 3200)            # distance of a line from the fovea: volumes reach 3 mm
THROUGH_FOVEA = 0.5                 # chance that it goes through it

# ---- Thickness, ILM to BM
FAR_UM = (195, 320)                 # 4 mm out: myopic and atrophic to thick
RIM_UM = (30, 150)                  # thicker around the pit
FOVEA_UM = (150, 260)               # at its bottom; published norms are 227 +- 25
PIT_RADIUS_UM = (250, 650)
FOVEA_SHADE = (0.6, 1.1)            # of the outer nuclear layer's grey at the fovea: healthy pits look dark
NASAL_UM = (0, 70)                  # nerve fibres towards the disc
SWOLLEN, SWELLING_UM = 0.5, (40, 560)       # macular oedema: up to 800 um at the fovea
SWELLING_RADIUS_UM = (350, 2800)
ATROPHIC, ATROPHY = 0.12, (0.45, 0.85)      # of the thickness that is left
TRACTION, TRACTION_UM = 0.08, (30, 160)     # a peak where the vitreous pulls
WRINKLED, WRINKLES_UM = 0.15, (2, 16)       # folds under an epiretinal membrane

# ---- Layers
OUTER = (0.72, 1.2)                 # thickness of ELM to BM, of the phantom's: thin far out and in disease
RPE_UM = (13, 30)                   # the bright band above BM: 3 to 8 rows
RPE_FOVEA = (0, 0.4)                # by which it is thicker at the fovea, where its cells are taller
CAPILLARIES_UM = (0.5, 18)          # choriocapillaris, about 10: as bright as the RPE or hardly told from what follows
CONTRAST = (0.45, 1.35)             # of the layers among one another
LAYER_NOISE = 14                    # standard deviation of a layer's grey from scan to scan
INNER_LOST = (0, 0.9)               # how far swelling makes inner layers alike
OUTER_LOST, LOST_SHARE = 0.3, (0.2, 0.95)   # ellipsoid zone and ELM broken in disease
CHOROID_UM = (70, 450)

# ---- Intraretinal fluid
IRF = 0.6
SECOND_LAYOUT = 0.35                # chance that cysts of two kinds lie in one scan
CYSTS = (1, 70)
CYST_UM = (18, 330)                 # half width; small ones are commoner
FOVEAL_CYST_UM = (80, 750)          # of one that fills the fovea
PILLAR_UM = (25, 140)               # of those that stand side by side, nearly as high as the retina
CYST_SHAPE = (0.35, 1.6)            # height to width: lying, round, upright
AT_PEAK = 0.6                       # chance that they lie where the retina is thickest
CYST_DARKNESS = (0.0, 0.75)         # its grey as a share of the darkest tissue's about it: black to little darker
DARKEST = 10                        # percentile of the tissue's grey that counts as the darkest
CYST_WALL_UM = (4, 14)              # tissue between neighbours, where they do not merge
CYST_ROUGHNESS = (0.05, 0.55)       # how irregular the outline is
ROUGH_UM = 60                       # half width from which on it may be smoother
LEAST_CYST_PX = (3.2, 2.2)          # height, width: below that nobody could tell it from speckle, and it is not drawn
LEAST_CYST_BLUR = 2.2               # nor if it is not so many times as large as the blur
LEAST_CONTRAST = 1.3                # to that tissue, in standard deviations of the noise: else made darker, or left out
LEAST_SMALL_CONTRAST = 2.2          # of small ones, and of foci
LEAST_GREYS = 11                    # and of 255: what JPEG leaves

# ---- Subretinal fluid, pigment epithelial detachment, material
SRF, SRF_UM, SRF_RADIUS_UM = 0.32, (16, 600), (250, 4500)       # a trace to a blister that fills the scan
SRF_GREY = (2, 46)
PED, PED_UM, PED_RADIUS_UM = 0.22, (50, 600), (250, 1800)
PED_SHADE, SHADED_UM = (0.08, 1), (80, 300)     # light that a lifted RPE lets through, and from which height on
TOGETHER, TOGETHER_UM = 0.5, 700                # chance that what lifts the retina lies about one place, and how near
DRUSEN, DRUSEN_COUNT, DRUSEN_UM, DRUSEN_RADIUS_UM = 0.16, (1, 16), (14, 110), (40, 320)
PED_GREY = (6, 150)                 # serous to fibrovascular
PED_TEXTURE = (0, 26)
MATERIAL, MATERIAL_UM, MATERIAL_GREY = 0.08, (15, 180), (110, 205)  # bright, under the retina: neither fluid nor PED
LEAST_FLUID_UM = 11                 # about three rows: thinner films are not called fluid

# ---- Hyperreflective foci
FOCI = 0.5
FOCI_COUNT, FOCUS_UM, FOCUS_GREY = (2, 70), (7, 22), (170, 255)
EXUDATES, EXUDATE_COUNT, EXUDATE_UM = 0.3, (1, 14), (22, 70)    # chance given foci; larger, with a shadow

# ---- In front of the retina
HYALOID, HYALOID_UM, HYALOID_GREY = 0.3, (15, 420), (20, 110)   # detached vitreous face, and how far off
EPIRETINAL, EPIRETINAL_GREY = 0.18, (140, 250)                  # a bright membrane on the ILM
FLOATERS = 0.12
VITREOUS_GREY = (0, 26)

# ---- Shadows
VESSELS, VESSEL_UM, VESSEL_LIGHT = (0, 9), (35, 160), (0.25, 0.85)
CLOUD, CLOUD_LIGHT, CLOUD_UM = 0.25, (0.03, 0.8), (200, 1800)   # lens, floaters, pupil's edge
READABLE_CONTRAST, READABLE_GREYS = 2.0, 14     # of the bright layers to black, in standard deviations of the noise and
                                    # of 255: columns with less are not readable
FALL_OFF = (-0.35, 0.35)            # of the light from the top row to the last

# ---- Noise and display
SHARPNESS_PX = (0.35, 1.5)          # blur of the optics
SPECKLE = (0.03, 0.34)              # averages of 100 scans to single ones
GRAIN_PX = (0.0, 1.1)               # blur of the noise: raw to smoothed by the device
FLOOR_GREY = (2, 30)                # noise where there is no signal
GAMMA, GAIN, OFFSET = (0.6, 1.5), (0.6, 1.35), (-22, 22)
JPEG, JPEG_QUALITY = 0.6, (35, 95)
MEDIAN = 0.1                        # devices that smooth by a median

# ---- Rims and what is drawn on the picture
RIM, RIM_PX = 0.35, (1, 40)         # black or white, at any side
CUT_TOP = 0.07                      # the retina leaves the picture at the top
DISC, DISC_UM = 0.07, (700, 1500)   # the optic disc's edge: no BM there
SCALE_BAR, BOX, CAPTION = 0.35, 0.15, 0.1
