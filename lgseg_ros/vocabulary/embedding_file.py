"""Text embeddings on disk: .npz of names, embeddings, the templates used and the encoder's identity.

Bank files that are carried between machines and the user's cache have this one format.  Nothing is unpickled, and
sizes are checked against the file before memory is taken.
"""

import json
import zlib
from dataclasses import dataclass
from math import prod
from zipfile import BadZipFile, ZipFile

import numpy as np

from ..whole_file import whole_file
from .classes import VocabularyError, normalise
from .text_space import TextSpace, read_space

LARGEST_FILE = 256 * 2**20   # bytes unpacked: 100,000 names of 512 numbers
UNKNOWN_TEMPLATE = ''


@dataclass(frozen=True)
class Embeddings:
    """Unit text embeddings by name.

    names: list of N phrases as `normalise` makes them; vectors: float32 [N, D];
    templates: list of N, what each was embedded in ('' where the file does not say); space: TextSpace or None.
    """

    names: list
    vectors: np.ndarray
    templates: list
    space: TextSpace | None


def read_embeddings(path):
    """Read a file.  Raises VocabularyError naming it when it is missing, damaged or something else."""
    try:
        with ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > LARGEST_FILE:
                raise ValueError(f'it unpacks to more than {LARGEST_FILE >> 20} MiB')
            vectors = _array(archive, 'embeddings')
            names = [normalise(str(name)) for name in _array(archive, 'names').ravel()]
            present = archive.namelist()
            templates = ([str(t) for t in _array(archive, 'templates').ravel()] if 'templates.npy' in present
                         else [UNKNOWN_TEMPLATE] * len(names))
            space = read_space(json.loads(str(_array(archive, 'encoder')))) if 'encoder.npy' in present else None
        return Embeddings(names, _unit(vectors, len(names)), _fitting(templates, len(names)), space)
    except (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error) as error:
        raise VocabularyError(f'{path} is not a text bank ({error}); make one with "lgseg embed"') from error


def _array(archive, key):
    """One array of the archive; its header may not promise more than the file holds."""
    info = archive.getinfo(f'{key}.npy')
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
        if read_header is None:
            raise ValueError(f'{key} has format version {version}')
        shape, _, dtype = read_header(file)
        if prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f'{key} is cut off')
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _unit(vectors, count):
    if vectors.ndim != 2 or len(vectors) != count or vectors.dtype.kind != 'f':
        raise ValueError(f'{count} names do not fit {vectors.dtype} embeddings of shape {vectors.shape}')
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError('it holds embeddings that are zero or not finite')
    return vectors / lengths


def _fitting(templates, count):
    if len(templates) != count:
        raise ValueError(f'{count} names do not fit {len(templates)} templates')
    return templates


def write_embeddings(path, embeddings):
    """Write `Embeddings` to `path`, readable by everybody, whole or not at all: a reader never sees half a file.  Raises
    OSError."""
    with whole_file(path) as partial, open(partial, 'wb') as file:   # an open file: savez would add .npz to a name
        np.savez(file, names=np.array(embeddings.names, str), embeddings=embeddings.vectors,
                 templates=np.array(embeddings.templates, str), encoder=json.dumps(embeddings.space.as_dict()))
        partial.chmod(0o644)   # an administrator's umask may keep it from the node's user
