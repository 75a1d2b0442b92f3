"""The procedural street: its labels must be exact."""

import itertools

import cv2
import numpy as np
import pytest

from lgseg_ros.demo.street.drawing import Canvas, View
from lgseg_ros.demo.street.labels import BUILDING, CAR, NAMES, PEDESTRIAN, ROAD, SKY, TREE, VOID
from lgseg_ros.demo.street.light import light_of
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.demo.street.texture import Texture

FRAMES = (0, 100, 250, 400, 550, 700, 900)


@pytest.fixture(scope='module')
def camera():
    return StreetCamera(320, 240, seed=0)


@pytest.fixture(scope='module')
def frames(camera):
    return [camera.render(i) for i in FRAMES]


# The street.

def test_frame_shapes_and_types(frames):
    for image, labels in frames:
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert labels.shape == (240, 320) and labels.dtype == np.uint8


def test_same_seed_and_index_give_the_same_pixels_in_any_order(camera, frames):
    again = StreetCamera(320, 240, seed=0)
    for index, (image, labels) in reversed(list(zip(FRAMES, frames))):
        image_again, labels_again = again.render(index)
        assert np.array_equal(image, image_again) and np.array_equal(labels, labels_again)


def test_frame_rate_changes_only_when_frames_are_taken(frames):
    slow_image, slow_labels = StreetCamera(320, 240, seed=0, fps=3.0).render(FRAMES[1] // 10)
    assert np.array_equal(slow_labels, frames[1][1])
    assert np.abs(slow_image.astype(int) - frames[1][0]).mean() < 5     # the sensor's noise is per frame


def test_seeds_give_different_streets(frames):
    _, labels = StreetCamera(320, 240, seed=1).render(0)
    assert (labels != frames[0][1]).mean() > 0.1


def test_every_class_appears_and_void_is_rare(frames):
    counts = sum(np.bincount(labels.ravel(), minlength=256) for _, labels in frames)
    share = counts / counts.sum()
    assert set(np.flatnonzero(counts)) <= {*range(len(NAMES)), VOID}
    assert all(share[:len(NAMES)] > 0.0005), dict(zip(NAMES, share.round(4)))
    assert share[VOID] < 0.02
    assert share[[SKY, BUILDING, ROAD]].min() > 0.08


def test_sky_is_above_road_in_every_column(frames):
    rows = np.arange(240)[:, None]
    for _, labels in frames:
        lowest_sky = np.where(labels == SKY, rows, -1).max(0)
        highest_road = np.where(labels == ROAD, rows, 240).min(0)
        assert (lowest_sky < highest_road).all()
        assert (labels[-1] != SKY).all() and (labels[-5:] == ROAD).mean() > 0.3


def test_label_borders_lie_on_image_edges(frames):
    """Labels moved by a few pixels fit the picture worse: every shift must lose contrast along the borders."""
    for image, labels in frames:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        borders = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0

        def contrast(dy, dx):
            return edges[8:-8, 8:-8][np.roll(borders, (dy, dx), (0, 1))[8:-8, 8:-8]].mean()

        moved = [contrast(dy, dx) for dy, dx in itertools.product((-3, 0, 3), repeat=2) if dy or dx]
        assert contrast(0, 0) > 1.1 * max(moved)


def test_classes_look_different(frames):
    """The picture shows what the labels say: sky is brightest, the tree class greener or darker than it."""
    for image, labels in frames:
        assert image[labels == SKY].mean() > image[labels == ROAD].mean() + 30
        assert image[labels == SKY].mean() > image[labels == TREE].mean() + 30


def test_neighbouring_frames_agree_and_distant_ones_do_not(camera, frames):
    start = FRAMES[2]
    labels = frames[2][1]
    following = camera.render(start + 1)[1]
    later = camera.render(start + 60)[1]
    assert (labels == following).mean() > 0.95
    assert (labels == later).mean() < 0.92
    for name in ('sky', 'building', 'road'):
        here, there = labels == NAMES.index(name), following == NAMES.index(name)
        assert (here & there).sum() / (here | there).sum() > 0.9, name


def test_driving_on_moves_the_picture_as_it_moves_the_labels(camera):
    """Where the labels of two frames say nothing changed, the picture changed less than where they say it did."""
    (image, labels), (later_image, later_labels) = camera.render(300), camera.render(306)
    change = np.abs(image.astype(int) - later_image).mean(2)
    assert change[labels != later_labels].mean() > 2 * change[labels == later_labels].mean()


def test_size_does_not_change_the_scene(frames):
    _, large = StreetCamera(640, 480, seed=0).render(FRAMES[1])
    small = cv2.resize(large, (320, 240), interpolation=cv2.INTER_NEAREST)
    assert (small == frames[1][1]).mean() > 0.95


@pytest.mark.parametrize('width, height', [(333, 251), (1280, 720)])
def test_sizes(width, height):
    image, labels = StreetCamera(width, height, seed=-3).render(10)
    assert image.shape == (height, width, 3) and labels.shape == (height, width)


@pytest.mark.parametrize('arguments', [{'width': 0}, {'height': 9000}, {'fps': 0.0}, {'fps': float('nan')}])
def test_bad_camera_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match='street camera'):
        StreetCamera(**arguments)


