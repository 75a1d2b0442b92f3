"""The procedural street: exact labels, reproducible frames, all classes."""

import itertools

import cv2
import numpy as np
import pytest

from lgseg_ros.demo.street import CLASS_NAMES, Label, StreetCamera
from lgseg_ros.demo.street.drawing import Canvas, Texture

FRAMES = (0, 100, 250, 400, 550, 700, 900)
NO_TINT = (1, 1, 1)


@pytest.fixture(scope='module')
def camera():
    return StreetCamera(320, 240, seed=0)


@pytest.fixture(scope='module')
def frames(camera):
    return [camera.render(index) for index in FRAMES]


def test_frame_shapes_and_types(frames):
    for image, labels in frames:
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert labels.shape == (240, 320) and labels.dtype == np.uint8


def test_same_seed_and_index_give_the_same_pixels_in_any_order(frames):
    second = StreetCamera(320, 240, seed=0)
    for index, (image, labels) in reversed(list(zip(FRAMES, frames, strict=True))):
        second_image, second_labels = second.render(index)
        assert np.array_equal(image, second_image) and np.array_equal(labels, second_labels)


def test_the_frame_rate_only_changes_the_time_of_frames(frames):
    slow_image, slow_labels = StreetCamera(320, 240, seed=0, fps=3.0).render(FRAMES[1] // 10)
    assert np.array_equal(slow_labels, frames[1][1])
    assert np.abs(slow_image.astype(int) - frames[1][0]).mean() < 5     # sensor noise differs from frame to frame


def test_seeds_give_different_streets(frames):
    _, labels = StreetCamera(320, 240, seed=1).render(0)
    assert (labels != frames[0][1]).mean() > 0.1


def test_every_class_appears_and_nothing_else(frames):
    counts = sum(np.bincount(labels.ravel(), minlength=256) for _, labels in frames)
    share = counts / counts.sum()
    assert len(CLASS_NAMES) == 11 and set(np.flatnonzero(counts)) == set(range(11))
    assert all(share[:11] > 0.0005), dict(zip(CLASS_NAMES, share.round(4), strict=False))
    assert share[[Label.SKY, Label.BUILDING, Label.ROAD]].min() > 0.08


def test_sky_is_above_road_in_every_column(frames):
    row_numbers = np.arange(240)[:, None]
    for _, labels in frames:
        lowest_sky = np.where(labels == Label.SKY, row_numbers, -1).max(0)
        highest_road = np.where(labels == Label.ROAD, row_numbers, 240).min(0)
        assert (lowest_sky < highest_road).all()
        assert (labels[-1] != Label.SKY).all() and (labels[-5:] == Label.ROAD).mean() > 0.3


def test_label_borders_lie_on_image_edges(frames):
    """Label borders have the highest contrast in the image; any shift by 3 pixels reduces it."""
    for image, labels in frames:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        borders = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0

        def contrast(dy, dx):
            return edges[8:-8, 8:-8][np.roll(borders, (dy, dx), (0, 1))[8:-8, 8:-8]].mean()

        shifted = [contrast(dy, dx) for dy, dx in itertools.product((-3, 0, 3), repeat=2) if dy or dx]
        assert contrast(0, 0) > 1.1 * max(shifted)


def test_the_sky_is_brighter_than_road_and_trees(frames):
    for image, labels in frames:
        assert image[labels == Label.SKY].mean() > image[labels == Label.ROAD].mean() + 30
        assert image[labels == Label.SKY].mean() > image[labels == Label.TREE].mean() + 30


def test_consecutive_frames_agree_and_distant_ones_do_not(camera, frames):
    labels = frames[2][1]
    following, later = camera.render(FRAMES[2] + 1)[1], camera.render(FRAMES[2] + 60)[1]
    assert (labels == following).mean() > 0.95
    assert (labels == later).mean() < 0.92
    for label in (Label.SKY, Label.BUILDING, Label.ROAD):
        before, after = labels == label, following == label
        assert (before & after).sum() / (before | after).sum() > 0.9, label


def test_motion_changes_the_image_where_it_changes_the_labels(camera):
    (image, labels), (later_image, later_labels) = camera.render(300), camera.render(306)
    change = np.abs(image.astype(int) - later_image).mean(2)
    assert change[labels != later_labels].mean() > 2 * change[labels == later_labels].mean()


def test_size_does_not_change_the_scene(frames):
    _, large = StreetCamera(640, 480, seed=0).render(FRAMES[1])
    small = cv2.resize(large, (320, 240), interpolation=cv2.INTER_NEAREST)
    assert (small == frames[1][1]).mean() > 0.95


@pytest.mark.parametrize(('width', 'height'), [(64, 48), (333, 251), (1280, 720)])
def test_frames_have_the_requested_size(width, height):
    image, labels = StreetCamera(width, height, seed=-3).render(10)
    assert image.shape == (height, width, 3) and labels.shape == (height, width)


@pytest.mark.parametrize('arguments', [{'width': 0}, {'height': 9000}, {'fps': 0.0}, {'fps': float('nan')}])
def test_invalid_camera_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match='street camera'):
        StreetCamera(**arguments)


