"""`lgseg doctor` on this machine, and its checks with injected faults."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32

from lgseg_ros.cli.doctor import format_result
from lgseg_ros.doctor import machine, model, ros, shared_memory, topics, transport
from lgseg_ros.doctor.check_result import STATUSES, CheckResult
from lgseg_ros.doctor.checks import graph_results, run_check
from lgseg_ros.utils.paths import find_share
from lgseg_ros.utils.subprocesses import run_code, run_module
from ros_graph import wait_until

ROOT = Path(__file__).resolve().parents[2]
PROFILE = str(find_share('config', 'fastdds.xml'))
CHECKS = ['python', 'cores', 'libraries', 'ros', 'interfaces', 'rmw', 'transport', 'clock', 'shared memory',
          'stale segments', 'cv_bridge', 'onnxruntime', 'gpu', 'torch on CUDA', 'tensorrt', 'built engines', 'weights',
          'self-test', 'cache', 'torchvision', 'text encoder']


# --- the command


def doctor(*arguments, **environment):
    """Run the command; returns {name: result} and the exit code."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    answer = subprocess.run([sys.executable, '-m', 'lgseg_ros.cli.main', 'doctor', '--json', *arguments],
                            cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in answer.stderr, answer.stderr
    return {result['name']: result for result in json.loads(answer.stdout)}, answer.returncode


@pytest.mark.timeout(300)
def test_this_machine_with_the_shipped_profile():
    results, code = doctor(FASTRTPS_DEFAULT_PROFILES_FILE=PROFILE, FASTDDS_DEFAULT_PROFILES_FILE=PROFILE)
    assert list(results) == CHECKS
    for result in results.values():
        assert result['status'] in STATUSES and result['finding'] and '\n' not in result['finding'] + result['hint']
        assert result['hint'] or result['status'] in ('ok', 'skip')
    needed = ('libraries', 'ros', 'interfaces', 'rmw', 'onnxruntime', 'weights', 'cache', 'clock')
    assert {name: results[name]['status'] for name in needed} == dict.fromkeys(needed, 'ok'), results
    assert code == int(any(result['status'] == 'fail' for result in results.values()))


@pytest.mark.timeout(300)
def test_without_ros_the_other_checks_run():
    unsourced = dict.fromkeys(('ROS_DISTRO', 'PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH'))
    results, _ = doctor('--topic', '/image', **unsourced, _ROS_WHEELS_BOOTSTRAP_COMPLETE='1')
    assert results['ros']['status'] == 'warn' and 'source ' in results['ros']['hint']
    skipped = ('interfaces', 'rmw', 'transport', 'clock', 'topic /image')
    assert {name: results[name]['status'] for name in skipped} == dict.fromkeys(skipped, 'skip')
    assert results['weights']['status'] == 'ok'


def test_a_result_is_printed_with_its_hint():
    result = CheckResult('stale segments', 'warn', '2 files', 'rm them')
    assert format_result(result).splitlines() == ['warn stale segments 2 files', '                    -> rm them']
    assert '\033[33mwarn\033[0m' in format_result(result, colour=True)


def test_a_check_that_raises_has_failed():
    failed = run_check('x', lambda: 1 / 0)
    assert failed[:3] == ('x', 'fail', 'the check itself failed: ZeroDivisionError: division by zero')
    missing = run_check('x', lambda: __import__('no_such_module'))
    assert missing.status == 'fail' and 'no_such_module' in missing.finding and 'libraries' in missing.hint


@pytest.mark.parametrize('code, reason', [
    ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'crashed with SIGSEGV'),
    ('import sys; sys.exit("too bad")', 'too bad'),
    ('import no_such', "ModuleNotFoundError: No module named 'no_such'"),
    ('import time; time.sleep(60)', 'no answer within 3 s')])
def test_a_failed_child_process_has_a_reason(code, reason):
    result = run_code(code, timeout=3)
    assert not result.succeeded and result.reason == reason


