"""Segmentation metrics from a confusion matrix, boundaries and confidence bins."""

import cv2
import numpy as np

VOID = 255
BINS = 15


class Metrics:
    """Accumulates over pictures; `summary` gives the figures as a plain dict."""

    def __init__(self, names):
        self.names = list(names)
        count = len(self.names)
        # One column more than classes: pixels given to a distractor or left unlabelled.
        self.confusion = np.zeros((count, count + 1), np.int64)
        self.boundary = np.zeros((count, 3), np.int64)   # matched predicted, predicted, matched true ...
        self.boundary_true = np.zeros(count, np.int64)
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

    def _add_boundaries(self, label, guess, valid, radius=2):
        """Count boundary pixels within `radius` pixels of the other side's boundary."""
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        for index in range(len(self.names)):
            true = _edge(label == index) & valid
            found = _edge((guess == index) & valid) & valid
            near_true = cv2.dilate(true.astype(np.uint8), kernel).astype(bool)
            near_found = cv2.dilate(found.astype(np.uint8), kernel).astype(bool)
            self.boundary[index] += (found & near_true).sum(), found.sum(), (true & near_found).sum()
            self.boundary_true[index] += true.sum()

    def summary(self):
        """mIoU, per-class IoU, pixel accuracy, frequency-weighted IoU, boundary F1 and ECE, in percent."""
        hit = np.diag(self.confusion).astype(float)
        truth, guessed = self.confusion.sum(1), self.confusion.sum(0)[:-1]
        union = truth + guessed - hit
        iou = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
        present = truth > 0
        precision = self.boundary[:, 0] / np.maximum(self.boundary[:, 1], 1)
        recall = self.boundary[:, 2] / np.maximum(self.boundary_true, 1)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        pixels, confidence, correct = self.bins.T
        share = truth / max(truth.sum(), 1)
        percent = {
            'miou': np.mean(iou[present]), 'pixel_accuracy': hit.sum() / max(truth.sum(), 1),
            'frequency_weighted_iou': np.nansum(share * iou), 'boundary_f1': np.mean(f1[present]),
            'expected_calibration_error': np.abs(confidence - correct).sum() / max(pixels.sum(), 1),
        }
        figures = {key: round(100 * float(value), 2) for key, value in percent.items()}
        figures['iou'] = {name: None if np.isnan(value) else round(100 * float(value), 2)
                          for name, value in zip(self.names, iou)}
        return figures


def _edge(mask):
    mask = mask.astype(np.uint8)
    return (mask != cv2.erode(mask, np.ones((3, 3), np.uint8)))
