"""A data set on disk: dataset.yaml, SPLIT/images/*.jpg|png, SPLIT/labels/*.png of the same stem.

dataset.yaml holds `name`, `ignore` (the label of unlabelled pixels), `classes`, a map from label id to `name` or
`name=phrase|phrase`, and `licence`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from tqdm import tqdm

from ..engines.preprocessing import ALL_PIXELS, Frame, network_size, to_network
from ..utils.label_values import IGNORE, UNLISTED
from ..vocabulary.classes import ClassSpec, parse_classes, shared_phrase_warning
from .labels import DatasetError, decode_label

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
CACHE_BYTES = 4 * 2**30   # of images and labels in memory, all data sets of a run together
DECODED_SHARE = 0.75      # of the cache; the rest is for files as they are, whose decoding costs a millisecond
T = TypeVar('T')
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: as dataset.yaml gives it.
        specs: the class of each class index.
        images: RGB, uint8 [H, W, 3].
        labels: class indices, uint8 [H, W]; `IGNORE` where nobody labelled.
        stems: file name of each image without suffix.
        counts: labelled pixels per class, int64 [len(specs)].
        licence: of the data, as dataset.yaml gives it.
        hidden: classes that may be in the images and whose labels were removed.
        root: folder of dataset.yaml.
    """

    name: str
    specs: tuple[ClassSpec, ...]
    images: Sequence[Image]
    labels: Sequence[Image]
    stems: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    licence: str = ''
    hidden: tuple[ClassSpec, ...] = ()
    root: Path = Path()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def class_frequencies(self) -> npt.NDArray[np.float64]:
        """Return the share of the labelled pixels per class, [len(specs)], summing to 1.

        Raises:
            DatasetError: no pixel is labelled.
        """
        if not self.counts.any():
            raise DatasetError(f'{self.root / "dataset.yaml"}: no pixel has a label of {self.name}; check the ids and '
                               'the ignore line')
        return self.counts / self.counts.sum()


class LazySequence(Sequence[T]):
    """A sequence whose items are made each time they are asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        """Take the number of items and a function of an index 0 to count - 1."""
        self._indices, self._make = range(count), make

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> 'LazySequence[T]': ...

    def __getitem__(self, index: 'int | slice') -> 'T | LazySequence[T]':
        """Make one item, or a sequence of some of them."""
        if isinstance(index, slice):
            part = self._indices[index]
            return LazySequence(len(part), lambda i: self._make(part[i]))
        return self._make(self._indices[index])


class ImageCache:
    """A bounded part of the memory for the images of all data sets of a run.

    The first images are kept decoded. When `DECODED_SHARE` is used, files are kept as they are (a JPEG has a tenth of
    the bytes) and decoded at every use. When all is used, they are read from the disk.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Take the number of bytes.

        Args:
            limit: default `CACHE_BYTES`, at most half of the free memory, shared by the processes of this machine.
        """
        if limit is None:
            limit = min(CACHE_BYTES, _free_memory() // 2) // int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        self.limit, self.used = limit, 0

    def keep(self, decoded: Image, encoded: bytes) -> Image | bytes | None:
        """Return what is kept of a file: the array, its content, or None where it does not fit."""
        if self.used + decoded.nbytes <= DECODED_SHARE * self.limit:
            self.used += decoded.nbytes
            return decoded
        if self.used + len(encoded) <= self.limit and len(encoded) < decoded.nbytes:
            self.used += len(encoded)
            return encoded
        return None


def _free_memory() -> int:
    """Bytes that processes can still get; a large number where the system does not tell."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration, ValueError, IndexError):
        return 2**40


def load_dataset(root: str | Path, split: str, cache: ImageCache | None = None,
                 max_pixels: int = ALL_PIXELS) -> Dataset:
    """Read and check one split.

    Args:
        root: folder with dataset.yaml.
        split: folder in it, 'train' or 'val'.
        cache: memory for images, shared with other data sets; default one of its own.
        max_pixels: larger images, and their labels, are shrunk to about so many, as an engine shrinks them.

    Returns:
        The split. Every file was read once.

    Raises:
        DatasetError: a folder or image is missing, a label is not in dataset.yaml, no pixel is labelled, a file is
            damaged or of another kind, or sizes differ; before any training time is spent.
    """
    root, cache = Path(root), cache or ImageCache()
    description = read_description(root)
    folder = root / split / 'labels'
    labels = sorted(folder.glob('*.png'))
    if not labels:
        raise DatasetError(f'{folder} holds no .png labels; lay the data out as SPLIT/images and SPLIT/labels')
    images = [_find_image(label, root / split / 'images') for label in labels]
    table = description.table()

    def decode_image(i: int, data: bytes) -> Image:
        return _shrink(_decode_image(data, images[i]), max_pixels)

    def decode_labels(i: int, data: bytes) -> Image:
        return _shrink(table[decode_label(data, str(labels[i]))], max_pixels)

    kept_images, kept_labels, counts = [], [], np.zeros(256, np.int64)
    with ThreadPoolExecutor() as pool:
        pairs = pool.map(lambda i: _read_pair(images[i], labels[i], table, max_pixels), range(len(labels)))
        for pair in tqdm(pairs, total=len(labels), leave=False, disable=None, desc=f'{description.name} {split}'):
            counts += np.bincount(pair.label.ravel(), minlength=256)
            kept_images.append(cache.keep(pair.image, pair.image_file))
            kept_labels.append(cache.keep(pair.label, pair.label_file))
    dataset = Dataset(description.name, description.specs, _sequence(kept_images, images, decode_image),
                      _sequence(kept_labels, labels, decode_labels), tuple(path.stem for path in labels),
                      counts[:len(description.specs)], description.licence, root=root)
    dataset.class_frequencies()   # raises where nothing is labelled
    return dataset