def test_child_processes_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    """A user's queue.py, or a folder named tensorrt, would be imported instead of the library."""
    (tmp_path / 'tensorrt').mkdir()
    for name in ('queue', 'numpy', 'lgseg_ros'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("taken")')
    monkeypatch.chdir(tmp_path)
    assert (
        run_code('import queue, numpy, lgseg_ros.utils.paths, sys; print(sys.argv[1])', 'argument').answer == 'argument'
    )
    assert run_module('lgseg_ros.demo.camera', '--help').succeeded
    installed = find_spec('tensorrt') is not None and not os.environ.get('PYTHONPATH', '').endswith(':')
    assert run_code('import tensorrt').succeeded == installed


# --- ROS and transport


def test_an_rmw_that_is_not_installed(monkeypatch):
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_nothing_cpp')
    result = ros.distribution(ros.RosInstallation())
    assert result.status == 'fail' and 'rmw_nothing_cpp' in result.finding
    assert 'ros-$ROS_DISTRO-rmw-nothing-cpp' in result.hint


@pytest.mark.parametrize('module, hint', [('no_such_msgs.msg', 'apt install ros-$ROS_DISTRO-no-such-msgs'),
                                          ('lgseg_ros.no_srv', 'colcon build')])
def test_an_interface_package_that_is_not_installed(monkeypatch, module, hint):
    monkeypatch.setitem(ros.INTERFACES, module, 'Message')
    result = ros.interfaces(ros.RosInstallation())
    assert result.status == 'fail' and hint in result.hint


OLD, NEW = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'


@pytest.mark.parametrize('environment, distribution, status, text', [
    ({}, 'jazzy', 'warn', OLD), ({}, 'kilted', 'warn', NEW),
    ({NEW: PROFILE}, 'jazzy', 'warn', f'reads {OLD}'), ({OLD: PROFILE}, 'kilted', 'warn', f'reads {NEW}'),
    ({OLD: PROFILE}, 'humble', 'ok', '64 MB'), ({NEW: PROFILE}, 'kilted', 'ok', '64 MB'),
    ({OLD: '/nonexistent.xml'}, 'jazzy', 'fail', 'cannot be read')])
def test_fast_dds_profile(environment, distribution, status, text):
    result = transport.fast_dds_profile(environment, distribution)
    assert result.status == status and text in result.finding + result.hint
    assert status == 'ok' or f'={PROFILE}' in result.hint


def test_on_humble_a_profile_must_not_override_localhost_only():
    localhost_only = {'ROS_LOCALHOST_ONLY': '1'}
    result = transport.fast_dds_profile({OLD: PROFILE, **localhost_only}, 'humble')
    assert result.status == 'warn' and 'listens on every interface' in result.finding
    path = result.hint.partition('=')[2].partition(' ')[0]
    assert path.endswith('fastdds_localhost.xml')
    assert transport.fast_dds_profile({OLD: path, **localhost_only}, 'humble').status == 'ok'
    assert transport.fast_dds_profile({OLD: PROFILE, **localhost_only}, 'jazzy').status == 'ok'


@pytest.mark.parametrize('content, status', [
    ('<profiles/>', 'warn'), ('not xml', 'fail'), (Path(PROFILE).read_text().replace('67108864', '524288'), 'warn')])
def test_fast_dds_profile_of_another_kind(tmp_path, content, status):
    path = tmp_path / 'profile.xml'
    path.write_text(content)
    assert transport.fast_dds_profile({OLD: str(path)}, 'jazzy').status == status


def test_cyclone_settings(tmp_path):
    limit, settings = tmp_path / 'rmem_max', tmp_path / 'cyclone.xml'
    limit.write_text('212992\n')
    assert 'sysctl' in transport.cyclone_settings({}, limit).hint
    limit.write_text('8388608\n')
    result = transport.cyclone_settings({}, limit)
    assert result.status == 'warn' and result.hint.startswith('export CYCLONEDDS_URI=')
    text = re.search("'(.*)'", result.hint)[1]
    settings.write_text(text)
    for uri in (text, f'file://{settings}', str(settings)):
        assert transport.cyclone_settings({'CYCLONEDDS_URI': uri}, limit).status == 'ok'
        hidden = transport.cyclone_settings({'CYCLONEDDS_URI': uri}, tmp_path / 'in a container')
        assert hidden.status == 'warn' and 'outside the container' in hidden.hint


# --- the graph


@pytest.fixture(scope='module')
def graph():
    """Results for a camera, a subscriber that requests more than it offers, and a node that uses simulated time."""
    context = rclpy.Context()
    rclpy.init(context=context)
    camera, subscriber, observer = (rclpy.create_node(name, context=context)
                                    for name in ('camera', 'subscriber', 'observer'))
    best_effort, reliable = (QoSProfile(depth=1, reliability=policy)
                             for policy in (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE))
    camera.create_publisher(Image, '/camera/front/image_raw', best_effort)
    camera.create_publisher(Image, '/camera/rear/image_raw', best_effort)
    camera.create_publisher(Image, '/camera/mixed', reliable)
    other_context = rclpy.Context()   # in Fast DDS a participant cannot use a topic with two types
    rclpy.init(context=other_context)
    driver = rclpy.create_node('driver', context=other_context)
    driver.create_publisher(CameraInfo, '/camera/mixed', reliable)
    subscriber.create_subscription(Image, '/camera/rear/image_raw', print, reliable)
    camera.create_publisher(CompressedImage, '/camera/front/image_raw/compressed', best_effort)
    camera.create_publisher(CompressedImage, '/camera/side/compressed', best_effort)
    camera.create_publisher(CameraInfo, '/camera/front/camera_info', best_effort)
    camera.create_publisher(Float32, '/camera/temperature', best_effort)
    other = rclpy.create_node('lgseg', context=other_context)
    other.create_subscription(Image, '/camera/side/compressed', print, best_effort)
    simulated = rclpy.create_node('simulated', context=context,
                                  parameter_overrides=[Parameter('use_sim_time', value=True)])
    requested = ['/camera/front/image_raw', '/camera/rear/image_raw', '/camera/mixed', '/camera/frnt/image_raw',
             '/camera/front/image_raw/compressed', '/camera/side/compressed', '/camera/front/camera_info',
             '/camera/temperature']
    yield {result.name: result for result in topics.check_graph(observer, requested, 5)}
    for node in (camera, subscriber, observer, simulated, driver, other):
        node.destroy_node()
    for used in (context, other_context):
        rclpy.try_shutdown(context=used)


@pytest.mark.parametrize('topic, status, text', [
    ('/camera/front/image_raw', 'ok', '/camera (best_effort, volatile)'),
    ('/camera/rear/image_raw', 'fail', '/camera and /subscriber cannot connect'),
    ('/camera/mixed', 'warn', 'two types'),
    ('/camera/front/image_raw/compressed', 'ok', 'image_transport:=compressed image_topic:=/camera/front/image_raw'),
    ('/camera/side/compressed', 'fail', '/lgseg subscribes to sensor_msgs/msg/Image'),
    ('/camera/front/camera_info', 'ok', 'camera_info_topic:=/camera/front/camera_info'),
    ('/camera/temperature', 'fail', 'not a type that the node subscribes to'),
    ('/camera/frnt/image_raw', 'fail', 'did you mean /camera/front/image_raw')])
def test_topics(graph, topic, status, text):
    result = graph[f'topic {topic}']
    assert result.status == status and text in result.finding + result.hint


def test_clock_without_publishers(graph):
    assert graph['clock'].status == 'warn' and '/simulated' in graph['clock'].finding


def test_an_invalid_topic_name():
    result, = graph_results(ros.RosInstallation(), ['/camera/front image'])
    assert result.status == 'fail' and 'topic name' in result.finding and 'topic names' in result.hint


# --- shared memory

PARTICIPANT = '''
import rclpy, time
rclpy.init()
node = rclpy.create_node('participant')
print('started', flush=True)
time.sleep(100)
'''


def shared_files(pid):
    """The Fast DDS files in /dev/shm that a process uses."""
    links = [os.readlink(link) for link in Path(f'/proc/{pid}/fd').iterdir() if link.exists()]
    maps = re.findall(r'/dev/shm/\S+', Path(f'/proc/{pid}/maps').read_text())
    return {Path(path) for path in links + maps if re.match('/dev/shm/fast(rtps|dds)_', path)}


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason='no /dev/shm here')
def test_stale_segments_of_a_killed_participant():
    participant = subprocess.Popen([sys.executable, '-c', PARTICIPANT], stdout=subprocess.PIPE, text=True)
    try:
        assert participant.stdout.readline() == 'started\n'
        own = wait_until(lambda: shared_files(participant.pid), 'its shared memory')
        time.sleep(shared_memory.MIN_AGE_S + 0.5)
        assert not own & set(shared_memory.stale_files()), 'files of a running process are not stale'
        participant.send_signal(signal.SIGKILL)
        participant.wait()
        stale = own & set(shared_memory.stale_files())
        assert any(path.name.endswith('_el') for path in stale) and len(stale) >= 2
        result = shared_memory.stale_segments()
        assert result.status == 'warn' and ('fastdds shm clean' in result.hint or str(min(stale)) in result.hint)
    finally:
        participant.kill()
    for path in stale:
        path.unlink()
    assert not own & set(shared_memory.stale_files())


