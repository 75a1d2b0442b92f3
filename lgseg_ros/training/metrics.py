"""Segmentation metrics from a confusion matrix, boundaries and confidence bins."""

import cv2
import numpy as np

VOID = 255
BINS = 15              # of the calibration error
BOUNDARY_RADIUS = 2    # pixels


class Metrics:
    """Accumulates over pictures; `summary` gives the figures as a plain dict."""

    def __init__(self, names):
        """names: of the classes, in index order."""
        self.names = list(names)
        count = len(self.names)
        # One column more than classes: pixels given to a distractor or left unlabelled.
        self.confusion = np.zeros((count, count + 1), np.int64)
        # Boundary pixels: found, of these near a true one, true, of these near a found one.
        self.boundary = np.zeros((count, 4), np.int64)
        self.bins = np.zeros((BINS, 3))                  # pixels, summed confidence, correct

    def add(self, label, predicted, confidence):
        """label, predicted: uint8 [H, W] class indices; confidence: float [H, W] in 0..1."""
        valid = label != VOID
        count = len(self.names)
        guess = np.minimum(predicted, count).astype(np.int64)
        pairs = label[valid].astype(np.int64) * (count + 1) + guess[valid]
        self.confusion += np.bincount(pairs, minlength=count * (count + 1)).reshape(count, count + 1)
        index = np.minimum((confidence[valid] * BINS).astype(int), BINS - 1)
        correct = guess[valid] == label[valid]
        for column, weights in enumerate((None, confidence[valid], correct)):
            self.bins[:, column] += np.bincount(index, weights, minlength=BINS)
        self._add_boundaries(label, guess, valid)

    def _add_boundaries(self, label, guess, valid):
        """Count boundary pixels within `BOUNDARY_RADIUS` pixels of the other side's boundary.

        Where the labels end in void nobody knows the boundary, so pixels next to void count as neither.
        """
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BOUNDARY_RADIUS + 1,) * 2)
        inner = cv2.erode(valid.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        for index in range(len(self.names)):
            true, found = _edge(label == index) & inner, _edge(guess == index) & inner
            near_true, near_found = (cv2.dilate(edge.astype(np.uint8), kernel) > 0 for edge in (true, found))
            self.boundary[index] += found.sum(), (found & near_true).sum(), true.sum(), (true & near_found).sum()

    def summary(self):
        """Figures in percent: `miou` over the classes that occur, `pixel_accuracy`, `frequency_weighted_iou`,
        `boundary_f1` (mean over the classes that occur and have a boundary), `expected_calibration_error`,
        `other_pixels` (labelled pixels given to a distractor or left unlabelled), and `iou` by class name, None for a
        class neither there nor predicted.
        """
        hit = np.diag(self.confusion).astype(float)
        truth, guessed = self.confusion.sum(1), self.confusion.sum(0)[:-1]
        union = truth + guessed - hit
        iou = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
        present = truth > 0
        found, found_near, true, true_near = self.boundary.T
        bounded = present & (found + true > 0)   # a class that fills its pictures, or touches void alone, has none
        precision, recall = found_near / np.maximum(found, 1), true_near / np.maximum(true, 1)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        pixels, confidence, correct = self.bins.T
        share = truth / max(truth.sum(), 1)
        percent = {
            'miou': np.mean(iou[present]) if present.any() else 0.0, 'pixel_accuracy': hit.sum() / max(truth.sum(), 1),
            'frequency_weighted_iou': np.nansum(share * iou),
            'boundary_f1': np.mean(f1[bounded]) if bounded.any() else 0.0,
            'expected_calibration_error': np.abs(confidence - correct).sum() / max(pixels.sum(), 1),
            'other_pixels': self.confusion[:, -1].sum() / max(truth.sum(), 1),
        }
        figures = {key: round(100 * float(value), 2) for key, value in percent.items()}
        figures['iou'] = {name: None if np.isnan(value) else round(100 * float(value), 2)
                          for name, value in zip(self.names, iou)}
        return figures


def _edge(mask):
    """The pixels of a mask that touch what is not of it; the picture's rim does not count."""
    mask = mask.astype(np.uint8)
    return (mask != cv2.erode(mask, np.ones((3, 3), np.uint8)))
