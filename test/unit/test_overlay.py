"""The overlay: colours, opacity, legend."""

import numpy as np
import pytest

from lgseg_ros.media.overlay import KNOWN_COLOURS, colour_of, draw_overlay

FRAME = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
IDS = np.full((96, 128), 255, np.uint8)
IDS[:, 40:80], IDS[:, 80:] = 3, 7
VOCABULARY = ['road', 'forklift'], [3, 7]


def drawn(alpha, ids=IDS, vocabulary=VOCABULARY, legend=False):
    return draw_overlay(FRAME, ids, *vocabulary, alpha, legend)


def test_opacity():
    assert np.array_equal(drawn(0.0), FRAME)
    full = drawn(1.0)
    assert (full[:, 40:80] == colour_of('road')).all() and (full[:, 80:] == colour_of('forklift')).all()
    half = drawn(0.5).astype(int)
    assert np.abs(half[:, 40:] - (full[:, 40:].astype(int) + FRAME[:, 40:]) / 2).max() <= 1


@pytest.mark.parametrize('alpha', [0.3, 1.0])
def test_unlabelled_pixels_keep_the_colour_of_the_image(alpha):
    assert np.array_equal(drawn(alpha)[:, :40], FRAME[:, :40])


def test_a_smaller_mask_is_upsampled():
    assert np.array_equal(drawn(1.0, IDS[::4, ::4]), drawn(1.0))


def test_a_colour_belongs_to_the_name_and_not_to_the_id():
    swapped = np.choose((IDS == 3) + 2 * (IDS == 7), (IDS, 7, 3)).astype(np.uint8)
    assert np.array_equal(drawn(1.0), drawn(1.0, swapped, (['road', 'forklift'], [7, 3])))
    assert colour_of('road') == KNOWN_COLOURS['road'][::-1] and colour_of('Road') == colour_of('road')
    assert len({colour_of(f'thing {i}') for i in range(50)}) > 45


def test_the_legend_names_what_is_in_view():
    plain, with_legend = drawn(1.0), drawn(1.0, legend=True)
    changed = (plain != with_legend).any(axis=2)
    assert changed.any() and not changed[:, 100:].any(), 'down the left edge'
    absent = drawn(1.0, np.full_like(IDS, 255), legend=True)
    assert np.array_equal(absent, FRAME), 'nothing in view, nothing to name'
    key = with_legend[6:13, 6:12].reshape(-1, 3)   # of the largest: forklift
    assert (key == colour_of('forklift')).all(axis=1).any()


def test_a_name_outside_the_font_is_drawn():
    assert drawn(0.5, vocabulary=(['Straße', '道路'], [3, 7]), legend=True).shape == FRAME.shape
