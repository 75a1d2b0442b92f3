"""Build the TensorRT engine of weights for this machine's GPU, once; the node and all else then find it in the cache.

A build takes minutes.  It is of this GPU and this version of TensorRT; words, thresholds and cameras change nothing
of it.  An engine that is there is built again when --size or --max-batch ask for another.

--network-only makes the file that TensorRT reads, for a robot without PyTorch: copy it there, beside the weights.

Examples:
  lgseg build-engine
  lgseg build-engine --weights street.safetensors --size 1280x720 --max-batch 2
  lgseg build-engine --network-only --out robot/
"""

import json

from tqdm import tqdm

from ..engines.engine_cache import engine_folder, why_not
from ..engines.frames import DEFAULT_PIXELS, check_numbers
from ..engines.gpu import EngineError
from ..engines.tensorrt import TensorRTEngine, identify
from ..engines.tensorrt_build import MAX_BATCH, Shapes, built_shapes, load_tensorrt_engine
from ..engines.tensorrt_network import make_network
from ..engines.weights import DEFAULT_WEIGHTS, load_weights
from ..sizes import size

MOST_PICTURES = 64   # at once: the working memory of all of them is taken


def add_arguments(parser):
    """The command line of `lgseg build-engine`."""
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS,
                        help='shipped name or .safetensors (default: %(default)s)')
    parser.add_argument('--precision', choices=('fp16', 'fp32'), default='fp16', help='default: %(default)s')
    parser.add_argument('--network-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help="the node's parameter network_pixels (default: %(default)s)")
    parser.add_argument('--size', type=size, metavar='WxH',
                        help="of the camera's pictures, which the engine is tuned to; others run too "
                             '(default: that of the engine that is there, else 640x480)')
    parser.add_argument('--max-batch', type=int, metavar='N',
                        help='most pictures at once, for several cameras (default: that of the engine that is there, '
                             f'else {MAX_BATCH})')
    parser.add_argument('--again', action='store_true', help='build even if there is an engine already')
    parser.add_argument('--network-only', action='store_true',
                        help='only make the file that TensorRT reads; needs torch and onnx, and no GPU')
    parser.add_argument('--out', metavar='DIR', help='folder for --network-only (default: the engine cache)')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(arguments):
    """Build, and say where the result is."""
    check(arguments)
    weights = load_weights(arguments.weights)
    if arguments.network_only:
        path = make_network(weights, arguments.precision, arguments.out or engine_folder())
        return _tell(arguments, {'network': str(path), 'mb': round(path.stat().st_size / 1e6, 1)})
    reason = TensorRTEngine.unavailable(arguments.precision)
    if reason:
        raise EngineError(f'cannot build here: {reason}')
    identity = identify(weights, arguments.network_pixels, arguments.precision)
    path, built = engine_folder() / identity.file_name, built_shapes(identity)
    shapes = asked_shapes(arguments, built)
    again = arguments.again or shapes != built
    present = not again and why_not(path, identity) is None
    with Bar() as bar:
        stored = load_tensorrt_engine(weights, identity, shapes, again, bar)
    return _tell(arguments, {'engine': str(path), 'mb': round(len(stored.engine) / 1e6, 1),
                             'was_there': present, **stored.notes, **stored.identity})


def check(arguments):
    """Raise ValueError for a number that cannot be; names it."""
    if arguments.max_batch is not None and not 1 <= arguments.max_batch <= MOST_PICTURES:
        raise ValueError(f'--max-batch is {arguments.max_batch}; give 1 to {MOST_PICTURES}')
    check_numbers(arguments.network_pixels)


def asked_shapes(arguments, built):
    """The `Shapes` asked for; those of `built` where nothing is asked."""
    return Shapes(arguments.size[::-1] if arguments.size else built.size, arguments.max_batch or built.max_batch)


class Bar:
    """One progress bar for TensorRT's nested phases: the outermost moves it, the innermost is named."""

    def __init__(self):
        self._bar, self._outermost = None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def __call__(self, phase, done, steps):
        """As TensorRT tells: `done` of `steps` of `phase`; from any of its threads."""
        if self._bar is None:
            self._bar, self._outermost = tqdm(total=steps, unit='step', leave=False, disable=None), phase
        if phase == self._outermost:
            self._bar.total = steps
            self._bar.update(done - self._bar.n)
        self._bar.set_description(phase[:40], refresh=False)


def _tell(arguments, result):
    if arguments.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print('\n'.join(f'{name:<{width}}  {value}' for name, value in result.items()))
    return 0
