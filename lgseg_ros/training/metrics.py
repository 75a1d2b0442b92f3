"""Segmentation metrics from a confusion matrix, boundaries and confidence bins."""

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.label_values import IGNORE

BINS = 15              # of the calibration error
BOUNDARY_RADIUS = 2    # pixels


class Metrics:
    """Accumulates over images; `summary` gives the metrics as a plain dict.

    Attributes:
        names: of the classes, in index order.
        confusion: pixels per label and prediction, int64 [C, C + 1]; the last column is for pixels that are given to a
            negative or left unlabelled.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names of the classes, in index order."""
        self.names = list(names)
        count = len(self.names)
        self.confusion = np.zeros((count, count + 1), np.int64)
        # Boundary pixels: predicted, of these near a true one, true, of these near a predicted one.
        self._boundary = np.zeros((count, 4), np.int64)
        self._bins = np.zeros((BINS, 3))                  # pixels, summed confidence, correct

    def add(self, label: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8],
            confidence: npt.NDArray[np.floating[Any]]) -> None:
        """Add an image.

        Args:
            label: class indices or `IGNORE`, [H, W].
            predicted: class indices, [H, W]; those from the number of classes on are negatives.
            confidence: 0 to 1, [H, W].
        """
        valid = label != IGNORE
        count = len(self.names)
        guess = np.minimum(predicted, count).astype(np.int64)
        pairs = label[valid].astype(np.int64) * (count + 1) + guess[valid]
        self.confusion += np.bincount(pairs, minlength=count * (count + 1)).reshape(count, count + 1)
        index = np.minimum((confidence[valid] * BINS).astype(int), BINS - 1)
        correct = guess[valid] == label[valid]
        for column, weights in enumerate((None, confidence[valid], correct)):
            self._bins[:, column] += np.bincount(index, weights, minlength=BINS)
        self._add_boundaries(label, guess, valid)

    def _add_boundaries(self, label: npt.NDArray[np.uint8], guess: npt.NDArray[np.int64],
                        valid: npt.NDArray[np.bool_]) -> None:
        """Count boundary pixels within `BOUNDARY_RADIUS` pixels of the other side's boundary.

        Where labels end in ignored pixels the boundary is unknown, so pixels next to these count as neither.
        """
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BOUNDARY_RADIUS + 1,) * 2)
        inner = cv2.erode(valid.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        for index in range(len(self.names)):
            true, found = _edge(label == index) & inner, _edge(guess == index) & inner
            near_true, near_found = (cv2.dilate(edge.astype(np.uint8), kernel) > 0 for edge in (true, found))
            self._boundary[index] += found.sum(), (found & near_true).sum(), true.sum(), (true & near_found).sum()

    def summary(self) -> dict[str, Any]:
        """Return the metrics in percent.

        Returns:
            `miou` over the classes that occur, `pixel_accuracy`, `frequency_weighted_iou`, `boundary_f1` (mean over the
            classes that occur and have a boundary), `expected_calibration_error`, `unassigned_pixels` (labelled pixels
            given to a negative or left unlabelled), and `iou` by class name, None for a class that neither occurs nor
            is predicted.
        """
        hit, truth, union = overlap(self.confusion)
        iou = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
        present = truth > 0
        found, found_near, true, true_near = self._boundary.T
        bounded = present & (found + true > 0)   # a class that fills its images, say, has none
        precision, recall = found_near / np.maximum(found, 1), true_near / np.maximum(true, 1)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        pixels, confidence, correct = self._bins.T
        share = truth / max(truth.sum(), 1)
        values = {
            'miou': np.mean(iou[present]) if present.any() else 0.0,
            'pixel_accuracy': hit.sum() / max(truth.sum(), 1),
            'frequency_weighted_iou': np.nansum(share * iou),
            'boundary_f1': np.mean(f1[bounded]) if bounded.any() else 0.0,
            'expected_calibration_error': np.abs(confidence - correct).sum() / max(pixels.sum(), 1),
            'unassigned_pixels': self.confusion[:, -1].sum() / max(truth.sum(), 1),
        }
        metrics: dict[str, Any] = {key: percent(value) for key, value in values.items()}
        metrics['iou'] = {name: None if np.isnan(value) else percent(value)
                          for name, value in zip(self.names, iou, strict=True)}
        return metrics


def overlap(confusion: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return intersection, true pixels and union per class, each float [C], of a confusion matrix [C, C or more]."""
    classes = len(confusion)
    hit = np.diag(confusion).astype(float)
    truth = confusion.sum(1).astype(float)
    return hit, truth, truth + confusion[:, :classes].sum(0) - hit


def percent(value: Any) -> float:
    """A share as a percentage with two decimals."""
    return round(100 * float(value), 2)


def _edge(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask that touch what is not of it; the rim of the image does not count."""
    values = mask.astype(np.uint8)
    return values != cv2.erode(values, np.ones((3, 3), np.uint8))
