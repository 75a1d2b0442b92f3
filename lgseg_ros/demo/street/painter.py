"""Puts one frame's houses, furniture, vehicles and people on the canvas, far things first."""

from math import sin

import numpy as np

from . import textures as facades
from .ground import CROSSING, CROSSING_AT, TILE
from .labels import BICYCLIST, BUILDING, FENCE, PEDESTRIAN, POLE, SIGN, TREE, VOID
from .scene import chance

SIGHT = 150.0
"""How far single things are drawn, metres."""
GARDEN_SIGHT = 80.0
"""How far garden trees are drawn, metres: further off, fences and houses leave nothing of them to see."""


class Painter:
    """Paints the street as it is at one moment (seconds).

    What stands beyond the pavements comes first, then what stands on road and pavements: from inside the street nothing
    beyond can hide anything on it. Within each of the two, far comes before near.
    """

    def __init__(self, canvas, props, street, time):
        self.canvas, self.props, self.street, self.time = canvas, props, street, time
        self.eye_z = canvas.view.eye[2]
        first, last = int((self.eye_z - 2) // TILE), int((self.eye_z + SIGHT) // TILE)
        self.chunks = [street.chunk(i) for i in range(first, last + 1)]

    def paint(self):
        for layer in (self._beyond(), self._on_street()):
            for _, draw, arguments in sorted(layer, key=lambda job: -job[0]):
                draw(*arguments)

    def _visible(self, z0, z1):
        """Clip a span along the street to what the camera can see, or return None."""
        z0, z1 = max(z0, self.eye_z + 2.0), min(z1, self.eye_z + SIGHT)
        return (z0, z1) if z1 - z0 > 0.05 else None

    def _lit(self, colour):
        return np.multiply(colour, self.canvas.view.light.front)

    # Beyond the pavements. Each generator yields (z, painter, its arguments).

    def _beyond(self):
        line = self.street.building_line
        for chunk in self.chunks:
            for side, z0, z1, number, gable in chunk.houses:
                yield (z0 + z1) / 2, self._house, (side, side * (line + chunk.setback), z0, z1, number, gable)
            for side, z0, z1, kind in chunk.gardens:
                yield z0, self._fence, (side * line, z0, z1, kind)
            for side, z, behind, height, number in chunk.garden_trees:
                if z - self.eye_z < GARDEN_SIGHT:
                    yield z, self._tree, (side * (line + behind), z, height, number)

    def _house(self, side, x, z0, z1, number, gable):
        span = self._visible(z0, z1)
        if span is None:
            return
        _, storeys = self.props.fronts[number]
        eave, depth = storeys * facades.STOREY + 0.4, 7.0
        middle, ridge = x + side * depth / 2, eave + 2.6
        eye = self.canvas.view.eye
        roofed = storeys <= 3
        if gable and span[0] == z0:
            self._gable(x, x + side * depth, eave, ridge if roofed else eave, z0, number)
        if roofed and abs(x - eye[0]) * (ridge - eave) > (eave - eye[1]) * depth / 2:   # else the eave hides the roof
            self._panel((x, middle), (eave, ridge), span, self.props.roof[number % len(self.props.roof)][side])
            self._chimney(middle, ridge, z0 + 0.8)
        self._panel((x, x), (0.0, eave), span, self.props.front[number][side])

    def _gable(self, x0, x1, eave, ridge, z, number):
        """The side of a house that faces the camera, where no neighbour covers it."""
        texture = self.props.gable[number]
        self.canvas.wall([(x0, 0, z), (x1, 0, z), (x1, eave, z), (x0, eave, z)], texture, BUILDING)
        if ridge > eave:
            self.canvas.polygon([(x0, eave, z), (x1, eave, z), ((x0 + x1) / 2, ridge, z)], texture.mean, BUILDING)

    def _panel(self, x, y, span, texture):
        """A wall or roof along the street; x, y: (lower edge, upper edge)."""
        left, right = span if x[0] < 0 else span[::-1]      # as somebody who faces the wall reads it
        self.canvas.wall([(x[0], y[0], left), (x[0], y[0], right), (x[1], y[1], right), (x[1], y[1], left)], texture, BUILDING)

    def _chimney(self, x, ridge, z):
        if z > self.eye_z + 4:
            self._upright(x, z, 0.35, ridge - 0.6, ridge + 0.9, (62, 76, 96), BUILDING)

    def _fence(self, x, z0, z1, kind):
        span = self._visible(z0, z1)
        if span is None:
            return
        height = {'boards': 1.7, 'hedge': 1.9, 'railing': 1.15}[kind]
        near, far = span
        corners = [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)]
        self.canvas.wall(corners, self.props.garden[kind][-1 if x < 0 else 1], TREE if kind == 'hedge' else FENCE)

    def _tree(self, x, z, height, number):
        if self.eye_z + 5.0 < z < self.eye_z + SIGHT:
            self.canvas.sprite(self.props.trees[number % len(self.props.trees)], (x, 0.0, z), height, TREE, mirror=bool(number & 64))

    # On road and pavements.

    def _on_street(self):
        near, far = self.eye_z + 1.5, self.eye_z + SIGHT
        yield from (job for job in self._furniture() if near < job[0] < far)
        yield from self._traffic(near - 3, far)
        yield from self._people(near + 2.5, far)
        yield from self._crossers()

    def _furniture(self):
        kerb = self.street.road_half + 0.45
        for chunk in self.chunks:
            for side, z in chunk.lamps:
                yield z, self._lamp_post, (side * (kerb + 0.1), z, side)
            for side, z, height, number in chunk.trees:
                yield z, self._tree, (side * (kerb + 0.3), z, height, number)
            for side, z, number in chunk.signs:
                yield z, self._sign_post, (side * kerb, z, number)
            for side, z in chunk.lights:
                yield z, self._traffic_light, (side * kerb, z)
            for side, z in chunk.bollards:
                yield z, self._post, (side * kerb, z, 0.07, 0.0, 0.95, (40, 42, 44))
            for side, z in chunk.bins:
                yield z, self._upright, (side * (self.street.building_line - 0.5), z, 0.28, 0.0, 1.05, (40, 56, 40), VOID)
            for side, z0, z1 in chunk.railings:
                yield max(z0, self.eye_z + 2), self._fence, (side * (kerb - 0.15), z0, z1, 'railing')

    def _upright(self, x, z, radius, low, high, colour, label):
        """A flat upright bar."""
        corners = [(x - radius, low, z), (x + radius, low, z), (x + radius, high, z), (x - radius, high, z)]
        self.canvas.polygon(corners, self._lit(colour), label)

    def _post(self, x, z, radius, low, high, colour):
        """A round post: one bar, its right part in the shade where that can be seen."""
        self._upright(x, z, radius, low, high, colour, POLE)
        if radius * self.canvas.view.focal > z - self.eye_z:
            self._upright(x + 0.6 * radius, z, 0.4 * radius, low, high, np.multiply(colour, 0.72), POLE)

    def _lamp_post(self, x, z, side):
        colour = (92, 98, 96)
        self._post(x, z, 0.09, 0.0, 3.0, colour)
        self._post(x, z, 0.06, 3.0, 7.4, colour)
        reach = x - side * 1.3
        self.canvas.polygon([(x, 7.3, z), (x, 7.42, z), (reach, 7.62, z), (reach, 7.5, z)], self._lit(colour), POLE)
        self._upright(reach, z, 0.35, 7.46, 7.66, (140, 146, 148), POLE)

    def _sign_post(self, x, z, number):
        texture, height = self.props.signs[number % len(self.props.signs)]
        self._post(x, z, 0.04, 0.0, 2.3 + height, (120, 122, 122))
        self.canvas.sprite(texture, (x, 2.25, z - 0.05), height, SIGN)

    def _traffic_light(self, x, z):
        self._post(x, z, 0.055, 0.0, 3.1, (36, 36, 36))
        phase = int(self.time / 4 + 5 * chance(self.street.seed, 8, int(z))) % 5
        self.canvas.sprite(self.props.traffic_lights[(2, 2, 1, 0, 0)[phase]], (x, 2.2, z - 0.05), 1.0, SIGN)

    def _traffic(self, near, far):
        """Parked, oncoming, leading cars, and those further ahead."""
        street, seed = self.street, self.street.seed
        for chunk in self.chunks:
            for side, z, number in chunk.parked:
                if near < z < far:
                    yield z, self._car, (side * (street.road_half - 1.05), z, number, side > 0)
        for number, z in street.oncoming.at(seed, self.time, near, far):
            yield z, self._car, (street.road_half / 2 - 0.9, z, number * 7, True)
        lead = self.eye_z + 17.0 + 5.0 * sin(0.21 * self.time + seed)
        if street.leads:
            yield lead, self._car, (street.lane - 0.1, lead, seed * 5 + 3, False)
        for number, z in street.ahead.at(seed, self.time, lead + 14, far):
            yield z, self._car, (street.lane, z, number * 3 + 1, False)

    def _car(self, x, z, number, toward):
        fleet = self.props.cars[toward]
        car = fleet[number % len(fleet)]
        if z - self.eye_z < 70:
            self.canvas.shadow(self.props.shadow, x, z + car.length / 2, car.shape.width * 1.5, car.length * 1.4)
        car.draw(self.canvas, x, z)

    def _people(self, near, far):
        street, seed = self.street, self.street.seed
        for side, flow in street.walkers:
            for number, z in flow.at(seed, self.time, near, far):
                inset = 0.7 + (street.walk - 1.3) * chance(seed, 40, flow.salt, number)
                yield z, self._walker, (side * (street.road_half + inset), z, number, 'near' if flow.speed < 0 else 'away')
        for side, flow in street.cyclists:
            inset = 2.4 if side in street.parked_sides else 0.7
            for number, z in flow.at(seed, self.time, near, far):
                yield z, self._cyclist, (side * (street.road_half - inset), z, number, 'near' if flow.speed < 0 else 'away')

    def _crossers(self):
        """Some walk over each crossing while the camera comes nearer, and are across before it arrives."""
        reach = self.street.road_half + 1.5
        for index in range(int(self.eye_z // TILE), int((self.eye_z + 80) // TILE) + 1):
            if self.street.tile_of(index) != CROSSING:
                continue
            ahead = index * TILE + CROSSING_AT - self.eye_z
            for i in range(3):
                done = (72 - 5 * i - ahead) / 40
                if 0 < done < 1:
                    way = 1 if chance(self.street.seed, 9, index, i) < 0.5 else -1
                    z = self.eye_z + ahead - 0.4 * i
                    yield z, self._walker, (way * reach * (2 * done - 1), z, index * 3 + i, 'side', way < 0)

    def _walker(self, x, z, number, facing, mirror=False):
        loops = self.props.walkers[number % len(self.props.walkers)]
        tall = 1.62 + 0.22 * chance(self.street.seed, 41, number)
        self._figure(loops[facing], x, z, number, tall, 1.0, PEDESTRIAN, mirror)

    def _cyclist(self, x, z, number, facing):
        loops = self.props.cyclists[number % len(self.props.cyclists)]
        self._figure(loops[facing], x, z, number, 1.72, 0.8, BICYCLIST)

    def _figure(self, loop, x, z, number, height, cycles, label, mirror=False):
        """Show the picture of a loop that is due now; cycles: loops a second."""
        if z - self.eye_z < 35:
            self.canvas.shadow(self.props.shadow, x, z, 0.9, 0.9)
        phase = int(self.time * cycles * len(loop) + number * 3) % len(loop)
        self.canvas.sprite(loop[phase], (x, 0.0, z), height, label, mirror)
