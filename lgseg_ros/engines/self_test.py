"""The self-test of an engine: compare its masks with those that PyTorch gave in fp32 at export.

An engine calls `SelfTest.check` after it has loaded, and again after every compilation for a new image size.
"""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..model.weights import Weights
from ..vocabulary.vocabulary import Vocabulary
from .errors import EngineError, first_line
from .preprocessing import Frame, Mask, Size, to_network, to_output
from .self_test_data import (
    GoldenData,
    make_hint,
    read_golden,
    self_test_path,
)

LOG = logging.getLogger(__name__)
MIN_AGREEMENT = {'fp32': 0.99}
"""Share of pixels that must have the expected id, with every vocabulary."""
MIN_AGREEMENT_ROUNDED = 0.97
"""The same for precisions with fewer bits: fp16, bf16, int8."""
MAX_CONFIDENCE_ERROR = 0.03
"""Mean absolute difference of the confidences, 0 to 1."""
# Below this size the deepest feature maps have a few cells, and int8 alone changes up to 14 % of the pixels. A wrong
# result changes most of them.
TINY = 144 * 192   # pixels
MIN_AGREEMENT_TINY, MAX_CONFIDENCE_ERROR_TINY = 0.80, 0.10
BUDGET_MS = 100.0
"""Time of a test; a further vocabulary that would not end within it is left out."""

Run = Callable[[npt.NDArray[np.uint8], Vocabulary], Mask]
"""Segments an RGB image, uint8 [H, W, 3]."""
Reference = Callable[[Weights, GoldenData, Size, npt.NDArray[np.uint8], int], tuple[Mask, ...]]
"""`reference.compute_expected`, as a value: it runs an engine, and every engine has a self-test."""


class SelfTestError(EngineError):
    """The masks of an engine are not those of the weights; the message has the measured agreement."""


class SelfTestResult(NamedTuple):
    """The self-test at one network size, with several vocabularies.

    Attributes:
        size: (height, width) in pixels.
        agreement: share of pixels with the expected id, 0 to 1; that of the worst vocabulary.
        confidence_error: mean absolute difference of the confidences, 0 to 1; that of the worst vocabulary.
        milliseconds: time of all runs.
        num_vocabularies: how many were run within the time budget.
    """

    size: Size
    agreement: float
    confidence_error: float
    milliseconds: float
    num_vocabularies: int

    def __str__(self) -> str:
        """Return one line for logs."""
        return (f'{100 * self.agreement:.2f} % of the pixels agree at {self.size[1]}x{self.size[0]}, '
                f'{self.milliseconds:.0f} ms')


