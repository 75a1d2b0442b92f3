"""A pinhole view of the world, and painting into image and labels at once so that both always agree."""

from math import ceil, exp, floor, hypot

import cv2
import numpy as np

NEAR = 0.8
"""Points nearer than this (metres) are moved onto it before projection."""
_SHIFT = 4          # fractional bits of polygon corners
_THIN = 6           # pixels; a wall seen at so flat an angle shows one colour, which is several times cheaper to paint
_LIMIT = 30000.0    # pixels; keeps corners far outside the frame within OpenCV's fixed-point range


class View:
    """Where the camera is in one frame. World axes in metres: x right, y up, z along the street."""

    def __init__(self, eye, focal, centre, horizon, light):
        self.eye = eye                  # (x, y, z), metres
        self.focal = focal              # pixels
        self.centre = centre            # column of the street's direction, pixels
        self.horizon = horizon          # row of the horizon, pixels
        self.light = light

    def pixel(self, x, y, z):
        """Map one world point to (column, row), pixels. For a few points this beats array arithmetic by far."""
        scale = self.focal / max(z - self.eye[2], NEAR)
        return self.centre + (x - self.eye[0]) * scale, self.horizon - (y - self.eye[1]) * scale

    def project(self, points):
        """Map float [N, 3] world points to float [N, 2] pixels."""
        relative = points - np.asarray(self.eye)
        scale = self.focal / np.maximum(relative[:, 2:], NEAR)
        return relative[:, :2] * scale * (1, -1) + (self.centre, self.horizon)

    def haze_at(self, distance):
        """How much of the light from `distance` metres is haze, 0 to 1."""
        return 1 - exp(-max(distance, 0) / self.light.haze_length)


def _fixed(pixels):
    """Turn float pixels [N, 2] into the integers that OpenCV draws polygons from."""
    return np.rint(np.minimum(np.maximum(pixels, -_LIMIT), _LIMIT) * (1 << _SHIFT)).astype(np.int32)


