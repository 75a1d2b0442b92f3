"""Folder of masks, overlays and classes.json that segmenting files writes."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.atomic_write import atomic_write
from ..utils.label_values import UNLABELLED
from ..vocabulary.vocabulary import Vocabulary
from .overlay import draw_overlay

VIDEO_FILE = 'overlay.mp4'
CLASSES_FILE = 'classes.json'


class ClassShare(TypedDict):
    """A class in classes.json. `share` is its share of all pixels, 0 to 1."""

    id: int
    name: str
    phrases: list[str]
    share: float


class UnlabelledShare(TypedDict):
    """The pixels without a class in classes.json."""

    id: int
    share: float


class Summary(TypedDict):
    """Content of classes.json.

    `video` tells whether the masks are frames of a video, `frames` how many images were segmented, `threshold` the
    minimum confidence of a labelled pixel.
    """

    video: bool
    frames: int
    confidence_threshold: float
    classes: list[ClassShare]
    unlabelled: UnlabelledShare


class OutputFolder:
    """Writes masks and overlays of one run, and counts the pixels of every class.

    Attributes:
        path: the folder.
        video: whether the input is a video.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, alpha: float, video: bool) -> None:
        """Nothing is written or created yet.

        Args:
            path: the folder.
            vocabulary: the classes of the masks.
            alpha: opacity of the classes in overlays, 0 to 1.
            video: whether the input is a video.
        """
        self.path, self.video = path, video
        self._vocabulary, self._alpha = vocabulary, alpha
        self._counts = np.zeros(256, np.int64)
        self._frames = 0

    def check_input(self, source: Path, images: Sequence[Path]) -> None:
        """Raise ValueError if the input lies where the output is written.

        Args:
            source: path of the input.
            images: image files of the input; empty for a video.
        """
        written = {(self.path / name).resolve() for name in ('mask', 'overlay')}
        if source.resolve() == (self.path / VIDEO_FILE).resolve() or {p.resolve().parent for p in images} & written:
            raise ValueError(f'{source} is a file that would be overwritten in {self.path}; give another `out`')

    def stale_masks(self, images: Sequence[Path]) -> set[Path]:
        """Find masks of an earlier run that must be removed, so that classes.json is true for all that remain.

        They are the frames of an earlier video and, if the classes have changed, the masks that are written again.

        Args:
            images: image files of the input; empty for a video.

        Returns:
            Files in mask/.

        Raises:
            ValueError: masks of other images with other classes would remain, or images that no run has written.
        """
        present = {path for path in (self.path / 'mask').glob('*.png') if path.is_file()}
        own = {self.path / 'mask' / f'{name}.png' for name in mask_names(images)}
        if not present:
            return present
        try:
            earlier = json.loads((self.path / CLASSES_FILE).read_text())
            classes = {entry['id']: entry['name'] for entry in earlier['classes']}
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f'{self.path}/mask holds images that no earlier run has written; '
                             'give another `out`') from None
        same = classes == dict(zip(self._vocabulary.ids, self._vocabulary.names, strict=True))
        frames = {path for path in present if re.fullmatch(r'\d{6}', path.stem)} if earlier.get('video') else set()
        if not same and present - own - frames:
            raise ValueError(f'{self.path}/mask holds masks of other images with other classes; give another `out`, '
                             'or remove it')
        return frames if same else present

    def draw(self, image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Count the pixels of a mask and draw its overlay.

        Args:
            image: BGR, uint8 [H, W, 3].
            mask: class ids, uint8 [H, W], 255 unlabelled.

        Returns:
            The overlay, BGR, uint8 [H, W, 3].
        """
        self._counts += np.bincount(mask.ravel(), minlength=256)
        self._frames += 1
        return draw_overlay(image, mask, self._vocabulary.names, self._vocabulary.ids, self._alpha)

    def summary(self) -> Summary:
        """Return the content of classes.json so far."""
        shares = [round(float(share), 5) for share in self._counts / max(self._counts.sum(), 1)]
        return {'video': self.video, 'frames': self._frames,
                'confidence_threshold': self._vocabulary.confidence_threshold,
                'classes': [{'id': i, 'name': spec.name, 'phrases': list(spec.phrases), 'share': shares[i]}
                            for spec, i in zip(self._vocabulary.specs, self._vocabulary.ids, strict=True)],
                'unlabelled': {'id': UNLABELLED, 'share': shares[UNLABELLED]}}

    def write_classes(self) -> None:
        """Write classes.json so far. Raises OSError."""
        with atomic_write(self.path / CLASSES_FILE) as partial:
            partial.write_text(json.dumps(self.summary(), indent=2) + '\n')


def mask_names(images: Sequence[Path]) -> list[str]:
    """Return the file names of masks, without .png.

    Args:
        images: image files, e.g. a.jpg, b.jpg and b.png.

    Returns:
        Their names without suffix, but with it where two images would share a mask: a, b.jpg and b.png.
    """
    stems = Counter(path.stem for path in images)
    return [path.stem if stems[path.stem] == 1 else path.name for path in images]


def write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write an image file. Raises ValueError naming it where OpenCV cannot write it."""
    if not cv2.imwrite(str(path), image):
        raise ValueError(f'{path} cannot be written: the disk may be full; free space, or give another `out`')
