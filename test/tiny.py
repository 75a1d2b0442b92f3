"""Small real things for the tests of model and training: labelled street pictures, a bank of words, a network."""

import cv2
import numpy as np
import pytest
import torch
import yaml

from lgseg_ros.model.segmenter import SegmenterConfig
from lgseg_ros.sim.labels import NAMES
from lgseg_ros.sim.street import StreetCamera

TEXT_DIM = 32
SMALL = SegmenterConfig('mobilenetv4_conv_small', TEXT_DIM, row_dim=16, pyramid_dim=16, pixel_dim=8, upsample_dim=8)
CLASSES = {i: {'sign': 'sign=traffic sign|traffic light', 'bicyclist': 'bicyclist=cyclist'}.get(name, name)
           for i, name in enumerate(NAMES)}
WORDS = (*NAMES, 'traffic sign', 'traffic light', 'cyclist', 'rider', 'house', 'street', 'sidewalk', 'vegetation',
         'suv',
         'van', 'person', 'truck', 'bus', 'lorry', 'wall', 'hedge', 'banana', 'giraffe', 'piano', 'cake', 'kite',
         'zebra')
ABSENT = {'banana', 'giraffe', 'piano', 'cake', 'kite', 'zebra'}   # of WORDS, what no street class is related to


def write_bank(path, words=WORDS):
    """A bank of random unit vectors in the layout of the real one."""
    vectors = np.random.default_rng(0).normal(size=(len(words), TEXT_DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(path, names=np.array(words), embeddings=vectors.astype(np.float16))
    return path


def write_dataset(folder, train=4, val=1, size=(128, 96), seed=1, classes=CLASSES, merge=None):
    """A data set of street pictures; merge: label id -> new id, for other label sets."""
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


def lively(model):
    """As after some training: gamma and the dynamic ReLUs start at (near) zero and would hide what they do."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma') or '.coefficients.2.' in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """For modules that import it: with networks this small, more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
