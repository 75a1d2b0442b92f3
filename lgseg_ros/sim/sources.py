"""Open whatever can play the camera: the procedural street, a photograph, a video, pictures, a device."""

import difflib
import itertools
import re
import warnings
from pathlib import Path

import cv2
import numpy as np

from .photograph import INSTALL, find_photograph
from .street import StreetCamera

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
STILL_SECONDS = 10.0
"""How long a single picture is shown when it is not looped."""
DEMO_SECONDS = (10.0, 3.0)
"""Length of the demo's two parts: the street, the photograph."""
_WORDS = ('street', 'photo', 'demo')


class SourceError(ValueError):
    """A source cannot be opened; the message names it, says why, and what to do."""


class Source:
    """Frames from one place, in order and once.

    Attributes:
        name: what it was opened from.
        width, height: size of every frame, pixels.
        fps: rate at which the frames are meant to be shown, frames a second. Nothing here waits: pacing is the player's.
        frame_count: number of frames, or None where that is endless or not known.
        endless: whether the frames never end: a camera, the street, whatever is looped.

    Iterating yields BGR frames, uint8 [height, width, 3]. Use it in a `with` block, or call close().
    """

    def __init__(self, name, frames, width, height, fps, frame_count=None, release=None, endless=False):
        self.name, self.width, self.height, self.fps, self.frame_count = name, width, height, fps, frame_count
        self.endless = endless
        self._frames, self._release = frames, release

    def __iter__(self):
        return self._frames

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Let go of files and devices; iteration ends. May be called twice."""
        self._frames = iter(())
        if self._release is not None:
            self._release()
            self._release = None


def open_source(spec, *, width=None, height=None, fps=None, loop=False):
    """Open a source of camera frames.

    Args:
        spec: `street` or `street:SEED` (endless), `photo` (the real photograph), `demo` (10 s of street, 3 s of photograph),
            the path of a video, of a picture or of a folder of pictures (in natural order), or a camera: `/dev/video0` or `0`.
        width, height: frame size in pixels. With one of them the other keeps the shape; with both, what overhangs is cut off.
            None keeps the source's own size (street and demo: 640x480).
        fps: frames a second, above 0. None: the video's or device's own; 30 for street, demo and pictures; 10 for a folder.
        loop: start again at the end, for ever.

    Returns:
        Source.

    Raises:
        SourceError: no such source, or it cannot be read.
    """
    spec = str(spec).strip()
    _check_numbers(spec, width, height, fps)
    word, _, rest = spec.partition(':')
    if word in _WORDS and not Path(spec).exists():
        return _open_word(spec, word, rest, width, height, fps, loop)
    if re.fullmatch(r'\d+|/dev/video\d+', spec):
        return _open_device(spec, width, height, fps)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return _open_folder(path, width, height, fps, loop)
    if not path.is_file():
        raise SourceError(_unknown(spec, path))
    if path.suffix.lower() in IMAGES:
        return _open_still(str(path), _read_image(path), width, height, fps, loop)
    return _open_video(path, width, height, fps, loop)


def _check_numbers(spec, width, height, fps):
    for name, value, least in (('width', width, 16), ('height', height, 16)):
        if value is not None and not least <= value <= 8192:
            raise SourceError(f"source '{spec}': {name} is {value}; give 16 to 8192 pixels")
    if fps is not None and not 0 < fps <= 1000:
        raise SourceError(f"source '{spec}': fps is {fps}; give a rate above 0 and up to 1000")


def _unknown(spec, path):
    """Say what a value that is no file and no known word could have meant."""
    known = difflib.get_close_matches(spec.partition(':')[0].lower(), _WORDS, 1, 0.6)
    beside = []
    if path.parent.is_dir():
        beside = difflib.get_close_matches(path.name, [p.name for p in itertools.islice(path.parent.iterdir(), 1000)], 1, 0.6)
    hint = f"; did you mean '{known[0]}'?" if known else f"; did you mean '{path.parent / beside[0]}'?" if beside else ''
    return (f"source '{spec}': no such file, folder or camera{hint} "
            "Give a video, a picture, a folder of pictures, a camera (0 or /dev/video0), street, street:SEED, photo or demo.")


def _open_word(spec, word, rest, width, height, fps, loop):
    if word == 'street':
        if rest and not re.fullmatch(r'-?\d+', rest):
            raise SourceError(f"source '{spec}': '{rest}' is not a seed; give a whole number, as in street:7")
        return _open_street(spec, int(rest or 0), width, height, fps)
    if rest:
        raise SourceError(f"source '{spec}': '{word}' takes no ':{rest}'; write only {word}")
    if word == 'demo':
        return _open_demo(width, height, fps, loop)
    path = find_photograph()
    if path is None:
        raise SourceError(f"source 'photo': no package with a photograph is installed; run: {INSTALL}")
    return _open_still('photo', _read_image(path), width, height, fps, loop)


def _target(own_width, own_height, width, height):
    """Complete a wished size from the source's own, keeping its shape."""
    if width is None and height is None:
        return own_width, own_height
    if width is None:
        width = round(own_width * height / own_height)
    if height is None:
        height = round(own_height * width / own_width)
    return int(width), int(height)


def _fit(frame, width, height):
    """Cut uint8 [H, W, 3] to the wished shape around its middle and scale it to [height, width, 3]."""
    own_height, own_width = frame.shape[:2]
    if (own_width, own_height) == (width, height):
        return frame
    scale = max(width / own_width, height / own_height)
    cut_width, cut_height = min(own_width, round(width / scale)), min(own_height, round(height / scale))
    x, y = (own_width - cut_width) // 2, (own_height - cut_height) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(frame[y:y + cut_height, x:x + cut_width], (width, height), interpolation=how)


