"""A data set on disk: dataset.yaml, SPLIT/images/*.jpg|png, SPLIT/labels/*.png of the same stem.

dataset.yaml holds `name`, `ignore` (the void label), `classes`, a map from label id to
`name` or `name=phrase|phrase`, and `licence`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from ..engines.frames import ALL_PIXELS, Frame, network_size, to_network
from ..vocabulary.classes import parse_classes, shared_phrase_warning

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
VOID = 255
UNLISTED = 254   # marks a label that the YAML does not list


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file, the reason and the cure."""


MEMORY = 4 * 2**30   # bytes of decoded pictures that are kept; a larger data set is read as it is used


@dataclass(frozen=True)
class Dataset:
    """One split: sequences of images, RGB uint8 [H, W, 3], and labels, uint8 [H, W] of class indices, 255 void."""

    name: str
    specs: tuple          # ClassSpec per class index
    images: Sequence
    labels: Sequence
    stems: tuple
    counts: np.ndarray    # labelled pixels per class
    licence: str = ''     # of the data, as dataset.yaml tells it
    hidden: tuple = ()    # ClassSpecs that may be in the pictures but whose labels were made void

    def __len__(self):
        return len(self.images)

    def class_frequencies(self):
        """Share of the labelled pixels per class, [len(specs)], summing to 1.

        Raises DatasetError when no pixel is labelled.
        """
        if not self.counts.any():
            raise DatasetError(f'{self.name} has no labelled pixel; check the ids and the ignore line of dataset.yaml')
        return self.counts / self.counts.sum()


class Made(Sequence):
    """A sequence whose items are made each time they are asked for."""

    def __init__(self, count, make):
        """make: function of an index 0 to count - 1."""
        self._indices, self._make = range(count), make

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        return self._make(self._indices[index])


def load_dataset(root, split, memory=MEMORY, pixels=ALL_PIXELS):
    """Read and check one split; pictures are kept decoded while they fit into `memory` bytes.

    pixels: larger pictures, and their labels, are shrunk to about so many, as a robot's engine shrinks them.
    Raises DatasetError for a missing folder or image, a label outside the YAML, or
    sizes that differ, before any training time is spent.
    """
    root = Path(root)
    description = read_description(root)
    folder = root / split / 'labels'
    labels = sorted(folder.glob('*.png'))
    if not labels:
        raise DatasetError(f'{folder} holds no .png labels; lay the data out as SPLIT/images and SPLIT/labels')
    images = [_image_of(label, root / split / 'images') for label in labels]
    table = np.full(256, UNLISTED, np.uint8)
    table[description.ignore] = VOID
    table[list(description.ids)] = np.arange(len(description.ids))

    def check(i):
        image, label = (_shrink(part, pixels) for part in _load_pair(images[i], labels[i], table))
        return image, label, np.bincount(label.ravel(), minlength=256)

    kept, counts = [], np.zeros(256, np.int64)
    with ThreadPoolExecutor() as pool:
        for image, label, seen in tqdm(pool.map(check, range(len(labels))), total=len(labels), leave=False,
                                       disable=None, desc=f'{description.name} {split}'):
            counts += seen
            memory -= image.nbytes + label.nbytes
            if memory >= 0:
                kept.append((image, label))
            else:
                kept.clear()
    if kept:
        parts = zip(*kept)
    else:
        parts = (Made(len(images), lambda i: _shrink(_load_image(images[i]), pixels)),
                 Made(len(labels), lambda i: _shrink(table[_load_label(labels[i])], pixels)))
    return Dataset(description.name, description.specs, *parts, tuple(path.stem for path in labels),
                   counts[:len(description.specs)], description.licence)


