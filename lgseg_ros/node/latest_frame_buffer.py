"""The latest frame of every camera, handed out fairly."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

CameraT = TypeVar('CameraT', bound=Hashable)
FrameT = TypeVar('FrameT')


class LatestFrameBuffer(Generic[CameraT, FrameT]):
    """One slot per camera: a new frame replaces one that waits, so nothing old is ever processed."""

    def __init__(self) -> None:
        """Begin empty and open."""
        self._ready = threading.Condition()
        self._waiting: dict[CameraT, FrameT] = {}   # in the order of the cameras' turns
        self._closed = False

    def put(self, camera: CameraT, frame: FrameT) -> bool:
        """Store a frame for its camera.

        Args:
            camera: the camera, or any key for it.
            frame: its latest frame.

        Returns:
            Whether it replaced one that was never taken (a drop).
        """
        with self._ready:
            replaced = camera in self._waiting
            # Replacing keeps the camera's place in the queue: a fast camera cannot overtake a slow one.
            self._waiting[camera] = frame
            self._ready.notify()
            return replaced

    def take(self, max_frames: int = 1,
             shape_of: Callable[[FrameT], Hashable | None] | None = None) -> list[tuple[CameraT, FrameT]] | None:
        """Wait for a frame and take that of the camera whose turn it is.

        Args:
            max_frames: with more than one, also take frames of other cameras that wait and have the same shape. The
                others stay, so that newer ones may replace them.
            shape_of: gives a frame's shape, or None where it is unknown; needed with more than one frame.

        Returns:
            Pairs (camera, frame), at least one; None once closed.
        """
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            if self._closed:
                return None
            first = next(iter(self._waiting))
            cameras = [first]
            if max_frames > 1 and shape_of and (shape := shape_of(self._waiting[first])) is not None:
                cameras += [camera for camera, frame in self._waiting.items()
                            if camera != first and shape_of(frame) == shape]
            return [(camera, self._waiting.pop(camera)) for camera in cameras[:max_frames]]

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def close(self) -> None:
        """Wake the taker for good and drop what waits."""
        with self._ready:
            self._closed = True
            self._waiting.clear()
            self._ready.notify_all()
