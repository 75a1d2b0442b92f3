"""Checks of the RMW implementation and of its settings for camera images (docs/how-to/transport.md)."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from ..launch_support.dds_profile import PROFILE_VARIABLES, dds_profile_path
from .check_result import CheckResult, fail, ok, skip, warn
from .ros import RosInstallation

IMAGE_BYTES = 1920 * 1080 * 3       # must fit at least
CYCLONE_BUFFER = 4 << 20            # bytes; delivers 1080p at 30 Hz (docs/how-to/transport.md)
CYCLONE_EXPORT = ("export CYCLONEDDS_URI='<CycloneDDS><Domain><Internal>"
                  "<SocketReceiveBufferSize min=\"4MB\"/></Internal></Domain></CycloneDDS>'")
FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def rmw(ros: RosInstallation) -> CheckResult:
    """Report the RMW implementation and its discovery range."""
    if not ros.usable:
        return skip('ROS 2 is not usable here')
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or (
        'LOCALHOST' if os.environ.get('ROS_LOCALHOST_ONLY') == '1' else 'SUBNET')
    return ok(f'{ros.rmw}, domain {os.environ.get("ROS_DOMAIN_ID", "0")}, discovery {reach}')


def profile(ros: RosInstallation) -> CheckResult:
    """Check whether the transport can carry large images: with default settings most are lost."""
    if not ros.usable:
        return skip('ROS 2 is not usable here')
    if 'fastrtps' in ros.rmw:
        return fast_dds_profile(os.environ, ros.distribution)
    if 'cyclone' in ros.rmw:
        return cyclone_settings(os.environ)
    if 'zenoh' in ros.rmw:
        return warn(f'{ros.rmw} is not tested with this package',
                    'see docs/how-to/transport.md, and check the rate: ros2 topic hz')
    return warn(f'{ros.rmw} is not known here', 'check that all images arrive: ros2 topic hz')


def export_line(variable: str, environment: Mapping[str, str]) -> str:
    """Return the shell command that sets the shipped profile."""
    return f'export {variable}={shlex.quote(str(dds_profile_path(environment)))}   # for the camera too'


def fast_dds_profile(environment: Mapping[str, str], distribution: str) -> CheckResult:
    """Check the Fast DDS profile that an environment names.

    Args:
        environment: environment variables.
        distribution: ROS distribution, which decides the variable that Fast DDS reads.

    Returns:
        The result of the check.
    """
    variable, other = PROFILE_VARIABLES
    if distribution in FAST_DDS_2:
        variable, other = other, variable
    path, hint = environment.get(variable), export_line(variable, environment)
    if not path and environment.get(other):
        return warn(f'{other} is set, but Fast DDS of {distribution} reads {variable}', hint)
    if not path:
        return warn('no Fast DDS profile: most images of 1280x720 and more are lost', hint)
    try:
        root = ElementTree.parse(Path(path)).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return fail(f'{variable}={path} cannot be read ({error}), and Fast DDS silently ignores it', hint)
    listed = any(entry.tag.endswith('interfaceWhiteList') for entry in root.iter())
    if distribution == 'humble' and environment.get('ROS_LOCALHOST_ONLY') == '1' and not listed:
        return warn(f'{path}: its UDP listens on every interface, despite ROS_LOCALHOST_ONLY', hint)
    segment, message = largest_shared_memory(root)
    if segment < IMAGE_BYTES or message < IMAGE_BYTES:
        return warn(f'{path}: shared memory {segment} bytes, {message} a message; a 1080p image has {IMAGE_BYTES}',
                    hint)
    return ok(f'{path}: shared memory {segment >> 20} MB, messages to {message >> 20} MB')


def largest_shared_memory(root: ElementTree.Element) -> tuple[int, int]:
    """Return (segment_size, maxMessageSize) in bytes of the largest SHM transport in a profile; 0 where not given."""
    sizes = [(0, 0)]
    for transport in root.iter():
        values = {child.tag.split('}')[-1]: (child.text or '').strip() for child in transport}
        if values.get('type') == 'SHM':
            sizes.append((int(values.get('segment_size') or 0), int(values.get('maxMessageSize') or 0)))
    return max(sizes)


def cyclone_settings(environment: Mapping[str, str],
                     rmem_max: str | Path = '/proc/sys/net/core/rmem_max') -> CheckResult:
    """Check the receive buffer of Cyclone DDS: an image arrives as a burst of datagrams that must fit.

    Args:
        environment: environment variables.
        rmem_max: file with the kernel's limit in bytes.

    Returns:
        The result of the check.
    """
    try:
        limit: int | None = int(Path(rmem_max).read_text())
    except OSError:   # in a container's own network
        limit = None
    if limit is not None and limit < CYCLONE_BUFFER:
        return warn(f'the kernel allows receive buffers of {limit} bytes: most large images are lost',
                    f'sudo sysctl -w net.core.rmem_max={CYCLONE_BUFFER}, then {CYCLONE_EXPORT}')
    if 'SocketReceiveBufferSize' not in _cyclone_text(environment.get('CYCLONEDDS_URI', '')):
        return warn('Cyclone DDS has its default receive buffer: some large images are lost', CYCLONE_EXPORT)
    if limit is None:
        return warn(f'{rmem_max} cannot be read, so the limit of the kernel is unknown',
                    f'check outside the container: sysctl net.core.rmem_max should be {CYCLONE_BUFFER} or more')
    return ok('Cyclone DDS with a configured receive buffer')


def _cyclone_text(uri: str) -> str:
    """Return all settings of a CYCLONEDDS_URI, which is a list of XML texts and files."""
    if '<' in uri:
        return uri
    files = [Path(part.strip().removeprefix('file://')) for part in uri.split(',') if part.strip()]
    return ''.join(path.read_text() for path in files if path.is_file())
