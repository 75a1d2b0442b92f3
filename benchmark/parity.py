"""Share of the pixels to which an engine gives the same class id as the PyTorch network.

The reference is PyTorch in fp32 with the logits of every class interpolated to full size. The vocabularies are the
classes of the training, and 100 names of the text embeddings. The images are of the procedural street, of the val split
of a data set, or of a folder.

    python benchmark/parity.py --data ../shared/data/camvid --json benchmark/results/parity.json
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from lgseg_ros.cli.bench import class_names, make_engines
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.cli.options import add_weights_option
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines.base import Engine, EngineOptions
from lgseg_ros.engines.onnx_files import int8_path
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.preprocessing import Frame
from lgseg_ros.media.images import find_images
from lgseg_ros.model.weights import load_weights
from lgseg_ros.model.weights_file import load_network
from lgseg_ros.training.evaluation import Predictor, torch_predictor
from lgseg_ros.utils.hardware import has_int8_dot, machine
from lgseg_ros.vocabulary.vocabulary import Vocabulary, VocabularyState

# Percent, with the classes of the training. With 100 classes, many of them synonyms, fp32 itself is nearly undecided.
MIN_AGREEMENT = {'fp32': 99.5, 'fp16': 98.5, 'int8': 98.5}
SIZE = 480, 360   # of the network, so that resizing does not add differences

RgbImage = npt.NDArray[np.uint8]


def read_images(folder: str | None, count: int) -> list[RgbImage]:
    """Return up to `count` RGB images uint8 [360, 480, 3], evenly spaced over a folder; None: the procedural street."""
    if folder is None:
        streets = [StreetCamera(*SIZE, seed=100 + n) for n in range(8)]
        images = [streets[n % 8].render(11 * n)[0] for n in range(count)]
    else:
        paths = find_images(Path(folder) / 'val' / 'images') or find_images(Path(folder))
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))
        images = [cv2.resize(cv2.imread(str(paths[i])), SIZE, interpolation=cv2.INTER_AREA) for i in chosen]
    return [np.ascontiguousarray(image[..., ::-1]) for image in images]


def measure_agreement(
    engines: Mapping[str, Engine], predict: Predictor, images: Sequence[RgbImage], vocabulary: Vocabulary
) -> dict[str, float]:
    """Return {engine: percent of the pixels of all images with the id that `predict` gives}."""
    same: dict[str, list[float]] = {label: [] for label in engines}
    for image in tqdm(images, unit='image', leave=False, disable=None):
        expected = predict(image)[0]
        for label, engine in engines.items():
            same[label].append(float(np.mean(engine.run([Frame(image, 'rgb')], vocabulary)[0].ids == expected)))
    return {label: round(100 * float(np.mean(values)), 2) for label, values in same.items()}


def parse_arguments() -> Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument('--data', metavar='DIR', help='data set or folder of images (default: the procedural street)')
    parser.add_argument('--images', dest='num_images', type=int, default=40, metavar='N', help='default: %(default)s')
    parser.add_argument('--num-classes', type=int, nargs='+', default=(11, 100), metavar='N',
                        help='sizes of the vocabulary; the first must reach the minimum agreement (default: 11 100)')
    add_json_option(parser)
    return parser.parse_args()


def show(rows: Mapping[str, Mapping[str, Any]], num_classes: Sequence[int]) -> bool:
    """Print a table; return whether each engine reaches its minimum agreement with the first vocabulary."""
    passed = True
    for label, row in rows.items():
        minimum, first = MIN_AGREEMENT[label.split()[1]], row[f'percent_{num_classes[0]}_classes']
        passed &= first >= minimum
        print(f'{label:<20}' + ''.join(f'{row[f"percent_{n}_classes"]:>8.2f} % with {n} classes' for n in num_classes)
              + f'   minimum {minimum} %{"" if first >= minimum else "  MISSED"}')
    return passed


def main() -> int:
    """Measure, print, write JSON. The exit code is 1 if an engine misses its minimum agreement."""
    arguments = parse_arguments()
    weights, images = load_weights(arguments.weights), read_images(arguments.data, arguments.num_images)
    engines, not_available = make_engines(None, tuple(MIN_AGREEMENT), EngineOptions(), weights)
    if not has_int8_dot() and int8_path(weights).is_file():   # too slow for a robot here, but the rounding is the same
        engines['onnxruntime int8'] = OnnxRuntimeEngine(weights, precision='int8')
        not_available = [entry for entry in not_available if entry['name'] not in engines]
    model = load_network(weights)
    rows: dict[str, dict[str, Any]] = {label: {'engine': label} for label in engines}
    for num_classes in arguments.num_classes:
        vocabulary = VocabularyState(weights.text_embeddings).replace(class_names(weights, num_classes))
        predict = torch_predictor(model, torch.from_numpy(vocabulary.text_embeddings), vocabulary.class_ids)
        for label, percent in measure_agreement(engines, predict, images, vocabulary).items():
            rows[label][f'percent_{num_classes}_classes'] = percent
    for entry in not_available:
        print(f'not available: {entry["name"]}: {entry["reason"]}')
    passed = show(rows, arguments.num_classes)
    write_json(arguments.json, {
        'benchmark': 'parity', 'machine': machine(), 'weights_sha256': weights.sha256, 'images': len(images),
        'source': Path(arguments.data).name if arguments.data else 'procedural street', 'rows': list(rows.values()),
        'not_available': not_available})
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
