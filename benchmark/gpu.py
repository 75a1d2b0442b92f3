"""All measurements of a CUDA machine in one command: every engine, size, batch and precision, and the node.

Each installed engine is timed from camera frames to masks of the frames' size. The network sees the frames at their
full size. The masks are compared with those of ONNX Runtime in fp32 on the CPU. Engines that are not available are
listed with the reason. Last, the node segments images as fast as it receives them; its rate is compared with that of
the engine alone.

    pip install torch timm tensorrt cuda-python                    (and onnxruntime-gpu for ONNX Runtime with CUDA)
    python benchmark/gpu.py --json benchmark/results/gpu.json
    python benchmark/gpu.py --device cpu --iterations 2 --sizes 480x360    (tests the script without a GPU)
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lgseg_ros.cli.bench import class_names
from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.engines.base import Engine, EngineType
from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
from lgseg_ros.engines.preprocessing import Frame, network_size, to_network, to_output
from lgseg_ros.engines.tensorrt_build import EngineShapes, built_shapes, load_tensorrt_engine
from lgseg_ros.engines.tensorrt_engine import TensorRTEngine, identify
from lgseg_ros.engines.torch_engine import TorchEngine
from lgseg_ros.media.images import parse_size
from lgseg_ros.model.graph_interface import (
    CLASS_IDS_INPUT,
    CONFIDENCE_THRESHOLD_INPUT,
    FRAMES_INPUT,
    TEXT_EMBEDDINGS_INPUT,
)
from lgseg_ros.model.weights import DEFAULT_WEIGHTS, Weights, check_onnx, load_weights
from lgseg_ros.utils.hardware import has_gpu_device
from lgseg_ros.vocabulary.vocabulary import Vocabulary, VocabularyState

SIZES = ('480x360', '1024x512', '2048x1024')
BATCH_SIZES = (1, 4)
NUM_FRAMES = 8             # different ones, in turn
NUM_REFERENCE_FRAMES = 2   # whose masks are compared
NUM_CLASSES = 11           # those of the training first
MAX_WARMUP_ITERATIONS = 5  # not more than --iterations
NODE_SECONDS = 6
MAX_CAMERA_HZ = 200        # one process cannot render and send much more

Result = dict[str, Any]
Image = npt.NDArray[np.uint8]
MakeEngine = Callable[[Weights, tuple[int, int], str], Engine]   # (weights, (height, width), precision)


class UnavailableError(Exception):
    """An engine cannot be measured here; the message is the reason."""


def torch_on(device: str, use_cuda_graph: bool) -> MakeEngine:
    def make(weights: Weights, size: tuple[int, int], precision: str) -> Engine:
        require_available(TorchEngine, precision)
        import torch
        if device == 'cuda' and not torch.cuda.is_available():
            raise UnavailableError('this PyTorch sees no CUDA device')
        return TorchEngine(weights, pixels=size[0] * size[1], precision=precision, device=device,
                           use_cuda_graph=use_cuda_graph)
    return make


def onnxruntime_on(provider: str) -> MakeEngine:
    def make(weights: Weights, size: tuple[int, int], precision: str) -> Engine:
        require_available(OnnxRuntimeEngine, precision)
        engine = OnnxRuntimeEngine(weights, pixels=size[0] * size[1], precision=precision)
        if provider not in engine.summary():
            raise UnavailableError(f'it runs as {engine.summary()}: onnxruntime-gpu is not installed, or finds no CUDA')
        return engine
    return make


def tensorrt(weights: Weights, size: tuple[int, int], precision: str) -> Engine:
    """Return the TensorRT engine, which is built if the cache has none for this size."""
    require_available(TensorRTEngine, precision)
    pixels = size[0] * size[1]
    identity, shapes = identify(weights, pixels, precision), EngineShapes(size)
    load_tensorrt_engine(weights, identity, shapes, force=built_shapes(identity) != shapes)
    return TensorRTEngine(weights, pixels=pixels, precision=precision)


def require_available(engine_type: EngineType, precision: str) -> None:
    reason = engine_type.unavailable(precision)
    if reason:
        raise UnavailableError(reason)


ENGINES: dict[str, dict[str, MakeEngine]] = {
    'cuda': {'torch eager': torch_on('cuda', False), 'torch CUDA graph': torch_on('cuda', True),
             'ONNX Runtime CUDA': onnxruntime_on('CUDAExecutionProvider'), 'TensorRT': tensorrt},
    'cpu': {'torch eager': torch_on('cpu', False), 'ONNX Runtime CPU': onnxruntime_on('CPUExecutionProvider')}}
# The node's parameter `engine` for each engine that the node can select.
NODE_ENGINES = {'torch CUDA graph': 'torch', 'TensorRT': 'tensorrt', 'ONNX Runtime CPU': 'onnxruntime'}


def measure(engine: Engine, images: Sequence[Image], vocabulary: Vocabulary, batch_size: int,
            iterations: int) -> list[float]:
    """Return the milliseconds of each run of a batch."""
    batches = [[Frame(images[(start + i) % len(images)], 'bgr') for i in range(batch_size)]
               for start in range(len(images))]
    times, warmup_iterations = [], min(MAX_WARMUP_ITERATIONS, iterations)
    for n in range(warmup_iterations + iterations):
        start = time.perf_counter()
        engine.run(batches[n % len(batches)], vocabulary)
        if n >= warmup_iterations:
            times.append((time.perf_counter() - start) * 1e3)
    return times


def reference_ids(weights: Weights, images: Sequence[Image], vocabulary: Vocabulary, pixels: int) -> list[Image]:
    """Return the class ids of images by the fp32 file on the CPU, whichever ONNX Runtime is installed."""
    import onnxruntime
    session = onnxruntime.InferenceSession(str(check_onnx(weights)), providers=['CPUExecutionProvider'])
    inputs = {TEXT_EMBEDDINGS_INPUT: vocabulary.text_embeddings, CLASS_IDS_INPUT: vocabulary.class_ids,
              CONFIDENCE_THRESHOLD_INPUT: np.array(0, np.float32)}
    height, width = images[0].shape[:2]
    size = network_size(height, width, pixels)
    all_ids = []
    for image in images:
        ids, confidence = session.run(None, {FRAMES_INPUT: to_network(Frame(image, 'bgr'), size)[None], **inputs})
        all_ids.append(to_output(ids[0], confidence[0], (height, width)).ids)
    return all_ids


def agreement(engine: Engine, reference: Sequence[Image], images: Sequence[Image], vocabulary: Vocabulary) -> float:
    """Return the share of pixels, 0 to 1, with the class id of the reference."""
    return float(np.mean([np.mean(engine.run([Frame(image, 'bgr')], vocabulary)[0].ids == ids)
                          for image, ids in zip(images, reference, strict=True)]))


def engine_results(size: str, arguments: argparse.Namespace, weights: Weights,
                   vocabulary: Vocabulary) -> Iterator[Result]:
    """Yield a result for each engine, precision and batch size at one image size."""
    width, height = parse_size(size)
    camera = StreetCamera(width, height, seed=1)
    images = [camera.render(n * 15)[0] for n in range(NUM_FRAMES)]
    compared = images[:NUM_REFERENCE_FRAMES]
    reference = reference_ids(weights, compared, vocabulary, width * height)
    for name, make in ENGINES[arguments.device].items():
        for precision in ('fp16', 'fp32') if arguments.device == 'cuda' else ('fp32',):
            result: Result = {'engine': name, 'precision': precision, 'size': size}
            engine: Engine | None = None
            try:
                start = time.perf_counter()
                engine = make(weights, (height, width), precision)
                result |= {'start_s': round(time.perf_counter() - start, 1), 'summary': engine.summary(),
                           'agreement': round(agreement(engine, reference, compared, vocabulary), 5)}
                for batch_size in arguments.batch_sizes:
                    times = measure(engine, images, vocabulary, batch_size, arguments.iterations)
                    yield result | statistics(times, batch_size)
            except UnavailableError as error:
                yield result | {'unavailable': str(error)}
            except Exception as error:   # one engine that fails must not cost the results of the others
                yield result | {'failed': f'{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}'}
            finally:   # else the next engine finds the memory taken
                if engine is not None:
                    engine.close()


def statistics(times: Sequence[float], batch_size: int) -> Result:
    """Return latency percentiles and the frame rate of runs that took `times` milliseconds."""
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {'batch_size': batch_size, 'p50_ms': round(p50, 2), 'p95_ms': round(p95, 2), 'p99_ms': round(p99, 2),
            'frames_per_s': round(1e3 * batch_size * len(times) / sum(times), 1)}


def engine_line(result: Result) -> str:
    head = f'{result["engine"]:<18}{result["precision"]:<6}{result["size"]:<11}'
    if 'unavailable' in result:
        return f'{head}not available: {result["unavailable"]}'
    if 'failed' in result:
        return f'{head}FAILED: {result["failed"]}'
    return head + (f'{result["batch_size"]:>5}{result["p50_ms"]:>9.2f}{result["p95_ms"]:>9.2f}'
                   f'{result["p99_ms"]:>9.2f}{result["frames_per_s"]:>10.1f}{result["agreement"]:>10.2%}')


def node_results(results: Iterable[Result], parameters: Sequence[str]) -> Iterator[Result]:
    """Yield, for each result of an engine at batch size 1, the share of the engine's rate that the node reaches.

    The camera sends 1.5 times as many images as the engine alone segments.

    Args:
        results: of `engine_results`, for engines in `NODE_ENGINES`.
        parameters: 'name:=value' of the node, for the same weights and vocabulary.
    """
    try:
        import node  # benchmark/node.py
        import node_harness

        node_harness.prepare_ros()
    except ImportError as error:
        print(f'the node is not measured: ROS 2 cannot be imported ({error})')
        return
    for result in results:
        width, height = parse_size(result['size'])
        all_parameters = (f'engine:={NODE_ENGINES[result["engine"]]}', f'precision:={result["precision"]}',
                          f'max_inference_pixels:={width * height}', *parameters)
        rate = min(int(result['frames_per_s'] * 1.5) + 1, MAX_CAMERA_HZ)
        setting = {**{key: result[key] for key in ('engine', 'precision', 'size')}, 'sent_hz': rate,
                   'limited_by_the_camera': rate < result['frames_per_s']}
        try:
            with tempfile.TemporaryDirectory() as folder:
                image = node_harness.write_street_image(folder, result['size'])
                measured = node.measure(image, result['size'], rate, NODE_SECONDS, all_parameters)
        except Exception as error:   # one that fails must not cost the results of the others
            yield setting | {'failed': f'{type(error).__name__}: {error}'}
            continue
        # From the first mask on, because the first one waits for its CUDA graph.
        yield setting | {'share': round(measured['masks_per_s'] / min(result['frames_per_s'], rate), 3),
                         **{key: measured[key] for key in ('masks_per_s', 'latency_ms_p50', 'latency_ms_p95')}}


def node_line(result: Result) -> str:
    head = f'node with {result["engine"]:<18}{result["precision"]:<6}{result["size"]:<11}'
    if 'failed' in result:
        return f'{head}FAILED: {result["failed"]}'
    of = f'the {result["sent_hz"]} Hz that the camera sends' if result['limited_by_the_camera'] else 'the engine alone'
    return (f'{head}{result["masks_per_s"]:>8.1f} masks/s, {result["share"]:.1%} of {of}, '
            f'latency {result["latency_ms_p50"]} / {result["latency_ms_p95"]} ms')


def device_name(device: str) -> str:
    if device == 'cpu':
        return f'{platform.machine()}, CPU'
    try:
        import torch
        return torch.cuda.get_device_name()
    except (ImportError, RuntimeError, AssertionError):
        return 'a CUDA device'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS)
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='WxH')
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=BATCH_SIZES, metavar='N')
    parser.add_argument('--iterations', type=int, default=200)
    parser.add_argument('--no-node', action='store_true', help='do not measure the node')
    add_json_option(parser)
    return parser.parse_args()


def main() -> int:
    """Measure, print, and write JSON; return 1 where something failed."""
    arguments = parse_arguments()
    if arguments.device == 'cuda' and not has_gpu_device():
        print('no NVIDIA GPU here. On a machine with one: install its driver, then pip install torch timm tensorrt '
              'cuda-python (docs/how-to/gpu.md), and run this again; here, --device cpu tests the script',
              file=sys.stderr)
        return 1
    weights = load_weights(arguments.weights)
    classes = class_names(weights, min(NUM_CLASSES, len(weights.text_embeddings)))
    vocabulary = VocabularyState(weights.text_embeddings).replace(classes)
    results: list[Result] = []
    document: dict[str, Any] = {'benchmark': 'gpu', 'device': device_name(arguments.device),
                                'weights': weights.path.stem, 'iterations': arguments.iterations, 'results': results}
    print(f'{document["device"]}, {len(vocabulary.names)} classes, milliseconds per run of a batch\n'
          f'{"engine":<18}{"":<6}{"size":<11}{"batch":>5}{"p50":>9}{"p95":>9}{"p99":>9}{"frames/s":>10}{"agreement":>10}')
    for size in arguments.sizes:
        for result in engine_results(size, arguments, weights, vocabulary):
            results.append(result)
            print(engine_line(result), flush=True)
    write_json(arguments.json, document)
    failed = any('failed' in result for result in results)
    if not arguments.no_node:
        alone = [result for result in results if result.get('batch_size') == 1 and result['engine'] in NODE_ENGINES]
        parameters = f'weights:={weights.path.resolve()}', f'vocabulary:={json.dumps(vocabulary.texts)}'
        document['node'] = []
        for result in node_results(alone, parameters):
            document['node'].append(result)
            failed |= 'failed' in result
            print(node_line(result), flush=True)
            write_json(arguments.json, document)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
