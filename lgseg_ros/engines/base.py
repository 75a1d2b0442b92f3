"""The interface of an inference engine.

`selection` creates engines by name and puts the next one in the place of one that fails. Everything else knows an
engine as an `Engine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..model.weights import Weights
from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import DEFAULT_PIXELS, SMALLEST, Frame, Mask
from .self_test import SelfTest


@dataclass(frozen=True)
class EngineOptions:
    """How the network is to be run.

    Attributes:
        engine: one of `selection.ENGINE_NAMES`; 'auto' is the fastest that is ready here.
        precision: one of `selection.PRECISIONS`.
        num_threads: CPU threads, 0 for all cores that this process may use.
        max_inference_pixels: pixels of the image that the network sees, at least 4096. Larger images are downsampled.
    """

    engine: str = 'auto'
    precision: str = 'auto'
    num_threads: int = 0
    max_inference_pixels: int = DEFAULT_PIXELS

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: names argument, value and what is allowed. Names of engines are checked by `create_engine`.
        """
        if self.max_inference_pixels < SMALLEST ** 2:
            raise ValueError(f'max_inference_pixels is {self.max_inference_pixels}; give at least {SMALLEST ** 2}')
        if self.num_threads < 0:
            raise ValueError(f'num_threads is {self.num_threads}; give 1 or more, or 0 for all cores')


class Engine(Protocol):
    """An inference engine with its weights loaded. It is used by one thread at a time."""

    @property
    def NAME(self) -> str:  # noqa: N802 (a constant of the class)
        """Its key in `selection.ENGINES`."""

    @property
    def precision(self) -> str:
        """Precision of its computation: 'fp32', 'fp16' or 'int8'."""

    @property
    def batch(self) -> int:
        """The most frames in one run that it gains by, at least 1."""

    @property
    def self_test(self) -> SelfTest:
        """The comparison with what PyTorch gave in fp32 at export."""

    def run(self, frames: list[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment a batch.

        Args:
            frames: at least one, all of one height and width; at most `Engine.batch`.
            vocabulary: text embeddings, class ids and confidence threshold; may differ in every call.
            size: None for masks of the frames' size, 'network' for those of the network's.

        Returns:
            A mask for each frame.

        Raises:
            SelfTestError: at a new image size, the masks are not those of the weights.
        """

    def warm_up(self, vocabulary: Vocabulary, height: int = 480, width: int = 640) -> None:
        """Run once on a gray image, so that the first real one is not slow.

        Args:
            vocabulary: the vocabulary that will be used.
            height: of the camera's images in pixels.
            width: of the camera's images in pixels.

        Raises:
            SelfTestError: the masks are not those of the weights.
        """

    def summary(self) -> str:
        """Return one line for logs: engine, device, precision, file."""

    def close(self) -> None:
        """Release device memory. The engine cannot be used afterwards."""


class EngineType(Protocol):
    """The class of an engine, as `selection.engine_class` returns it.

    Attributes:
        NAME: its key in `selection.ENGINES`.
    """

    NAME: str

    def __call__(self, weights: Weights, num_threads: int = 0, pixels: int = DEFAULT_PIXELS, precision: str = 'auto',
                 ) -> Engine:
        """Load the weights.

        Args:
            weights: from `load_weights`.
            num_threads: CPU threads, 0 for all usable cores.
            pixels: of the image that the network sees; larger images are downsampled.
            precision: 'fp32', 'fp16', 'int8', or 'auto' for what suits this machine.

        Raises:
            WeightsError: a file is missing, damaged or of other weights.
            EngineError: the engine cannot run here, or (SelfTestError) its masks are not those of the weights.
        """

    @staticmethod
    def unavailable(precision: str = 'auto') -> str | None:
        """Return why the engine cannot work here at a precision, in a few words, or None. Cheap."""

    @staticmethod
    def not_ready(weights: Weights, pixels: int, precision: str = 'auto') -> str | None:
        """Return why 'auto' should not take the engine, or None: its first start is slow, or another one is faster.

        What this raises is a reason, too.
        """
