"""Cars and vans as small shaded solids."""

from dataclasses import dataclass

import numpy as np

from .labels import CAR

_PAINT = ((28, 26, 26), (60, 58, 56), (170, 172, 172), (120, 118, 114), (206, 208, 208), (104, 52, 34), (40, 34, 120), (66, 40, 26),
          (58, 80, 50), (150, 146, 138), (44, 44, 48), (34, 30, 96))


def _part(outline, level, above):
    """Cut a side view at a height: the (z, y) corners of the part above or below it, float [N, 2]."""
    kept = []
    for (z0, y0), (z1, y1) in zip(outline, outline[1:] + outline[:1]):
        if (y0 >= level) == above:
            kept.append((z0, y0))
        if (y0 >= level) != (y1 >= level):
            kept.append((z0 + (z1 - z0) * (level - y0) / (y1 - y0), level))
    return np.array(kept)


@dataclass(frozen=True)
class Shape:
    """A side view from rear (z = 0) to nose, metres: (z, y) corners, and which of the strips between them are glass."""

    outline: tuple
    glass: tuple
    belt: float          # height where the body ends and the windows begin
    width: float
    roof_width: float
    wheels: tuple        # z of the axles
    radius: float

    @property
    def length(self):
        return self.outline[-1][0]


_HATCH = Shape(((0.05, 0.28), (0.0, 0.55), (0.08, 0.95), (0.42, 1.36), (0.75, 1.44), (1.9, 1.45), (2.85, 0.98), (3.6, 0.82), (3.78, 0.58),
                (3.74, 0.26)), (2, 5), 0.93, 1.70, 1.22, (0.68, 3.05), 0.31)
_SALOON = Shape(((0.05, 0.28), (0.0, 0.6), (0.1, 0.95), (0.75, 1.0), (1.3, 1.36), (1.7, 1.42), (2.5, 1.42), (3.3, 0.99), (4.2, 0.84),
                 (4.4, 0.58), (4.36, 0.26)), (3, 6), 0.94, 1.76, 1.24, (0.85, 3.5), 0.32)
_ESTATE = Shape(((0.05, 0.3), (0.0, 0.6), (0.06, 1.05), (0.3, 1.55), (0.6, 1.68), (2.4, 1.68), (3.2, 1.12), (4.1, 1.0), (4.35, 0.7),
                 (4.3, 0.3)), (2, 5), 1.05, 1.82, 1.36, (0.8, 3.45), 0.36)
_VAN = Shape(((0.04, 0.32), (0.0, 0.6), (0.02, 1.25), (0.06, 1.85), (0.16, 2.02), (3.3, 2.05), (4.2, 1.2), (4.75, 1.05), (4.9, 0.65),
              (4.86, 0.3)), (2, 5), 1.2, 1.92, 1.7, (0.95, 3.9), 0.35)


