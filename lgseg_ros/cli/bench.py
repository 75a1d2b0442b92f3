"""Measure the latency of the engines on this machine, from camera image to mask, for every combination of options.

The engines take turns, so a busy machine slows all alike: compare the speeds, which are relative to the first row. Each
runs twice on a frame and the second run is timed. cpu ms is the processor time of all cores. What cannot run here is
listed with the reason. The last lines are the self-tests of the engines: agreement with PyTorch, and duration.

Examples:
  lgseg bench
  lgseg bench --engines onnxruntime openvino --precisions fp32 int8 --num-threads 2
  lgseg bench --engines auto --precisions auto --sizes 480x360 640x480 1280x720 --num-classes 2 10 100 --json bench.json
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from tqdm import tqdm

from ..demo.street import StreetCamera
from ..engines.base import Engine, EngineOptions
from ..engines.errors import first_line
from ..engines.preprocessing import Frame
from ..engines.selection import ENGINE_NAMES, ENGINES, PRECISIONS, create_engine, engine_class
from ..engines.timing import TimingResult, format_table, summarize, time_in_turn
from ..model.weights import Weights, load_weights
from ..utils.hardware import machine, usable_cores
from ..vocabulary.classes import MAX_PHRASES, parse_class
from ..vocabulary.vocabulary import Vocabulary, VocabularyState
from .json_output import add_json_option, write_json
from .options import add_inference_options, add_weights_option, size

NUM_FRAMES = 4
"""Different images, used in turn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg bench`."""
    add_weights_option(parser)
    parser.add_argument('--engines', nargs='+', choices=ENGINE_NAMES, metavar='E',
                        help=f'of: {", ".join(ENGINE_NAMES)} (default: all that "auto" would consider here); one that '
                             'is named is built if it has to be')
    parser.add_argument('--precisions', nargs='+', choices=PRECISIONS, default=list(PRECISIONS[1:]), metavar='P',
                        help=f'of: {", ".join(PRECISIONS)} (default: all but auto)')
    parser.add_argument('--sizes', nargs='+', type=size, default=[size('640x480')], metavar='WxH',
                        help='of the images (default: 640x480)')
    parser.add_argument('--num-classes', nargs='+', type=int, default=[10], metavar='N',
                        help='of the vocabulary (default: 10)')
    add_inference_options(parser)
    parser.add_argument('--iterations', type=int, default=30, metavar='N', help='timed (default: %(default)s)')
    parser.add_argument('--warmup-iterations', type=int, default=5, metavar='N',
                        help='before, not timed (default: %(default)s)')
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and write JSON. Returns 0."""
    if arguments.iterations < 1:
        raise ValueError(f'iterations is {arguments.iterations}; give at least 1')
    options = EngineOptions(num_threads=arguments.num_threads, max_inference_pixels=arguments.max_inference_pixels)
    # Threads that spin while they wait would be counted against the subject whose turn comes next.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    weights = load_weights(arguments.weights)
    engines, not_available = make_engines(arguments.engines, arguments.precisions, options, weights)
    not_available += drop_failing(engines, arguments.sizes, weights)
    num_threads = options.num_threads or usable_cores()
    print(f'{machine()}; {num_threads} threads; {arguments.iterations} iterations after {arguments.warmup_iterations} '
          f'to warm up; {weights.path.stem}')
    for entry in not_available:
        print(f'not available: {entry["name"]}: {entry["reason"]}')
    try:
        results = measure(arguments, engines, weights) if engines else []
    finally:
        for engine in engines.values():
            engine.close()
    for label, engine in engines.items():
        print(f'self-test: {label}: {engine.self_test}')
    write_json(arguments.json, {
        'benchmark': 'lgseg bench', 'machine': machine(), 'num_threads': num_threads, 'weights': weights.path.stem,
        'weights_sha256': weights.sha256, 'iterations': arguments.iterations,
        'warmup_iterations': arguments.warmup_iterations, 'results': [result.as_json() for result in results],
        'not_available': not_available,
        'self_tests': [result for label, engine in engines.items() for result in self_test_results(label, engine)]})
    if not engines:
        raise RuntimeError('none of these engines can run here')
    return 0


def make_engines(names: Sequence[str] | None, precisions: Sequence[str], options: EngineOptions,
                 weights: Weights) -> tuple[dict[str, Engine], list[dict[str, str]]]:
    """Create an engine for every combination of name and precision.

    Args:
        names: of `ENGINE_NAMES`; None for all that 'auto' would consider.
        precisions: of `PRECISIONS`.
        options: number of threads and size of the network's image.
        weights: from `load_weights`.

    Returns:
        The engines by label, 'name precision', and {'name': label, 'reason'} of each that is not available.
    """
    engines: dict[str, Engine] = {}
    not_available: list[dict[str, str]] = []
    for name, precision in product(names or ENGINES, precisions):
        label = f'{name} {precision}'
        try:
            engines[label] = make_engine(name, precision, options, weights, by_name=bool(names))
        except Exception as error:   # every library has its own kinds
            not_available.append({'name': label, 'reason': first_line(error)})
    return engines, not_available


def make_engine(name: str, precision: str, options: EngineOptions, weights: Weights, by_name: bool = True) -> Engine:
    """Create exactly this engine; 'auto' as the node selects.

    Args:
        name: one of `ENGINE_NAMES`.
        precision: one of `PRECISIONS`.
        options: number of threads and size of the network's image.
        weights: from `load_weights`.
        by_name: whether a slow start, such as a build, is accepted.

    Raises:
        RuntimeError: it is not available here; the message is the reason. Libraries raise other errors, too.
    """
    if name == 'auto':
        return create_engine(EngineOptions(name, precision, options.num_threads, options.max_inference_pixels), weights)
    engine_type = engine_class(name)
    reason = engine_type.unavailable(precision)
    if reason is None and not by_name:
        reason = engine_type.not_ready(weights, options.max_inference_pixels, precision)
    if reason is not None:
        raise RuntimeError(reason)
    return engine_type(weights, options.num_threads, options.max_inference_pixels, precision)


def drop_failing(engines: dict[str, Engine], sizes: Sequence[tuple[int, int]],
                 weights: Weights) -> list[dict[str, str]]:
    """Run each engine once at each size and remove those that fail.

    Args:
        engines: by label; those that fail are closed and removed.
        sizes: (width, height) of the images.
        weights: of the engines.

    Returns:
        {'name': label, 'reason'} of each that was removed.
    """
    vocabulary = VocabularyState(weights.text_embeddings).replace(class_names(weights, 1))
    failed: list[dict[str, str]] = []
    for label, engine in list(engines.items()):
        try:
            for width, height in sizes:
                engine.run([Frame(np.zeros((height, width, 3), np.uint8), 'bgr')], vocabulary)
        except Exception as error:   # SelfTestError, or what the library raises at this size
            failed.append({'name': label, 'reason': first_line(error)})
            engines.pop(label).close()
    return failed


def measure(arguments: argparse.Namespace, engines: Mapping[str, Engine], weights: Weights) -> list[TimingResult]:
    """Time the engines with every size and number of classes; prints the table, and a progress bar on a terminal."""
    subjects: dict[str, Callable[[int], object]] = {}
    for (width, height), num_classes in product(arguments.sizes, arguments.num_classes):
        camera = StreetCamera(width, height, seed=1)
        frames = [Frame(camera.render(30 * n)[0], 'bgr') for n in range(NUM_FRAMES)]
        vocabulary = VocabularyState(weights.text_embeddings).replace(class_names(weights, num_classes))
        for label, engine in engines.items():
            subjects[f'{label}, {width}x{height}, {num_classes} classes'] = subject(engine, frames, vocabulary)
    times = time_in_turn(subjects, arguments.iterations, arguments.warmup_iterations,
                         lambda iterations: tqdm(iterations, unit='iteration', leave=False, disable=None))
    results = summarize(times)
    print(format_table(results))
    return results


def subject(engine: Engine, frames: Sequence[Frame], vocabulary: Vocabulary) -> Callable[[int], object]:
    """Return a function of the iteration's number that segments one of the frames."""
    return lambda n: engine.run([frames[n % len(frames)]], vocabulary)


def class_names(weights: Weights, count: int) -> list[str]:
    """Return classes for a vocabulary: first those of the training, then other phrases that the weights know.

    Args:
        weights: from `load_weights`.
        count: number of classes, 1 to 255.

    Raises:
        ValueError: there are not so many.
    """
    trained = {phrase for text in weights.classes for phrase in parse_class(text).phrases}
    known = weights.classes + [name for name in weights.text_embeddings.names if name not in trained]
    if not 1 <= count <= min(len(known), MAX_PHRASES):
        raise ValueError(f'num_classes is {count}; these weights know {len(known)}, and a vocabulary has at most '
                         f'{MAX_PHRASES}')
    return known[:count]


def self_test_results(label: str, engine: Engine) -> list[dict[str, object]]:
    """Return name, network size, agreement (0 to 1), confidence error (0 to 1) and milliseconds of each self-test."""
    return [{'name': label, 'size': f'{result.size[1]}x{result.size[0]}', 'agreement': round(result.agreement, 5),
             'confidence_error': round(result.confidence_error, 5), 'ms': round(result.milliseconds, 1)}
            for result in engine.self_test.results]
