"""Walkers and cyclists as short loops of cut-out pictures."""

import cv2
import numpy as np

from .noise import smooth_noise, to_pixels

PHASES = 8
"""Pictures in one walking or pedalling cycle."""
_TALL = 208
_WIDE = 136
_FINE = 2       # drawn larger, then averaged down for smooth edges

_CLOTH = ((34, 30, 28), (52, 38, 30), (70, 52, 40), (44, 44, 48), (60, 64, 74), (36, 40, 90), (104, 96, 90), (40, 66, 58),
          (150, 146, 140), (90, 60, 48))
_SKIN = ((120, 152, 196), (98, 130, 178), (60, 84, 120))
_HAIR = ((24, 28, 34), (40, 60, 84), (70, 100, 130), (30, 40, 60), (110, 114, 118))


class _Figure:
    """A drawing board whose unit is the figure's height; x from the middle, y up from the ground."""

    def __init__(self):
        self.board = np.zeros((_TALL * _FINE, _WIDE * _FINE, 4), np.uint8)

    def _pixel(self, x, y):
        unit = _TALL * _FINE * 0.98
        return round(_WIDE * _FINE / 2 + x * unit), round(_TALL * _FINE - 1 - y * unit)

    def limb(self, points, width, colour):
        """Draw a jointed limb through (x, y) points."""
        path = np.int32([self._pixel(*p) for p in points])
        cv2.polylines(self.board, [path], False, (*colour, 255), max(1, round(width * _TALL * _FINE)), cv2.LINE_AA)

    def shape(self, points, colour):
        cv2.fillPoly(self.board, [np.int32([self._pixel(*p) for p in points])], (*colour, 255), cv2.LINE_AA)

    def ball(self, x, y, across, up, colour):
        size = tuple(round(r * _TALL * _FINE) for r in (across, up))
        cv2.ellipse(self.board, self._pixel(x, y), size, 0, 0, 360, (*colour, 255), -1, cv2.LINE_AA)

    def ring(self, x, y, across, up, width, colour):
        size = tuple(round(r * _TALL * _FINE) for r in (across, up))
        thick = max(1, round(width * _TALL * _FINE))
        cv2.ellipse(self.board, self._pixel(x, y), size, 0, 0, 360, (*colour, 255), thick, cv2.LINE_AA)

    def finished(self, shading):
        """Return the figure averaged down and shaded; shading: uint8 [H, W, 4], 128 leaves a colour as it is."""
        small = cv2.resize(self.board, (_WIDE, _TALL), interpolation=cv2.INTER_AREA)
        return cv2.multiply(small, shading, scale=1 / 128)


def _shading(rng, tint):
    """Folds of cloth, light from one side and the street's light, for `_Figure.finished`."""
    folds = 0.95 + 0.08 * smooth_noise(rng, _TALL, _WIDE, 14) + np.linspace(-0.22, 0.22, _WIDE, dtype=np.float32)[None]
    return to_pixels(128 * np.dstack([folds * tint[0], folds * tint[1], folds * tint[2], np.ones_like(folds)]))


def _dress(rng):
    pick = lambda colours: tuple(float(v) for v in colours[rng.integers(len(colours))])
    return {'coat': pick(_CLOTH), 'legs': pick(_CLOTH[:5]), 'skin': pick(_SKIN), 'hair': pick(_HAIR), 'shoe': (26., 26., 28.),
            'bag': pick(_CLOTH), 'has_bag': rng.random() < 0.45, 'long': rng.random() < 0.4, 'bulk': rng.uniform(0.9, 1.2)}


def _head(figure, dress, facing, y=0.93):
    figure.limb([(0, y - 0.09), (0, y - 0.03)], 0.045, dress['skin'])
    figure.ball(0, y, 0.043, 0.058, dress['skin'] if facing != 'away' else dress['hair'])
    if facing == 'side':
        figure.ball(-0.014, y + 0.014, 0.042, 0.05, dress['hair'])
    elif facing == 'near':
        figure.ball(0, y + 0.034, 0.044, 0.03, dress['hair'])


def _walk_along(figure, dress, swing, facing):
    """A walker seen from the front or the back; swing -1 to 1."""
    bulk = dress['bulk']
    for side in (-1, 1):
        lift = max(0.0, side * swing) * 0.05
        hip, foot = (side * 0.048 * bulk, 0.5), (side * (0.055 + 0.008 * swing), 0.02 + lift)
        figure.limb([hip, (side * 0.056, 0.27 + lift), foot], 0.068, dress['legs'])
        figure.ball(foot[0], 0.016 + lift, 0.03, 0.018, dress['shoe'])
    hem = 0.36 if dress['long'] else 0.46
    for side in (-1, 1):
        hand = (side * 0.16 * bulk, 0.47 + 0.025 * side * swing)
        figure.limb([(side * 0.118 * bulk, 0.80), (side * 0.155 * bulk, 0.63), hand], 0.052, tuple(0.85 * c for c in dress['coat']))
        figure.ball(*hand, 0.018, 0.022, dress['skin'])
    figure.shape([(-0.125 * bulk, 0.81), (-0.05, 0.86), (0.05, 0.86), (0.125 * bulk, 0.81), (0.10 * bulk, 0.6),
                  (0.115 * bulk, hem), (-0.115 * bulk, hem), (-0.10 * bulk, 0.6)], dress['coat'])
    if dress['has_bag'] and facing == 'away':
        figure.shape([(-0.08, 0.8), (0.08, 0.8), (0.085, 0.58), (-0.085, 0.58)], dress['bag'])
    _head(figure, dress, facing)


