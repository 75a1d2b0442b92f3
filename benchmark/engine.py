"""Latency of the engines in one run, with eager PyTorch and two public networks, and the cost of more classes.

Each engine takes a BGR uint8 frame and returns class ids at the size of the frame. The engines take turns, so a busy
machine slows all of them alike: compare the speeds. The public networks have random weights (speed only).

    scripts/setup.sh --with train --with benchmark && source scripts/activate.sh
    python benchmark/engine.py --json benchmark/results/engine.json
"""

import argparse
import os
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lgseg_ros.cli.bench import class_names, make_engines, subject
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.cli.options import add_weights_option, size
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines.base import Engine, EngineOptions
from lgseg_ros.engines.onnxruntime_engine import session_options
from lgseg_ros.engines.preprocessing import Frame, network_size, to_network
from lgseg_ros.engines.timing import Times, format_table, summarize, time_in_turn
from lgseg_ros.model.weights import Weights, load_weights
from lgseg_ros.utils.hardware import machine, usable_cores
from lgseg_ros.vocabulary.vocabulary import VocabularyState

NUM_CLASSES = 11           # of the comparison
NUM_PUBLIC_CLASSES = 19    # of the public networks
PRECISIONS = ('fp32', 'fp16', 'int8')
REFERENCE = 'onnxruntime fp32'
# Threads that spin while they wait would be counted against the engine whose turn comes next.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

Pixels = npt.NDArray[np.uint8]
RunFrame = Callable[[Pixels], object]
"""Segments a frame, BGR uint8 [H, W, 3]."""
RunIteration = Callable[[int], object]
"""Segments one frame; takes the number of the iteration."""


def engine_runner(weights: Weights, engine: Engine, frames: Sequence[Pixels], num_classes: int) -> RunIteration:
    """Return a function that runs an engine with so many classes."""
    vocabulary = VocabularyState(weights.text_embeddings).replace(class_names(weights, num_classes))
    return subject(engine, [Frame(frame, 'bgr') for frame in frames], vocabulary)


def eager_torch_runner(weights: Weights, num_threads: int) -> RunFrame:
    """Return a function that runs the same network in eager PyTorch, as the evaluation of a training does."""
    import torch

    from lgseg_ros.model.weights_file import load_network
    from lgseg_ros.training.evaluation import torch_predictor
    torch.set_num_threads(num_threads)
    model = load_network(weights).to(memory_format=torch.channels_last)
    vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid')
    predict = torch_predictor(model, torch.from_numpy(vocabulary.text_embeddings), np.asarray(vocabulary.class_ids))
    return lambda bgr: predict(to_network(Frame(bgr, 'bgr'), network_size(*bgr.shape[:2])))


