"""The golden self-test of an engine: does it still give the masks that torch gave in fp32 at export?

An engine calls `SelfTest.check` after it has loaded, and again after every new compilation for an image size.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.paths import cache_folder
from ..vocabulary.vocabulary import Vocabulary
from .cache_key import cache_key
from .preprocessing import Frame, Mask, to_network, to_output
from .base import EngineError
from .self_test_data import (
    GoldenData,
    Size,
    fix,
    mask_tensors,
    read_golden,
    read_masks,
    read_tensors,
    self_test_path,
    write_tensors,
)
from .weights import Weights, WeightsError

LOG = logging.getLogger(__name__)
MIN_AGREEMENT = {'fp32': 0.99}        # share of pixels with the expected id, for every vocabulary
MIN_AGREEMENT_ROUNDED = 0.97          # of engines that round to fewer bits: fp16, bf16, int8
MAX_CONFIDENCE_ERROR = 0.03           # mean absolute difference of confidences, 0..1
# Below this size the deepest maps have a few cells, and int8 alone changes up to 14 % of the pixels; what is broken
# changes most of them.
TINY = 144 * 192                      # pixels
MIN_AGREEMENT_TINY, MAX_CONFIDENCE_ERROR_TINY = 0.80, 0.10
BUDGET_MS = 100.0                     # no further vocabulary is begun that would not end within it

Run = Callable[[npt.NDArray[np.uint8], Vocabulary], Mask]


class SelfTestError(EngineError):
    """An engine whose masks are not those of the weights; the message says by how much."""


class SelfTestResult(NamedTuple):
    """Of one network size: the worst vocabulary's agreement and confidence error, and the time of all in all."""

    size: Size                 # (height, width) in pixels
    agreement: float           # share of pixels with the expected id, 0..1
    confidence_error: float    # mean absolute difference, 0..1
    milliseconds: float
    vocabularies: int          # how many were run within the budget

    def __str__(self) -> str:
        return (f'{100 * self.agreement:.2f} % of the pixels agree at {self.size[1]}x{self.size[0]}, '
                f'{self.milliseconds:.0f} ms')


class SelfTest:
    """Holds an engine against the golden data of its weights.

    Attributes:
        results: the `SelfTestResult`s of all tests that passed, in order.
        skipped: why the engine, or one of its sizes, was not tested; '' where all were.
    """

    def __init__(self, weights: Weights, engine: str, precision: str, num_threads: int = 0) -> None:
        """Read the golden data.

        Args:
            weights: from `load_weights`.
            engine: its name, for messages.
            precision: what it computes in: fp32, fp16 or int8.
            threads: of ONNX Runtime, where it has to compute what is expected; 0 for all cores.

        Raises:
            WeightsError: the self-test's file is damaged or was made for other weights.
        """
        self._weights, self._threads = weights, num_threads
        self._label = f'{engine} in {precision}'
        self._precision = precision
        self._golden = read_golden(weights)
        self.results: list[SelfTestResult] = []
        self.skipped = ''
        if self._golden is None:
            self.skipped = f'{self_test_path(weights)} is missing; {fix(weights.path)}'
            _warn_once(f'no engine of these weights is tested: {self.skipped}')

    @property
    def passed(self) -> bool:
        """Whether every size that the engine has compiled was tested, and passed."""
        return bool(self.results) and not self.skipped

    @property
    def worst(self) -> SelfTestResult | None:
        """The result of the least agreement, None before the first."""
        return min(self.results, key=lambda result: result.agreement, default=None)

    def __str__(self) -> str:
        """One line for logs and diagnostics."""
        tested = f'passed: {self.worst}' if self.worst else ''
        skipped = f'not tested: {self.skipped}' if self.skipped else ''
        return '; '.join(filter(None, (tested, skipped))) or 'not tested yet'

    def check(self, size: Size, run: Run, max_phrases: int | None = None) -> bool:
        """Run the golden image at a network size and judge the masks.

        Args:
            size: (height, width) of the network.
            run: called with an RGB image uint8 [*size, 3] and a `Vocabulary`, gives a `Mask` of that size.
            max_rows: take only vocabularies of at most so many text embeddings.

        Returns:
            Whether it was tested; False where nothing is known to hold it against, which is logged.

        Raises:
            SelfTestError: too many pixels, or too much of their confidence, differ.
        """
        if self._golden is None:
            return False
        return self._judge(size, self._expected(size), self._golden.image_at(size), run, max_phrases)

    def check_frames(self, frame_size: Size, grey: bool, size: Size, output_size: Size, run: Run,
                     max_phrases: int | None = None) -> bool:
        """As `check`, for a graph that resizes within: from frames of `frame_size` to masks of `output_size`.

        Args:
            frame_size: (height, width) of the frames in pixels.
            grey: whether its frames have no colours.
            size: (height, width) of the network within.
            output_size: (height, width) of the masks.
            run: called with an RGB image uint8 [*frame_size, 3], gives a `Mask` of `output_size`.
            max_rows: as in `check`.
        """
        if self._golden is None:
            return False
        image = self._golden.image_at(frame_size)
        if grey:
            image = np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, axis=2)
        plain = frame_size == size and not grey
        expected = self._expected(size) if plain else self._compute(size, to_network(Frame(image, 'rgb'), size))
        masks = tuple(to_output(*mask, output_size) for mask in expected)
        return self._judge(size, masks, image, run, max_phrases)

    def _judge(self, size: Size, expected: tuple[Mask, ...], image: npt.NDArray[np.uint8], run: Run,
               max_phrases: int | None) -> bool:
        assert self._golden is not None
        pairs = [(mask, vocabulary) for mask, vocabulary in zip(expected, self._golden.vocabularies, strict=False)
                 if max_phrases is None or len(vocabulary.text_embeddings) <= max_phrases]
        if not pairs:
            return False
        least, most = limits(self._precision, size)
        agreement, error, count, milliseconds = 1.0, 0.0, 0, 0.0
        for mask, vocabulary in pairs:
            began = time.perf_counter()
            found = run(image, vocabulary)
            last = (time.perf_counter() - began) * 1e3
            share, difference = compare(found, mask)
            agreement, error = min(agreement, share), max(error, difference)
            count, milliseconds = count + 1, milliseconds + last
            if milliseconds + last > BUDGET_MS:
                break
        if agreement < least:
            raise SelfTestError(f"{self._label}: {100 * agreement:.1f} % of the self-test's pixels agree at "
                                f'{size[1]}x{size[0]} ({100 * least:.0f} % needed)')
        if error > most:
            raise SelfTestError(f"{self._label}: the self-test's confidences are off by {error:.3f} at "
                                f'{size[1]}x{size[0]} (at most {most:g})')
        self.results.append(SelfTestResult(size, agreement, error, milliseconds, count))
        return True

    def _expected(self, size: Size) -> tuple[Mask, ...]:
        """The stored masks of a size, else computed ones; empty, and logged, where there are none."""
        assert self._golden is not None
        return self._golden.expected(size) or self._compute(size, self._golden.image_at(size))

    def _compute(self, size: Size, image: npt.NDArray[np.uint8]) -> tuple[Mask, ...]:
        assert self._golden is not None
        try:
            return expected_of_onnxruntime(self._weights, self._golden, size, image, self._threads)
        except Exception as error:   # not installed, no ONNX file, or refused by its own self-test
            self.skipped = f'at {size[1]}x{size[0]} nothing says what to expect ({_first_line(error)})'
            _warn_once(f'{self._label} is not tested: {self.skipped}')
            return ()


