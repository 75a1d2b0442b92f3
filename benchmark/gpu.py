"""Everything that a CUDA machine can tell, in one go: engines, sizes, batches and precisions; and what the node keeps.

Every engine that is installed is timed from camera frames to masks of the frames' size, the network at the frames'
full size, and its masks are held against those of ONNX Runtime in fp32 on the CPU.  Engines that are absent are
listed with the reason.  Last, the node segments pictures as fast as it gets them, and its rate is compared with the
bare engine's.

    pip install torch timm tensorrt cuda-python                                 (and for one more row onnxruntime-gpu)
    python benchmark/gpu.py --json benchmark/results/gpu.json
    python benchmark/gpu.py --device cpu --rounds 2 --sizes 480x360             (rows that run on a CPU, to try this)
"""

import argparse
import json
import platform
import sys
import tempfile
import time

import numpy as np

from lgseg_ros.cli.bench import names
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.engines.selection import close_engine
from lgseg_ros.engines.preprocessing import Frame, network_size, to_network, to_output
from lgseg_ros.engines.gpu import has_gpu_device
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.tensorrt_engine import TensorRTEngine, identify
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.engines.weights import DEFAULT_WEIGHTS, check_onnx, load_weights
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.vocabulary.vocabulary import VocabularyState

SIZES = '480x360', '1024x512', '2048x1024'
BATCHES = 1, 4
FRAMES = 8      # different ones, in turn
WORDS = 11      # those of the training first
WARM_UPS = 5    # at most; no more than rounds
NODE_SECONDS = 6
FASTEST_CAMERA = 200   # Hz; one process cannot draw and send much more


class Absent(Exception):
    """A row that cannot be measured here; the message is the reason."""


def torch_on(device, graph):
    """A maker of the torch engine, with the captured graph or without."""
    def make(weights, size, precision):
        check(TorchEngine, precision)
        import torch
        if device == 'cuda' and not torch.cuda.is_available():
            raise Absent('this PyTorch sees no CUDA device')
        return TorchEngine(weights, pixels=size[0] * size[1], precision=precision, device=device, graph=graph)
    return make


def onnxruntime_on(provider):
    """A maker of the ONNX Runtime engine, which takes CUDA where its provider is."""
    def make(weights, size, precision):
        check(OnnxRuntimeEngine, precision)
        engine = OnnxRuntimeEngine(weights, pixels=size[0] * size[1], precision=precision)
        if provider not in engine.summary():
            raise Absent(f'it runs as {engine.summary()}: onnxruntime-gpu is not installed, or finds no CUDA')
        return engine
    return make


def tensorrt(weights, size, precision):
    """The TensorRT engine; builds it where the cache has none for this size."""
    check(TensorRTEngine, precision)
    from lgseg_ros.engines.tensorrt_build import Shapes, built_shapes, load_tensorrt_engine
    pixels = size[0] * size[1]
    identity, shapes = identify(weights, pixels, precision), Shapes(size)
    load_tensorrt_engine(weights, identity, shapes, again=built_shapes(identity) != shapes)
    return TensorRTEngine(weights, pixels=pixels, precision=precision)


def check(kind, precision):
    """Raise `Absent` where the engine says that it cannot work."""
    reason = kind.unavailable(precision)
    if reason:
        raise Absent(reason)


ROWS = {'cuda': {'torch eager': torch_on('cuda', False), 'torch CUDA graph': torch_on('cuda', True),
                 'ONNX Runtime CUDA': onnxruntime_on('CUDAExecutionProvider'), 'TensorRT': tensorrt},
        'cpu': {'torch eager': torch_on('cpu', False), 'ONNX Runtime CPU': onnxruntime_on('CPUExecutionProvider')}}
# The node's parameters for a row, where it can be asked for by name.
NODE_ENGINES = {'torch CUDA graph': 'torch', 'TensorRT': 'tensorrt', 'ONNX Runtime CPU': 'onnxruntime'}


