"""Trees and hedges as cut-out pictures."""

import cv2
import numpy as np

from .noise import fractal_noise, smooth_noise

HEIGHT, WIDTH = 512, 416


def _grow(rng, canvas, base, angle, length, thickness, depth):
    """Draw a branch and what grows out of it; angle in radians from straight up."""
    end = base + length * np.array([np.sin(angle), -np.cos(angle)])
    colour = tuple(float(v) for v in np.float32([44, 52, 58]) * rng.uniform(0.75, 1.25)) + (255.0,)
    start_px, end_px = np.int32(base * 16), np.int32(end * 16)
    cv2.line(canvas, tuple(start_px.tolist()), tuple(end_px.tolist()), colour, max(1, round(thickness)), cv2.LINE_AA, 4)
    if depth == 0:
        return
    for _ in range(3 if depth > 1 else 4):
        where = base + (end - base) * rng.uniform(0.55, 1.0)
        _grow(rng, canvas, where, angle + rng.normal(0, 0.52), length * rng.uniform(0.55, 0.82), thickness * 0.58, depth - 1)


def _skeleton(rng, depth):
    canvas = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    base = np.array([WIDTH / 2, HEIGHT - 1.0])
    _grow(rng, canvas, base, rng.normal(0, 0.04), HEIGHT * 0.30, rng.uniform(11, 16), depth)
    return canvas


def bare_tree(rng):
    """Return a leafless tree: uint8 [H, W, 4] BGRA, and the uint8 [H, W] mask of its trunk and crown."""
    canvas = _skeleton(rng, 6)
    crown = cv2.morphologyEx(canvas[..., 3], cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (25, 25)))
    return canvas, np.where(crown > 90, 255, 0).astype(np.uint8)


def leafy_tree(rng):
    """Return a tree in leaf, as `bare_tree` does."""
    canvas = _skeleton(rng, 3)
    tall, wide = int(HEIGHT * 0.74), WIDTH
    rows, cols = np.mgrid[:tall, :wide].astype(np.float32)
    radius = np.hypot((cols - wide / 2) / (wide * 0.40), (rows - tall * 0.5) / (tall * 0.43))
    lumps = fractal_noise(rng, tall, wide, 110, 3)
    leaves = smooth_noise(rng, tall, wide, 4) + 0.6 * smooth_noise(rng, tall, wide, 2)
    inside = 1.0 - radius + 0.16 * lumps
    alpha = np.clip((inside + 0.07 * leaves) * 14, 0, 1)
    alpha *= np.clip(2.4 + inside * 6 + leaves, 0, 1)
    light = 0.62 + 0.28 * (0.5 - rows / tall) + 0.15 * lumps + 0.17 * leaves
    colour = np.float32(((44, 84, 74), (34, 66, 52), (40, 92, 96), (36, 60, 46))[rng.integers(4)]) * 1.25
    crown = canvas[:tall]
    weight = alpha[..., None]
    crown[..., :3] = np.clip(crown[..., :3] * (1 - weight) + colour * light[..., None] * weight, 0, 255)
    crown[..., 3] = np.maximum(crown[..., 3], alpha * 255)
    extent = cv2.morphologyEx(canvas[..., 3], cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    return canvas, extent


def hedge(rng):
    """Return a clipped hedge as a wall texture, uint8 [H, W, 3]."""
    height, width = 96, 384
    tone = 0.8 + 0.2 * fractal_noise(rng, height, width, 40, 4) + 0.2 * smooth_noise(rng, height, width, 3)
    tone *= np.linspace(1.25, 0.6, height, dtype=np.float32)[:, None]
    return np.clip(np.float32([40, 74, 62]) * tone[..., None], 0, 255).astype(np.uint8)
