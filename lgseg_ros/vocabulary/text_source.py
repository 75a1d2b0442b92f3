"""Text embeddings for any phrase: from the weights, from the user's cache, from CLIP, or an error that names it."""

import logging
import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .classes import VocabularyError, normalise
from .clip_checkpoint import EncoderUnavailable, find_checkpoint, user_checkpoint
from .compatibility import TextWeights, check_vectors, probe_names, space_of_weights
from .embedding_cache import EmbeddingCache
from .encoder import TextEncoder, load_encoder
from .text_embeddings import describe_unknown
from .text_space import TextSpace

FoundEmbeddings = dict[str, npt.NDArray[np.float32]]
"""Text embeddings float32 [embed_dim] by normalised phrase."""


class TextSource:
    """Gives `VocabularyState` its text embeddings. Safe to use from several threads.

    The encoder is loaded when the first phrase needs it, from files of this machine only. It never waits for a network;
    `lgseg embed` is the command that downloads. Who must not wait for the encoder asks `new_phrases` first, calls
    `embed` in another thread, and then `lookup`.

    Attributes:
        space: the text encoder of the weights, None where their card names none.
        cache: the user's cache for that encoder, None without one.
    """

    def __init__(self, weights: TextWeights, cache_folder: str | Path | None = None,
                 warn: Callable[[str], object] | None = None) -> None:
        """Take segmentation weights.

        Args:
            weights: from `load_weights`.
            cache_folder: default the user's.
            warn: called with each warning; default Python's logging.
        """
        self._weights = weights
        self._encoding = threading.Lock()   # held for seconds
        self._caching = threading.Lock()
        self._encoder: TextEncoder | None = None
        self._failed: dict[tuple[Path, int], str] = {}   # checkpoint and its time -> reason; it is not loaded again
        self._no_space = ''
        self.space: TextSpace | None = None
        self.cache: EmbeddingCache | None = None
        try:
            self.space = space_of_weights(weights)
        except VocabularyError as error:
            self._no_space = str(error)
        else:
            width = weights.projection[0].shape[1]
            self.cache = EmbeddingCache(self.space, width, cache_folder, warn or logging.getLogger(__name__).warning)

    def new_phrases(self, phrases: Sequence[str]) -> list[str]:
        """Return the phrases, normalised and each once, that only the text encoder can embed. Fast."""
        missing = self._not_in_weights(phrases)
        cached = self._cached(missing)
        return [phrase for phrase in missing if phrase not in cached]

    def lookup(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return text embeddings; new phrases are embedded, which may take seconds.

        Args:
            phrases: any spelling that `normalise` makes equal.

        Returns:
            float32 [len(phrases), embed_dim], unit length.

        Raises:
            VocabularyError: names every phrase that cannot be embedded here, near names, and the command that adds it.
        """
        phrases = [normalise(phrase) for phrase in phrases]
        missing = self._not_in_weights(phrases)
        if not missing:
            return self._weights.text_embeddings.lookup(phrases)
        found = self._cached(missing)
        new = [phrase for phrase in missing if phrase not in found]
        if new:
            found.update(self.embed(new))
        return np.stack([found[p] if p in found else self._weights.text_embeddings.lookup([p])[0] for p in phrases])

    def embed(self, phrases: Sequence[str]) -> FoundEmbeddings:
        """Embed new phrases and add them to the cache.

        Args:
            phrases: from `new_phrases`.

        Returns:
            Their text embeddings by phrase.

        Raises:
            VocabularyError: as `lookup`. The encoder may raise other errors, e.g. for lack of memory.
        """
        with self._encoding:
            found = self._cached(phrases)   # another thread may have added some meanwhile
            missing = [phrase for phrase in phrases if phrase not in found]
            return {**found, **self._encode(missing)} if missing else found

    def encoder_unavailable(self) -> str:
        """Return why new phrases cannot be embedded on this machine, or '' if the encoder's weights are here."""
        if self.space is None:
            return self._no_space
        try:
            self._find_checkpoint(self.space)
        except EncoderUnavailable as error:
            return str(error)
        return ''

    def _not_in_weights(self, phrases: Sequence[str]) -> list[str]:
        return list(
            dict.fromkeys(phrase for phrase in map(normalise, phrases) if phrase not in self._weights.text_embeddings)
        )

    def _cached(self, phrases: Sequence[str]) -> FoundEmbeddings:
        with self._caching:
            found = self.cache.find(phrases) if self.cache else {}
        return dict(zip(found, self._weights.project(np.stack(list(found.values()))), strict=True)) if found else {}

    def _encode(self, phrases: list[str]) -> FoundEmbeddings:
        if self.space is None or self.cache is None:
            raise VocabularyError(self._refusal(phrases, self._no_space))
        try:
            encoder = self._load_encoder(self.space)
        except EncoderUnavailable as error:
            raise VocabularyError(self._refusal(phrases, str(error))) from error
        vectors = encoder.embed(phrases, [self.space.template])
        with self._caching:
            self.cache.add(phrases, vectors, self.space.template)
        return dict(zip(phrases, self._weights.project(vectors), strict=True))

    def _find_checkpoint(self, space: TextSpace) -> tuple[Path, bool]:
        return find_checkpoint(space.model, space.pretrained, user_checkpoint())

    def _load_encoder(self, space: TextSpace) -> TextEncoder:
        if self._encoder is None:
            checkpoint, quick_gelu = self._find_checkpoint(space)
            key = checkpoint, checkpoint.stat().st_mtime_ns
            if key in self._failed:
                raise EncoderUnavailable(self._failed[key])
            try:
                self._encoder = load_matching_encoder(self._weights, space, checkpoint, quick_gelu)
            except VocabularyError as error:
                self._failed[key] = str(error)
                raise EncoderUnavailable(str(error)) from error
        return self._encoder

    def _refusal(self, phrases: list[str], reason: str) -> str:
        with self._caching:
            known = list(
                dict.fromkeys([*self._weights.text_embeddings.names, *(self.cache.templates if self.cache else ())])
            )
        quoted = ' '.join(_quote(phrase) for phrase in phrases)
        command = 'lgseg embed ' + (quoted if len(quoted) <= 100 else _quote(phrases[0]))
        return (f'{describe_unknown(phrases, known)}; {reason[:130]}; to add: {command} where CLIP is installed '
                '(on another machine: with --out FILE.npz, then "lgseg embed --import FILE.npz" here)')


def load_matching_encoder(weights: TextWeights, space: TextSpace, checkpoint: Path, quick_gelu: bool) -> TextEncoder:
    """Load a text encoder and compare it with the weights on names that they know.

    Args:
        weights: the segmentation weights.
        space: the text encoder that they need.
        checkpoint: CLIP weights; this and `quick_gelu` come from `find_checkpoint`.
        quick_gelu: whether they need that activation.

    Raises:
        EncoderUnavailable: it cannot be loaded.
        VocabularyError: it is another text encoder than that of the weights.
    """
    encoder = load_encoder(space.model, checkpoint, quick_gelu)
    names = probe_names(weights)
    check_vectors(weights, names, encoder.embed(names, [space.template]), checkpoint.name)
    return encoder


def _quote(phrase: str) -> str:
    """Return the phrase as a shell takes it, in plain double quotes where they suffice."""
    return shlex.quote(phrase) if set(phrase) & set('"$`\\!') else f'"{phrase}"'
