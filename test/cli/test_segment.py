"""`lgseg segment`: images, folders and videos to masks, overlays and classes.json."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgseg_ros.cli.main import main
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.media.output_folder import mask_names


@pytest.fixture(scope='module')
def image():
    """A street image, BGR uint8 [96, 128, 3]."""
    return StreetCamera(128, 96, seed=1).render(0)[0]


def segment(*arguments):
    """Run `lgseg segment` with the shipped weights; returns the exit code."""
    return main(['segment', *map(str, arguments)])


def test_a_folder_of_images(image, tmp_path, capsys):
    """Images of different sizes, two with the same stem; each mask has the size of its image."""
    source = tmp_path / 'in'
    source.mkdir()
    for name, pixels in (('a.png', image), ('a.jpg', image[:64]), ('b.png', cv2.resize(image, (200, 150)))):
        cv2.imwrite(str(source / name), pixels)
    (source / 'notes.txt').write_text('no image')
    assert segment(source, '--vocabulary', 'road,tall object=building|pole, sky', '--out', tmp_path / 'out') == 0
    assert 'tall object' in capsys.readouterr().out
    counts = np.zeros(256, int)
    for name, size in (('a.png', (96, 128)), ('a.jpg', (64, 128)), ('b', (150, 200))):
        mask = cv2.imread(str(tmp_path / 'out/mask' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        overlay = cv2.imread(str(tmp_path / 'out/overlay' / f'{name}.png'))
        assert mask.shape == size and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2}
        assert overlay.shape == (*size, 3)
        counts += np.bincount(mask.ravel(), minlength=256)
    summary = json.loads((tmp_path / 'out/classes.json').read_text())
    assert summary['frames'] == 3 and not summary['video']
    classes = [(entry['id'], entry['name']) for entry in summary['classes']]
    assert classes == [(0, 'road'), (1, 'tall object'), (2, 'sky')]
    assert summary['classes'][1]['phrases'] == ['building', 'pole']
    for entry in summary['classes']:
        assert entry['share'] == pytest.approx(counts[entry['id']] / counts.sum(), abs=1e-4)


def test_a_video(image, tmp_path):
    path = tmp_path / 'drive.mp4'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12, (128, 96))
    for _ in range(7):
        video.write(image)
    video.release()
    for options, frames in (([], 7), (['--frames', '3', '--masks'], 3)):
        out = tmp_path / str(frames)
        assert segment(path, '--vocabulary', 'road,sky', '--confidence-threshold', '0.9', '--out', out, *options) == 0
        overlay = cv2.VideoCapture(str(out / 'overlay.mp4'))
        assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == frames and overlay.get(cv2.CAP_PROP_FPS) == 12
        assert overlay.read()[1].shape == image.shape
        summary = json.loads((out / 'classes.json').read_text())
        assert summary['video'] and summary['frames'] == frames
        assert summary['confidence_threshold'] == 0.9 and summary['unlabelled']['share'] > 0
    masks = [cv2.imread(str(tmp_path / f'3/mask/00000{n}.png'), cv2.IMREAD_UNCHANGED) for n in range(3)]
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    assert masks[0].shape == image.shape[:2] and counts[255] / counts.sum() == pytest.approx(
        summary['unlabelled']['share'], abs=1e-4)
    assert not (tmp_path / '7/mask').exists()


def test_the_input_is_not_overwritten(tmp_path, capsys):
    for folder, name in (('overlay', 'a.png'), ('mask', 'b.png')):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / name), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / 'overlay.mp4').symlink_to(tmp_path / 'video')
    assert segment('street', '--frames', 2, '--vocabulary', 'road', '--out', tmp_path / 'first') == 0
    (tmp_path / 'first/overlay.mp4').rename(tmp_path / 'video')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.is_file()}
    for source in ('overlay', 'mask', 'mask/b.png', 'video', 'overlay.mp4'):
        assert segment(tmp_path / source, '--vocabulary', 'road', '--out', tmp_path) == 1
        assert 'give another --out' in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.is_file()}


def test_classes_json_describes_all_masks_in_the_folder(tmp_path, capsys):
    """Also after runs with other images or classes, or with an image that cannot be decoded."""
    images, more_images, out = tmp_path / 'in', tmp_path / 'more', tmp_path / 'out'
    for folder, names in ((images, 'ab'), (more_images, 'c')):
        folder.mkdir()
        for name in names:
            cv2.imwrite(str(folder / f'{name}.png'), np.zeros((48, 64, 3), np.uint8))

    def state():
        summary = json.loads((out / 'classes.json').read_text())
        names = [entry['name'] for entry in summary['classes']]
        return summary['frames'], names, sorted(path.name for path in out.glob('mask/*'))

    assert segment(images, '--vocabulary', 'road,car', '--out', out) == 0
    assert segment(more_images, '--vocabulary', 'sky', '--out', out) == 1
    assert 'with other classes' in capsys.readouterr().err and state() == (2, ['road', 'car'], ['a.png', 'b.png'])
    assert segment(more_images, '--vocabulary', 'road,car', '--out', out) == 0, 'masks of the same classes may be mixed'
    (out / 'mask/c.png').unlink()
    (images / 'b.png').write_bytes(b'damaged')
    assert segment(images, '--vocabulary', 'sky,tree', '--out', out) == 1
    assert state() == (1, ['sky', 'tree'], ['a.png'])
    video = '--frames', 3, '--masks', '--out', out
    assert segment('street', '--vocabulary', 'road', *video) == 1, 'masks of a video beside those of images'
    (out / 'mask/a.png').unlink()
    assert segment('street', '--vocabulary', 'road', *video) == 0
    assert segment(tmp_path / 'nowhere.mp4', '--vocabulary', 'sky', *video) == 1
    assert state() == (3, ['road'], [f'00000{n}.png' for n in range(3)]), 'an input that does not exist removes nothing'
    assert segment('street', '--vocabulary', 'sky', '--frames', 1, '--out', out) == 0
    assert state() == (1, ['sky'], [])
    for number in range(2):   # names like those of a video's masks, as in KITTI
        (images / 'a.png').rename(images / f'00000{number}.png')
        assert segment(images / f'00000{number}.png', '--vocabulary', 'sky', '--out', out) == 0
        (images / f'00000{number}.png').rename(images / 'a.png')
    assert state() == (1, ['sky'], ['000000.png', '000001.png'])
    (out / 'classes.json').unlink()
    assert segment('street', '--vocabulary', 'sky', *video) == 1, 'masks of unknown classes'
    assert len(list(out.glob('mask/*'))) == 2


def test_each_input_has_its_own_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('a b.png', np.zeros((48, 64, 3), np.uint8))
    for source, classes, folder in (('a b.png', 'road', 'a_b'), ('.', 'sky', tmp_path.name),
                                   ('street:3', 'tree', 'street_3')):
        assert segment(source, '--vocabulary', classes, *(['--frames', 1] if ':' in source else [])) == 0
        assert (tmp_path / 'out/segment' / folder / 'classes.json').exists()


def test_the_smallest_image(tmp_path):
    cv2.imwrite(str(tmp_path / 'dot.png'), np.zeros((1, 1, 3), np.uint8))
    assert segment(tmp_path / 'dot.png', '--vocabulary', 'road', '--out', tmp_path / 'out') == 0
    assert cv2.imread(str(tmp_path / 'out/mask/dot.png'), cv2.IMREAD_UNCHANGED).shape == (1, 1)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert segment('street', '--frames', 1, '--vocabulary', 'road', '--out=~/masks') == 0
    assert (tmp_path / 'masks/overlay.mp4').exists() and not (tmp_path / '~').exists()


def test_a_stream_of_unknown_length(tmp_path):
    path = tmp_path / 'stream.mjpeg'
    frames = [np.full((48, 64, 3), 20 * n, np.uint8) for n in range(5)]
    path.write_bytes(b''.join(cv2.imencode('.jpg', frame)[1].tobytes() for frame in frames))
    assert segment(path, '--vocabulary', 'road,car', '--out', tmp_path) == 0
    assert json.loads((tmp_path / 'classes.json').read_text())['frames'] == 5


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nowhere.png', '--vocabulary', 'road'], 'nowhere.png'),
        (['street:1', '--vocabulary', 'road'], 'give --frames'),
        (['street:1', '--vocabulary', 'road,hovercraft'], "'hovercraft'"),
        (['street:1', '--preset', 'camvit'], "did you mean 'camvid'"),
        (['street:1', '--vocabulary', 'road', '--confidence-threshold', '2'], '0.0 to 1.0'),
        (['street:1', '--vocabulary', 'road', '--alpha', '2'], '--alpha is 2; give an opacity of 0 to 1'),
        (['street:1', '--vocabulary', 'road', '--frames', '0'], '--frames is 0; give at least 1'),
        ([' ', '--vocabulary', 'road'], 'INPUT is empty'),
        (
            ['street:1', '--vocabulary', 'road', '--max-inference-pixels', '-5'],
            '--max-inference-pixels is -5; give at least 4096',
        ),
        (['street:1', '--vocabulary', 'road', '--num-threads', '-1'], '--num-threads is -1'),
    ],
)
def test_errors_name_the_option(tmp_path, arguments, message, capsys):
    assert segment(*arguments, '--out', tmp_path / 'out') == 1
    assert message in capsys.readouterr().err


def test_a_mask_that_cannot_be_written_is_reported(image, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / '000.png'), image)
    (tmp_path / 'out/mask/000.png').mkdir(parents=True)
    assert segment(tmp_path / '000.png', '--vocabulary', 'road', '--out', tmp_path / 'out') == 1
    assert 'mask/000.png cannot be written' in capsys.readouterr().err


def test_an_image_that_cannot_be_decoded_is_reported(tmp_path, capsys):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    assert segment(tmp_path, '--vocabulary', 'road', '--out', tmp_path / 'out') == 1
    assert 'broken.jpg cannot be decoded' in capsys.readouterr().err


def test_segment_needs_no_torch(tmp_path):
    """On a robot only NumPy, ONNX Runtime and OpenCV are installed."""
    code = ('import sys\n'
            'for name in ("torch", "timm", "open_clip"): sys.modules[name] = None\n'
            'from lgseg_ros.cli.main import main\n'
            'sys.exit(main(["segment", "street:1", "--frames", "2", "--vocabulary", "road,sky", '
            f'"--out", {str(tmp_path)!r}]))')
    completed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / 'overlay.mp4').stat().st_size > 1000


def test_the_summary_as_json(image, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    assert segment(tmp_path / 'a.png', '--vocabulary', 'road,sky', '--out', tmp_path / 'out', '--json') == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {'out': str(tmp_path / 'out'), **json.loads((tmp_path / 'out/classes.json').read_text())}


def test_masks_of_images_with_the_same_stem_keep_the_suffix():
    assert mask_names([Path('a.jpg'), Path('b.jpg'), Path('b.png')]) == ['a', 'b.jpg', 'b.png']
