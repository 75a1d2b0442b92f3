"""The segmentation pipeline: weights, vocabulary, text encoder and engine. The node, the CLI and `api` stand on it.

The vocabulary path is `new_phrases`, `embed`, `set_vocabulary`; the frame path is `run`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from .engines.base import EngineOptions
from .engines.preprocessing import Frame, Mask
from .engines.selection import EngineSelection, EngineWithFallback, create_engine, log_selection
from .model.weights import Weights
from .vocabulary.classes import phrases_of
from .vocabulary.text_source import FoundEmbeddings, TextSource
from .vocabulary.vocabulary import Vocabulary, VocabularyState


class SegmentationPipeline:
    """Segments images by a vocabulary with one set of weights.

    The vocabulary may change while another thread segments. `run` is for one thread at a time.

    Attributes:
        weights: the trained weights.
        text_source: gives the text embeddings of their text encoder.
        state: the current vocabulary and the class ids of this run.
        engine: runs the network; None before `load_engine` and after `close`.
        selection: the engine that was requested and the one that runs, None before `load_engine`.
    """

    def __init__(self, weights: Weights, *, ids: dict[str, int] | None = None, version: int = 0,
                 warn: Callable[[str], object] | None = None) -> None:
        """Start without vocabulary and engine.

        Args:
            weights: from `load_weights`.
            ids: {name: class id} of this process so far, updated in place; see `VocabularyState`.
            version: the last vocabulary version before this pipeline.
            warn: called with each warning of the text encoder's cache; default Python's logging.
        """
        self.weights = weights
        self.text_source = TextSource(weights, warn=warn or logging.getLogger(__name__).warning)
        self.state = VocabularyState(self.text_source, ids, version)
        self.engine: EngineWithFallback | None = None
        self.selection: EngineSelection | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The current vocabulary; None before the first `set_vocabulary`."""
        return self.state.current

    def new_phrases(
        self, classes: Iterable[str], preset: str = '', confidence_threshold: float | None = None
    ) -> list[str]:
        """Check a vocabulary and return its phrases that only the text encoder can embed. Fast; changes nothing.

        Args and errors are those of `VocabularyState.validate`.
        """
        return self.text_source.new_phrases(phrases_of(self.state.validate(classes, preset, confidence_threshold)))

    def embed(self, phrases: Sequence[str]) -> FoundEmbeddings:
        """Embed new phrases with the text encoder, which takes seconds; see `TextSource.embed`."""
        return self.text_source.embed(phrases)

    def set_vocabulary(
        self, classes: Iterable[str], preset: str = '', confidence_threshold: float | None = None
    ) -> Vocabulary:
        """Replace the vocabulary; phrases that are still new are embedded first.

        Args and errors are those of `VocabularyState.validate`. After an error the old vocabulary is still current.
        """
        return self.state.replace(classes, preset, confidence_threshold)

    def load_engine(self, options: EngineOptions, report: Callable[[EngineSelection], object] = log_selection) -> None:
        """Create the engine and warm it up with the current vocabulary, if there is one.

        Args:
            options: how the network is to be run.
            report: called with the engine selection.

        Raises:
            WeightsError: no engine can run the weights here.
            ValueError: the name of an engine or a precision is unknown.
        """
        def keep(selection: EngineSelection) -> None:
            self.selection = selection
            report(selection)
        self.engine = create_engine(options, self.weights, keep, self.vocabulary)

    def run(self, frames: list[Frame], vocabulary: Vocabulary, size: str | None = None) -> list[Mask]:
        """Segment frames of one height and width in one run of the engine.

        Args:
            frames: the images.
            vocabulary: one snapshot for all of them, `self.vocabulary` or an earlier one.
            size: None for masks of the frames' size, 'network' for the size that the network sees.

        Returns:
            A mask for each frame.
        """
        assert self.engine is not None, 'load_engine comes first'
        return self.engine.run(frames, vocabulary, size)

    def close(self) -> None:
        """Release the engine and its device memory."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()