def _shrink(part, pixels):
    """A picture, RGB, or labels of more than `pixels` pixels at the network's size."""
    height, width = part.shape[:2]
    if height * width <= pixels:
        return part
    size = network_size(height, width, pixels)
    if part.ndim == 2:
        # The other nearest neighbour takes the corner of a cell, half a pixel off the picture's.
        return cv2.resize(part, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return to_network(Frame(part, 'rgb'), size)


class Description(NamedTuple):
    """dataset.yaml: label ids and ClassSpecs in one order, the void label, the data's licence or ''."""

    name: str
    ids: tuple
    specs: tuple
    ignore: int
    licence: str


def read_description(root):
    """Read ROOT/dataset.yaml.  Raises DatasetError."""
    path = Path(root) / 'dataset.yaml'
    try:
        text = yaml.safe_load(path.read_text())
        ids = tuple(int(i) for i in text['classes'])
        ignore = int(text.get('ignore', 255))
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


def _image_of(label_path, folder):
    for suffix in IMAGE_SUFFIXES:
        path = folder / (label_path.stem + suffix)
        if path.exists():
            return path
    raise DatasetError(f'{label_path} has no image of the same stem in {folder}; add the image or remove the label')


def _load_image(path):
    image = cv2.imread(str(path))
    if image is None:
        raise DatasetError(f'{path} cannot be decoded; copy it again, or convert it to JPEG or PNG')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _load_label(path):
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label is not None and label.ndim == 3:
        label = _palette_indices(path)
    elif label is not None and label.dtype == np.uint8:
        label = label // _spread(path)
    if label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(f'{path} cannot be read as labels; they are 8-bit PNGs of class ids, with one channel or a '
                           'palette')
    return label


def _spread(path):
    """What OpenCV multiplied the values of a grey PNG of 1, 2 or 4 bits with; 1 for others.

    Masks of two values are often written with 1 bit, whose 1 becomes 255.
    """
    with open(path, 'rb') as file:
        head = file.read(26)   # signature, then IHDR: width, height, bits, kind of colour (0 is grey)
    grey = head[:8] == b'\x89PNG\r\n\x1a\n' and head[25] == 0
    return 255 // (2 ** min(head[24], 8) - 1) if grey else 1


def _palette_indices(path):
    """The indices of a PNG with a palette (as VOC's labels are), which OpenCV turns into colours; None without one."""
    from PIL import Image
    with Image.open(path) as image:
        return np.array(image) if image.mode == 'P' else None


def _load_pair(image_path, label_path, table):
    """Image and class indices, checked."""
    image, label = _load_image(image_path), _load_label(label_path)
    if image.shape[:2] != label.shape:
        raise DatasetError(f'{image_path} is {image.shape[1]}x{image.shape[0]} but {label_path} is '
                           f'{label.shape[1]}x{label.shape[0]}; make them the same size (labels by nearest neighbour)')
    mapped = table[label]
    if (mapped == UNLISTED).any():
        bad = sorted(set(label[mapped == UNLISTED].tolist()))
        raise DatasetError(f'{label_path} holds the labels {bad}, which dataset.yaml does not list; add them to its '
                           'classes, or name the void label in its ignore line')
    return image, mapped


def hide_classes(datasets, names):
    """The data sets as if the classes `names` had never been labelled: their pixels are void, their words unknown.

    Raises DatasetError for a name that none of them has.
    """
    known = [spec for dataset in datasets for spec in dataset.specs]
    unknown = sorted(set(names) - {spec.name for spec in known})
    if unknown:
        raise DatasetError(f'{", ".join(dataset.name for dataset in datasets)} has no class {", ".join(unknown)}; there '
                           f'are {", ".join(dict.fromkeys(spec.name for spec in known))}')
    hidden = tuple(spec for spec in known if spec.name in names)
    return [_hide(dataset, hidden) for dataset in datasets]


def _hide(dataset, specs):
    names = {spec.name for spec in specs}
    kept = [i for i, spec in enumerate(dataset.specs) if spec.name not in names]
    table = np.full(256, VOID, np.uint8)
    table[kept] = np.arange(len(kept))
    return replace(dataset, specs=tuple(dataset.specs[i] for i in kept), counts=dataset.counts[kept],
                   labels=Made(len(dataset), lambda i: table[dataset.labels[i]]),
                   hidden=dataset.hidden + specs)
