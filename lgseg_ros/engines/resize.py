"""OpenCV's resizing as two matrix products, so that a GPU resizes with fixed shapes.

output [h, w] = vertical [h, H] @ image [H, W] @ horizontal [w, W].T
"""

import numpy as np
import numpy.typing as npt


def linear_matrix(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return the matrix of bilinear resizing along one axis, as cv2.INTER_LINEAR with aligned pixel centres.

    Args:
        source: pixels of the input.
        target: pixels of the output.

    Returns:
        float32 [target, source]; the rows sum to 1.
    """
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    fraction = (position - low).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - fraction
    matrix[np.arange(target), np.minimum(low + 1, source - 1)] += fraction
    return matrix


def area_matrix(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return the matrix of averaging along one axis, as cv2.INTER_AREA: a pixel is the mean of what it covers.

    Args:
        source: pixels of the input.
        target: pixels of the output, at most `source`.

    Returns:
        float32 [target, source]; the rows sum to 1.
    """
    edges = np.arange(target + 1) * source / target
    cells = np.arange(source)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(covered, 0, None) * target / source, np.float32)


def downscale_matrices(source: tuple[int, int],
                       target: tuple[int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the matrices that resize a frame for the network as `to_network` does.

    Args:
        source: (height, width) of the frame in pixels.
        target: (height, width) of the network in pixels.

    Returns:
        The vertical matrix, float32 [target height, source height], and the horizontal one of the widths.
    """
    averaged = source[0] > 2 * target[0]

    def matrix(axis: int) -> npt.NDArray[np.float32]:
        kind = area_matrix if averaged and source[axis] >= target[axis] else linear_matrix
        return kind(source[axis], target[axis])
    return matrix(0), matrix(1)


def nearest_indices(source: int, target: int) -> npt.NDArray[np.int64]:
    """Return which input pixel cv2.INTER_NEAREST takes for each output pixel.

    Args:
        source: pixels of the input.
        target: pixels of the output.

    Returns:
        int64 [target], 0 to source - 1.
    """
    return np.minimum(np.arange(target) * source // target, source - 1)
