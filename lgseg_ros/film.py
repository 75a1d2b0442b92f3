"""Films of overlays, which every player shows."""

import cv2

MOST = 65535   # what MPEG-4 can say of time: a rate is a fraction of whole numbers up to it


def film_rate(fps):
    """The rate nearest to `fps` that MPEG-4 can hold: averages of variable rates have too many digits."""
    digits = next((digits for digits in (3, 2, 1) if fps * 10 ** digits <= MOST), 0)
    return max(round(fps, digits), 0.01)


def open_film(path, fps, size):
    """A cv2.VideoWriter of an .mp4; size: (width, height).  Raises ValueError where it cannot be written."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), film_rate(fps), size)
    if not film.isOpened():
        raise ValueError(f'{path} cannot be written: the folder cannot, or this OpenCV has no MPEG-4 encoder')
    return film
