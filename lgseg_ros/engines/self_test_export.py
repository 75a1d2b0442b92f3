"""Make the self-test file of weights: what PyTorch gives in fp32 for a street image and several vocabularies."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..demo.street import StreetCamera
from ..model.network import SegmentationNetwork
from ..model.onnx_export import ExportWrapper
from ..model.weights import Weights
from ..vocabulary.classes import MAX_PHRASES, normalise, parse_class
from ..vocabulary.vocabulary import Vocabulary
from .preprocessing import Mask, network_size
from .self_test_data import (
    SMALL,
    GoldenData,
    Tensors,
    encode,
    make_vocabulary,
    mask_tensors,
    self_test_path,
    write_tensors,
)

CAMERA_SIZES = ((480, 640), (720, 1280))
"""(height, width) of the usual aspect ratios, 4:3 and 16:9."""
SEEDS = range(8)
"""Of the streets from which the image is chosen."""
NOISE = 4
"""Gray levels. An image whose classes change with so much noise is not decisive enough."""
LARGE_SHARE = 0.05
"""Share of the pixels that an id must cover to count."""
MIN_IDS = 3
"""Ids that must count; with fewer, a mask of one wrong id could pass."""
MAX_CLASSES = 20
"""Classes of the largest vocabulary."""


def write_self_test(model: SegmentationNetwork, weights: Weights) -> Path:
    """Write the self-test file of weights beside them.

    Args:
        model: the network of these weights, fp32, on the CPU.
        weights: from `load_weights`.

    Returns:
        The path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    network = ExportWrapper(model, every_cell=False).eval()
    vocabularies = choose_vocabularies(weights)
    image = choose_image(network, vocabularies)
    golden = GoldenData(self_test_path(weights), '', image, vocabularies, {})
    tensors: Tensors = {'image': encode(image)}
    for n, vocabulary in enumerate(vocabularies):
        tensors[f'text_embeddings.{n}'] = np.ascontiguousarray(vocabulary.text_embeddings, np.float32)
        tensors[f'class_ids.{n}'] = vocabulary.class_ids
    for size in (SMALL, *(network_size(*camera) for camera in CAMERA_SIZES)):
        masks = [segment(network, golden.image_at(size), vocabulary) for vocabulary in golden.vocabularies_at(size)]
        tensors.update(mask_tensors(size, masks))
    write_tensors(golden.path, tensors, {'weights_sha256': weights.sha256, 'vocabularies': str(len(vocabularies)),
                                         'made_by': f'torch {torch.__version__} in fp32'})
    return golden.path


def choose_vocabularies(weights: Weights) -> tuple[Vocabulary, ...]:
    """Return three vocabularies: the classes of the training, six classes of which one has several phrases, and 20."""
    parsed = [parse_class(text).phrases for text in weights.classes or weights.text_embeddings.names[:11]]
    known = [tuple(phrase for phrase in phrases if phrase in weights.text_embeddings) for phrases in parsed]
    trained = [phrases for phrases in known if phrases][:MAX_CLASSES]
    six = sorted(trained, key=len, reverse=True)[:1] + [phrases for phrases in trained if len(phrases) == 1]
    if len(six[0]) == 1 and len(six) > 1:   # no class has several phrases: combine two classes
        six = [six[0] + six[1], *six[2:]]
    many = _add_distant(weights, trained, MAX_CLASSES)
    return tuple(_vocabulary(weights, classes) for classes in (trained, six[:6], many))


def _add_distant(weights: Weights, trained: list[tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
    """Return `trained` and other phrases up to `count` classes, each as far from all others as possible.

    Between phrases with the same meaning, fp32 itself is undecided.
    """
    classes = list(trained)
    chosen = [weights.text_embeddings.names.index(normalise(phrase)) for phrases in classes for phrase in phrases]
    nearest = (weights.text_embeddings.vectors @ weights.text_embeddings.vectors[chosen].T).max(axis=1)
    for _ in range(min(count - len(classes), len(weights.text_embeddings.names) - len(chosen))):
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
        classes.append((weights.text_embeddings.names[chosen[-1]],))
        nearest = np.maximum(nearest, weights.text_embeddings.vectors @ weights.text_embeddings.vectors[chosen[-1]])
    return classes


def _vocabulary(weights: Weights, classes: list[tuple[str, ...]]) -> Vocabulary:
    """Return a vocabulary of classes, each a tuple of phrases. No id is 0: a library that does nothing gives that."""
    phrases = [(phrase, 5 + 11 * n % 250) for n, group in enumerate(classes) for phrase in group][:MAX_PHRASES]
    embeddings = weights.text_embeddings.lookup([phrase for phrase, _ in phrases])
    return make_vocabulary(np.asarray(embeddings, np.float32), np.array([i for _, i in phrases], np.int64))


def choose_image(network: nn.Module, vocabularies: tuple[Vocabulary, ...]) -> npt.NDArray[np.uint8]:
    """Return the street image whose classes change least with noise, RGB uint8 [*SMALL, 3].

    With every vocabulary, at least `MIN_IDS` ids must be large in it.
    """
    best, image = (-1, -1.0), np.zeros((*SMALL, 3), np.uint8)
    for seed in SEEDS:
        street = np.ascontiguousarray(StreetCamera(SMALL[1], SMALL[0], seed=seed).render(40)[0][..., ::-1])
        noise = np.random.default_rng(0).integers(-NOISE, NOISE + 1, street.shape)
        noisy = np.clip(street + noise, 0, 255).astype(np.uint8)
        count, stable = MIN_IDS, 1.0
        for vocabulary in vocabularies:
            ids, again = (segment(network, pixels, vocabulary).ids for pixels in (street, noisy))
            count, stable = min(count, count_large(ids)), min(stable, float(np.mean(ids == again)))
        if (count, stable) > best:
            best, image = (count, stable), street
    return image


def count_large(ids: npt.NDArray[np.uint8]) -> int:
    """Return how many ids cover at least `LARGE_SHARE` of a mask."""
    return int(np.sum(np.unique(ids, return_counts=True)[1] >= LARGE_SHARE * ids.size))


def segment(network: nn.Module, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> Mask:
    """Segment an RGB image, uint8 [H, W, 3], of a network size with the exported graph in PyTorch."""
    with torch.no_grad():
        outputs = network(torch.from_numpy(image[None]), torch.from_numpy(vocabulary.text_embeddings),
                          torch.from_numpy(vocabulary.class_ids), torch.tensor(vocabulary.confidence_threshold))
    return Mask(*(output[0].numpy() for output in outputs))
