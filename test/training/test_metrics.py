"""Metrics against values worked out by hand."""

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
    """a: 3 hit of 4 true, 4 guessed: 3/5.  b: 1 hit of 2 true, 2 guessed: 1/3.  c: nowhere."""
    metrics = summary([[0, 0, 0, 0, 1, 1, IGNORE]], [[0, 0, 0, 1, 1, 0, 2]])
    assert metrics['iou'] == {'a': 60.0, 'b': 33.33, 'c': None}
    assert metrics['miou'] == pytest.approx((60 + 100 / 3) / 2, abs=0.01)
    assert metrics['pixel_accuracy'] == pytest.approx(400 / 6, abs=0.01)
    assert metrics['frequency_weighted_iou'] == pytest.approx((4 * 60 + 2 * 100 / 3) / 6, abs=0.01)
    assert metrics['unassigned_pixels'] == 0


def test_a_class_that_is_only_guessed_has_zero_iou_but_is_not_in_the_mean():
    metrics = summary([[0, 0, 0, 0]], [[0, 0, 0, 2]])
    assert metrics['iou'] == {'a': 75.0, 'b': None, 'c': 0.0}
    assert metrics['miou'] == 75.0


def test_negatives_and_unlabelled_pixels_are_wrong_and_counted():
    metrics = summary([[0, 0, 0, 1]], [[0, 3, 255, 1]])
    assert metrics['unassigned_pixels'] == 50.0
    assert metrics['pixel_accuracy'] == 50.0
    assert metrics['iou'] == {'a': 33.33, 'b': 100.0, 'c': None}


def test_images_add_up_before_the_division():
    """IoU of the data set, not the mean of the images' IoUs."""
    metrics = Metrics(('a', 'b'))
    for label, guess in (([[0] * 10], [[0] * 10]), ([[0, 1]], [[1, 1]])):
        metrics.add(np.array(label, np.uint8), np.array(guess, np.uint8), np.ones((1, len(label[0]))))
    assert metrics.summary()['iou'] == {'a': 90.91, 'b': 50.0}


def test_calibration_error_by_hand():
    """4 pixels at 0.9, 3 right: gap 0.15.  4 at 0.5, 1 right: gap 0.25.  Mean 0.2."""
    metrics = summary([[0] * 8], [[0, 0, 0, 1, 0, 1, 1, 1]], [[0.9] * 4 + [0.5] * 4])
    assert metrics['expected_calibration_error'] == pytest.approx(20.0, abs=0.01)


def test_perfect_and_certain():
    label = np.zeros((20, 20), int)
    label[:, 10:] = 1
    metrics = summary(label, label)
    assert all(metrics[key] == 100 for key in ('miou', 'pixel_accuracy', 'frequency_weighted_iou', 'boundary_f1'))
    assert metrics['expected_calibration_error'] == 0


@pytest.mark.parametrize('shift, wanted', [(0, 100), (2, 100), (3, 0)])
def test_boundaries_match_within_two_pixels(shift, wanted):
    """Each class's boundary is its own column along a vertical edge."""
    label, guess = np.zeros((20, 30), int), np.zeros((20, 30), int)
    label[:, 15:], guess[:, 15 + shift:] = 1, 1
    assert summary(label, guess)['boundary_f1'] == wanted


def test_boundary_f1_by_hand():
    """The guess follows a vertical edge of 20 pixels for 10, then gives all to class b."""
    label = np.zeros((20, 30), int)
    label[:, 15:] = 1
    guess = label.copy()
    guess[10:] = 1
    # a: found are column 14 (rows 0 to 9) and row 9 (columns 0 to 13): 24, of which 2 of the row are near column 14.
    # Of column 14's 20 true pixels rows 0 to 11 are near one found.
    precision, recall = 12 / 24, 12 / 20
    f1_a = 2 * precision * recall / (precision + recall)
    # b: column 15 (rows 0 to 9) and row 10 (columns 0 to 15, the last across the corner): 26, of which 3 of the row
    # are near column 15.  True and near: rows 0 to 12.
    precision, recall = 13 / 26, 13 / 20
    f1_b = 2 * precision * recall / (precision + recall)
    assert summary(label, guess)['boundary_f1'] == pytest.approx(50 * (f1_a + f1_b), abs=0.01)


def test_boundaries_towards_ignored_pixels_do_not_count():
    """Nobody knows where the thing ends there: a mask that fills it is neither right nor wrong."""
    label = np.full((20, 30), IGNORE)
    label[:15, :10], label[:15, 10:20] = 0, 1
    guess = np.ones((20, 30), int)
    guess[:, :10] = 0
    assert summary(label, guess)['boundary_f1'] == 100
    guess[:, 5:10] = 1
    assert summary(label, guess)['boundary_f1'] == 0, 'along the ignored pixels both sides would agree'


def test_a_class_without_a_boundary_is_not_in_the_mean():
    full = np.zeros((8, 8), np.uint8)
    assert summary(full, full)['boundary_f1'] == 0, 'there is none at all'
    halves = np.repeat(np.uint8([0, 1]), 4)[None].repeat(8, axis=0)
    metrics = Metrics(['a', 'b', 'c'])
    for label in (halves, np.full((8, 8), 2, np.uint8)):
        metrics.add(label, label, np.ones(label.shape))
    assert metrics.summary()['boundary_f1'] == 100


def test_nothing_labelled_is_no_division_by_zero():
    metrics = summary([[IGNORE, IGNORE]], [[0, 1]])
    assert metrics['miou'] == 0 and metrics['iou'] == {'a': None, 'b': None, 'c': None}
