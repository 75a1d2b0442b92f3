"""Signs, traffic lights, railings, litter bins: what stands on a pavement."""

import cv2
import numpy as np

from .noise import fractal_noise, smooth_noise


def _blank(height, width):
    return np.zeros((height, width, 4), np.uint8)


def _round(ring, face, mark):
    sign = _blank(96, 96)
    cv2.circle(sign, (48, 48), 45, (*ring, 255), -1, cv2.LINE_AA)
    cv2.circle(sign, (48, 48), 34, (*face, 255), -1, cv2.LINE_AA)
    (width, height), _ = cv2.getTextSize(mark, cv2.FONT_HERSHEY_DUPLEX, 1.1, 3)
    ink = (25, 25, 25, 255) if sum(face) > 380 else (235, 235, 235, 255)
    cv2.putText(sign, mark, (48 - width // 2, 48 + height // 2), cv2.FONT_HERSHEY_DUPLEX, 1.1, ink, 3, cv2.LINE_AA)
    return sign


def _triangle():
    sign = _blank(88, 100)
    cv2.fillPoly(sign, [np.int32([[50, 2], [98, 85], [2, 85]])], (40, 36, 190, 255), cv2.LINE_AA)
    cv2.fillPoly(sign, [np.int32([[50, 24], [79, 75], [21, 75]])], (228, 230, 232, 255), cv2.LINE_AA)
    cv2.line(sign, (50, 42), (50, 60), (20, 20, 20, 255), 6, cv2.LINE_AA)
    cv2.circle(sign, (50, 69), 4, (20, 20, 20, 255), -1, cv2.LINE_AA)
    return sign


def _plate(rng):
    colour = ((120, 60, 20), (60, 100, 30), (225, 228, 230), (40, 40, 160), (30, 170, 200))[rng.integers(5)]
    sign = _blank(72, 112)
    sign[:] = (*colour, 255)
    ink = (20, 20, 20, 255) if sum(colour) > 500 else (232, 234, 236, 255)
    cv2.rectangle(sign, (4, 4), (107, 67), ink, 2)
    for y in (30, 54):
        word = ''.join(chr(rng.integers(65, 91)) for _ in range(rng.integers(4, 8)))
        cv2.putText(sign, word, (10, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, ink, 2, cv2.LINE_AA)
    return sign


def signs(rng):
    """Return (picture uint8 [H, W, 4], height in metres) for each kind of sign board of a street."""
    return [(_round((40, 36, 200), (230, 232, 232), '20'), 0.75), (_round((40, 36, 200), (230, 232, 232), '30'), 0.75),
            (_round((150, 80, 20), (150, 80, 20), '^'), 0.75), (_triangle(), 0.8), (_plate(rng), 0.75), (_plate(rng), 0.95)]


def traffic_light(lamp):
    """Return the head of a traffic light with lamp 0 red, 1 amber or 2 green lit, uint8 [H, W, 4]."""
    head = _blank(132, 56)
    head[2:130, 4:52] = (28, 28, 28, 255)
    colours = ((40, 40, 255), (40, 190, 255), (170, 255, 70))
    for i in range(3):
        colour = colours[i] if i == lamp else tuple(c // 6 + 14 for c in colours[i])
        cv2.circle(head, (28, 24 + 42 * i), 15, (*colour, 255), -1, cv2.LINE_AA)
        if i == lamp:
            cv2.circle(head, (28, 24 + 42 * i), 7, (235, 250, 250, 255), -1, cv2.LINE_AA)
        cv2.ellipse(head, (28, 22 + 42 * i), (18, 17), 0, 180, 360, (12, 12, 12, 255), 3, cv2.LINE_AA)
    return head


def railing(rng):
    """Return metal railings, 4 m x 1.1 m, uint8 [H, W, 4]."""
    colour = (((70, 72, 74), (34, 34, 34), (150, 152, 152))[rng.integers(3)]) + (255,)
    fence = _blank(88, 320)
    for x in range(4, 320, 11):
        fence[8:84, x:x + 3] = colour
    for y in (8, 76):
        fence[y:y + 5] = colour
    fence[:, ::160] = fence[:, 1::160] = fence[:, 2::160] = fence[:, 3::160] = colour
    return fence


def boards(rng):
    """Return a wooden garden fence, 4 m x 1.6 m, uint8 [H, W, 3]."""
    height, width = 120, 320
    tone = 0.85 + 0.1 * fractal_noise(rng, height, width, 80, 3) + 0.05 * smooth_noise(rng, height, width, 2)
    tone += np.repeat(rng.normal(0, 0.08, width // 10), 10)[None]
    tone[:, ::10] *= 0.55
    tone[:6] *= 1.2
    return np.clip(np.float32([62, 84, 106]) * tone[..., None], 0, 255).astype(np.uint8)


def soft_shadow():
    """Return the darkness under a car: uint8 [96, 48], 255 leaves the ground as it is."""
    dark = np.full((96, 48), 255, np.float32)
    dark[14:82, 8:40] = 60
    return cv2.GaussianBlur(dark, (0, 0), 4.5).astype(np.uint8)