class Car:
    """One vehicle. While it is built its axes are x right, y up, z from rear to nose, with the middle of the rear at 0.

    toward: the nose points at the camera; then the whole is turned round, and z = 0 is the nose.
    """

    def __init__(self, rng, light, toward):
        self.shape = (_HATCH, _HATCH, _SALOON, _SALOON, _ESTATE, _VAN)[rng.integers(6)]
        self.paint = np.float32((206, 208, 208) if self.shape is _VAN and rng.random() < 0.7 else _PAINT[rng.integers(len(_PAINT))])
        self.toward = toward
        self.length = self.shape.length
        self._light = light
        self._vertices, self._faces = [], []
        self._build()
        self._vertices = np.array(self._vertices, float)
        if toward:
            self._vertices = self._vertices * [-1, 1, -1] + [0, 0, self.length]
        self._settle()

    def _half_width(self, y):
        shape = self.shape
        top = max(p[1] for p in shape.outline)
        if y <= shape.belt:
            return shape.width / 2 * (1 - 0.05 * max(0.0, 0.5 - y) / 0.5)
        return np.interp(y, (shape.belt, top), (shape.width / 2 * 0.98, shape.roof_width / 2))

    def _add(self, points, colour, normal, level=0):
        start = len(self._vertices)
        self._vertices.extend(points)
        self._faces.append([np.arange(start, start + len(points)), np.float32(colour), normal, level])

    def _build(self):
        self._underside()
        self._strips()
        for side in (-1, 1):
            self._flank(side)
        self._details()

    def _underside(self):
        half, length = self.shape.width / 2 * 0.93, self.length
        for z, normal in ((0.15, (0, 0, -1)), (length - 0.15, (0, 0, 1))):
            self._add([(-half, 0.1, z), (half, 0.1, z), (half, 0.4, z), (-half, 0.4, z)], (14, 14, 14), normal)
        for side in (-1, 1):
            x = side * half
            self._add([(x, 0.1, 0.15), (x, 0.4, 0.15), (x, 0.4, length - 0.15), (x, 0.1, length - 0.15)], (14, 14, 14), (side, 0, 0))

    def _strips(self):
        """The band that runs over the car from the rear bumper across the roof to the front bumper."""
        outline = self.shape.outline
        for i, ((z0, y0), (z1, y1)) in enumerate(zip(outline[:-1], outline[1:])):
            normal = np.array([0, z1 - z0, -(y1 - y0)])
            normal = normal / np.linalg.norm(normal)
            w0, w1 = self._half_width(y0), self._half_width(y1)
            quad = [(-w0, y0, z0), (w0, y0, z0), (w1, y1, z1), (-w1, y1, z1)]
            self._add(quad, self._skin(normal), normal)
            if i in self.shape.glass:
                self._window(quad, normal)

    def _window(self, quad, normal):
        """Inset glass with the sky mirrored in its upper half."""
        quad = np.array(quad)
        middle = quad.mean(0)
        pane = middle + (quad - middle) * [0.88, 0.86, 0.86]
        lower = pane.copy()
        lower[2:] = (pane[2:] + pane[[1, 0]]) / 2
        if pane[2, 1] < pane[0, 1]:        # a windscreen's strip runs downwards
            lower = pane.copy()
            lower[:2] = (pane[:2] + pane[[3, 2]]) / 2
        sky = np.float32(self._light.sky_top)
        self._add(list(pane), 18 + sky * (0.10 + 0.32 * max(0.0, normal[1])), normal, 1)
        self._add(list(lower), 16 + sky * (0.05 + 0.18 * max(0.0, normal[1])), normal, 1)

    def _skin(self, normal, factor=1.0):
        """Paint lit by the sky from above; lacquer mirrors some of it."""
        up = max(0.0, float(normal[1]))
        ambient = np.float32(self._light.front)
        sky = np.float32(self._light.sky_top)
        return (self.paint * (0.55 + 0.5 * up) * ambient + sky * 0.2 * up ** 2) * factor

    def _flank(self, side):
        """One side: body in three tones, the windows, arches and wheels."""
        shape = self.shape
        outline = shape.outline
        body = _part(outline, shape.belt, above=False)
        self._band(side, body, self._skin((0, 0.15, 0)))
        crease = [(z, np.clip(y, shape.belt * 0.72, shape.belt)) for z, y in body]
        self._band(side, crease, self._skin((0, 0.55, 0)))
        sill = [(z, np.clip(y, 0.26, 0.42)) for z, y in body]
        self._band(side, sill, self._skin((0, 0, 0), 0.55))
        upper = _part(outline, shape.belt, above=True)
        self._band(side, upper, self._skin((0, 0.3, 0)))
        self._side_windows(side, upper)
        for axle in shape.wheels:
            self._wheel(side, axle)

    def _band(self, side, profile, colour, level=0, out=0.0):
        points = [(side * (self._half_width(y) + out), y, z) for z, y in profile]
        self._add(points, colour, (side, 0, 0), level)

    def _side_windows(self, side, upper):
        middle = upper.mean(0)
        pane = middle + (upper - middle) * [0.88, 0.72]
        if self.shape is _VAN:
            pane = pane[pane[:, 0] > 2.6] if (pane[:, 0] > 2.6).sum() >= 3 else np.array([[3.0, 1.3], [3.0, 1.8], [3.4, 1.8], [3.9, 1.3]])
        sky = np.float32(self._light.sky_horizon)
        self._band(side, pane, 16 + sky * 0.10, 1)
        glint = [(z, max(y, pane[:, 1].mean())) for z, y in pane]
        self._band(side, glint, 20 + sky * 0.2, 1)
        if self.shape is not _VAN:
            post = pane[:, 0].min() + 0.52 * np.ptp(pane[:, 0])
            low, high = pane[:, 1].min(), pane[:, 1].max()
            self._band(side, [(post, low), (post, high), (post + 0.1, high), (post + 0.1, low)], (18, 18, 18), 2)

    def _wheel(self, side, axle):
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        for radius, colour, level in ((self.shape.radius + 0.07, (12, 12, 12), 1), (self.shape.radius, (26, 26, 26), 2),
                                      (self.shape.radius * 0.62, np.float32((128, 128, 126)) * self._light.front[1], 3)):
            x = side * (self.shape.width / 2 + 0.01)
            points = [(x, max(0.0, self.shape.radius + radius * s), axle + radius * c) for s, c in zip(np.sin(angle), np.cos(angle))]
            if level == 1:
                points = [(px, np.clip(py, 0.3, None), pz) for px, py, pz in points]
            self._add(points, colour, (side, 0, 0), level)

    def _details(self):
        """Lamps, plates, bumpers and grille on both ends."""
        half, length = self.shape.width / 2, self.length
        glow = self._light.front[1]
        for x in (-1, 1):
            self._patch(x * half * 0.82, 0.76, -0.03, 0.13, 0.11, (36, 30, 150 * glow + 40), (0, 0, -1))
            self._patch(x * half * 0.72, 0.68, length + 0.02, 0.19, 0.09, (215, 220, 222) if glow > 0.3 else 230, (0, 0, 1))
        self._patch(0, 0.42, -0.04, half * 0.92, 0.09, self.paint * 0.4 * glow + 8, (0, 0, -1))
        self._patch(0, 0.62, -0.05, 0.27, 0.06, np.float32((60, 190, 210)) * glow, (0, 0, -1), 2)
        self._patch(0, 0.36, length + 0.02, half * 0.88, 0.09, (22, 22, 22), (0, 0, 1))
        self._patch(0, 0.66, length + 0.02, half * 0.42, 0.06, (20, 20, 20), (0, 0, 1))
        self._patch(0, 0.42, length + 0.04, 0.27, 0.06, np.float32((215, 220, 220)) * glow, (0, 0, 1), 2)

    def _patch(self, x, y, z, half_x, half_y, colour, normal, level=1):
        self._add([(x - half_x, y - half_y, z), (x + half_x, y - half_y, z), (x + half_x, y + half_y, z), (x - half_x, y + half_y, z)],
                  np.broadcast_to(np.float32(colour), 3), normal, level)

    def _settle(self):
        """Turn normals with the car, and light faces by the side of the street that the sun falls on."""
        indices, colours, normals, levels = zip(*self._faces)
        self._faces = indices
        normals = np.array(normals, float) * ([-1, 1, -1] if self.toward else [1, 1, 1])
        # The sun stands opposite the houses that it lights.
        gain = 1 - 0.35 * normals[:, :1] * self._light.sun_side
        self._colours = np.clip(np.array(colours) * gain, 0, 255)
        self._normals, self._levels = normals, np.array(levels)
        self._centres = np.array([self._vertices[index].mean(0) for index in indices])

    def draw(self, canvas, x, z):
        """Paint the car with the middle of its end nearest to the start of the street at (x, z) on the ground."""
        eye = np.array(canvas.view.eye) - (x, 0, z)
        away = eye - self._centres
        seen = (self._normals * away).sum(1) > 0
        if canvas.view.focal * 1.5 < 16 * -eye[2]:
            seen &= self._levels < 2        # too small for wheels and plates
        seen = np.flatnonzero(seen)
        # Details lie on the face beneath them, so they come after every plain face; far faces before near ones.
        depth = np.abs(away[seen, 2]) + 0.5 * np.abs(away[seen, 0])
        order = seen[np.lexsort((-depth, self._levels[seen]))]
        canvas.solid(self._vertices + (x, 0, z), [self._faces[i] for i in order], self._colours[order], z, CAR)
