"""The node's parameters: each declared once, with type, default, range and description."""

from dataclasses import dataclass, field, fields

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from ..engines.factory import ENGINE_NAMES, PRECISIONS
from ..engines.frames import DEFAULT_PIXELS
from ..engines.weights import DEFAULT_WEIGHTS
from .bond import SHORTEST_PERIOD_S


def parameter(default, description, low=None, high=None, choices=None, changeable=False):
    """A dataclass field that becomes a ROS parameter; `changeable` ones may be set while the node runs."""
    metadata = {'description': description, 'low': low, 'high': high, 'choices': choices, 'changeable': changeable}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Values of all parameters.  An empty string list is [''], because ROS cannot type []."""

    preset: str = parameter(   # before vocabulary: `ros2 param load` sets one by one, in the order of `lgseg params`
        'camvid', 'Named vocabulary with fixed ids: camvid, cityscapes, autoware, nav2; empty: none', changeable=True)
    vocabulary: list[str] = parameter(
        [''], 'Classes to look for, each "name" or "name=phrase|phrase", at most 255 phrases in all, '
        'because masks are mono8; empty: those of the preset', changeable=True)
    threshold: float = parameter(
        0.0, 'Least confidence of a labelled pixel; less confident ones get id 255', 0.0, 1.0, changeable=True)
    weights: str = parameter(
        DEFAULT_WEIGHTS, 'Name of shipped weights, or path of a .safetensors file with its .json and .onnx')
    engine: str = parameter(
        'auto', 'What runs the network; auto: the fastest that is ready here. One that does not work is replaced by '
        'the next, with a warning', choices=ENGINE_NAMES)
    precision: str = parameter(
        'auto', 'Numbers the network computes with; auto: int8 on a CPU with 8-bit dot products where the file is there, '
        'fp16 with TensorRT or torch on a GPU, else fp32', choices=PRECISIONS)
    threads: int = parameter(0, 'CPU threads of the engine; 0: all cores this process may use', 0, 256)
    network_pixels: int = parameter(
        DEFAULT_PIXELS, 'Pixels of the picture that the network sees, at the frame\'s aspect ratio; fewer is faster',
        64 * 64, 2048 * 1024)
    output_size: str = parameter(
        'input', 'Size of mask and confidence: that of the frame, or of the network', choices=('input', 'network'))
    cameras: list[str] = parameter(
        [''], 'Names of several cameras: topics NAME/image in, ~/NAME/mask out; empty: one camera on image')
    transport: str = parameter(
        'raw', 'Kind of pictures: raw (sensor_msgs/Image on image) or compressed (JPEG or PNG on image/compressed)',
        choices=('raw', 'compressed'))
    image_reliability: str = parameter(
        'best_effort', 'Reliability asked of the camera; best_effort connects with every camera',
        choices=('best_effort', 'reliable'))
    lazy_subscription: bool = parameter(
        False, 'Leave the camera topics while nobody listens to any output; saves transport, costs the first frames')
    overlay_alpha: float = parameter(0.5, 'Opacity of the classes in the overlay', 0.0, 1.0, changeable=True)
    autostart: bool = parameter(True, 'Configure and activate at start; false: wait for a lifecycle manager')
    bond_heartbeat_period: float = parameter(
        0.0, 'Seconds between heartbeats to Nav2\'s lifecycle manager while active, 0.1 as in Nav2\'s servers; '
        '0: no bond', 0.0, 2.0)


def descriptor(entry):
    """The ParameterDescriptor of one field of `Settings`."""
    meta = entry.metadata
    result = ParameterDescriptor(description=meta['description'], read_only=not meta['changeable'])
    if meta['choices']:
        result.additional_constraints = 'one of: ' + ', '.join(meta['choices'])
    if entry.type is int:
        result.integer_range = [IntegerRange(from_value=meta['low'], to_value=meta['high'], step=0)]
    if entry.type is float:
        result.floating_point_range = [FloatingPointRange(from_value=meta['low'], to_value=meta['high'], step=0.0)]
    return result


def declare(node):
    """Declare every parameter on `node` and return the `Settings` given at start.

    Raises ValueError naming parameter, value and what is allowed.
    """
    values = {}
    for entry in fields(Settings):
        default = entry.default_factory() if isinstance(entry.type, type(list[str])) else entry.default
        try:
            value = node.declare_parameter(entry.name, default, descriptor(entry)).value
            values[entry.name] = default if value is None else value   # an empty list in a file comes as nothing
        except Exception as error:  # rclpy has a kind for each fault of type and range
            raise ValueError(f'parameter {entry.name}: {error}') from error
    settings = Settings(**values)
    check(settings)
    return settings


def check(settings):
    """Raise ValueError for a value that no range can express."""
    for entry in fields(Settings):
        value, choices = getattr(settings, entry.name), entry.metadata['choices']
        if choices and value not in choices:
            raise ValueError(f'parameter {entry.name} is {value!r}; give one of: {", ".join(choices)}')
    if 0 < settings.bond_heartbeat_period < SHORTEST_PERIOD_S:
        raise ValueError(f'parameter bond_heartbeat_period is {settings.bond_heartbeat_period:g}; give 0 (no bond) or '
                         f'at least {SHORTEST_PERIOD_S:g}')
    names = camera_names(settings)
    for name in names:
        if name and not name.replace('_', 'a').isalnum() or name[:1].isdigit():
            raise ValueError(f'camera name {name!r} is not a ROS name; use letters, digits and _, a letter first')
    if len(set(names)) != len(names):
        raise ValueError(f'cameras {names} name one twice; give each once')


def camera_names(settings):
    """Names of the cameras; [''] means the one nameless camera."""
    return [name for name in settings.cameras if name] or ['']


def type_name(entry):
    """The ROS type of a field, for the documentation."""
    names = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
    return names.get(entry.type, 'string array')
