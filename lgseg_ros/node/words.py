"""The words of a configured node: the vocabulary in force, and the services that tell and change it."""

import time

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from lgseg_ros.srv import GetVocabulary, SetVocabulary

from ..vocabulary.classes import VocabularyError, phrases_of
from ..vocabulary.vocabulary import VocabularyState, choose_classes
from ..vocabulary.text_source import TextSource
from .background import Background

PARAMETERS = ('vocabulary', 'preset', 'threshold')   # the settings that are words


def words_of(settings):
    """What `VocabularyState.replace` takes: classes, preset, threshold."""
    return [name for name in settings.vocabulary if name], settings.preset, settings.threshold


def refuse(logger, what, error):
    """Log why a request is refused; returns what to answer.  Errors that are not ours tell their kind too."""
    ours = isinstance(error, ValueError)
    reason = str(error) if ours else f'{type(error).__name__}: {" ".join(str(error).split())[:400]}'
    logger.warning(f'{what} refused: {reason}')
    return f'{reason}; nothing was changed'


class Words:
    """Holds the vocabulary of a node and serves ~/set_vocabulary and ~/get_vocabulary (srv/*.srv)."""

    def __init__(self, node, changed):
        """node: the ROS node; changed: function of (classes, preset, threshold), called when the service changed them."""
        self.vocabulary = None      # VocabularyState once loaded
        self._node, self._changed = node, changed
        self._source = None         # TextSource of the vocabulary
        self._ids = {}              # {name: id} of this process: a clean-up must not free ids that consumers remember
        self._version = 0           # and the versions they know must not come again
        self._background = Background()
        self._one_by_one = MutuallyExclusiveCallbackGroup()   # of set_vocabulary, whose callback may wait for seconds
        self._services = []
        self._leaving = None        # that service when it is to go, but has a request to answer first

    def load(self, weights, settings):
        """Begin with the words of the settings.  Raises VocabularyError."""
        self._source = TextSource(weights, warn=self._node.get_logger().warning)
        self.vocabulary = VocabularyState(self._source, self._ids, self._version)
        self.replace(settings)

    def replace(self, settings):
        """Put the words of the settings in force, for whoever cannot let others go on meanwhile: rclpy answers
        parameters and transitions in place.  Returns the new `Vocabulary`; raises VocabularyError, changing nothing.
        """
        vocabulary = self.vocabulary.replace(*words_of(settings))
        self._remark(vocabulary)
        return vocabulary

    def _remark(self, vocabulary):
        """Log what whoever chose these words should know; returns it, or ''."""
        remark = vocabulary.warning
        if remark:
            self._node.get_logger().warning(remark)
        return remark

    def check(self, settings):
        """Raise VocabularyError if `replace` would; before `load`, where it is not known which phrases will do, only
        for what is no vocabulary."""
        if self.vocabulary:
            self.vocabulary.prepare(*words_of(settings))
        else:
            choose_classes(*words_of(settings)[:2])

    def offer(self):
        """Offer the services."""
        self._services = [
            self._node.create_service(SetVocabulary, '~/set_vocabulary', self._set, callback_group=self._one_by_one),
            self._node.create_service(GetVocabulary, '~/get_vocabulary', self._get)]

    def release(self):
        """Forget the vocabulary, though not its ids, and take the services back once they have answered."""
        waiting = self._background.interrupt(VocabularyError(
            'the node was cleaned up or shut down before the text encoder had finished'))
        for service in self._services:
            if waiting and service.srv_type is SetVocabulary:
                self._leaving = service
            else:
                self._node.destroy_service(service)
        if self.vocabulary and self.vocabulary.current:
            self._version = self.vocabulary.current.version
        self._services, self.vocabulary = [], None

    def close(self):
        """Answer who waits for the encoder and end its thread; for the end of the process."""
        if self._background.interrupt(VocabularyError('the node ends')):
            while self._background.awaited and self._node.context.ok():
                self._node.executor.spin_once(timeout_sec=0)   # nobody else does any more
        self._background.close()

    async def _set(self, request, response):
        began = time.perf_counter()
        try:
            vocabulary = await self._learn_and_replace(request.classes, request.preset, request.threshold)
        except Exception as error:   # of whatever kind: rclpy would end the node with it
            response.success = False
            response.message = refuse(self._node.get_logger(), 'set_vocabulary', error)
            if self._leaving:   # a task runs after this callback, when rclpy has sent the answer
                self._node.executor.create_task(self._node.destroy_service, self._leaving)
                self._leaving = None
            return _describe(self.vocabulary.current, response) if self.vocabulary else response
        self._changed(list(request.classes), request.preset, vocabulary.threshold)
        milliseconds = (time.perf_counter() - began) * 1e3
        response.success = True
        response.message = f'version {vocabulary.version}: {len(vocabulary.names)} classes from the next frame on'
        self._node.get_logger().info(f'{vocabulary} ({milliseconds:.1f} ms)')
        if remark := self._remark(vocabulary):
            response.message += f'; {remark}'
        return _describe(vocabulary, response)

    async def _learn_and_replace(self, *wanted):
        if self.vocabulary is None:   # a request that waited in the queue while the node was cleaned up
            raise VocabularyError('the node is not configured; ask again once it is')
        new = self._source.new_phrases(phrases_of(self.vocabulary.validate(*wanted)))
        if new:   # the encoder takes seconds: other callbacks go on meanwhile
            await self._background.run(self._node.executor, self._source.embed, new)
        return self.vocabulary.replace(*wanted)

    def _get(self, request, response):
        vocabulary = self.vocabulary.current
        response.classes, response.preset = list(vocabulary.texts), vocabulary.preset
        response.threshold = vocabulary.threshold
        return _describe(vocabulary, response)


def _describe(vocabulary, response):
    response.version = vocabulary.version
    response.names, response.ids = list(vocabulary.names), list(vocabulary.ids)
    return response
