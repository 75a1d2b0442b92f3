"""The public Python API. It needs no ROS.

Examples:
    >>> import cv2
    >>> from lgseg_ros import Segmenter
    >>> segmenter = Segmenter('lgseg_lite0', vocabulary=['road', 'person', 'vehicle=car|truck'])
    >>> result = segmenter.segment(cv2.imread('street.jpg'))
    >>> result.mask.shape, result.mask.dtype
    ((720, 1280), dtype('uint8'))
    >>> cv2.imwrite('overlay.png', result.overlay())
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .engines.base import EngineOptions
from .engines.preprocessing import DEFAULT_PIXELS, Frame
from .engines.selection import EngineWithFallback
from .media.overlay import draw_overlay
from .model.weights import DEFAULT_WEIGHTS, WeightsError, load_weights
from .pipeline import SegmentationPipeline
from .utils.label_values import UNLABELLED
from .vocabulary.classes import VocabularyError
from .vocabulary.presets import DEFAULT_PRESET
from .vocabulary.vocabulary import Vocabulary

__all__ = ['UNLABELLED', 'ClassInfo', 'EngineInfo', 'SegmentationResult', 'Segmenter', 'Vocabulary', 'VocabularyError',
           'WeightsError']

BgrImage = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], BGR, as cv2.imread and cv2.VideoCapture return it."""


class ClassInfo(NamedTuple):
    """A class of the vocabulary that an image was segmented with.

    Attributes:
        id: its value in the mask, 0 to 254. A name keeps its id as long as the `Segmenter` lives.
        name: the name that was given.
        phrases: the phrases that it was recognised by.
    """

    id: int
    name: str
    phrases: tuple[str, ...]


class EngineInfo(NamedTuple):
    """The inference engine that runs.

    Attributes:
        name: 'onnxruntime', 'openvino', 'torch' or 'tensorrt'.
        precision: 'fp32', 'fp16' or 'int8'.
        description: one line with device, precision and weights file.
    """

    name: str
    precision: str
    description: str


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The segmentation of one image.

    Attributes:
        mask: class ids, uint8 [H, W]; 255 (`UNLABELLED`) where the confidence is below the threshold.
        confidence: probability of the class of each pixel among the vocabulary, uint8 [H, W], 255 is probability 1.
        classes: the vocabulary, in the order given.
        vocabulary_version: of that vocabulary; it counts up with every change.
        image: the image that was segmented, BGR uint8 [H, W, 3]. Not a copy of
            an array that is contiguous: `overlay` shows its present content.
    """

    mask: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8]
    classes: tuple[ClassInfo, ...]
    vocabulary_version: int
    image: BgrImage = field(repr=False)

    def pixels_of(self, name: str) -> npt.NDArray[np.bool_]:
        """Return the pixels of one class.

        Args:
            name: name of a class of the vocabulary.

        Returns:
            bool [H, W].

        Raises:
            ValueError: the vocabulary has no such class.

        Examples:
            >>> result.pixels_of('road').mean()   # its share of the image
            0.31
        """
        ids = {info.name: info.id for info in self.classes}
        if name not in ids:
            raise ValueError(f'class {name!r} is not in the vocabulary; it has: {", ".join(ids)}')
        pixels: npt.NDArray[np.bool_] = self.mask == ids[name]
        return pixels

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> BgrImage:
        """Blend the mask over the image.

        Args:
            alpha: opacity of the classes, 0 to 1.
            legend: draw the names of the classes in view.

        Returns:
            A new image, BGR uint8 [H, W, 3].
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha is {alpha:g}; give an opacity of 0 to 1')
        names, ids = [info.name for info in self.classes], [info.id for info in self.classes]
        return draw_overlay(self.image, self.mask, names, ids, alpha, legend)