class SelfTest:
    """Compares an engine with the golden data of its weights.

    Attributes:
        results: of all tests that passed, in order.
        skipped: why the engine, or one of its sizes, was not tested; '' if all were.
    """

    def __init__(self, weights: Weights, engine: str, precision: str, num_threads: int = 0,
                 reference: Reference | None = None) -> None:
        """Read the golden data.

        Args:
            weights: from `load_weights`.
            engine: name of the engine, for messages.
            precision: of its computation: 'fp32', 'fp16' or 'int8'.
            num_threads: of the reference, 0 for all cores.
            reference: computes the expected masks of sizes that are not stored; None: those sizes are not tested.

        Raises:
            WeightsError: the self-test file is damaged or was made for other weights.
        """
        self._weights, self._num_threads, self._reference = weights, num_threads, reference
        self._label = f'{engine} in {precision}'
        self._precision = precision
        self._golden = read_golden(weights)
        self.results: list[SelfTestResult] = []
        self.skipped = ''
        if self._golden is None:
            self.skipped = f'{self_test_path(weights)} is missing; {make_hint(weights.path)}'
            _warn_once(f'no engine of these weights is tested: {self.skipped}')

    @property
    def passed(self) -> bool:
        """Whether every size that the engine has compiled was tested, and passed."""
        return bool(self.results) and not self.skipped

    @property
    def worst(self) -> SelfTestResult | None:
        """The result with the lowest agreement; None before the first test."""
        return min(self.results, key=lambda result: result.agreement, default=None)

    def __str__(self) -> str:
        """One line for logs and diagnostics."""
        tested = f'passed: {self.worst}' if self.worst else ''
        skipped = f'not tested: {self.skipped}' if self.skipped else ''
        return '; '.join(filter(None, (tested, skipped))) or 'not tested yet'

    def check(self, size: Size, run: Run, max_phrases: int | None = None) -> bool:
        """Segment the golden image at a network size and compare the masks.

        Args:
            size: (height, width) of the network's image.
            run: called with an RGB image, uint8 [*size, 3]; returns a mask of that size.
            max_phrases: take only vocabularies of at most so many text embeddings.

        Returns:
            Whether it was tested; False, which is logged, if no expected masks are available.

        Raises:
            SelfTestError: too many pixels differ, or their confidences differ too much.
        """
        if self._golden is None:
            return False
        return self._compare(size, self._expected(size), self._golden.image_at(size), run, max_phrases)

    def check_frames(self, frame_size: Size, gray: bool, size: Size, output_size: Size, run: Run,
                     max_phrases: int | None = None) -> bool:
        """Check a graph that includes the resizing, from frames to masks; as `check`.

        Args:
            frame_size: (height, width) of the frames in pixels.
            gray: whether its frames are gray.
            size: (height, width) of the network's image in the graph.
            output_size: (height, width) of the masks.
            run: called with an RGB image, uint8 [*frame_size, 3]; returns a mask of `output_size`.
            max_phrases: as in `check`.

        Returns:
            As `check`.

        Raises:
            SelfTestError: as `check`.
        """
        if self._golden is None:
            return False
        image = self._golden.image_at(frame_size)
        if gray:
            image = np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, axis=2)
        plain = frame_size == size and not gray
        expected = self._expected(size) if plain else self._compute(size, to_network(Frame(image, 'rgb'), size))
        masks = tuple(to_output(*mask, output_size) for mask in expected)
        return self._compare(size, masks, image, run, max_phrases)

    def _compare(self, size: Size, expected: tuple[Mask, ...], image: npt.NDArray[np.uint8], run: Run,
                 max_phrases: int | None) -> bool:
        assert self._golden is not None
        pairs = [(mask, vocabulary) for mask, vocabulary in zip(expected, self._golden.vocabularies, strict=False)
                 if max_phrases is None or len(vocabulary.text_embeddings) <= max_phrases]
        if not pairs:
            return False
        min_agreement, max_error = limits(self._precision, size)
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
        if agreement < min_agreement:
            raise SelfTestError(f"{self._label}: {100 * agreement:.1f} % of the self-test's pixels agree at "
                                f'{size[1]}x{size[0]} ({100 * min_agreement:.0f} % needed)')
        if error > max_error:
            raise SelfTestError(f"{self._label}: the self-test's confidences are off by {error:.3f} at "
                                f'{size[1]}x{size[0]} (at most {max_error:g})')
        self.results.append(SelfTestResult(size, agreement, error, milliseconds, count))
        return True

    def _expected(self, size: Size) -> tuple[Mask, ...]:
        """Return the stored masks of a size, else computed ones; empty, which is logged, if neither is available."""
        assert self._golden is not None
        return self._golden.expected(size) or self._compute(size, self._golden.image_at(size))

    def _compute(self, size: Size, image: npt.NDArray[np.uint8]) -> tuple[Mask, ...]:
        assert self._golden is not None
        try:
            if self._reference is None:
                raise EngineError('there is no reference engine')
            return self._reference(self._weights, self._golden, size, image, self._num_threads)
        except Exception as error:   # not installed, no ONNX file, or refused by its own self-test
            self.skipped = f'at {size[1]}x{size[0]} no expected masks are available ({first_line(error)})'
            _warn_once(f'{self._label} is not tested: {self.skipped}')
            return ()


def limits(precision: str, size: Size) -> tuple[float, float]:
    """Return the minimum agreement and the maximum confidence error, both 0 to 1.

    Args:
        precision: of the engine: 'fp32', 'fp16' or 'int8'.
        size: (height, width) of the network's image.
    """
    if precision in MIN_AGREEMENT:
        return MIN_AGREEMENT[precision], MAX_CONFIDENCE_ERROR
    if size[0] * size[1] < TINY:
        return MIN_AGREEMENT_TINY, MAX_CONFIDENCE_ERROR_TINY
    return MIN_AGREEMENT_ROUNDED, MAX_CONFIDENCE_ERROR


def compare(mask: Mask, expected: Mask) -> tuple[float, float]:
    """Return the share of pixels with the expected id and the mean absolute difference of the confidences, 0 to 1.

    Masks of different sizes agree nowhere.
    """
    if mask.ids.shape != expected.ids.shape or mask.confidence.shape != expected.confidence.shape:
        return 0.0, 1.0
    same = int(np.count_nonzero(mask.ids == expected.ids)) / expected.ids.size
    return same, float(cv2.absdiff(mask.confidence, expected.confidence).mean()) / 255


@cache
def _warn_once(text: str) -> None:
    LOG.warning('self-test: %s', text)