def limits(precision: str, size: Size) -> tuple[float, float]:
    """(least share of agreeing pixels, largest confidence error) for an engine's precision at a network size."""
    if precision in MIN_AGREEMENT:
        return MIN_AGREEMENT[precision], MAX_CONFIDENCE_ERROR
    if size[0] * size[1] < TINY:
        return MIN_AGREEMENT_TINY, MAX_CONFIDENCE_ERROR_TINY
    return MIN_AGREEMENT_ROUNDED, MAX_CONFIDENCE_ERROR


def compare(mask: Mask, expected: Mask) -> tuple[float, float]:
    """(share of pixels with the expected id, mean absolute difference of confidences in 0..1) of two masks."""
    if mask.ids.shape != expected.ids.shape or mask.confidence.shape != expected.confidence.shape:
        return 0.0, 1.0
    same = int(np.count_nonzero(mask.ids == expected.ids)) / expected.ids.size
    return same, float(cv2.absdiff(mask.confidence, expected.confidence).mean()) / 255


def expected_of_onnxruntime(weights: Weights, golden: GoldenData, size: Size, image: npt.NDArray[np.uint8],
                            num_threads: int) -> tuple[Mask, ...]:
    """What to expect at a size of which nothing is stored: ONNX Runtime's masks in fp32.

    ONNX Runtime passes the stored self-test first.  The masks are kept in the user's cache.

    Args:
        weights: from `load_weights`.
        golden: their golden data.
        size: (height, width) of the network.
        image: uint8 [*size, 3], RGB.
        threads: of ONNX Runtime, 0 for all cores.

    Raises:
        WeightsError, SelfTestError, ImportError: ONNX Runtime cannot run the weights.
    """
    key = cache_key({'golden': golden.digest, 'size': size, 'image': _digest(image)})
    path = cache_folder() / 'self_test' / f'{weights.path.stem}-{size[0]}x{size[1]}-{key}.safetensors'
    try:
        tensors, _ = read_tensors(path, weights.path, weights.sha256)
        if masks := read_masks(tensors, size, path):
            return masks
    except (WeightsError, ValueError):   # not there, or damaged: computed again in its place
        pass
    from .onnxruntime_engine import OnnxRuntimeEngine
    engine = OnnxRuntimeEngine(weights, num_threads, precision='fp32')
    masks = tuple(engine.infer(image[None], vocabulary)[0] for vocabulary in golden.vocabularies_at(size))
    with suppress(OSError):   # a cache that cannot be written costs time and nothing else
        write_tensors(path, mask_tensors(size, list(masks)), {'weights_sha256': weights.sha256})
    return masks


def _digest(image: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@cache
def _warn_once(text: str) -> None:
    LOG.warning('self-test: %s', text)
