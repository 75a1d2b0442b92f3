"""Pictures for people: a colour per class name, and the mask drawn over the frame with a legend."""

import hashlib

import cv2
import numpy as np

UNLABELLED = 255
# RGB; Cityscapes' colours where a class has one there, so that pictures look familiar.
KNOWN = {
    'road': (128, 64, 128), 'street': (128, 64, 128), 'pavement': (244, 35, 232), 'sidewalk': (244, 35, 232),
    'building': (90, 90, 90), 'house': (90, 90, 90), 'wall': (102, 102, 156), 'fence': (190, 153, 153),
    'pole': (255, 170, 90), 'traffic light': (250, 170, 30), 'sign': (220, 220, 0), 'traffic sign': (220, 220, 0),
    'tree': (107, 142, 35), 'vegetation': (107, 142, 35), 'grass': (152, 251, 152), 'terrain': (152, 251, 152),
    'sky': (70, 130, 180), 'person': (220, 20, 60), 'pedestrian': (220, 20, 60), 'rider': (255, 0, 0),
    'cyclist': (255, 80, 0), 'bicyclist': (255, 80, 0), 'car': (0, 0, 190), 'vehicle': (0, 0, 190),
    'truck': (0, 0, 90), 'bus': (0, 60, 100), 'train': (0, 80, 100), 'motorcycle': (0, 0, 230),
    'bicycle': (119, 11, 32),
}


def colour_of(name):
    """BGR colour of a class, fixed by its name: known ones as usual, others spread by a hash."""
    known = KNOWN.get(name.lower())
    if known:
        return known[::-1]
    digest = hashlib.sha256(name.encode()).digest()
    hsv = np.uint8([[[digest[0] * 180 // 256, 140 + digest[1] % 116, 150 + digest[2] % 106]]])
    return tuple(int(v) for v in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])


def colour_table(names, ids):
    """Look-up table uint8 [1, 256, 3] from id to BGR; ids of no class and 255 are black."""
    table = np.zeros((1, 256, 3), np.uint8)
    for name, i in zip(names, ids):
        table[0, i] = colour_of(name)
    return table


def draw_overlay(bgr, ids, names, class_ids, alpha=0.5, legend=True):
    """The mask over the frame.

    bgr: uint8 [H, W, 3]; ids: uint8 [H, W] or of another size (shown by nearest neighbour);
    names, class_ids: the vocabulary.  Unlabelled pixels keep the frame's colour.
    Returns a new uint8 [H, W, 3].
    """
    height, width = bgr.shape[:2]
    if ids.shape != (height, width):
        ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.LUT(cv2.merge([ids] * 3), colour_table(names, class_ids))
    drawn = cv2.addWeighted(colours, alpha, bgr, 1 - alpha, 0)
    cv2.copyTo(bgr, (ids == UNLABELLED).view(np.uint8), drawn)
    if legend:
        counts = np.bincount(ids[::4, ::4].ravel(), minlength=256)
        present = sorted(zip(class_ids, names), key=lambda entry: -counts[entry[0]])
        _draw_legend(drawn, [name for i, name in present if counts[i]])
    return drawn


def _draw_legend(image, names):
    """Colour keys of the classes in view, largest first, down the left edge."""
    scale = max(image.shape[0] / 480, 0.6)
    line, size = int(18 * scale), int(12 * scale)
    for row, name in enumerate(names[:int(image.shape[0] / line) - 1]):
        y = int(6 * scale) + row * line
        cv2.rectangle(image, (size // 2, y), (size // 2 + size, y + size), colour_of(name), -1)
        cv2.rectangle(image, (size // 2, y), (size // 2 + size, y + size), (255, 255, 255), 1)
        place = (size * 2, y + size - 1)
        text = name if name.isascii() else name.encode('ascii', 'replace').decode()
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42 * scale, colour, thick, cv2.LINE_AA)
