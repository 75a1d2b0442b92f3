"""A data set on disk: dataset.yaml, SPLIT/images/*.jpg|png, SPLIT/labels/*.png of the same stem.

dataset.yaml holds `name`, `ignore` (the void label), `classes`, a map from label id to
`name` or `name=phrase|phrase`, and `licence`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from ..vocabulary.classes import parse_classes

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file, the reason and the cure."""


@dataclass(frozen=True)
class Dataset:
    """One split, held in memory: images RGB uint8 [H, W, 3], labels uint8 [H, W] of class indices, 255 void."""

    name: str
    specs: tuple          # ClassSpec per class index
    images: tuple
    labels: tuple
    stems: tuple
    licence: str = ''     # of the data, as dataset.yaml tells it
    hidden: tuple = ()    # ClassSpecs that are in the pictures but whose labels were made void

    def __len__(self):
        return len(self.images)

    def class_frequencies(self):
        """Share of the labelled pixels per class, [len(specs)], summing to 1."""
        counts = sum(np.bincount(label.ravel(), minlength=256)[:len(self.specs)] for label in self.labels)
        return counts / max(counts.sum(), 1)


def load_dataset(root, split):
    """Read and check one split.

    Raises DatasetError for a missing folder or image, a label outside the YAML, or
    sizes that differ, before any training time is spent.
    """
    root = Path(root)
    description = read_description(root)
    folder = root / split / 'labels'
    paths = sorted(folder.glob('*.png'))
    if not paths:
        raise DatasetError(f'{folder} holds no .png labels; lay the data out as SPLIT/images and SPLIT/labels')
    table = np.full(256, 254, np.uint8)  # 254 marks a label the YAML does not list
    table[description.ignore] = 255
    table[list(description.ids)] = np.arange(len(description.ids))
    images, labels = zip(*(_load_pair(root / split / 'images', path, table) for path in paths))
    return Dataset(description.name, description.specs, images, labels, tuple(path.stem for path in paths),
                   description.licence)


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
        return Description(str(text.get('name', path.parent.name)), ids, specs, ignore, str(text.get('licence', '')))
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing; it must list the classes as "id: name"') from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f'{path} cannot be read ({error}); it must list the classes as "id: name"') from error


def _load_pair(folder, label_path, table):
    image_path = next((p for s in IMAGE_SUFFIXES if (p := folder / (label_path.stem + s)).exists()), None)
    if image_path is None:
        raise DatasetError(f'{label_path} has no image of the same stem in {folder}; add the image or remove the label')
    image, label = cv2.imread(str(image_path)), cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
    if image is None or label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(f'{image_path} or {label_path} cannot be read; copy them again (labels are 8-bit '
                           'one-channel PNGs)')
    if image.shape[:2] != label.shape:
        raise DatasetError(f'{image_path} is {image.shape[1]}x{image.shape[0]} but {label_path} is '
                           f'{label.shape[1]}x{label.shape[0]}; make them the same size (labels by nearest neighbour)')
    mapped = table[label]
    if (mapped == 254).any():
        bad = sorted(set(label[mapped == 254].tolist()))
        raise DatasetError(f'{label_path} holds the labels {bad}, which dataset.yaml does not list; add them to its '
                           'classes, or name the void label in its ignore line')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mapped


def hide_classes(dataset, names):
    """The data set as if the classes `names` had never been labelled: their pixels are void, their words unknown.

    Raises DatasetError for a name that the data set has not.
    """
    known = [spec.name for spec in dataset.specs]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DatasetError(f'{dataset.name} has no class {", ".join(unknown)}; it has {", ".join(known)}')
    kept = [i for i, name in enumerate(known) if name not in names]
    table = np.full(256, 255, np.uint8)
    table[kept] = np.arange(len(kept))
    return replace(dataset, specs=tuple(dataset.specs[i] for i in kept),
                   labels=tuple(table[label] for label in dataset.labels),
                   hidden=dataset.hidden + tuple(spec for spec in dataset.specs if spec.name in names))
