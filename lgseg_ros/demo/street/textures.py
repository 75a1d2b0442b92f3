"""Surfaces of the street, drawn once: random fields, house fronts, fences, trees, signs, and the daylight on them."""

from dataclasses import dataclass

import cv2
import numpy as np

from .drawing import Colour, Floats, Pixels

PPM = 32            # texture pixels per metre of a house
STOREY = 3.1        # height of one floor, metres
_WALLS = (((112, 146, 168), True), ((72, 84, 124), True), ((58, 66, 84), True), ((78, 100, 128), True),
          ((206, 212, 214), False), ((158, 190, 204), False), ((132, 146, 152), False))     # BGR, whether it is brick
_PAINT = ((52, 30, 24), (40, 60, 24), (36, 32, 120), (90, 60, 30), (30, 30, 30), (60, 90, 150), (140, 60, 40))
_WHITE = (230, 232, 234, 255)


@dataclass(frozen=True)
class Light:
    """Time of day and weather. Colours are BGR; tints multiply the colour of a surface."""

    sky: Colour             # at the zenith
    horizon: Colour
    cloud: Colour
    cloud_cover: float      # 0 clear to 1 closed
    lit: Colour             # tint of walls in the sun
    shade: Colour           # tint of walls turned away from it
    front: Colour           # tint of what faces the camera
    sun_side: int           # side of the street whose walls the sun lights: -1 left, 1 right, 0 no sun


LIGHTS = (      # low winter sun, blue sky, closed cloud, dusk
    Light((254, 252, 246), (238, 234, 230), (255,) * 3, 0.3, (1, 1.08, 1.12), (0.56, 0.52, 0.49), (0.62, 0.6, 0.58), 1),
    Light((244, 220, 190), (246, 240, 230), (255,) * 3, 0.45, (1.05, 1.16, 1.2), (0.64, 0.58, 0.53), (0.92,) * 3, 1),
    Light((218, 215, 210), (228, 225, 220), (183, 180, 176), 0.8, (0.83,) * 3, (0.8,) * 3, (0.84, 0.82, 0.8), 0),
    Light((132, 124, 114), (180, 173, 165), (92, 86, 78), 0.7, (0.54, 0.52, 0.5), (0.5,) * 3, (0.53, 0.51, 0.49), 0))


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> Floats:
    """Return a random field, float32 [height, width], mean about 0, standard deviation 1.

    The coarsest blobs have `cell` pixels; each further octave is half as coarse and 0.6 times as strong.
    """
    field = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(1.0, cell / 2 ** octave)
        layer = rng.standard_normal((max(2, round(height / size)), max(2, round(width / size))), np.float32)
        field += 0.6 ** octave * cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    return field / max(float(field.std()), 1e-6)


def to_pixels(field: Floats) -> Pixels:
    """Clip to uint8, 0 to 255."""
    return np.clip(field, 0, 255).astype(np.uint8)


