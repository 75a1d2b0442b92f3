"""The doctor on this machine, and on faults that are really made."""

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
from ros_graph import wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32

from lgseg_ros.cli.doctor import as_line
from lgseg_ros.doctor import machine, model, ros, shared_memory, topics, transport
from lgseg_ros.doctor.child import run_python
from lgseg_ros.doctor.examine import attempt, graph_findings
from lgseg_ros.doctor.verdict import STATUSES
from lgseg_ros.paths import find_share

ROOT = Path(__file__).resolve().parents[1]
PROFILE = str(find_share('config', 'fastdds.xml'))
CHECKS = ['python', 'cores', 'libraries', 'ros', 'interfaces', 'rmw', 'transport', 'clock', 'shared memory',
          'left-overs', 'cv_bridge', 'onnxruntime', 'gpu', 'torch on CUDA', 'tensorrt', 'built engines', 'weights',
          'self-test', 'cache', 'torchvision', 'text encoder']


# --- the command


def doctor(*arguments, **environment):
    """The command as a user runs it; its findings by name, and the exit code."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    answer = subprocess.run([sys.executable, '-m', 'lgseg_ros.cli.main', 'doctor', '--json', *arguments],
                            cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in answer.stderr, answer.stderr
    return {finding['name']: finding for finding in json.loads(answer.stdout)}, answer.returncode


@pytest.mark.timeout(300)
def test_this_machine_with_the_shipped_profile():
    findings, code = doctor(FASTRTPS_DEFAULT_PROFILES_FILE=PROFILE, FASTDDS_DEFAULT_PROFILES_FILE=PROFILE)
    assert list(findings) == CHECKS
    for finding in findings.values():
        assert finding['status'] in STATUSES and finding['finding'] and '\n' not in finding['finding'] + finding['cure']
        assert finding['cure'] or finding['status'] in ('ok', 'skip')
    needed = ('libraries', 'ros', 'interfaces', 'rmw', 'onnxruntime', 'weights', 'cache', 'clock')
    assert {name: findings[name]['status'] for name in needed} == dict.fromkeys(needed, 'ok'), findings
    assert code == int(any(finding['status'] == 'fail' for finding in findings.values()))


@pytest.mark.timeout(300)
def test_without_ros_it_still_answers():
    unsourced = dict.fromkeys(('ROS_DISTRO', 'PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH'))
    findings, _ = doctor('--topic', '/image', **unsourced, _ROS_WHEELS_BOOTSTRAP_COMPLETE='1')
    assert findings['ros']['status'] == 'warn' and 'source ' in findings['ros']['cure']
    skipped = ('interfaces', 'rmw', 'transport', 'clock', 'topic /image')
    assert {name: findings[name]['status'] for name in skipped} == dict.fromkeys(skipped, 'skip')
    assert findings['weights']['status'] == 'ok'


def test_a_line_shows_finding_and_cure():
    finding = attempt('left-overs', lambda: shared_memory.warn('2 files', 'rm them'))
    assert as_line(finding).splitlines() == ['warn left-overs     2 files', '                    -> rm them']
    assert '\033[33mwarn\033[0m' in as_line(finding, colour=True)


def test_a_check_that_breaks_is_a_finding():
    broken = attempt('x', lambda: 1 / 0)
    assert broken[:3] == ('x', 'fail', 'the check itself broke: ZeroDivisionError: division by zero')
    missing = attempt('x', lambda: __import__('no_such_module'))
    assert missing.status == 'fail' and 'no_such_module' in missing.finding and 'libraries' in missing.cure


@pytest.mark.parametrize('code, reason', [
    ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'crashed with SIGSEGV'),
    ('import sys; sys.exit("too bad")', 'too bad'),
    ('import no_such', "ModuleNotFoundError: No module named 'no_such'"),
    ('import time; time.sleep(60)', 'no answer within 3 s')])
def test_a_child_that_dies_says_how(code, reason):
    outcome = run_python('-c', code, limit=3)
    assert not outcome.worked and outcome.reason == reason


def test_children_import_nothing_from_the_present_folder(tmp_path, monkeypatch):
    """A user's queue.py, or a folder tensorrt for engines, would be taken for the library."""
    (tmp_path / 'tensorrt').mkdir()
    for name in ('queue', 'numpy', 'lgseg_ros'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("taken")')
    monkeypatch.chdir(tmp_path)
    assert run_python('-c', 'import queue, numpy, lgseg_ros.sizes, sys; print(sys.argv[1])', 'told').answer == 'told'
    assert run_python('-m', 'lgseg_ros.demo.camera', '--help').worked
    installed = find_spec('tensorrt') is not None and not os.environ.get('PYTHONPATH', '').endswith(':')
    assert run_python('-c', 'import tensorrt').worked == installed


# --- ROS and transport


def test_an_rmw_that_is_not_there(monkeypatch):
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_nothing_cpp')
    verdict = ros.distribution(ros.Ros())
    assert verdict.status == 'fail' and 'rmw_nothing_cpp' in verdict.finding
    assert 'ros-$ROS_DISTRO-rmw-nothing-cpp' in verdict.cure


@pytest.mark.parametrize('module, cure', [('no_such_msgs.msg', 'apt install ros-$ROS_DISTRO-no-such-msgs'),
                                          ('lgseg_ros.no_srv', 'colcon build')])
def test_an_interface_package_that_is_not_there(monkeypatch, module, cure):
    monkeypatch.setitem(ros.INTERFACES, module, 'Thing')
    verdict = ros.interfaces(ros.Ros())
    assert verdict.status == 'fail' and cure in verdict.cure


OLD, NEW = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'


@pytest.mark.parametrize('environment, distribution, status, said', [
    ({}, 'jazzy', 'warn', OLD), ({}, 'kilted', 'warn', NEW),
    ({NEW: PROFILE}, 'jazzy', 'warn', f'reads {OLD}'), ({OLD: PROFILE}, 'kilted', 'warn', f'reads {NEW}'),
    ({OLD: PROFILE}, 'humble', 'ok', '64 MB'), ({NEW: PROFILE}, 'kilted', 'ok', '64 MB'),
    ({OLD: '/nonexistent.xml'}, 'jazzy', 'fail', 'cannot be read')])
def test_fast_dds_profile(environment, distribution, status, said):
    verdict = transport.fast_dds_profile(environment, distribution)
    assert verdict.status == status and said in verdict.finding + verdict.cure
    assert status == 'ok' or f'={PROFILE}' in verdict.cure


def test_on_humble_a_profile_must_not_undo_localhost_only():
    alone = {'ROS_LOCALHOST_ONLY': '1'}
    verdict = transport.fast_dds_profile({OLD: PROFILE, **alone}, 'humble')
    assert verdict.status == 'warn' and 'listens on every interface' in verdict.finding
    path = verdict.cure.partition('=')[2].partition(' ')[0]
    assert path.endswith('fastdds_localhost.xml') and transport.fast_dds_profile({OLD: path, **alone}, 'humble').status == 'ok'
    assert transport.fast_dds_profile({OLD: PROFILE, **alone}, 'jazzy').status == 'ok'


@pytest.mark.parametrize('content, status', [
    ('<profiles/>', 'warn'), ('not xml', 'fail'), (Path(PROFILE).read_text().replace('67108864', '524288'), 'warn')])
def test_fast_dds_profile_of_another_kind(tmp_path, content, status):
    path = tmp_path / 'profile.xml'
    path.write_text(content)
    assert transport.fast_dds_profile({OLD: str(path)}, 'jazzy').status == status


def test_cyclone_settings(tmp_path):
    limit, settings = tmp_path / 'rmem_max', tmp_path / 'cyclone.xml'
    limit.write_text('212992\n')
    assert 'sysctl' in transport.cyclone_settings({}, limit).cure
    limit.write_text('8388608\n')
    verdict = transport.cyclone_settings({}, limit)
    assert verdict.status == 'warn' and verdict.cure.startswith('export CYCLONEDDS_URI=')
    text = re.search("'(.*)'", verdict.cure)[1]
    settings.write_text(text)
    for uri in (text, f'file://{settings}', str(settings)):
        assert transport.cyclone_settings({'CYCLONEDDS_URI': uri}, limit).status == 'ok'
        hidden = transport.cyclone_settings({'CYCLONEDDS_URI': uri}, tmp_path / 'in a container')
        assert hidden.status == 'warn' and 'outside the container' in hidden.cure


# --- the graph


@pytest.fixture(scope='module')
def graph():
    """A camera on /camera/front/image_raw, a reader who asks for more than it offers, and a node on simulated time."""
    context = rclpy.Context()
    rclpy.init(context=context)
    camera, reader, observer = (rclpy.create_node(name, context=context) for name in ('camera', 'reader', 'observer'))
    best_effort, reliable = (QoSProfile(depth=1, reliability=policy)
                             for policy in (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE))
    camera.create_publisher(Image, '/camera/front/image_raw', best_effort)
    camera.create_publisher(Image, '/camera/rear/image_raw', best_effort)
    camera.create_publisher(Image, '/camera/mixed', reliable)
    elsewhere = rclpy.Context()   # Fast DDS lets no participant give one topic two types
    rclpy.init(context=elsewhere)
    driver = rclpy.create_node('driver', context=elsewhere)
    driver.create_publisher(CameraInfo, '/camera/mixed', reliable)
    reader.create_subscription(Image, '/camera/rear/image_raw', print, reliable)
    camera.create_publisher(CompressedImage, '/camera/front/image_raw/compressed', best_effort)
    camera.create_publisher(CompressedImage, '/camera/side/compressed', best_effort)
    camera.create_publisher(CameraInfo, '/camera/front/camera_info', best_effort)
    camera.create_publisher(Float32, '/camera/temperature', best_effort)
    other = rclpy.create_node('lgseg', context=elsewhere)
    other.create_subscription(Image, '/camera/side/compressed', print, best_effort)
    simulated = rclpy.create_node('simulated', context=context,
                                  parameter_overrides=[Parameter('use_sim_time', value=True)])
    asked = ['/camera/front/image_raw', '/camera/rear/image_raw', '/camera/mixed', '/camera/frnt/image_raw',
             '/camera/front/image_raw/compressed', '/camera/side/compressed', '/camera/front/camera_info', '/camera/temperature']
    yield topics.look(observer, asked, 5)
    for node in (camera, reader, observer, simulated, driver, other):
        node.destroy_node()
    for used in (context, elsewhere):
        rclpy.try_shutdown(context=used)


@pytest.mark.parametrize('topic, status, said', [
    ('/camera/front/image_raw', 'ok', '/camera (best_effort, volatile)'),
    ('/camera/rear/image_raw', 'fail', '/camera and /reader cannot connect'),
    ('/camera/mixed', 'warn', 'two types'),
    ('/camera/front/image_raw/compressed', 'ok', 'transport:=compressed image_topic:=/camera/front/image_raw'),
    ('/camera/side/compressed', 'fail', '/lgseg waits for sensor_msgs/msg/Image'),
    ('/camera/front/camera_info', 'ok', 'camera_info_topic:=/camera/front/camera_info'),
    ('/camera/temperature', 'fail', 'nothing that the node reads'),
    ('/camera/frnt/image_raw', 'fail', 'did you mean /camera/front/image_raw')])
def test_topics(graph, topic, status, said):
    verdict = graph[f'topic {topic}']
    assert verdict.status == status and said in verdict.finding + verdict.cure


def test_clock_that_nobody_publishes(graph):
    assert graph['clock'].status == 'warn' and '/simulated' in graph['clock'].finding


def test_a_topic_name_that_is_none():
    finding, = graph_findings(ros.Ros(), ['/camera/front image'])
    assert finding.status == 'fail' and 'topic name' in finding.finding and '--topic' in finding.cure


# --- shared memory

VICTIM = '''
import rclpy, time
rclpy.init()
node = rclpy.create_node('victim')
print('up', flush=True)
time.sleep(100)
'''


def shared_files(pid):
    """The Fast DDS files in /dev/shm that a process has in use."""
    links = [os.readlink(link) for link in Path(f'/proc/{pid}/fd').iterdir() if link.exists()]
    maps = re.findall(r'/dev/shm/\S+', Path(f'/proc/{pid}/maps').read_text())
    return {Path(path) for path in links + maps if re.match('/dev/shm/fast(rtps|dds)_', path)}


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason='no /dev/shm here')
def test_left_overs_of_a_killed_participant():
    participant = subprocess.Popen([sys.executable, '-c', VICTIM], stdout=subprocess.PIPE, text=True)
    try:
        assert participant.stdout.readline() == 'up\n'
        own = wait_until(lambda: shared_files(participant.pid), 'its shared memory')
        time.sleep(shared_memory.YOUNG_S + 0.5)
        assert not own & set(shared_memory.abandoned_files()), 'a living process was taken for dead'
        participant.send_signal(signal.SIGKILL)
        participant.wait()
        left = own & set(shared_memory.abandoned_files())
        assert any(path.name.endswith('_el') for path in left) and len(left) >= 2
        verdict = shared_memory.left_overs()
        assert verdict.status == 'warn' and ('fastdds shm clean' in verdict.cure or str(min(left)) in verdict.cure)
    finally:
        participant.kill()
    for path in left:
        path.unlink()
    assert not own & set(shared_memory.abandoned_files())


