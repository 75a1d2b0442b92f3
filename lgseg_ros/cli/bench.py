"""Time the engines on this machine: from a camera's frame to its mask, for every combination of what is given.

All take turns, each on the same frame twice of which the second counts, so that a busy machine slows all alike: read
the speeds, which are relative to the first row.  cpu ms is processor time of all cores.  What cannot run here is listed
with the reason.  Last comes how far each engine agreed with its golden self-test, and how long that took.

Examples:
  lgseg bench
  lgseg bench --engines onnxruntime openvino --precisions fp32 int8 --num-threads 2
  lgseg bench --engines auto --precisions auto --sizes 480x360 640x480 1280x720 --words 2 10 100 --json bench.json
"""

import os
from argparse import Namespace
from itertools import product
from typing import Any

import numpy as np
from tqdm import tqdm

from ..demo.street import StreetCamera
from ..utils.hardware import machine, usable_cores
from ..engines.preprocessing import DEFAULT_PIXELS, Frame, check_numbers
from ..engines.selection import ENGINE_NAMES, ENGINES, PRECISIONS, close_engine, create_engine, engine_class
from ..engines.timing import rows_of, table, time_in_turn
from ..engines.weights import DEFAULT_WEIGHTS, Weights, load_weights
from ..vocabulary.classes import parse_class
from ..vocabulary.vocabulary import VocabularyState
from .json_output import add_json_option, write_json
from .options import size

FRAMES = 4   # different pictures, in turn


