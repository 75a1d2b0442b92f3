"""Road, markings and pavement as one long texture, seen through the camera's perspective."""

import cv2
import numpy as np

from .labels import PAVEMENT, ROAD
from .light import lit_texture
from .noise import fractal_noise, smooth_noise, to_pixels

TILE = 24.0
"""Length of one ground tile and of one chunk of the street, metres."""
HALF = 12.0
"""The texture reaches this far to either side of the road's middle, metres; beyond it the edge repeats."""
PPM = 40
"""Texture pixels per metre."""
PLAIN, WORN, CROSSING, JUNCTION, WORDS = range(5)
JUNCTION_SPAN = (8.0, 16.0)
"""Where in its chunk a side road opens, metres from the chunk's start."""
CROSSING_AT = 12.0
"""Where in its chunk pedestrians cross, metres from the chunk's start."""

# Far rows see metres of road each. Copies averaged along the road keep dashes from flickering there:
# (from this distance on, rows averaged, columns averaged).
_LEVELS = ((0.0, 1, 1), (8.0, 4, 1), (16.0, 16, 2), (32.0, 64, 4), (64.0, 240, 8))


def _col(x):
    return int(round((x + HALF) * PPM))


def _paint(tile, worn, x0, x1, z0, z1, colour):
    """Lay a rectangle of road paint, thinner where the surface is worn."""
    area = np.s_[max(0, int(z0 * PPM)):int(z1 * PPM), _col(x0):_col(x1)]
    cover = worn[area][..., None]
    tile[area] = tile[area] * (1 - cover) + np.float32(colour) * cover


def _asphalt(rng, size, road_half):
    coarse = fractal_noise(rng, size, size, 320, 4)
    grain = smooth_noise(rng, size, size, 1) + 0.35 * smooth_noise(rng, size, size, 3)
    grey = 90 + 5 * coarse + 6 * grain
    x = (np.arange(size, dtype=np.float32) / PPM - HALF)[None]
    for lane in (-road_half / 2, road_half / 2):
        for track in (-0.8, 0.8):
            grey = grey + 6 * np.exp(-((x - lane - track) / 0.35) ** 2)
    grey = grey - 14 * np.exp(-((np.abs(x) - road_half) / 0.25) ** 2)
    warmth = np.float32(rng.uniform(-3, 4))
    return np.stack([grey + 4 - warmth, grey, grey - 4 + warmth], axis=-1)


def _slabs(rng, size):
    """Pavement of stone slabs with dark joints, float32 [size, size, 3]."""
    slab = int(0.6 * PPM)
    count = size // slab
    tone = np.kron(rng.normal(0, 5, (count, count)), np.ones((slab, slab)))
    grey = np.full((size, size), 92, np.float32)
    grey[:tone.shape[0], :tone.shape[1]] += tone
    grey += 6 * fractal_noise(rng, size, size, 200, 3) + 4 * smooth_noise(rng, size, size, 1)
    grey[::slab] -= 16
    grey[:, ::slab] -= 16
    return grey[..., None] * np.float32(rng.choice([[0.98, 1.0, 1.0], [0.9, 1.0, 1.07], [1.0, 1.0, 0.98]]))


def _base(rng, road_half, walk):
    """Return a bare tile and its labels: asphalt, kerb, pavement."""
    size = int(TILE * PPM)
    tile = _slabs(rng, size)
    labels = np.full((size, size), PAVEMENT, np.uint8)
    road = np.s_[:, _col(-road_half):_col(road_half)]
    tile[road] = _asphalt(rng, size, road_half)[road]
    labels[road] = ROAD
    for side in (-1, 1):
        edge = side * road_half
        kerb = np.s_[:, _col(min(edge, edge + side * 0.15)):_col(max(edge, edge + side * 0.15))]
        tile[kerb] = tile[kerb] * 0.4 + np.float32([82, 86, 88])
        back = np.s_[:, _col(road_half + walk):] if side > 0 else np.s_[:, :_col(-road_half - walk)]
        tile[back] *= 0.9
    return tile, labels


def _wear(rng, size):
    """How much of the road paint is left, float32 [size, size], 0 to 1."""
    return np.clip(0.78 + 0.14 * fractal_noise(rng, size, size, 60, 4), 0.2, 0.95)


def _mark_lanes(tile, worn, road_half, yellow, dashes=True):
    white = (205, 210, 212)
    if dashes:
        for start in np.arange(0, TILE, 6.0):
            _paint(tile, worn, -0.06, 0.06, start, start + 4.0, white)
    if yellow:
        for side in (-1, 1):
            for inset in (0.25, 0.45):
                x = side * (road_half - inset)
                _paint(tile, worn, x - 0.05, x + 0.05, 0, TILE, (70, 165, 185))