class Segmenter:
    """Segments images by a vocabulary that may change at any time.

    It is safe to use from several threads; images are segmented one after the other. A vocabulary is replaced
    atomically: every image is segmented with exactly one.

    Examples:
        >>> with Segmenter(vocabulary=['road', 'person'], engine='auto') as segmenter:
        ...     result = segmenter.segment(image)
        ...     segmenter.set_vocabulary(['road', 'bicycle', 'vehicle=car|truck'])
        ...     result = segmenter.segment(image)
        >>> [(info.id, info.name) for info in result.classes]
        [(0, 'road'), (2, 'bicycle'), (3, 'vehicle')]
    """

    def __init__(self, weights: str | Path = DEFAULT_WEIGHTS, vocabulary: Iterable[str] | None = None, *,
                 preset: str = '', engine: str = 'auto', precision: str = 'auto', num_threads: int = 0,
                 max_inference_pixels: int = DEFAULT_PIXELS, confidence_threshold: float = 0.0) -> None:
        """Load weights and engine, and run the network once to warm up.

        Args:
            weights: name of shipped weights, or path of a .safetensors file with its .json and .onnx.
            vocabulary: the classes, each 'name' or 'name=phrase|phrase'; at most 255 phrases in all.
            preset: named vocabulary: 'camvid', 'cityscapes', 'autoware' or 'nav2'. With `vocabulary`, it gives the ids
                and phrases of the classes that it knows. Without both, 'camvid' is taken.
            engine: 'auto' (the fastest that is ready here), 'onnxruntime', 'openvino', 'torch' or 'tensorrt'. If one
                that was named does not work here, the next one is used, with a warning in Python's logging.
            precision: 'auto', 'fp32', 'fp16' or 'int8'.
            num_threads: CPU threads of the engine, 0 for all cores that this process may use.
            max_inference_pixels: pixels of the image that the network sees, at least 4096. Larger images are
                downsampled to it; masks have the size of the image. Fewer is faster.
            confidence_threshold: minimum confidence of a labelled pixel, 0 to 1.

        Raises:
            WeightsError: the weights are missing or damaged, or no engine can run them here.
            VocabularyError: the vocabulary cannot be used, e.g. a phrase is unknown and CLIP is not installed.
            ValueError: another argument is out of range.
        """
        options = EngineOptions(engine, precision, num_threads, max_inference_pixels)
        self._lock = threading.Lock()   # of the engine, which has buffers of its own
        self._closed = False
        self._pipeline = SegmentationPipeline(load_weights(weights))
        self.set_vocabulary(vocabulary, preset=preset, confidence_threshold=confidence_threshold)
        self._pipeline.load_engine(options)

    def segment(self, image: BgrImage) -> SegmentationResult:
        """Segment one image.

        Args:
            image: BGR uint8 [H, W, 3], of any size.

        Returns:
            Mask and confidence at the size of the image.

        Raises:
            TypeError: `image` is not a NumPy array.
            ValueError: its dtype or shape is another, or it is empty.
            RuntimeError: the segmenter is closed.
        """
        return self.segment_batch([image])[0]

    def segment_batch(self, images: Sequence[BgrImage]) -> list[SegmentationResult]:
        """Segment several images with the same vocabulary.

        Images of one size that follow each other share a run of the network where the engine gains by it: on a GPU.

        Args:
            images: each BGR uint8 [H, W, 3]; sizes may differ.

        Returns:
            A result for each image, in the same order.

        Raises:
            TypeError: an image is not a NumPy array.
            ValueError: the dtype or shape of an image is another, or it is empty.
            RuntimeError: the segmenter is closed.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise ValueError(f'images is one array of shape {images.shape}; give a list of images, or use segment()')
        frames = [Frame(_check_image(image), 'bgr') for image in images]
        results: list[SegmentationResult] = []
        with self._lock:
            vocabulary = self.vocabulary
            for batch in _batches(frames, self._open_engine().batch):
                masks = self._pipeline.run(batch, vocabulary)
                results += [SegmentationResult(mask.ids, mask.confidence, _class_infos(vocabulary), vocabulary.version,
                                               frame.pixels) for frame, mask in zip(batch, masks, strict=True)]
        return results

    def set_vocabulary(self, vocabulary: Iterable[str] | None = None, *, preset: str = '',
                       confidence_threshold: float | None = None) -> tuple[ClassInfo, ...]:
        """Replace the vocabulary, atomically.

        An id is never given to another name as long as this segmenter lives, so that masks of before keep their
        meaning. New phrases are embedded by CLIP, which takes seconds, and are then in the user's cache.

        Args:
            vocabulary: the classes, each 'name' or 'name=phrase|phrase'; at most 255 phrases in all.
            preset: named vocabulary, see `Segmenter`. Without `vocabulary` its classes; without both, 'camvid'.
            confidence_threshold: minimum confidence of a labelled pixel, 0 to 1; None keeps the present one.

        Returns:
            The classes with their ids.

        Raises:
            VocabularyError: names the value, the reason and the fix. The old vocabulary is still current.

        Examples:
            >>> segmenter.set_vocabulary(['road', 'vehicle=car|truck'])
            (ClassInfo(id=0, name='road', phrases=('road',)), ClassInfo(id=1, name='vehicle', phrases=('car', 'truck')))
            >>> segmenter.set_vocabulary(preset='nav2')
        """
        if isinstance(vocabulary, str):
            raise VocabularyError(f'vocabulary is the text {vocabulary[:40]!r}; give a list of classes, '
                                  f'for example {[part.strip() for part in vocabulary[:40].split(",")]}')
        if vocabulary is None and not preset:
            preset = DEFAULT_PRESET
        if confidence_threshold is not None and not 0 <= confidence_threshold <= 1:
            raise VocabularyError(f'confidence_threshold is {confidence_threshold:g}; give a confidence of 0 to 1')
        current = self._open_pipeline().set_vocabulary(vocabulary or (), preset, confidence_threshold)
        if current.warning:
            logging.getLogger(__name__).warning(current.warning)
        return _class_infos(current)

    @property
    def vocabulary(self) -> Vocabulary:
        """The current vocabulary, an immutable snapshot: `names`, `ids`, `texts`, `version`, `preset`."""
        vocabulary = self._pipeline.vocabulary
        assert vocabulary is not None, 'the constructor sets one'
        return vocabulary

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The classes of the current vocabulary with their ids, in the order given."""
        return _class_infos(self.vocabulary)

    @property
    def engine(self) -> EngineInfo:
        """The engine that runs; RuntimeError once the segmenter is closed."""
        engine = self._open_engine()
        return EngineInfo(engine.NAME, engine.precision, engine.summary())

    def close(self) -> None:
        """Release the engine and its device memory, after the image in hand. To close again does nothing."""
        with self._lock:
            self._closed = True
            self._pipeline.close()

    def __enter__(self) -> 'Segmenter':
        """Return itself; the segmenter is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return engine and vocabulary in one line."""
        engine = 'closed' if self._closed else self.engine.description
        return f'Segmenter({engine}; {self.vocabulary})'

    def _open_pipeline(self) -> SegmentationPipeline:
        if self._closed:
            raise RuntimeError('this Segmenter is closed; create another one')
        return self._pipeline

    def _open_engine(self) -> EngineWithFallback:
        engine = self._open_pipeline().engine
        assert engine is not None, 'the constructor loads an engine'
        return engine


