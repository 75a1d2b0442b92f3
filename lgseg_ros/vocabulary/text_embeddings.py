"""Text embeddings by phrase, and the error message for phrases that have none."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .classes import VocabularyError, normalise, shorten
from .embedding_file import read_embeddings

HINTS_UNTIL, NAMES_UNTIL = 200, 320
"""Characters of an error message after which near names and further phrases are left out, so that a service's answer
still holds the fix."""


class TextEmbeddings:
    """Text embeddings by phrase.

    Attributes:
        names: the N phrases, normalised.
        vectors: their text embeddings, float32 [N, D].
    """

    def __init__(self, names: Sequence[str], vectors: npt.ArrayLike) -> None:
        """Take phrases and their text embeddings.

        Args:
            names: N phrases.
            vectors: [N, D], unit length.

        Raises:
            VocabularyError: the numbers of names and vectors differ, or a vector is not finite.
        """
        array = np.asarray(vectors, dtype=np.float32)
        if array.ndim != 2 or len(names) != len(array):
            raise VocabularyError(f'{len(names)} names do not fit vectors of shape {array.shape}; give one vector each')
        if not np.isfinite(array).all():
            raise VocabularyError('text embeddings hold values that are not finite; create the file again')
        self.names = [normalise(name) for name in names]
        self.vectors: npt.NDArray[np.float32] = array
        self._index = {name: i for i, name in enumerate(self.names)}

    def __contains__(self, phrase: str) -> bool:
        """Return whether the phrase has a text embedding."""
        return normalise(phrase) in self._index

    def __len__(self) -> int:
        """Return the number of phrases."""
        return len(self.names)

    def lookup(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        """Look phrases up.

        Args:
            phrases: any spelling that `normalise` makes equal.

        Returns:
            Their text embeddings, float32 [len(phrases), D].

        Raises:
            VocabularyError: names every unknown phrase with the nearest known ones.
        """
        unknown = [phrase for phrase in phrases if phrase not in self]
        if unknown:
            raise VocabularyError(describe_unknown(unknown, self.names))
        return self.vectors[[self._index[normalise(phrase)] for phrase in phrases]]


def nearest_names(phrase: str, names: Sequence[str], count: int = 3) -> list[str]:
    """Return up to `count` names that are spelt like `phrase` or share a word with it, best first."""
    phrase = normalise(phrase)
    near = difflib.get_close_matches(phrase, names, count, cutoff=0.6)
    words = set(phrase.split())
    return near or [name for name in names if words & set(name.split())][:count]


def describe_unknown(unknown: Iterable[str], names: Sequence[str]) -> str:
    """Return the error message for unknown phrases, each with the nearest of `names`; at most about 350 characters."""
    text, unknown = '', list(unknown)
    for i, phrase in enumerate(unknown):
        if len(text) > NAMES_UNTIL:
            return f'{text}; and {len(unknown) - i} more'
        near = [] if len(text) > HINTS_UNTIL else nearest_names(phrase, names)
        near = [name if len(name) <= 24 else f'{name[:24]}...' for name in near]
        hint = f' (near: {", ".join(near)})' if near else ''
        text += f'{"; " if text else ""}{shorten(phrase)} is not known{hint}'
    return text


def load_text_embeddings(path: str | Path) -> TextEmbeddings:
    """Read a file of text embeddings.

    Args:
        path: .npz with `names` [N] and `embeddings` [N, D]. Nothing is unpickled.

    Returns:
        The text embeddings, scaled to unit length.

    Raises:
        VocabularyError: the file is missing, damaged or something else.
    """
    stored = read_embeddings(path)
    return TextEmbeddings(stored.names, stored.vectors)
