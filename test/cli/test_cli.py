"""The `lgseg` command: help, missing packages, and errors that name options."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lgseg_ros.cli.errors import name_options
from lgseg_ros.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
RUN = 'import sys; sys.path.insert(0, {root!r}); from lgseg_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'


def lgseg_bare(*arguments):
    """Run lgseg with a Python without any installed package."""
    return subprocess.run([sys.executable, '-I', '-S', '-c', RUN.format(root=str(ROOT)), *arguments],
                          capture_output=True, text=True, timeout=60)


def lgseg_without(module, *arguments):
    """Run lgseg with this Python, in which `module` cannot be imported."""
    return subprocess.run([sys.executable, '-c', f'import sys; sys.modules[{module!r}] = None; '
                           + RUN.format(root=str(ROOT)), *arguments], capture_output=True, text=True, timeout=60)


def test_the_commands_are_listed_without_any_package():
    done = lgseg_bare('--help')
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize('command', [name for name in COMMANDS if name not in ('doctor', 'params')])
def test_a_bare_python_gets_an_installation_hint(command):
    done = lgseg_bare(command, *(['--data', '.'] if command == 'eval' else []))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f'lgseg {command}: ') and done.stderr.count('\n') == 1
    assert 'requirements/run' in done.stderr and sys.executable in done.stderr


@pytest.mark.parametrize('arguments, module, hint', [
    (['train', '--help'], 'torch', 'scripts/setup.sh --with train'),
    (['export', '--weights', 'lgseg_lite0'], 'torch', 'requirements/train.txt'),
    (['quantize'], 'onnx', 'requirements/train.txt'),
    (['demo', '--source', 'street', '--frames', '1'], 'rclpy', 'source your ROS 2 distribution'),
    (['demo', '--source', 'street', '--frames', '1'], 'lgseg_ros.srv', 'colcon build'),
])
def test_a_missing_package_is_reported_in_one_line_with_a_hint(arguments, module, hint, tmp_path):
    if arguments[0] == 'demo':
        arguments = [*arguments, '--out', str(tmp_path / 'out')]
    done = lgseg_without(module, *arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f'lgseg {arguments[0]}: {module} is not installed') and done.stderr.count('\n') == 1
    assert hint in done.stderr


def test_a_missing_module_of_this_package_is_a_bug_with_a_traceback():
    done = lgseg_without('lgseg_ros.engines.preprocessing', 'segment', '--help')
    assert done.returncode == 1 and 'Traceback' in done.stderr


@pytest.mark.parametrize('command', COMMANDS)
def test_help_contains_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, '--help'])
    out = capsys.readouterr().out
    assert end.value.code == 0 and f'  lgseg {command}' in out.partition('Examples:')[2]


@pytest.mark.parametrize('message, translated', [
    ('max_frames is 0; give at least 1', '--frames is 0; give at least 1'),
    ('a.png would be overwritten; give another `out`', 'a.png would be overwritten; give another --out'),
    ('input is empty', 'INPUT is empty'),
    ('`unknown` and out.png stay', '`unknown` and out.png stay'),
    ('out of memory', 'out of memory'),
])
def test_argument_names_become_options(message, translated):
    parser = argparse.ArgumentParser()
    parser.add_argument('input', metavar='INPUT')
    parser.add_argument('-n', '--frames', dest='max_frames')
    parser.add_argument('--out')
    assert name_options(message, parser) == translated
