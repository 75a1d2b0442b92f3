"""Distant houses and trees that close the view at the end of the street."""

import cv2
import numpy as np

from .drawing import Canvas, View
from .labels import BUILDING, TREE
from .scene import chance

DISTANCE = 160.0
"""How far away the skyline stands, metres. So far off it hardly moves, so one picture of it does for all frames."""
_NOTHING = 254


class Skyline:
    """A strip of picture and labels along the horizon, wider than the frame by a margin on either side."""

    def __init__(self, seed, light, props, eye, focal, width):
        self._margin = width // 12
        self._above = int(16.0 * focal / DISTANCE)
        below = int(eye[1] * focal / DISTANCE) + 3
        image = np.full((self._above + below, width + 2 * self._margin, 3), np.uint8(light.sky_horizon), np.uint8)
        labels = np.full(image.shape[:2], _NOTHING, np.uint8)
        view = View((eye[0], eye[1], 0.0), focal, width / 2 + self._margin, self._above, light)
        self._paint(Canvas(view, image, labels), seed, props)
        self._image, self._labels = image, labels
        self._mask = np.where(labels == _NOTHING, 0, 255).astype(np.uint8)

    @staticmethod
    def _paint(canvas, seed, props):
        for i in range(-9, 10):
            number = int(chance(seed, 6, i, 1) * len(props.fronts))
            width, storeys = props.fronts[number]
            if chance(seed, 6, i, 2) < 0.55 and i != 0:
                x, height = i * 11.0 + 6 * chance(seed, 6, i, 0), storeys * 2.8
                corners = [(x, 0, DISTANCE), (x + width, 0, DISTANCE), (x + width, height, DISTANCE), (x, height, DISTANCE)]
                canvas.wall(corners, props.front[number][1], BUILDING)
        for i in range(-18, 19):
            x, height = i * 5.5 + 4 * chance(seed, 7, i, 0), 3.5 + 8 * chance(seed, 7, i, 1) ** 2
            canvas.sprite(props.trees[int(chance(seed, 7, i, 2) * len(props.trees))], (x, 0.0, DISTANCE), height, TREE)
        hedge = [(-110, 0, DISTANCE), (110, 0, DISTANCE), (110, 1.9, DISTANCE), (-110, 1.9, DISTANCE)]
        canvas.wall(hedge, props.garden['hedge'][1], TREE)

    def draw(self, canvas):
        """Lay the strip on the horizon of the frame."""
        view = canvas.view
        top = round(view.horizon) - self._above
        left = self._margin - round(view.centre - canvas.width / 2)
        left = min(max(left, 0), 2 * self._margin)
        first, last = max(0, -top), min(len(self._labels), canvas.height - top)
        if first >= last:
            return
        strip = np.s_[first:last, left:left + canvas.width]
        frame = slice(top + first, top + last)
        cv2.copyTo(self._image[strip], self._mask[strip], canvas.image[frame])
        cv2.copyTo(self._labels[strip], self._mask[strip], canvas.labels[frame])
