"""A camera that drives down a made-up street and knows the class of every pixel it shows."""

from math import sin

import numpy as np

from .drawing import Canvas, View
from .ground import Ground
from .labels import SKY
from .scene import Street, chance
from .lens import Lens
from .light import light_of
from .painter import Painter
from .props import Props
from .sky import Sky
from .skyline import Skyline

EYE_HEIGHT = 1.42
"""Height of the camera above the road, metres: behind a car's windscreen."""


class StreetCamera:
    """A street camera with exact labels, for tests, endurance runs and demos without a camera.

    Args:
        width: frame width in pixels, 64 to 4096.
        height: frame height in pixels, 48 to 2160.
        seed: any integer; it fixes the street, its colours, its people and the time of day.
        fps: frames a second of the street's own clock, above 0: frame `index` is taken at index / fps seconds.

    Raises:
        ValueError: a size or rate outside these ranges.
    """

    def __init__(self, width=640, height=480, seed=0, fps=30.0):
        if not (64 <= width <= 4096 and 48 <= height <= 2160):
            raise ValueError(f'street camera: size {width}x{height} is outside 64x48 to 4096x2160')
        if not fps > 0:
            raise ValueError(f'street camera: fps is {fps}, it must be above 0')
        self.width, self.height, self.seed, self.fps = int(width), int(height), int(seed), float(fps)
        rng = np.random.default_rng(abs(self.seed) * 2 + (self.seed < 0))
        self._light = light_of(rng)
        self._props = Props(rng, self._light)
        self._street = Street(self.seed, self._props.fronts)
        self._ground = Ground(rng, self._light, self._street.road_half, self._street.walk, self._street.tile_of)
        self._sky = Sky(rng, self._light, self.width, self.height)
        self._lens = Lens(rng, self._light, self.width, self.height)
        self._skyline = Skyline(self.seed, self._light, self._props, (self._street.lane, EYE_HEIGHT), self._focal, self.width)

    def render(self, index):
        """Return frame `index` (0, 1, 2, ...) and its labels.

        Frames may be asked for in any order; the same seed, size, fps and index give the same pixels.

        Returns:
            image: uint8 [height, width, 3], BGR.
            labels: uint8 [height, width], CamVid ids 0 to 10, 255 for the few things of no class.

        Raises:
            ValueError: index is negative.
        """
        if index < 0:
            raise ValueError(f'street camera: frame {index} does not exist, the first is 0')
        time = index / self.fps
        view = self._view(time)
        image = np.empty((self.height, self.width, 3), np.uint8)
        labels = np.full((self.height, self.width), SKY, np.uint8)
        self._sky.draw(view, image)
        self._ground.draw(view, image, labels)
        canvas = Canvas(view, image, labels)
        self._skyline.draw(canvas)
        Painter(canvas, self._props, self._street, time).paint()
        return self._lens.expose(image, index), labels

    @property
    def _focal(self):
        return 0.96 * self.width        # pixels: a horizontal field of view of 55 degrees, as dash cameras have

    def _view(self, time):
        """Where the camera is: it drives on, sways in its lane and nods over the road's bumps."""
        street, focal = self._street, self._focal

        def swing(rate, salt):
            return sin(rate * time + 6.283 * chance(self.seed, 4, salt))

        eye = (street.lane + 0.2 * swing(0.37, 0), EYE_HEIGHT + 0.015 * swing(5.1, 1), street.speed * time + 2.0 * swing(0.3, 2) + 4.0)
        yaw = 0.012 * swing(0.43, 3) + 0.004 * swing(1.3, 4)
        nod = 0.003 * swing(2.3, 5) + 0.0015 * swing(6.7, 6)
        return View(eye, focal, self.width * 0.5 - focal * yaw, self.height * 0.47 + focal * nod, self._light)
