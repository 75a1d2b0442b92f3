"""What optics and sensor do to a picture."""

import cv2
import numpy as np

from .scene import chance


class Lens:
    """Darker corners, a touch of blur, noise."""

    def __init__(self, rng, light, width, height):
        y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
        fall = 255 * (1 - 0.16 * np.clip((x * x + y * y) / 2, 0, 1) ** 1.3)
        self._fall = cv2.merge([np.round(fall).astype(np.uint8)] * 3)
        self._blur = 0.5 * max(1.0, width / 960)
        grain = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * (1.6 * light.noise)
        # Two unsigned halves: saturating uint8 sums are several times cheaper than signed ones.
        self._bright = np.clip(np.round(grain), 0, 255).astype(np.uint8)
        self._dark = np.clip(np.round(-grain), 0, 255).astype(np.uint8)

    def expose(self, image, index):
        """Return uint8 [H, W, 3] as the sensor delivers it; the noise pattern shifts with every frame."""
        height, width = image.shape[:2]
        image = cv2.GaussianBlur(image, (3, 3), self._blur)
        image = cv2.multiply(image, self._fall, scale=1 / 255)
        y, x = int(64 * chance(index, 5)), int(64 * chance(index, 6))
        image = cv2.add(image, self._bright[y:y + height, x:x + width])
        return cv2.subtract(image, self._dark[y:y + height, x:x + width])
