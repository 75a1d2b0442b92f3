"""All checks, in the order of their dependencies."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..utils.subprocesses import run_module
from . import gpu_engines, libraries, machine, model, ros, shared_memory, transport
from .check_result import CheckResult, fail, skip

GRAPH_SECONDS = 8.0
"""How long to wait for the publishers of a topic."""

MACHINE_CHECKS: dict[str, Callable[[], CheckResult]] = {
    'python': machine.python, 'cores': machine.cores, 'libraries': libraries.required}
ROS_CHECKS: dict[str, Callable[[ros.RosInstallation], CheckResult]] = {
    'ros': ros.distribution, 'interfaces': ros.interfaces, 'rmw': transport.rmw, 'transport': transport.profile}
OTHER_CHECKS: dict[str, Callable[[], CheckResult]] = {
    'shared memory': shared_memory.capacity, 'stale segments': shared_memory.stale_segments,
    'cv_bridge': libraries.cv_bridge, 'onnxruntime': libraries.onnxruntime,
    'gpu': machine.gpu, 'torch on CUDA': gpu_engines.torch_cuda, 'tensorrt': machine.tensorrt,
    'built engines': gpu_engines.built_engines,
    'weights': model.weights, 'self-test': model.self_tests, 'cache': model.cache,
    'torchvision': libraries.torchvision, 'text encoder': model.text_encoder}


def run_checks(topics: Sequence[str] = ()) -> Iterator[CheckResult]:
    """Run all checks.

    Args:
        topics: ROS topics to check besides, e.g. those of the cameras.

    Yields:
        The result of each check when it is known. A check that raises an exception becomes a failed one.
    """
    for name, check in MACHINE_CHECKS.items():
        yield run_check(name, check)
    installation = ros.RosInstallation()
    for name, ros_check in ROS_CHECKS.items():
        yield run_check(name, partial(ros_check, installation))
    yield from graph_results(installation, topics)
    for name, check in OTHER_CHECKS.items():
        yield run_check(name, check)


def run_check(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    """Run one check and return its result with the name; an exception becomes a failed check."""
    try:
        return check()._replace(name=name)
    except ImportError as error:
        result = fail(f'cannot be checked: {error}', 'first fix what the line "libraries" reports')
    except Exception as error:  # one broken check must not hide the results of the others
        result = fail(f'the check itself failed: {type(error).__name__}: {error}',
                      'report it with the output of lgseg doctor --json')
    return result._replace(name=name)


def graph_results(installation: ros.RosInstallation, topics: Sequence[str]) -> list[CheckResult]:
    """Return the results of the checks of topics and of the clock, from a child process on the ROS graph."""
    names = [f'topic {topic}' for topic in topics] + ['clock']
    if not installation.usable:
        return [skip('ROS 2 is not usable here')._replace(name=name) for name in names]
    result = run_module('lgseg_ros.doctor.topics', str(GRAPH_SECONDS), *topics)
    if not result.succeeded:
        return [fail(f'the ROS graph cannot be read: {result.reason}',
                     'check the topic names that were given, and ROS_DOMAIN_ID')._replace(name='graph')]
    return [CheckResult(*values) for values in json.loads(result.answer)]