def _sequence(kept: list[Image | bytes | None], paths: list[Path],
              decode: Callable[[int, bytes], Image]) -> Sequence[Image]:
    arrays = tuple(item for item in kept if isinstance(item, np.ndarray))
    if len(arrays) == len(kept):
        return arrays

    def make(i: int) -> Image:
        item = kept[i]
        if isinstance(item, np.ndarray):
            return item
        return decode(i, _read(paths[i]) if item is None else item)

    return LazySequence(len(kept), make)


class _Pair(NamedTuple):
    """An image and its class indices, and the content of their files."""

    image: Image
    label: Image
    image_file: bytes
    label_file: bytes


def _read_pair(image_path: Path, label_path: Path, table: Image, max_pixels: int) -> _Pair:
    """Read and check an image with its labels."""
    image_file, label_file = _read(image_path), _read(label_path)
    image, label = _decode_image(image_file, image_path), decode_label(label_file, str(label_path))
    if image.shape[:2] != label.shape:
        raise DatasetError(f'{image_path} is {image.shape[1]}x{image.shape[0]} but {label_path} is '
                           f'{label.shape[1]}x{label.shape[0]}; make them the same size (labels by nearest neighbour)')
    mapped = table[label]
    if (mapped == UNLISTED).any():
        bad = sorted(set(label[mapped == UNLISTED].tolist()))
        raise DatasetError(f'{label_path} holds the labels {bad}, which dataset.yaml does not list; add them to its '
                           'classes, or name the label of unlabelled pixels in its ignore line')
    return _Pair(_shrink(image, max_pixels), _shrink(mapped, max_pixels), image_file, label_file)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f'{path} cannot be read ({error.strerror}); check its permissions or copy it again'
                           ) from error


def _decode_image(data: bytes, path: Path) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DatasetError(f'{path} cannot be decoded; copy it again, or convert it to JPEG or PNG')
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _find_image(label_path: Path, folder: Path) -> Path:
    for suffix in IMAGE_SUFFIXES:
        path = folder / (label_path.stem + suffix)
        if path.exists():
            return path
    raise DatasetError(f'{label_path} has no image of the same stem in {folder}; add the image or remove the label')


def _shrink(part: Image, max_pixels: int) -> Image:
    """An image, RGB, or labels of more than `max_pixels` pixels at the network's size."""
    height, width = part.shape[:2]
    if height * width <= max_pixels:
        return part
    size = network_size(height, width, max_pixels)
    if part.ndim == 2:
        # The other nearest neighbour takes the corner of a cell, half a pixel off the image's.
        return np.asarray(cv2.resize(part, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return to_network(Frame(part, 'rgb'), size)


class Description(NamedTuple):
    """The content of dataset.yaml: label ids and classes in one order, the label of unlabelled pixels, the licence."""

    name: str
    ids: tuple[int, ...]
    specs: tuple[ClassSpec, ...]
    ignore: int
    licence: str

    def table(self) -> Image:
        """Return the class index of every label, uint8 [256]: `IGNORE` or `UNLISTED` where it has none."""
        table = np.full(256, UNLISTED, np.uint8)
        table[self.ignore] = IGNORE
        table[list(self.ids)] = np.arange(len(self.ids))
        return table


def read_description(root: str | Path) -> Description:
    """Read ROOT/dataset.yaml.

    Raises:
        DatasetError: it is missing, damaged or contradicts itself.
    """
    path = Path(root) / 'dataset.yaml'
    try:
        text = yaml.safe_load(path.read_text())
        ids = tuple(int(i) for i in text['classes'])
        ignore = int(text.get('ignore', IGNORE))
        if not all(0 <= i <= 255 and i != ignore for i in ids) or not 0 <= ignore <= 255:
            raise ValueError(f'label ids must be 0 to 255 and differ from ignore ({ignore})')
        specs = parse_classes(str(c) for c in text['classes'].values())
        if shared := shared_phrase_warning(specs):
            raise ValueError(shared)
        if len(specs) > UNLISTED:
            raise ValueError(f'{len(specs)} classes are listed, the limit is {UNLISTED}')
        return Description(str(text.get('name', path.parent.name)), ids, specs, ignore, str(text.get('licence', '')))
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing; it must list the classes as "id: name"') from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f'{path} cannot be read ({error}); it must list the classes as "id: name"') from error


def hide_classes(datasets: Sequence[Dataset], names: Iterable[str]) -> list[Dataset]:
    """Return the data sets as if the classes `names` had never been labelled: their pixels are ignored.

    Raises:
        DatasetError: none of the data sets has a class of such a name.
    """
    names = set(names)
    known = [spec for dataset in datasets for spec in dataset.specs]
    unknown = sorted(names - {spec.name for spec in known})
    if unknown:
        raise DatasetError(f'{", ".join(dataset.name for dataset in datasets)} has no class {", ".join(unknown)}; '
                           f'there are {", ".join(dict.fromkeys(spec.name for spec in known))}')
    hidden = tuple(spec for spec in known if spec.name in names)
    return [_hide(dataset, hidden) for dataset in datasets]


def _hide(dataset: Dataset, specs: tuple[ClassSpec, ...]) -> Dataset:
    names = {spec.name for spec in specs}
    kept = [i for i, spec in enumerate(dataset.specs) if spec.name not in names]
    table = np.full(256, IGNORE, np.uint8)
    table[kept] = np.arange(len(kept))
    return replace(dataset, specs=tuple(dataset.specs[i] for i in kept), counts=dataset.counts[kept],
                   labels=LazySequence(len(dataset), lambda i: table[dataset.labels[i]]),
                   hidden=dataset.hidden + specs)
