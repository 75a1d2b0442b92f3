"""Built engines on disk. A build takes minutes and its engine fits one GPU and one TensorRT, so it is done once.

A file is one line of JSON, the header, and the engine's bytes. The header holds what the engine was built for and the
digest of the engine. The file name says whose engine it is. A file whose content is stale, e.g. of another TensorRT, is
replaced by a new build.
"""

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.atomic_write import atomic_write
from ..utils.paths import cache_folder

LOG = logging.getLogger(__name__)

MAX_HEADER_BYTES = 65_536
"""A file with a longer first line is not an engine file."""

Notes = dict[str, Any]
"""What the builder noted besides the identity; JSON values."""

Build = Callable[[], tuple[bytes, Notes]]
"""Builds an engine: returns its bytes and the notes."""


class EngineIdentity(NamedTuple):
    """What an engine file must have been built for to be used.

    Attributes:
        weights: name of the weights.
        weights_sha256: digest of the weights file.
        network_format: format of the network file, `tensorrt_network.NETWORK_FORMAT`.
        runtime: e.g. 'TensorRT 10.3.0'.
        gpu: name of the GPU.
        compute_capability: e.g. '8.7'.
        precision: 'fp16' or 'fp32'.
        max_inference_pixels: pixels of the image that the network sees.
        multiprocessors: of the GPU; models of one name, and slices of one GPU, differ in it.
    """

    weights: str
    weights_sha256: str
    network_format: int
    runtime: str
    gpu: str
    compute_capability: str
    precision: str
    max_inference_pixels: int
    multiprocessors: int = 0

    @property
    def gpu_name(self) -> str:
        """The GPU as a part of file names."""
        return re.sub(r'\W+', '-', self.gpu).strip('-').lower()

    @property
    def file_name(self) -> str:
        """Name of the engine file.

        It holds everything that engines in use side by side may differ in. The runtime's version is not among that.
        """
        return (f'{self.weights}-{self.weights_sha256[:12]}-{self.precision}-{self.max_inference_pixels}-'
                f'{self.gpu_name}.engine')


class EngineHeader(NamedTuple):
    """The first line of an engine file.

    Attributes:
        identity: the `EngineIdentity` as a dict; of a file of an older version its fields may differ.
        notes: what else the builder noted.
        sha256: digest of the engine's bytes.
        size: bytes of the line.
    """

    identity: dict[str, Any]
    notes: Notes
    sha256: str
    size: int


class StoredEngine(NamedTuple):
    """An engine file.

    Attributes:
        identity: the `EngineIdentity` as a dict.
        notes: what else the builder noted.
        engine: the serialized engine.
    """

    identity: dict[str, Any]
    notes: Notes
    engine: bytes


class DamagedEngineError(ValueError):
    """A file that is not a complete engine file; the message names it."""


class _UnwritableFolderError(Exception):
    """The lock file cannot be created."""


def engine_folder() -> Path:
    """Return the folder of the built engines in the user's cache; LGSEG_CACHE overrides it."""
    return cache_folder() / 'engines'


def read_header(path: str | Path) -> EngineHeader:
    """Read the header of an engine file.

    Raises:
        DamagedEngineError: the file has no header.
        OSError: the file cannot be read; FileNotFoundError where there is none.
    """
    with open(path, 'rb') as file:
        line = file.readline(MAX_HEADER_BYTES)
    try:
        header = json.loads(line)
        return EngineHeader(header['identity'], header['notes'], header['sha256'], len(line))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedEngineError(f'{path} has no header of an engine file') from error


def read_engine(path: str | Path) -> StoredEngine:
    """Read an engine file and check its digest.

    Raises:
        DamagedEngineError: the content is not what was written.
        OSError: the file cannot be read; FileNotFoundError where there is none.
    """
    header = read_header(path)
    engine = Path(path).read_bytes()[header.size:]
    if hashlib.sha256(engine).hexdigest() != header.sha256:
        raise DamagedEngineError(f'{path} is damaged: its digest differs from the one it was written with')
    return StoredEngine(header.identity, header.notes, engine)


def write_engine(path: str | Path, identity: EngineIdentity, notes: Mapping[str, Any], engine: bytes) -> None:
    """Write an engine file atomically.

    Raises:
        OSError: the file cannot be written.
    """
    header = {'identity': identity._asdict(), 'notes': notes, 'sha256': hashlib.sha256(engine).hexdigest()}
    with atomic_write(path) as partial:
        partial.write_bytes(json.dumps(header).encode() + b'\n' + engine)


def rejection_reason(path: str | Path, identity: EngineIdentity) -> str | None:
    """Check from its header alone whether an engine file can be used.

    Args:
        path: the engine file; it may not exist.
        identity: what the engine is needed for.

    Returns:
        Why the file cannot be used, in a few words, or None.
    """
    try:
        found = read_header(path).identity
    except FileNotFoundError:
        return 'no engine is built yet'
    except (DamagedEngineError, OSError) as error:
        return str(error)
    differing = [name for name, value in identity._asdict().items() if found.get(name) != value]
    return None if not differing else 'the engine is stale: ' + ', '.join(
        f'{name} was {found.get(name)} and is {getattr(identity, name)}' for name in differing)


def load_or_build(identity: EngineIdentity, build: Build, folder: str | Path | None = None,
                  force: bool = False) -> StoredEngine:
    """Return an engine from the cache, or build it and store it. Of several processes one builds, the others wait.

    A folder that cannot be written is logged as a warning; the engine is then built at every start.

    Args:
        identity: what the engine is needed for.
        build: builds it; what it raises is passed on.
        folder: the cache; None for `engine_folder()`.
        force: build even if there is a usable engine.
    """
    path = Path(folder or engine_folder()) / identity.file_name
    stored = None if force else _usable(path, identity)
    if stored:
        return stored
    try:
        with _build_lock(path):
            stored = None if force else _usable(path, identity)   # another process may have built it meanwhile
            return stored or _build_and_store(path, identity, build)
    except _UnwritableFolderError as error:
        LOG.warning('engine cache: %s cannot be written (%s): the engine is built at every start; '
                    'LGSEG_CACHE names another folder', path.parent, error)
        engine, notes = build()
        return StoredEngine(identity._asdict(), notes, engine)


def _usable(path: Path, identity: EngineIdentity) -> StoredEngine | None:
    """Return the engine of a file, or None, with a warning if there is a file."""
    reason = rejection_reason(path, identity)
    if reason is None:
        try:
            return read_engine(path)
        except (DamagedEngineError, OSError) as error:
            reason = str(error)
    if path.exists():
        LOG.warning('engine cache: %s; it is built again', reason)
    return None


def _build_and_store(path: Path, identity: EngineIdentity, build: Build) -> StoredEngine:
    engine, notes = build()
    try:
        write_engine(path, identity, notes, engine)
    except OSError as error:   # a full disk: this run has its engine all the same
        LOG.warning('engine cache: %s cannot be written (%s): the engine is built again at the next start', path, error)
    return StoredEngine(identity._asdict(), notes, engine)


@contextmanager
def _build_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an engine file; the kernel releases it if the process dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_suffix('.lock'), 'a')   # noqa: SIM115 (closed below)
    except OSError as error:
        raise _UnwritableFolderError(error.strerror) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning('engine cache: another process is building %s; waiting for it', path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
