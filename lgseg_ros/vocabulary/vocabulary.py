"""The current vocabulary and how it is replaced: validated completely, then swapped in one assignment."""

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .classes import ClassSpec, VocabularyError, parse_classes, phrases_of, shared_phrase_warning
from .ids import allocate_ids
from .presets import get_preset


@dataclass(frozen=True)
class Vocabulary:
    """What the network looks for. Immutable: every frame is segmented with exactly one of these.

    Attributes:
        version: counts up from 1 with every change.
        specs: the classes in the order asked for.
        ids: the id of each class, 0 to 254.
        text_embeddings: float32 [K, embed_dim], unit length, one per phrase.
        class_ids: class id of each text embedding, int64 [K].
        confidence_threshold: minimum confidence of a labelled pixel, 0 to 1.
        preset: name of the preset, or ''.
    """

    version: int
    specs: tuple[ClassSpec, ...]
    ids: tuple[int, ...]
    text_embeddings: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    confidence_threshold: float
    preset: str

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in the order of `specs`."""
        return tuple(spec.name for spec in self.specs)

    @property
    def texts(self) -> tuple[str, ...]:
        """The classes in the form in which they can be given again, `name=phrase|phrase`."""
        return tuple(str(spec) for spec in self.specs)

    @property
    def warning(self) -> str:
        """A warning for whoever chose these classes, or ''."""
        return shared_phrase_warning(self.specs)

    def __str__(self) -> str:
        """Return one line for logs."""
        least = f'; threshold {self.confidence_threshold:g}' if self.confidence_threshold else ''
        return f'vocabulary {self.version}: {", ".join(self.texts)[:300]}{least}'


class EmbeddingLookup(Protocol):
    """Where `VocabularyState` gets text embeddings from: a `TextSource` or a `TextEmbeddings`."""

    def lookup(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return text embeddings float32 [len(phrases), embed_dim]; VocabularyError for unknown phrases."""


def choose_classes(classes: Iterable[str], preset: str = '') -> tuple[ClassSpec, ...]:
    """Return the classes that a request means; arguments and errors as those of `VocabularyState.validate`."""
    if not preset:
        return parse_classes(classes)
    classes, chosen = list(classes), get_preset(preset).classes.values()
    if not classes:
        return tuple(chosen)
    known = {spec.name: spec for spec in chosen}
    return tuple(spec if spec.own_phrases else known.get(spec.name, spec) for spec in parse_classes(classes))


class VocabularyState:
    """Holds the current `Vocabulary` and the ids that were assigned in this run.

    Safe to use from several threads; reading `current` never blocks.
    """

    def __init__(self, text_source: EmbeddingLookup, ids: dict[str, int] | None = None, version: int = 0) -> None:
        """Start without a vocabulary.

        Args:
            text_source: gives the text embeddings.
            ids: {name: id} of this run so far; it is updated in place. Pass the same dict to the next state in this
                process, so that ids keep their names.
            version: the last version before this state; the first vocabulary has the next one.
        """
        self._source = text_source
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {} if ids is None else ids
        self._version = version
        self.current: Vocabulary | None = None

    def validate(self, classes: Iterable[str], preset: str = '',
                 confidence_threshold: float | None = None) -> tuple[ClassSpec, ...]:
        """Check everything but the phrases' text embeddings. Fast; changes nothing.

        Args:
            classes: the classes, each `name` or `name=phrase|phrase`.
            preset: name of a preset, or ''. With classes and a preset, the classes are the vocabulary. A class that
                the preset knows gets the preset's id, and its phrases unless it has its own.
            confidence_threshold: minimum confidence, 0 to 1; None, NaN or negative keeps the current one (0 at start).

        Returns:
            The classes that the request means.

        Raises:
            VocabularyError: names the value, the reason and the fix.
        """
        with self._lock:
            return self._validate(classes, preset, confidence_threshold)[0]

    def prepare(
        self, classes: Iterable[str], preset: str = '', confidence_threshold: float | None = None
    ) -> Vocabulary:
        """Build the next `Vocabulary`; changes nothing. Arguments and errors as `validate`.

        New phrases are embedded, which may take seconds. `TextSource.new_phrases` tells whether there are any.
        """
        with self._lock:
            return self._prepare(classes, preset, confidence_threshold)[0]

    def replace(
        self, classes: Iterable[str], preset: str = '', confidence_threshold: float | None = None
    ) -> Vocabulary:
        """`prepare` a vocabulary and make it the current one. After an error nothing has changed."""
        with self._lock:
            vocabulary, ids = self._prepare(classes, preset, confidence_threshold)
            self._ids.update(ids)
            self.current = vocabulary
            return vocabulary

    def _validate(self, classes: Iterable[str], preset: str,
                  confidence_threshold: float | None) -> tuple[tuple[ClassSpec, ...], dict[str, int], float]:
        """Return the classes, {name: id} of the run with them, and the threshold."""
        specs = choose_classes(classes, preset)
        ids = allocate_ids(specs, get_preset(preset) if preset else None, self._ids)
        return specs, ids, self._confidence_threshold(confidence_threshold)

    def _prepare(self, classes: Iterable[str], preset: str,
                 confidence_threshold: float | None) -> tuple[Vocabulary, dict[str, int]]:
        """Return the next vocabulary and {name: id} of the run with it."""
        specs, run_ids, least = self._validate(classes, preset, confidence_threshold)
        ids = tuple(run_ids[spec.name] for spec in specs)
        class_ids = np.array([i for spec, i in zip(specs, ids, strict=True) for _ in spec.phrases], np.int64)
        text_embeddings = self._source.lookup(phrases_of(specs))
        version = self.current.version if self.current else self._version
        return Vocabulary(version + 1, specs, ids, text_embeddings, class_ids, least, preset), run_ids

    def _confidence_threshold(self, value: float | None) -> float:
        present = self.current.confidence_threshold if self.current else 0.0
        if value is None or math.isnan(value) or value < 0:
            return present
        if value > 1:
            raise VocabularyError(f'threshold {value:g} is above 1; give a confidence of 0.0 to 1.0')
        return float(value)
