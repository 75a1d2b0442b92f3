"""The overlay: colours, opacity, legend."""

import numpy as np
import pytest

from lgseg_ros.media.overlay import KNOWN_COLOURS, colour_of, draw_overlay

FRAME = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
IDS = np.full((96, 128), 255, np.uint8)
IDS[:, 40:80], IDS[:, 80:] = 3, 7
VOCABULARY = ['road', 'forklift'], [3, 7]


def overlay(alpha, ids=IDS, vocabulary=VOCABULARY, legend=False):
    return draw_overlay(FRAME, ids, *vocabulary, alpha, legend)


def test_the_opacity_blends_image_and_colour():
    assert np.array_equal(overlay(0.0), FRAME)
    full = overlay(1.0)
    assert (full[:, 40:80] == colour_of('road')).all() and (full[:, 80:] == colour_of('forklift')).all()
    half = overlay(0.5).astype(int)
    assert np.abs(half[:, 40:] - (full[:, 40:].astype(int) + FRAME[:, 40:]) / 2).max() <= 1


@pytest.mark.parametrize('alpha', [0.3, 1.0])
def test_unlabelled_pixels_keep_the_colour_of_the_image(alpha):
    assert np.array_equal(overlay(alpha)[:, :40], FRAME[:, :40])


def test_a_smaller_mask_is_upsampled():
    assert np.array_equal(overlay(1.0, IDS[::4, ::4]), overlay(1.0))


def test_the_colour_depends_on_the_name_not_on_the_id():
    swapped = np.choose((IDS == 3) + 2 * (IDS == 7), (IDS, 7, 3)).astype(np.uint8)
    assert np.array_equal(overlay(1.0), overlay(1.0, swapped, (['road', 'forklift'], [7, 3])))
    assert colour_of('road') == KNOWN_COLOURS['road'][::-1] and colour_of('Road') == colour_of('road')
    assert len({colour_of(f'class {i}') for i in range(50)}) > 45


def test_the_legend_lists_visible_classes():
    plain, with_legend = overlay(1.0), overlay(1.0, legend=True)
    changed = (plain != with_legend).any(axis=2)
    assert changed.any() and not changed[:, 100:].any(), 'the legend is at the left edge'
    unlabelled = overlay(1.0, np.full_like(IDS, 255), legend=True)
    assert np.array_equal(unlabelled, FRAME), 'no legend without visible classes'
    colour_field = with_legend[6:13, 6:12].reshape(-1, 3)   # the colour field of the largest class, forklift
    assert (colour_field == colour_of('forklift')).all(axis=1).any()


def test_a_name_with_characters_outside_the_font_is_drawn():
    assert overlay(0.5, vocabulary=(['Straße', '道路'], [3, 7]), legend=True).shape == FRAME.shape
