"""The parameter table, its documentation and the shipped parameter files match the declarations."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml

from lgseg_ros.cli.main import main
from lgseg_ros.cli.params import REGENERATE
from lgseg_ros.node.parameters import Settings, declare_parameters

ROOT = Path(__file__).resolve().parents[2]
NAMES = [entry.name for entry in fields(Settings)]
# What a general file cannot set: the cameras of the robot, and whether a lifecycle manager exists.
ROBOT_SPECIFIC = {'cameras', 'autostart', 'bond_heartbeat_period'}


def printed(capsys, *arguments):
    assert main(['params', *arguments]) == 0
    return capsys.readouterr().out


def node_files():
    """{path: parameters} of the files in config/ with parameters of this node."""
    found = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / 'config').glob('**/*.yaml'))}
    return {path: content[key] for path, content in found.items() if isinstance(content, dict)
            for key in ('/**', 'lgseg', '/lgseg') if 'ros__parameters' in (content.get(key) or {})}


def settings_from_file(path):
    """The settings that the node reads from a parameter file; raises ValueError as the node does."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('lgseg', context=context, cli_args=['--ros-args', '--params-file', str(path)])
    try:
        return declare_parameters(node)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_the_documented_parameters_are_up_to_date(capsys):
    documented = (ROOT / 'docs' / 'reference' / 'parameters.md').read_text()
    assert documented == printed(capsys, '--markdown'), f'docs/reference/parameters.md is out of date: {REGENERATE}'


@pytest.mark.parametrize('path', node_files(), ids=lambda path: path.name)
def test_parameter_files_have_known_parameters_and_valid_values(path):
    given = node_files()[path]['ros__parameters']
    assert set(given) <= set(NAMES)
    settings = settings_from_file(path)
    assert {name: getattr(settings, name) for name in given} == given


def test_the_default_file_lists_every_parameter():
    given = node_files()[ROOT / 'config' / 'segment.yaml']['ros__parameters']
    missing = set(NAMES) - set(given) - ROBOT_SPECIFIC
    assert given == {name: getattr(Settings(), name) for name in given}, 'the file holds the defaults'
    assert missing == set(), f'add to config/segment.yaml, as `lgseg params --yaml` prints them: {sorted(missing)}'


def test_the_printed_file_starts_a_node_with_the_defaults(capsys, tmp_path):
    path = tmp_path / 'all.yaml'
    path.write_text(printed(capsys, '--yaml'))
    assert settings_from_file(path) == Settings()
    assert set(yaml.safe_load(path.read_text())['/**']['ros__parameters']) == set(NAMES)


def test_an_empty_list_in_a_file_is_the_default(tmp_path):
    """ROS does not read it as a list."""
    path = tmp_path / 'empty.yaml'
    path.write_text('/**:\n  ros__parameters:\n    vocabulary: []\n    cameras: []\n')
    assert settings_from_file(path) == Settings()


def test_every_parameter_is_described(capsys):
    parameters = {parameter['name']: parameter for parameter in json.loads(printed(capsys, '--json'))}
    assert list(parameters) == NAMES
    assert all(len(parameter['description']) > 10 and parameter['type'] for parameter in parameters.values())
    assert parameters['confidence_threshold'] == {
        'name': 'confidence_threshold',
        'type': 'double',
        'default': 0.0,
        'allowed': '0.0 to 1.0',
        'changeable': True,
        'description': parameters['confidence_threshold']['description'],
    }
    assert not parameters['weights']['changeable'] and 'onnxruntime' in parameters['engine']['allowed']
    text = printed(capsys)
    assert all(f'{name}: ' in text for name in NAMES)


def test_without_ros_the_hint_is_to_source_it():
    env = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'AMENT_PREFIX_PATH')}
    # -S: without site-packages, so that ROS from wheels is out of reach too.
    answer = subprocess.run([sys.executable, '-S', '-m', 'lgseg_ros.cli.main', 'params'], cwd=ROOT, env=env,
                            capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert 'source your distribution' in answer.stderr and 'Traceback' not in answer.stderr
