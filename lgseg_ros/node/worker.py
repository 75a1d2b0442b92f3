"""The thread that segments: newest frames in, results out; one bad frame never stops the next."""

import threading
import time
from typing import NamedTuple

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from ..engines.frames import Frame
from .camera import Camera
from .encodings import compressed_size, frame_from_compressed
from .images import ImageError, frame_from_image
from .slots import NewestFrames

THROTTLE_S = 5.0   # seconds between error messages of one camera


class Picture(NamedTuple):
    """A camera's message, read."""

    camera: Camera
    header: Header
    frame: Frame


class Worker:
    """Runs the engine on the newest frames of all cameras in one thread.

    One thread keeps GPU affinity and lets the executor answer services while a frame is worked on.
    """

    def __init__(self, engine, vocabulary, settings, logger):
        """vocabulary: VocabularyState; settings: callable giving the present `Settings`."""
        self._engine, self._vocabulary, self._settings, self._logger = engine, vocabulary, settings, logger
        self._batch = getattr(engine, 'batch', 1)   # most frames in one run that the engine gains by
        self._frames = NewestFrames()
        self._said = {}   # camera -> (when its last error was logged, its text)
        self._busy_since = None
        self._thread = threading.Thread(target=self._run, name='lgseg-worker', daemon=True)
        self._thread.start()

    def offer(self, camera, message):
        """Take a camera message; it replaces one of the same camera that still waits."""
        camera.received += 1
        camera.dropped += self._frames.put(camera, message)

    def busy_seconds(self):
        """For how long the frames in hand have been worked on; 0 between frames."""
        since = self._busy_since
        return time.monotonic() - since if since else 0.0

    def stop(self, timeout=1.5):
        """End the thread after the frame in hand.  Returns whether it ended within `timeout` seconds."""
        self._frames.close()
        self._thread.join(timeout)
        return not self.runs()

    def runs(self):
        """Whether its thread is alive, and may be using the engine."""
        return self._thread.is_alive()

    def _run(self):
        while (taken := self._frames.take(self._batch, picture_size)) is not None:
            self._busy_since = time.monotonic()
            self._segment(taken)
            self._busy_since = None

    def _segment(self, taken):
        """taken: list of (camera, message)."""
        began = time.perf_counter()
        vocabulary = self._vocabulary.current   # one version for the whole frame, whatever a service does meanwhile
        pictures = [picture for camera, message in taken
                    if (picture := self._try(camera, self._read, camera, message, vocabulary))]
        masks = self._masks(pictures, vocabulary)
        for picture, mask in zip(pictures, masks):
            if mask:
                self._try(picture.camera, picture.camera.publish, picture.frame, mask, vocabulary, picture.header,
                          self._settings().overlay_alpha)
                picture.camera.frame_ms = (time.perf_counter() - began) * 1e3

    def _read(self, camera, message, vocabulary):
        """The message's `Picture`, or None, without decoding it, while nobody wants its results.  Raises ImageError."""
        frame = None
        if camera.is_watched():
            decode = frame_from_compressed if isinstance(message, CompressedImage) else frame_from_image
            frame = decode(message)
        camera.publish_label_info(vocabulary, message.header)   # latched, so also for those who come later
        return Picture(camera, message.header, frame) if frame else None

    def _masks(self, pictures, vocabulary):
        """A `Mask` for each picture, None where the engine failed: together where that is sound, else one by one."""
        if len({picture.frame.pixels.shape[:2] for picture in pictures}) != 1 or len(pictures) == 1:
            return [self._alone(picture, vocabulary) for picture in pictures]
        try:
            return self._infer(pictures, vocabulary)
        except Exception as error:
            masks = [self._alone(picture, vocabulary) for picture in pictures]
            if all(masks):   # so it was their number: too much for the device's memory, say
                self._batch = 1
                self._logger.warning(f'{len(pictures)} frames at once fail ({type(error).__name__}: {error}); '
                                     'one at a time from now on')
            return masks

    def _alone(self, picture, vocabulary):
        masks = self._try(picture.camera, self._infer, [picture], vocabulary)
        return masks[0] if masks else None

    def _infer(self, pictures, vocabulary):
        size = 'network' if self._settings().output_size == 'network' else None
        began = time.perf_counter()
        masks = self._engine.run([picture.frame for picture in pictures], vocabulary, size)
        for picture in pictures:
            picture.camera.engine_ms = (time.perf_counter() - began) * 1e3
        return masks

    def _try(self, camera, step, *arguments):
        """step(*arguments), or None when it raises: a fault in one frame must not end the stream; it is counted."""
        try:
            return step(*arguments)
        except ImageError as error:
            self._count_failure(camera, str(error), error.lasting)
        except Exception as error:
            if not self._frames.closed:   # else the publishers are being taken away
                self._count_failure(camera, f'frame lost: {type(error).__name__}: {error}')
        return None

    def _count_failure(self, camera, reason, lasting=False):
        camera.failed += 1
        camera.last_error = reason
        # A camera each: rclpy's own throttle goes by the line of code, so one bad camera would hide another's error.
        when, text = self._said.get(camera, (-THROTTLE_S, None))
        now = time.monotonic()
        if now - when >= THROTTLE_S and not (lasting and text == reason):   # what lasts is said once
            self._said[camera] = now, reason
            self._logger.error(f'{camera.topic("image")}: {reason}')


def picture_size(message):
    """(height, width) that a camera message promises, or None; nothing is decoded."""
    return compressed_size(message) if isinstance(message, CompressedImage) else (message.height, message.width)
