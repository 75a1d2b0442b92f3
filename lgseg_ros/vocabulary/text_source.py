"""Text rows for any phrase: from the weights, from the user's cache, from CLIP, or refused by name."""

import logging
import shlex
import threading

import numpy as np

from .bank import describe_unknown
from .cache import EmbeddingCache
from .classes import VocabularyError, normalise
from .encoder import EncoderUnavailable, checkpoint_of_user, find_checkpoint, load_encoder
from .text_space import check_vectors, probe_names, space_of_weights


class EncoderNeeded(VocabularyError):
    """Phrases that only the text encoder can know, where it is not asked at once."""

    def __init__(self, phrases):
        super().__init__(f'{describe_unknown(phrases, [])} without the text encoder')
        self.phrases = phrases


class TextSource:
    """Where `VocabularyState` gets its text rows from.  Safe to use from several threads.

    The encoder is loaded when the first phrase needs it, from files of this machine only; it never waits for a
    network.  `lgseg embed` is the command that downloads.
    """

    def __init__(self, weights, cache_folder=None, warn=None, at_once=True):
        """weights: `Weights`; cache_folder: default the user's; warn: takes a message (default: Python's logging);
        at_once: whether `rows` asks the encoder, which may take seconds, or leaves that to its caller and `learn`.
        """
        self._weights, self._at_once = weights, at_once
        self._encoding = threading.Lock()   # held for seconds
        self._caching = threading.Lock()
        self._encoder = None
        self._failed = {}        # checkpoint with its age -> why it cannot be used: not tried again at every request
        self._no_space = ''
        self.space = self.cache = None
        try:
            self.space = space_of_weights(weights)
        except VocabularyError as error:
            self._no_space = str(error)
        else:
            width = weights.projection[0].shape[1]
            self.cache = EmbeddingCache(self.space, width, cache_folder, warn or logging.getLogger(__name__).warning)

    def rows(self, phrases):
        """Text rows float32 [len(phrases), row_dim], unit length.

        Raises VocabularyError naming every phrase that nothing here knows, near names, and the command that adds it;
        EncoderNeeded where the encoder is not asked at once.
        """
        phrases = [normalise(phrase) for phrase in phrases]
        missing = list(dict.fromkeys(phrase for phrase in phrases if phrase not in self._weights.bank))
        if not missing:
            return self._weights.bank.rows(phrases)
        found = self._cached_rows(missing)
        new = [phrase for phrase in missing if phrase not in found]
        if new and not self._at_once:
            raise EncoderNeeded(new)
        if new:
            found.update(self.learn(new))
        return np.stack([found[p] if p in found else self._weights.bank.rows([p])[0] for p in phrases])

    def learn(self, phrases):
        """Embed phrases that are not known yet, so that from now on they are.  Returns {phrase: text row}.

        Raises VocabularyError as `rows`, and what the encoder raises (memory that runs out, say).
        """
        with self._encoding:
            found = self._cached_rows(phrases)   # of another thread, meanwhile
            missing = [phrase for phrase in phrases if phrase not in found]
            return {**found, **self._embedded_rows(missing)} if missing else found

    def encoder_state(self):
        """'' where the encoder's weights are on this machine, else the reason why phrases cannot be embedded here."""
        if self.space is None:
            return self._no_space
        try:
            self._find_checkpoint()
        except EncoderUnavailable as error:
            return str(error)
        return ''

    def _cached_rows(self, phrases):
        with self._caching:
            found = self.cache.find(phrases) if self.cache else {}
        return dict(zip(found, self._weights.project(np.stack(list(found.values()))))) if found else {}

    def _embedded_rows(self, phrases):
        try:
            encoder = self._load_encoder()
        except EncoderUnavailable as error:
            raise VocabularyError(self._refusal(phrases, error)) from error
        vectors = encoder.embed(phrases, [self.space.template])
        with self._caching:
            self.cache.add(phrases, vectors, self.space.template)
        return dict(zip(phrases, self._weights.project(vectors)))

    def _find_checkpoint(self):
        return find_checkpoint(self.space.model, self.space.pretrained, checkpoint_of_user())

    def _load_encoder(self):
        if self._encoder is None:
            if self.space is None:
                raise EncoderUnavailable(self._no_space)
            checkpoint, quick_gelu = self._find_checkpoint()
            key = checkpoint, checkpoint.stat().st_mtime_ns
            if key in self._failed:
                raise EncoderUnavailable(self._failed[key])
            try:
                self._encoder = load_matching_encoder(self._weights, self.space, checkpoint, quick_gelu)
            except VocabularyError as error:
                self._failed[key] = str(error)
                raise EncoderUnavailable(str(error)) from error
        return self._encoder

    def _refusal(self, phrases, reason):
        with self._caching:
            known = list(dict.fromkeys([*self._weights.bank.names, *(self.cache.templates if self.cache else ())]))
        quoted = ' '.join(_quote(phrase) for phrase in phrases)
        command = 'lgseg embed ' + (quoted if len(quoted) <= 100 else _quote(phrases[0]))
        return (f'{describe_unknown(phrases, known)}; {str(reason)[:130]}; to add: {command} where CLIP is installed '
                '(on another machine: with --out words.npz, then "lgseg embed --import words.npz" here)')


def load_matching_encoder(weights, space, checkpoint, quick_gelu):
    """The text encoder in `checkpoint`, tried on names that the weights know.

    Raises EncoderUnavailable when it cannot be loaded, VocabularyError when its space is not that of the weights.
    """
    encoder = load_encoder(space.model, checkpoint, quick_gelu)
    names = probe_names(weights)
    check_vectors(weights, names, encoder.embed(names, [space.template]), str(checkpoint.name))
    return encoder


def _quote(phrase):
    """The phrase as a shell takes it; plain double quotes wherever they do."""
    return shlex.quote(phrase) if set(phrase) & set('"$`\\!') else f'"{phrase}"'
