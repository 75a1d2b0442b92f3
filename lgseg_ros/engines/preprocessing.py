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
    rows, columns = (max(SMALLEST, round(side * scale / STEP) * STEP) for side in (height, width))
    return rows, columns


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
        method = cv2.INTER_AREA if uses_area(pixels.shape[0], size[0]) else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, size[::-1], interpolation=method), np.uint8)
    code = TO_RGB[frame.order]
    return np.ascontiguousarray(pixels) if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def uses_area(source_height: int, target_height: int) -> bool:
    """Return whether an image is downsampled by averaging areas rather than bilinearly.

    Averaging keeps thin poles that sampling of four neighbours would miss. It is only worth its time if the image
    shrinks to less than half.
    """
    return source_height > 2 * target_height


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


# --- the same with matrices, for GPUs: resized = vertical @ image @ horizontal.T


def linear_matrix(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return a matrix that resizes one axis bilinearly with aligned pixel centres, as cv2.INTER_LINEAR.

    Args:
        source: length of the axis in pixels.
        target: length after resizing.

    Returns:
        float32 [target, source].
    """
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    fraction = (position - low).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - fraction
    matrix[np.arange(target), np.minimum(low + 1, source - 1)] += fraction
    return matrix


def area_matrix(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return a matrix that averages what each pixel covers, as cv2.INTER_AREA.

    Args:
        source: length of the axis in pixels.
        target: length after resizing, at most `source`.

    Returns:
        float32 [target, source].
    """
    edges = np.arange(target + 1) * source / target
    cells = np.arange(source)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(covered, 0, None) * target / source, np.float32)


def shrinking_matrices(source: Size, target: Size) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the (vertical, horizontal) matrices that resize an image as `to_network` does.

    Args:
        source: (height, width) of the image.
        target: (height, width) after resizing.
    """
    averaged = uses_area(source[0], target[0])
    vertical, horizontal = (area_matrix(a, b) if averaged and a >= b else linear_matrix(a, b)
                            for a, b in zip(source, target, strict=True))
    return vertical, horizontal


def nearest_indices(source: int, target: int) -> npt.NDArray[np.int64]:
    """Return the pixels that cv2.INTER_NEAREST takes along one axis, int64 [target], 0 to source - 1."""
    return np.minimum(np.arange(target) * source // target, source - 1)
