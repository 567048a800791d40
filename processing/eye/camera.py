"""From a painted retina to what a device would show: light, blur, noise, display, JPEG. Reads and writes no file.

Arrays are H x W float32, greys 0 to 255.
"""

from typing import NamedTuple

import cv2
import numpy as np

from processing.eye import variety as v
from processing.eye.curves import Curves, Pair, Rng, pick, pick_small, wave


class Camera(NamedTuple):
    """A device: how it blurs, how much noise it has, how it turns signal into greys."""

    blur_px: Pair       # standard deviation down and across
    grain_px: Pair      # of the noise, likewise
    speckle: float      # standard deviation of the noise, as a share of the grey
    floor: float        # grey of the noise where there is no signal
    lifted: float       # share of it that is added everywhere
    fall_off: float     # of the light from the top row to the last
    gamma: float
    gain: float
    offset: float

    def measure_noise(self, grey: np.ndarray) -> np.ndarray:
        """Standard deviation of the noise on greys, before they are displayed."""
        return np.sqrt((self.speckle * grey) ** 2 + (0.6 * self.floor) ** 2)

    def find_noise(self, grey: np.ndarray) -> np.ndarray:
        """Standard deviation of the noise on greys, as displayed; beside black or white, where half of it is cut off,
        that of the other half.
        """
        noise, shown = self.measure_noise(grey), self.show(grey)
        return np.maximum(self.show(grey + noise) - shown, shown - self.show(grey - noise))

    def show(self, grey: np.ndarray) -> np.ndarray:
        """Greys as displayed, 0 to 255."""
        signal = np.clip((grey + self.lifted * self.floor) / 255, 0, 1.2)
        return np.clip(signal ** self.gamma * (255 * self.gain) + self.offset, 0, 255)

    def find_hidden(self, grey: np.ndarray) -> np.ndarray:
        """Whether tissue of these greys cannot be told from black: bool, as many."""
        contrast = self.show(grey) - self.show(0 * grey)
        return contrast < np.maximum(v.READABLE_CONTRAST * self.find_noise(grey), v.READABLE_GREYS)


def draw_camera(rng: Rng) -> Camera:
    """Invent a device."""
    sharp, grain = pick(rng, v.SHARPNESS_PX), pick(rng, v.GRAIN_PX)
    return Camera(blur_px=(sharp, sharp * pick(rng, (0.6, 1.1))), grain_px=(grain, grain * pick(rng, (0.6, 1.4))),
                  speckle=pick_small(rng, v.SPECKLE), floor=pick_small(rng, v.FLOOR_GREY), lifted=pick(rng, (0, 1)),
                  fall_off=pick(rng, v.FALL_OFF), gamma=pick(rng, v.GAMMA), gain=pick(rng, v.GAIN),
                  offset=pick(rng, v.OFFSET))


def draw_cloud(rng: Rng, curves: Curves) -> np.ndarray:
    """Share of the light that reaches each column (W): lens, floaters, the pupil's edge."""
    frame = curves.frame
    light = 1 + 0.06 * wave(rng, frame.columns, 60) + 0.03 * wave(rng, frame.columns, 2)
    if rng.random() < v.CLOUD:
        for _ in range(rng.integers(1, 3)):
            offset = np.abs(frame.x_um - pick(rng, (frame.x_um[0], frame.x_um[-1])))
            radius = pick_small(rng, v.CLOUD_UM)
            light *= 1 - (1 - pick(rng, v.CLOUD_LIGHT)) / (1 + (offset / radius) ** 4)
    return np.clip(light, 0, None).astype(np.float32)


def expose(rng: Rng, painted: np.ndarray, camera: Camera, cloud: np.ndarray) -> np.ndarray:
    """What the camera shows of a painted scan when `cloud` (W) of the light reaches it -> uint8."""
    rows = np.linspace(-0.5, 0.5, len(painted), dtype=np.float32)[:, None]
    blurred = _blur(painted, camera.blur_px)
    image = blurred * (cloud * (1 + camera.fall_off * rows))
    noise = np.asarray(rng.standard_normal(image.shape, dtype=np.float32))
    if camera.grain_px[0] > 0.3:
        smooth = _blur(noise, camera.grain_px)
        noise = smooth / smooth.std()
    shown = camera.show(image + noise * camera.measure_noise(image)).astype(np.uint8)
    return np.asarray(cv2.medianBlur(shown, 3)) if rng.random() < v.MEDIAN else shown


def _blur(image: np.ndarray, sigma: Pair) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigmaX=sigma[1], sigmaY=sigma[0]))


def compress(rng: Rng, shown: np.ndarray) -> np.ndarray:
    """As JPEG would give it back."""
    if rng.random() >= v.JPEG:
        return shown
    quality = int(pick(rng, v.JPEG_QUALITY))
    data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
