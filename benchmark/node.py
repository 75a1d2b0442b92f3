"""Latency, jitter, drops, CPU load and peak rate of the node, and its overhead over the bare engine.

A camera process publishes images of one size at 10 and 30 Hz, best effort, with the shipped Fast DDS profile. This
process subscribes to the mask. Before, the engine alone is timed in this process on the same image. The overhead is
the time of the node for a frame less that of the engine; both are in its diagnostics. The peak rate is the highest of
PEAK_RATES at which less than 5 % of the frames are dropped, found by bisection. A rate that fails is tried once more,
because one interruption by the operating system costs 5 %.

    python benchmark/node.py --json benchmark/results/node.json
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
from node_harness import (
    DISCOVERY_S,
    SIZES,
    MaskListener,
    add_parameters_option,
    cpu_seconds,
    frames_sent,
    make_parser,
    never,
    prepare_ros,
    start_camera,
    start_node,
    write_street_image,
)

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.engines.base import EngineOptions
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS, Frame
from lgseg_ros.engines.selection import create_engine
from lgseg_ros.model.weights import DEFAULT_WEIGHTS, load_weights
from lgseg_ros.utils.hardware import machine
from lgseg_ros.utils.subprocesses import stop_process
from lgseg_ros.vocabulary.vocabulary import VocabularyState

# Parameters of the node that its engine depends on, and their defaults.
ENGINE_PARAMETERS: dict[str, Any] = {
    'weights': DEFAULT_WEIGHTS,
    'engine': 'auto',
    'precision': 'auto',
    'num_threads': 0,
    'max_inference_pixels': DEFAULT_PIXELS,
}
PEAK_RATES = (5, 10, 15, 20, 25, 30, 40, 50)
WARMUP_ITERATIONS = 5


def measure_engine(image: str, size: str, parameters: Sequence[str] = (), iterations: int = 40) -> dict[str, Any]:
    """Return the latency of the engine that the node would select, alone in this process, on the same image."""
    values = {**ENGINE_PARAMETERS, **dict(parameter.split(':=', 1) for parameter in parameters)}
    options = EngineOptions(values['engine'], values['precision'], int(values['num_threads']),
                            int(values['max_inference_pixels']))
    weights = load_weights(values['weights'])
    vocabulary = VocabularyState(weights.text_embeddings).replace([], 'camvid')
    engine, frame = create_engine(options, weights, vocabulary=vocabulary), Frame(cv2.imread(image), 'bgr')
    times = []
    for _ in range(iterations + WARMUP_ITERATIONS):
        start = time.perf_counter()
        engine.run([frame], vocabulary)
        times.append((time.perf_counter() - start) * 1e3)
    summary = engine.summary()
    engine.close()
    median_ms = float(np.median(times[WARMUP_ITERATIONS:]))
    return {'size': size, 'engine': summary, 'median_ms': round(median_ms, 1), 'fps': round(1e3 / median_ms, 1)}


def measure(image: str, size: str, rate: int, seconds: float, parameters: Sequence[str] = ()) -> dict[str, Any]:
    """Run a camera and the node; return the results, see `summarize`."""
    node = start_node(*parameters)
    listener = MaskListener()
    try:
        listener.spin(lambda: listener.diagnostics, 20)
        listener.spin(never, DISCOVERY_S)
        camera = start_camera(image, size, rate, int(rate * seconds))
        listener.spin(lambda: listener.latencies_ms, 20)
        start, used = time.monotonic(), cpu_seconds(node.pid)
        listener.spin(lambda: camera.poll() is not None, seconds * 3 + 20)
        cpu_load = (cpu_seconds(node.pid) - used) / (time.monotonic() - start)
        listener.spin(never, 1.5)   # the last diagnostics
        sent = frames_sent(camera)
    finally:
        stop_process(node)
        listener.close()
    return summarize(size, rate, sent, listener, cpu_load)


def summarize(size: str, rate: int, sent: int, listener: MaskListener, cpu_load: float) -> dict[str, Any]:
    """Return the results of one run.

    Args:
        size: 'WxH' of the images.
        rate: of the camera, Hz.
        sent: number of images.
        listener: has collected the masks and diagnostics.
        cpu_load: of the node; 1.0 is one busy core.

    Raises:
        RuntimeError: fewer than two masks, or no diagnostics arrived.
    """
    arrivals = listener.arrivals
    if len(arrivals) < 2 or not listener.diagnostics:
        raise RuntimeError(f'{len(arrivals)} masks arrived for {sent} images of {size}; the log of the node has the '
                           'reason')
    last = listener.diagnostics[-1]
    busy = [values for values in listener.diagnostics if float(values['frame_ms']) > 0]
    engine_ms = np.median([float(values['engine_ms']) for values in busy])
    overhead_ms = np.median([float(values['frame_ms']) - float(values['engine_ms']) for values in busy])
    p50, p95 = np.percentile(listener.latencies_ms, [50, 95])
    return {'size': size, 'rate_hz': rate, 'sent': sent, 'received': int(last['received']),
            'masks': len(listener.latencies_ms), 'dropped': int(last['dropped']),
            'latency_ms_p50': round(float(p50), 1), 'latency_ms_p95': round(float(p95), 1),
            'masks_per_s': round((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]), 1),
            'jitter_ms': round(float(np.std(np.diff(arrivals)) * 1e3), 1),
            'engine_ms': round(float(engine_ms), 1), 'overhead_ms': round(float(overhead_ms), 1),
            'cpu_percent': round(100 * cpu_load)}


def show(row: dict[str, Any], label: str = '') -> None:
    """Print one line of the table."""
    print(f'{row["size"]:>10} {row["rate_hz"]:>4} Hz  received {row["received"]:>4} of {row["sent"]:<4} '
          f'masks {row["masks"]:>4}  latency {row["latency_ms_p50"]:>6.1f} / {row["latency_ms_p95"]:>6.1f} ms  '
          f'jitter {row["jitter_ms"]} ms  engine {row["engine_ms"]} ms  overhead {row["overhead_ms"]} ms  '
          f'CPU {row["cpu_percent"]} % {label}', flush=True)


def measure_peak(image: str, size: str, seconds: float, parameters: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return the results at the highest of PEAK_RATES with a mask for 95 % of the frames sent, None where none has."""
    best, low, high = None, 0, len(PEAK_RATES)
    while low < high:
        middle = (low + high) // 2
        tries = (measure(image, size, PEAK_RATES[middle], seconds, parameters) for _ in range(2))
        row = next((row for row in tries if row['masks'] >= 0.95 * row['sent']), None)
        if row:
            best, low = row, middle + 1
        else:
            high = middle
    return best


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='WxH', help='of the images')
    parser.add_argument('--rates', type=int, nargs='+', default=(10, 30), metavar='HZ', help='default: 10 30')
    parser.add_argument('--seconds', type=float, default=6, help='of each run (default: %(default)s)')
    parser.add_argument('--no-peak', action='store_true', help='do not search for the peak rate')
    add_parameters_option(parser)
    add_json_option(parser)
    arguments = parser.parse_args()
    result: dict[str, Any] = {'benchmark': 'node', 'machine': machine(), 'parameters': list(arguments.parameters),
                              'engine_only': [], 'fixed_rate': [], 'peak_rate': []}
    prepare_ros()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            image = write_street_image(folder, size)
            result['engine_only'].append(measure_engine(image, size, arguments.parameters))
            print('{size:>10} engine only: {median_ms} ms, {fps} fps ({engine})'.format(**result['engine_only'][-1]),
                  flush=True)
            for rate in arguments.rates:
                result['fixed_rate'].append(measure(image, size, rate, arguments.seconds, arguments.parameters))
                show(result['fixed_rate'][-1])
            if not arguments.no_peak and (row := measure_peak(image, size, arguments.seconds, arguments.parameters)):
                result['peak_rate'].append(row)
                show(row, '<- peak rate with under 5 % drops')
    rclpy.try_shutdown()
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
