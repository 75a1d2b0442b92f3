"""The launch file's arguments become the node's parameters and remappings."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

from lgseg_ros.launch_support.arguments import ARGUMENTS, PARAMETERS, parameter_files, parameter_overrides, remappings
from lgseg_ros.launch_support.dds_profile import PROFILE_VARIABLES, dds_profile_variables
from lgseg_ros.node.parameters import Settings

PATH = Path(__file__).resolve().parents[2] / 'launch' / 'segment.launch.py'


def given(**arguments):
    """All arguments as text, as launch has them."""
    return {**{name: default for name, (default, _) in ARGUMENTS.items()}, **arguments}


def test_one_camera():
    arguments = given(image_topic='/cam/image_raw')
    assert dict(remappings(arguments)) == {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'}
    assert parameter_overrides(arguments) == {}
    assert dict(remappings(given(camera_info_topic='/info')))['camera_info'] == '/info'


@pytest.mark.parametrize('topic, info', [('image_raw', 'camera_info'), ('cam/image_raw', 'cam/camera_info'),
                                         ('/image_raw', '/camera_info')])
def test_camera_info_stays_beside_the_images(topic, info):
    """A relative topic follows the node's namespace, and so must what lies beside it."""
    assert dict(remappings(given(image_topic=topic))) == {'image': topic, 'camera_info': info}
    assert dict(remappings(given(cameras=f'{{front: {topic}}}')))['front/camera_info'] == info


def test_several_cameras():
    arguments = given(cameras='{front: /front/image_raw, left: /l/rgb}')
    assert dict(remappings(arguments)) == {'front/image': '/front/image_raw', 'front/camera_info': '/front/camera_info',
                                           'left/image': '/l/rgb', 'left/camera_info': '/l/camera_info'}
    assert parameter_overrides(arguments) == {'cameras': ['front', 'left']}


@pytest.mark.parametrize('text, classes', [('road, car=car|van', ['road', 'car=car|van']), ('[road, 3]', ['road', '3']),
                                         ('[]', [''])])
def test_classes(text, classes):
    """ROS has no empty list: [''] is how an empty vocabulary is written."""
    assert parameter_overrides(given(vocabulary=text, preset='nav2')) == {'vocabulary': classes, 'preset': 'nav2'}


@pytest.mark.parametrize('text, value', [('true', True), ('False', False)])
def test_booleans(text, value):
    assert parameter_overrides(given(use_sim_time=text, autostart=text)) == {'use_sim_time': value, 'autostart': value}


@pytest.mark.parametrize('arguments', [{'cameras': '[front]'}, {'cameras': '{front: 3}'}, {'cameras': '{'},
                                       {'vocabulary': '{road: 1}'}, {'confidence_threshold': 'low'}, {'num_threads': '1.5'},
                                       {'autostart': 'perhaps'}])
def test_bad_arguments_show_how_to_write_them(arguments):
    with pytest.raises(ValueError, match='write '):
        parameter_overrides(given(**arguments))


def test_every_parameter_is_an_argument_of_its_type():
    """`ros2 launch` drops arguments that a launch file does not declare, silently."""
    kinds = {entry.name: list if entry.type == list[str] else entry.type for entry in fields(Settings)}
    kinds['use_sim_time'] = bool   # every node's
    assert {**{name: kind for name, (kind, _) in PARAMETERS.items()}, 'cameras': list} == kinds
    for entry in fields(Settings):   # what an argument's description lists is all there is
        assert all(choice in ARGUMENTS[entry.name][1] for choice in entry.metadata['choices'] or ())
    values = parameter_overrides(given(confidence_threshold='1', num_threads='2', image_transport='compressed', lazy_subscription='true'))
    assert values == {'confidence_threshold': 1.0, 'num_threads': 2, 'image_transport': 'compressed', 'lazy_subscription': True}
    assert isinstance(values['confidence_threshold'], float)


def test_the_transport_profile_is_brought_unless_the_user_has_one():
    brought = dds_profile_variables({})
    assert set(brought) == set(PROFILE_VARIABLES)
    shipped = PATH.parents[1] / 'config' / 'fastdds.xml'   # where colcon makes no links, the installed one is a copy
    assert {Path(value).read_bytes() for value in brought.values()} == {shipped.read_bytes()}
    for name in PROFILE_VARIABLES:
        assert dds_profile_variables({name: '/mine.xml'}) == {}
    alone = dds_profile_variables({'ROS_LOCALHOST_ONLY': '1'})
    assert {Path(path).name for path in alone.values()} == {'fastdds_localhost.xml'}


@pytest.mark.parametrize('given_path, found', [('', []), ('{0}/mine.yaml', ['{0}/mine.yaml']),
                                               ('~/mine.yaml', ['{0}/mine.yaml']),
                                               ('mine.yaml', ['mine.yaml']), ('other.yaml', None), ('~/', None)])
def test_a_parameter_file_that_is_not_there_starts_nothing(given_path, found, tmp_path, monkeypatch):
    """Launch would go on with another vocabulary, by whose ids Autoware deletes points."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.yaml').write_text('')
    asked = given(params_file=given_path.format(tmp_path))
    if found is None:
        with pytest.raises(ValueError, match='params_file:=.* does not exist'):
            parameter_files(asked)
    else:
        assert parameter_files(asked) == [path.format(tmp_path) for path in found]
    assert parameter_files(given()), 'the shipped one'


# --- with the real launch, which the wheels have not


@pytest.fixture
def module():
    pytest.importorskip('launch', reason='the wheels have no launch')
    pytest.importorskip('launch_ros', reason='the wheels have no launch_ros')
    spec = importlib.util.spec_from_file_location('segment_launch', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_launch_file_hands_them_to_the_node(module, monkeypatch):
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument
    from launch_ros.utilities import evaluate_parameters
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    description = module.generate_launch_description()
    declared = [entity.name for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]
    assert declared == list(ARGUMENTS)
    context = LaunchContext()
    context.launch_configurations.update(given(image_topic='/cam/image_raw', confidence_threshold='0.5', vocabulary='[]'))
    node, = module.make_node(context)
    node._perform_substitutions(context)
    assert dict(node.expanded_remapping_rules) == {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'}
    values = [part for part in evaluate_parameters(context, node._Node__parameters) if isinstance(part, dict)]
    assert {name: value for part in values for name, value in part.items()} == {'confidence_threshold': 0.5, 'vocabulary': ('',)}
    variables = {name[0].perform(context): value[0].perform(context) for name, value in node.additional_env}
    assert variables == dds_profile_variables({})
