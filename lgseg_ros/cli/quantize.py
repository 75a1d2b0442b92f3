"""Make the 8-bit file of weights, NAME.int8.onnx beside NAME.onnx, for CPUs with 8-bit dot products.

Ranges are measured on pictures, best those of the camera that will be used; without --data on drawn streets.  The
result is held against the fp32 file on other pictures of the same source.  Where fewer pixels than --goal agree, the
most sensitive convolutions are found and left in fp32 until they do.

Examples:
  lgseg quantize --data ../shared/data/camvid
  lgseg quantize --weights street.safetensors --data photos/
  lgseg eval --data DIR --split val --precision int8          (what it costs in mIoU)
"""

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..engines.frames import Frame
from ..engines.weights import DEFAULT_WEIGHTS, load_weights

CHECKS = 24   # pictures to judge by


def add_arguments(parser):
    """The command line of `lgseg quantize`."""
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors, with its .onnx (default: %(default)s)')
    parser.add_argument('--data', metavar='DIR',
                        help='data set (its train split is used) or folder of pictures (default: drawn streets)')
    parser.add_argument('--pictures', type=int, default=64, metavar='N',
                        help='to measure ranges on (default: %(default)s)')
    parser.add_argument('--goal', type=float, default=98.5, metavar='PERCENT',
                        help='of the pixels must get the id that fp32 gives (default: %(default)s)')


def run(arguments):
    """Quantise, check, write."""
    from ..engines.onnx_files import int8_path
    from ..engines.quantize import Quantizer   # needs onnx, which machines that only run models lack
    if arguments.pictures < 1:
        raise ValueError(f'--pictures is {arguments.pictures}; give at least 1')
    weights = load_weights(arguments.weights)
    frames, checks = split(read_frames(arguments.data, arguments.pictures + CHECKS))
    with Quantizer(weights, frames, checks) as quantizer:
        path, agreement, kept = search(quantizer, arguments.goal / 100)
        target = int8_path(weights)
        quantizer.save(path, target, {'agreement': f'{agreement:.5f}', 'kept': ','.join(kept),
                                      'calibration': f'{len(frames)} pictures of '
                                                     f'{Path(arguments.data).name if arguments.data else "the procedural street"}'})
        count = len(quantizer.convolutions)
    print(f'{target}  {target.stat().st_size / 1e6:.1f} MB, {count - len(kept)} of {count} convolutions in 8 bits')
    print(f'{agreement:.2%} of the pixels of {len(checks)} other pictures get the id that fp32 gives')
    return 0


def search(quantizer, goal):
    """(path, agreement, names kept in fp32) of the first candidate that reaches `goal`, 0..1.

    Keeps none, then the 2, 4, 8, ... most sensitive convolutions.  Raises ValueError where even half of them does
    not do.
    """
    path = quantizer.quantize()
    agreement, kept = quantizer.agreement(path), []
    if agreement >= goal:
        return path, agreement, kept
    print(f'{agreement:.2%} of the pixels agree, less than {goal:.2%}: looking for the sensitive convolutions')
    costs = quantizer.sensitivity(lambda names: tqdm(names, unit='convolution', leave=False, disable=None))
    for cost, name in costs[:8]:
        print(f'  {cost:7.3%}  {name}')
    while agreement < goal and 2 * max(len(kept), 1) <= len(costs) // 2:
        kept = [name for _, name in costs[:2 * max(len(kept), 1)]]
        path = quantizer.quantize(kept)
        agreement = quantizer.agreement(path)
        print(f'{agreement:.2%} with {len(kept)} of them in fp32')
    if agreement < goal:
        raise ValueError(f'with half of the convolutions in fp32 only {agreement:.2%} of the pixels agree; nothing was '
                         'written.  Give pictures like those of training (--data), or a lower --goal')
    return path, agreement, kept


def read_frames(folder, count):
    """Up to `count` frames, evenly from a data set's train split or a folder; drawn streets where it is None."""
    if folder is None:
        from ..demo.street import StreetCamera
        streets = [StreetCamera(480, 360, seed=seed) for seed in range(8)]
        return [Frame(streets[n % len(streets)].render(9 * n)[0], 'bgr') for n in range(count)]
    from ..media.images import find_images
    root = Path(folder)
    paths = find_images(root / 'train' / 'images') or find_images(root)
    if len(paths) < 2:
        raise ValueError(f'{root} has {len(paths)} pictures, in itself or in train/images; give at least 2, better 60')
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))]
    return [Frame(_read(path), 'bgr') for path in tqdm(chosen, unit='picture', leave=False, disable=None)]


def split(frames):
    """(frames to measure ranges on, others to judge by): every fourth is one of the latter, CHECKS at most."""
    checks = list(range(1, len(frames), 4))[:CHECKS] or [0]
    return [f for i, f in enumerate(frames) if i not in checks], [frames[i] for i in checks]


def _read(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'{path} cannot be decoded; convert it to JPEG or PNG, or remove it')
    return image
