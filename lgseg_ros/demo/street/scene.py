"""What stands where along an endless street, and who moves: every fact follows from the seed and the position alone."""

from dataclasses import dataclass, field

from . import ground
from .ground import JUNCTION_SPAN, TILE

_MASK = (1 << 64) - 1


def chance(*keys):
    """Return a number in [0, 1) that depends on the integer keys and on nothing else.

    A street is asked for at any place and in any order, so a running random generator cannot be used.
    """
    state = 0x9E3779B97F4A7C15
    for key in keys:
        state = ((state ^ (key & _MASK)) * 0xBF58476D1CE4E5B9) & _MASK
        state ^= state >> 27
        state = (state * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


@dataclass(frozen=True)
class Flow:
    """Things that follow each other along the street at one speed (metres, metres a second; negative: towards us)."""

    salt: int
    spacing: float
    speed: float
    share: float        # the share of places in the flow that is taken

    def at(self, seed, time, start, stop):
        """Yield (number, z) of each thing between z = start and stop at a time in seconds."""
        shift = self.speed * time
        first, last = int((start - shift) // self.spacing) - 1, int((stop - shift) // self.spacing) + 1
        for number in range(first, last + 1):
            if chance(seed, self.salt, number, 0) < self.share:
                z = (number + 0.7 * chance(seed, self.salt, number, 1)) * self.spacing + shift
                if start <= z < stop:
                    yield number, z


@dataclass
class Chunk:
    """24 m of street. Each list holds tuples whose first entry is the side (-1, 1) and whose second is z, metres."""

    tile: int
    setback: float = 0.0        # metres from the pavement to the house fronts
    houses: list = field(default_factory=list)      # side, z0, z1, number of the front in the pool, side wall open to view
    gardens: list = field(default_factory=list)     # side, z0, z1, kind: 'boards', 'hedge' or 'railing'
    garden_trees: list = field(default_factory=list)  # side, z, distance behind the building line, height, number
    lamps: list = field(default_factory=list)       # side, z
    trees: list = field(default_factory=list)       # side, z, height, number
    signs: list = field(default_factory=list)       # side, z, number
    lights: list = field(default_factory=list)      # side, z
    bollards: list = field(default_factory=list)    # side, z
    bins: list = field(default_factory=list)        # side, z
    railings: list = field(default_factory=list)    # side, z0, z1
    parked: list = field(default_factory=list)      # side, z, number


class Street:
    """The street of one seed; `chunk(i)` tells what stands between z = 24 i and 24 (i + 1)."""

    def __init__(self, seed, fronts):
        """fronts: list of (width, storeys) of the house fronts to choose from; widths in metres."""
        self.seed = seed
        self._fronts = fronts
        draw = lambda salt: chance(seed, 1, salt)
        self.road_half = 3.7 + 1.1 * draw(0)
        self.walk = 2.2 + 1.3 * draw(1)
        self.speed = 6.0 + 4.0 * draw(2)
        self.green = 0.15 + 0.7 * draw(3)
        self.parking = 0.25 + 0.6 * draw(4)
        self.leads = draw(5) < 0.6
        wide = self.road_half > 4.2
        self.parked_sides = (-1, 1) if wide else (1,)
        self.lane = -1.2 if wide else 0.25 - self.road_half / 2
        self.oncoming = Flow(10, 34.0, -9.0, 0.55)
        self.ahead = Flow(11, 70.0, self.speed + 0.4, 0.5)
        self.walkers = [(side, Flow(20 + i, 13.0 + 4 * i, speed, 0.62))
                        for i, (side, speed) in enumerate(((-1, 1.35), (-1, -1.2), (1, 1.3), (1, -1.4)))]
        self.cyclists = [(-1, Flow(30, 45.0, 4.6, 0.7))]
        if wide:    # beside parked cars a narrow road has no room for a bicycle and an oncoming car
            self.cyclists.append((1, Flow(31, 55.0, -5.0, 0.65)))
        self._chunks = {}

    @property
    def building_line(self):
        """Distance of the house fronts from the middle of the road, metres."""
        return self.road_half + self.walk

    def tile_of(self, index):
        """Return the kind of ground of a chunk."""
        draw = chance(self.seed, 2, index)
        for limit, kind in ((0.16, ground.JUNCTION), (0.30, ground.CROSSING), (0.44, ground.WORDS), (0.68, ground.WORN)):
            if draw < limit:
                return kind
        return ground.PLAIN

    def chunk(self, index):
        """Return the Chunk of that number; asked again, the same object."""
        if index not in self._chunks:
            if len(self._chunks) > 64:
                self._chunks.clear()
            self._chunks[index] = self._make(index)
        return self._chunks[index]

    def _setback(self, index):
        """Town houses stand at the pavement, others behind front gardens; it changes every few chunks."""
        draw = chance(self.seed, 5, index // 3) + 0.35 * (self.green - 0.5)
        return 0.0 if draw < 0.5 else 3.5 if draw < 0.78 else 6.5

    def _make(self, index):
        chunk = Chunk(self.tile_of(index), self._setback(index))
        base = index * TILE
        for side in (-1, 1):
            draw = lambda *keys: chance(self.seed, 3, index, side, *keys)
            spans = [(0.0, TILE)]
            if chunk.tile == ground.JUNCTION:
                spans = [(0.0, JUNCTION_SPAN[0]), (JUNCTION_SPAN[1], TILE)]
            for number, (start, stop) in enumerate(spans):
                self._plots(chunk, side, base + start, base + stop, lambda *keys: draw(10 + number, *keys))
            self._furniture(chunk, side, base, draw)
            if side in self.parked_sides:
                self._park(chunk, side, base, draw)
        return chunk

    def _plots(self, chunk, side, start, stop, draw):
        """Fill the building line with houses, and gardens where none fits or by chance."""
        place, storeys_before = 0, 0
        while stop - start > 0.5:
            place += 1
            number = int(draw(place, 0) * len(self._fronts))
            width = self._fronts[number][0]
            left = stop - start
            if left < 5.0 or draw(place, 1) < 0.16 * (0.4 + self.green):
                self._garden(chunk, side, start, min(stop, start + 8.0), lambda *keys: draw(place, 2, *keys))
                start, storeys_before = min(stop, start + 8.0), 0
                continue
            if left - width < 3.0:
                width = left
            width = min(width, left)
            storeys = self._fronts[number][1]
            chunk.houses.append((side, start, start + width, number, storeys > storeys_before))
            storeys_before = storeys
            if chunk.setback and draw(place, 3) < 0.8:
                self._garden(chunk, side, start, start + width - 1.2, lambda *keys: draw(place, 4, *keys))
            start += width

    def _garden(self, chunk, side, start, stop, draw):
        kind = ('boards', 'hedge', 'railing')[int(draw(0) * 3)] if not chunk.setback else ('hedge', 'railing')[int(draw(0) * 2)]
        chunk.gardens.append((side, start, stop, kind))
        for i in range(1 + int((stop - start) / 4)):
            z = start + (stop - start) * (i + 0.2 + 0.6 * draw(1, i)) / (1 + int((stop - start) / 4))
            behind, height = (1.0, 2.5 + 2.5 * draw(3, i)) if chunk.setback else (2.0 + 5.0 * draw(2, i), 5.0 + 6.0 * draw(3, i))
            chunk.garden_trees.append((side, z, behind, height, int(draw(4, i) * 1000)))

    def _furniture(self, chunk, side, base, draw):
        busy = chunk.tile in (ground.JUNCTION, ground.CROSSING)
        if (chunk.tile != ground.JUNCTION) or side < 0:
            chunk.lamps.append((side, base + (3.0 if side < 0 else 20.0)))
        for i, z in enumerate((5.0, 18.5)):
            if draw(30, i) < 0.45 * self.green:
                chunk.trees.append((side, base + z + 1.5 * draw(31, i), 5.0 + 4.0 * draw(32, i), int(draw(33, i) * 1000)))
        if draw(34) < 0.6:
            chunk.signs.append((side, base + 7.2 - 5.5 * draw(35), int(draw(36) * 1000)))
        if busy and draw(37) < 0.8:
            chunk.lights.append((side, base + (JUNCTION_SPAN[0] - 0.8 if side < 0 else JUNCTION_SPAN[1] + 0.8)))
        if busy and draw(38) < 0.7:
            chunk.railings.append((side, base + 17.2, base + 23.5))
        if draw(39) < 0.3:
            chunk.bollards.extend((side, base + 16.8 + 1.4 * i) for i in range(3))
        if draw(40) < 0.35:
            chunk.bins.append((side, base + 1.0 + 5.0 * draw(41)))

    def _park(self, chunk, side, base, draw):
        for i, z in enumerate((0.6, 6.6, 12.6, 18.6)):
            blocked = chunk.tile in (ground.JUNCTION, ground.CROSSING) and i in (1, 2)
            # Half as many on the camera's own side, where each hides a third of the picture for a moment.
            if not blocked and draw(50, i) < self.parking * (0.5 if side < 0 else 1.0):
                chunk.parked.append((side, base + z + 0.6 * draw(51, i), int(draw(52, i) * 1000)))
