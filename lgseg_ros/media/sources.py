"""Image sources by name: the procedural street, a photograph, an image, a folder of images, a video, a camera."""

import difflib
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from ..demo.street import StreetCamera
from .images import (
    IMAGE_SUFFIXES,
    INSTALL_PHOTOGRAPH,
    crop_and_resize,
    find_images,
    find_photograph,
    fit_size,
    pan,
    read_image,
)

ImageFrame = npt.NDArray[np.uint8]
"""One BGR frame, uint8 [height, width, 3]."""

DEFAULT_SIZE = (640, 480)
"""(width, height) of street and demo, pixels."""
STILL_SECONDS = 10.0
"""How long a single image is shown when it is not looped."""
DEMO_SECONDS = (10.0, 3.0)
"""Length of the demo's two parts: the street, the photograph."""
GENERATED = ('street', 'photo', 'demo')
"""Names of sources that need no file or device."""


class SourceError(ValueError):
    """A source cannot be opened. The message names it, the reason and a fix."""


class Source:
    """Frames of one source, in order and once.

    Iterating yields BGR frames, uint8 [height, width, 3]. Nothing here waits: pacing is the player's.
    Use it in a `with` block, or call close().

    Attributes:
        name: what it was opened from.
        width: width of every frame, pixels.
        height: height of every frame, pixels.
        fps: rate at which the frames are meant to be shown, frames per second.
        frame_count: number of frames; None where it is endless or not known.
        endless: whether the frames never end: a camera, the street, whatever is looped.
    """

    def __init__(self, name: str, frames: Iterator[ImageFrame], size: tuple[int, int], fps: float,
                 frame_count: int | None = None, release: Callable[[], None] | None = None,
                 endless: bool = False) -> None:
        """Take over an iterator of frames.

        Args:
            name: what it was opened from.
            frames: BGR frames, uint8 [height, width, 3].
            size: (width, height) of every frame, pixels.
            fps: frames per second.
            frame_count: number of frames, or None.
            release: called once by close().
            endless: whether the frames never end.
        """
        self.name, (self.width, self.height), self.fps = name, size, fps
        self.frame_count, self.endless = frame_count, endless
        self._frames, self._release = frames, release

    def __iter__(self) -> Iterator[ImageFrame]:
        """Return the one iterator over the frames."""
        return self._frames

    def __enter__(self) -> 'Source':
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """Release files and devices; iteration ends. May be called twice."""
        self._frames = iter(())
        if self._release is not None:
            self._release()
            self._release = None