def house(rng: np.random.Generator, width: float, storeys: int) -> tuple[Pixels, Pixels]:
    """Draw a house front, `width` metres wide, and the bare wall at its side; both uint8 [H, W, 3]."""
    colour, brick = _WALLS[rng.choice(7, p=(0.24, 0.16, 0.1, 0.18, 0.14, 0.08, 0.1))]
    height, wide = int((storeys * STOREY + 0.5) * PPM), int(width * PPM)
    tone = 1 + 0.055 * noise(rng, height, wide, 160, 4) + 0.03 * noise(rng, height, wide, 2)
    if brick:
        tone += np.kron(rng.normal(0, 0.09, (height // 3 + 1, wide // 8 + 1)), np.ones((3, 8)))[:height, :wide]
        tone[::3] += 0.12
    bare = np.asarray(colour, np.float32) * tone[..., None]
    wall, shop = bare.copy(), bool(rng.random() < (0.6 if storeys >= 3 else 0.3))
    _windows(rng, wall, storeys, shop)
    if shop:
        _shop(rng, wall)
    wall[:PPM // 3] *= rng.uniform(0.55, 1.2)       # the cornice
    return to_pixels(wall * rng.uniform(0.8, 1.1)), to_pixels(bare * 0.9)


def _glass(rng: np.random.Generator, pane: Floats) -> None:
    """Fill float32 [h, w, 3]: a dark room, the brighter sky mirrored in its upper part."""
    mirrored = rng.uniform(0, 110) * np.linspace(1, 0, len(pane), dtype=np.float32)[:, None, None] ** 2
    pane[:] = (26 + mirrored + 6 * rng.standard_normal((*pane.shape[:2], 1))) * (1.06, 1.0, 0.94)


def _windows(rng: np.random.Generator, wall: Floats, storeys: int, shop: bool) -> None:
    """Set rows of windows into a wall, and a door where there is no shop."""
    height, width = wall.shape[:2]
    bays, frame = max(2, int(width / PPM / rng.uniform(2.0, 3.0))), float(rng.choice((225, 60, 205)))
    door, bars, wide = int(rng.integers(bays)), int(rng.integers(1, 4)), int(width / bays * rng.uniform(0.4, 0.55))
    for floor in range(int(shop), storeys):
        sill = height - int((floor * STOREY + 0.95) * PPM)
        top = sill - int((1.75 if floor == 0 else 1.6 - 0.1 * floor) * PPM)
        for bay in range(bays):
            x = int(width * (bay + 0.5) / bays - wide / 2)
            if floor == 0 and bay == door:
                wall[height - int(2.2 * PPM):, x:x + PPM] = _PAINT[rng.integers(len(_PAINT))]
                continue
            wall[top - 4:sill + 3, x - 2:x + wide + 2] *= rng.uniform(0.8, 1.25)        # lintel and sill
            _glass(rng, wall[top:sill, x:x + wide])
            for i in range(bars):       # the frame and the glazing bars
                cv2.rectangle(wall, (x, top + (sill - top) * i // bars), (x + wide, sill), (frame,) * 3, 2 - (i > 0))


def _shop(rng: np.random.Generator, wall: Floats) -> None:
    """Replace the ground floor by a window front under a coloured board with lettering."""
    height, width = wall.shape[:2]
    top, board, panes = height - int(STOREY * PPM), height - int(2.5 * PPM), max(2, width // int(1.7 * PPM))
    paint = np.asarray(_PAINT[rng.integers(len(_PAINT))], np.float32)
    wall[top:], wall[top:board] = paint * 0.7, paint * rng.uniform(0.8, 1.6)
    cv2.putText(wall, _name(rng), (width // 3, board - 5), cv2.FONT_HERSHEY_DUPLEX, 0.5, _WHITE, 1, cv2.LINE_AA)
    for i in range(panes):
        foot = height - (2 if i == panes // 2 else 14)
        _glass(rng, wall[board + 3:foot, width * i // panes + 3:width * (i + 1) // panes - 3])


def _name(rng: np.random.Generator) -> str:
    return ''.join(chr(letter) for letter in rng.integers(65, 91, rng.integers(4, 8)))


def rough(rng: np.random.Generator, colour: Colour, grain: float, rows: int = 96, columns: int = 320) -> Pixels:
    """Draw slates, boards or leaves, uint8 [96, 320, 3]; rows, columns: pixels from one dark joint to the next."""
    tone = 0.95 + grain * (noise(rng, 96, 320, 50, 4) + noise(rng, 96, 320, 3))
    tone += np.repeat(rng.normal(0, 0.08, 320 // columns), columns)
    tone[::rows] *= 0.75
    tone[:, ::columns] *= 0.55
    return to_pixels(np.asarray(colour) * (tone * np.linspace(1.1, 0.8, 96, dtype=np.float32)[:, None])[..., None])


def railing() -> Pixels:
    """Draw metal railings, 4 m x 1.1 m, uint8 [88, 320, 4]."""
    bars = np.zeros((88, 320), bool)
    bars[8:84] = np.arange(320) % 11 < 3
    bars[8:13] = bars[76:81] = bars[:, :4] = bars[:, 160:164] = True
    return to_pixels(bars[..., None] * np.array((70, 72, 74, 255)))


def tree(rng: np.random.Generator) -> Pixels:
    """Draw a tree in leaf, uint8 [384, 312, 4]."""
    height, width, crown = 384, 312, 284
    board = np.zeros((height, width, 4), np.uint8)
    for _ in range(7):      # the trunk, drawn again with each branch
        path = [(156, height), (156, rng.uniform(210, 280)), (156 + rng.normal(0, 45), rng.uniform(60, 200))]
        cv2.polylines(board, [np.array(path, np.int32)], False, (44, 52, 58, 255), 8, cv2.LINE_AA)
    rows, cols = np.mgrid[:crown, :width].astype(np.float32)
    radius = np.hypot((cols - width / 2) / (width * 0.38), (rows - crown * 0.5) / (crown * 0.40))
    lumps, leaves = noise(rng, crown, width, 82, 3), noise(rng, crown, width, 3) + 0.6 * noise(rng, crown, width, 2)
    inside = 1.0 - radius + 0.16 * lumps
    alpha = np.clip((inside + 0.07 * leaves) * 14, 0, 1) * np.clip(2.4 + inside * 6 + leaves, 0, 1)
    tone = 0.62 + 0.28 * (0.5 - rows / crown) + 0.15 * lumps + 0.17 * leaves
    green = np.asarray(((55, 105, 92), (42, 82, 65), (50, 115, 120), (45, 75, 58))[rng.integers(4)], np.float32)
    leaf = np.dstack([np.clip(green * tone[..., None], 0, 255), np.full_like(tone, 255)])
    board[:crown] = board[:crown] * (1 - alpha[..., None]) + leaf * alpha[..., None]
    return board


def signs(rng: np.random.Generator) -> list[Pixels]:
    """Draw speed limits, uint8 [96, 96, 4], and plates with place names, uint8 [72, 112, 4]."""
    limits = [np.zeros((96, 96, 4), np.uint8) for _ in range(2)]
    for sign, text in zip(limits, ('20', '30'), strict=True):
        cv2.circle(sign, (48, 48), 45, (40, 36, 200, 255), -1, cv2.LINE_AA)
        cv2.circle(sign, (48, 48), 34, _WHITE, -1, cv2.LINE_AA)
        cv2.putText(sign, text, (26, 60), cv2.FONT_HERSHEY_DUPLEX, 1.1, (25, 25, 25, 255), 3, cv2.LINE_AA)
    colours = ((120, 60, 20, 255), (60, 100, 30, 255), (40, 40, 160, 255))
    plates = [np.full((72, 112, 4), colour, np.uint8) for colour in colours]
    for plate in plates:
        cv2.rectangle(plate, (4, 4), (107, 67), _WHITE, 2)
        for y in (30, 54):
            cv2.putText(plate, _name(rng), (10, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _WHITE, 2, cv2.LINE_AA)
    return limits + plates
