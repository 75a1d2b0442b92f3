"""A small data set of procedural street images with labels, and text embeddings for its classes."""

import cv2
import numpy as np
import yaml

from lgseg_ros.demo.street import CLASS_NAMES, StreetCamera

TEXT_DIM = 32
CLASSES = {i: {'sign': 'sign=traffic sign|traffic light', 'bicyclist': 'bicyclist=cyclist'}.get(name, name)
           for i, name in enumerate(CLASS_NAMES)}
PHRASES = (*CLASS_NAMES, 'traffic sign', 'traffic light', 'cyclist', 'rider', 'house', 'street', 'sidewalk',
           'vegetation', 'suv', 'van', 'person', 'truck', 'bus', 'lorry', 'wall', 'hedge', 'banana', 'giraffe', 'piano',
           'cake', 'kite', 'zebra')
# Of PHRASES, those that are not related to a street class. A banana is part of a tree.
NEGATIVES = {'giraffe', 'piano', 'cake', 'kite', 'zebra'}


def write_text_embeddings(path, phrases=PHRASES):
    """Write random unit vectors as a file of text embeddings; returns its path."""
    vectors = np.random.default_rng(0).normal(size=(len(phrases), TEXT_DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(path, names=np.array(phrases), embeddings=vectors.astype(np.float16))
    return path


def write_dataset(folder, train=4, val=1, size=(128, 96), seed=1, classes=CLASSES, merge=None):
    """Write a data set of street images; merge: {label id: new id}, for other label sets. Returns its folder."""
    camera = StreetCamera(*size, seed=seed)
    for split, count, first in (('train', train, 0), ('val', val, 500)):
        for kind in ('images', 'labels'):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            image, label = camera.render(first + 20 * i)
            if merge:
                label = np.array([merge.get(j, 255) for j in range(256)], np.uint8)[label]
            cv2.imwrite(str(folder / split / 'images' / f'{i:03}.png'), image)
            cv2.imwrite(str(folder / split / 'labels' / f'{i:03}.png'), label)
    description = {'name': folder.name, 'ignore': 255, 'classes': classes, 'licence': 'Apache-2.0, procedural'}
    (folder / 'dataset.yaml').write_text(yaml.safe_dump(description))
    return folder
