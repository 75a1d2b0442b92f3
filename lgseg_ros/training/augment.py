"""Photometric and geometric augmentation of one picture and its labels."""

import cv2
import numpy as np

OUTSIDE = 254   # the label beyond the picture's edge, which is not the same as what nobody labelled


def augment(image, label, size, rng, scales=(0.6, 1.9)):
    """A random scaled, flipped, cropped and recoloured view.

    image: RGB uint8 [H, W, 3]; label: uint8 [H, W]; size: (height, width) of the crop;
    scales: smallest and largest.
    Returns the same two at `size`; what lies outside the picture is labelled `OUTSIDE`.
    """
    image, label = _crop(image, label, size, rng, scales)
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return _recolour(np.ascontiguousarray(image), rng), np.ascontiguousarray(label)


def paste(view, other, classes, chance, rng):
    """The view with things of another one in front of it: rare classes are seen more often, and before other things.

    view, other: (image, label) of one size, as `augment` gives them; classes: [N] class indices, of which each is
    taken with `chance`.  Returns a new (image, label).
    """
    chosen = classes[rng.random(len(classes)) < chance]
    (image, label), (their_image, their_label) = view, other
    things = np.isin(their_label, chosen)
    return np.where(things[..., None], their_image, image), np.where(things, their_label, label)


def _crop(image, label, size, rng, scales):
    height, width = label.shape
    scale = np.exp(rng.uniform(*np.log(scales)))
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    scale_x, scale_y = scale * stretch, scale / stretch
    x = _offset(width * scale_x, size[1], rng)
    y = _offset(height * scale_y, size[0], rng)
    matrix = np.float32([[scale_x, 0, -x], [0, scale_y, -y]])
    if scale < 1:  # without a blur before shrinking, thin things flicker
        image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale)
    image = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(127, 127, 127))
    label = cv2.warpAffine(label, matrix, size[::-1], flags=cv2.INTER_NEAREST, borderValue=OUTSIDE)
    return image, label


def _offset(length, size, rng):
    """Where the crop starts; negative when the picture is smaller than the crop."""
    low, high = sorted((0.0, length - size))
    return rng.uniform(low, high)


def _recolour(image, rng):
    """Saturation, contrast, brightness, white balance and gamma; sometimes blur and noise.  RGB uint8 in and out."""
    saturation, contrast, brightness = rng.uniform(0.5, 1.5), rng.uniform(0.7, 1.35), rng.uniform(-35, 35)
    balance = rng.uniform(0.9, 1.1, size=(3, 1))
    # All four are linear: one 3x4 matrix costs a tenth of as many passes in floats.
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    offset = np.full((3, 1), 127 - 127 * contrast + brightness)
    image = cv2.transform(image, balance * np.hstack([mix, offset]))
    if rng.random() < 0.5:
        image = cv2.LUT(image, (255 * (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4))).astype(np.uint8))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        noise = rng.uniform(2, 8) * rng.standard_normal(image.shape, dtype=np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
