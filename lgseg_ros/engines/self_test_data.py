"""The self-test file of weights: NAME.selftest.safetensors beside NAME.safetensors.

It holds golden data: a small image, the text embeddings of several vocabularies, and the class ids and confidences that
PyTorch gives for them in fp32 at several network sizes. The image and the masks are PNG files in uint8 tensors, because
safetensors does not compress.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..model.weights import Weights, WeightsError
from ..utils.atomic_write import atomic_write
from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import Mask, Size

FORMAT = 'lgseg-self-test-1'
SUFFIX = '.selftest.safetensors'
SMALL: Size = (192, 256)
"""(height, width) of the stored image. Engines with one graph for all sizes are tested at this size only."""
NUM_LARGE = 2
"""Vocabularies that are tested at larger sizes, so that a test takes less than 100 ms."""

Tensors = dict[str, npt.NDArray[np.generic]]
"""The content of a self-test file by name."""


@dataclass(frozen=True)
class GoldenData:
    """The content of a self-test file.

    Attributes:
        path: of the file.
        digest: of all its tensors, hexadecimal SHA-256.
        image: RGB, uint8 [*SMALL, 3].
        vocabularies: text embeddings and class ids without names; the confidence thresholds are 0.
        tensors: PNG files of the expected masks by name.
    """

    path: Path
    digest: str
    image: npt.NDArray[np.uint8]
    vocabularies: tuple[Vocabulary, ...]
    tensors: Tensors

    def expected(self, size: Size) -> tuple[Mask, ...]:
        """Return the masks at a network size, one per vocabulary tested there; none if the size is not stored.

        Raises:
            ValueError: a stored mask cannot be decoded.
        """
        return read_masks(self.tensors, size, self.path)

    def vocabularies_at(self, size: Size) -> tuple[Vocabulary, ...]:
        """Return the vocabularies that are tested at a network size: all at small sizes, else `NUM_LARGE`."""
        small = size[0] * size[1] <= SMALL[0] * SMALL[1]
        return self.vocabularies if small else self.vocabularies[:NUM_LARGE]

    def image_at(self, size: Size) -> npt.NDArray[np.uint8]:
        """Return the image, RGB uint8 [*size, 3]; resized with integer arithmetic, so the same on every machine."""
        if self.image.shape[:2] == size:
            return self.image
        return np.asarray(cv2.resize(self.image, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def self_test_path(weights: Weights) -> Path:
    """Return the path of the self-test file of weights."""
    return weights.path.with_suffix(SUFFIX)


def read_golden(weights: Weights) -> GoldenData | None:
    """Read the self-test file of weights; None if there is no such file.

    Raises:
        WeightsError: the file is damaged or was made for other weights.
    """
    path = self_test_path(weights)
    if not path.is_file():
        return None
    status = path.stat()
    return _read_golden(path, weights.path, weights.sha256, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=2)
def _read_golden(path: Path, weights_path: Path, sha256: str, stamp: tuple[int, int, int]) -> GoldenData:
    """Read a self-test file, once for each `stamp` of its content: every engine that is tried needs it."""
    tensors, metadata = read_tensors(path, weights_path, sha256)
    try:
        count = int(metadata['vocabularies'])
        vocabularies = tuple(make_vocabulary(tensors[f'text_embeddings.{n}'], tensors[f'class_ids.{n}'])
                             for n in range(count))
        image = _decode(tensors['image'], path)
    except (KeyError, ValueError) as error:
        raise _damaged(path, weights_path, f'{error} is missing or not valid') from error
    return GoldenData(path, metadata['digest'], image, vocabularies, tensors)


def make_vocabulary(text_embeddings: npt.ArrayLike, class_ids: npt.ArrayLike) -> Vocabulary:
    """Return a vocabulary without names and with a confidence threshold of 0.

    Args:
        text_embeddings: [K, embed_dim].
        class_ids: class id of each text embedding, [K].
    """
    class_ids = np.asarray(class_ids, np.int64)
    return Vocabulary(version=0, specs=(), ids=tuple(dict.fromkeys(class_ids.tolist())),
                      text_embeddings=np.asarray(text_embeddings, np.float32), class_ids=class_ids,
                      confidence_threshold=0.0, preset='')


def mask_tensors(size: Size, masks: list[Mask]) -> Tensors:
    """Return the masks of a network size, one per vocabulary, as tensors for `write_tensors`."""
    return {f'{size[0]}x{size[1]}.{n}.{kind}': encode(array)
            for n, mask in enumerate(masks) for kind, array in mask._asdict().items()}


def read_masks(tensors: Mapping[str, npt.NDArray[np.generic]], size: Size, path: Path) -> tuple[Mask, ...]:
    """Read what `mask_tensors` made.

    Args:
        tensors: of a self-test file.
        size: (height, width) of the network's image.
        path: of the file, for messages.

    Returns:
        A mask per vocabulary; empty if the size is not stored.

    Raises:
        ValueError: a mask cannot be decoded.
    """
    masks: list[Mask] = []
    while f'{(name := f"{size[0]}x{size[1]}.{len(masks)}")}.ids' in tensors:
        masks.append(Mask(*(_decode(tensors[f'{name}.{kind}'], path) for kind in Mask._fields)))
    return tuple(masks)


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a self-test file, atomically, with the digest of all tensors.

    Args:
        path: of the file.
        tensors: its content.
        metadata: stored as strings; `weights_sha256` ties it to its weights.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save_file
    with atomic_write(path) as partial:
        save_file(tensors, partial, {'format': FORMAT, **metadata, 'digest': digest_of(tensors)})
        partial.chmod(0o644)   # safetensors writes 0600, which another user's node cannot read


def read_tensors(path: Path, weights_path: Path, sha256: str) -> tuple[Tensors, dict[str, str]]:
    """Read and check a self-test file.

    Args:
        path: of the file.
        weights_path: of the weights that it belongs to.
        sha256: of these weights.

    Returns:
        Tensors and metadata.

    Raises:
        WeightsError: it is damaged, of another format, or was made for other weights.
    """
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}   # noqa: SIM118 (not iterable)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, weights_path, str(error).partition('\n')[0]) from error
    if metadata.get('format') != FORMAT:
        raise _damaged(path, weights_path, f'its format is {metadata.get("format")!r} and not {FORMAT!r}')
    if metadata.get('digest') != digest_of(tensors):
        raise _damaged(path, weights_path, 'its digest differs from the one it was written with')
    if metadata.get('weights_sha256') != sha256:
        raise WeightsError(f'{path} was made for other weights than {weights_path}; {make_hint(weights_path)}')
    return tensors, metadata


def digest_of(tensors: Tensors) -> str:
    """Return the hexadecimal SHA-256 of names, dtypes, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def make_hint(weights_path: Path) -> str:
    """Return how to make the self-test file again."""
    return f'make it again with: lgseg export --weights {weights_path}'


def encode(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Encode an image, uint8 [H, W] or RGB [H, W, 3], as a PNG file in a uint8 tensor."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return np.asarray(cv2.imencode('.png', np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].ravel(),
                      np.uint8)


def _decode(data: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.ascontiguousarray(data), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'an image in {path}')
    return np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image, np.uint8)


def _damaged(path: Path, weights_path: Path, reason: str) -> WeightsError:
    return WeightsError(f'{path} is damaged ({reason}); {make_hint(weights_path)}')
