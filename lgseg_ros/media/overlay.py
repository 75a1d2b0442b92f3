"""Visualization of a mask: a colour per class name, and the mask blended over the image with a legend."""

import hashlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.label_values import UNLABELLED

KNOWN_COLOURS = {
    'road': (128, 64, 128), 'street': (128, 64, 128), 'pavement': (244, 35, 232), 'sidewalk': (244, 35, 232),
    'building': (90, 90, 90), 'house': (90, 90, 90), 'wall': (102, 102, 156), 'fence': (190, 153, 153),
    'pole': (255, 170, 90), 'traffic light': (250, 170, 30), 'sign': (220, 220, 0), 'traffic sign': (220, 220, 0),
    'tree': (107, 142, 35), 'vegetation': (107, 142, 35), 'grass': (152, 251, 152), 'terrain': (152, 251, 152),
    'sky': (70, 130, 180), 'person': (220, 20, 60), 'pedestrian': (220, 20, 60), 'rider': (255, 0, 0),
    'cyclist': (255, 80, 0), 'bicyclist': (255, 80, 0), 'car': (0, 0, 190), 'vehicle': (0, 0, 190),
    'truck': (0, 0, 90), 'bus': (0, 60, 100), 'train': (0, 80, 100), 'motorcycle': (0, 0, 230),
    'bicycle': (119, 11, 32),
}
"""RGB by class name; those of Cityscapes where it has the class."""


def colour_of(name: str) -> tuple[int, int, int]:
    """Return the colour of a class.

    Args:
        name: class name; upper and lower case are the same for known names.

    Returns:
        BGR, 0 to 255. Known names have the usual colours, others one from a hash of the name.
    """
    known = KNOWN_COLOURS.get(name.lower())
    if known:
        return known[2], known[1], known[0]
    digest = hashlib.sha256(name.encode()).digest()
    hsv = np.array([[[digest[0] * 180 // 256, 140 + digest[1] % 116, 150 + digest[2] % 106]]], np.uint8)
    blue, green, red = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def colour_table(names: Iterable[str], class_ids: Iterable[int]) -> npt.NDArray[np.uint8]:
    """Build the look-up table from class id to colour.

    Args:
        names: class names.
        class_ids: their ids, 0 to 254, in the same order.

    Returns:
        uint8 [1, 256, 3], BGR; ids without a class, and 255, are black.
    """
    table = np.zeros((1, 256, 3), np.uint8)
    for name, class_id in zip(names, class_ids, strict=True):
        table[0, class_id] = colour_of(name)
    return table


def draw_overlay(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], names: Sequence[str],
                 class_ids: Sequence[int], alpha: float = 0.5, legend: bool = True) -> npt.NDArray[np.uint8]:
    """Blend a mask over an image. Unlabelled pixels (255) keep the colour of the image.

    Args:
        image: BGR, uint8 [H, W, 3].
        mask: class ids, uint8 [H, W] or of another size, which is scaled by nearest neighbour.
        names: class names of the vocabulary.
        class_ids: their ids, in the same order.
        alpha: opacity of the classes, 0 to 1.
        legend: draw the names of the classes in view down the left edge.

    Returns:
        A new image, BGR, uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    colours = cv2.LUT(cv2.merge([mask] * 3), colour_table(names, class_ids))
    drawn = cv2.addWeighted(colours, alpha, image, 1 - alpha, 0).astype(np.uint8, copy=False)
    cv2.copyTo(image, (mask == UNLABELLED).view(np.uint8), drawn)
    if legend:
        counts = np.bincount(mask[::4, ::4].ravel(), minlength=256)
        by_share = sorted(zip(class_ids, names, strict=True), key=lambda entry: -counts[entry[0]])
        _draw_legend(drawn, [name for class_id, name in by_share if counts[class_id]])
    return drawn


def _draw_legend(image: npt.NDArray[np.uint8], names: list[str]) -> None:
    """Draw colour keys of these classes down the left edge, as many as fit."""
    scale = max(image.shape[0] / 480, 0.6)
    line, size = int(18 * scale), int(12 * scale)
    for row, name in enumerate(names[:int(image.shape[0] / line) - 1]):
        y = int(6 * scale) + row * line
        cv2.rectangle(image, (size // 2, y), (size // 2 + size, y + size), colour_of(name), -1)
        cv2.rectangle(image, (size // 2, y), (size // 2 + size, y + size), (255, 255, 255), 1)
        # OpenCV's fonts hold ASCII only.
        text = name if name.isascii() else name.encode('ascii', 'replace').decode()
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(image, text, (size * 2, y + size - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.42 * scale, colour,
                        thickness, cv2.LINE_AA)