def add_arguments(parser):
    """The command line of `lgseg bench`."""
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors (default: %(default)s)')
    parser.add_argument('--engines', nargs='+', choices=ENGINE_NAMES, metavar='E',
                        help=f'of: {", ".join(ENGINE_NAMES)} (default: all that "auto" would think of here); one '
                             'that is named is built if it has to be')
    parser.add_argument('--precisions', nargs='+', choices=PRECISIONS, default=list(PRECISIONS[1:]), metavar='P',
                        help=f'of: {", ".join(PRECISIONS)} (default: all but auto)')
    parser.add_argument('--sizes', nargs='+', type=size, default=[size('640x480')], metavar='WxH',
                        help='of the frames (default: 640x480)')
    parser.add_argument('--words', nargs='+', type=int, default=[10], metavar='N', help='default: 10')
    parser.add_argument('--num-threads', type=int, default=0, help='CPU threads (default: all cores)')
    parser.add_argument('--max-inference-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help='pixels of the picture that the network sees (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=30, metavar='N', help='that count (default: %(default)s)')
    parser.add_argument('--warm-up', type=int, default=5, metavar='N', help='that do not (default: %(default)s)')
    add_json_option(parser)


def run(arguments):
    """Measure, print, write JSON."""
    if arguments.rounds < 1:
        raise ValueError(f'--rounds is {arguments.rounds}; give at least 1')
    check_numbers(arguments.max_inference_pixels, arguments.num_threads)
    # Threads that spin while they wait would be counted against whoever's turn comes next.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    weights = load_weights(arguments.weights)
    engines, lacking = make_engines(arguments, weights)
    lacking += drop_failing(engines, arguments, weights)
    result = {'benchmark': 'lgseg bench', 'machine': machine(), 'num_threads': arguments.num_threads or usable_cores(),
              'weights': weights.path.stem, 'weights_sha256': weights.sha256, 'rounds': arguments.rounds,
              'warm_up': arguments.warm_up, 'rows': [], 'not_available': lacking}
    print(
        f'{result["machine"]}; {result["num_threads"]} threads; {arguments.rounds} rounds after {arguments.warm_up} to '
        f'warm up; {weights.path.stem}'
    )
    for reason in lacking:
        print(f'not available: {reason["name"]}: {reason["reason"]}')
    try:
        if engines:
            result['rows'] = rows_of(measure(arguments, subjects(arguments, engines, weights)))
            print(table(result['rows']))
    finally:
        for engine in engines.values():
            close_engine(engine)
    result['self_tests'] = [row for label, engine in engines.items() for row in self_test_rows(label, engine)]
    for label, engine in engines.items():
        print(f'self-test: {label}: {engine.self_test}')
    write_json(arguments.json, result)
    if not engines:
        raise RuntimeError('none of these engines can run here')
    return 0


def make_engines(arguments, weights):
    """({'engine precision': engine}, [{'name', 'reason'} of what is not available])."""
    engines, lacking = {}, []
    for name, precision in product(arguments.engines or ENGINES, arguments.precisions):
        label = f'{name} {precision}'
        try:
            engines[label] = make_engine(name, precision, arguments, weights)
        except Exception as error:   # every library has its own kinds
            lacking.append({'name': label, 'reason': str(error).strip().partition('\n')[0]})
    return engines, lacking


def drop_failing(engines: dict[str, Any], arguments: Namespace, weights: Weights) -> list[dict[str, str]]:
    """Run each engine once at each size, and take away those that cannot; returns {'name', 'reason'} of these."""
    vocabulary, failed = VocabularyState(weights.text_embeddings).replace(names(weights, 1)), []
    for label, engine in list(engines.items()):
        try:
            for width, height in arguments.sizes:
                engine.run([Frame(np.zeros((height, width, 3), np.uint8), 'bgr')], vocabulary)
        except Exception as error:   # SelfTestError, or what the library raises at this size
            failed.append({'name': label, 'reason': str(error).strip().partition('\n')[0]})
            close_engine(engines.pop(label))
    return failed


def self_test_rows(label: str, engine: Any) -> list[dict[str, object]]:
    """Name, network size, agreement (0..1), confidence error (0..1) and milliseconds of each of an engine's tests."""
    return [{'name': label, 'size': f'{result.size[1]}x{result.size[0]}', 'agreement': round(result.agreement, 5),
             'confidence_error': round(result.confidence_error, 5), 'ms': round(result.milliseconds, 1)}
            for result in engine.self_test.results]


def make_engine(name, precision, arguments, weights):
    """Exactly this engine, or an error that tells why not; 'auto' as the node chooses."""
    if name == 'auto':
        return create_engine(Namespace(engine=name, precision=precision, num_threads=arguments.num_threads,
                                       max_inference_pixels=arguments.max_inference_pixels), weights)
    kind = engine_class(name)
    reason = kind.unavailable(precision)
    if reason is None and not arguments.engines and hasattr(kind, 'not_ready'):
        reason = kind.not_ready(weights, arguments.max_inference_pixels, precision)
    if reason is not None:
        raise RuntimeError(reason)
    return kind(weights, arguments.num_threads, arguments.max_inference_pixels, precision)


def subjects(arguments, engines, weights):
    """{label: function of the round's number} for every size, number of words and engine."""
    found = {}
    for (width, height), words in product(arguments.sizes, arguments.words):
        camera = StreetCamera(width, height, seed=1)
        frames = [Frame(camera.render(30 * n)[0], 'bgr') for n in range(FRAMES)]
        vocabulary = VocabularyState(weights.text_embeddings).replace(names(weights, words))
        for label, engine in engines.items():
            found[f'{label}, {width}x{height}, {words} words'] = subject(engine, frames, vocabulary)
    return found


def subject(engine, frames, vocabulary):
    """A function of the round's number that runs one frame."""
    return lambda n: engine.run([frames[n % len(frames)]], vocabulary)


def names(weights, count):
    """`count` classes: first those that the weights were trained on, then other words of their bank."""
    phrases = {phrase for text in weights.classes for phrase in parse_class(text).phrases}
    known = weights.classes + [name for name in weights.text_embeddings.names if name not in phrases]
    if not 1 <= count <= min(len(known), 255):
        raise ValueError(f'--words is {count}; these weights know {len(known)}, and a vocabulary has at most 255')
    return known[:count]


def measure(arguments, functions):
    """`time_in_turn` with a progress bar on a terminal."""
    return time_in_turn(functions, arguments.rounds, arguments.warm_up,
                        lambda rounds: tqdm(rounds, unit='round', leave=False, disable=None))
