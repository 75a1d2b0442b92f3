"""Segment image files, folders of them, videos and cameras, and write the results to a folder."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..vocabulary.vocabulary import Vocabulary
from .images import find_images, read_image
from .output_folder import VIDEO_FILE, OutputFolder, Summary, mask_names, write_image
from .sources import Source, open_source
from .video_writer import open_video_writer

Predictor = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
"""Function from an image, BGR uint8 [H, W, 3], to class ids, uint8 [H, W], 255 unlabelled."""


class Progress(Protocol):
    """Wraps a loop to show its progress, as tqdm does."""

    def __call__(self, items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
        """Return an iterable over the same items; `total` is their number, None if unknown."""


def no_progress(items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
    """Show nothing."""
    return items


def segment_files(input: str, out: str | Path, vocabulary: Vocabulary, make_predictor: Callable[[], Predictor], *,
                  alpha: float = 0.5, max_frames: int | None = None, masks: bool = False,
                  progress: Progress = no_progress) -> Summary:
    """Segment an input and write the results to a folder.

    Images give overlay/NAME.png and mask/NAME.png, a video gives overlay.mp4 and, with `masks`, mask/000000.png and so
    on. A mask is an 8-bit PNG of class ids, 255 unlabelled. classes.json holds ids, names and each class's share of
    the pixels. It is written first and last, so that no mask is without its names after an interrupt.

    Args:
        input: an image, a folder of images, or any source of `open_source`.
        out: the folder, created where it is missing. Masks of an earlier run there may remain if they have the same
            classes.
        vocabulary: the classes.
        make_predictor: creates the function that segments an image. Called once, after everything else was checked.
        alpha: opacity of the classes in overlays, 0 to 1.
        max_frames: stop a video or camera after this many frames, at least 1; needed for an input without an end.
        masks: write the mask of every frame of a video.
        progress: shows the progress.

    Returns:
        The content of classes.json.

    Raises:
        ValueError: an argument is out of range, the input cannot be read or would be overwritten, or the folder holds
            masks of other images with other classes.
        OSError: the folder cannot be written.
    """
    _check(input, alpha, max_frames)
    path = Path(input).expanduser()
    images = find_images(path)
    folder = OutputFolder(Path(out).expanduser(), vocabulary, alpha, video=not images)
    with ExitStack() as stack:
        source = None if images else stack.enter_context(open_source(input))
        if source and source.endless and max_frames is None:
            raise ValueError(f'{input} has no end; give `max_frames`')
        folder.check_input(path, images)
        stale = folder.stale_masks(images)
        predict = make_predictor()
        for file in stale:
            file.unlink()
        folder.write_classes()
        stack.callback(folder.write_classes)
        if source is None:
            _segment_images(predict, images, folder, progress)
        else:
            _segment_video(predict, source, folder, max_frames, masks, progress)
    return folder.summary()


def _check(input: str, alpha: float, max_frames: int | None) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is {alpha:g}; give an opacity of 0 to 1')
    if max_frames is not None and max_frames < 1:
        raise ValueError(f'max_frames is {max_frames}; give at least 1')
    if not input.strip():   # an unset shell variable; its path would be the current folder
        raise ValueError('input is empty; give an image, a folder of images, a video, a camera or street')


def _segment_images(predict: Predictor, paths: list[Path], folder: OutputFolder, progress: Progress) -> None:
    """Write mask and overlay of every image, at its own size. Raises ValueError naming one that cannot be decoded."""
    for name in ('mask', 'overlay'):
        (folder.path / name).mkdir(exist_ok=True)
    for path, name in progress(list(zip(paths, mask_names(paths), strict=True)), len(paths), 'image'):
        image = read_image(path)
        if image is None:
            raise ValueError(f'{path} cannot be decoded; convert it to JPEG or PNG, or remove it')
        mask = predict(image)
        write_image(folder.path / 'mask' / f'{name}.png', mask)
        write_image(folder.path / 'overlay' / f'{name}.png', folder.draw(image, mask))


def _segment_video(predict: Predictor, source: Source, folder: OutputFolder, max_frames: int | None, masks: bool,
                   progress: Progress) -> None:
    """Write overlay.mp4 of an opened source and, with `masks`, mask/NUMBER.png."""
    if masks:
        (folder.path / 'mask').mkdir(exist_ok=True)
    video = open_video_writer(folder.path / VIDEO_FILE, source.fps, (source.width, source.height))
    try:
        # A container's frame count is an estimate: it is for the progress only.
        total = min(filter(None, (source.frame_count, max_frames)), default=None)
        for number, frame in enumerate(progress(islice(source, max_frames), total, 'frame')):
            mask = predict(frame)
            video.write(folder.draw(frame, mask))
            if masks:
                write_image(folder.path / 'mask' / f'{number:06}.png', mask)
    finally:
        video.release()
