"""From camera frames to the network's input size and back, with OpenCV's SIMD code."""

from typing import NamedTuple

import cv2
import numpy as np

TO_RGB = {'bgr': cv2.COLOR_BGR2RGB, 'bgra': cv2.COLOR_BGRA2RGB, 'rgba': cv2.COLOR_RGBA2RGB,
          'mono': cv2.COLOR_GRAY2RGB, 'rgb': None}
STEP = 8          # network sizes are multiples of this
SMALLEST = 64     # pixels a side; below, the deepest map has nothing left to see
DEFAULT_PIXELS = 480 * 360
ALL_PIXELS = 2 ** 31   # in place of a limit: no picture is shrunk


def check_numbers(pixels, num_threads=0):
    """Raise ValueError for network pixels or threads that cannot be; names the option of the command line."""
    if pixels < SMALLEST ** 2:
        raise ValueError(f'--max-inference-pixels is {pixels}; give at least {SMALLEST ** 2}')
    if num_threads < 0:
        raise ValueError(f'--num-threads is {num_threads}; give 1 or more, or 0 for all cores')


class Frame(NamedTuple):
    """pixels: uint8 [H, W, C] or [H, W]; order: bgr, rgb, bgra, rgba or mono."""

    pixels: np.ndarray
    order: str


class Mask(NamedTuple):
    """ids: uint8 [H, W], 255 unlabelled; confidence: uint8 [H, W], 255 is probability 1."""

    ids: np.ndarray
    confidence: np.ndarray


def network_size(height, width, pixels=DEFAULT_PIXELS):
    """(height, width) for the network: the frame's shape at about `pixels` in all, never enlarged much.

    Keeps the aspect ratio as far as multiples of `STEP` allow.
    """
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return tuple(max(SMALLEST, round(side * scale / STEP) * STEP) for side in (height, width))


def to_network(frame, size):
    """A camera frame as contiguous RGB uint8 [size[0], size[1], 3].

    Shrinks before converting, so that the colour conversion touches the small picture only.
    """
    pixels = frame.pixels
    if pixels.shape[:2] != tuple(size):
        pixels = cv2.resize(pixels, size[::-1], interpolation=_interpolation(pixels.shape, size))
    code = TO_RGB[frame.order]
    return np.ascontiguousarray(pixels) if code is None else cv2.cvtColor(pixels, code)


def _interpolation(shape, size):
    # Averaging keeps thin poles that sampling four neighbours would skip; its cost is only
    # worth it when the picture shrinks by more than two.
    return cv2.INTER_AREA if shape[0] > 2 * size[0] else cv2.INTER_LINEAR


def to_output(ids, confidence, size):
    """Mask bytes at (height, width) `size`: ids by nearest neighbour, never mixed."""
    if ids.shape == tuple(size):
        return Mask(ids, confidence)
    return Mask(cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST),
                cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR))
