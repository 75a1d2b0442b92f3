"""The newest frame of every camera, handed out fairly."""

import threading


class NewestFrames:
    """One slot a camera: a new frame replaces one that waits, so nothing old is ever worked on."""

    def __init__(self):
        self._ready = threading.Condition()
        self._waiting = {}   # camera -> frame; served in order of arrival of the camera's turn
        self._closed = False

    def put(self, camera, frame):
        """Offer a frame.  Returns True when it replaced one that was never taken (a drop)."""
        with self._ready:
            replaced = camera in self._waiting
            # Replacing keeps the camera's place in the queue: a fast camera cannot overtake a slow one.
            self._waiting[camera] = frame
            self._ready.notify()
            return replaced

    def take(self, most=1, kind=None):
        """Wait for a frame.  Returns [(camera, frame)] of the camera whose turn it is, or None once closed.

        most: with more than one, also those of other cameras that wait and are alike, kind(frame) being equal and
        not None.  The others stay, so that newer ones may replace them.
        """
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            if self._closed:
                return None
            first = next(iter(self._waiting))
            cameras = [first]
            if most > 1 and (wanted := kind(self._waiting[first])) is not None:
                cameras += [camera for camera, frame in self._waiting.items()
                            if camera != first and kind(frame) == wanted]
            return [(camera, self._waiting.pop(camera)) for camera in cameras[:most]]

    @property
    def closed(self):
        """Whether `close` has been called."""
        return self._closed

    def close(self):
        """Wake the taker for good and forget what waits."""
        with self._ready:
            self._closed = True
            self._waiting.clear()
            self._ready.notify_all()
