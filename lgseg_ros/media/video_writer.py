"""The MPEG-4 writer that `lgseg segment` and `lgseg demo` share."""

from pathlib import Path

import cv2

MAX_TIME_BASE = 65535
"""Largest numerator and denominator of a frame rate in MPEG-4, which stores the rate as a fraction."""


def representable_fps(fps: float) -> float:
    """Round a frame rate to one that MPEG-4 can store.

    Measured rates of variable-rate videos have too many digits for the container.

    Args:
        fps: frames per second, above 0.

    Returns:
        The nearest rate with as many decimals as fit, at least 0.01 frames per second.
    """
    digits = next((digits for digits in (3, 2, 1) if fps * 10 ** digits <= MAX_TIME_BASE), 0)
    return max(round(fps, digits), 0.01)


def open_video_writer(path: str | Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Open an .mp4 file for writing.

    Args:
        path: file to create; an existing one is overwritten.
        fps: frames per second, above 0; rounded by `representable_fps`.
        size: (width, height) of every frame, pixels.

    Returns:
        A writer of BGR frames, uint8 [height, width, 3]. Call release() at the end.

    Raises:
        ValueError: the file cannot be written.
    """
    codec = cv2.VideoWriter.fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), codec, representable_fps(fps), size)
    if not writer.isOpened():
        raise ValueError(f'{path} cannot be written: the folder is not writable, or this OpenCV build has no MPEG-4 '
                         'encoder; choose another folder, or install opencv-python-headless')
    return writer
