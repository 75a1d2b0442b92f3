"""The user's cache of text embeddings: a phrase is embedded once, then known to every node of this user.

One file for each text encoder in LGSEG_CACHE/text, or XDG_CACHE_HOME/lgseg/text, or ~/.cache/lgseg/text.  A cache
must never be a reason to fail: what cannot be read is set aside, what cannot be written is kept in memory.
"""

import fcntl
import hashlib
import logging
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .classes import VocabularyError, normalise
from .embedding_file import Embeddings, read_embeddings, write_embeddings

MOST_ENTRIES = 10_000   # 20 MB at 512 numbers each; the oldest go first
HOMELESS = '/nonexistent'   # Debian's name for it; not /tmp, where anybody may put files to be read
LOCK_SECONDS = 5.0      # longer than any write takes; then go on without


def cache_folder():
    """The folder of the user's caches; LGSEG_CACHE overrides.  One that cannot be made where the user has no home."""
    chosen = os.environ.get('LGSEG_CACHE')
    if chosen:
        return Path(os.path.expanduser(chosen))
    return Path(os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache') / 'lgseg'


def home_folder():
    """The user's home; `HOMELESS` where there is none, for which Path.home() raises."""
    home = os.path.expanduser('~')   # stays "~" then
    return Path(HOMELESS if home == '~' else home)


class EmbeddingCache:
    """Embeddings of one text space by phrase.  Other processes' additions are seen; not for several threads at once."""

    def __init__(self, space, width, folder=None, warn=None):
        """space: TextSpace; width: numbers in an embedding; folder: default `cache_folder()`; warn: takes a message."""
        label = re.sub(r'[^\w.-]+', '_', str(space))[:60]
        digest = hashlib.sha256(str(space).encode()).hexdigest()[:8]   # names that differ only in odd characters
        self.path = Path(folder or cache_folder()) / 'text' / f'{label}-{digest}.npz'
        self.space, self.width = space, width
        self._warn = warn or logging.getLogger(__name__).warning
        self._warned = set()
        self._entries = {}   # name -> (vector [width], template), oldest first
        self._stamp = None

    @property
    def templates(self):
        """{phrase: the template it was embedded in} of everything cached."""
        self._refresh()
        return {name: template for name, (_, template) in self._entries.items()}

    def find(self, phrases):
        """{phrase: unit embedding float32 [width]} of those that are cached."""
        self._refresh()
        return {phrase: self._entries[phrase][0] for phrase in map(normalise, phrases) if phrase in self._entries}

    def add(self, names, vectors, template):
        """Keep embeddings [N, width] of `names`, embedded in `template` (text, or one per name).

        Returns whether they are on the disk; otherwise a warning was given, and they are kept for this process.
        """
        templates = [template] * len(names) if isinstance(template, str) else template
        new = {normalise(name): (vector, t)
               for name, vector, t in zip(names, np.asarray(vectors, np.float32), templates)}
        self._merge(new)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix('.lock')):
                if not self._refresh():   # written over, its words would be gone
                    raise OSError('it cannot be read now')
                self._merge(new)   # again: what was read may hold the same names
                write_embeddings(self.path, self._content())
                self._stamp = self._present_stamp()
        except OSError as error:
            self._warn_once('write', f'cannot write the word cache {self.path} ({error}); new words are known until '
                                     'this process ends. LGSEG_CACHE names another folder')
            return False
        return True

    def _merge(self, new):
        self._entries = {**{k: v for k, v in self._entries.items() if k not in new}, **new}
        for name in list(self._entries)[:max(len(self._entries) - MOST_ENTRIES, 0)]:
            del self._entries[name]

    def _content(self):
        names, values = list(self._entries), self._entries.values()
        return Embeddings(names, np.stack([v for v, _ in values]), [t for _, t in values], self.space)

    def _present_stamp(self):
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _refresh(self):
        """Read the file again if it changed; entries that only this process has stay.

        Returns False where it could not be read now, and may be another time.
        """
        stamp = self._present_stamp()
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
                self._stamp = None   # it may well be whole: look again next time
                self._warn_once('read', f'word cache not read now: {error.__cause__}')
                return False
            self._set_aside(error)
            return True
        self._merge(dict(zip(stored.names, zip(stored.vectors, stored.templates))))
        return True

    def _set_aside(self, error):
        aside = self.path.with_suffix('.set-aside')
        try:
            os.replace(self.path, aside)   # over the last one, so that a bad disk does not collect them
            self._warn(f'word cache set aside as {aside.name}: {error}')
        except OSError:
            self._warn_once('read', f'word cache not used: {error}')

    def _warn_once(self, kind, text):
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(text)


@contextmanager
def _locked(path):
    """Hold the lock file; it goes with its process, however that ends.  Raises OSError after LOCK_SECONDS."""
    with open(path, 'a') as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(f'{path.name} is held by another process') from None
                time.sleep(0.02)
        yield