def public_network_runner(name: str, num_threads: int, shape: Sequence[int]) -> RunFrame:
    """Return a function that runs a network of a public library, exported and run by ONNX Runtime like ours.

    Args:
        name: 'SegFormer-B0' or 'DeepLabV3+ MobileNetV2'.
        num_threads: of ONNX Runtime.
        shape: height and width of the frames.
    """
    from lgseg_ros.utils.torchvision_compat import ensure_torchvision
    ensure_torchvision()
    import onnxruntime
    import segmentation_models_pytorch as smp
    import torch

    makers = {'SegFormer-B0': lambda: smp.Segformer('mit_b0', encoder_weights=None, classes=NUM_PUBLIC_CLASSES),
              'DeepLabV3+ MobileNetV2': lambda: smp.DeepLabV3Plus('mobilenet_v2', encoder_weights=None,
                                                                 classes=NUM_PUBLIC_CLASSES)}

    class ArgmaxNetwork(torch.nn.Module):
        """The network, with the class of each pixel as its output."""

        def __init__(self) -> None:
            super().__init__()
            self.network = makers[name]()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Return class ids, uint8 [B, H, W], of images, float32 [B, 3, H, W]."""
            return self.network(images).argmax(dim=1).to(torch.uint8)

    # The strides of these networks need multiples of 32.
    rounded = round(shape[0] / 32) * 32, round(shape[1] / 32) * 32
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = str(Path(folder) / 'public.onnx')
        torch.onnx.export(ArgmaxNetwork().eval(), (torch.zeros(1, 3, *rounded),), path, input_names=['images'],
                          dynamo=False)
        session = onnxruntime.InferenceSession(path, session_options(num_threads), providers=['CPUExecutionProvider'])

    def run(bgr: Pixels) -> Pixels:
        resized = to_network(Frame(bgr, 'bgr'), rounded).astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        ids = session.run(None, {'images': resized})[0][0]
        return cv2.resize(ids, bgr.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return run


def compare(
    arguments: Namespace, weights: Weights, engines: Mapping[str, Engine], frames: Sequence[Pixels]
) -> list[dict[str, object]]:
    """Time all engines and the public networks with 11 classes; the first row is ours in ONNX Runtime fp32."""
    runners = {label: engine_runner(weights, engine, frames, NUM_CLASSES) for label, engine in engines.items()}
    runners = {REFERENCE: runners.pop(REFERENCE), **runners}
    if not arguments.engines_only:
        others = {'ours, eager torch': eager_torch_runner(weights, arguments.num_threads)}
        others |= {f'{name}, onnxruntime fp32': public_network_runner(name, arguments.num_threads, frames[0].shape[:2])
                   for name in ('SegFormer-B0', 'DeepLabV3+ MobileNetV2')}
        runners |= {name: lambda n, run=run: run(frames[n % len(frames)]) for name, run in others.items()}
    return show('frame to ids at frame size', time_in_turn(runners, arguments.iterations))


def show(title: str, times: Mapping[str, Times]) -> list[dict[str, object]]:
    """Print a table; return its rows for the JSON file."""
    results = summarize(times)
    print(f'\n{title}\n{format_table(results)}', flush=True)
    return [result.as_json() for result in results]


def parse_arguments() -> Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument('--size', type=size, default=(480, 360), metavar='WxH', help='of the frame (default: 480x360)')
    parser.add_argument('--iterations', type=int, default=40, metavar='N', help='default: %(default)s')
    parser.add_argument('--num-threads', type=int, default=usable_cores(), metavar='N',
                        help='CPU threads (default: all cores)')
    parser.add_argument('--num-classes', type=int, nargs='+', default=(2, 10, 50, 100, 250), metavar='N',
                        help='sizes of the vocabulary whose cost is measured (default: 2 10 50 100 250)')
    parser.add_argument('--engines-only', action='store_true',
                        help='without eager PyTorch and the public networks (needs no PyTorch)')
    add_json_option(parser)
    return parser.parse_args()


def main() -> int:
    """Measure, print, and write JSON."""
    arguments = parse_arguments()
    camera, weights = StreetCamera(*arguments.size, seed=1), load_weights(arguments.weights)
    frames = [camera.render(n * 15)[0] for n in range(8)]
    engines, not_available = make_engines(None, ('fp32', 'fp16', 'int8'),
                                          EngineOptions(num_threads=arguments.num_threads), weights)
    result: dict[str, Any] = {
        'benchmark': 'engine', 'size': 'x'.join(map(str, arguments.size)), 'num_threads': arguments.num_threads,
        'machine': machine(), 'iterations': arguments.iterations, 'weights_sha256': weights.sha256,
        'not_available': not_available}
    print('\n'.join(f'not available: {entry["name"]}: {entry["reason"]}' for entry in not_available))
    result['engines'] = compare(arguments, weights, engines, frames)
    result['num_classes'] = {}
    for label, engine in engines.items():
        runners = {f'{n} classes': engine_runner(weights, engine, frames, n) for n in arguments.num_classes}
        times = time_in_turn(runners, arguments.iterations // 2)
        result['num_classes'][label] = show(f'cost of classes, {label}', times)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
