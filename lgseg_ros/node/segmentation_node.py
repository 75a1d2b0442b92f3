"""The managed ROS node: lifecycle transitions around vocabulary, cameras, engine and inference thread."""

import time
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer

from ..engines.base import EngineOptions
from ..engines.selection import EngineSelection, EngineWithFallback
from ..engines.self_test import SelfTest
from ..model.weights import WeightsError, load_weights
from ..pipeline import SegmentationPipeline
from ..vocabulary.classes import VocabularyError
from ..vocabulary.vocabulary import Vocabulary
from .bond import Bond
from .diagnostics import Diagnostics
from .image_subscriber import ImageSubscriber
from .inference_thread import InferenceThread
from .memory import start_malloc_trim
from .output_publisher import OutputPublisher
from .parameter_sync import ParameterSync
from .parameters import Settings, camera_names
from .rclpy_compat import create_steady_timer, refuse_invalid_transitions
from .vocabulary_services import VocabularyServices, vocabulary_request

SUBSCRIBER_CHECK_PERIOD_S = 0.25   # how often a lazy node looks whether its outputs have subscribers


class SegmentationNode(LifecycleNode):
    """Segments camera images by a vocabulary; README.md lists its topics, services and parameters.

    Attributes:
        vocabulary: the vocabulary and its services.
        cameras: the outputs of each camera, while configured.
        engine_selection: the engine that was requested and the one that runs, once configured.
        last_error: why the last transition failed, or ''.
    """

    def __init__(self, name: str = 'lgseg', **options: Any) -> None:
        """Declare the parameters; nothing is loaded before configure.

        Args:
            name: of the node.
            **options: those of rclpy's nodes.

        Raises:
            ValueError: a parameter's value is not allowed.
        """
        super().__init__(name, **options)
        self._parameters_in_sync = ParameterSync(self)
        self.vocabulary = VocabularyServices(self, self._parameters_in_sync.mirror_vocabulary)
        self.cameras: list[OutputPublisher] = []
        self.engine_selection: EngineSelection | None = None
        self.last_error = ''
        self._pipeline: SegmentationPipeline | None = None   # with an engine once configured
        self._inference: InferenceThread | None = None
        self._stuck_threads: list[InferenceThread] = []   # that did not end, of engines that were released otherwise
        self._bond: Bond | None = None
        self._image_subscribers: list[ImageSubscriber] = []
        self._subscriber_check: Timer | None = None
        self._active = self._finalized = False
        self._diagnostics = Diagnostics(self, self)
        start_malloc_trim(self)
        refuse_invalid_transitions(self, self.state_label)
        self._parameters_in_sync.start(self.vocabulary)

    @property
    def settings(self) -> Settings:
        """The values of all parameters."""
        return self._parameters_in_sync.settings

    def start(self) -> bool:
        """Configure and activate, as autostart does. Returns whether both succeeded."""
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)

    # --- transitions: an exception in one is swallowed by rcl, so each logs what failed and returns FAILURE

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load weights, vocabulary and engine, warm up, create topics and services."""
        try:
            began = time.monotonic()
            vocabulary = self._load()
            self._create_outputs()
        except (WeightsError, VocabularyError) as error:
            return self._fail_configure(str(error))
        except Exception as error:  # anything else must be logged too, or nobody would ever see it
            return self._fail_configure(f'cannot configure: {type(error).__name__}: {error}')
        self.get_logger().info(f'{self.engine_summary()}; {len(vocabulary.names)} classes; '
                               f'ready in {time.monotonic() - began:.2f} s')
        self.last_error = ''
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> Vocabulary:
        settings = self.settings
        self._pipeline = SegmentationPipeline(load_weights(settings.weights), ids=self.vocabulary.class_ids,
                                              version=self.vocabulary.version, warn=self.get_logger().warning)
        vocabulary = self.vocabulary.load(self._pipeline, vocabulary_request(settings))
        self._pipeline.load_engine(EngineOptions(settings.engine, settings.precision, settings.num_threads,
                                                 settings.max_inference_pixels), self._on_engine_selected)
        return vocabulary

    def _on_engine_selected(self, selection: EngineSelection) -> None:
        self.engine_selection = selection
        if selection.self_test_failures:   # whatever runs instead: this machine gives wrong masks with that one
            self.get_logger().error(f'engine: {selection}')
        elif selection.fell_back:
            self.get_logger().warning(f'engine: {selection}')
        else:
            self.get_logger().info(f'engine: {selection}')

    def _create_outputs(self) -> None:
        for name in camera_names(self.settings):
            self.cameras.append(OutputPublisher(self, name))
            self._diagnostics.add_camera(self.cameras[-1])
        self.vocabulary.create_services()

    def _fail_configure(self, reason: str) -> TransitionCallbackReturn:
        self.last_error = reason
        self.get_logger().fatal(reason)
        self._stop_segmenting()
        self._release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to segment."""
        if self._inference and not self._inference.stop():   # of before: two threads would share the engine's buffers
            return self._fail_activate(
                'inference timeout: the engine has worked on a frame from before the deactivation for '
                f'{self._inference.busy_seconds():.0f} s; activate again once it is done')
        try:
            self._begin_segmenting()
        except Exception as error:
            self._stop_segmenting()
            return self._fail_activate(f'{type(error).__name__}: {error}')
        self.last_error = ''
        return super().on_activate(state)

    def _fail_activate(self, reason: str) -> TransitionCallbackReturn:
        self.last_error = f'cannot activate: {reason}'
        self.get_logger().fatal(self.last_error)
        return TransitionCallbackReturn.FAILURE

    def _begin_segmenting(self) -> None:
        engine = self._engine()
        assert self._pipeline is not None and engine is not None, 'activate follows configure'
        self._inference = InferenceThread(engine, self._pipeline.state, lambda: self.settings,
                                          self.get_logger())
        self._image_subscribers = [ImageSubscriber(self, camera, self.settings, self._inference.enqueue)
                                   for camera in self.cameras]
        if self.settings.lazy_subscription:
            self._subscriber_check = create_steady_timer(self, SUBSCRIBER_CHECK_PERIOD_S, self._subscribe_as_needed)
        else:
            for subscriber in self._image_subscribers:
                subscriber.subscribe()
        if self.settings.bond_heartbeat_period:
            self._bond = Bond(self, self.settings.bond_heartbeat_period)
        self._active = True
        topics = ', '.join(subscriber.topic for subscriber in self._image_subscribers)
        self.get_logger().info(f'activated; subscribed to {topics}')

    def _subscribe_as_needed(self) -> None:
        for subscriber in self._image_subscribers:
            has_subscribers = subscriber.camera.has_subscribers()
            if has_subscribers and not subscriber.subscribed:
                subscriber.subscribe()
            elif subscriber.subscribed and not has_subscribers:
                subscriber.unsubscribe()

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop segmenting and leave the camera topics; engine and vocabulary stay loaded."""
        self._stop_segmenting()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release engine, vocabulary, topics and services; configure can follow with other weights' content."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from any state."""
        self._stop_segmenting()
        self._release()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that a manager can try again."""
        self.get_logger().error('a transition failed; back to unconfigured')
        self._stop_segmenting()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End the inference thread, then the node; for the end of the process."""
        self._stop_segmenting()
        self.vocabulary.close()
        self.destroy_node()

    def _stop_segmenting(self) -> None:
        self._active = False
        if self._bond:
            self._bond.close()
            self._bond = None
        if self._subscriber_check:
            self.destroy_timer(self._subscriber_check)
            self._subscriber_check = None
        for subscriber in self._image_subscribers:
            subscriber.unsubscribe()
        self._image_subscribers = []
        if self._inference and self._inference.stop():
            self._inference = None
        elif self._inference:   # kept: whoever starts or closes the engine has to know
            self.get_logger().warning('inference timeout: the engine did not finish its frame in time')

    def _release(self) -> None:
        for camera in self.cameras:
            self._diagnostics.remove_camera(camera)
            camera.destroy(self)
        inference, pipeline = self._inference, self._pipeline
        self.cameras, self._pipeline, self._inference = [], None, None
        self.vocabulary.release()
        if inference and inference.is_running():   # it uses the engine's memory, which then goes with the process
            self._stuck_threads.append(inference)
            return
        try:
            if pipeline:
                pipeline.close()
        except Exception as error:   # a GPU that failed for good, say: to clean up is then the way out
            self.get_logger().error(f'the engine did not close: {type(error).__name__}: {error}')

    # --- what the diagnostics and the end of the process ask

    def engine_summary(self) -> str:
        """Return the engine in one line, or '' while none is loaded."""
        engine = self._engine()
        return engine.summary() if engine else ''

    def engine_self_test(self) -> SelfTest | None:
        """Return the self-test of the engine in use, None where there is none."""
        engine = self._engine()
        return engine.self_test if engine else None

    def engine_failure(self) -> str:
        """Return why the engine can segment no more, as when each one failed its self-test; '' while it can."""
        engine = self._engine()
        return engine.failure if engine else ''

    def state_label(self) -> str:
        """Return the lifecycle state: unconfigured, inactive, active or finalized."""
        if self._finalized:
            return 'finalized'
        return 'active' if self._active else 'inactive' if self._engine() else 'unconfigured'

    def _engine(self) -> EngineWithFallback | None:
        return self._pipeline.engine if self._pipeline else None

    def image_subscriber_of(self, camera: OutputPublisher) -> ImageSubscriber | None:
        """Return the subscriptions of a camera, or None while the node is not active."""
        return next((subscriber for subscriber in self._image_subscribers if subscriber.camera is camera), None)

    def busy_seconds(self) -> float:
        """Return for how many seconds the engine has worked on the frames in hand; 0 between frames."""
        return self._inference.busy_seconds() if self._inference else 0.0

    def engine_is_running(self) -> bool:
        """Return whether a thread still works on a frame, also after `close` or a transition waited for it in vain."""
        return any(thread.is_running() for thread in (*self._stuck_threads, self._inference) if thread)

    def bond_state(self) -> str:
        """Return none, waiting, formed or broken."""
        return self._bond.state if self._bond else 'none'
