"""The subscriptions of one camera: raw or compressed images, and camera info."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .output_publisher import OutputPublisher
from .parameters import Settings
from .rclpy_compat import SubscriptionEventCallbacks, create_steady_timer, names_are_known

NAME_CHECK_PERIOD_S = 1.0   # the name of a publisher's node arrives after its QoS
MAX_NAME_CHECKS = 10
RELIABILITY = {'best_effort': ReliabilityPolicy.BEST_EFFORT, 'reliable': ReliabilityPolicy.RELIABLE}


def latest_only_qos(reliability: str) -> QoSProfile:
    """Return a profile of depth 1: a deeper queue would make every mask older.

    Args:
        reliability: best_effort (that of sensor data in REP 2003) or reliable.

    Returns:
        The profile.
    """
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=RELIABILITY[reliability])


class ImageSubscriber:
    """Subscribes to one camera and hands its images on."""

    def __init__(self, node: Node, camera: OutputPublisher, settings: Settings,
                 on_image: Callable[[OutputPublisher, Image | CompressedImage], None]) -> None:
        """Resolve the topic; `subscribe` begins.

        Args:
            node: the ROS node.
            camera: where the results of these images go, and their camera info.
            settings: image kind and reliability.
            on_image: called with the camera and each message, in the executor's thread.
        """
        self.camera, self._node, self._settings, self._on_image = camera, node, settings, on_image
        self._unresolved = camera.input_topic('image')   # rclpy remaps what it is given, so it must not be remapped yet
        if settings.image_transport == 'compressed':
            # The remapping of the plain topic holds for its compressed companion, as with image_transport.
            self._unresolved = f'{node.resolve_topic_name(self._unresolved)}/compressed'
        self.topic: str = node.resolve_topic_name(self._unresolved)
        self._subscriptions: list[Any] = []
        self._explanation: Timer | None = None   # of a warning that waits for names

    @property
    def subscribed(self) -> bool:
        """Whether the node is subscribed to the camera."""
        return bool(self._subscriptions)

    def subscribe(self) -> None:
        """Subscribe to images and camera info."""
        kind = CompressedImage if self._settings.image_transport == 'compressed' else Image
        qos = latest_only_qos(self._settings.image_reliability)
        self._subscriptions = [
            self._node.create_subscription(
                kind, self._unresolved, lambda message: self._on_image(self.camera, message), qos,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos)),
            self._node.create_subscription(
                CameraInfo, self.camera.input_topic('camera_info'), self._on_camera_info,
                latest_only_qos('best_effort'))]

    def unsubscribe(self) -> None:
        """Leave the topics. What comes later may be of another camera, or of one with another calibration."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.camera.camera_info, self.camera.camera_info_problem = None, ''
        self._cancel_explanation()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera.camera_info = message

    def _on_incompatible_qos(self, event: Any) -> None:
        """Name the publisher and the policy, once the name is known: without this, a mismatch shows as silence."""
        if self._explanation is None:
            checks_left = iter(range(MAX_NAME_CHECKS - 1, -1, -1))
            self._explanation = create_steady_timer(
                self._node, NAME_CHECK_PERIOD_S, lambda: self._explain(event.last_policy_kind, next(checks_left)))

    def _cancel_explanation(self) -> None:
        if self._explanation is not None:
            self._node.destroy_timer(self._explanation)
            self._explanation = None

    def _explain(self, policy: int, checks_left: int) -> None:
        publishers = self._node.get_publishers_info_by_topic(self._unresolved)
        if checks_left and not names_are_known(publishers):
            return
        self._cancel_explanation()
        requested = RELIABILITY[self._settings.image_reliability]
        for publisher in publishers:
            if requested == ReliabilityPolicy.RELIABLE and publisher.qos_profile.reliability != requested:
                self._node.get_logger().warning(
                    f'{self.topic}: node {publisher.node_namespace.rstrip("/")}/{publisher.node_name} publishes with '
                    'reliability BEST_EFFORT, but this node requests RELIABLE, so nothing arrives: set '
                    'image_reliability:=best_effort')
                return
        self._node.get_logger().warning(f'{self.topic}: a publisher offers an incompatible QoS policy '
                                        f'({policy}), so nothing arrives from it')
