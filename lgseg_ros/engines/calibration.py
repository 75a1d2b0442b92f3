"""Make the int8 file of weights: calibrate it on images, compare it with fp32, keep sensitive convolutions in fp32."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..media.images import find_images, read_image
from ..model.weights import Weights
from .preprocessing import Frame

if TYPE_CHECKING:
    from .quantization import Quantizer

NUM_CHECKS = 24
"""Images that the result is compared with fp32 on."""

MIN_IMAGES = 2
"""At least one to calibrate on and one to compare on."""

Progress = Callable[[Sequence[str]], Iterable[str]]
"""Wraps a loop to show its progress, as tqdm does."""


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized file.

    Attributes:
        path: the ONNX file.
        agreement: share of the pixels of the check images that get the id that fp32 gives, 0 to 1.
        kept: names of the convolutions that stay in fp32.
        num_convolutions: number of convolutions that could be quantized.
        num_checks: number of check images.
    """

    path: Path
    agreement: float
    kept: Sequence[str]
    num_convolutions: int
    num_checks: int


def quantize_weights(weights: Weights, data: str | Path | None = None, num_images: int = 64,
                     min_agreement: float = 0.985, report: Callable[[str], object] = lambda text: None,
                     progress: Progress = iter) -> QuantizationResult:
    """Make NAME.int8.onnx beside NAME.onnx.

    Args:
        weights: with their fp32 ONNX file.
        data: data set (its train split is used) or folder of images, best of the camera that will be used. None: the
            procedural street.
        num_images: images to calibrate on, at least 1. Others of the same source are compared on.
        min_agreement: share of the pixels that must get the id that fp32 gives, 0 to 1. If they do not, the most
            sensitive convolutions stay in fp32.
        report: called with lines on the search for sensitive convolutions.
        progress: shows the progress of that search.

    Returns:
        The file and its agreement.

    Raises:
        ValueError: an argument is out of range, an image cannot be read, or `min_agreement` is not reached with half of
            the convolutions in fp32.
    """
    from .onnx_files import int8_path
    from .quantization import Quantizer  # needs onnx, which machines that only run models do not have
    if num_images < 1:
        raise ValueError(f'num_images is {num_images}; give at least 1')
    frames, checks = split_frames(load_frames(data, num_images + NUM_CHECKS))
    with Quantizer(weights, frames, checks) as quantizer:
        path, agreement, kept = find_sensitive(quantizer, min_agreement, report, progress)
        target = int8_path(weights)
        source = Path(data).name if data else 'the procedural street'
        quantizer.save(path, target, {'agreement': f'{agreement:.5f}', 'kept': ','.join(kept),
                                      'calibration': f'{len(frames)} images of {source}'})
        return QuantizationResult(target, agreement, kept, len(quantizer.convolutions), len(checks))


def find_sensitive(quantizer: 'Quantizer', min_agreement: float, report: Callable[[str], object] = lambda text: None,
                   progress: Progress = iter) -> tuple[Path, float, list[str]]:
    """Find how many of the most sensitive convolutions must stay in fp32: none, 2, 4, 8, ...

    Args:
        quantizer: gives candidates and their agreement with fp32.
        min_agreement: the agreement to reach, 0 to 1.
        report: called with lines for the user.
        progress: shows the progress of measuring every convolution.

    Returns:
        File of the first candidate that reaches it, its agreement, and the names kept in fp32.

    Raises:
        ValueError: half of the convolutions in fp32 do not suffice.
    """
    kept: list[str] = []
    path = quantizer.quantize()
    agreement = quantizer.agreement(path)
    if agreement >= min_agreement:
        return path, agreement, kept
    report(f'{agreement:.2%} of the pixels agree, less than {min_agreement:.2%}: measuring each convolution')
    costs = quantizer.sensitivity(progress)
    for cost, name in costs[:8]:
        report(f'  {cost:7.3%}  {name}')
    while agreement < min_agreement and 2 * max(len(kept), 1) <= len(costs) // 2:
        kept = [name for _, name in costs[:2 * max(len(kept), 1)]]
        path = quantizer.quantize(kept)
        agreement = quantizer.agreement(path)
        report(f'{agreement:.2%} with {len(kept)} of them in fp32')
    if agreement < min_agreement:
        raise ValueError(f'with half of the convolutions in fp32 only {agreement:.2%} of the pixels agree; nothing was '
                         'written. Give images like those of training as `data`, or a lower `min_agreement`')
    return path, agreement, kept


def load_frames(data: str | Path | None, count: int) -> list[Frame]:
    """Load images for calibration.

    Args:
        data: data set (its train split is used) or folder of images; None: the procedural street.
        count: how many at most; they are evenly spaced over the data.

    Returns:
        The frames.

    Raises:
        ValueError: there are less than 2 images, or one cannot be decoded.
    """
    if data is None:
        from ..demo.street import StreetCamera
        streets = [StreetCamera(480, 360, seed=seed) for seed in range(8)]
        return [Frame(streets[n % len(streets)].render(9 * n)[0], 'bgr') for n in range(count)]
    root = Path(data)
    paths = find_images(root / 'train' / 'images') or find_images(root)
    if len(paths) < MIN_IMAGES:
        raise ValueError(f'{root} has {len(paths)} images, in itself or in train/images; give at least {MIN_IMAGES}, '
                         'better 60')
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))
    return [_load_frame(paths[i]) for i in chosen]


def split_frames(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Split frames into those to calibrate on and those to compare on: every fourth, at most `NUM_CHECKS`."""
    checks = list(range(1, len(frames), 4))[:NUM_CHECKS] or [0]
    return [frame for i, frame in enumerate(frames) if i not in checks], [frames[i] for i in checks]


def _load_frame(path: Path) -> Frame:
    image = read_image(path)
    if image is None:
        raise ValueError(f'{path} cannot be decoded; convert it to JPEG or PNG, or remove it')
    return Frame(image, 'bgr')