def test_a_new_file_is_not_stale(tmp_path):
    (tmp_path / 'fastrtps_0123456789abcdef_el').touch()
    assert shared_memory.stale_files(tmp_path) == []


# --- machine, weights, cache


@pytest.mark.parametrize('groups, membership, files, cores', [
    ('version 2', '0::/a/b', {'a/cpu.max': '150000 100000', 'a/b/cpu.max': 'max 100000'}, 1.5),
    ('version 2 in a container', '0::/', {'cpu.max': '50000 100000'}, 0.5),
    ('version 2, no limit', '0::/', {'cpu.max': 'max 100000'}, None),
    ('version 1', '4:memory:/x\n3:cpu,cpuacct:/d', {'cpu,cpuacct/d/cpu.cfs_quota_us': '200000',
                                                     'cpu,cpuacct/d/cpu.cfs_period_us': '100000'}, 2.0),
    ('version 1, no limit', '3:cpu:/', {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, None)])
def test_cpu_quota_of_control_groups(tmp_path, groups, membership, files, cores):
    for name, content in files.items():
        (tmp_path / 'fs' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'fs' / name).write_text(content + '\n')
    (tmp_path / 'membership').write_text(membership + '\n')
    assert machine.cpu_quota(tmp_path / 'fs', tmp_path / 'membership') == cores, groups


@pytest.mark.parametrize('script, status, text', [
    ('echo "NVIDIA H100, 580.10, 81559 MiB"', 'ok', 'NVIDIA H100'),
    ('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18', 'fail', 'version mismatch')])
def test_the_gpu_check_reports_what_the_driver_reports(monkeypatch, tmp_path, script, status, text):
    if Path('/etc/nv_tegra_release').exists():
        pytest.skip('a Jetson is detected without nvidia-smi')
    (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\n{script}\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    result = machine.gpu()
    assert result.status == status and text in result.finding


def test_damaged_weights_are_reported(tmp_path, weights):
    for path in weights.path.parent.glob(f'{weights.path.stem}.*'):
        shutil.copy(path, tmp_path)
    spec = str(tmp_path / weights.path.name)
    assert run_code(model.LOAD, spec).succeeded
    onnx = tmp_path / weights.onnx_path.name
    onnx.write_bytes(onnx.read_bytes()[:-1000])
    result = run_code(model.LOAD, spec)
    assert not result.succeeded and str(onnx) in result.reason


@pytest.mark.skipif(find_spec('open_clip') is None, reason='needs open_clip (scripts/setup.sh --with train)')
def test_the_weights_of_the_text_encoder_set_by_the_user(monkeypatch, tmp_path):
    path = tmp_path / 'open_clip_model.safetensors'
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', str(path))
    result = model.text_encoder()
    assert result.status == 'skip' and f'{path} does not exist' in result.finding
    path.touch()   # the check only looks for the file; it is loaded with the first new phrase
    result = model.text_encoder()
    assert result.status == 'ok' and result.finding.endswith(f' from {path}')


def test_a_cache_that_is_not_writable(monkeypatch, tmp_path):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'new' / 'cache'))
    assert model.cache().status == 'ok' and not (tmp_path / 'new').exists()   # the check creates nothing
    (tmp_path / 'file').touch()
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'file'))
    assert 'not a folder' in model.cache().finding
    monkeypatch.setenv('LGSEG_CACHE', '/proc/lgseg')
    result = model.cache()
    assert result.status == 'fail' and 'LGSEG_CACHE' in result.hint