def measure(engine, frames, vocabulary, batch, rounds):
    """Milliseconds a run of `batch` frames, one number a round."""
    batches = [[Frame(frames[(start + i) % len(frames)], 'bgr') for i in range(batch)] for start in range(len(frames))]
    times, warm_ups = [], min(WARM_UPS, rounds)
    for n in range(warm_ups + rounds):
        began = time.perf_counter()
        engine.run(batches[n % len(batches)], vocabulary)
        if n >= warm_ups:
            times.append((time.perf_counter() - began) * 1e3)
    return times


def cpu_masks(weights, frames, vocabulary, pixels):
    """Ids of frames by the exported file in fp32 on the CPU, whatever ONNX Runtime is installed."""
    import onnxruntime
    session = onnxruntime.InferenceSession(str(check_onnx(weights)), providers=['CPUExecutionProvider'])
    words = {'rows': vocabulary.text_embeddings, 'row_ids': vocabulary.class_ids, 'confidence_threshold': np.array(0, np.float32)}
    height, width = frames[0].shape[:2]
    size = network_size(height, width, pixels)
    found = [session.run(None, {'frames': to_network(Frame(f, 'bgr'), size)[None], **words}) for f in frames]
    return [to_output(ids[0], confidence[0], (height, width)).ids for ids, confidence in found]


def agreement(engine, reference, frames, vocabulary):
    """Share of pixels, 0..1, with the reference's id."""
    pairs = ((engine.run([Frame(f, 'bgr')], vocabulary)[0].ids, ids) for f, ids in zip(frames, reference))
    return float(np.mean([np.mean(ours == ids) for ours, ids in pairs]))


def rows_of(size, arguments, weights, vocabulary):
    """Yield one dict an engine, precision and batch at one size."""
    width, height = map(int, size.split('x'))
    camera = StreetCamera(width, height, seed=1)
    frames = [camera.render(n * 15)[0] for n in range(FRAMES)]
    reference = cpu_masks(weights, frames[:2], vocabulary, width * height)
    for name, make in ROWS[arguments.device].items():
        for precision in ('fp16', 'fp32') if arguments.device == 'cuda' else ('fp32',):
            row, engine = {'engine': name, 'precision': precision, 'size': size}, None
            try:
                began = time.perf_counter()
                engine = make(weights, (height, width), precision)
                row |= {'start_s': round(time.perf_counter() - began, 1), 'summary': engine.summary(),
                        'agreement': round(agreement(engine, reference, frames, vocabulary), 5)}
                for batch in arguments.batches:
                    yield row | figures(measure(engine, frames, vocabulary, batch, arguments.rounds), batch)
            except Absent as error:
                yield row | {'absent': str(error)}
            except Exception as error:  # one engine that breaks must not cost the figures of the others
                yield row | {'failed': f'{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}'}
            finally:   # else the next one finds the memory taken
                if engine is not None:
                    close_engine(engine)


def figures(times, batch):
    """Milliseconds and frames a second of one row."""
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {'batch': batch, 'p50_ms': round(p50, 2), 'p95_ms': round(p95, 2), 'p99_ms': round(p99, 2),
            'frames_per_s': round(1e3 * batch * len(times) / sum(times), 1)}


def line(row):
    """A row as text."""
    head = f'{row["engine"]:<18}{row["precision"]:<6}{row["size"]:<11}'
    if 'batch' not in row:
        return head + (f'absent: {row["absent"]}' if 'absent' in row else f'FAILED: {row["failed"]}')
    return head + (f'{row["batch"]:>5}{row["p50_ms"]:>9.2f}{row["p95_ms"]:>9.2f}{row["p99_ms"]:>9.2f}'
                   f'{row["frames_per_s"]:>10.1f}{row["agreement"]:>10.2%}')


