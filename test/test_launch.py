"""The launch file's arguments become the node's parameters and remappings."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

from lgseg_ros.node.settings import Settings

launch = pytest.importorskip('launch', reason='the wheels have no launch')
launch_ros = pytest.importorskip('launch_ros', reason='the wheels have no launch_ros')
PATH = Path(__file__).resolve().parents[1] / 'launch' / 'segment.launch.py'


@pytest.fixture(scope='module')
def module():
    spec = importlib.util.spec_from_file_location('segment_launch', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def node_of(module, **arguments):
    """({from: to} of the remappings, {name: value} of the parameters that win over the file)."""
    context = launch.LaunchContext()
    context.launch_configurations.update({name: default for name, (default, _) in module.ARGUMENTS.items()})
    context.launch_configurations.update(arguments)
    node, = module.make_node(context)
    node._perform_substitutions(context)
    given = launch_ros.utilities.evaluate_parameters(context, node._Node__parameters)
    overrides = [part for part in given if isinstance(part, dict)]
    return dict(node.expanded_remapping_rules), {name: value for part in overrides for name, value in part.items()}


def test_one_camera(module):
    rules, parameters = node_of(module, image_topic='/cam/image_raw')
    assert rules == {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'} and parameters == {}


@pytest.mark.parametrize('topic, info', [('image_raw', 'camera_info'), ('cam/image_raw', 'cam/camera_info'),
                                         ('/image_raw', '/camera_info')])
def test_camera_info_stays_beside_the_pictures(module, topic, info):
    """A relative topic follows the node's namespace, and so must what lies beside it."""
    assert node_of(module, image_topic=topic, namespace='robot1')[0] == {'image': topic, 'camera_info': info}
    assert node_of(module, cameras=f'{{front: {topic}}}')[0]['front/camera_info'] == info


def test_several_cameras(module):
    rules, parameters = node_of(module, cameras='{front: /front/image_raw, left: /l/rgb}')
    assert rules == {'front/image': '/front/image_raw', 'front/camera_info': '/front/camera_info',
                     'left/image': '/l/rgb', 'left/camera_info': '/l/camera_info'}
    assert list(parameters['cameras']) == ['front', 'left']


def test_words(module):
    _, parameters = node_of(module, vocabulary='road, car=car|van', preset='nav2')
    assert list(parameters['vocabulary']) == ['road', 'car=car|van'] and parameters['preset'] == 'nav2'


@pytest.mark.parametrize('given, word', [('true', True), ('False', False)])
def test_words_of_truth(module, given, word):
    assert node_of(module, use_sim_time=given, autostart=given)[1] == {'use_sim_time': word, 'autostart': word}


@pytest.mark.parametrize('arguments', [{'cameras': '[front]'}, {'cameras': '{front: 3}'}, {'cameras': '{'},
                                       {'vocabulary': '{road: 1}'}, {'threshold': 'low'}, {'threads': '1.5'},
                                       {'autostart': 'perhaps'}])
def test_bad_arguments_show_how_to_write_them(module, arguments):
    with pytest.raises(ValueError, match='write '):
        node_of(module, **arguments)


def test_every_parameter_is_an_argument_of_its_type(module):
    """`ros2 launch` drops arguments that a launch file does not declare, without a word."""
    kinds = {entry.name: list if entry.type == list[str] else entry.type for entry in fields(Settings)}
    kinds['use_sim_time'] = bool   # every node's
    assert {**{name: kind for name, (kind, _) in module.PARAMETERS.items()}, 'cameras': list} == kinds
    _, parameters = node_of(module, threshold='1', threads='2', transport='compressed', lazy_subscription='true')
    assert parameters == {'threshold': 1.0, 'threads': 2, 'transport': 'compressed', 'lazy_subscription': True}
    assert isinstance(parameters['threshold'], float)
