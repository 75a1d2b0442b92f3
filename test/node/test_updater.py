"""Diagnostics are the same with the diagnostic_updater of the distribution and with the fallback."""

import importlib.util
import subprocess
import sys
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor

from lgseg_ros.node import updater as module
from lgseg_ros.node.diagnostics import CameraStats, Counts, update_rates
from lgseg_ros.node.updater import PlainUpdater, create_updater, fill_status


@pytest.fixture(params=['plain', 'diagnostic_updater'])
def kind(request, monkeypatch):
    """The class that `create_updater` must use."""
    if request.param == 'plain':
        monkeypatch.setattr(module, '_find_updater', lambda: PlainUpdater)
        return PlainUpdater
    return pytest.importorskip('diagnostic_updater', reason='diagnostic_updater is not in the wheels').Updater


def run(count, *arguments, name='camera_node', tasks=('segmentation', 'camera front'), timeout=30):
    """The first `count` messages of a node with an updater, and the seconds they took."""
    context = rclpy.Context()
    rclpy.init(context=context, args=['--ros-args', *arguments])
    node, messages = rclpy.create_node(name, context=context), []
    node.create_subscription(DiagnosticArray, module.TOPIC, messages.append, 10)
    updater = create_updater(node, 'lgseg')
    for number, task in enumerate(tasks):
        updater.add(task, lambda status, n=number: fill_status(status, DiagnosticStatus.WARN, f'task {n}',
                                                               {'n': n, 'x': 0.5}))
    updater.add('removed', lambda status: status)
    updater.removeByName('removed')
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    start = time.monotonic()
    while len(messages) < count and time.monotonic() - start < timeout:
        executor.spin_once(timeout_sec=0.05)
    seconds = time.monotonic() - start
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    assert len(messages) >= count
    return type(updater), messages, seconds


def test_the_diagnostics_message(kind):
    updater_class, messages, seconds = run(4, '-p', 'diagnostic_updater.period:=0.3')
    assert updater_class is kind and seconds > 0.8, 'a message every 0.3 s'
    for message in messages:  # complete from the first message on
        assert [status.name for status in message.status] == [
            '/camera_node: segmentation',
            '/camera_node: camera front',
        ]
        assert [status.message for status in message.status] == ['task 0', 'task 1']
        assert message.header.stamp.sec > 0
    status = messages[0].status[1]
    assert (status.level, status.hardware_id) == (DiagnosticStatus.WARN, 'lgseg')
    assert [(value.key, value.value) for value in status.values] == [('n', '1'), ('x', '0.5')]


@pytest.mark.parametrize('arguments, name', [
    (('-r', '__ns:=/robot'), '/robot/camera_node'),
    (('-r', '__ns:=/robot', '-p', 'diagnostic_updater.use_fqn:=false'), 'camera_node')])
def test_names_distinguish_robots(kind, arguments, name):
    _, messages, _ = run(1, '-p', 'diagnostic_updater.period:=0.2', *arguments)
    assert messages[0].status[0].name == f'{name}: segmentation'


def test_diagnostics_are_published_while_the_clock_stands_still(kind):
    run(3, '-p', 'diagnostic_updater.period:=0.2', '-p', 'use_sim_time:=true')


def test_rates_of_slow_and_silent_cameras():
    """Updates are 1 s apart; `images` and `masks` are the counters of a camera at each update."""
    def rates_of(images, masks=None, failed=None):
        stats, rates = CameraStats(0.0), []
        for now, counts in enumerate(zip(images, masks or images, failed or [0] * len(images), strict=True), 1):
            stats, current = update_rates(stats, Counts(*counts), float(now))
            rates.append(tuple(round(rate, 2) for rate in current))
        return rates

    assert rates_of([30, 60, 60, 60]) == [(30, 30, 0), (30, 30, 0), (0, 0, 0), (0, 0, 0)], (
        '30 Hz: silent after a second'
    )
    half = rates_of([1, 1, 2, 2, 3, 3], masks=[0, 1, 1, 2, 2, 3])   # each mask is published one update after its image
    assert [rate[0] for rate in half] == [1, 1, 0.5, 0.5, 0.5, 0.5]
    assert half[3][1] == half[5][1] == 0.5
    assert rates_of([0, 1] + [1] * 7)[1:] == [(0.5, 0.5, 0)] * 7 + [(0, 0, 0)], (
        'silent after three periods, here of 2 s'
    )
    assert rates_of([1, 1], masks=[0, 0], failed=[0, 1])[1][2] > 0, 'an image that failed after the update'
    assert rates_of([0] * 3600 + [1] * 70)[-1] == (0, 0, 0), 'a camera that was silent for an hour'


def test_diagnostic_updater_is_used_if_it_is_installed():
    installed = importlib.util.find_spec('diagnostic_updater') is not None
    assert (module._find_updater() is not PlainUpdater) == installed


def test_peak_memory_excludes_the_parent_process():
    """A large parent process, such as pytest, must not count as memory of the node."""
    code = '''
import subprocess, sys
ballast = b"x" * (600 << 20)
code = "from lgseg_ros.node.memory import peak_memory_mb; print(peak_memory_mb())"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)'''
    printed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert 10 < int(printed) < 500