def node_rows(rows, words):
    """Yield, for each row of one frame a run, the share of the bare engine's rate that the node keeps.

    words: 'name:=value' of the node's parameters by which it has the rows' weights and words.  It is sent pictures half
    as fast again as the engine alone takes them.
    """
    try:
        import node   # benchmark/node.py
        node.prepare_ros()
    except ImportError as error:
        print(f'the node is left out: ROS 2 cannot be imported ({error})')
        return
    for row in rows:
        width, height = map(int, row['size'].split('x'))
        parameters = (f'engine:={NODE_ENGINES[row["engine"]]}', f'precision:={row["precision"]}',
                      f'max_inference_pixels:={width * height}', *words)
        rate = min(int(row['frames_per_s'] * 1.5) + 1, FASTEST_CAMERA)
        told = {**{key: row[key] for key in ('engine', 'precision', 'size')}, 'sent_hz': rate,
                'limited_by_the_camera': rate < row['frames_per_s']}
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = node.measure(node.draw(folder, row['size']), row['size'], rate, NODE_SECONDS, parameters)
        except Exception as error:   # one that breaks must not cost the others
            yield told | {'failed': f'{type(error).__name__}: {error}'}
            continue
        # From the first mask on, since that one waits for its graph.
        yield told | {'share': round(found['masks_per_s'] / min(row['frames_per_s'], rate), 3),
                      **{key: found[key] for key in ('masks_per_s', 'latency_ms_p50', 'latency_ms_p95')}}


def node_line(row):
    """A row of `node_rows` as text."""
    head = f'node with {row["engine"]:<18}{row["precision"]:<6}{row["size"]:<11}'
    if 'failed' in row:
        return f'{head}FAILED: {row["failed"]}'
    of = f'the {row["sent_hz"]} Hz that the camera sends' if row['limited_by_the_camera'] else 'the engine alone'
    return (f'{head}{row["masks_per_s"]:>8.1f} masks/s, {row["share"]:.1%} of {of}, '
            f'latency {row["latency_ms_p50"]} / {row["latency_ms_p95"]} ms')


def device_name(device):
    """What is measured on."""
    if device == 'cpu':
        return f'{platform.machine()}, CPU'
    try:
        import torch
        return torch.cuda.get_device_name()
    except (ImportError, RuntimeError, AssertionError):
        return 'a CUDA device'


def main():
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS)
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='WxH')
    parser.add_argument('--batches', nargs='+', type=int, default=BATCHES)
    parser.add_argument('--rounds', type=int, default=200)
    parser.add_argument('--no-node', action='store_true', help='leave the node out')
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.device == 'cuda' and not has_gpu_device():
        print('no NVIDIA GPU here. On a machine with one: install its driver, then pip install torch timm tensorrt '
              'cuda-python (docs/how-to/gpu.md), and run this again; here, --device cpu tries the script', file=sys.stderr)
        return 1
    weights = load_weights(arguments.weights)
    vocabulary = VocabularyState(weights.text_embeddings).replace(names(weights, min(WORDS, len(weights.text_embeddings))))
    result = {'benchmark': 'gpu', 'device': device_name(arguments.device), 'weights': weights.path.stem,
              'rounds': arguments.rounds, 'rows': []}
    print(f'{result["device"]}, {len(vocabulary.names)} words, milliseconds a run of the whole batch\n'
          f'{"engine":<18}{"":<6}{"size":<11}{"batch":>5}{"p50":>9}{"p95":>9}{"p99":>9}{"frames/s":>10}{"as fp32":>10}')
    for size in arguments.sizes:
        for row in rows_of(size, arguments, weights, vocabulary):
            result['rows'].append(row)
            print(line(row), flush=True)
    alone = [row for row in result['rows'] if row.get('batch') == 1 and row['engine'] in NODE_ENGINES]
    write_json(arguments.json, result)
    words = f'weights:={weights.path.resolve()}', f'vocabulary:={json.dumps(vocabulary.texts)}'
    for row in () if arguments.no_node else node_rows(alone, words):
        result.setdefault('node', []).append(row)
        print(node_line(row), flush=True)
        write_json(arguments.json, result)
    return int(any('failed' in row for row in result['rows'] + result.get('node', [])))


if __name__ == '__main__':
    sys.exit(main())
