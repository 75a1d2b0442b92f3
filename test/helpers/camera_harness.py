"""One node with a camera for every row of a table, so that one wait serves all rows.

It also shows that a camera which fails does not touch the others.
"""

import time

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from ros_graph import PATIENCE_S, RELIABLE, NodeProcess, Peer, wait_until

PACE_S = 0.25    # between repeats: best effort may lose one, and diagnostics tick once a second


class RowCamera:
    """The camera of one row: what was sent on it, and what came back."""

    def __init__(self, peer, node_name, camera, kind):
        self.name, self.masks = f'{node_name}: camera {camera}', []
        topic = f'{camera}/image/compressed' if kind is CompressedImage else f'{camera}/image'
        self.publisher = peer.node.create_publisher(kind, topic, qos_profile_sensor_data)
        peer.node.create_subscription(Image, f'{node_name}/{camera}/mask', self.masks.append, RELIABLE)

    def mask_for(self, message):
        """The mask of a message's stamp, or None."""
        return next((mask for mask in self.masks if mask.header.stamp == message.header.stamp), None)

    def status(self, diagnostics, text):
        """The first diagnostic message of this camera that holds `text`, or None."""
        return next((status.message for array in diagnostics for status in array.status
                     if status.name == self.name and text in status.message), None)

    def failed(self, diagnostics):
        """How many frames of this camera failed, by the newest diagnostics."""
        values = [value.value for array in diagnostics for status in array.status
                  if status.name == self.name for value in status.values if value.key == 'failed']
        return int(values[-1])


class CameraHarness:
    """The node, a peer, and a camera for each row's key."""

    def __init__(self, keys, kind=Image, name='harness', parameters=()):
        """kind: Image or CompressedImage."""
        self.name = name
        self.keys = {key: f'c{number}' for number, key in enumerate(keys)}
        self.process = NodeProcess(f'cameras:=[{", ".join(self.keys.values())}]', 'num_threads:=1', *parameters, name=name)
        self.peer = Peer(f'/{name}', listen=())
        self.cameras = {key: RowCamera(self.peer, f'/{name}', camera, kind) for key, camera in self.keys.items()}

    def __enter__(self):
        self.peer.connect(self.process, camera=False)
        wait_until(lambda: all(camera.publisher.get_subscription_count() for camera in self.cameras.values()),
                   'all cameras')
        wait_until(lambda: all(self.peer.node.count_publishers(f'/{self.name}/{camera}/mask')
                               for camera in self.keys.values()), 'all masks')
        time.sleep(0.5)   # the node's side of the match has no signal of its own here
        return self

    def __exit__(self, *_):
        self.peer.__exit__()
        self.process.__exit__()

    def play(self, messages, done, patience=PATIENCE_S):
        """Send messages {key: list} again and again until done(key) for each, or patience ends."""
        deadline, turn = time.monotonic() + patience, 0
        while time.monotonic() < deadline and (left := [key for key in messages if not done(key)]):
            assert self.process.process.poll() is None, self.process.log
            for key in left:   # one at a time: a second would replace the first while that waits
                self.cameras[key].publisher.publish(messages[key][turn % len(messages[key])])
            turn += 1
            time.sleep(PACE_S)

    def all_masked(self, messages, key):
        """Whether every message of the row has its mask."""
        return all(self.cameras[key].mask_for(message) for message in messages[key])
