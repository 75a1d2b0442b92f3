"""Fronts, roofs and bare walls of houses."""

import cv2
import numpy as np

from .noise import fractal_noise, smooth_noise, to_pixels

PPM = 32
"""Texture pixels per metre."""
STOREY = 3.1
"""Height of one floor, metres."""

_WALLS = {              # BGR of the wall, whether it is brick
    'pale brick': ((112, 146, 168), True), 'red brick': ((72, 84, 124), True), 'dark brick': ((58, 66, 84), True),
    'brown brick': ((78, 100, 128), True), 'white render': ((206, 212, 214), False), 'cream render': ((158, 190, 204), False),
    'stone': ((132, 146, 152), False), 'concrete': ((146, 148, 148), False),
}
_PAINT = ((52, 30, 24), (40, 60, 24), (36, 32, 120), (90, 60, 30), (30, 30, 30), (60, 90, 150), (140, 60, 40), (36, 110, 60))


def masonry(rng, width, height, kind):
    """Return a bare wall of a named kind as float32 [height, width, 3] BGR, sizes in pixels."""
    colour, brick = _WALLS[kind]
    tone = 1 + 0.055 * fractal_noise(rng, height, width, 160, 4) + 0.03 * smooth_noise(rng, height, width, 2)
    if brick:
        rows, cols = height // 3 + 1, width // 8 + 1
        tint = np.kron(rng.normal(0, 0.09, (rows, cols)), np.ones((3, 8)))[:height, :width]
        tone = tone + tint.astype(np.float32)
        tone[::3] += 0.12
    stain = np.linspace(0.04, -0.10, height, dtype=np.float32)[:, None]
    return np.float32(colour) * (tone + stain)[..., None]


def _glass(rng, height, width):
    """A window pane: dark room, the brighter sky mirrored in its upper part, a hint of curtain."""
    fall = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    mirrored = rng.uniform(0, 110) * np.clip(fall + 0.25 * rng.standard_normal(), 0, 1) ** 2
    pane = 26 + mirrored + 6 * rng.standard_normal((height, width))
    pane = np.repeat(pane[..., None], 3, axis=2) * np.float32([1.06, 1.0, 0.94])
    if rng.random() < 0.45:
        drape = max(2, int(width * rng.uniform(0.12, 0.3)))
        pane[:, :drape] = pane[:, -drape:] = np.float32([150, 160, 164]) * rng.uniform(0.4, 0.9)
    return pane


