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

    def take(self):
        """Wait for a frame.  Returns (camera, frame), or None once closed."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            if self._closed:
                return None
            camera = next(iter(self._waiting))
            return camera, self._waiting.pop(camera)

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
