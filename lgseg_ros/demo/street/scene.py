"""What stands along an endless street, and who moves on it: all follows from the seed, the place and the time."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from math import sin

import cv2
import numpy as np

from . import textures
from .drawing import Canvas, Label, Pixels, Point, Texture
from .ground import TILE
from .textures import STOREY, Light
from .traffic import PHASES, Car, person

SIGHT = 120.0                                   # how far things are drawn, metres
SIDES = (-1, 1)                                 # left, right
Draw = Callable[[Canvas], None]
Item = tuple[float, Draw]                       # z, metres, and what draws it
Pair = tuple[float, float]


def chance(*keys: int) -> float:
    """Return a number in [0, 1) that depends on the keys only: the street is drawn at any place in any order."""
    mask, state = (1 << 64) - 1, 0x9E3779B97F4A7C15
    for key in keys:
        state = ((state ^ (key & mask)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


class Scene:
    """The street of one seed under one light. x is measured from the middle of the road, z along it; metres."""

    def __init__(self, rng: np.random.Generator, seed: int, light: Light) -> None:
        def texture(pixels: Pixels) -> Texture:
            return Texture(pixels, light.front)

        def on_both_sides(pixels: Pixels) -> dict[int, Texture]:
            tints = {side: light.shade if side == -light.sun_side else light.lit for side in SIDES}
            return {side: Texture(pixels, tints[side], True) for side in SIDES}

        self.seed, self.road_half = seed, 3.7 + 1.1 * chance(seed, 1, 0)
        self._line = self.road_half + 2.2 + 1.3 * chance(seed, 1, 1)        # x of the house fronts
        self.speed = 6.0 + 4.0 * chance(seed, 1, 2)                         # of the camera, metres per second
        self._parking = SIDES if self.road_half > 4.2 else (1,)
        self.lane = -1.2 if self.road_half > 4.2 else 0.25 - self.road_half / 2     # x of the camera
        self._houses = []
        for storeys in rng.choice((2, 2, 3, 3, 4), 12).tolist():
            front, bare = textures.house(rng, float(rng.choice((8, 12))), storeys)
            self._houses.append((storeys, on_both_sides(front), texture(bare)))
        self._roof = on_both_sides(textures.rough(rng, (60, 66, 74), 0.05, rows=8))
        self._fences = [(on_both_sides(textures.rough(rng, (62, 84, 106), 0.06, columns=10)), 1.7, Label.FENCE),
                        (on_both_sides(textures.railing()), 1.15, Label.FENCE),
                        (on_both_sides(textures.rough(rng, (40, 74, 62), 0.2)), 1.9, Label.TREE)]
        self._trees = [texture(textures.tree(rng)) for _ in range(6)]
        self._signs = [texture(sign) for sign in textures.signs(rng)]
        shadow = np.zeros((96, 48, 4), np.uint8)
        shadow[14:82, 8:40, 3] = 195
        self._shadow = texture(cv2.GaussianBlur(shadow, (0, 0), 4.5).astype(np.uint8))
        self._cars = {toward: [Car(rng, light, toward) for _ in range(9)] for toward in (False, True)}
        self._people = {rides: [person(rng, light.front, rides) for _ in range(6)] for rides in (False, True)}
        self._steel, self._slate = np.multiply(((92, 98, 96), (54, 60, 67)), light.front)
        self._chunk = lru_cache(64)(self._make_chunk)

    def crosses(self, chunk: int) -> bool:
        """Tell whether people cross the road in a chunk of TILE metres."""
        return chance(self.seed, 2, chunk) < 0.2

    def draw(self, canvas: Canvas, time: float) -> None:
        """Draw everything above the ground at a time in seconds, far things before near ones."""
        eye = canvas.eye[2]
        end, hedge = eye + SIGHT + 10, self._fences[2][0][1]        # woods close the view at the end of the street
        canvas.quad([(-120, 0, end), (120, 0, end), (120, 5, end), (-120, 5, end)], hedge, Label.TREE)
        items = [(1, item) for item in self._moving(time, eye)]
        for index in range(int((eye - 2) // TILE), int((eye + SIGHT) // TILE) + 1):
            items += self._chunk(index)
        # From inside the street, what stands beyond the pavements (layer 0) can hide nothing on it.
        for layer, (z, draw) in sorted(items, key=lambda item: (item[0], -item[1][0])):
            if layer == 0 or z > eye + 1.5:
                draw(canvas)

    def _make_chunk(self, index: int) -> list[tuple[int, Item]]:
        """Return what stands beyond the pavements of a chunk, as layer 0, and what stands between, as layer 1."""
        return [(layer, item) for side in SIDES for layer, kind in enumerate((self._plots, self._furniture))
                for item in kind(index, side, partial(chance, self.seed, 3, index, side))]

    def _plots(self, index: int, side: int, draw: Callable[..., float]) -> Iterator[Item]:
        """Houses and gardens; some stretches of three chunks have front gardens."""
        setback = 0.0 if chance(self.seed, 5, index // 3) < 0.55 else side * 4.0
        count, line, nearer = 2 + int(draw(0) < 0.6), side * self._line, 0
        for plot in range(count):
            z0, z1 = TILE * (index + plot / count), TILE * (index + (plot + 1) / count)
            storeys, fronts, bare = self._houses[int(12 * draw(plot, 2))]
            garden = draw(plot, 1) < 0.15
            if not garden:
                yield from self._house(side, line + setback, z0, z1, storeys, fronts[side], bare, storeys > nearer)
            nearer = 0 if garden else storeys
            if setback or garden:
                fence, height, label = self._fences[int(3 * draw(plot, 3))]
                yield z0, self._wall(side, (line, line), (0, height), (z0, z1 - 1.2), fence[side], label)
                for i in range(3 if garden else 1):
                    x = line + side * (1.5 + 4 * garden * draw(plot, 4, i))
                    yield self._tree(x, z0 + (0.2 + 0.3 * i) * (z1 - z0), 3 * (1 + garden + draw(plot, 5, i)))

    def _house(self, side: int, x: float, z0: float, z1: float, storeys: int, front: Texture, bare: Texture,
               seen: bool) -> Iterator[Item]:
        """A house; seen: no neighbour hides the bare wall that faces the camera."""
        eave, ridge, middle, back = storeys * STOREY + 0.4, storeys * STOREY + 3, x + side * 3.5, x + side * 7
        corners = [(x, 0, z0), (back, 0, z0), (back, eave, z0), (x, eave, z0)]
        if seen:
            yield z0 + 0.02, lambda canvas: canvas.quad(corners, bare, Label.BUILDING)
        if storeys == 2:        # higher eaves hide the roof
            gable = [(x, eave, z0), (back, eave, z0), (middle, ridge, z0)]
            yield z0 + 0.02, lambda canvas: canvas.polygons([gable], [self._slate], Label.BUILDING)
            yield z1 + 0.01, self._wall(side, (x, middle), (eave, ridge), (z0, z1), self._roof[side], Label.BUILDING)
        yield z1, self._wall(side, (x, x), (0, eave), (z0, z1), front, Label.BUILDING)      # before its garden

    @staticmethod
    def _wall(side: int, x: Pair, y: Pair, z: Pair, texture: Texture, label: int) -> Draw:
        """Stand a surface along the street; x, y: of its lower and upper edge, z: of its ends."""
        left, right = z if side < 0 else z[::-1]      # as somebody who faces it sees it
        corners = [(x[0], y[0], left), (x[0], y[0], right), (x[1], y[1], right), (x[1], y[1], left)]
        return lambda canvas: canvas.quad(corners, texture, label)

    def _tree(self, x: float, z: float, height: float) -> Item:
        texture, mirror = self._trees[int(z) % 6], int(z * 10) % 2 > 0
        return z, lambda canvas: canvas.sprite(texture, (x, 0.0, z), height, Label.TREE, mirror)

    def _furniture(self, index: int, side: int, draw: Callable[..., float]) -> Iterator[Item]:
        """Lamps, trees, signs, railings and parked cars."""
        base, kerb, crossing = index * TILE, side * (self.road_half + 0.45), self.crosses(index)
        lamp, end, post = base + (3.0 if side < 0 else 15.0), kerb - side * 1.3, base + 7.2 - 3 * draw(6)
        parts = [_bar(kerb, lamp, 0.09, 0.0, 3.0), _bar(kerb, lamp, 0.06, 3.0, 7.4), _bar(end, lamp, 0.35, 7.46, 7.66),
                 [(kerb, 7.3, lamp), (kerb, 7.42, lamp), (end, 7.62, lamp), (end, 7.5, lamp)]]
        yield lamp, lambda canvas: canvas.polygons(parts, [self._steel] * 4, Label.POLE)
        if draw(1) < 0.3:
            yield self._tree(kerb, base + 9.0 + 3 * draw(2), 5.0 + 4.0 * draw(3))
        if draw(5) < 0.6:
            board = self._signs[int(5 * draw(7))]
            yield post, lambda canvas: canvas.polygons([_bar(kerb, post, 0.045, 0.0, 3.0)], [self._steel], Label.POLE)
            yield post - 0.05, lambda canvas: canvas.sprite(board, (kerb, 2.25, post - 0.05), 0.8, Label.SIGN)
        if crossing or draw(8) < 0.2:
            texture, height, label = self._fences[1]
            yield base + 17, self._wall(side, (kerb, kerb), (0, height), (base + 17, base + 23), texture[side], label)
        for place in range(4):
            # Half as many on the camera's own side, where each hides a third of the image for a moment.
            taken = draw(9, place) < (0.3 if side < 0 else 0.6) and not (crossing and place in (1, 2))
            if taken and side in self._parking:
                z = base + 6 * place + draw(10, place)
                yield self._car(side * (self.road_half - 1.05), z, int(99 * draw(11, place)), side > 0)

    def _moving(self, time: float, eye: float) -> Iterator[Item]:
        """Cars, pedestrians and bicyclists, at a time in seconds, as seen by a camera at z = eye."""
        def flow(spacing: float, speed: float) -> Iterator[tuple[int, float]]:      # (number, z) of each
            shift = speed * time
            for number in range(int((eye - shift) // spacing) - 1, int((eye + SIGHT - shift) // spacing) + 1):
                if chance(self.seed, int(spacing), number, 0) < 0.6:
                    yield number, (number + 0.7 * chance(self.seed, int(spacing), number, 1)) * spacing + shift

        lead = eye + 17.0 + 5.0 * sin(0.21 * time + self.seed)
        if chance(self.seed, 1, 5) < 0.6:
            yield self._car(self.lane - 0.1, lead, self.seed * 5 + 3, False)
        for number, z in flow(34.0, -9.0):
            yield self._car(self.road_half / 2 - 0.9, z, number, True)
        for rides, side, speed, spacing in ((False, -1, 1.35, 13.0), (False, -1, -1.2, 17.0), (False, 1, 1.3, 21.0),
                                            (False, 1, -1.4, 25.0), (True, -1, 4.6, 45.0), (True, 1, -5.0, 55.0)):
            for number, z in flow(spacing, speed):
                walk = 0.7 + (self._line - self.road_half - 1.3) * chance(self.seed, 40, number)
                aside = (-2.4 if side in self._parking else -0.7) if rides else walk
                image = self._people[rides][number % 6][speed < 0][int(time * PHASES + number * 3) % PHASES]
                foot, label = (side * (self.road_half + aside), 0.0, z), Label.BICYCLIST if rides else Label.PEDESTRIAN
                yield z, partial(self._draw_person, foot, image, 1.62 + 0.22 * chance(self.seed, 41, number), label)

    def _car(self, x: float, z: float, number: int, toward: bool) -> Item:
        def draw(canvas: Canvas) -> None:
            canvas.shadow(self._shadow, x, z + car.length / 2, car.width * 1.5, car.length * 1.4)
            car.draw(canvas, x, z)

        car = self._cars[toward][number % 9]
        return z, draw

    def _draw_person(self, foot: Point, image: Texture, height: float, label: int, canvas: Canvas) -> None:
        canvas.shadow(self._shadow, foot[0], foot[2], 0.9, 0.9)
        canvas.sprite(image, foot, height, label)


def _bar(x: float, z: float, radius: float, low: float, high: float) -> list[Point]:
    return [(x - radius, low, z), (x + radius, low, z), (x + radius, high, z), (x - radius, high, z)]
