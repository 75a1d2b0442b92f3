"""A bank of phrases whose text vectors are known, and what to say of those that are not."""

import difflib

import numpy as np

from .classes import VocabularyError, normalise, shorten
from .embedding_file import read_embeddings

NEAR_UNTIL, NAMES_UNTIL = 200, 320   # characters of a refusal, so that the cure still fits in a service's answer


class TextBank:
    """Phrases with their vectors: `names` (list of str) and `vectors` (float32 [N, D], unit length)."""

    def __init__(self, names, vectors):
        """Raises VocabularyError when names and vectors do not fit together."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(names) != len(vectors):
            raise VocabularyError(f'{len(names)} names do not fit vectors of shape {vectors.shape}')
        if not np.isfinite(vectors).all():
            raise VocabularyError('the bank holds vectors that are not finite; make it again')
        self.names = [normalise(name) for name in names]
        self.vectors = vectors
        self._index = {name: i for i, name in enumerate(self.names)}

    def __contains__(self, phrase):
        return normalise(phrase) in self._index

    def __len__(self):
        return len(self.names)

    def rows(self, phrases):
        """Vectors [len(phrases), D] of the phrases.

        Raises VocabularyError naming every unknown phrase with the nearest known names.
        """
        unknown = [phrase for phrase in phrases if phrase not in self]
        if unknown:
            raise VocabularyError(describe_unknown(unknown, self.names))
        return self.vectors[[self._index[normalise(phrase)] for phrase in phrases]]


def nearest(phrase, names, count=3):
    """Names that look like `phrase` or share a word with it, best first."""
    phrase = normalise(phrase)
    near = difflib.get_close_matches(phrase, names, count, cutoff=0.6)
    words = set(phrase.split())
    return near or [name for name in names if words & set(name.split())][:count]


def describe_unknown(unknown, names):
    """Say that phrases are unknown, each with the nearest of `names`; a long list is cut at about 350 characters."""
    text = ''
    for i, phrase in enumerate(unknown):
        if len(text) > NAMES_UNTIL:
            return f'{text}; and {len(unknown) - i} more'
        near = [] if len(text) > NEAR_UNTIL else nearest(phrase, names)
        near = [name if len(name) <= 24 else f'{name[:24]}...' for name in near]
        hint = f' (near: {", ".join(near)})' if near else ''
        text += f'{"; " if text else ""}{shorten(phrase)} is not known{hint}'
    return text


def load_npz_bank(path):
    """Read an .npz of `names` [N] and `embeddings` [N, D] (nothing is unpickled) as a TextBank of unit vectors.

    Raises VocabularyError naming the file when it is missing or not such a bank.
    """
    stored = read_embeddings(path)
    return TextBank(stored.names, stored.vectors)
