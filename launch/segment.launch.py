"""Start the segmentation node: ros2 launch lgseg_ros segment.launch.py image_topic:=/camera/image_raw."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from lgseg_ros.launch_support.arguments import ARGUMENTS, parameter_files, parameter_overrides, remappings
from lgseg_ros.launch_support.dds_profile import dds_profile_variables


def make_node(context: LaunchContext) -> list[Node]:
    """Make the node's action; a launch argument that is given wins over the parameter file."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    return [Node(package='lgseg_ros', executable='segment_node', name='lgseg', namespace=arguments['namespace'],
                 parameters=[*parameter_files(arguments), parameter_overrides(arguments)],
                 remappings=remappings(arguments),
                 arguments=['--ros-args', '--log-level', arguments['log_level']], output='screen', emulate_tty=True,
                 additional_env=dds_profile_variables(context.environment))]   # this process alone: 64 MB each


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=make_node)])