def _class_infos(vocabulary: Vocabulary) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(i, spec.name, spec.phrases)
                 for spec, i in zip(vocabulary.specs, vocabulary.ids, strict=True))


def _batches(frames: list[Frame], max_batch: int) -> Iterable[list[Frame]]:
    """Yield the frames in order, those of one size that follow each other together, at most `max_batch`."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == max_batch or frame.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def _check_image(image: BgrImage) -> BgrImage:
    """Return the image, contiguous in memory. Raises TypeError or ValueError with the fix."""
    wanted = 'give uint8 [H, W, 3] in BGR order, as cv2.imread returns'
    if image is None:
        raise TypeError(f'image is None; cv2.imread returns None for a file that it cannot read; {wanted}')
    if not isinstance(image, np.ndarray):
        raise TypeError(f'image is of type {type(image).__name__}; {wanted}')
    if image.ndim == 2 or image.shape[2:] == (1,):
        raise ValueError(f'image has shape {image.shape}, one channel; cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) gives '
                         'three')
    if image.shape[2:] == (4,):
        raise ValueError(f'image has shape {image.shape}, four channels; cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) gives '
                         'three')
    if image.ndim == 4:
        raise ValueError(f'image has shape {image.shape}, a batch; use segment_batch()')
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'image has shape {image.shape}; {wanted}')
    if not image.size:
        raise ValueError(f'image has shape {image.shape}, no pixels; {wanted}')
    if image.dtype != np.uint8:
        raise ValueError(f'image has dtype {image.dtype}; {wanted} (from values of 0 to 1: '
                         '(image * 255).astype("uint8"))')
    return np.ascontiguousarray(image)