def test_negative_frame_is_refused(camera):
    with pytest.raises(ValueError, match='frame -1'):
        camera.render(-1)


def test_an_hour_into_the_street_still_renders(camera):
    image, labels = camera.render(30 * 3600)
    assert (labels == ROAD).any() and image.std() > 10


# Painting: image and labels get the same pixels.

@pytest.fixture
def canvas():
    light = light_of(np.random.default_rng(0))
    view = View((0.0, 1.4, 0.0), 300.0, 160.0, 120.0, light)
    return Canvas(view, np.zeros((240, 320, 3), np.uint8), np.full((240, 320), SKY, np.uint8))


def test_wall_paints_image_and_labels_alike(canvas):
    white = Texture(np.full((64, 64, 3), 255, np.uint8), (255, 255, 255))
    canvas.wall([(-3.1, 0, 9), (4.2, 0, 14), (4.2, 5.3, 14), (-3.1, 5.3, 9)], white, BUILDING)
    assert (canvas.labels == BUILDING).any()
    assert np.array_equal(canvas.image[..., 0] > 0, canvas.labels == BUILDING)


def test_polygon_paints_image_and_labels_alike(canvas):
    canvas.polygon([(-1, 0, 8), (1.3, 0, 8), (0.8, 2.1, 8), (-0.7, 1.9, 8)], (255, 255, 255), CAR)
    labelled = canvas.labels == CAR
    assert 100 < labelled.sum()
    # Edges are smoothed in the picture only, over one pixel to either side.
    border = cv2.morphologyEx(labelled.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    assert (canvas.image[labelled & ~border] > 200).all()
    assert (canvas.image[~labelled & ~border] < 60).all()


def test_sprite_labels_its_opaque_part(canvas):
    picture = np.zeros((100, 60, 4), np.uint8)
    cv2.ellipse(picture, (30, 50), (20, 40), 0, 0, 360, (255, 255, 255, 255), -1)
    canvas.sprite(Texture(picture, (255, 255, 255)), (0.4, 0.0, 7.0), 1.8, PEDESTRIAN)
    assert np.array_equal(canvas.image[..., 0] > 127, canvas.labels == PEDESTRIAN)


def test_sprite_extent_labels_more_than_it_paints(canvas):
    picture = np.zeros((100, 60, 4), np.uint8)
    picture[:, ::6] = 255
    canvas.sprite(Texture(picture, (0, 0, 0), extent=np.full((100, 60), 255, np.uint8)), (0.0, 0.0, 7.0), 1.8, TREE)
    assert (canvas.labels == TREE).sum() > 2 * (canvas.image[..., 0] > 127).sum() > 0
