"""Read label images; the values with a meaning are in `utils.label_values`."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file, the reason and the fix."""


def read_label(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a label image.

    Args:
        path: a PNG with one channel of 1, 2, 4 or 8 bits, or with a palette, whose indices are the labels.

    Returns:
        Labels as stored, uint8 [H, W].

    Raises:
        DatasetError: the file is missing, damaged or of another kind.
    """
    try:
        return decode_label(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DatasetError(f'{path} cannot be read ({error.strerror}); check its permissions or copy it again'
                           ) from error


def decode_label(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode the content of a label file; as `read_label`.

    Args:
        data: content of the file.
        name: of the file, for messages.
    """
    label = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if label is None:
        raise DatasetError(f'{name} cannot be decoded; copy it again, or export the labels as 8-bit PNG')
    if label.ndim == 3:
        indices = _palette_indices(data)
        if indices is None:
            kind = {3: 'RGB', 4: 'RGBA'}.get(label.shape[2], f'{label.shape[2]}-channel')
            raise DatasetError(f'{name} is an {kind} image, and labels are class ids; export them as 8-bit PNG with '
                               'one channel or a palette')
        return indices
    if label.dtype != np.uint8:
        raise DatasetError(f'{name} has {8 * label.dtype.itemsize} bits per pixel (values up to {label.max()}), and '
                           'labels are 8-bit class ids; convert it, for example with PIL: '
                           "Image.fromarray(np.array(image).astype('uint8')).save(path)")
    return label // np.uint8(_gray_scale_factor(data))


def _gray_scale_factor(data: bytes) -> int:
    """What OpenCV multiplied the values of a grey PNG of 1, 2 or 4 bits with; 1 for others.

    Masks of two values are often written with 1 bit. OpenCV reads its 1 as 255.
    """
    # The signature, then IHDR: width, height, bits, kind of colour (0 is grey).
    gray = data[:8] == b'\x89PNG\r\n\x1a\n' and len(data) > 25 and data[25] == 0
    return 255 // (2 ** min(data[24], 8) - 1) if gray else 1


def _palette_indices(data: bytes) -> npt.NDArray[np.uint8] | None:
    """The indices of a PNG with a palette (as VOC's labels are), which OpenCV turns into colours; None without one."""
    import io

    from PIL import Image
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image) if image.mode == 'P' else None
