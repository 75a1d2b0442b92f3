"""Road, markings and pavement as one long texture, seen through the camera's perspective."""

from collections.abc import Callable

import cv2
import numpy as np

from .drawing import Canvas, Floats, Label
from .textures import Light, noise, to_pixels

TILE = 24.0         # length of one ground tile and of one chunk of the street, metres
_PPM = 40           # texture pixels per metre
_HALF = 12.0        # metres from the middle of the road that the texture reaches; beyond it the edge repeats
_SIZE = int(TILE * _PPM)
# Distant rows see metres of road each. Copies averaged along the road keep markings from flickering there:
# (from this distance on, metres; rows averaged; columns averaged).
_LEVELS = ((0.0, 1, 1), (8.0, 4, 1), (16.0, 16, 2), (32.0, 64, 4), (64.0, 240, 8))
_WHITE, _YELLOW = (205, 210, 212), (70, 165, 185)


class Ground:
    """The ground of an endless street, in tiles with or without a zebra crossing; the road is 2 half metres wide."""

    def __init__(self, rng: np.random.Generator, light: Light, half: float, crosses: Callable[[int], bool]) -> None:
        self._road_half, self._crosses = half, crosses
        x = ((np.arange(_SIZE, dtype=np.float32) + 0.5) / _PPM - _HALF)[None, :, None]      # metres
        # Houses on the sunless side cast a shadow, which is bluer.
        edge = light.sun_side * half * 0.15 + 0.5 * noise(rng, _SIZE, 2, 160)[:, :1, None]
        sunny = np.clip(0.5 + (x - edge) * light.sun_side / 0.4, 0, 1)
        bright = (0.72 + 0.46 * sunny if light.sun_side else 1.15 * light.lit[1]) * (1 + (1 - sunny) * (0.05, 0, -0.05))
        worn = np.clip(0.78 + 0.14 * noise(rng, _SIZE, _SIZE, 60, 4), 0.2, 0.95)[..., None]     # what is left of paint
        lines = [(-0.06, 0.06, z, z + 4, _WHITE) for z in np.arange(0, TILE, 6)]
        lines += [(x0, x0 + 0.1, 0, TILE, _YELLOW) for x0 in (0.25 - half, 0.45 - half)] * int(rng.integers(2))
        stripes = [(x0, x0 + 0.5, 10.6, 13.4, _WHITE) for x0 in np.arange(0.35 - half, half - 0.3, 1.0)]
        tiles, bare = [], _bare(rng, x, half)
        for rectangles in (lines, stripes):
            tile = bare.copy()
            for x0, x1, z0, z1, colour in rectangles:
                area = np.s_[int(z0 * _PPM):int(z1 * _PPM), round((x0 + _HALF) * _PPM):round((x1 + _HALF) * _PPM)]
                tile[area] += (np.asarray(colour, np.float32) - tile[area]) * worn[area]
            tiles.append(to_pixels(tile * bright))
        self._levels = [np.concatenate([cv2.resize(tile, (_SIZE // cols, _SIZE // rows), interpolation=cv2.INTER_AREA)
                                        for tile in tiles]) for _, rows, cols in _LEVELS]

    def draw(self, canvas: Canvas) -> None:
        """Fill every row below the horizon."""
        top = max(0, int(np.floor(canvas.horizon)) + 1)
        image, rows = canvas.image[top:], np.arange(top, len(canvas.image), dtype=np.float32)
        distance = np.minimum(canvas.eye[1] * canvas.focal / np.maximum(rows - canvas.horizon, 0.3), 400.0)
        across = np.arange(image.shape[1], dtype=np.float32) - np.float32(canvas.centre)
        x = across[None] * (distance / canvas.focal)[:, None] + np.float32(canvas.eye[0])
        canvas.labels[top:] = np.where(np.abs(x) < self._road_half, np.uint8(Label.ROAD), np.uint8(Label.PAVEMENT))
        z = canvas.eye[2] + distance.astype(np.float64)
        chunk = np.floor(z / TILE).astype(int)
        along, tile = z - chunk * TILE, np.array([self._crosses(int(c)) for c in chunk])
        level_of = np.searchsorted([start for start, _, _ in _LEVELS[1:]], distance, side='right')
        for level in np.unique(level_of):
            found, (_, pool_z, pool_x) = np.flatnonzero(level_of == level), _LEVELS[level]
            band, length = slice(found[0], found[-1] + 1), _SIZE // pool_z
            row = np.clip(along[band] * _PPM / pool_z - 0.5, 0, length - 1) + tile[band] * length
            map_x = (x[band] + np.float32(_HALF)) * np.float32(_PPM / pool_x) - np.float32(0.5)
            map_y = np.repeat(row.astype(np.float32)[:, None], map_x.shape[1], 1)
            cv2.remap(self._levels[level], map_x, map_y, cv2.INTER_LINEAR, image[band], cv2.BORDER_REPLICATE)


def _bare(rng: np.random.Generator, x: Floats, road_half: float) -> Floats:
    """Return asphalt between kerbs and slabs, float32 [size, size, 3]; rows go along the street."""
    def mirrored(cell: float, octaves: int = 1) -> Floats:      # so that one tile follows another without a seam
        half = noise(rng, _SIZE // 2, _SIZE, cell, octaves)[..., None]
        return np.concatenate([half, half[::-1]])

    beside = np.abs(x) - np.float32(road_half)
    tracks = np.exp(-((np.abs(np.abs(x) - road_half / 2) - 0.8) / 0.35) ** 2)       # tyres polish the lanes
    asphalt = 90 + 5 * mirrored(320, 4) + 6 * mirrored(1) + 6 * tracks - 14 * np.exp(-(beside / 0.25) ** 2)
    slabs = np.kron(rng.normal(92, 5, (_SIZE // 24, _SIZE // 24)), np.ones((24, 24))).astype(np.float32)[..., None]
    slabs += 6 * mirrored(200, 3) + 4 * mirrored(1)
    slabs[::24] -= 16
    slabs[:, ::24] -= 16
    road, pavement = asphalt + np.array([2, 0, -2], np.float32), slabs * np.array([0.96, 1, 1.02], np.float32)
    return np.where(beside < 0, road, np.where(beside < 0.15, pavement * 0.4 + np.float32(85), pavement))
