"""Build the TensorRT engine of weights for this machine's GPU. The node then finds it in the cache.

A build takes minutes. The engine is for this GPU and this version of TensorRT; it does not depend on vocabulary,
thresholds and cameras. An existing engine is built again if --size or --max-batch differ from its own.

--network-only makes the file that TensorRT reads, for a robot without PyTorch: copy it there, beside the weights.

Examples:
  lgseg build-engine
  lgseg build-engine --weights street.safetensors --size 1280x720 --max-batch 2
  lgseg build-engine --network-only --out robot/
"""

import argparse
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ..engines.engine_cache import engine_folder
from ..engines.preprocessing import DEFAULT_PIXELS
from ..engines.tensorrt_build import MAX_BATCH
from ..engines.tensorrt_network import make_network
from ..engines.tensorrt_prebuild import check_numbers, prebuild_engine
from ..model.weights import load_weights
from .options import add_weights_option, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg build-engine`."""
    add_weights_option(parser)
    parser.add_argument('--precision', choices=('fp16', 'fp32'), default='fp16', help='default: %(default)s')
    parser.add_argument('--max-inference-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help="the node's parameter max_inference_pixels (default: %(default)s)")
    parser.add_argument('--size', type=size, metavar='WxH',
                        help="size of the camera's images, which the engine is optimized for; others run too (default: "
                             'that of the existing engine, else 640x480)')
    parser.add_argument('--max-batch', type=int, metavar='N',
                        help='most images per batch, for several cameras (default: that of the existing engine, else '
                             f'{MAX_BATCH})')
    parser.add_argument('--force', action='store_true', help='build even if there is an engine already')
    parser.add_argument('--network-only', action='store_true',
                        help='only make the file that TensorRT reads; needs torch and onnx, and no GPU')
    parser.add_argument('--out', metavar='DIR', help='output folder of --network-only (default: the engine cache)')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(arguments: argparse.Namespace) -> int:
    """Build, and print where the result is. Returns 0."""
    check_numbers(arguments.max_inference_pixels, arguments.max_batch)
    weights = load_weights(arguments.weights)
    if arguments.network_only:
        path = make_network(weights, arguments.precision, arguments.out or engine_folder())
        print_result(arguments, {'network': str(path), 'mb': round(path.stat().st_size / 1e6, 1)})
        return 0
    with ProgressBar() as progress:
        engine = prebuild_engine(weights, arguments.precision, arguments.max_inference_pixels, arguments.size,
                                 arguments.max_batch, arguments.force, progress)
    print_result(arguments, {'engine': str(engine.path), 'mb': round(engine.size_bytes / 1e6, 1),
                             'existed': engine.existed, **engine.notes, **engine.identity})
    return 0


class ProgressBar:
    """One progress bar for TensorRT's nested phases: the outermost moves it, the innermost is named."""

    def __init__(self) -> None:
        """The bar appears with the first phase."""
        self._bar: Any = None
        self._outermost = ''

    def __enter__(self) -> 'ProgressBar':
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def __call__(self, phase: str, done: int, steps: int) -> None:
        """Show that `done` of `steps` of a phase are finished; called from any of TensorRT's threads."""
        if self._bar is None:
            self._bar, self._outermost = tqdm(total=steps, unit='step', leave=False, disable=None), phase
        if phase == self._outermost:
            self._bar.total = steps
            self._bar.update(done - self._bar.n)
        self._bar.set_description(phase[:40], refresh=False)


def print_result(arguments: argparse.Namespace, result: Mapping[str, object]) -> None:
    """Print names and values as JSON or as a table."""
    if arguments.json:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    print('\n'.join(f'{name:<{width}}  {value}' for name, value in result.items()))
