"""Engines side by side in one run, with what a user would pick instead, and the cost of more words.

Every subject takes a BGR uint8 frame and gives class ids at the frame's size.  Subjects take turns, one frame
each, so that a busy machine slows all alike: read the ratios.  Others have random weights (speed only).

    scripts/setup.sh --with train --with benchmark && source scripts/activate.sh
    python benchmark/engine.py --json benchmark/results/engine.json
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np

from lgseg_ros.engines.frames import Frame, network_size, to_network
from lgseg_ros.engines.onnxruntime import OnnxRuntimeEngine, usable_cores
from lgseg_ros.engines.weights import load_weights
from lgseg_ros.sim.street import StreetCamera
from lgseg_ros.vocabulary.state import VocabularyState

CLASSES_OF_OTHERS = 19
# Threads that spin while they wait would be counted against whoever's turn comes next.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def ours(weights, engine, rows):
    """Our engine with `rows` words; the first 11 are the ones it was trained on."""
    trained = [phrase for spec in VocabularyState(weights.bank).replace([], 'camvid').specs for phrase in spec.phrases[:1]]
    words = trained[:rows] + [n for n in weights.bank.names if n not in trained][:max(rows - len(trained), 0)]
    vocabulary = VocabularyState(weights.bank).replace(words)
    return lambda bgr: engine.run([Frame(bgr, 'bgr')], vocabulary)[0].ids


def ours_in_torch(weights, threads):
    """The same network and answer in eager torch: what running the training code would cost."""
    import torch

    from lgseg_ros.model.weights_file import load_segmenter
    torch.set_num_threads(threads)
    model = load_segmenter(weights).to(memory_format=torch.channels_last)
    rows = torch.from_numpy(VocabularyState(weights.bank).replace([], 'camvid').rows)

    @torch.inference_mode()
    def run(bgr):
        size = bgr.shape[:2]
        rgb = torch.from_numpy(to_network(Frame(bgr, 'bgr'), network_size(*size)))
        logits = model(rgb.permute(2, 0, 1)[None].float().div(127.5).sub(1), rows).logits
        full = torch.nn.functional.interpolate(logits, size=size, mode='bilinear', align_corners=False)
        return full.argmax(dim=1)[0].to(torch.uint8).numpy()
    return run


def other(name, threads, size):
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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def run(bgr):
        small = to_network(Frame(bgr, 'bgr'), rounded).astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        return cv2.resize(session.run(None, {'images': small})[0][0], bgr.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return run


def time_in_turn(subjects, frames, rounds, warm_up=3):
    """Milliseconds [rounds] per subject, one frame each in turn."""
    times = {name: [] for name in subjects}
    for n in range(warm_up + rounds):
        for name, run in subjects.items():
            began = time.perf_counter()
            run(frames[n % len(frames)])
            if n >= warm_up:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def report(title, times, reference):
    """Print a table; returns its rows."""
    base, rows = np.median(times[reference]), []
    print(f'\n{title}\n{"":<34}{"median":>9}{"p95":>9}{"best":>9}   x {reference}')
    for name, values in times.items():
        row = {'name': name, 'median_ms': np.median(values), 'p95_ms': np.percentile(values, 95), 'best_ms': min(values),
               'ratio': np.median(values) / base}
        rows.append({key: value if key == 'name' else round(float(value), 2) for key, value in row.items()})
        print(f'{name:<34}{row["median_ms"]:>9.1f}{row["p95_ms"]:>9.1f}{row["best_ms"]:>9.1f}   {row["ratio"]:.2f}')
    return rows


def main():
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', default='480x360', help='of the frame (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--threads', type=int, default=usable_cores())
    parser.add_argument('--rows', type=int, nargs='+', default=(2, 10, 50, 100, 250))
    parser.add_argument('--skip-others', action='store_true', help='our own engine and words only (needs no torch)')
    parser.add_argument('--json', metavar='FILE')
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split('x'))
    camera, threads = StreetCamera(width, height, seed=1), arguments.threads
    frames = [camera.render(n * 15)[0] for n in range(8)]
    weights = load_weights()
    engine = OnnxRuntimeEngine(weights, threads)
    result = {'benchmark': 'engine', 'frame': arguments.size, 'threads': threads,
              'machine': f'{platform.machine()}, {usable_cores()} cores', 'rounds': arguments.rounds}
    words = {f'{rows} words': ours(weights, engine, rows) for rows in arguments.rows}
    if not arguments.skip_others:
        subjects = {'ours': ours(weights, engine, 11), 'ours, eager torch': ours_in_torch(weights, threads)}
        subjects |= {name: other(name, threads, (height, width)) for name in ('SegFormer-B0', 'DeepLabV3+ MobileNetV2')}
        result['engines'] = report(f'{arguments.size}, {threads} threads, frame to ids at frame size',
                                   time_in_turn(subjects, frames, arguments.rounds), 'ours')
    first = f'{arguments.rows[0]} words'
    result['words'] = report('cost of words', time_in_turn(words, frames, arguments.rounds), first)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
