"""Engines side by side in one run, with what a user would pick instead, and the cost of more words.

Every subject takes a BGR uint8 frame and gives class ids at the frame's size.  Subjects take turns, so
that a busy machine slows all alike: read the speeds.  Others have random weights (speed only).

    scripts/setup.sh --with train --with benchmark && source scripts/activate.sh
    python benchmark/engine.py --json benchmark/results/engine.json
"""

import argparse
import os
import sys
import tempfile
import warnings
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np

from lgseg_ros.cli.bench import make_engines, names, subject
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.engines.cpu import machine, usable_cores
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, Frame, network_size, to_network
from lgseg_ros.engines.onnxruntime_engine import session_options
from lgseg_ros.engines.timing import rows_of, table, time_in_turn
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.cli.options import size
from lgseg_ros.vocabulary.vocabulary import VocabularyState

CLASSES_OF_OTHERS = 19
REFERENCE = 'onnxruntime fp32'
# Threads that spin while they wait would be counted against whoever's turn comes next.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def ours(weights, engine, frames, words):
    """Our engine with so many words."""
    vocabulary = VocabularyState(weights.text_embeddings).replace(names(weights, words))
    return subject(engine, [Frame(frame, 'bgr') for frame in frames], vocabulary)


def ours_in_torch(weights, num_threads):
    """The same network and answer, ids and confidence, in eager torch: the code that training measures with."""
    import torch

    from lgseg_ros.model.weights_file import load_network
    from lgseg_ros.training.evaluation import torch_predictor
    torch.set_num_threads(num_threads)
    model = load_network(weights).to(memory_format=torch.channels_last)
    vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid')
    predict = torch_predictor(model, torch.from_numpy(vocabulary.text_embeddings), np.asarray(vocabulary.class_ids))
    return lambda bgr: predict(to_network(Frame(bgr, 'bgr'), network_size(*bgr.shape[:2])))


def other(name, num_threads, size):
    """A network of a public library with random weights, exported and run by ONNX Runtime like ours."""
    from lgseg_ros.model.torchvision_compat import ensure_torchvision
    ensure_torchvision()
    import onnxruntime
    import segmentation_models_pytorch as smp
    import torch

    makers = {'SegFormer-B0': lambda: smp.Segformer('mit_b0', encoder_weights=None, classes=CLASSES_OF_OTHERS),
              'DeepLabV3+ MobileNetV2': lambda: smp.DeepLabV3Plus('mobilenet_v2', encoder_weights=None,
                                                                 classes=CLASSES_OF_OTHERS)}

    class Labels(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = makers[name]()

        def forward(self, images):
            return self.network(images).argmax(dim=1).to(torch.uint8)

    # Their strides need multiples of 32.
    rounded = tuple(round(side / 32) * 32 for side in size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = str(Path(folder) / 'other.onnx')
        torch.onnx.export(Labels().eval(), (torch.zeros(1, 3, *rounded),), path, input_names=['images'], dynamo=False)
        session = onnxruntime.InferenceSession(path, session_options(num_threads), providers=['CPUExecutionProvider'])

    def run(bgr):
        small = to_network(Frame(bgr, 'bgr'), rounded).astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        return cv2.resize(session.run(None, {'images': small})[0][0], bgr.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return run


def compare(arguments, weights, engines, frames):
    """All engines and the others at 11 words; rows relative to our fp32 in ONNX Runtime."""
    found = {label: ours(weights, engine, frames, 11) for label, engine in engines.items()}
    found = {REFERENCE: found.pop(REFERENCE), **found}
    if not arguments.skip_others:
        others = {'ours, eager torch': ours_in_torch(weights, arguments.num_threads)}
        others |= {f'{name}, onnxruntime fp32': other(name, arguments.num_threads, frames[0].shape[:2])
                   for name in ('SegFormer-B0', 'DeepLabV3+ MobileNetV2')}
        found |= {name: lambda n, run=run: run(frames[n % len(frames)]) for name, run in others.items()}
    return show('frame to ids at frame size', time_in_turn(found, arguments.rounds))


def show(title, times):
    """Print a table; returns its rows."""
    rows = rows_of(times)
    print(f'\n{title}\n{table(rows)}', flush=True)
    return rows


def main():
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='lgseg_lite0')
    parser.add_argument('--size', type=size, default=(480, 360), help='of the frame (default: 480x360)')
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--num-threads', type=int, default=usable_cores())
    parser.add_argument('--words', type=int, nargs='+', default=(2, 10, 50, 100, 250))
    parser.add_argument('--skip-others', action='store_true', help='our own engines only (needs no torch)')
    add_json_option(parser)
    arguments = parser.parse_args()
    camera, weights = StreetCamera(*arguments.size, seed=1), load_weights(arguments.weights)
    frames = [camera.render(n * 15)[0] for n in range(8)]
    engines, lacking = make_engines(Namespace(engines=None, precisions=('fp32', 'fp16', 'int8'),
                                              num_threads=arguments.num_threads, max_inference_pixels=DEFAULT_PIXELS), weights)
    result = {'benchmark': 'engine', 'frame': 'x'.join(map(str, arguments.size)), 'num_threads': arguments.num_threads,
              'machine': machine(), 'rounds': arguments.rounds, 'weights_sha256': weights.sha256,
              'not_available': lacking}
    print('\n'.join(f'not available: {entry["name"]}: {entry["reason"]}' for entry in lacking))
    result['engines'] = compare(arguments, weights, engines, frames)
    result['words'] = {}
    for label, engine in engines.items():
        times = time_in_turn({f'{n} words': ours(weights, engine, frames, n) for n in arguments.words},
                             arguments.rounds // 2)
        result['words'][label] = show(f'cost of words, {label}', times)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
