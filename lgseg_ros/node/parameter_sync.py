"""Keeps a node's ROS parameters, its `Settings` and its vocabulary equal, also where rclpy falls short.

A request is checked without side effects first, and applied after all of its parameters have passed.
"""

from dataclasses import fields, replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from .parameters import Settings, declare_parameters, validate_settings
from .vocabulary_services import VocabularyRequest, VocabularyServices, log_refusal, vocabulary_request

NAMES = frozenset(entry.name for entry in fields(Settings))
VOCABULARY_PARAMETERS = ('vocabulary', 'preset', 'confidence_threshold')


class ParameterSync:
    """Declares the parameters and answers requests to set them."""

    def __init__(self, node: Node) -> None:
        """Declare the parameters.

        Args:
            node: the ROS node.

        Raises:
            ValueError: a value given at start is not allowed.
        """
        self._node = node
        self._vocabulary: VocabularyServices | None = None
        self._mirroring = False   # parameters are being set to what is in force already
        self.settings = declare_parameters(node)

    def start(self, vocabulary: VocabularyServices) -> None:
        """Answer requests from now on.

        Args:
            vocabulary: takes changes of the vocabulary.
        """
        self._vocabulary = vocabulary
        self._node.add_on_set_parameters_callback(self._check)
        if self._has_post_set_callbacks():
            self._node.add_post_set_parameters_callback(self._on_set)

    def mirror_vocabulary(self, request: VocabularyRequest) -> None:
        """Set the parameters to the vocabulary in force, so that `ros2 param get` reports it.

        Args:
            request: what gave this vocabulary.
        """
        self._mirror({'vocabulary': list(request.classes) or [''], 'preset': request.preset,
                      'confidence_threshold': request.confidence_threshold})

    def _has_post_set_callbacks(self) -> bool:
        return hasattr(self._node, 'add_post_set_parameters_callback')   # since Iron

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            proposed = self._proposed(parameters)
            validate_settings(proposed)
            if self._vocabulary and self._changes_vocabulary(proposed):
                self._vocabulary.check(vocabulary_request(proposed))
            if not self._has_post_set_callbacks():
                self._apply(parameters)
        except Exception as error:   # of whatever kind: rclpy would end the node with it
            return SetParametersResult(successful=False,
                                       reason=log_refusal(self._node.get_logger(), 'parameters', error))
        return SetParametersResult(successful=True)

    def _on_set(self, parameters: list[Parameter]) -> None:
        try:
            self._apply(parameters)
        except Exception as error:   # it passed the check just now: memory that ran out, say
            log_refusal(self._node.get_logger(), 'parameters', error)
            self._mirror({p.name: getattr(self.settings, p.name) for p in parameters if p.name in NAMES})

    def _apply(self, parameters: list[Parameter]) -> None:
        """Put the parameters in force. Raises what embedding phrases may raise, changing nothing."""
        proposed = self._proposed(parameters)
        changed = self._changes_vocabulary(proposed)
        request = vocabulary_request(proposed)
        vocabulary = None
        if changed and self._vocabulary and self._vocabulary.current:
            vocabulary = self._vocabulary.replace(request)
        self.settings = proposed
        if vocabulary:
            self._node.get_logger().info(str(vocabulary))
        if changed:
            self.mirror_vocabulary(
                request._replace(confidence_threshold=vocabulary.confidence_threshold) if vocabulary else request
            )

    def _proposed(self, parameters: list[Parameter]) -> Settings:
        """Return the settings as they would be with these parameters."""
        changes = {p.name: p.value for p in parameters if p.name in NAMES}
        another_preset = changes.get('preset', self.settings.preset) != self.settings.preset
        if another_preset and 'vocabulary' not in changes and not self._mirroring:
            changes['vocabulary'] = ['']   # to choose a preset means its classes
        return replace(self.settings, **changes)

    def _changes_vocabulary(self, proposed: Settings) -> bool:
        return not self._mirroring and any(getattr(proposed, name) != getattr(self.settings, name)
                                           for name in VOCABULARY_PARAMETERS)

    def _mirror(self, values: dict[str, Any]) -> None:
        """Set parameters to what is in force already."""
        self._mirroring = True
        try:
            self._node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        finally:
            self._mirroring = False