def _mark_worn(tile, labels, worn, rng, road_half):
    """Repair patches, a manhole and a few cracks."""
    for _ in range(3):
        x, z = rng.uniform(-road_half + 0.8, road_half - 1.8), rng.uniform(1, TILE - 7)
        area = np.s_[int(z * PPM):int((z + rng.uniform(1, 6)) * PPM), _col(x):_col(x + rng.uniform(0.6, 1.4))]
        tile[area] *= rng.uniform(0.78, 0.9)
    centre = (_col(rng.uniform(-2, 2)), int(rng.uniform(3, TILE - 3) * PPM))
    cv2.circle(tile, centre, int(0.3 * PPM), (58, 58, 58), -1, cv2.LINE_AA)
    cv2.circle(tile, centre, int(0.3 * PPM), (88, 88, 90), 2, cv2.LINE_AA)
    for _ in range(4):
        steps = np.cumsum(rng.normal(0, [0.25, 0.5], (14, 2)), axis=0) + [rng.uniform(-3, 3), rng.uniform(4, TILE - 4)]
        points = np.int32([[_col(np.clip(x, -road_half, road_half)), int(z * PPM)] for x, z in steps])
        cv2.polylines(tile, [points], False, (56, 54, 52), 1, cv2.LINE_AA)


def _mark_crossing(tile, labels, worn, rng, road_half):
    """A zebra crossing with give-way dashes before it."""
    for x in np.arange(-road_half + 0.35, road_half - 0.3, 1.0):
        _paint(tile, worn, x, x + 0.5, CROSSING_AT - 1.4, CROSSING_AT + 1.4, (208, 212, 214))
    for x in np.arange(-road_half + 0.3, 0, 0.6):
        _paint(tile, worn, x, x + 0.35, CROSSING_AT - 2.6, CROSSING_AT - 2.45, (205, 210, 212))
        _paint(tile, worn, -x - 0.35, -x, CROSSING_AT + 2.45, CROSSING_AT + 2.6, (205, 210, 212))


def _mark_junction(tile, labels, worn, rng, road_half):
    """A side road to the left and right, with give-way lines."""
    z0, z1 = JUNCTION_SPAN
    rows = np.s_[int((z0 + 0.6) * PPM):int((z1 - 0.6) * PPM)]
    mouth = _asphalt(rng, tile.shape[0], road_half)
    for cols in (np.s_[:_col(-road_half + 0.2)], np.s_[_col(road_half - 0.2):]):
        tile[rows, cols] = mouth[rows, cols]
        labels[rows, cols] = ROAD
    for side in (-1, 1):
        x = side * (road_half + 0.3)
        for z in np.arange(z0 + 0.8, z1 - 0.8, 0.75):
            _paint(tile, worn, x - 0.1, x + 0.1, z, z + 0.4, (205, 210, 212))


def _mark_words(tile, labels, worn, rng, road_half):
    """SLOW painted in the camera's lane, stretched as road lettering is."""
    text = str(rng.choice(['SLOW', 'BUS', '20', 'KEEP', '30']))
    glyphs = np.zeros((40, 200), np.uint8)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 5)
    cv2.putText(glyphs, text, (4, 34), cv2.FONT_HERSHEY_SIMPLEX, 1.1, 255, 5, cv2.LINE_AA)
    glyphs = cv2.resize(glyphs[:, :width + 8], (int(2.0 * PPM), int(3.2 * PPM)))[::-1]
    top, left = int(8 * PPM), _col(-road_half / 2 - 1.0)
    area = np.s_[top:top + glyphs.shape[0], left:left + glyphs.shape[1]]
    cover = (glyphs / 255.0 * worn[area])[..., None]
    tile[area] = tile[area] * (1 - cover) + np.float32([205, 210, 212]) * cover


def _shade(rng, size, light, road_half):
    """Return the light on the ground, uint8 [size, size, 3], 128 is unchanged: houses on the sunless side cast a shadow."""
    if light.sun_side == 0:
        return np.full((size, size, 3), 128, np.uint8)
    edge = light.sun_side * road_half * 0.15 + 0.5 * smooth_noise(rng, size, 2, 160)[:, :1]
    x = (np.arange(size, dtype=np.float32) / PPM - HALF)[None]
    sunny = np.clip(0.5 + (x - edge) * light.sun_side / 0.4, 0, 1)
    gain = 128 * (0.72 + 0.46 * sunny)
    cold = 0.05 * (1 - sunny)
    return cv2.merge([to_pixels(gain * (1 + cold)), to_pixels(gain), to_pixels(gain * (1 - cold))])


