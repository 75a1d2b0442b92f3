"""Resize camera images to the network's input and masks back, with OpenCV's SIMD code."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Size = tuple[int, int]
"""(height, width) in pixels."""
TO_RGB = {'bgr': cv2.COLOR_BGR2RGB, 'bgra': cv2.COLOR_BGRA2RGB, 'rgba': cv2.COLOR_RGBA2RGB,
          'mono': cv2.COLOR_GRAY2RGB, 'rgb': None}
"""OpenCV's conversion for each channel order of a `Frame`; None needs none."""
STEP = 8
"""Height and width of the network's image are multiples of this."""
SMALLEST = 64
"""Smallest height and width of the network's image; below, its deepest feature map has no context left."""
DEFAULT_PIXELS = 480 * 360
"""Pixels of the network's image by default."""
ALL_PIXELS = 2 ** 31
"""In place of a limit: no image is downsampled."""


class Frame(NamedTuple):
    """A camera image.

    Attributes:
        pixels: uint8 [H, W, C], or [H, W] for 'mono'.
        order: of the channels: 'bgr', 'rgb', 'bgra', 'rgba' or 'mono'.
    """

    pixels: npt.NDArray[np.uint8]
    order: str


class Mask(NamedTuple):
    """The segmentation of an image.

    Attributes:
        ids: class ids, uint8 [H, W], 0 to 254, 255 where unlabelled.
        confidence: uint8 [H, W], 255 is probability 1.
    """

    ids: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8]


def network_size(height: int, width: int, pixels: int = DEFAULT_PIXELS) -> Size:
    """Return the size at which the network sees an image: about `pixels`, with the aspect ratio of the image.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        pixels: limit for height times width; smaller images are not enlarged.

    Returns:
        (height, width), multiples of `STEP` and at least `SMALLEST`.
    """
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    network_height, network_width = (max(SMALLEST, round(side * scale / STEP) * STEP) for side in (height, width))
    return network_height, network_width


def to_network(frame: Frame, size: Size) -> npt.NDArray[np.uint8]:
    """Convert a camera image to the network's input.

    Args:
        frame: the camera image.
        size: (height, width) of the result.

    Returns:
        RGB, uint8 [*size, 3], contiguous.
    """
    pixels = frame.pixels
    if pixels.shape[:2] != tuple(size):
        # Before the colour conversion, which then touches the small image only.
        pixels = np.asarray(cv2.resize(pixels, size[::-1], interpolation=_interpolation(pixels.shape, size)), np.uint8)
    code = TO_RGB[frame.order]
    return np.ascontiguousarray(pixels) if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _interpolation(shape: tuple[int, ...], size: Size) -> int:
    # Averaging keeps thin poles that sampling of four neighbours would miss. It is only worth its time if the image
    # shrinks to less than half.
    return cv2.INTER_AREA if shape[0] > 2 * size[0] else cv2.INTER_LINEAR


def to_output(ids: npt.NDArray[np.uint8], confidence: npt.NDArray[Any], size: Size) -> Mask:
    """Resize the network's result.

    Args:
        ids: class ids, uint8 [h, w]; resized by nearest neighbour, so that ids are never mixed.
        confidence: [h, w], of any dtype that OpenCV resizes; bilinearly resized.
        size: (height, width) of the mask.

    Returns:
        Arrays [*size] of the dtypes given.
    """
    if ids.shape == tuple(size):
        return Mask(ids, confidence)
    return Mask(np.asarray(cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8),
                np.asarray(cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR)))