def _read_image(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"source '{path}': this picture cannot be decoded; convert it to JPEG or PNG")
    return image


def _open_street(spec, seed, width, height, fps):
    width, height = _target(640, 480, width, height)
    fps = float(fps or 30.0)
    camera = _street_camera(spec, width, height, seed, fps)
    return Source(spec, (camera.render(i)[0] for i in itertools.count()), width, height, fps, endless=True)


def _street_camera(spec, width, height, seed, fps):
    try:
        return StreetCamera(width, height, seed, fps)
    except ValueError as error:
        raise SourceError(f"source '{spec}': {error}") from None


def _open_still(name, image, width, height, fps, loop):
    width, height = _target(image.shape[1], image.shape[0], width, height)
    fps = float(fps or 30.0)
    frame = _fit(image, width, height)
    count = None if loop else max(1, round(STILL_SECONDS * fps))
    # A consumer may draw on its frame, so each one is its own copy.
    numbers = itertools.count() if loop else range(count)
    return Source(name, (frame.copy() for _ in numbers), width, height, fps, count, endless=loop)


def _natural(path):
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r'(\d+)', path.name)]


def _open_folder(folder, width, height, fps, loop):
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGES), key=_natural)
    if not paths:
        raise SourceError(f"source '{folder}': the folder holds no pictures; give one with {', '.join(IMAGES)} files directly in it")
    first = _read_image(paths[0])
    width, height = _target(first.shape[1], first.shape[0], width, height)
    order = itertools.cycle(paths) if loop else paths
    frames = (_fit(_read_image(path), width, height) for path in order)
    return Source(str(folder), frames, width, height, float(fps or 10.0), None if loop else len(paths), endless=loop)


def _open_video(path, width, height, fps, loop):
    capture = cv2.VideoCapture(str(path))
    readable, first = capture.read()
    if not readable:
        capture.release()
        raise SourceError(f"source '{path}': this is no picture or video that OpenCV can read; convert it, for example: "
                          f"ffmpeg -i {path.name} -c:v libx264 -pix_fmt yuv420p readable.mp4")
    width, height = _target(first.shape[1], first.shape[0], width, height)
    own_fps = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))   # not above 0 where the container does not tell
    fps = float(fps or (own_fps if 0 < own_fps <= 1000 else 30.0))
    frames = _video_frames(path, capture, first, width, height, loop)
    return Source(str(path), frames, width, height, fps, None if loop or count <= 0 else count, capture.release, endless=loop)


def _video_frames(path, capture, frame, width, height, loop):
    readable = True
    while readable:
        yield _fit(frame, width, height)
        readable, frame = capture.read()
        if not readable and loop:
            # Opening again works for every container; seeking to frame 0 does not.
            capture.open(str(path))
            readable, frame = capture.read()


def _open_device(spec, width, height, fps):
    number = int(spec.replace('/dev/video', ''))
    if not Path(f'/dev/video{number}').exists():
        raise SourceError(f"source '{spec}': camera /dev/video{number} does not exist; {_cameras_here()}")
    capture = cv2.VideoCapture(number)
    for setting, value in ((cv2.CAP_PROP_FRAME_WIDTH, width), (cv2.CAP_PROP_FRAME_HEIGHT, height), (cv2.CAP_PROP_FPS, fps)):
        if value is not None:
            capture.set(setting, value)
    readable, first = capture.read()
    if not readable:
        capture.release()
        raise SourceError(f"source '{spec}': camera /dev/video{number} gives no picture; another program may hold it, "
                          'or this user may not read it (sudo usermod -aG video $USER)')
    width, height = _target(first.shape[1], first.shape[0], width, height)
    own_fps = capture.get(cv2.CAP_PROP_FPS)
    fps = float(fps or (own_fps if 0 < own_fps <= 1000 else 30.0))
    return Source(spec, _video_frames(spec, capture, first, width, height, False), width, height, fps, None, capture.release,
                  endless=True)


def _cameras_here():
    cameras = sorted(str(p) for p in Path('/dev').glob('video*'))
    return f"cameras here: {', '.join(cameras)}" if cameras else 'this machine has no camera; to go on without one, use street'


def _open_demo(width, height, fps, loop):
    width, height = _target(640, 480, width, height)
    fps = float(fps or 30.0)
    camera = _street_camera('demo', width, height, 0, fps)
    street, photo = (round(seconds * fps) for seconds in DEMO_SECONDS)
    path = find_photograph()
    if path is None:
        warnings.warn(f'demo: the street only, since no package with a photograph is installed; to see it too: {INSTALL}', stacklevel=3)
        picture, photo = None, 0
    else:
        picture = _read_image(path)

    def frame(number):
        if number < street:
            return camera.render(number)[0]
        return _pan(picture, (number - street) / max(1, photo - 1), width, height)

    total = street + photo
    numbers = (n % total for n in itertools.count()) if loop else range(total)
    return Source('demo', (frame(n) for n in numbers), width, height, fps, None if loop else total, endless=loop)


def _pan(picture, progress, width, height):
    """Show part of a picture through a window that moves along its longer side and closes in; progress 0 to 1."""
    tall, wide = picture.shape[:2]
    ease = progress * progress * (3 - 2 * progress)
    scale = min(wide / width, tall / height) * (1 - 0.18 * ease)
    x = (wide - width * scale) * (0.5 if tall * width > wide * height else ease)
    y = (tall - height * scale) * (ease if tall * width > wide * height else 0.5)
    window = np.float32([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]])
    # Averaging first keeps a large photograph from shimmering while the window moves.
    if scale > 2:
        factor = 1 / int(scale)
        return _pan(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), progress, width, height)
    return cv2.warpAffine(picture, window, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