@dataclass(frozen=True)
class _Request:
    """What the caller of `open_source` asked for."""

    spec: str
    width: int | None
    height: int | None
    fps: float | None
    loop: bool

    def size(self, own: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) for a source of its own (width, height)."""
        return fit_size(own, self.width, self.height)

    def rate(self, default: float) -> float:
        """Return the frame rate for a source with a default rate."""
        return float(self.fps or default)

    def numbers(self, count: int) -> Iterator[int]:
        """Yield 0 to count - 1, again and again with `loop`."""
        return (number % count for number in itertools.count()) if self.loop else iter(range(count))


def open_source(spec: str | Path, *, width: int | None = None, height: int | None = None, fps: float | None = None,
                loop: bool = False) -> Source:
    """Open a source of camera frames.

    Args:
        spec: `street` or `street:SEED` (procedural, endless), `photo` (a real photograph), `demo` (10 s of street,
            3 s of photograph), the path of a video, an image or a folder of images (in natural order), or a camera:
            `/dev/video0` or `0`.
        width: frame width, 16 to 8192 pixels. With only one of width and height the aspect ratio is kept; with both,
            the frame is cropped. None keeps the source's own size (street and demo: 640x480).
        height: frame height, 16 to 8192 pixels.
        fps: frames per second, above 0 and at most 1000. None: the rate of the video or device; 30 for street, demo
            and images; 10 for a folder.
        loop: start again at the end, for ever.

    Returns:
        The opened source.

    Raises:
        SourceError: there is no such source, it cannot be read, or a number is out of range.
    """
    request = _Request(str(spec).strip(), width, height, fps, loop)
    _check_numbers(request)
    kind, _, suffix = request.spec.partition(':')
    if kind in GENERATED and not Path(request.spec).exists():
        return _open_generated(request, kind, suffix)
    if re.fullmatch(r'\d+|/dev/video\d+', request.spec):
        return _open_device(request)
    path = Path(request.spec).expanduser()
    if request.spec and path.is_dir():
        return _open_folder(request, path)
    if not path.is_file():
        raise SourceError(_unknown_source(request.spec, path))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_still(request, str(path), _decode(path))
    return _open_video(request, path)


def _check_numbers(request: _Request) -> None:
    for name, value in (('width', request.width), ('height', request.height)):
        if value is not None and not 16 <= value <= 8192:
            raise SourceError(f"source '{request.spec}': {name} is {value}; give 16 to 8192 pixels")
    if request.fps is not None and not 0 < request.fps <= 1000:
        raise SourceError(f"source '{request.spec}': fps is {request.fps}; give a rate above 0 and up to 1000")


def _unknown_source(spec: str, path: Path) -> str:
    """Build the error message for a value that is no file and no generated source, with the closest match."""
    known = difflib.get_close_matches(spec.partition(':')[0].lower(), GENERATED, 1, 0.6)
    beside: list[str] = []
    if path.parent.is_dir():
        names = [p.name for p in itertools.islice(path.parent.iterdir(), 1000)]
        beside = difflib.get_close_matches(path.name, names, 1, 0.6)
    match = known[0] if known else path.parent / beside[0] if beside else None
    hint = f"; did you mean '{match}'?" if match else '.'
    return (f"source '{spec}': no such file, folder or camera{hint} Give a video, an image, a folder of images, "
            "a camera (0 or /dev/video0), street, street:SEED, photo or demo.")


def _decode(path: Path) -> ImageFrame:
    image = read_image(path)
    if image is None:
        raise SourceError(f"source '{path}': this image cannot be decoded; convert it to JPEG or PNG")
    return image


def _open_generated(request: _Request, kind: str, suffix: str) -> Source:
    spec = request.spec
    if kind == 'street':
        if suffix and not re.fullmatch(r'-?\d+', suffix):
            raise SourceError(f"source '{spec}': '{suffix}' is not a seed; give an integer, as in street:7")
        camera = _street_camera(request, int(suffix or 0))
        frames = (camera.render(index)[0] for index in itertools.count())
        return Source(spec, frames, (camera.width, camera.height), camera.fps, endless=True)
    if suffix:
        raise SourceError(f"source '{spec}': '{kind}' takes no ':{suffix}'; write only {kind}")
    if kind == 'demo':
        return _open_demo(request)
    path = find_photograph()
    if path is None:
        raise SourceError(f"source 'photo': no package with a photograph is installed; run: {INSTALL_PHOTOGRAPH}")
    return _open_still(request, 'photo', _decode(path))


def _street_camera(request: _Request, seed: int) -> StreetCamera:
    try:
        return StreetCamera(*request.size(DEFAULT_SIZE), seed, request.rate(30.0))
    except ValueError as error:
        raise SourceError(f"source '{request.spec}': {error}") from None


def _open_demo(request: _Request) -> Source:
    camera = _street_camera(request, 0)
    street, photo = (round(seconds * camera.fps) for seconds in DEMO_SECONDS)
    path = find_photograph()
    if path is None:
        warnings.warn('demo: no package with a photograph is installed, so only the street is shown; '
                      f'to show the photograph as well, run: {INSTALL_PHOTOGRAPH}', stacklevel=4)
    image = None if path is None else _decode(path)
    total = street if image is None else street + photo

    def frame(number: int) -> ImageFrame:
        if image is None or number < street:
            return camera.render(number)[0]
        return pan(image, (number - street) / max(1, photo - 1), camera.width, camera.height)

    return Source('demo', (frame(number) for number in request.numbers(total)), (camera.width, camera.height),
                  camera.fps, None if request.loop else total, endless=request.loop)


def _open_still(request: _Request, name: str, image: ImageFrame) -> Source:
    size, fps = request.size((image.shape[1], image.shape[0])), request.rate(30.0)
    frame = crop_and_resize(image, *size)
    count = max(1, round(STILL_SECONDS * fps))
    # A consumer may draw on its frame, so each one is its own copy.
    frames = (frame.copy() for _ in request.numbers(count))
    return Source(name, frames, size, fps, None if request.loop else count, endless=request.loop)


def _open_folder(request: _Request, folder: Path) -> Source:
    paths = find_images(folder)
    if not paths:
        raise SourceError(f"source '{folder}': the folder holds no images; "
                          f"give one with {', '.join(IMAGE_SUFFIXES)} files directly in it")
    first = _decode(paths[0])
    size = request.size((first.shape[1], first.shape[0]))
    frames = (crop_and_resize(_decode(paths[number]), *size) for number in request.numbers(len(paths)))
    count = None if request.loop else len(paths)
    return Source(str(folder), frames, size, request.rate(10.0), count, endless=request.loop)


def _open_video(request: _Request, path: Path) -> Source:
    capture = cv2.VideoCapture(str(path))
    readable, first = capture.read()
    if not readable:
        capture.release()
        raise SourceError(f"source '{path}': OpenCV can read neither an image nor a video from this file; convert it, "
                          f"for example: ffmpeg -i {path.name} -c:v libx264 -pix_fmt yuv420p readable.mp4")
    size = request.size((first.shape[1], first.shape[0]))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))   # 0 or less where the container does not hold it
    frames = _read_frames(capture, first.astype(np.uint8, copy=False), size, str(path) if request.loop else None)
    return Source(str(path), frames, size, request.rate(_capture_fps(capture)),
                  None if request.loop or count <= 0 else count, capture.release, endless=request.loop)


def _capture_fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps <= 1000 else 30.0


def _read_frames(capture: cv2.VideoCapture, first: ImageFrame, size: tuple[int, int],
                 reopen: str | None) -> Iterator[ImageFrame]:
    """Yield the first frame and all that follow; with the path `reopen`, again and again."""
    readable, frame = True, first
    while readable:
        yield crop_and_resize(frame, *size)
        readable, image = capture.read()
        if not readable and reopen:
            # Opening again works for every container; seeking to frame 0 does not.
            capture.open(reopen)
            readable, image = capture.read()
        if readable:
            frame = image.astype(np.uint8, copy=False)


def _open_device(request: _Request) -> Source:
    number = int(request.spec.replace('/dev/video', ''))
    if not Path(f'/dev/video{number}').exists():
        raise SourceError(f"source '{request.spec}': camera /dev/video{number} does not exist; {_available_cameras()}")
    capture = cv2.VideoCapture(number)
    for setting, value in ((cv2.CAP_PROP_FRAME_WIDTH, request.width), (cv2.CAP_PROP_FRAME_HEIGHT, request.height),
                           (cv2.CAP_PROP_FPS, request.fps)):
        if value is not None:
            capture.set(setting, value)
    readable, first = capture.read()
    if not readable:
        capture.release()
        raise SourceError(f"source '{request.spec}': camera /dev/video{number} delivers no image; another program may "
                          'hold it, or this user may not read it (sudo usermod -aG video $USER)')
    size = request.size((first.shape[1], first.shape[0]))
    frames = _read_frames(capture, first.astype(np.uint8, copy=False), size, None)
    return Source(request.spec, frames, size, request.rate(_capture_fps(capture)), None, capture.release, endless=True)


def _available_cameras() -> str:
    cameras = sorted(str(p) for p in Path('/dev').glob('video*'))
    return (f"cameras on this machine: {', '.join(cameras)}" if cameras
            else 'this machine has no camera; use street to go on without one')