class Ground:
    """The street's ground, ready to be seen from any point of the street.

    `tile_of(chunk)` says which kind of tile (PLAIN, WORN, CROSSING, JUNCTION, WORDS) lies at each chunk of 24 m.
    """

    def __init__(self, rng, light, road_half, walk, tile_of):
        self._tile_of = tile_of
        colours, labels = self._tiles(rng, light, road_half, walk)
        self._labels = np.concatenate(labels)
        self._levels = []
        for _, rows, cols in _LEVELS:
            size = (colours[0].shape[1] // cols, colours[0].shape[0] // rows)
            self._levels.append(np.concatenate([cv2.resize(c, size, interpolation=cv2.INTER_AREA) for c in colours]))

    @staticmethod
    def _tiles(rng, light, road_half, walk):
        base, base_labels = _base(rng, road_half, walk)
        worn = _wear(rng, base.shape[0])
        shade = _shade(rng, base.shape[0], light, road_half)
        yellow = bool(rng.random() < 0.6)
        colours, labels = [], []
        marks = {PLAIN: None, WORN: _mark_worn, CROSSING: _mark_crossing, JUNCTION: _mark_junction, WORDS: _mark_words}
        for kind, mark in marks.items():
            tile, tile_labels = base.copy(), base_labels.copy()
            _mark_lanes(tile, worn, road_half, yellow and kind != JUNCTION, dashes=kind != CROSSING)
            if mark is not None:
                mark(tile, tile_labels, worn, rng, road_half)
            colours.append(lit_texture(cv2.multiply(to_pixels(tile), shade, scale=1 / 128), light.ground))
            labels.append(tile_labels)
        return colours, labels

    def draw(self, view, image, labels):
        """Fill every row below the horizon of `image` [H, W, 3] and `labels` [H, W]."""
        top = max(0, int(np.floor(view.horizon)) + 1)
        rows = np.arange(top, image.shape[0], dtype=np.float32)
        if not len(rows):
            return
        distance = np.minimum(view.eye[1] * view.focal / np.maximum(rows - view.horizon, 0.3), 400.0)
        across = np.arange(image.shape[1], dtype=np.float32) - view.centre
        x = across[None] * (distance / view.focal)[:, None] + np.float32(view.eye[0])
        column = np.clip((x + HALF) * PPM - 0.5, 0, 2 * HALF * PPM - 1)
        along, tile = self._along(view.eye[2] + distance.astype(np.float64))
        self._draw_labels(labels[top:], column, along, tile)
        self._draw_colours(view, image[top:], distance, column, along, tile)

    def _along(self, z):
        """Return, per row, the position within its tile (metres) and the index of that tile in the texture."""
        chunk = np.floor(z / TILE).astype(int)
        chunks, which = np.unique(chunk, return_inverse=True)
        kinds = np.float32([self._tile_of(int(c)) for c in chunks])
        return (z - chunk * TILE).astype(np.float32), kinds[which]

    def _draw_labels(self, labels, column, along, tile):
        row = np.minimum(along * PPM, TILE * PPM - 1).astype(np.intp) + (tile * TILE * PPM).astype(np.intp)
        cv2.remap(self._labels, column, np.broadcast_to(row.astype(np.float32)[:, None], column.shape).copy(),
                  cv2.INTER_NEAREST, dst=labels)

    def _draw_colours(self, view, image, distance, column, along, tile):
        starts = [level[0] for level in _LEVELS[1:]]
        level_of = np.searchsorted(starts, distance, side='right')
        for level, (_, pool_z, pool_x) in enumerate(_LEVELS):
            band = np.flatnonzero(level_of == level)
            if not len(band):
                continue
            band = slice(band[0], band[-1] + 1)
            rows = TILE * PPM / pool_z
            row = np.clip(along[band] * PPM / pool_z - 0.5, 0, rows - 1) + tile[band] * rows
            map_y = np.broadcast_to(row.astype(np.float32)[:, None], column[band].shape).copy()
            map_x = (column[band] + 0.5) / pool_x - 0.5 if pool_x > 1 else column[band]
            cv2.remap(self._levels[level], map_x, map_y, cv2.INTER_LINEAR, dst=image[band], borderMode=cv2.BORDER_REPLICATE)
        self._haze(view, image, distance)

    @staticmethod
    def _haze(view, image, distance):
        far = np.flatnonzero(distance > 10.0)
        if not len(far):
            return
        far = slice(far[0], far[-1] + 1)
        clear = np.rint(255 * np.exp(-distance[far] / np.float32(view.light.haze_length))).astype(np.uint8)[:, None, None]
        glow = ((255 - clear) * (np.float32(view.light.haze) / 255)).astype(np.uint8)
        rows = image[far]
        np.add(cv2.multiply(rows, np.repeat(np.repeat(clear, 3, 2), rows.shape[1], 1), scale=1 / 255), glow, out=rows)
