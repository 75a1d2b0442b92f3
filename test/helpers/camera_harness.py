"""One node with a camera for each row of a table, so that the rows are tested concurrently.

It also tests that a camera that fails does not affect the others.
"""

import time

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from ros_graph import RELIABLE, TIMEOUT_S, NodeProcess, Peer, wait_until

REPEAT_S = 0.25   # between repetitions: best effort may lose a message; diagnostics are published once per second


class RowCamera:
    """The camera of one row: its publisher and the masks received."""

    def __init__(self, peer, node_name, camera, kind):
        self.name, self.masks = f'{node_name}: camera {camera}', []
        topic = f'{camera}/image/compressed' if kind is CompressedImage else f'{camera}/image'
        self.publisher = peer.node.create_publisher(kind, topic, qos_profile_sensor_data)
        peer.node.create_subscription(Image, f'{node_name}/{camera}/mask', self.masks.append, RELIABLE)

    def mask_for(self, message):
        """The mask with the stamp of a message, or None."""
        return next((mask for mask in self.masks if mask.header.stamp == message.header.stamp), None)

    def status(self, diagnostics, text):
        """The first diagnostic message of this camera that contains `text`, or None."""
        return next((status.message for array in diagnostics for status in array.status
                     if status.name == self.name and text in status.message), None)

    def failed(self, diagnostics):
        """How many frames of this camera failed, by the latest diagnostics."""
        values = [value.value for array in diagnostics for status in array.status
                  if status.name == self.name for value in status.values if value.key == 'failed']
        return int(values[-1])


class CameraHarness:
    """The node, a peer, and one camera per key."""

    def __init__(self, keys, kind=Image, name='harness', parameters=()):
        """kind: Image or CompressedImage."""
        self.name = name
        self.keys = {key: f'c{number}' for number, key in enumerate(keys)}
        self.process = NodeProcess(
            f'cameras:=[{", ".join(self.keys.values())}]', 'num_threads:=1', *parameters, name=name
        )
        self.peer = Peer(f'/{name}', subscribe=())
        self.cameras = {key: RowCamera(self.peer, f'/{name}', camera, kind) for key, camera in self.keys.items()}

    def __enter__(self):
        self.peer.connect(self.process, camera=False)
        wait_until(lambda: all(camera.publisher.get_subscription_count() for camera in self.cameras.values()),
                   'all cameras')
        wait_until(lambda: all(self.peer.node.count_publishers(f'/{self.name}/{camera}/mask')
                               for camera in self.keys.values()), 'all masks')
        time.sleep(0.5)   # discovery on the node's side cannot be observed here
        return self

    def __exit__(self, *_):
        self.peer.__exit__()
        self.process.__exit__()

    def publish_until(self, messages, done, timeout=TIMEOUT_S):
        """Publish messages {key: list} repeatedly until done(key) for each key, or until the timeout."""
        deadline, iteration = time.monotonic() + timeout, 0
        while time.monotonic() < deadline and (remaining := [key for key in messages if not done(key)]):
            assert self.process.process.poll() is None, self.process.log
            for key in remaining:   # one message each: a second would replace the first before it is segmented
                self.cameras[key].publisher.publish(messages[key][iteration % len(messages[key])])
            iteration += 1
            time.sleep(REPEAT_S)

    def all_masked(self, messages, key):
        """Whether every message of the row has its mask."""
        return all(self.cameras[key].mask_for(message) for message in messages[key])