def _window(rng, wall, x, y, width, height, frame, bars):
    """Set a framed window with a sill and a lintel into the wall; x, y is its top left, all in pixels."""
    x, y, width, height = (int(v) for v in (x, y, width, height))
    if x < 2 or y < 4 or x + width + 2 > wall.shape[1] or y + height + 4 > wall.shape[0]:
        return
    wall[y - 4:y, x - 2:x + width + 2] *= rng.uniform(0.8, 1.25)
    wall[y:y + height, x:x + width] = _glass(rng, height, width)
    wall[y:y + 3, x:x + width] *= 0.55
    cv2.rectangle(wall, (x, y), (x + width - 1, y + height - 1), frame, 2)
    for i in range(1, bars[0]):
        cv2.line(wall, (x + width * i // bars[0], y), (x + width * i // bars[0], y + height - 1), frame, 1)
    for i in range(1, bars[1]):
        cv2.line(wall, (x, y + height * i // bars[1]), (x + width - 1, y + height * i // bars[1]), frame, 1)
    wall[y + height:y + height + 3, x - 2:x + width + 2] = np.float32([176, 182, 184])
    wall[y + height + 3:y + height + 5, x - 2:x + width + 2] *= 0.7


def _shop(rng, wall):
    """Replace the ground floor by a shop: window front, coloured fascia with lettering, a door."""
    height, width = wall.shape[:2]
    top = height - int(STOREY * PPM)
    paint = np.float32(_PAINT[rng.integers(len(_PAINT))])
    wall[top:] = paint * 0.7
    fascia = slice(top, top + int(0.6 * PPM))
    wall[fascia] = paint * rng.uniform(0.8, 1.6)
    word = ''.join(chr(rng.integers(65, 91)) for _ in range(rng.integers(4, 11)))
    (text_width, _), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, 0.5, 1)
    start = (max(2, (width - text_width) // 2), fascia.stop - 5)
    ink = np.zeros((height, width), np.uint8)
    cv2.putText(ink, word, start, cv2.FONT_HERSHEY_DUPLEX, 0.5, 255, 1, cv2.LINE_AA)
    wall += (np.float32([225, 230, 232]) - wall) * (ink[..., None] / np.float32(255))
    panes = max(2, width // int(1.7 * PPM))
    for i in range(panes):
        x0, x1 = width * i // panes + 3, width * (i + 1) // panes - 3
        foot = 2 if i == panes // 2 else int(0.45 * PPM)
        pane = wall[fascia.stop + 3:height - foot, x0:x1]
        pane[:] = _glass(rng, *pane.shape[:2])
        for _ in range(5):
            gx, gy = rng.integers(0, max(1, pane.shape[1] - 6)), rng.integers(pane.shape[0] // 3, pane.shape[0])
            pane[gy:gy + rng.integers(4, 22), gx:gx + rng.integers(3, 12)] = rng.uniform(40, 150) * rng.uniform(0.75, 1.25, 3)


def _door(rng, wall, x):
    height = wall.shape[0]
    tall, wide = int(2.2 * PPM), int(0.95 * PPM)
    paint = np.float32(_PAINT[rng.integers(len(_PAINT))])
    wall[height - tall - 6:height, x - 3:x + wide + 3] = np.float32([180, 186, 188])
    wall[height - tall:height, x:x + wide] = paint
    wall[height - tall:height - tall + 10, x + 3:x + wide - 3] = 40
    wall[height - 6:height, x - 5:x + wide + 5] = 110


def _bays(rng, wall, storeys, shop, modern):
    """Rows of windows, and a door where there is no shop."""
    height, width = wall.shape[:2]
    count = max(2, int(width / PPM / rng.uniform(2.0, 3.0)))
    frame = tuple(float(v) for v in (rng.choice([[225] * 3, [60] * 3, [200, 205, 210]]) if not modern else [70, 70, 72]))
    bars = (int(rng.integers(1, 3)), int(rng.integers(1, 4))) if not modern else (2, 1)
    door = int(rng.integers(count))
    for floor in range(1 if shop else 0, storeys):
        sill = height - int((floor * STOREY + 0.95) * PPM)
        tall = int((1.75 if floor == 0 else 1.6 - 0.1 * floor) * PPM)
        wide = width / count * (0.8 if modern else 0.42)
        for bay in range(count):
            middle = width * (bay + 0.5) / count
            if floor == 0 and bay == door:
                _door(rng, wall, int(np.clip(middle - 0.5 * PPM, 6, width - 1.3 * PPM)))
            else:
                _window(rng, wall, middle - wide / 2, sill - tall, wide, tall, frame, bars)


def front(rng, width, storeys):
    """Return the front of a house, `width` metres wide, as uint8 [H, W, 3] BGR."""
    kind = str(rng.choice(list(_WALLS), p=(0.24, 0.16, 0.1, 0.16, 0.14, 0.08, 0.08, 0.04)))
    modern = kind == 'concrete' or (storeys >= 3 and rng.random() < 0.2)
    wall = masonry(rng, int(width * PPM), int(storeys * STOREY * PPM + 0.5 * PPM), kind)
    shop = rng.random() < (0.6 if storeys >= 3 else 0.3)
    _bays(rng, wall, storeys, shop, modern)
    if shop:
        _shop(rng, wall)
    wall[:int(0.28 * PPM)] *= rng.uniform(0.55, 1.3)
    wall[int(0.28 * PPM):int(0.5 * PPM)] *= 0.7
    for x in (1, wall.shape[1] - 4):
        wall[:, x:x + 3] *= 0.55 if rng.random() < 0.7 else 1
    return to_pixels(wall * rng.uniform(0.8, 1.1)), kind


def side(rng, kind):
    """Return the blind side of a house of that wall kind, uint8 [H, W, 3]; a small window or none."""
    wall = masonry(rng, 8 * PPM, 8 * PPM, kind)
    if rng.random() < 0.6:
        _window(rng, wall, 3 * PPM, 2 * PPM, 0.9 * PPM, 1.3 * PPM, (215.0,) * 3, (1, 2))
    return to_pixels(wall * 0.9)


def roof(rng):
    """Return slates or tiles, uint8 [H, W, 3]."""
    height, width = 96, 256
    colour = np.float32(((70, 66, 64), (52, 62, 84), (58, 60, 66))[rng.integers(3)])
    tone = 1 + 0.08 * fractal_noise(rng, height, width, 60, 4) + 0.05 * smooth_noise(rng, height, width, 2)
    tone[::6] *= 0.75
    return to_pixels(colour * tone[..., None])
