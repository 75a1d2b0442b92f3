"""The vocabulary of a configured node, and the services that report and change it (srv/*.srv).

Every change takes one path, whether a service, a parameter or a transition requests it: `new_phrases`, `embed` and
`set_vocabulary` of the pipeline. Only the waiting differs: the service's callback awaits the text encoder; parameters
and transitions, which rclpy answers in place, block.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode

from lgseg_ros.srv import GetVocabulary, SetVocabulary

from ..pipeline import SegmentationPipeline
from ..vocabulary.classes import VocabularyError
from ..vocabulary.vocabulary import Vocabulary, choose_classes
from .background_work import BackgroundWorker
from .inference_thread import Logger
from .parameters import Settings


class VocabularyRequest(NamedTuple):
    """A vocabulary that is asked for; what the fields mean is described at `VocabularyState.validate`."""

    classes: Sequence[str]
    preset: str
    confidence_threshold: float


def vocabulary_request(settings: Settings) -> VocabularyRequest:
    """Return the vocabulary that the parameters ask for."""
    return VocabularyRequest(
        [text for text in settings.vocabulary if text], settings.preset, settings.confidence_threshold
    )


def log_refusal(logger: Logger, what: str, error: Exception) -> str:
    """Log why a request is refused.

    Args:
        logger: takes a warning.
        what: the request.
        error: the reason; one that is no ValueError is logged with its type, because its text was not made for users.

    Returns:
        The text to answer with.
    """
    documented = isinstance(error, ValueError)
    reason = str(error) if documented else f'{type(error).__name__}: {" ".join(str(error).split())[:400]}'
    logger.warning(f'{what} refused: {reason}')
    return f'{reason}; nothing was changed'


class VocabularyServices:
    """Holds the vocabulary of a node and serves ~/set_vocabulary and ~/get_vocabulary.

    Attributes:
        pipeline: holds the vocabulary; None while the node is not configured.
        class_ids: {name: id} of this process: a clean-up must not free ids that consumers remember.
        version: the last version before the pipeline: those that consumers know must not come again.
    """

    def __init__(self, node: LifecycleNode, on_change: Callable[[VocabularyRequest], None]) -> None:
        """Begin without a vocabulary.

        Args:
            node: the ROS node.
            on_change: called when the service has changed the vocabulary.
        """
        self.pipeline: SegmentationPipeline | None = None
        self.class_ids: dict[str, int] = {}
        self.version = 0
        self._node, self._on_change = node, on_change
        self._background = BackgroundWorker()
        self._set_group = MutuallyExclusiveCallbackGroup()   # of set_vocabulary, whose callback may wait for seconds
        self._services: list[Any] = []
        self._unanswered: Any = None     # that service when it is to be destroyed, but has a request to answer first

    @property
    def current(self) -> Vocabulary | None:
        """The vocabulary in force; None while the node is not configured."""
        return self.pipeline.vocabulary if self.pipeline else None

    @property
    def _executor(self) -> Executor:
        executor = self._node.executor
        assert executor is not None, 'a request arrives through an executor'
        return executor

    def load(self, pipeline: SegmentationPipeline, request: VocabularyRequest) -> Vocabulary:
        """Begin with a vocabulary.

        Args:
            pipeline: holds it from now on; it has `class_ids` and `version`.
            request: the first vocabulary.

        Returns:
            It.

        Raises:
            VocabularyError: it cannot be used.
        """
        self.pipeline = pipeline
        return self.replace(request)

    def check(self, request: VocabularyRequest) -> None:
        """Check a request; before `load`, where phrases cannot be looked up, only that it is a vocabulary.

        Args:
            request: the next vocabulary.

        Raises:
            VocabularyError: `replace` would refuse it.
        """
        if self.pipeline is None:
            choose_classes(request.classes, request.preset)
            return
        if embed := self._embedding_of(request):
            embed()
        self.pipeline.state.prepare(*request)

    def replace(self, request: VocabularyRequest) -> Vocabulary:
        """Put a vocabulary in force, in place; new phrases take seconds.

        Args:
            request: the next vocabulary.

        Returns:
            It.

        Raises:
            VocabularyError: it cannot be used; nothing has changed.
        """
        if embed := self._embedding_of(request):
            embed()
        return self._replace(request)

    def _embedding_of(self, request: VocabularyRequest) -> Callable[[], object] | None:
        """Return what embeds the new phrases of a request, or None where it has none. Raises VocabularyError."""
        if self.pipeline is None:   # a request that was queued while the node was cleaned up
            raise VocabularyError('the node is not configured; ask again once it is')
        phrases = self.pipeline.new_phrases(*request)
        return partial(self.pipeline.embed, phrases) if phrases else None

    def _replace(self, request: VocabularyRequest) -> Vocabulary:
        """Put a vocabulary in force whose phrases are embedded."""
        if self.pipeline is None:
            raise VocabularyError('the node is not configured; ask again once it is')
        vocabulary = self.pipeline.set_vocabulary(*request)
        if vocabulary.warning:
            self._node.get_logger().warning(vocabulary.warning)
        return vocabulary

    async def _on_set_vocabulary(self, message: SetVocabulary.Request,
                                 response: SetVocabulary.Response) -> SetVocabulary.Response:
        began = time.perf_counter()
        request = VocabularyRequest(list(message.classes), message.preset, message.confidence_threshold)
        try:
            if embed := self._embedding_of(request):
                await self._background.run(self._executor, embed)
            vocabulary = self._replace(request)
        except Exception as error:   # of whatever kind: rclpy would end the node with it
            response.success = False
            response.message = log_refusal(self._node.get_logger(), 'set_vocabulary', error)
            self._destroy_unanswered()
            if self.current:
                _fill_classes(response, self.current)
            return response
        self._on_change(request._replace(confidence_threshold=vocabulary.confidence_threshold))
        milliseconds = (time.perf_counter() - began) * 1e3
        self._node.get_logger().info(f'{vocabulary} ({milliseconds:.1f} ms)')
        response.success = True
        response.message = f'version {vocabulary.version}: {len(vocabulary.names)} classes from the next frame on'
        if vocabulary.warning:
            response.message += f'; {vocabulary.warning}'
        _fill_classes(response, vocabulary)
        return response

    def _on_get_vocabulary(self, _: GetVocabulary.Request, response: GetVocabulary.Response) -> GetVocabulary.Response:
        vocabulary = self.current
        if vocabulary is None:
            return response
        response.classes, response.preset = list(vocabulary.texts), vocabulary.preset
        response.confidence_threshold = vocabulary.confidence_threshold
        _fill_classes(response, vocabulary)
        return response

    def create_services(self) -> None:
        """Create the services."""
        on_set: Any = self._on_set_vocabulary   # rclpy takes coroutines too, though its annotation lacks them
        self._services = [
            self._node.create_service(SetVocabulary, '~/set_vocabulary', on_set, callback_group=self._set_group),
            self._node.create_service(GetVocabulary, '~/get_vocabulary', self._on_get_vocabulary)]

    def release(self) -> None:
        """Drop the vocabulary, though not its ids, and destroy the services once they have answered."""
        waiting = self._background.interrupt(VocabularyError(
            'the node was cleaned up or shut down before the text encoder had finished'))
        for service in self._services:
            if waiting and service.srv_type is SetVocabulary:
                self._unanswered = service
            else:
                self._node.destroy_service(service)
        if self.current:
            self.version = self.current.version
        self._services, self.pipeline = [], None

    def _destroy_unanswered(self) -> None:
        """Destroy the service that had to answer first."""
        if self._unanswered:   # a task runs after this callback, when rclpy has sent the answer
            self._executor.create_task(self._node.destroy_service, self._unanswered)
            self._unanswered = None

    def close(self) -> None:
        """Answer whoever waits for the encoder and end its thread; for the end of the process."""
        if self._background.interrupt(VocabularyError('the node ends')):
            while self._background.awaited and self._node.context.ok():
                self._executor.spin_once(timeout_sec=0)   # nobody else spins any more
        self._background.close()


def _fill_classes(response: Any, vocabulary: Vocabulary) -> None:
    """Fill what the responses of both services have in common."""
    response.version = vocabulary.version
    response.names, response.ids = list(vocabulary.names), list(vocabulary.ids)
