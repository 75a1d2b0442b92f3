"""Photometric and geometric augmentation of an image with its labels."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.label_values import OUTSIDE

Image = npt.NDArray[np.uint8]
View = tuple[Image, Image]   # an image, RGB [h, w, 3], and its labels [h, w]


def augment(image: Image, label: Image, size: tuple[int, int], rng: np.random.Generator,
            scales: tuple[float, float] = (0.6, 1.9)) -> View:
    """Scale, flip, crop and recolour at random.

    Args:
        image: RGB, uint8 [H, W, 3].
        label: uint8 [H, W].
        size: (height, width) of the crop in pixels.
        rng: source of all random choices.
        scales: smallest and largest factor.

    Returns:
        Image and labels of `size`; pixels beyond the edge of the image are labelled `OUTSIDE`.
    """
    image, label = _crop(image, label, size, rng, scales)
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return _recolor(np.ascontiguousarray(image), rng), np.ascontiguousarray(label)


def copy_paste(view: View, other: View, classes: npt.NDArray[np.int64], probability: float,
               rng: np.random.Generator) -> View:
    """Paste objects of rare classes from another view, so that they are seen more often and in front of other things.

    Args:
        view: what is pasted to.
        other: what is copied from, of the same size.
        classes: class indices, int64 [N], each of which is chosen with `probability`.
        probability: 0 to 1.
        rng: source of all random choices.

    Returns:
        A new view.
    """
    chosen = classes[rng.random(len(classes)) < probability]
    (image, label), (other_image, other_label) = view, other
    objects = np.isin(other_label, chosen)
    return np.where(objects[..., None], other_image, image), np.where(objects, other_label, label)


def _crop(image: Image, label: Image, size: tuple[int, int], rng: np.random.Generator,
          scales: tuple[float, float]) -> View:
    height, width = label.shape
    scale = np.exp(rng.uniform(*np.log(scales)))
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    scale_x, scale_y = scale * stretch, scale / stretch
    x = _offset(width * scale_x, size[1], rng)
    y = _offset(height * scale_y, size[0], rng)
    matrix = np.array([[scale_x, 0, -x], [0, scale_y, -y]], np.float32)
    if scale < 1:  # without a blur before shrinking, thin objects flicker
        image = _uint8(cv2.GaussianBlur(image, (0, 0), 0.35 / scale))
    moved = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(127, 127, 127))
    moved_label = cv2.warpAffine(label, matrix, size[::-1], flags=cv2.INTER_NEAREST, borderValue=OUTSIDE)
    return _uint8(moved), _uint8(moved_label)


def _uint8(array: npt.NDArray[Any]) -> Image:
    """The same array; OpenCV's types do not say that it keeps the dtype."""
    return np.asarray(array, np.uint8)


def _offset(length: float, size: int, rng: np.random.Generator) -> float:
    """Where the crop starts; negative when the image is smaller than the crop."""
    low, high = sorted((0.0, length - size))
    return rng.uniform(low, high)


def _recolor(image: Image, rng: np.random.Generator) -> Image:
    """Saturation, contrast, brightness, white balance and gamma; sometimes blur and noise.  RGB uint8 in and out."""
    saturation, contrast, brightness = rng.uniform(0.5, 1.5), rng.uniform(0.7, 1.35), rng.uniform(-35, 35)
    balance = rng.uniform(0.9, 1.1, size=(3, 1))
    # All four are linear: one 3x4 matrix costs a tenth of as many passes in floats.
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    offset = np.full((3, 1), 127 - 127 * contrast + brightness)
    image = _uint8(cv2.transform(image, balance * np.hstack([mix, offset])))
    if rng.random() < 0.5:
        gamma = np.exp(rng.uniform(-0.4, 0.4))
        image = _uint8(cv2.LUT(image, (255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)))
    if rng.random() < 0.2:
        image = _uint8(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2)))
    if rng.random() < 0.2:
        noise = rng.uniform(2, 8) * rng.standard_normal(image.shape, dtype=np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