def test_a_negative_frame_number_is_refused(camera):
    with pytest.raises(ValueError, match='frame -1'):
        camera.render(-1)


def test_frames_after_an_hour(camera):
    image, labels = camera.render(30 * 3600)
    assert (labels == Label.ROAD).any() and image.std() > 10


# --- drawing: image and labels get the same pixels

@pytest.fixture
def canvas():
    image, labels = np.zeros((240, 320, 3), np.uint8), np.full((240, 320), Label.SKY, np.uint8)
    return Canvas((0.0, 1.4, 0.0), 300.0, 160.0, 120.0, image, labels)


@pytest.mark.parametrize('z0', [9.0, -5.0], ids=['ahead', 'clipped at the near plane'])
def test_a_wall_covers_image_and_labels_alike(canvas, z0):
    white = Texture(np.full((64, 64, 3), 255, np.uint8), NO_TINT)
    canvas.quad([(-3.1, 0, z0), (-3.1, 0, 24), (-3.1, 5.3, 24), (-3.1, 5.3, z0)], white, Label.BUILDING)
    assert (canvas.labels == Label.BUILDING).any()
    assert np.array_equal(canvas.image[..., 0] > 0, canvas.labels == Label.BUILDING)


def test_a_clipped_wall_keeps_the_position_of_its_texture(canvas):
    """Clipping does not compress the texture: the bright half begins at the middle of the wall."""
    halves = np.repeat(np.repeat(np.uint8([[50, 250]]), 64, 0), 32, 1)
    texture = Texture(cv2.merge([halves] * 3), NO_TINT)
    canvas.quad([(-3, 0, -4), (-3, 0, 24), (-3, 3, 24), (-3, 3, -4)], texture, Label.FENCE)
    column = round(canvas.pixel((-3, 1.4, 10.0))[0])
    row = canvas.image[119, :, 0].astype(int)
    assert row[column - 6] < 120 < 200 < row[column + 6]


def test_a_polygon_covers_image_and_labels_alike(canvas):
    canvas.polygons([[(-1, 0, 8), (1.3, 0, 8), (0.8, 2.1, 8), (-0.7, 1.9, 8)]], [(255, 255, 255)], Label.CAR)
    labelled = canvas.labels == Label.CAR
    assert labelled.sum() > 100
    # Edges are smoothed in the image only, over one pixel to either side.
    border = cv2.morphologyEx(labelled.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    assert (canvas.image[labelled & ~border] > 200).all()
    assert (canvas.image[~labelled & ~border] < 60).all()


def test_a_sprite_labels_its_opaque_part(canvas):
    cut_out = np.zeros((100, 60, 4), np.uint8)
    cv2.ellipse(cut_out, (30, 50), (20, 40), 0, 0, 360, (255, 255, 255, 255), -1)
    canvas.sprite(Texture(cut_out, NO_TINT), (0.4, 0.0, 7.0), 1.8, Label.PEDESTRIAN)
    assert np.array_equal(canvas.image[..., 0] > 127, canvas.labels == Label.PEDESTRIAN)


def test_a_filled_texture_labels_its_gaps(canvas):
    bars = np.zeros((100, 60, 4), np.uint8)
    bars[:, ::6] = 255
    canvas.sprite(Texture(bars, NO_TINT, filled=True), (0.0, 0.0, 7.0), 1.8, Label.FENCE)
    assert (canvas.labels == Label.FENCE).sum() > 2 * (canvas.image[..., 0] > 127).sum() > 0