def test_a_young_file_is_left_alone(tmp_path):
    (tmp_path / 'fastrtps_0123456789abcdef_el').touch()
    assert shared_memory.abandoned_files(tmp_path) == []


# --- machine, weights, cache


@pytest.mark.parametrize('groups, membership, files, cores', [
    ('version 2', '0::/a/b', {'a/cpu.max': '150000 100000', 'a/b/cpu.max': 'max 100000'}, 1.5),
    ('version 2 in a container', '0::/', {'cpu.max': '50000 100000'}, 0.5),
    ('version 2, no limit', '0::/', {'cpu.max': 'max 100000'}, None),
    ('version 1', '4:memory:/x\n3:cpu,cpuacct:/d', {'cpu,cpuacct/d/cpu.cfs_quota_us': '200000',
                                                     'cpu,cpuacct/d/cpu.cfs_period_us': '100000'}, 2.0),
    ('version 1, no limit', '3:cpu:/', {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, None)])
def test_quota_of_cores(tmp_path, groups, membership, files, cores):
    for name, content in files.items():
        (tmp_path / 'fs' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'fs' / name).write_text(content + '\n')
    (tmp_path / 'membership').write_text(membership + '\n')
    assert machine.cpu_quota(tmp_path / 'fs', tmp_path / 'membership') == cores, groups


@pytest.mark.parametrize('script, status, said', [
    ('echo "NVIDIA H100, 580.10, 81559 MiB"', 'ok', 'NVIDIA H100'),
    ('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18', 'fail', 'version mismatch')])
def test_gpu_by_what_the_driver_answers(monkeypatch, tmp_path, script, status, said):
    if Path('/etc/nv_tegra_release').exists():
        pytest.skip('a Jetson is known without nvidia-smi')
    (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\n{script}\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    verdict = machine.gpu()
    assert verdict.status == status and said in verdict.finding


def test_damaged_weights_are_named(tmp_path, weights):
    for path in weights.path.parent.glob(f'{weights.path.stem}.*'):
        shutil.copy(path, tmp_path)
    spec = str(tmp_path / weights.path.name)
    assert run_python('-c', model.LOAD, spec).worked
    onnx = tmp_path / weights.onnx_path.name
    onnx.write_bytes(onnx.read_bytes()[:-1000])
    outcome = run_python('-c', model.LOAD, spec)
    assert not outcome.worked and str(onnx) in outcome.reason


@pytest.mark.skipif(find_spec('open_clip') is None, reason='needs open_clip (scripts/setup.sh --with train)')
def test_the_text_encoders_weights_that_the_user_names(monkeypatch, tmp_path):
    named = tmp_path / 'open_clip_model.safetensors'
    monkeypatch.setenv('LGSEG_CLIP_WEIGHTS', str(named))
    verdict = model.text_encoder()
    assert verdict.status == 'skip' and f'{named} does not exist' in verdict.finding
    named.touch()   # the doctor looks for the file and leaves loading it to the first new word
    verdict = model.text_encoder()
    assert verdict.status == 'ok' and verdict.finding.endswith(f' from {named}')


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'new' / 'cache'))
    assert model.cache().status == 'ok' and not (tmp_path / 'new').exists()   # looking changes nothing
    (tmp_path / 'file').touch()
    monkeypatch.setenv('LGSEG_CACHE', str(tmp_path / 'file'))
    assert 'not a folder' in model.cache().finding
    monkeypatch.setenv('LGSEG_CACHE', '/proc/lgseg')
    verdict = model.cache()
    assert verdict.status == 'fail' and 'LGSEG_CACHE' in verdict.cure
