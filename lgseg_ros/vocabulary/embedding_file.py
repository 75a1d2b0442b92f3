"""Text embeddings on disk: .npz with names, embeddings, the templates used and the identity of the text encoder.

Files that are copied between machines and the user's cache have the same format. Nothing is unpickled. Sizes are
checked against the file before memory is allocated.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from ..utils.atomic_write import atomic_write
from .classes import VocabularyError, normalise
from .text_space import TextSpace, read_space

MAX_FILE_BYTES = 256 * 2**20
"""Bytes of the unpacked file: 100,000 names with 512 numbers each."""

UNKNOWN_TEMPLATE = ''


@dataclass(frozen=True)
class Embeddings:
    """Text embeddings of one text encoder, by name.

    Attributes:
        names: N phrases, normalised.
        vectors: float32 [N, D], unit length.
        templates: for each name the sentence that it was embedded in, '' where the file does not say.
        space: the text encoder, None where the file does not say.
    """

    names: Sequence[str]
    vectors: npt.NDArray[np.float32]
    templates: Sequence[str]
    space: TextSpace | None


def read_embeddings(path: str | Path) -> Embeddings:
    """Read a file of text embeddings.

    Args:
        path: .npz with `names` [N] and `embeddings` float [N, D]; `templates` [N] and `encoder` (JSON) are optional.

    Returns:
        Its content, with the vectors scaled to unit length.

    Raises:
        VocabularyError: the file is missing, damaged or something else. Its `__cause__` is the original error.
    """
    try:
        with ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_FILE_BYTES:
                raise ValueError(f'it unpacks to more than {MAX_FILE_BYTES >> 20} MiB')
            vectors = _read_array(archive, 'embeddings')
            names = [normalise(str(name)) for name in _read_array(archive, 'names').ravel()]
            present = archive.namelist()
            templates = ([str(t) for t in _read_array(archive, 'templates').ravel()] if 'templates.npy' in present
                         else [UNKNOWN_TEMPLATE] * len(names))
            space = read_space(json.loads(str(_read_array(archive, 'encoder')))) if 'encoder.npy' in present else None
        return Embeddings(names, _unit_vectors(vectors, len(names)), _check_templates(templates, len(names)), space)
    except (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error) as error:
        raise VocabularyError(f'{path} is not a file of text embeddings ({error}); create one with "lgseg embed"'
                              ) from error


def _read_array(archive: ZipFile, key: str) -> npt.NDArray[Any]:
    """Read one array. ValueError if its header promises more than the file holds."""
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
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _unit_vectors(vectors: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
    if vectors.ndim != 2 or len(vectors) != count or vectors.dtype.kind != 'f':
        raise ValueError(f'{count} names do not fit {vectors.dtype} embeddings of shape {vectors.shape}')
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError('it holds embeddings that are zero or not finite')
    unit: npt.NDArray[np.float32] = vectors / lengths
    return unit


def _check_templates(templates: list[str], count: int) -> list[str]:
    if len(templates) != count:
        raise ValueError(f'{count} names do not fit {len(templates)} templates')
    return templates


def write_embeddings(path: str | Path, embeddings: Embeddings) -> None:
    """Write text embeddings atomically, readable by every user.

    Args:
        path: the .npz file.
        embeddings: its content; `space` must not be None.

    Raises:
        OSError: the file cannot be written.
        ValueError: the text encoder is not known.
    """
    if embeddings.space is None:
        raise ValueError(f'{path} cannot be written without the text encoder of its embeddings; set Embeddings.space')
    encoder = json.dumps(embeddings.space.as_dict())
    with atomic_write(path) as partial, open(partial, 'wb') as file:   # savez would add .npz to a name
        np.savez(file, names=np.array(embeddings.names, str), embeddings=embeddings.vectors,
                 templates=np.array(embeddings.templates, str), encoder=np.array(encoder))
        partial.chmod(0o644)   # an administrator's umask may keep it from the node's user
