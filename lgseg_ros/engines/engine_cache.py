"""Built engines on the disk: an engine takes minutes to build and fits one GPU and one TensorRT, so it is built once.

A file is one line of JSON, which tells what the engine was built for and the digest of the rest, and the engine.
Its name says whose it is; when its content is of another TensorRT or otherwise stale, it is built again in its place.
"""

import fcntl
import hashlib
import json
import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..utils.paths import cache_folder
from ..utils.atomic_write import atomic_write

LOG = logging.getLogger(__name__)
LONGEST_HEADER = 65_536   # bytes; of a longer first line it is clear that it is not ours


class Identity(NamedTuple):
    """What an engine file must have been built for to be used."""

    weights: str             # name
    weights_sha256: str
    network: int             # format of the network file
    runtime: str             # e.g. 'TensorRT 10.3.0'
    gpu: str
    compute_capability: str  # e.g. '8.7'
    precision: str
    pixels: int              # of the network
    multiprocessors: int = 0   # of the GPU: models of one name, and slices of one GPU, differ in it

    @property
    def gpu_name(self):
        """The GPU as a part of file names."""
        return re.sub(r'\W+', '-', self.gpu).strip('-').lower()

    @property
    def file_name(self):
        """Unlike the runtime's version, everything that several engines in use may differ in is in the name."""
        return f'{self.weights}-{self.weights_sha256[:12]}-{self.precision}-{self.pixels}-{self.gpu_name}.engine'


class Stored(NamedTuple):
    """An engine file: its `Identity` as a dict, what else the builder noted, and the engine's bytes."""

    identity: dict
    notes: dict
    engine: bytes


class DamagedEngine(ValueError):
    """A file that is not a whole engine; the message names it."""


def engine_folder():
    """Where engines lie: in the user's cache; LGSEG_CACHE overrides."""
    return cache_folder() / 'engines'


def read_header(path):
    """(identity, notes, digest, bytes of the header) of an engine file.  Raises DamagedEngine, FileNotFoundError."""
    with open(path, 'rb') as file:
        line = file.readline(LONGEST_HEADER)
    try:
        header = json.loads(line)
        return header['identity'], header['notes'], header['sha256'], len(line)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedEngine(f'{path} has no header of an engine file') from error


def read_engine(path):
    """The whole file as `Stored`.  Raises DamagedEngine when it is not what was written, FileNotFoundError."""
    identity, notes, digest, skip = read_header(path)
    engine = Path(path).read_bytes()[skip:]
    if hashlib.sha256(engine).hexdigest() != digest:
        raise DamagedEngine(f'{path} is damaged: its digest differs from the one it was written with')
    return Stored(identity, notes, engine)


def write_engine(path, identity, notes, engine):
    """Write an engine file, whole or not at all.  Raises OSError."""
    header = {'identity': identity._asdict(), 'notes': notes, 'sha256': hashlib.sha256(engine).hexdigest()}
    with atomic_write(path) as partial:
        partial.write_bytes(json.dumps(header).encode() + b'\n' + engine)


def why_not(path, identity):
    """Why the file cannot serve `identity`, in a few words, or None; reads its header alone."""
    try:
        found = read_header(path)[0]
    except FileNotFoundError:
        return 'no engine is built yet'
    except (DamagedEngine, OSError) as error:
        return str(error)
    differing = [name for name, value in identity._asdict().items() if found.get(name) != value]
    return None if not differing else 'the engine is stale: ' + ', '.join(
        f'{name} was {found.get(name)} and is {getattr(identity, name)}' for name in differing)


def load_or_build(identity, build, folder=None, again=False):
    """The engine for `identity`: from the disk, or built and kept there.  Of several processes one builds.

    build: () -> (engine bytes, notes dict); folder: default `engine_folder()`; again: build even if there is one.
    Returns `Stored`.  Raises what `build` raises; a folder that cannot be written costs a warning and the next start
    another build.
    """
    path = Path(folder or engine_folder()) / identity.file_name
    stored = None if again else _usable(path, identity)
    if stored:
        return stored
    try:
        with _alone(path):
            stored = None if again else _usable(path, identity)   # another process may have built it meanwhile
            return stored or _build(path, identity, build)
    except _Unwritable as error:
        LOG.warning('engine cache: %s cannot be written (%s): the engine is built at every start; '
                    'LGSEG_CACHE names another folder', path.parent, error)
        engine, notes = build()
        return Stored(identity._asdict(), notes, engine)


def _usable(path, identity):
    reason = why_not(path, identity)
    if reason is None:
        try:
            return read_engine(path)
        except (DamagedEngine, OSError) as error:
            reason = str(error)
    if path.exists():
        LOG.warning('engine cache: %s; it is built again', reason)
    return None


def _build(path, identity, build):
    engine, notes = build()
    try:
        write_engine(path, identity, notes, engine)
    except OSError as error:   # a full disk: this run has its engine all the same
        LOG.warning('engine cache: %s cannot be written (%s): the engine is built again at the next start', path, error)
    return Stored(identity._asdict(), notes, engine)


class _Unwritable(Exception):
    """The lock file cannot be made."""


@contextmanager
def _alone(path):
    """Hold the entry's lock for as long as a build takes; it goes with its process, however that ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_suffix('.lock'), 'a')
    except OSError as error:
        raise _Unwritable(error.strerror) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning('engine cache: another process is building %s; waiting for it', path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
