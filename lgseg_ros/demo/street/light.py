"""Time of day and weather: one set of colours that every texture of a street is lit with."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Light:
    """Colours are BGR triples; the three tints multiply a texture's own colour (1 is unchanged)."""

    sky_top: tuple
    sky_horizon: tuple
    cloud_colour: tuple
    cloud_cover: float          # 0 clear to 1 closed
    sun_side: int               # which side of the street the sun falls on: -1 left, 1 right, 0 no sun
    lit: tuple                  # surfaces in the sun
    shade: tuple                # surfaces turned away from it
    front: tuple                # surfaces that face the camera
    ground: tuple
    haze: tuple                 # colour that distant things fade to
    haze_length: float          # metres after which 63 % is haze
    noise: float                # standard deviation of the sensor's noise, grey levels

    def wall(self, side):
        """Return the tint of a wall on `side` (-1 left, 1 right) of the street."""
        if self.sun_side == 0:
            return self.front
        return self.lit if side == self.sun_side else self.shade


def _bright(rng):
    """Low winter sun: the sky is burnt out to white, walls in the shade are nearly black."""
    side = int(rng.choice((-1, 1)))
    return Light((254, 252, 246), (255, 255, 253), (255, 255, 255), 0.3, side, (1.0, 1.08, 1.12), (0.56, 0.52, 0.49),
                 (0.62, 0.60, 0.58), (1.02, 1.0, 0.98), (238, 234, 230), 330.0, 2.5)


def _blue(rng):
    """Sun behind the camera's shoulder, pale blue sky that whitens towards the horizon."""
    side = int(rng.choice((-1, 1)))
    return Light((244, 220, 190), (252, 249, 244), (255, 255, 255), 0.45, side, (1.05, 1.16, 1.22), (0.64, 0.58, 0.53),
                 (0.92, 0.94, 0.95), (1.02, 1.0, 0.97), (240, 230, 216), 420.0, 2.0)


def _overcast(rng):
    """Closed cloud: soft light from everywhere."""
    grey = float(rng.uniform(200, 235))
    return Light((grey, grey - 3, grey - 8), (grey + 18, grey + 17, grey + 14), (grey - 35, grey - 38, grey - 42), 0.8, 0,
                 (0.85, 0.85, 0.85), (0.8, 0.8, 0.8), (0.84, 0.82, 0.80), (0.98, 0.95, 0.93), (218, 214, 208), 260.0, 3.0)


def _dusk(rng):
    """Late afternoon under dark cloud with a lighter horizon."""
    return Light((132, 124, 114), (208, 200, 190), (92, 86, 78), 0.7, 0, (0.56, 0.54, 0.52), (0.5, 0.48, 0.46),
                 (0.53, 0.51, 0.49), (0.64, 0.61, 0.59), (150, 144, 136), 380.0, 3.5)


def light_of(rng):
    """Draw one of four kinds of daylight; bright ones are likelier, as in daytime driving video."""
    kind = rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))
    return (_bright, _blue, _overcast, _dusk)[int(kind)](rng)


def lit_texture(bgr, tint):
    """Multiply a uint8 [H, W, 3] texture by a BGR tint and return uint8."""
    table = np.clip(np.arange(256, dtype=np.float32)[:, None, None] * np.float32(tint), 0, 255).astype(np.uint8)
    return cv2.LUT(bgr, table.reshape(256, 1, 3))
