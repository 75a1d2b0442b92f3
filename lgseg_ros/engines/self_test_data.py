"""The golden self-test of weights: NAME.selftest.safetensors beside NAME.safetensors.

It holds a small image, the text embeddings of several vocabularies, and the class ids and confidences that torch gives
in fp32 for them at several network sizes.  Masks and the image are PNG files in uint8 tensors, because safetensors does
not compress.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..utils.atomic_write import atomic_write
from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import Mask
from .weights import Weights, WeightsError

FORMAT = 'lgseg-self-test-1'
SUFFIX = '.selftest.safetensors'
SMALL = (192, 256)   # (height, width) of the stored image; engines with a free image size are tested at it alone
LARGE_COUNT = 2      # vocabularies that are tested at larger sizes, so that a test stays below 100 ms

Size = tuple[int, int]   # (height, width) in pixels
Tensors = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class GoldenData:
    """What an engine is held against.

    Attributes:
        path: of the file.
        digest: of all its tensors, hexadecimal SHA-256.
        image: uint8 [height, width, 3], RGB.
        vocabularies: with text embeddings and class ids; their thresholds are 0.
        tensors: PNG files of the expected masks by name.
    """

    path: Path
    digest: str
    image: npt.NDArray[np.uint8]
    vocabularies: tuple[Vocabulary, ...]
    tensors: Tensors

    def expected(self, size: Size) -> tuple[Mask, ...]:
        """The masks at a network size, one for each vocabulary tested there; none where the size is not stored.

        Raises:
            WeightsError: a stored mask cannot be read.
        """
        return read_masks(self.tensors, size, self.path)

    def vocabularies_at(self, size: Size) -> tuple[Vocabulary, ...]:
        """Those that are tested at a network size: all of them at small sizes."""
        small = size[0] * size[1] <= SMALL[0] * SMALL[1]
        return self.vocabularies if small else self.vocabularies[:LARGE_COUNT]

    def image_at(self, size: Size) -> npt.NDArray[np.uint8]:
        """The image, uint8 [*size, 3], RGB; resized with integer arithmetic, so the same on every machine."""
        if self.image.shape[:2] == size:
            return self.image
        return np.asarray(cv2.resize(self.image, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def self_test_path(weights: Weights) -> Path:
    """Where the self-test of `weights` lies."""
    return weights.path.with_suffix(SUFFIX)


def read_golden(weights: Weights) -> 'GoldenData | None':
    """The self-test of `weights`, or None where there is no such file.

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
    """`read_golden`, once for each content of a file: every engine that is tried asks for it."""
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
    """A `Vocabulary` of text embeddings [K, D] and class ids [K], without names and with threshold 0."""
    class_ids = np.asarray(class_ids, np.int64)
    return Vocabulary(version=0, specs=(), ids=tuple(dict.fromkeys(class_ids.tolist())),
                      text_embeddings=np.asarray(text_embeddings, np.float32), class_ids=class_ids, confidence_threshold=0.0, preset='')


def mask_tensors(size: Size, masks: 'list[Mask]') -> Tensors:
    """The masks of a network size, one a vocabulary, as tensors for `write_tensors`."""
    return {f'{size[0]}x{size[1]}.{n}.{kind}': encode(array)
            for n, mask in enumerate(masks) for kind, array in mask._asdict().items()}


def read_masks(tensors: Mapping[str, npt.NDArray[np.generic]], size: Size, path: Path) -> tuple[Mask, ...]:
    """What `mask_tensors` made; empty where there is nothing of this size.  Raises WeightsError."""
    masks: list[Mask] = []
    while f'{(name := f"{size[0]}x{size[1]}.{len(masks)}")}.ids' in tensors:
        masks.append(Mask(*(_decode(tensors[f'{name}.{kind}'], path) for kind in Mask._fields)))
    return tuple(masks)


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a self-test file, whole or not at all, with the digest of all tensors.  Raises OSError."""
    from safetensors.numpy import save_file
    with atomic_write(path) as partial:
        save_file(tensors, partial, {'format': FORMAT, **metadata, 'digest': digest_of(tensors)})
        partial.chmod(0o644)   # safetensors writes 0600, which another user's node cannot read


def read_tensors(path: Path, weights_path: Path, sha256: str) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a self-test file, checked.

    Args:
        path: of the file.
        weights_path: of the weights that it should have been made for.
        sha256: of these weights.

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
        raise WeightsError(f'{path} was made for other weights than {weights_path}; {fix(weights_path)}')
    return tensors, metadata


def digest_of(tensors: Tensors) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def fix(weights_path: Path) -> str:
    """How to make the self-test file again."""
    return f'make it again with: lgseg export --weights {weights_path}'


def encode(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A uint8 image, [H, W] or [H, W, 3] in RGB, as a PNG file in a uint8 tensor."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return np.asarray(cv2.imencode('.png', np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].ravel(),
                      np.uint8)


def _decode(data: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.ascontiguousarray(data), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'an image in {path}')
    return np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image, np.uint8)


def _damaged(path: Path, weights_path: Path, reason: str) -> WeightsError:
    return WeightsError(f'{path} is damaged ({reason}); {fix(weights_path)}')
