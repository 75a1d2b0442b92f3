"""The demo end to end: three processes, a change of the vocabulary half-way, and the output files."""

import json
import os
import signal
import subprocess
import sys

import cv2
import psutil
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from lgseg_ros.demo.street import StreetCamera
from lgseg_ros.utils.ros_utils import limit_discovery_to_localhost
from ros_graph import NodeProcess, Peer, wait_until


def run_demo(*arguments):
    return subprocess.run([sys.executable, '-m', 'lgseg_ros.cli.main', 'demo', *arguments],
                          capture_output=True, text=True, timeout=110, env=dict(os.environ))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'street.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 8, (320, 240))
    camera = StreetCamera(width=320, height=240, seed=5, fps=8)
    for n in range(48):
        writer.write(camera.render(n)[0])
    writer.release()
    return path


def test_the_outputs_for_a_video(video, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'notes.txt').write_text('notes')
    done = run_demo('--source', str(video), '--vocabulary', 'road,sky,building',
                    '--second-vocabulary', 'road,car,tree', '--out', str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / 'notes.txt').exists(), 'other files are kept'
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames_sent'] == 48 and summary['size'] == [320, 240]
    assert 4 <= summary['masks'] <= 48
    assert summary['masks'] <= summary['frames_received'] <= 48
    assert summary['engine'].startswith(('onnxruntime', 'openvino'))
    assert summary['vocabulary_versions'] == 2 and summary['masks_with_unknown_ids'] == 0
    assert summary['service']['success'] and summary['service']['names'] == ['road', 'car', 'tree']
    assert summary['latency_ms']['p50'] <= summary['latency_ms']['p95'] and summary['service_ms'] > 0
    before, after = cv2.imread(str(out / 'before.png')), cv2.imread(str(out / 'after.png'))
    assert before.shape == after.shape == (240, 320, 3) and (before != after).any()
    assert cv2.VideoCapture(str(out / 'overlay.mp4')).read()[0]
    assert 'vocabulary changed in' in done.stdout


def test_an_unusual_frame_rate_in_a_folder_with_module_names(tmp_path):
    """MPEG-4 cannot represent some frame rates; files in the current folder may be named like Python modules."""
    (tmp_path / 'queue.py').write_text('raise SystemExit("taken")')
    done = subprocess.run(['lgseg', 'demo', '--source', 'street', '--size', '64x48', '--fps', '100.1234',
                           '--duration', '4', '--out', 'out'],
                          cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cv2.VideoCapture(str(tmp_path / 'out/overlay.mp4')).read()[0]


def test_an_endless_source_is_recorded_for_the_duration(tmp_path):
    out = tmp_path / 'out'
    done = run_demo('--source', 'street', '--size', '320x240', '--duration', '3', '--out', str(out), '--json')
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary['frames_sent'] >= summary['masks'] > 4 and summary['service']['success']
    assert {path.name for path in out.iterdir()} == {'overlay.mp4', 'before.png', 'after.png', 'summary.json'}


def test_a_source_that_would_be_overwritten_is_refused(video, tmp_path):
    path = tmp_path / 'overlay.mp4'
    path.write_bytes(video.read_bytes())
    done = run_demo('--source', str(path), '--out', str(tmp_path))
    assert done.returncode == 1 and 'give another --out' in done.stderr and path.exists()


@pytest.mark.parametrize('size', ['1280', 'big', '8x8', '640x'])
def test_an_invalid_size_is_refused_at_once(size, tmp_path):
    done = run_demo('--size', size, '--out', str(tmp_path / 'out'))
    assert done.returncode == 2 and 'as in 640x480' in done.stderr and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('arguments, reason', [
    (['--source', '/home/nobody/driv.mp4'], 'no such file'),
    (['--source', 'nowhere.mp4'], 'nowhere.mp4'), (['--source', 'street', '--frames', '-3'], '--frames is -3'),
    (['--source', 'street', '--preset', 'camvit'], 'the node ended'),
])
def test_demo_errors_give_the_reason(arguments, reason, tmp_path):
    done = run_demo(*arguments, '--out', str(tmp_path / 'out'))
    assert done.returncode == 1
    assert reason in done.stderr and 'Traceback' not in done.stderr


def test_a_silent_topic_is_reported(tmp_path):
    done = run_demo('--source', '/silent/image', '--duration', '2', '--out', str(tmp_path / 'out'))
    assert done.returncode == 1 and '/silent/image' in done.stderr


def test_a_running_node_is_not_affected(tmp_path):
    """If ROS_DOMAIN_ID is set, the demo runs in the domain of the robot."""
    topic = '/camera/image_raw'
    with NodeProcess('preset:=nav2', 'num_threads:=1', remap=(f'image:={topic}',)) as node, Peer(topic=topic) as peer:
        peer.connect(node)
        before = peer.get_vocabulary()
        done = run_demo('--source', 'street', '--size', '320x240', '--duration', '3', '--out', str(tmp_path), '--json')
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads(done.stdout)
        assert summary['masks_with_unknown_ids'] == 0
        assert max(summary['masks'], summary['frames_received']) <= summary['frames_sent']
        assert peer.get_vocabulary() == before and not peer.masks


@pytest.mark.parametrize('source, discovery', [('/camera/elsewhere/image', None), ('street', 'LOCALHOST')])
def test_the_demo_is_limited_to_localhost_unless_the_source_is_a_topic(source, discovery, tmp_path):
    """An existing topic may come from another machine."""
    variable = 'ROS_LOCALHOST_ONLY' if os.environ.get('ROS_DISTRO') == 'humble' else 'ROS_AUTOMATIC_DISCOVERY_RANGE'
    discovery = discovery and {'ROS_LOCALHOST_ONLY': '1'}.get(variable, discovery)
    env = {name: value for name, value in os.environ.items() if name != variable}
    demo = subprocess.Popen([sys.executable, '-m', 'lgseg_ros.cli.main', 'demo', '--source', source,
                             '--out', str(tmp_path / 'out')], env=env, stderr=subprocess.DEVNULL)
    try:
        node = wait_until(lambda: next((child for child in psutil.Process(demo.pid).children(recursive=True)
                                        if 'lgseg_ros.node.main' in child.cmdline()), None), 'the node')
        assert node.environ().get(variable) == discovery
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=40)


@pytest.mark.parametrize('environment, expected', [
    ({'ROS_DISTRO': 'humble'}, {'ROS_LOCALHOST_ONLY': '1'}),
    ({'ROS_DISTRO': 'jazzy'}, {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
    ({'ROS_DISTRO': 'jazzy', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}, {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'})])
def test_the_variable_that_limits_discovery_on_each_distribution(environment, expected):
    limited = dict(environment)
    limit_discovery_to_localhost(limited)
    assert limited == {'ROS_DISTRO': environment['ROS_DISTRO'], **expected}


def test_an_interrupted_camera_reports_the_number_of_frames():
    with Peer(subscribe=()) as peer:
        images = []
        peer.node.create_subscription(Image, '/cam/image', images.append, qos_profile_sensor_data)
        camera = subprocess.Popen([sys.executable, '-m', 'lgseg_ros.demo.camera', '--source', 'street',
                                   '--size', '64x48', '--topic', '/cam/image'], stdout=subprocess.PIPE, text=True)
        wait_until(lambda: len(images) >= 3, 'three frames')
        camera.send_signal(signal.SIGINT)
        out, _ = camera.communicate(timeout=20)
    assert camera.returncode == 0 and json.loads(out.splitlines()[-1])['frames_sent'] >= len(images) >= 3
