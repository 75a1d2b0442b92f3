"""Tileable random fields, the raw material of every texture."""

import cv2
import numpy as np


def smooth_noise(rng, height, width, cell):
    """Return float32 [height, width] noise, mean about 0, standard deviation 1, with blobs of about `cell` pixels.

    It repeats without a seam in both directions, so a texture made of it can be tiled.
    """
    return fractal_noise(rng, height, width, cell, octaves=1)


def fractal_noise(rng, height, width, cell, octaves=4, gain=0.6):
    """Return float32 [height, width] as `smooth_noise` does, with `octaves` layers, each half as coarse as the one before.

    `cell` is the coarsest blob in pixels; `gain` (0 to 1) is the weight of each finer layer.
    """
    total = None
    for octave in range(octaves):
        size = cell / 2 ** octave
        if size < 1:
            break
        rows, cols = (max(2, round(length / size)) if size > 1 else length for length in (height, width))
        layer = gain ** octave * rng.standard_normal((rows, cols), dtype=np.float32)
        # Each layer is added at its own resolution: only the last one is ever enlarged to the full size.
        total = layer if total is None else _enlarged(total, rows, cols) + layer
    total = _enlarged(total, height, width)
    return total / max(float(total.std()), 1e-6)


def _enlarged(grid, height, width):
    """Interpolate a float32 grid to [height, width], as if it repeated in both directions."""
    if grid.shape == (height, width):
        return grid
    rows, cols = grid.shape
    scale_y, scale_x = height / rows, width / cols
    size = round((cols + 4) * scale_x), round((rows + 4) * scale_y)
    field = cv2.resize(np.pad(grid, 2, mode='wrap'), size, interpolation=cv2.INTER_CUBIC)
    top, left = round(2 * scale_y), round(2 * scale_x)
    return field[top:top + height, left:left + width]


def to_pixels(field):
    """Clip a float array to uint8 0 to 255."""
    return np.clip(field, 0, 255).astype(np.uint8)
