"""A pinhole view of the world, and drawing into image and labels at once so that both always agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, floor, hypot

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Point = tuple[float, float, float]      # (x right, y up, z along the street), metres
Colour = Sequence[float] | Floats       # BGR, 0 to 255

Label = IntEnum('Label', 'SKY BUILDING POLE ROAD PAVEMENT TREE SIGN FENCE CAR PEDESTRIAN BICYCLIST', start=0)
"""Class ids: those of CamVid."""
CLASS_NAMES = tuple(label.name.lower() for label in Label)

NEAR = 0.8          # distance of the near plane, metres
_SHIFT = 4          # fractional bits of polygon corners
_LIMIT = 30000.0    # pixels; keeps corners far outside the image within OpenCV's fixed-point range


class Texture:
    """A surface: uint8 [H, W, 3] BGR or [H, W, 4] BGRA, colour times alpha, which is multiplied by a BGR tint.

    filled: the label covers the whole surface, as a railing is fence, gaps included; otherwise what is opaque.
    """

    def __init__(self, pixels: Pixels, tint: Colour, filled: bool = False) -> None:
        tinted = pixels * np.array([*tint, 1][:pixels.shape[2]], np.float32)
        self.pixels, self.filled = np.clip(tinted, 0, 255).astype(np.uint8), filled or pixels.shape[2] == 3
        self._copies: dict[tuple[int, int], Pixels] = {}

    def copy_for(self, width: float, height: float) -> Pixels:
        """Return the copy that is just larger than `width` x `height` pixels."""
        tall, wide = self.pixels.shape[:2]
        key = int(wide / max(width, 2)).bit_length(), int(tall / max(height, 2)).bit_length()
        if key not in self._copies:
            size = max(2, wide >> max(key[0] - 1, 0)), max(2, tall >> max(key[1] - 1, 0))
            self._copies[key] = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        return self._copies[key]


@dataclass(frozen=True)
class Canvas:
    """Image and labels of one frame, and where the camera is; things are drawn from far to near."""

    eye: Point
    focal: float            # focal length, pixels
    centre: float           # column of the street's direction, pixels
    horizon: float          # row of the horizon, pixels
    image: Pixels           # uint8 [H, W, 3]
    labels: Pixels          # uint8 [H, W]

    def pixel(self, point: Point) -> tuple[float, float]:
        """Map a world point to (column, row), pixels; points before the near plane are moved onto it."""
        scale = self.focal / max(point[2] - self.eye[2], NEAR)
        return self.centre + (point[0] - self.eye[0]) * scale, self.horizon - (point[1] - self.eye[1]) * scale

    def polygons(self, polygons: Sequence[Sequence[Point]], colours: Sequence[Colour] | Floats, label: int) -> None:
        """Fill convex polygons, in order; colours: BGR of each."""
        for polygon, colour in zip(polygons, np.asarray(colours).tolist(), strict=True):
            corners = _fixed([self.pixel(point) for point in polygon])
            cv2.fillConvexPoly(self.image, corners, colour, cv2.LINE_AA, _SHIFT)
            cv2.fillConvexPoly(self.labels, corners, label, cv2.LINE_8, _SHIFT)

    def quad(self, corners: Sequence[Point], texture: Texture, label: int | None) -> None:
        """Cover a flat quadrilateral: bottom left, bottom right, top right, top left. label None: the image only."""
        near, z0, z1 = self.eye[2] + NEAR, corners[0][2], corners[1][2]
        a, b, c, d = pixels = [self.pixel(corner) for corner in corners]
        columns, rows = zip(*pixels, strict=True)
        x0, x1 = max(floor(min(columns)), 0), min(ceil(max(columns)) + 1, self.labels.shape[1])
        y0, y1 = max(floor(min(rows)), 0), min(ceil(max(rows)) + 1, self.labels.shape[0])
        if x0 >= x1 or y0 >= y1 or max(z0, z1) <= near:
            return
        # A wall that begins beside the camera is cut at the near plane, and its texture with it.
        cut = (near - z0) / (z1 - z0) if z0 != z1 else 0.0
        u0, u1 = cut if z0 < near else 0.0, cut if z1 < near else 1.0
        width = max(hypot(b[0] - a[0], b[1] - a[1]), hypot(c[0] - d[0], c[1] - d[1])) / (u1 - u0)
        height = max(hypot(d[0] - a[0], d[1] - a[1]), hypot(c[0] - b[0], c[1] - b[1]))
        copy = texture.copy_for(width, height)
        h, w = copy.shape[:2]
        left, right = u0 * w - 0.5, u1 * w - 0.5
        source = np.array([[left, h - 0.5], [right, h - 0.5], [right, -0.5], [left, -0.5]], np.float32)
        target = np.array(pixels, np.float32) - np.array([x0, y0], np.float32)
        patch = cv2.warpPerspective(copy, cv2.getPerspectiveTransform(source, target), (x1 - x0, y1 - y0),
                                    borderMode=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        region, mask = self.image[y0:y1, x0:x1], np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, _fixed(target), 255, cv2.LINE_8, _SHIFT)
        cv2.copyTo(_blend(region, patch) if patch.shape[2] == 4 else patch, mask, region)
        if label is not None:
            opaque = mask if texture.filled else cv2.bitwise_and(mask, patch[..., 3])
            self.labels[y0:y1, x0:x1][opaque > 127] = label

    def sprite(self, texture: Texture, foot: Point, height: float, label: int, mirror: bool = False) -> None:
        """Stand a cut-out on a world point, the middle of its lower edge, facing the camera; height in metres."""
        x, y, z = foot
        half = height * texture.pixels.shape[1] / texture.pixels.shape[0] / 2 * (-1 if mirror else 1)
        corners = [(x - half, y, z), (x + half, y, z), (x + half, y + height, z), (x - half, y + height, z)]
        self.quad(corners, texture, label)

    def shadow(self, texture: Texture, x: float, z: float, width: float, length: float) -> None:
        """Darken the ground, `width` x `length` metres centred on (x, z), as far as shadows are seen."""
        near, far, left, right = z - length / 2, z + length / 2, x - width / 2, x + width / 2
        if z - self.eye[2] < 50:
            self.quad([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)], texture, None)


def _fixed(pixels: Sequence[tuple[float, float]] | Floats) -> npt.NDArray[np.int32]:
    """Convert (column, row) pixels to the fixed-point integers that OpenCV draws polygons from."""
    bounded: Floats = np.minimum(np.maximum(pixels, -_LIMIT), _LIMIT)
    return np.rint(bounded * (1 << _SHIFT)).astype(np.int32)


def _blend(below: Pixels, patch: Pixels) -> Pixels:
    """Blend a BGRA patch, its colour multiplied by alpha, over a BGR region of the same size."""
    clear = cv2.merge([cv2.bitwise_not(patch[..., 3])] * 3)
    colour = cv2.cvtColor(patch, cv2.COLOR_BGRA2BGR)
    return cv2.add(cv2.multiply(below, clear, scale=1 / 255), colour).astype(np.uint8, copy=False)
