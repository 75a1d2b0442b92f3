"""Measure a predictor on a split: masks at the labels' size, single scale, no flip.  Needs no torch.

A predictor is any callable that takes a picture, RGB uint8 [H, W, 3], and returns the class
index, uint8 [H, W], and its probability, float [H, W] in 0..1.
"""

import numpy as np
from tqdm import tqdm

from ..engines.frames import Frame
from ..vocabulary.vocabulary import Vocabulary
from .metrics import Metrics


def evaluate(predict, dataset, progress=True):
    """Metrics summary (see `Metrics.summary`) of the predictor on every picture of `dataset`."""
    metrics = Metrics(spec.name for spec in dataset.specs)
    pairs = zip(dataset.images, dataset.labels)
    quiet = None if progress else True   # None: a bar on a terminal, nothing in a log file
    for image, label in tqdm(pairs, total=len(dataset), desc='evaluate', disable=quiet, leave=False):
        metrics.add(label, *predict(image))
    return metrics.summary()


def engine_predictor(engine, wording):
    """A predictor that runs an engine exactly as the node does.

    wording: `Wording` of projected rows (from the weights' own bank).
    """
    vocabulary = Vocabulary(version=1, specs=(), ids=(), rows=wording.vectors, row_ids=wording.row_class,
                            threshold=0.0, preset='')

    def predict(image):
        mask = engine.run([Frame(image, 'rgb')], vocabulary)[0]
        return mask.ids, mask.confidence.astype(np.float32) / 255

    return predict
