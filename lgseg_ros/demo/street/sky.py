"""The sky: a gradient and clouds that follow the camera's turning, being far away."""

import cv2
import numpy as np

from .noise import fractal_noise


class Sky:
    """A sky picture somewhat larger than the frame."""

    def __init__(self, rng, light, width, height):
        self._margin = max(8, width // 12)
        tall, wide = height, width + 2 * self._margin
        low = np.linspace(0, 1, tall, dtype=np.float32)[:, None] ** 0.8
        low = np.clip(low * 1.7, 0, 1)[..., None]
        sky = np.float32(light.sky_top) * (1 - low) + np.float32(light.sky_horizon) * low
        cloud = cv2.resize(fractal_noise(rng, 180, 320, 90, 6, 0.62), (wide, tall), interpolation=cv2.INTER_CUBIC)
        cover = np.clip((cloud - 1.6 + 2.6 * light.cloud_cover) * 0.75, 0, 1)[..., None] * (1 - 0.6 * low)
        body = np.float32(light.cloud_colour) * (1 + 0.06 * np.roll(cloud, 6, 0)[..., None])
        self._picture = np.clip(sky * (1 - cover) + body * cover, 0, 255).astype(np.uint8)

    def draw(self, view, image):
        """Fill all of `image` uint8 [H, W, 3]; the street is painted over it."""
        height, width = image.shape[:2]
        left = int(np.clip(self._margin - (view.centre - width / 2), 0, 2 * self._margin))
        image[:] = self._picture[:height, left:left + width]
