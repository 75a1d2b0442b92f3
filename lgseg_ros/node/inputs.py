"""A camera's subscriptions: raw or compressed pictures, and camera info."""

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .timers import create_steady_timer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:   # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

NAMES_S = 1.0   # after its QoS, the name of a publisher's node comes to be known
NAME_TRIES = 10
UNKNOWN = '_NODE_NAME_UNKNOWN_'   # rmw's, for a participant whose nodes it has not heard of yet
RELIABILITY = {'best_effort': ReliabilityPolicy.BEST_EFFORT, 'reliable': ReliabilityPolicy.RELIABLE}


def newest_only(reliability):
    """Depth 1: a deeper queue would make every mask older (REP 2003's sensor data is best effort)."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=RELIABILITY[reliability])


def names_are_known(endpoints):
    """Whether the nodes' names of all `TopicEndpointInfo`s have come; on a busy machine they come late."""
    return all(endpoint.node_name != UNKNOWN for endpoint in endpoints)


class Inputs:
    """Subscribes one camera and hands what comes to `offer(camera, message)`."""

    def __init__(self, node, camera, settings, offer):
        self.camera, self._node, self._settings, self._offer = camera, node, settings, offer
        self._asked = camera.topic('image')   # rclpy remaps what it is asked for, so a name must not be remapped before
        if settings.transport == 'compressed':
            # The remapping of the plain topic holds for its compressed companion, as with image_transport.
            self._asked = f'{node.resolve_topic_name(self._asked)}/compressed'
        self.topic = node.resolve_topic_name(self._asked)
        self._subscriptions = []
        self._explanation = None   # timer of a warning that waits for names

    @property
    def subscribed(self):
        """Whether the camera is being listened to."""
        return bool(self._subscriptions)

    def subscribe(self):
        """Begin to listen."""
        kind = CompressedImage if self._settings.transport == 'compressed' else Image
        qos = newest_only(self._settings.image_reliability)
        self._subscriptions = [
            self._node.create_subscription(
                kind, self._asked, lambda message: self._offer(self.camera, message), qos,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)),
            self._node.create_subscription(
                CameraInfo, self.camera.topic('camera_info'), self._on_info, newest_only('best_effort'))]

    def unsubscribe(self):
        """Leave the topics.  What comes later may be of another camera, or of one with another calibration."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.camera.info, self.camera.info_problem = None, ''
        self._forget_explanation()

    def _on_info(self, message):
        self.camera.info = message

    def _on_incompatible(self, event):
        """Name the publisher and the policy, once the name is known: without this, a mismatch shows as silence."""
        if self._explanation is None:
            tries = iter(range(NAME_TRIES - 1, -1, -1))
            self._explanation = create_steady_timer(self._node, NAMES_S,
                                                    lambda: self._explain(event.last_policy_kind, next(tries)))

    def _forget_explanation(self):
        if self._explanation is not None:
            self._node.destroy_timer(self._explanation)
            self._explanation = None

    def _explain(self, policy, tries_left):
        publishers = self._node.get_publishers_info_by_topic(self._asked)
        if tries_left and not names_are_known(publishers):
            return
        self._forget_explanation()
        wanted = RELIABILITY[self._settings.image_reliability]
        for publisher in publishers:
            if wanted == ReliabilityPolicy.RELIABLE and publisher.qos_profile.reliability != wanted:
                self._node.get_logger().warning(
                    f'{self.topic}: node {publisher.node_namespace.rstrip("/")}/{publisher.node_name} publishes with '
                    'reliability BEST_EFFORT, but this node asks for RELIABLE, so nothing arrives: set '
                    'image_reliability:=best_effort')
                return
        self._node.get_logger().warning(f'{self.topic}: a publisher offers an incompatible QoS policy '
                                        f'({policy}), so nothing arrives from it')