def _walk_across(figure, dress, swing, angle):
    """A walker seen from the side, going right."""
    for sign, shade in ((-1, 0.75), (1, 1.0)):
        stride = sign * swing
        knee = (0.10 * stride + 0.02, 0.28 + 0.01 * abs(stride))
        bend = max(0.0, np.sin(angle + (0 if sign > 0 else np.pi)))
        foot = (0.19 * stride - 0.03 * bend, 0.025 + 0.06 * bend)
        figure.limb([(0, 0.5), knee, foot], 0.072, tuple(shade * c for c in dress['legs']))
        figure.limb([foot, (foot[0] + 0.05, foot[1] - 0.008)], 0.034, dress['shoe'])
    hem = 0.37 if dress['long'] else 0.46
    bulk = dress['bulk']
    figure.shape([(-0.06 * bulk, 0.82), (0.045, 0.85), (0.075 * bulk, 0.76), (0.07 * bulk, 0.6), (0.085 * bulk, hem),
                  (-0.085 * bulk, hem), (-0.075 * bulk, 0.62)], dress['coat'])
    if dress['has_bag']:
        figure.ball(-0.09 * bulk, 0.7, 0.05, 0.1, dress['bag'])
    hand = (-0.13 * swing + 0.02, 0.48)
    figure.limb([(0, 0.79), (-0.07 * swing - 0.01, 0.63), hand], 0.05, tuple(1.15 * c for c in dress['coat']))
    figure.ball(*hand, 0.018, 0.02, dress['skin'])
    _head(figure, dress, 'side')


def walker(rng, tint):
    """Return one person: dict of 'near', 'away', 'side' (going right) to a list of PHASES uint8 [H, W, 4] pictures."""
    dress = _dress(rng)
    shading = _shading(rng, tint)
    loops = {'near': [], 'away': [], 'side': []}
    for phase in range(PHASES):
        angle = 2 * np.pi * phase / PHASES
        for facing, loop in loops.items():
            figure = _Figure()
            if facing == 'side':
                _walk_across(figure, dress, np.cos(angle), angle)
            else:
                _walk_along(figure, dress, np.cos(angle), facing)
            loop.append(figure.finished(shading))
    return loops


def _ride(figure, dress, angle, facing, helmet):
    """A cyclist seen from behind or ahead. The unit is the height of rider and bicycle together."""
    tyre = (24., 24., 26.)
    figure.limb([(0, 0.02), (0, 0.36)], 0.026, tyre)
    if facing == 'away':
        figure.ball(0, 0.42, 0.016, 0.02, (30., 30., 190.))
    for side in (-1, 1):
        pedal = 0.17 + 0.075 * side * np.sin(angle)
        knee = (side * 0.085, pedal + 0.20)
        figure.limb([(side * 0.05, 0.52), knee, (side * 0.065, pedal)], 0.062, dress['legs'])
        figure.limb([(side * 0.04, pedal - 0.01), (side * 0.09, pedal - 0.01)], 0.03, dress['shoe'])
    figure.limb([(-0.15, 0.56), (0.15, 0.56)], 0.018, tyre)
    for side in (-1, 1):
        figure.limb([(side * 0.105, 0.79), (side * 0.165, 0.67), (side * 0.14, 0.57)], 0.05, tuple(0.85 * c for c in dress['coat']))
    figure.shape([(-0.115, 0.80), (-0.05, 0.85), (0.05, 0.85), (0.115, 0.80), (0.09, 0.6), (0.095, 0.49),
                  (-0.095, 0.49), (-0.09, 0.6)], dress['coat'])
    if facing == 'near':
        figure.limb([(0, 0.02), (0, 0.52)], 0.028, tyre)
    _head(figure, dress, facing, 0.915)
    if helmet:
        figure.ball(0, 0.945, 0.05, 0.036, dress['bag'])


def cyclist(rng, tint):
    """Return one rider with bicycle, as `walker` does, with the facings 'near' and 'away'."""
    dress = _dress(rng)
    if rng.random() < 0.35:
        dress['coat'] = (60., 225., 215.)      # the reflective jacket that riders wear in the British winter
    helmet = rng.random() < 0.6
    shading = _shading(rng, tint)
    loops = {'near': [], 'away': []}
    for phase in range(PHASES):
        for facing, loop in loops.items():
            figure = _Figure()
            _ride(figure, dress, 2 * np.pi * phase / PHASES, facing, helmet)
            loop.append(figure.finished(shading))
    return loops
