"""The `lgseg` command where packages are missing: the list of commands always, one line with the cure otherwise."""

import subprocess
import sys
from pathlib import Path

import pytest

from lgseg_ros.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
RUN = 'import sys; sys.path.insert(0, {root!r}); from lgseg_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'


def lgseg_bare(*arguments):
    """By a Python without any package installed."""
    return subprocess.run([sys.executable, '-I', '-S', '-c', RUN.format(root=str(ROOT)), *arguments],
                          capture_output=True, text=True, timeout=60)


def lgseg_without(module, *arguments):
    """By this Python, in which `module` cannot be imported."""
    return subprocess.run([sys.executable, '-c', f'import sys; sys.modules[{module!r}] = None; '
                           + RUN.format(root=str(ROOT)), *arguments], capture_output=True, text=True, timeout=60)


def test_the_commands_are_listed_without_any_package():
    done = lgseg_bare('--help')
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize('command', [name for name in COMMANDS if name not in ('doctor', 'params')])
def test_a_bare_python_is_told_what_to_install(command):
    done = lgseg_bare(command, *(['--data', '.'] if command == 'eval' else []))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f'lgseg {command}: ') and done.stderr.count('\n') == 1
    assert 'requirements/run' in done.stderr and sys.executable in done.stderr


@pytest.mark.parametrize('arguments, module, cure', [
    (['train', '--help'], 'torch', 'scripts/setup.sh --with train'),
    (['export', '--weights', 'lgseg_lite0'], 'torch', 'requirements/train.txt'),
    (['quantize'], 'onnx', 'requirements/train.txt'),
    (['demo', '--source', 'street', '--frames', '1'], 'rclpy', 'source your ROS 2 distribution'),
    (['demo', '--source', 'street', '--frames', '1'], 'lgseg_ros.srv', 'colcon build'),
])
def test_a_missing_package_is_one_line_with_the_cure(arguments, module, cure, tmp_path):
    if arguments[0] == 'demo':
        arguments = [*arguments, '--out', str(tmp_path / 'out')]
    done = lgseg_without(module, *arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f'lgseg {arguments[0]}: {module} is not installed') and done.stderr.count('\n') == 1
    assert cure in done.stderr


def test_a_module_that_nobody_should_lack_is_a_bug_and_shows_itself():
    done = lgseg_without('lgseg_ros.engines.frames', 'segment', '--help')
    assert done.returncode == 1 and 'Traceback' in done.stderr
