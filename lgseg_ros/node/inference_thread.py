"""The thread that segments: latest messages in, results out; one bad frame never stops the next.

A message becomes an `ImageFrame`, with others of its shape a batch for the engine, then a `Segmentation`, whose camera
publishes it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from sensor_msgs.msg import CompressedImage, Image

from ..engines.base import Engine
from ..vocabulary.vocabulary import Vocabulary, VocabularyState
from .compressed_images import compressed_size, frame_from_compressed
from .image_conversions import ImageError, frame_from_image
from .latest_frame_buffer import LatestFrameBuffer
from .output_publisher import ImageFrame, OutputPublisher, Segmentation
from .parameters import Settings

ERROR_PERIOD_S = 5.0   # seconds between error messages of one camera


class Logger(Protocol):
    """The part of rclpy's logger that is needed here."""

    def error(self, message: str) -> object:
        """Log an error."""

    def warning(self, message: str) -> object:
        """Log a warning."""


class InferenceThread:
    """Runs the engine on the latest frames of all cameras in one thread.

    One thread keeps GPU affinity and lets the executor answer services while a frame is processed.
    """

    def __init__(self, engine: Engine, vocabulary: VocabularyState, settings: Callable[[], Settings],
                 logger: Logger) -> None:
        """Start the thread.

        Args:
            engine: runs the network.
            vocabulary: holds the vocabulary in force.
            settings: gives the present settings.
            logger: takes warnings and errors.
        """
        self._engine, self._vocabulary, self._settings, self._logger = engine, vocabulary, settings, logger
        self._max_batch = engine.batch   # most frames in one run that the engine gains by
        self._buffer: LatestFrameBuffer[OutputPublisher, Image | CompressedImage] = LatestFrameBuffer()
        self._logged: dict[OutputPublisher, tuple[float, str]] = {}   # when the last error was logged, and its text
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name='lgseg-inference', daemon=True)
        self._thread.start()

    def enqueue(self, camera: OutputPublisher, message: Image | CompressedImage) -> None:
        """Take a camera message; it replaces one of the same camera that still waits.

        Args:
            camera: where its results go.
            message: the image.
        """
        camera.counters.received += 1
        camera.counters.dropped += self._buffer.put(camera, message)

    def busy_seconds(self) -> float:
        """Return for how many seconds the frames in hand have been processed; 0 between frames."""
        since = self._busy_since
        return time.monotonic() - since if since else 0.0

    def stop(self, timeout: float = 1.5) -> bool:
        """End the thread after the frame in hand.

        Args:
            timeout: seconds to wait for it.

        Returns:
            Whether it ended.
        """
        self._buffer.close()
        self._thread.join(timeout)
        return not self.is_running()

    def is_running(self) -> bool:
        """Return whether the thread is alive, and may be using the engine."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (messages := self._buffer.take(self._max_batch, promised_size)) is not None:
            self._busy_since = time.monotonic()
            self._process(messages)
            self._busy_since = None

    def _process(self, messages: list[tuple[OutputPublisher, Image | CompressedImage]]) -> None:
        began = time.perf_counter()
        vocabulary = self._vocabulary.current   # one version for the whole frame, whatever a service does meanwhile
        assert vocabulary is not None, 'a vocabulary is loaded before the thread starts'
        frames: list[ImageFrame] = []
        for camera, message in messages:
            with self._stage(camera):
                if (frame := self._decode(camera, message, vocabulary)) is not None:
                    frames.append(frame)
        for segmentation in self._segment(frames, vocabulary):
            camera = segmentation.frame.camera
            with self._stage(camera):
                camera.publish(segmentation, self._settings().overlay_alpha)
            camera.counters.frame_ms = (time.perf_counter() - began) * 1e3

    @contextmanager
    def _stage(self, camera: OutputPublisher) -> Iterator[None]:
        """Guard a stage of one frame: a fault in it is counted and logged, and must not end the stream."""
        try:
            yield
        except ImageError as error:
            self._count_failure(camera, str(error), error.persistent)
        except Exception as error:
            if not self._buffer.closed:   # else the publishers are being taken away
                self._count_failure(camera, f'frame lost: {type(error).__name__}: {error}')

    def _decode(self, camera: OutputPublisher, message: Image | CompressedImage,
                vocabulary: Vocabulary) -> ImageFrame | None:
        """Read a message; None, without decoding it, while its results have no subscribers."""
        frame = None
        if camera.has_subscribers():
            decode = frame_from_compressed if isinstance(message, CompressedImage) else frame_from_image
            frame = ImageFrame(camera, message.header, decode(message))
        camera.publish_label_info(vocabulary, message.header)   # latched, so also for those who come later
        return frame

    def _segment(self, frames: list[ImageFrame], vocabulary: Vocabulary) -> list[Segmentation]:
        """Segment frames: together where their shapes allow it, else one by one; those that fail are left out."""
        if len({frame.image.pixels.shape[:2] for frame in frames}) != 1 or len(frames) == 1:
            return self._segment_each(frames, vocabulary)
        try:
            return self._infer(frames, vocabulary)
        except Exception as error:
            segmentations = self._segment_each(frames, vocabulary)
            if len(segmentations) == len(frames):   # so it was their number: too much for the device's memory, say
                self._max_batch = 1
                self._logger.warning(f'a batch of {len(frames)} frames fails ({type(error).__name__}: {error}); '
                                     'one frame at a time from now on')
            return segmentations

    def _segment_each(self, frames: list[ImageFrame], vocabulary: Vocabulary) -> list[Segmentation]:
        segmentations: list[Segmentation] = []
        for frame in frames:
            with self._stage(frame.camera):
                segmentations += self._infer([frame], vocabulary)
        return segmentations

    def _infer(self, frames: list[ImageFrame], vocabulary: Vocabulary) -> list[Segmentation]:
        size = 'network' if self._settings().output_size == 'network' else None
        began = time.perf_counter()
        masks = self._engine.run([frame.image for frame in frames], vocabulary, size)
        for frame in frames:
            frame.camera.counters.engine_ms = (time.perf_counter() - began) * 1e3
        return [Segmentation(frame, mask, vocabulary) for frame, mask in zip(frames, masks, strict=True)]

    def _count_failure(self, camera: OutputPublisher, reason: str, persistent: bool = False) -> None:
        camera.counters.failed += 1
        camera.counters.last_error = reason
        # A camera each: rclpy's own throttle goes by the line of code, so one bad camera would hide another's error.
        when, text = self._logged.get(camera, (-ERROR_PERIOD_S, ''))
        now = time.monotonic()
        if now - when >= ERROR_PERIOD_S and not (persistent and text == reason):   # a persistent error is logged once
            self._logged[camera] = now, reason
            self._logger.error(f'{camera.input_topic("image")}: {reason}')


def promised_size(message: Image | CompressedImage) -> tuple[int, int] | None:
    """Return the (height, width) that a camera message promises, or None; nothing is decoded."""
    return compressed_size(message) if isinstance(message, CompressedImage) else (message.height, message.width)
