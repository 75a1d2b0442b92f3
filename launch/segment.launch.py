"""Start the segmentation node: ros2 launch lgseg_ros segment.launch.py image_topic:=/camera/image_raw"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from lgseg_ros.launch_arguments import ARGUMENTS, overrides, params_files, remappings
from lgseg_ros.transport import profile_variables


def make_node(context):
    """The node's action; a launch argument that is given wins over the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    return [Node(package='lgseg_ros', executable='segment_node', name='lgseg', namespace=given['namespace'],
                 parameters=[*params_files(given), overrides(given)], remappings=remappings(given),
                 arguments=['--ros-args', '--log-level', given['log_level']], output='screen', emulate_tty=True,
                 additional_env=profile_variables(context.environment))]   # this process alone: 64 MB each


def generate_launch_description():
    """Declare the arguments and start the node."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=make_node)])
