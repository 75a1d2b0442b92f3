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
# What a file for every robot cannot know: which cameras there are, and who manages the node.
LEFT_TO_THE_USER = {'cameras', 'autostart', 'bond_heartbeat_period'}


def printed(capsys, *arguments):
    assert main(['params', *arguments]) == 0
    return capsys.readouterr().out


def node_files():
    """The parameter files in config/ that hold this node's parameters."""
    found = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / 'config').glob('**/*.yaml'))}
    return {path: content[key] for path, content in found.items() if isinstance(content, dict)
            for key in ('/**', 'lgseg', '/lgseg') if 'ros__parameters' in (content.get(key) or {})}


def settings_from_file(path):
    """What the real node would take from a parameter file.  Raises ValueError as it would."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('lgseg', context=context, cli_args=['--ros-args', '--params-file', str(path)])
    try:
        return declare_parameters(node)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_the_documented_table_is_the_declared_one(capsys):
    documented = (ROOT / 'docs' / 'reference' / 'parameters.md').read_text()
    assert documented == printed(capsys, '--markdown'), f'docs/reference/parameters.md is old: {REGENERATE}'


@pytest.mark.parametrize('path', node_files(), ids=lambda path: path.name)
def test_parameter_files_name_real_parameters_with_valid_values(path):
    given = node_files()[path]['ros__parameters']
    assert set(given) <= set(NAMES)
    settings = settings_from_file(path)
    assert {name: getattr(settings, name) for name in given} == given


def test_the_default_file_names_every_parameter():
    given = node_files()[ROOT / 'config' / 'segment.yaml']['ros__parameters']
    missing = set(NAMES) - set(given) - LEFT_TO_THE_USER
    assert given == {name: getattr(Settings(), name) for name in given}, 'the file holds the defaults'
    assert missing == set(), f'add to config/segment.yaml, as `lgseg params --yaml` prints them: {sorted(missing)}'


def test_the_printed_file_starts_a_node_with_the_defaults(capsys, tmp_path):
    path = tmp_path / 'all.yaml'
    path.write_text(printed(capsys, '--yaml'))
    assert settings_from_file(path) == Settings()
    assert set(yaml.safe_load(path.read_text())['/**']['ros__parameters']) == set(NAMES)


def test_an_empty_list_in_a_file_is_no_classes(tmp_path):
    """ROS makes nothing of it, not a list."""
    path = tmp_path / 'empty.yaml'
    path.write_text('/**:\n  ros__parameters:\n    vocabulary: []\n    cameras: []\n')
    assert settings_from_file(path) == Settings()


def test_every_row_is_complete(capsys):
    rows = {row['name']: row for row in json.loads(printed(capsys, '--json'))}
    assert list(rows) == NAMES
    assert all(len(row['description']) > 10 and row['type'] for row in rows.values())
    assert rows['confidence_threshold'] == {'name': 'confidence_threshold', 'type': 'double', 'default': 0.0, 'allowed': '0.0 to 1.0',
                                 'changeable': True, 'description': rows['confidence_threshold']['description']}
    assert not rows['weights']['changeable'] and 'onnxruntime' in rows['engine']['allowed']
    text = printed(capsys)
    assert all(f'{name}: ' in text for name in NAMES)


def test_without_ros_it_says_what_to_do():
    env = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'AMENT_PREFIX_PATH')}
    # -S: without site-packages, so that ROS from wheels is out of reach too.
    answer = subprocess.run([sys.executable, '-S', '-m', 'lgseg_ros.cli.main', 'params'], cwd=ROOT, env=env,
                            capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert 'source your distribution' in answer.stderr and 'Traceback' not in answer.stderr
