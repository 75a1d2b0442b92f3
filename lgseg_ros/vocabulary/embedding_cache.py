"""The user's cache of text embeddings: a phrase is embedded once, then every node of this user has it.

One file for each text encoder in `utils.paths.cache_folder() / 'text'`. A cache must never be a reason to fail. A file
that is damaged is set aside. Phrases that cannot be written are kept in memory.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..utils.file_lock import file_lock
from ..utils.paths import cache_folder
from .classes import VocabularyError, normalise
from .embedding_file import Embeddings, read_embeddings, write_embeddings
from .text_space import TextSpace

MAX_ENTRIES = 10_000
"""Phrases in the cache: 20 MB at 512 numbers each. The oldest are dropped first."""

LOCK_TIMEOUT_S = 5.0
"""Seconds to wait for another process's write. It is longer than any write takes."""

Entry = tuple[npt.NDArray[np.float32], str]
"""The vector [width] of a phrase, and the template it was embedded in."""


class EmbeddingCache:
    """Embeddings of one text encoder by phrase.

    Phrases that other processes add are seen at the next call. Not safe for several threads at once.
    """

    def __init__(self, space: TextSpace, width: int, folder: str | Path | None = None,
                 warn: Callable[[str], object] | None = None) -> None:
        """Open the cache; nothing is read or created yet.

        Args:
            space: the text encoder.
            width: numbers in an embedding.
            folder: default `cache_folder()`.
            warn: called with each warning; default Python's logging.
        """
        label = re.sub(r'[^\w.-]+', '_', str(space))[:60]
        digest = hashlib.sha256(str(space).encode()).hexdigest()[:8]   # of names that differ only in odd characters
        self.path = Path(folder or cache_folder()) / 'text' / f'{label}-{digest}.npz'
        self.space, self.width = space, width
        self._warn = warn or logging.getLogger(__name__).warning
        self._warned: set[str] = set()
        self._entries: dict[str, Entry] = {}   # oldest first
        self._stamp: tuple[int, int, int] | None = None

    @property
    def templates(self) -> dict[str, str]:
        """{phrase: the template it was embedded in} of everything cached."""
        self._refresh()
        return {name: template for name, (_, template) in self._entries.items()}

    def find(self, phrases: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Return {phrase: unit embedding float32 [width]} of those that are cached."""
        self._refresh()
        return {phrase: self._entries[phrase][0] for phrase in map(normalise, phrases) if phrase in self._entries}

    def add(self, names: Sequence[str], vectors: npt.ArrayLike, template: str | Sequence[str]) -> bool:
        """Keep embeddings.

        Args:
            names: N phrases.
            vectors: their unit embeddings [N, width].
            template: the sentence that they were embedded in, or one for each name.

        Returns:
            Whether they are on the disk. If not, a warning was given, and this process keeps them in memory.
        """
        templates = [template] * len(names) if isinstance(template, str) else template
        new = {normalise(name): (vector, t)
               for name, vector, t in zip(names, np.asarray(vectors, np.float32), templates, strict=True)}
        self._merge(new)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path.with_suffix('.lock'), LOCK_TIMEOUT_S):
                if not self._refresh():   # to write it now would lose its phrases
                    raise OSError('it cannot be read now')
                self._merge(new)   # again: what was read may hold the same names
                write_embeddings(self.path, self._content())
                self._stamp = self._file_stamp()
        except OSError as error:
            self._warn_once('write', f'cannot write the embedding cache {self.path} ({error}); new phrases are kept '
                                     'until this process ends. LGSEG_CACHE names another folder')
            return False
        return True

    def _merge(self, new: dict[str, Entry]) -> None:
        self._entries = {**{k: v for k, v in self._entries.items() if k not in new}, **new}
        for name in list(self._entries)[:max(len(self._entries) - MAX_ENTRIES, 0)]:
            del self._entries[name]

    def _content(self) -> Embeddings:
        names, values = list(self._entries), self._entries.values()
        return Embeddings(names, np.stack([v for v, _ in values]), [t for _, t in values], self.space)

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _refresh(self) -> bool:
        """Read the file again if it changed. Entries that only this process has stay.

        Returns:
            False if it could not be read now, but may be readable later.
        """
        stamp = self._file_stamp()
        if stamp is None or stamp == self._stamp:
            return True
        self._stamp = stamp
        try:
            stored = read_embeddings(self.path)
            known = stored.space is not None and stored.space.same_vectors(self.space)
            if not known or stored.vectors.shape[1] != self.width:
                raise VocabularyError(f'{self.path} is of another text encoder ({stored.space})')
        except VocabularyError as error:
            if isinstance(error.__cause__, (OSError, MemoryError)):
                self._stamp = None   # the file may well be whole: read it again next time
                self._warn_once('read', f'embedding cache not read now: {error.__cause__}')
                return False
            self._set_aside(error)
            return True
        self._merge(dict(zip(stored.names, zip(stored.vectors, stored.templates, strict=True), strict=True)))
        return True

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix('.set-aside')
        try:
            os.replace(self.path, aside)   # over the last one, so that a bad disk does not collect them
            self._warn(f'embedding cache set aside as {aside.name}: {error}')
        except OSError:
            self._warn_once('read', f'embedding cache not used: {error}')

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(text)
