"""Metrics compared with values calculated by hand."""

import numpy as np
import pytest

from lgseg_ros.training.metrics import Metrics
from lgseg_ros.utils.label_values import IGNORE


def summary(label, predicted, confidence=1.0, names=('a', 'b', 'c')):
    metrics = Metrics(names)
    label, predicted = np.array(label, np.uint8), np.array(predicted, np.uint8)
    metrics.add(label, predicted, np.broadcast_to(np.asarray(confidence, np.float32), label.shape))
    return metrics.summary()


def test_iou_by_hand():
    """a: 3 of 4 true, 4 predicted: IoU 3/5. b: 1 of 2 true, 2 predicted: IoU 1/3. c: absent."""
    metrics = summary([[0, 0, 0, 0, 1, 1, IGNORE]], [[0, 0, 0, 1, 1, 0, 2]])
    assert metrics['iou'] == {'a': 60.0, 'b': 33.33, 'c': None}
    assert metrics['miou'] == pytest.approx((60 + 100 / 3) / 2, abs=0.01)
    assert metrics['pixel_accuracy'] == pytest.approx(400 / 6, abs=0.01)
    assert metrics['frequency_weighted_iou'] == pytest.approx((4 * 60 + 2 * 100 / 3) / 6, abs=0.01)
    assert metrics['unassigned_pixels'] == 0


def test_a_class_that_is_only_predicted_has_zero_iou_and_is_not_in_the_mean():
    metrics = summary([[0, 0, 0, 0]], [[0, 0, 0, 2]])
    assert metrics['iou'] == {'a': 75.0, 'b': None, 'c': 0.0}
    assert metrics['miou'] == 75.0


def test_negatives_and_unlabelled_pixels_count_as_wrong():
    metrics = summary([[0, 0, 0, 1]], [[0, 3, 255, 1]])
    assert metrics['unassigned_pixels'] == 50.0
    assert metrics['pixel_accuracy'] == 50.0
    assert metrics['iou'] == {'a': 33.33, 'b': 100.0, 'c': None}


def test_iou_is_that_of_all_images_together():
    """Not the mean of the IoU of each image."""
    metrics = Metrics(('a', 'b'))
    for label, predicted_mask in (([[0] * 10], [[0] * 10]), ([[0, 1]], [[1, 1]])):
        metrics.add(np.array(label, np.uint8), np.array(predicted_mask, np.uint8), np.ones((1, len(label[0]))))
    assert metrics.summary()['iou'] == {'a': 90.91, 'b': 50.0}


def test_calibration_error_by_hand():
    """4 pixels at 0.9, 3 correct: gap 0.15. 4 at 0.5, 1 correct: gap 0.25. Mean 0.2."""
    metrics = summary([[0] * 8], [[0, 0, 0, 1, 0, 1, 1, 1]], [[0.9] * 4 + [0.5] * 4])
    assert metrics['expected_calibration_error'] == pytest.approx(20.0, abs=0.01)


def test_a_perfect_prediction():
    label = np.zeros((20, 20), int)
    label[:, 10:] = 1
    metrics = summary(label, label)
    assert all(metrics[key] == 100 for key in ('miou', 'pixel_accuracy', 'frequency_weighted_iou', 'boundary_f1'))
    assert metrics['expected_calibration_error'] == 0


@pytest.mark.parametrize('shift, expected', [(0, 100), (2, 100), (3, 0)])
def test_boundaries_match_within_two_pixels(shift, expected):
    """The boundary of each class is one column along a vertical edge."""
    label, predicted_mask = np.zeros((20, 30), int), np.zeros((20, 30), int)
    label[:, 15:], predicted_mask[:, 15 + shift:] = 1, 1
    assert summary(label, predicted_mask)['boundary_f1'] == expected


def test_boundary_f1_by_hand():
    """The prediction follows a vertical edge of 20 pixels for 10 rows; below, every pixel is class b."""
    label = np.zeros((20, 30), int)
    label[:, 15:] = 1
    predicted_mask = label.copy()
    predicted_mask[10:] = 1
    # a: predicted are column 14 (rows 0 to 9) and row 9 (columns 0 to 13): 24, 2 of the row within 2 px of column 14.
    # Of the 20 true pixels of column 14, rows 0 to 11 are within 2 px of a predicted one.
    precision, recall = 12 / 24, 12 / 20
    f1_a = 2 * precision * recall / (precision + recall)
    # b: predicted are column 15 (rows 0 to 9) and row 10 (columns 0 to 15, the last across the corner): 26, 3 of the
    # row within 2 px of column 15. Of the true pixels, rows 0 to 12 are within 2 px of a predicted one.
    precision, recall = 13 / 26, 13 / 20
    f1_b = 2 * precision * recall / (precision + recall)
    assert summary(label, predicted_mask)['boundary_f1'] == pytest.approx(50 * (f1_a + f1_b), abs=0.01)


def test_boundaries_towards_ignored_pixels_do_not_count():
    """The true boundary is unknown there: a mask that covers ignored pixels is neither correct nor wrong."""
    label = np.full((20, 30), IGNORE)
    label[:15, :10], label[:15, 10:20] = 0, 1
    predicted_mask = np.ones((20, 30), int)
    predicted_mask[:, :10] = 0
    assert summary(label, predicted_mask)['boundary_f1'] == 100
    predicted_mask[:, 5:10] = 1
    assert summary(label, predicted_mask)['boundary_f1'] == 0, 'boundaries along ignored pixels would match'


def test_a_class_without_a_boundary_is_not_in_the_mean():
    full = np.zeros((8, 8), np.uint8)
    assert summary(full, full)['boundary_f1'] == 0, 'no boundary at all'
    halves = np.repeat(np.uint8([0, 1]), 4)[None].repeat(8, axis=0)
    metrics = Metrics(['a', 'b', 'c'])
    for label in (halves, np.full((8, 8), 2, np.uint8)):
        metrics.add(label, label, np.ones(label.shape))
    assert metrics.summary()['boundary_f1'] == 100


def test_images_without_labels_have_zero_metrics():
    metrics = summary([[IGNORE, IGNORE]], [[0, 1]])
    assert metrics['miou'] == 0 and metrics['iou'] == {'a': None, 'b': None, 'c': None}
