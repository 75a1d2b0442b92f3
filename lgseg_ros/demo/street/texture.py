"""Textures and cut-out sprites that keep smaller, hazier copies of themselves for distant use."""

import cv2
import numpy as np

HAZE_STEPS = 24
"""Haze is quantised, so that a far wall reuses a prepared copy instead of being blended in every frame."""


class Texture:
    """A picture for a surface in the world: uint8 [H, W, 3] BGR, or [H, W, 4] BGRA with colour times alpha.

    Colour times alpha is what smooth-edged drawing on an empty board gives, and it can be scaled without rims.

    `extent`, when given, is a uint8 [H, W] mask of the area the label covers where that is more than the opaque
    pixels: the crown of a bare tree counts as tree, sky between the twigs included, as hand-made labels do.
    `mean` is the average BGR colour of a texture without alpha, else None.
    """

    def __init__(self, pixels, haze_colour, extent=None):
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.extent = extent
        self.mean = None if pixels.shape[2] == 4 else pixels[::16, ::16].mean((0, 1))
        self._haze_colour = np.float32(haze_colour)
        self._copies = {}

    def copy_for(self, width, height, haze):
        """Return the copy whose size is just above `width` x `height` pixels, blended with `haze` (0 to 1).

        Each axis has its own level: a wall seen at a flat angle is short in one axis only.
        """
        level_x = _level(self.width, width)
        level_y = _level(self.height, height)
        step = min(HAZE_STEPS, max(0, round(haze * HAZE_STEPS)))
        key = (level_x, level_y, step)
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = self._hazed(self._reduced(self.pixels, level_x, level_y), step / HAZE_STEPS)
        return copy

    def extent_for(self, copy):
        """Return the label mask at the size of a copy that `copy_for` gave, uint8 [h, w]."""
        if self.extent is None:
            return np.ascontiguousarray(copy[..., 3])
        key = copy.shape[:2]
        if key not in self._copies:
            self._copies[key] = cv2.resize(self.extent, (copy.shape[1], copy.shape[0]), interpolation=cv2.INTER_AREA)
        return self._copies[key]

    @staticmethod
    def _reduced(pixels, level_x, level_y):
        if not (level_x or level_y):
            return pixels
        size = (max(2, pixels.shape[1] >> level_x), max(2, pixels.shape[0] >> level_y))
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    def _hazed(self, pixels, haze):
        if haze == 0:
            return pixels
        target = self._haze_colour
        if pixels.shape[2] == 4:
            target = pixels[..., 3:] / np.float32(255) * target
        hazed = pixels.copy()
        hazed[..., :3] = pixels[..., :3] * (1 - haze) + target * haze
        return hazed


def _level(have, want):
    """How often `have` pixels can be halved and still be at least `want`, 0 to 7."""
    level = 0
    while level < 7 and have / 2 ** (level + 1) >= max(want, 2):
        level += 1
    return level
