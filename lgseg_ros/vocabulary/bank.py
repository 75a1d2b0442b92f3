"""A bank of phrases whose text vectors are known, and what to say of those that are not."""

import difflib
from zipfile import BadZipFile

import numpy as np

from .classes import VocabularyError, normalise, shorten


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
            raise VocabularyError(self._refusal(unknown))
        return self.vectors[[self._index[normalise(phrase)] for phrase in phrases]]

    def nearest(self, phrase, count=3):
        """Known names that look like `phrase`, best first."""
        phrase = normalise(phrase)
        near = difflib.get_close_matches(phrase, self.names, count, cutoff=0.6)
        words = set(phrase.split())
        return near or [name for name in self.names if words & set(name.split())][:count]

    def _refusal(self, unknown):
        parts = []
        for phrase in unknown[:5]:
            near = self.nearest(phrase)
            parts.append(f'{shorten(phrase)} is not known' + (f' (near: {", ".join(near)})' if near else ''))
        if len(unknown) > 5:
            parts.append(f'and {len(unknown) - 5} more')
        return '; '.join(parts)


def load_npz_bank(path):
    """Read an .npz of `names` [N] and `embeddings` [N, D] (nothing is unpickled).

    Raises VocabularyError naming the file when it is missing or not such a bank.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            vectors = data['embeddings'].astype(np.float32)
            names = [str(name) for name in data['names']]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise VocabularyError(f'{path} is not a text bank ({error}); make one with "lgseg embed"') from error
    return TextBank(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
