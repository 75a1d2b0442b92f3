"""The RMW implementation, and whether it is set up for camera pictures (docs/transport.md)."""

import os
import shlex
from pathlib import Path
from xml.etree import ElementTree

from ..transport import PROFILE_VARIABLES, transport_profile
from .verdict import fail, ok, skip, warn

PICTURE_BYTES = 1920 * 1080 * 3     # what must fit at least
CYCLONE_BUFFER = 4 << 20            # bytes; delivers 1080p at 30 Hz (docs/transport.md)
CYCLONE_EXPORT = ("export CYCLONEDDS_URI='<CycloneDDS><Domain><Internal>"
                  "<SocketReceiveBufferSize min=\"4MB\"/></Internal></Domain></CycloneDDS>'")
FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def rmw(ros):
    """Which RMW implementation runs, and where it looks for others."""
    if not ros.works:
        return skip('ROS 2 is not usable here')
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or (
        'LOCALHOST' if os.environ.get('ROS_LOCALHOST_ONLY') == '1' else 'SUBNET')
    return ok(f'{ros.rmw}, domain {os.environ.get("ROS_DOMAIN_ID", "0")}, discovery {reach}')


def profile(ros):
    """Whether the transport can carry large pictures: by default, most are lost on the way."""
    if not ros.works:
        return skip('ROS 2 is not usable here')
    if 'fastrtps' in ros.rmw:
        return fast_dds_profile(os.environ, ros.distribution)
    if 'cyclone' in ros.rmw:
        return cyclone_settings(os.environ)
    if 'zenoh' in ros.rmw:
        return warn(f'{ros.rmw} is not tested with this package',
                    'see docs/transport.md, and check the rate: ros2 topic hz')
    return warn(f'{ros.rmw} is not known here', 'check that all pictures arrive: ros2 topic hz')


def export_line(variable, environment):
    """The shell command that sets the shipped profile."""
    return f'export {variable}={shlex.quote(str(transport_profile(environment)))}   # for the camera too'


def fast_dds_profile(environment, distribution):
    """The Verdict on the Fast DDS profile that `environment` names."""
    variable, other = PROFILE_VARIABLES
    if distribution in FAST_DDS_2:
        variable, other = other, variable
    path, cure = environment.get(variable), export_line(variable, environment)
    if not path and environment.get(other):
        return warn(f'{other} is set, but Fast DDS of {distribution} reads {variable}', cure)
    if not path:
        return warn('no Fast DDS profile: most pictures of 1280x720 and more are lost', cure)
    try:
        root = ElementTree.parse(Path(path)).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return fail(f'{variable}={path} cannot be read ({error}), and Fast DDS goes on without a word',
                    cure)
    listed = any(entry.tag.endswith('interfaceWhiteList') for entry in root.iter())
    if distribution == 'humble' and environment.get('ROS_LOCALHOST_ONLY') == '1' and not listed:
        return warn(f'{path}: its UDP listens on every interface, whatever ROS_LOCALHOST_ONLY says', cure)
    segment, message = largest_shared_memory(root)
    if segment < PICTURE_BYTES or message < PICTURE_BYTES:
        return warn(f'{path}: shared memory {segment} bytes, {message} a message; a 1080p picture has {PICTURE_BYTES}',
                    cure)
    return ok(f'{path}: shared memory {segment >> 20} MB, messages to {message >> 20} MB')


def largest_shared_memory(root):
    """(segment_size, maxMessageSize) in bytes of the roomiest SHM transport in a profile; 0 where not given."""
    sizes = [(0, 0)]
    for transport in root.iter():
        values = {child.tag.split('}')[-1]: (child.text or '').strip() for child in transport}
        if values.get('type') == 'SHM':
            sizes.append(tuple(int(values.get(name) or 0) for name in ('segment_size', 'maxMessageSize')))
    return max(sizes)


def cyclone_settings(environment, rmem_max='/proc/sys/net/core/rmem_max'):
    """The Verdict on Cyclone's receive buffer: pictures come in bursts of datagrams that must fit."""
    try:
        limit = int(Path(rmem_max).read_text())
    except OSError:   # in a container's own network
        limit = None
    if limit is not None and limit < CYCLONE_BUFFER:
        return warn(f'the kernel allows receive buffers of {limit} bytes: most large pictures are lost',
                    f'sudo sysctl -w net.core.rmem_max={CYCLONE_BUFFER}, then {CYCLONE_EXPORT}')
    if 'SocketReceiveBufferSize' not in _cyclone_text(environment.get('CYCLONEDDS_URI', '')):
        return warn('Cyclone DDS has its default receive buffer: part of large pictures is lost', CYCLONE_EXPORT)
    if limit is None:
        return warn(f'{rmem_max} cannot be read, so what the kernel allows is not known',
                    f'look outside the container: sysctl net.core.rmem_max should be {CYCLONE_BUFFER} or more')
    return ok('Cyclone DDS with a receive buffer of its own size')


def _cyclone_text(uri):
    """All settings that CYCLONEDDS_URI names: a list of XML texts and files."""
    if '<' in uri:
        return uri
    files = [Path(part.strip().removeprefix('file://')) for part in uri.split(',') if part.strip()]
    return ''.join(path.read_text() for path in files if path.is_file())
