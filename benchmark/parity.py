"""Do the engines give the masks that the torch network gives?  Share of the pixels with the same id.

The reference is torch in fp32 with every class interpolated to full size.  With the words of the training, and with
100 names of the bank; on drawn streets, or on a data set's val split or a folder of pictures.

    python benchmark/parity.py --data ../shared/data/camvid --json benchmark/results/parity.json
"""

import argparse
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from lgseg_ros.cli.bench import make_engines, names
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines.cpu import has_int8_dot, machine
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, Frame
from lgseg_ros.engines.onnx_files import int8_path
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.media.images import find_images
from lgseg_ros.model.weights_file import load_network
from lgseg_ros.training.evaluation import torch_predictor
from lgseg_ros.vocabulary.vocabulary import VocabularyState

# With the words of the training; between 100 words, many for the same thing, fp32 itself hardly decides.
GOALS = {'fp32': 99.5, 'fp16': 98.5, 'int8': 98.5}


def read_pictures(folder, count):
    """Up to `count` RGB pictures of the network's own size, so that resizing has no part in it."""
    if folder is None:
        streets = [StreetCamera(480, 360, seed=100 + n) for n in range(8)]
        pictures = [streets[n % 8].render(11 * n)[0] for n in range(count)]
    else:
        paths = find_images(Path(folder) / 'val' / 'images') or find_images(Path(folder))
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))
        pictures = [cv2.resize(cv2.imread(str(paths[i])), (480, 360), interpolation=cv2.INTER_AREA) for i in chosen]
    return [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]


def agreements(engines, predict, pictures, vocabulary):
    """{engine: percent of the pixels, over all pictures, with the id that `predict` gives}."""
    same = {label: [] for label in engines}
    for picture in tqdm(pictures, unit='picture', leave=False, disable=None):
        expected = predict(picture)[0]
        for label, engine in engines.items():
            same[label].append(np.mean(engine.run([Frame(picture, 'rgb')], vocabulary)[0].ids == expected))
    return {label: round(100 * float(np.mean(values)), 2) for label, values in same.items()}


def main():
    """Measure, print, write JSON.  Exit code 1 where an engine misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='lgseg_lite0')
    parser.add_argument('--data', metavar='DIR', help='data set or folder of pictures (default: drawn streets)')
    parser.add_argument('--pictures', type=int, default=40)
    parser.add_argument('--words', type=int, nargs='+', default=(11, 100), help='the first is held against the goals')
    add_json_option(parser)
    arguments = parser.parse_args()
    weights, pictures = load_weights(arguments.weights), read_pictures(arguments.data, arguments.pictures)
    engines, lacking = make_engines(Namespace(engines=None, precisions=tuple(GOALS), num_threads=0,
                                              max_inference_pixels=DEFAULT_PIXELS), weights)
    if not has_int8_dot() and int8_path(weights).is_file():   # too slow for a robot here, but the rounding is the same
        engines['onnxruntime int8'] = OnnxRuntimeEngine(weights, precision='int8')
        lacking = [entry for entry in lacking if entry['name'] not in engines]
    model, rows = load_network(weights), {label: {'engine': label} for label in engines}
    for words in arguments.words:
        vocabulary = VocabularyState(weights.text_embeddings).replace(names(weights, words))
        predict = torch_predictor(model, torch.from_numpy(vocabulary.text_embeddings), vocabulary.class_ids)
        for label, percent in agreements(engines, predict, pictures, vocabulary).items():
            rows[label][f'percent_{words}_words'] = percent
    for entry in lacking:
        print(f'not available: {entry["name"]}: {entry["reason"]}')
    met = True
    for label, row in rows.items():
        goal, first = GOALS[label.split()[1]], row[f'percent_{arguments.words[0]}_words']
        met &= first >= goal
        print(f'{label:<20}' + ''.join(f'{row[f"percent_{n}_words"]:>8.2f} % at {n} words' for n in arguments.words)
              + f'   goal {goal} %{"" if first >= goal else "  MISSED"}')
    write_json(arguments.json, {
        'benchmark': 'parity', 'machine': machine(), 'weights_sha256': weights.sha256, 'pictures': len(pictures),
        'source': Path(arguments.data).name if arguments.data else 'procedural street', 'rows': list(rows.values()),
        'not_available': lacking})
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
