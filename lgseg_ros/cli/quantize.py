"""Make the 8-bit file of weights, NAME.int8.onnx beside NAME.onnx, for CPUs with 8-bit dot products.

Activation ranges are measured on images, best those of the camera that will be used; without --data on procedural
streets. The result is compared with fp32 on other images of the same source. If fewer pixels than --min-agreement get
the same class, the most sensitive convolutions stay in fp32.

Examples:
  lgseg quantize --data photos/
  lgseg quantize --weights street.safetensors --data dataset/ --min-agreement 99
  lgseg eval --data dataset/ --split val --precision int8     (what it costs in mIoU)
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from ..engines.calibration import quantize_weights
from ..model.weights import load_weights
from .json_output import add_json_flag
from .options import add_weights_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg quantize`."""
    add_weights_option(parser)
    parser.add_argument('--data', metavar='DIR', help='data set (its train split is used) or folder of images '
                                                      '(default: the procedural street)')
    parser.add_argument('--images', dest='num_images', type=int, default=64, metavar='N',
                        help='images to calibrate on (default: %(default)s)')
    parser.add_argument('--min-agreement', type=float, default=98.5, metavar='PERCENT',
                        help='of the pixels must get the id that fp32 gives (default: %(default)s)')
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Quantize and print how well the result agrees with fp32. Returns 0."""
    weights = load_weights(arguments.weights)
    result = quantize_weights(weights, arguments.data, arguments.num_images, arguments.min_agreement / 100,
                              report=lambda text: print(text, file=sys.stderr if arguments.json else sys.stdout),
                              progress=progress_bar)
    if arguments.json:
        print(json.dumps({'path': str(result.path), 'bytes': result.path.stat().st_size, 'agreement': result.agreement,
                          'kept': list(result.kept), 'num_convolutions': result.num_convolutions,
                          'num_checks': result.num_checks}))
        return 0
    quantized = result.num_convolutions - len(result.kept)
    print(f'{result.path}  {result.path.stat().st_size / 1e6:.1f} MB, {quantized} of {result.num_convolutions} '
          'convolutions in 8 bits')
    print(f'{result.agreement:.2%} of the pixels of {result.num_checks} other images get the id that fp32 gives')
    return 0


def progress_bar(names: Sequence[str]) -> Iterable[str]:
    """Show a progress bar, on a terminal only."""
    return tqdm(names, unit='convolution', leave=False, disable=None)
