"""The node's parameters: each declared once, with type, default, range and description."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from ..engines.preprocessing import DEFAULT_PIXELS
from ..engines.selection import ENGINE_NAMES, PRECISIONS
from ..model.weights import DEFAULT_WEIGHTS
from ..vocabulary.presets import DEFAULT_PRESET
from .bond import SHORTEST_PERIOD_S


def parameter(default: Any, description: str, low: float | None = None, high: float | None = None,
              choices: Sequence[str] | None = None, changeable: bool = False) -> Any:
    """Make a dataclass field that becomes a ROS parameter.

    Args:
        default: its value where none is given.
        description: one line for `ros2 param describe` and the documentation.
        low: least value of a number.
        high: greatest value of a number.
        choices: the texts that are allowed.
        changeable: whether it may be set while the node runs.

    Returns:
        The field.
    """
    metadata = {'description': description, 'low': low, 'high': high, 'choices': choices, 'changeable': changeable}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Values of all parameters. An empty string list is [''], because ROS cannot type []."""

    preset: str = parameter(   # before vocabulary: `ros2 param load` sets one by one, in the order of `lgseg params`
        DEFAULT_PRESET, 'Named vocabulary with fixed class ids: camvid, cityscapes, autoware, nav2; empty: none',
        changeable=True)
    vocabulary: list[str] = parameter(   # noqa: RUF009 (a field of its own)
        [''], 'Classes to segment, each "name" or "name=phrase|phrase", at most 255 phrases in all, '
        'because masks are mono8; empty: those of the preset', changeable=True)
    confidence_threshold: float = parameter(
        0.0, 'Minimum confidence of a labelled pixel; pixels below it get id 255', 0.0, 1.0, changeable=True)
    weights: str = parameter(
        DEFAULT_WEIGHTS, 'Name of shipped weights, or path of a .safetensors file with its .json and .onnx')
    engine: str = parameter(
        'auto', 'Inference engine; auto: the fastest that is ready on this machine. An engine that does not work is '
        'replaced by the next, with a warning', choices=ENGINE_NAMES)
    precision: str = parameter(
        'auto', 'Numeric precision of the network; auto: int8 on a CPU with 8-bit dot products where the file exists, '
        'fp16 with TensorRT or torch on a GPU, else fp32', choices=PRECISIONS)
    num_threads: int = parameter(0, 'CPU threads of the engine; 0: all cores this process may use', 0, 256)
    max_inference_pixels: int = parameter(
        DEFAULT_PIXELS, 'Maximum number of pixels at the network input, at the aspect ratio of the image; fewer is '
        'faster', 64 * 64, 2048 * 1024)
    output_size: str = parameter(
        'input', 'Size of mask and confidence: that of the image, or of the network input',
        choices=('input', 'network'))
    cameras: list[str] = parameter(   # noqa: RUF009
        [''], 'Names of several cameras: topics NAME/image in, ~/NAME/mask out; empty: one camera on image')
    image_transport: str = parameter(
        'raw', 'Type of the images: raw (sensor_msgs/Image on image) or compressed (JPEG or PNG on image/compressed)',
        choices=('raw', 'compressed'))
    image_reliability: str = parameter(
        'best_effort', 'QoS reliability of the image subscription; best_effort connects with every camera',
        choices=('best_effort', 'reliable'))
    lazy_subscription: bool = parameter(
        False, 'Subscribe to images only while an output has subscribers; saves transport, costs the first frames')
    overlay_alpha: float = parameter(0.5, 'Opacity of the classes in the overlay', 0.0, 1.0, changeable=True)
    autostart: bool = parameter(True, 'Configure and activate at start; false: wait for a lifecycle manager')
    bond_heartbeat_period: float = parameter(
        0.0, 'Seconds between heartbeats to Nav2\'s lifecycle manager while active, 0.1 as in Nav2\'s servers; '
        '0: no bond', 0.0, 2.0)


def parameter_descriptor(entry: 'Field[Any]') -> ParameterDescriptor:
    """Return the ParameterDescriptor of one field of `Settings`."""
    meta = entry.metadata
    result = ParameterDescriptor(description=meta['description'], read_only=not meta['changeable'])
    if meta['choices']:
        result.additional_constraints = 'one of: ' + ', '.join(meta['choices'])
    if entry.type is int:
        result.integer_range = [IntegerRange(from_value=meta['low'], to_value=meta['high'], step=0)]
    if entry.type is float:
        result.floating_point_range = [FloatingPointRange(from_value=meta['low'], to_value=meta['high'], step=0.0)]
    return result


def declare_parameters(node: Node) -> Settings:
    """Declare every parameter on a node.

    Args:
        node: the ROS node.

    Returns:
        The values given at start.

    Raises:
        ValueError: a value is not allowed; the text names the parameter, the value and what is allowed.
    """
    values: dict[str, Any] = {}
    defaults = Settings()
    for entry in fields(Settings):
        default = getattr(defaults, entry.name)
        try:
            value = node.declare_parameter(entry.name, default, parameter_descriptor(entry)).value
            values[entry.name] = default if value is None else value   # an empty list in a file arrives as None
        except Exception as error:  # rclpy has a kind for each fault of type and range
            raise ValueError(f'parameter {entry.name}: {error}') from error
    settings = Settings(**values)
    validate_settings(settings)
    return settings


def validate_settings(settings: Settings) -> None:
    """Check what no range of a descriptor can express.

    Args:
        settings: values of all parameters.

    Raises:
        ValueError: a value is not allowed; the text names the parameter, the value and what is allowed.
    """
    for entry in fields(Settings):
        value, choices = getattr(settings, entry.name), entry.metadata['choices']
        if choices and value not in choices:
            raise ValueError(f'parameter {entry.name} is {value!r}; give one of: {", ".join(choices)}')
    if 0 < settings.bond_heartbeat_period < SHORTEST_PERIOD_S:
        raise ValueError(f'parameter bond_heartbeat_period is {settings.bond_heartbeat_period:g}; give 0 (no bond) or '
                         f'at least {SHORTEST_PERIOD_S:g}')
    names = camera_names(settings)
    for name in names:
        if (name and not name.replace('_', 'a').isalnum()) or name[:1].isdigit():
            raise ValueError(f'camera name {name!r} is not a ROS name; use letters, digits and _, a letter first')
    if len(set(names)) != len(names):
        raise ValueError(f'cameras {names} name one twice; give each once')


def camera_names(settings: Settings) -> list[str]:
    """Return the names of the cameras; [''] means the one nameless camera."""
    return [name for name in settings.cameras if name] or ['']


def ros_type_name(entry: 'Field[Any]') -> str:
    """Return the ROS type of a field of `Settings`, for the documentation."""
    names: dict[Any, str] = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
    return names.get(entry.type, 'string array')
