"""The thread that segments: newest frame in, results out; one bad frame never stops the next."""

import threading
import time

from sensor_msgs.msg import CompressedImage

from .encodings import frame_from_compressed
from .images import ImageError, frame_from_image
from .slots import NewestFrames

THROTTLE_S = 5.0   # seconds between error messages of one camera


class Worker:
    """Runs the engine on the newest frames of all cameras in one thread.

    One thread keeps GPU affinity and lets the executor answer services while a frame is worked on.
    """

    def __init__(self, engine, vocabulary, settings, logger):
        """vocabulary: VocabularyState; settings: callable giving the present `Settings`."""
        self._engine, self._vocabulary, self._settings, self._logger = engine, vocabulary, settings, logger
        self._frames = NewestFrames()
        self._said = {}   # camera -> (when its last error was logged, its text)
        self._thread = threading.Thread(target=self._run, name='lgseg-worker', daemon=True)
        self._thread.start()

    def offer(self, camera, message):
        """Take a camera message; it replaces one of the same camera that still waits."""
        camera.received += 1
        camera.dropped += self._frames.put(camera, message)

    def stop(self, timeout=1.5):
        """End the thread after the frame in hand.  Returns whether it ended within `timeout` seconds."""
        self._frames.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self):
        while (taken := self._frames.take()) is not None:
            camera, message = taken
            try:
                self._segment(camera, message)
            except ImageError as error:
                self._count_failure(camera, str(error), error.lasting)
            except Exception as error:  # a fault in one frame must not end the stream; it is counted and said
                if self._frames.closed:
                    return   # the publishers are being taken away
                self._count_failure(camera, f'frame lost: {type(error).__name__}: {error}')

    def _count_failure(self, camera, reason, lasting=False):
        camera.failed += 1
        camera.last_error = reason
        # A camera each: rclpy's own throttle goes by the line of code, so one bad camera would hide another's error.
        when, text = self._said.get(camera, (-THROTTLE_S, None))
        now = time.monotonic()
        if now - when >= THROTTLE_S and not (lasting and text == reason):   # what lasts is said once
            self._said[camera] = now, reason
            self._logger.error(f'{camera.topic("image")}: {reason}')

    def _segment(self, camera, message):
        began = time.perf_counter()
        frame = frame_from_compressed(message) if isinstance(message, CompressedImage) else frame_from_image(message)
        vocabulary = self._vocabulary.current   # one version for the whole frame, whatever a service does meanwhile
        camera.publish_label_info(vocabulary, message.header)
        if not camera.is_watched():
            return
        settings = self._settings()
        size = 'network' if settings.output_size == 'network' else None
        engine_began = time.perf_counter()
        mask, = self._engine.run([frame], vocabulary, size)
        camera.engine_ms = (time.perf_counter() - engine_began) * 1e3
        camera.publish(frame, mask, vocabulary, message.header, settings.overlay_alpha)
        camera.frame_ms = (time.perf_counter() - began) * 1e3
