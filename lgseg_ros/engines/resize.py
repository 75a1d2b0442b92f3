"""OpenCV's resizing as two matrices, so that a GPU resizes with fixed shapes: out = rows @ picture @ columns.T"""

import numpy as np


def linear_matrix(source, target):
    """float32 [target, source]: bilinear, pixel centres aligned, as cv2.INTER_LINEAR."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    fraction = (position - low).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - fraction
    matrix[np.arange(target), np.minimum(low + 1, source - 1)] += fraction
    return matrix


def area_matrix(source, target):
    """float32 [target, source]: each pixel the mean of what it covers, as cv2.INTER_AREA; target <= source."""
    edges = np.arange(target + 1) * source / target
    cells = np.arange(source)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.clip(covered, 0, None) * target / source).astype(np.float32)


def shrinking_matrices(source, target):
    """Matrices (rows, columns) that do to a picture what `to_network` does; (height, width) each."""
    averaged = source[0] > 2 * target[0]
    return tuple(area_matrix(a, b) if averaged and a >= b else linear_matrix(a, b) for a, b in zip(source, target))


def nearest_indices(source, target):
    """int64 [target]: which pixel cv2.INTER_NEAREST takes."""
    return np.minimum(np.arange(target) * source // target, source - 1)
