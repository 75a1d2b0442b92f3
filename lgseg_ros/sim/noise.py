"""Tileable random fields, the raw material of every texture."""

import cv2
import numpy as np


def smooth_noise(rng, height, width, cell):
    """Return float32 [height, width] noise, mean 0, standard deviation 1, with blobs of about `cell` pixels.

    It repeats without a seam in both directions, so a texture made of it can be tiled.
    """
    rows, cols = max(2, round(height / cell)), max(2, round(width / cell))
    if rows >= height and cols >= width:
        return rng.standard_normal((height, width), dtype=np.float32)
    grid = np.pad(rng.standard_normal((rows, cols), dtype=np.float32), 2, mode='wrap')
    scale_y, scale_x = height / rows, width / cols
    field = cv2.resize(grid, (round((cols + 4) * scale_x), round((rows + 4) * scale_y)), interpolation=cv2.INTER_CUBIC)
    top, left = round(2 * scale_y), round(2 * scale_x)
    field = field[top:top + height, left:left + width]
    return field / max(float(field.std()), 1e-6)


def fractal_noise(rng, height, width, cell, octaves=4, gain=0.6):
    """Return float32 [height, width], mean about 0, standard deviation 1: `octaves` layers, each half as coarse.

    `cell` is the coarsest blob in pixels; `gain` (0 to 1) is the weight of each finer layer.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = cell / 2 ** octave
        if size < 1:
            break
        total += gain ** octave * smooth_noise(rng, height, width, size)
    return total / max(float(total.std()), 1e-6)


def to_pixels(field):
    """Clip a float array to uint8 0 to 255."""
    return np.clip(field, 0, 255).astype(np.uint8)