class Canvas:
    """Image uint8 [H, W, 3] and labels uint8 [H, W] of one frame, painted back to front."""

    def __init__(self, view, image, labels):
        self.view, self.image, self.labels = view, image, labels
        self.height, self.width = labels.shape

    def hazed(self, colour, z):
        """Return a BGR colour, or float [N, 3] of them, as seen at world coordinate z."""
        amount = self.view.haze_at(z - self.view.eye[2])
        return np.multiply(colour, 1 - amount) + np.multiply(self.view.light.haze, amount)

    def polygon(self, points, colour, label):
        """Fill a convex polygon given by (x, y, z) world points, all about equally far away, with one BGR colour."""
        corners = _fixed([self.view.pixel(*p) for p in points])
        self._fill(corners, self.hazed(colour, points[0][2]).tolist(), label)

    def solid(self, vertices, faces, colours, z, label):
        """Fill convex faces in order; vertices: float [N, 3] world points, faces: index arrays, colours: float [F, 3] BGR."""
        corners = _fixed(self.view.project(vertices))
        for face, colour in zip(faces, self.hazed(colours, z).tolist()):
            self._fill(corners[face], colour, label)

    def _fill(self, corners, colour, label):
        cv2.fillConvexPoly(self.image, corners, colour, cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(self.labels, corners, label, cv2.LINE_8, _SHIFT)

    def _window(self, left, top, right, bottom):
        """Return the part of the frame within these limits as x0, y0, x1, y1, or None."""
        x0, y0, x1, y1 = max(floor(left), 0), max(floor(top), 0), min(ceil(right) + 1, self.width), min(ceil(bottom) + 1, self.height)
        return None if x0 >= x1 or y0 >= y1 else (x0, y0, x1, y1)

    def wall(self, corners, texture, label):
        """Cover a flat quadrilateral with a texture.

        corners: the (x, y, z) world points of the texture's bottom left, bottom right, top right, top left.
        A texture with alpha is blended, yet labels the whole quadrilateral: a railing is fence, gaps included.
        """
        pixels = [self.view.pixel(*p) for p in corners]
        columns, rows = zip(*pixels)
        window = self._window(min(columns), min(rows), max(columns), max(rows))
        if window is None:
            return
        x0, y0, x1, y1 = window
        if x1 - x0 < _THIN and texture.mean is not None:
            self._fill(_fixed(pixels), self.hazed(texture.mean, corners[0][2]).tolist(), label)
            return
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = pixels
        haze = self.view.haze_at((corners[0][2] + corners[1][2]) / 2 - self.view.eye[2])
        copy = texture.copy_for(max(hypot(bx - ax, by - ay), hypot(cx - dx, cy - dy)),
                                max(hypot(dx - ax, dy - ay), hypot(cx - bx, cy - by)), haze)
        h, w = copy.shape[:2]
        local = np.float32(pixels) - np.float32([x0, y0])
        source = np.float32([[-0.5, h - 0.5], [w - 0.5, h - 0.5], [w - 0.5, -0.5], [-0.5, -0.5]])
        patch = cv2.warpPerspective(copy, cv2.getPerspectiveTransform(source, local), (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        shape = _fixed(local)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, shape, 255, cv2.LINE_8, _SHIFT)
        region = self.image[y0:y1, x0:x1]
        cv2.copyTo(_over(region, patch) if patch.shape[2] == 4 else patch, mask, region)
        cv2.fillConvexPoly(self.labels[y0:y1, x0:x1], shape, label, cv2.LINE_8, _SHIFT)

    def sprite(self, texture, foot, height, label, mirror=False):
        """Stand a cut-out picture on a world point, facing the camera.

        foot: (x, y, z) of the middle of its lower edge; height: metres.
        """
        x, y, z = foot
        column, row = self.view.pixel(x, y, z)
        tall = height * self.view.focal / max(z - self.view.eye[2], NEAR)
        wide = tall * texture.width / texture.height
        window = self._window(column - wide / 2, row - tall, column + wide / 2, row)
        if window is None or tall < 2:
            return
        x0, y0, x1, y1 = window
        copy = texture.copy_for(wide, tall, self.view.haze_at(z - self.view.eye[2]))
        h, w = copy.shape[:2]
        step_x, step_y = wide / w, tall / h
        left = column - wide / 2 - x0 + step_x / 2 - 0.5
        if mirror:
            step_x, left = -step_x, left + (w - 1) * step_x
        warp = np.float32([[step_x, 0, left], [0, step_y, row - tall - y0 + step_y / 2 - 0.5]])
        patch = cv2.warpAffine(copy, warp, (x1 - x0, y1 - y0))
        extent = None if texture.extent is None else cv2.warpAffine(texture.extent_for(copy), warp, (x1 - x0, y1 - y0))
        self._blend(patch, extent, x0, y0, label)

    def _blend(self, patch, extent, x0, y0, label):
        """Lay a BGRA patch on the frame at column x0, row y0; where extent (or alpha) is over a half, it is `label`."""
        h, w = patch.shape[:2]
        region = self.image[y0:y0 + h, x0:x0 + w]
        region[:] = _over(region, patch)
        labels = self.labels[y0:y0 + h, x0:x0 + w]
        labels[(patch[..., 3] if extent is None else extent) > 127] = label

    def shadow(self, texture, x, z, width, length):
        """Darken the ground under a thing: a soft patch of `width` x `length` metres centred on (x, z)."""
        near, far = z - length / 2, z + length / 2
        if near < self.view.eye[2] + NEAR:
            return
        pixels = [self.view.pixel(x + sx * width / 2, 0.0, depth) for sx, depth in ((-1, near), (1, near), (1, far), (-1, far))]
        columns, rows = zip(*pixels)
        window = self._window(min(columns), min(rows), max(columns), max(rows))
        if window is None:
            return
        x0, y0, x1, y1 = window
        h, w = texture.shape
        warp = cv2.getPerspectiveTransform(np.float32([[0, h], [w, h], [w, 0], [0, 0]]), np.float32(pixels) - np.float32([x0, y0]))
        dark = cv2.warpPerspective(texture, warp, (x1 - x0, y1 - y0), borderValue=255)
        region = self.image[y0:y1, x0:x1]
        cv2.multiply(region, cv2.merge((dark, dark, dark)), dst=region, scale=1 / 255)


def _over(below, patch):
    """Blend a BGRA patch, its colour already times alpha, over a BGR region of the same size."""
    blue, green, red, alpha = cv2.split(patch)
    clear = cv2.bitwise_not(alpha)
    return cv2.add(cv2.multiply(below, cv2.merge((clear, clear, clear)), scale=1 / 255), cv2.merge((blue, green, red)))
