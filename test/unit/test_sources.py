"""Image sources: specifications, frame sizes, and errors for sources that cannot be opened."""

import itertools
import sys

import cv2
import numpy as np
import pytest

from lgseg_ros.media import images, sources
from lgseg_ros.media.sources import SourceError, open_source


@pytest.fixture
def no_photograph(monkeypatch):
    monkeypatch.setattr(sources, 'find_photograph', lambda: None)


@pytest.fixture
def own_photograph(monkeypatch, tmp_path):
    path = tmp_path / 'street.png'
    image = np.zeros((400, 300, 3), np.uint8)
    image[..., 1] = np.linspace(150, 255, 400)[:, None]       # a green that the street does not contain
    cv2.imwrite(str(path), image)
    monkeypatch.setattr(sources, 'find_photograph', lambda: path)
    return path


@pytest.fixture
def video(tmp_path):
    """A video of 12 frames of 64x48; the brightness is 20 times the frame number."""
    path = tmp_path / 'numbers.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 20.0, (64, 48))
    assert writer.isOpened()
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def brightness(source, count=None):
    return [round(frame.mean() / 20) for frame in itertools.islice(source, count)]


def test_street_source_is_endless_and_seeded():
    with (
        open_source('street:7', width=160, height=120) as seeded,
        open_source('street', width=160, height=120) as default,
    ):
        assert (seeded.name, seeded.width, seeded.height, seeded.fps, seeded.frame_count) == (
            'street:7',
            160,
            120,
            30.0,
            None,
        )
        assert seeded.endless
        frame = next(iter(seeded))
        assert frame.shape == (120, 160, 3) and frame.dtype == np.uint8
        assert not np.array_equal(frame, next(iter(default)))


def test_video_plays_once_in_order(video):
    with open_source(str(video)) as source:
        assert (source.width, source.height, source.fps, source.frame_count) == (64, 48, 20.0, 12)
        assert not source.endless
        assert brightness(source) == list(range(12))


def test_video_loops(video):
    with open_source(video, loop=True, fps=5) as source:
        assert source.fps == 5.0 and source.frame_count is None and source.endless
        assert brightness(source, 26) == [*range(12), *range(12), 0, 1]


def test_an_image_is_repeated_for_ten_seconds_or_endlessly(own_photograph):
    with open_source(own_photograph, fps=2) as source:
        assert source.frame_count == 20 and sum(1 for _ in source) == 20
    with open_source(own_photograph, loop=True) as source:
        frames = list(itertools.islice(source, 3))
        assert source.frame_count is None
    frames[0][:] = 0
    assert frames[1].any(), 'drawing on a frame must not change the next one'


def test_folder_is_read_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f'frame{number}.png'), np.full((48, 64, 3), 20 * number, np.uint8))
    (tmp_path / 'notes.txt').write_text('no image')
    with open_source(tmp_path) as source:
        assert source.frame_count == 3 and brightness(source) == [1, 2, 10]
    with open_source(tmp_path, loop=True) as source:
        assert brightness(source, 5) == [1, 2, 10, 1, 2]


@pytest.mark.parametrize('requested, size', [({}, (64, 48)), ({'width': 32}, (32, 24)), ({'height': 96}, (128, 96)),
                                        ({'width': 40, 'height': 40}, (40, 40))])
def test_frames_have_the_requested_size(video, requested, size):
    with open_source(video, **requested) as source:
        assert (source.width, source.height) == size
        assert next(iter(source)).shape == (size[1], size[0], 3)


def test_images_are_cropped_instead_of_stretched(tmp_path):
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255       # a square crop contains only the middle third
    cv2.imwrite(str(tmp_path / 'wide.png'), image)
    with open_source(tmp_path / 'wide.png', width=50, height=50) as source:
        assert next(iter(source)).mean() > 250


def test_photo_without_its_package_names_the_command_that_installs_it(no_photograph):
    with pytest.raises(SourceError, match='pip install --no-deps'):
        open_source('photo')


def test_the_photograph_is_scaled(own_photograph):
    with open_source('photo', width=150) as source:
        assert (source.name, source.width, source.height) == ('photo', 150, 200)


def test_demo_is_street_then_photograph(own_photograph):
    with open_source('demo', width=64, height=48, fps=2) as source:
        assert source.frame_count == 26
        frames = list(source)
    assert len(frames) == 26 and all(f.shape == (48, 64, 3) for f in frames)
    green = [frame[..., 1].mean() - frame[..., 2].mean() for frame in frames]
    assert max(green[:20]) < 30 and min(green[20:]) > 100
    assert not np.array_equal(frames[20], frames[25]), 'the camera pans over the photograph'


def test_demo_without_photograph_warns_and_uses_the_street(no_photograph):
    with (
        pytest.warns(UserWarning, match='pip install --no-deps'),
        open_source('demo', width=64, height=48, fps=2) as source,
    ):
        assert source.frame_count == 20 and sum(1 for _ in source) == 20


def test_photograph_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / 'photograph_package'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("imported")')
    (package / 'bus.jpg').write_bytes(b'')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        images, 'PHOTOGRAPHS', (('no_such_package_anywhere', 'x.jpg', ''), ('photograph_package', 'bus.jpg', ''))
    )
    assert images.find_photograph() == package / 'bus.jpg'
    assert 'photograph_package' not in sys.modules
    (package / 'bus.jpg').unlink()
    assert images.find_photograph() is None


@pytest.mark.parametrize(
    'spec, message',
    [
        ('deom', "did you mean 'demo'"),
        ('Street', "did you mean 'street'"),
        ('street:blue', "'blue' is not a seed"),
        ('photo:2', 'write only photo'),
        ('/dev/video63', '/dev/video63 does not exist'),
        ('63', '/dev/video63 does not exist'),
        ('', 'no such file'),
        ('nowhere/at/all.mp4', 'no such file'),
    ],
)
def test_unknown_sources_are_refused_with_a_hint(spec, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    assert f"'{spec}'" in str(caught.value)


def test_a_misspelt_file_name_is_suggested(video):
    with pytest.raises(SourceError, match="did you mean '.*numbers.avi'"):
        open_source(video.with_name('nunbers.avi'))


@pytest.mark.parametrize('name, message', [('damaged.mp4', 'OpenCV can read'), ('damaged.png', 'cannot be decoded')])
def test_unreadable_files_are_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b'this is neither' * 20)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match='holds no images'):
        open_source(tmp_path)


@pytest.mark.parametrize('requested', [{'width': 4}, {'height': -1}, {'fps': 0}, {'fps': float('nan')}])
def test_invalid_numbers_are_refused(requested):
    name = next(iter(requested))
    with pytest.raises(SourceError, match=f"source 'street': {name} is"):
        open_source('street', **requested)


def test_close_ends_iteration_and_may_be_repeated(video):
    source = open_source(video, loop=True)
    next(iter(source))
    source.close()
    source.close()
    assert list(source) == []
