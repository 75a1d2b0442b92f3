"""The launch file's arguments become the node's parameters and remappings."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

from lgseg_ros.launch_support.arguments import ARGUMENTS, PARAMETERS, parameter_files, parameter_overrides, remappings
from lgseg_ros.launch_support.dds_profile import PROFILE_VARIABLES, dds_profile_variables
from lgseg_ros.node.parameters import Settings

PATH = Path(__file__).resolve().parents[2] / 'launch' / 'segment.launch.py'


def launch_arguments(**arguments):
    """All launch arguments as text: the defaults, overridden by `arguments`."""
    return {**{name: default for name, (default, _) in ARGUMENTS.items()}, **arguments}


def test_the_topics_of_one_camera():
    arguments = launch_arguments(image_topic='/cam/image_raw')
    assert dict(remappings(arguments)) == {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'}
    assert parameter_overrides(arguments) == {}
    assert dict(remappings(launch_arguments(camera_info_topic='/info')))['camera_info'] == '/info'


@pytest.mark.parametrize('topic, info', [('image_raw', 'camera_info'), ('cam/image_raw', 'cam/camera_info'),
                                         ('/image_raw', '/camera_info')])
def test_camera_info_is_in_the_namespace_of_the_image(topic, info):
    """A relative image topic is resolved in the node's namespace, and so must camera_info be."""
    assert dict(remappings(launch_arguments(image_topic=topic))) == {'image': topic, 'camera_info': info}
    assert dict(remappings(launch_arguments(cameras=f'{{front: {topic}}}')))['front/camera_info'] == info


def test_the_topics_of_several_cameras():
    arguments = launch_arguments(cameras='{front: /front/image_raw, left: /l/rgb}')
    assert dict(remappings(arguments)) == {'front/image': '/front/image_raw', 'front/camera_info': '/front/camera_info',
                                           'left/image': '/l/rgb', 'left/camera_info': '/l/camera_info'}
    assert parameter_overrides(arguments) == {'cameras': ['front', 'left']}


@pytest.mark.parametrize('text, classes', [('road, car=car|van', ['road', 'car=car|van']), ('[road, 3]', ['road', '3']),
                                         ('[]', [''])])
def test_the_vocabulary_argument(text, classes):
    """ROS parameters cannot be an empty list: [''] is an empty vocabulary."""
    assert parameter_overrides(launch_arguments(vocabulary=text, preset='nav2')) == {
        'vocabulary': classes,
        'preset': 'nav2',
    }


@pytest.mark.parametrize('text, value', [('true', True), ('False', False)])
def test_boolean_arguments(text, value):
    assert parameter_overrides(launch_arguments(use_sim_time=text, autostart=text)) == {
        'use_sim_time': value,
        'autostart': value,
    }


@pytest.mark.parametrize(
    'arguments',
    [
        {'cameras': '[front]'},
        {'cameras': '{front: 3}'},
        {'cameras': '{'},
        {'vocabulary': '{road: 1}'},
        {'confidence_threshold': 'low'},
        {'num_threads': '1.5'},
        {'autostart': 'perhaps'},
    ],
)
def test_invalid_arguments_are_refused_with_the_syntax(arguments):
    with pytest.raises(ValueError, match='write '):
        parameter_overrides(launch_arguments(**arguments))


def test_every_parameter_is_a_launch_argument_of_its_type():
    """`ros2 launch` silently ignores arguments that a launch file does not declare."""
    kinds = {entry.name: list if entry.type == list[str] else entry.type for entry in fields(Settings)}
    kinds['use_sim_time'] = bool   # a parameter of every node
    assert {**{name: kind for name, (kind, _) in PARAMETERS.items()}, 'cameras': list} == kinds
    for entry in fields(Settings):   # the description of an argument lists all choices
        assert all(choice in ARGUMENTS[entry.name][1] for choice in entry.metadata['choices'] or ())
    values = parameter_overrides(
        launch_arguments(
            confidence_threshold='1', num_threads='2', image_transport='compressed', lazy_subscription='true'
        )
    )
    assert values == {
        'confidence_threshold': 1.0,
        'num_threads': 2,
        'image_transport': 'compressed',
        'lazy_subscription': True,
    }
    assert isinstance(values['confidence_threshold'], float)


def test_the_dds_profile_is_set_unless_the_user_sets_one():
    variables = dds_profile_variables({})
    assert set(variables) == set(PROFILE_VARIABLES)
    shipped = PATH.parents[1] / 'config' / 'fastdds.xml'   # colcon may install a copy
    assert {Path(value).read_bytes() for value in variables.values()} == {shipped.read_bytes()}
    for name in PROFILE_VARIABLES:
        assert dds_profile_variables({name: '/mine.xml'}) == {}
    alone = dds_profile_variables({'ROS_LOCALHOST_ONLY': '1'})
    assert {Path(path).name for path in alone.values()} == {'fastdds_localhost.xml'}


@pytest.mark.parametrize('given_path, found', [('', []), ('{0}/mine.yaml', ['{0}/mine.yaml']),
                                               ('~/mine.yaml', ['{0}/mine.yaml']),
                                               ('mine.yaml', ['mine.yaml']), ('other.yaml', None), ('~/', None)])
def test_a_missing_parameter_file_is_refused(given_path, found, tmp_path, monkeypatch):
    """Otherwise the node would start with another vocabulary, whose ids Autoware uses to delete points."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.yaml').write_text('')
    arguments = launch_arguments(params_file=given_path.format(tmp_path))
    if found is None:
        with pytest.raises(ValueError, match='params_file:=.* does not exist'):
            parameter_files(arguments)
    else:
        assert parameter_files(arguments) == [path.format(tmp_path) for path in found]
    assert parameter_files(launch_arguments()), 'the shipped parameter file'


# --- with launch, which the wheels do not contain


@pytest.fixture
def module():
    pytest.importorskip('launch', reason='launch is not in the wheels')
    pytest.importorskip('launch_ros', reason='launch_ros is not in the wheels')
    spec = importlib.util.spec_from_file_location('segment_launch', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_launch_file_passes_arguments_to_the_node(module, monkeypatch):
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument
    from launch_ros.utilities import evaluate_parameters
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    description = module.generate_launch_description()
    declared = [entity.name for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]
    assert declared == list(ARGUMENTS)
    context = LaunchContext()
    context.launch_configurations.update(
        launch_arguments(image_topic='/cam/image_raw', confidence_threshold='0.5', vocabulary='[]')
    )
    node, = module.make_node(context)
    node._perform_substitutions(context)
    assert dict(node.expanded_remapping_rules) == {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'}
    values = [part for part in evaluate_parameters(context, node._Node__parameters) if isinstance(part, dict)]
    assert {name: value for part in values for name, value in part.items()} == {
        'confidence_threshold': 0.5,
        'vocabulary': ('',),
    }
    variables = {name[0].perform(context): value[0].perform(context) for name, value in node.additional_env}
    assert variables == dds_profile_variables({})
