"""A data set on disk: dataset.yaml, SPLIT/images/*.jpg|png, SPLIT/labels/*.png of the same stem.

dataset.yaml holds `name`, `ignore` (the void label) and `classes`, a map from
label id to `name` or `name=phrase|phrase`.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from ..vocabulary.classes import VocabularyError, parse_classes

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
    name, ids, specs, ignore = read_description(root / 'dataset.yaml')
    folder = root / split / 'labels'
    paths = sorted(folder.glob('*.png'))
    if not paths:
        raise DatasetError(f'{folder} holds no .png labels; lay the data out as SPLIT/images and SPLIT/labels')
    table = np.full(256, 254, np.uint8)  # 254 marks a label the YAML does not list
    table[ignore] = 255
    table[list(ids)] = np.arange(len(ids))
    images, labels = zip(*(_load_pair(root / split / 'images', path, table) for path in paths))
    return Dataset(name, specs, images, labels, tuple(path.stem for path in paths))


def read_description(path):
    """Read dataset.yaml.  Returns (name, label ids, ClassSpecs, ignore label).  Raises DatasetError."""
    try:
        text = yaml.safe_load(path.read_text())
        ids = [int(i) for i in text['classes']]
        specs = parse_classes(str(c) for c in text['classes'].values())
        return str(text.get('name', path.parent.name)), ids, specs, int(text.get('ignore', 255))
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing; it must list the classes as "id: name"') from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, VocabularyError) as error:
        raise DatasetError(f'{path} cannot be read ({error}); it must list the classes as "id: name"') from error


def _load_pair(folder, label_path, table):
    image_path = next((p for s in IMAGE_SUFFIXES if (p := folder / (label_path.stem + s)).exists()), None)
    if image_path is None:
        raise DatasetError(f'{label_path} has no image of the same stem in {folder}')
    image, label = cv2.imread(str(image_path)), cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
    if image is None or label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(f'{image_path} or {label_path} cannot be read (labels are 8-bit one-channel PNGs)')
    if image.shape[:2] != label.shape:
        raise DatasetError(f'{image_path} is {image.shape[:2]} but {label_path} is {label.shape} (height, width)')
    mapped = table[label]
    if (mapped == 254).any():
        bad = sorted(set(label[mapped == 254].tolist()))
        raise DatasetError(f'{label_path} holds the labels {bad}, which dataset.yaml does not list')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mapped
