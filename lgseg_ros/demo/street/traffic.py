"""Who moves on the street: cars as small shaded solids, pedestrians and bicyclists as loops of cut-outs."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .drawing import Canvas, Colour, Floats, Label, Pixels, Texture
from .textures import Light, noise, to_pixels

_PAINT = ((28, 26, 26), (60, 58, 56), (170, 172, 172), (120, 118, 114), (206, 208, 208), (104, 52, 34), (40, 34, 120),
          (66, 40, 26), (58, 80, 50), (34, 30, 96))
# Length, height of the body, height of the roof, width; rear and front end of the cabin, and of the roof; metres.
_SHAPES = ((3.8, 0.93, 1.46, 1.70, 0.06, 2.95, 0.55, 1.9), (4.4, 0.94, 1.42, 1.76, 0.6, 3.35, 1.35, 2.5),
           (4.9, 1.15, 2.05, 1.92, 0.04, 4.3, 0.15, 3.4))
PHASES = 6                              # images in one walking or pedalling cycle
_TALL, _WIDE, _FINE = 208, 136, 2       # pixels; drawn twice as large, then averaged for smooth edges
_CLOTH = np.array(((34, 30, 28), (52, 38, 30), (70, 52, 40), (44, 44, 48), (60, 64, 74), (36, 40, 90), (104, 96, 90),
                   (40, 66, 58), (150, 146, 140), (90, 60, 48)), float)
_SKIN = np.array(((120, 152, 196), (98, 130, 178), (60, 84, 120)))
_HAIR = np.array(((24, 28, 34), (40, 60, 84), (70, 100, 130)))


class Car:
    """One vehicle: x right, y up, z from its rear to its nose; with `toward` the nose points at the camera."""

    def __init__(self, rng: np.random.Generator, light: Light, toward: bool) -> None:
        self.length, belt, top, self.width, *cabin = _SHAPES[rng.choice(3, p=(0.4, 0.45, 0.15))]
        self._faces: list[tuple[Floats, Colour, int]] = []      # corners, BGR, layer above the body
        length, half, front = self.length, self.width / 2, light.front
        paint, self._sky = np.multiply(_PAINT[rng.integers(len(_PAINT))], front), np.asarray(light.sky)
        self._solid((0.1, length - 0.1, half * 0.93, 0.1), (0.1, length - 0.1, half * 0.93, 0.35), paint * 0.1)
        self._solid((0.02, length, half * 0.97, 0.28), (0, length - 0.02, half, 0.62), paint)
        self._solid((0, length - 0.02, half, 0.62), (0.08, length - 0.25, half * 0.97, belt), paint)
        self._solid((*cabin[:2], half * 0.97, belt), (*cabin[2:], half * 0.74, top), paint, glass=True)
        plate, hub = np.multiply(((150, 205, 215), (128, 128, 126)), front)
        for z, lamp in ((-0.03, (36, 30, 150)), (length + 0.03, (215, 220, 222))):
            for x, y, w, h, colour in ((0, 0.4, 0.9, 0.09, paint * 0.4), (0, 0.58, 0.3, 0.06, plate),
                                       (-0.8, 0.73, 0.17, 0.09, lamp), (0.8, 0.73, 0.17, 0.09, lamp)):
                box = [((x + sx * w) * half, y + sy * h, z) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
                self._faces.append((np.array(box), colour, 2))
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        for x in (-half - 0.01, half + 0.01):
            for layer, radius, colour in ((2, 0.33, (20, 20, 20)), (3, 0.2, hub)):
                for axle in (0.19 * length, 0.8 * length):
                    circle = [np.full(14, x), 0.33 + radius * np.sin(angle), axle + radius * np.cos(angle)]
                    self._faces.append((np.column_stack(circle), colour, layer))
        turn, shift = ((-1, 1, -1), (0, 0, length)) if toward else ((1, 1, 1), (0, 0, 0))
        self._corners = [corners * turn + shift for corners, _, _ in self._faces]
        self._centres = np.array([corners.mean(0) for corners in self._corners])
        normals = np.array([np.cross(c[1] - c[0], c[-1] - c[0]) for c in self._corners])
        normals *= np.sign((normals * (self._centres - (0, 0.6, length / 2))).sum(1))[:, None]     # outwards
        self._normals = normals / np.linalg.norm(normals, axis=1)[:, None]
        self._layers = np.array([layer for _, _, layer in self._faces])
        sun = 1 - 0.35 * self._normals[:, :1] * light.sun_side      # it stands opposite the houses that it lights
        self._colours = np.clip(np.array([colour for _, colour, _ in self._faces]) * sun, 0, 255)

    def _solid(self, low: tuple[float, ...], high: tuple[float, ...], paint: Floats, glass: bool = False) -> None:
        """Add a block between two levels, each (rear, front, half the width, height); glass: with windows around it."""
        ring = [np.array([(-w, y, z0), (w, y, z0), (w, y, z1), (-w, y, z1)]) for z0, z1, w, y in (low, high)]
        sides = [np.array([ring[0][i], ring[0][i - 3], ring[1][i - 3], ring[1][i]]) for i in range(4)]
        for face, slope in zip([*sides, ring[1]], (0.2, 0.1, 0.4, 0.1, 1.0), strict=True):
            self._faces.append((face, paint * (0.55 + 0.5 * slope) + self._sky * 0.2 * slope ** 2, 0))
            if glass and slope < 1:
                pane = face.mean(0) + (face - face.mean(0)) * 0.82
                self._faces.append((pane, 16 + self._sky * (0.06 + 0.3 * slope), 1))

    def draw(self, canvas: Canvas, x: float, z: float) -> None:
        """Draw the car with the middle of its near end at (x, z) on the ground, metres."""
        sight = np.array(canvas.eye) - (x, 0, z) - self._centres
        # Wheels and lamps lie on the faces beneath them; within a layer, far faces come before near ones.
        order = np.lexsort((-np.abs(sight[:, 2]) - 0.5 * np.abs(sight[:, 0]), self._layers))
        visible = ((self._normals * sight).sum(1) > 0) & (self._layers < (9 if z - canvas.eye[2] < 50 else 2))
        order = order[visible[order]]
        canvas.polygons([(self._corners[i] + (x, 0, z)).tolist() for i in order], self._colours[order], Label.CAR)


def person(rng: np.random.Generator, tint: Colour, rides: bool) -> dict[bool, list[Texture]]:
    """Draw a pedestrian or bicyclist: PHASES cut-outs from behind (False), and as many with the face seen (True)."""
    coat = np.array((60, 225, 215)) if rides and rng.random() < 0.35 else rng.choice(_CLOTH)     # perhaps reflective
    clothes = coat, rng.choice(_CLOTH[:5]), rng.choice(_SKIN), rng.choice(_HAIR)
    bulk, hem = rng.uniform(0.9, 1.2), 0.49 if rides else float(rng.choice((0.36, 0.46)))
    folds = 0.95 + 0.08 * noise(rng, _TALL, _WIDE, 14) + np.linspace(-0.22, 0.22, _WIDE, dtype=np.float32)[None]
    shading = to_pixels(128 * np.dstack([folds * t for t in tint] + [np.ones_like(folds)]))
    return {facing: [_figure(clothes, bulk, hem, swing, facing, rides, shading)
                     for swing in np.cos(2 * np.pi * np.arange(PHASES) / PHASES).tolist()] for facing in (False, True)}


def _figure(clothes: Sequence[Colour], b: float, hem: float, swing: float, facing: bool, rides: bool,
            shading: Pixels) -> Texture:
    """Draw one image. Coordinates: x from the middle, y up, the whole height is 1; b: how stout the figure is."""
    board, black = np.zeros((_TALL * _FINE, _WIDE * _FINE, 4), np.uint8), (24, 24, 26)
    coat, legs, skin, hair = clothes

    def pixels(points: Sequence[tuple[float, float]]) -> list[npt.NDArray[np.int32]]:
        return [np.array([(_FINE * (_WIDE / 2 + x * 204), _FINE * (_TALL - y * 204)) for x, y in points], np.int32)]

    def limb(points: Sequence[tuple[float, float]], width: float, colour: Colour) -> None:
        thickness = round(width * _TALL * _FINE)
        cv2.polylines(board, pixels(points), False, (*map(float, colour), 255), thickness, cv2.LINE_AA)

    if rides:       # the wheel and the handlebar
        limb([(0, 0.02), (0, 0.52 if facing else 0.36)], 0.027, black)
        limb([(-0.15, 0.56), (0.15, 0.56)], 0.018, black)
    for side in (-1, 1):
        lift = 0.17 + 0.07 * side * swing if rides else 0.02 + 0.05 * max(0.0, side * swing)
        knee = (side * 0.085, lift + 0.2) if rides else (side * 0.056, lift + 0.25)
        limb([(side * 0.05 * b, 0.5), knee, (side * 0.06, lift)], 0.066, legs)
        limb([(side * 0.06, lift), (side * 0.075, lift - 0.01)], 0.035, black)
        hand = (side * 0.14, 0.57) if rides else (side * 0.16 * b, 0.47 + 0.025 * side * swing)
        limb([(side * 0.115 * b, 0.80), (side * 0.16 * b, 0.65), hand], 0.052, np.multiply(coat, 0.85))
        limb([hand, (hand[0], hand[1] - 0.01)], 0.035, skin)
    half = [(0.05, 0.86), (0.125 * b, 0.81), (0.10 * b, 0.6), (0.115 * b, hem)]
    cv2.fillPoly(board, pixels(half + [(-x, y) for x, y in reversed(half)]), (*map(float, coat), 255), cv2.LINE_AA)
    limb([(0, 0.84), (0, 0.9)], 0.045, skin)
    limb([(0, 0.95), (0, 0.965)], 0.08, hair)
    limb([(0, 0.92), (0, 0.94)], 0.085, skin if facing else hair)
    small = cv2.resize(board, (_WIDE, _TALL), interpolation=cv2.INTER_AREA)
    return Texture(cv2.multiply(small, shading, scale=1 / 128).astype(np.uint8), (1, 1, 1))
