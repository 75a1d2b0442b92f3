"""sensor_msgs/CameraInfo of a mask: whether it belongs to the images, and scaled to the mask's size."""

import copy

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header


def camera_info_mismatch(info: CameraInfo, image_size: tuple[int, int]) -> str:
    """Explain why a CameraInfo does not belong to images of this size; with it, points would be projected wrongly.

    Images are the region of interest or the whole sensor, binned (sensor_msgs/CameraInfo); or, by drivers that say so,
    of the info's own height and width. A CameraInfo without a size is accepted.

    Args:
        info: the camera's.
        image_size: (height, width), pixels.

    Returns:
        The reason, or '' where it can belong to them.
    """
    whole = info.height, info.width
    read_out = ((info.roi.height or info.height) / max(info.binning_y, 1),
                (info.roi.width or info.width) / max(info.binning_x, 1))
    if not all(whole) or any(all(abs(a - b) < 1 for a, b in zip(size, image_size, strict=True))
                             for size in (whole, read_out)):
        return ''   # drivers round either way
    return (f'camera_info is for images of {read_out[1]:.0f}x{read_out[0]:.0f}, but these are '
            f'{image_size[1]}x{image_size[0]}, so it is not republished')


def scale_camera_info(info: CameraInfo, header: Header, image_size: tuple[int, int],
                      mask_size: tuple[int, int]) -> CameraInfo:
    """Make the CameraInfo of a mask.

    Args:
        info: the camera's own; it is not changed.
        header: that of the image.
        image_size: (height, width) of the image, pixels.
        mask_size: (height, width) of the mask, pixels.

    Returns:
        A copy with the image's header, scaled where the mask has another size than the image.
    """
    scaled = copy.deepcopy(info)
    scaled.header = header
    if image_size == mask_size:
        return scaled
    scale_y, scale_x = mask_size[0] / image_size[0], mask_size[1] / image_size[1]
    # Not the mask's size: with a region of interest or binning, width and height are those of the whole sensor.
    scaled.height, scaled.width = _scale(info.height, scale_y), _scale(info.width, scale_x)
    for matrix, columns in ((scaled.k, 3), (scaled.p, 4)):
        matrix[:columns] *= scale_x
        matrix[columns:2 * columns] *= scale_y
    for field, scale in (('x_offset', scale_x), ('width', scale_x), ('y_offset', scale_y), ('height', scale_y)):
        setattr(scaled.roi, field, _scale(getattr(info.roi, field), scale))
    return scaled


def _scale(pixels: int, scale: float) -> int:
    """Scale a size; a hostile number must not wrap around or lose the frame where the mask is larger than the image."""
    return min(round(pixels * scale), 2**32 - 1)
