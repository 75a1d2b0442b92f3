"""A camera that drives down the street and knows the class of every pixel it shows."""

from dataclasses import replace
from math import sin

import cv2
import numpy as np

from .drawing import Canvas, Label, Pixels
from .ground import Ground
from .scene import Scene, chance
from .textures import LIGHTS, Light, noise, to_pixels


class StreetCamera:
    """A street camera with exact labels. The same arguments and index give the same pixels, in any order of calls.

    Args:
        width: 64 to 4096 pixels.
        height: 48 to 2160 pixels.
        seed: any integer; it fixes the street, its people and the time of day.
        fps: frames per second, above 0: frame `index` is taken at index / fps seconds.

    Raises:
        ValueError: a size or rate outside these ranges.
    """

    def __init__(self, width: int = 640, height: int = 480, seed: int = 0, fps: float = 30.0) -> None:
        if not (64 <= width <= 4096 and 48 <= height <= 2160):
            raise ValueError(f'street camera: size {width}x{height} is not supported; give 64x48 to 4096x2160')
        if not fps > 0:
            raise ValueError(f'street camera: fps is {fps}; give a rate above 0')
        self.width, self.height, self.seed, self.fps = int(width), int(height), int(seed), float(fps)
        rng = np.random.default_rng(abs(self.seed) * 2 + (self.seed < 0))
        light = LIGHTS[rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))]     # mostly bright, as in daytime driving video
        light = replace(light, sun_side=light.sun_side * int(rng.choice((-1, 1))))
        self._scene = Scene(rng, self.seed, light)
        self._ground = Ground(rng, light, self._scene.road_half, self._scene.crosses)
        self._sky = _sky(rng, light, self.width, self.height)
        grain = rng.standard_normal((self.height + 64, self.width + 64, 3), np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 0.6).astype(np.float32) * 4
        # Two unsigned halves: saturating uint8 sums are several times faster than signed ones.
        self._brighter, self._darker = to_pixels(grain + 0.5), to_pixels(0.5 - grain)

    def render(self, index: int) -> tuple[Pixels, Pixels]:
        """Render frame `index`: 0, 1, 2, ...

        Returns:
            The image, BGR uint8 [height, width, 3], and its labels, uint8 [height, width], CamVid ids 0 to 10.

        Raises:
            ValueError: index is negative.
        """
        if index < 0:
            raise ValueError(f'street camera: frame {index} does not exist; give 0 or more')
        canvas = self._canvas(index / self.fps)
        self._ground.draw(canvas)
        self._scene.draw(canvas, index / self.fps)
        # Optics and sensor: slight blur, and noise that moves with every frame.
        image = cv2.GaussianBlur(canvas.image, (3, 3), 0.5 * max(1.0, self.width / 960))
        y, x = int(64 * chance(index, 5)), int(64 * chance(index, 6))
        window = np.s_[y:y + self.height, x:x + self.width]
        image = cv2.subtract(cv2.add(image, self._brighter[window]), self._darker[window])
        return image.astype(np.uint8, copy=False), canvas.labels

    def _canvas(self, time: float) -> Canvas:
        """Set up the view, and the sky in it: the camera drives on, sways in its lane and nods over bumps."""
        def swing(rate: float, salt: int) -> float:
            return sin(rate * time + 6.283 * chance(self.seed, 4, salt))

        x, y = self._scene.lane + 0.2 * swing(0.37, 0), 1.42 + 0.015 * swing(5.1, 1)      # behind a windscreen
        z = self._scene.speed * time + 2.0 * swing(0.3, 2) + 4.0
        focal = 0.96 * self.width       # a horizontal field of view of 55 degrees, as dash cameras have
        yaw, nod = 0.012 * swing(0.43, 3) + 0.004 * swing(1.3, 4), 0.003 * swing(2.3, 5) + 0.0015 * swing(6.7, 6)
        left = (self._sky.shape[1] - self.width) // 2 + round(focal * yaw)
        image = self._sky[:, left:left + self.width].copy()
        labels = np.full((self.height, self.width), Label.SKY, np.uint8)
        return Canvas((x, y, z), focal, self.width * 0.5 - focal * yaw, self.height * 0.47 + focal * nod, image, labels)


def _sky(rng: np.random.Generator, light: Light, width: int, height: int) -> Pixels:
    """Paint a gradient and clouds, uint8 [height, width + a margin for the camera's turning, 3]."""
    wide = width + 2 * max(8, width // 12)
    low = np.clip(1.7 * np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8, 0, 1)
    cloud = cv2.resize(noise(rng, 180, 320, 90, 6), (wide, height), interpolation=cv2.INTER_CUBIC)[..., None]
    cover = np.clip((cloud - 1.6 + 2.6 * light.cloud_cover) * 0.75, 0, 1) * (1 - 0.6 * low)
    clear = np.asarray(light.sky, np.float32) * (1 - low) + np.asarray(light.horizon, np.float32) * low
    return to_pixels(clear * (1 - cover) + np.asarray(light.cloud, np.float32) * (1 + 0.06 * cloud) * cover)
