"""The Fast DDS profile for large images (docs/how-to/transport.md), for the processes that we start."""

from collections.abc import Mapping
from pathlib import Path

from ..utils.paths import find_share

# Fast DDS 3 renamed the variable and does not read the old one; Fast DDS 2 does not know the new one.
PROFILE_VARIABLES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


def dds_profile_path(environment: Mapping[str, str]) -> Path | None:
    """Return the path of the Fast DDS profile for a process.

    Humble keeps to this host by a transport of its own. It adds that to the transports of a profile, whose UDP would go
    on listening everywhere: with ROS_LOCALHOST_ONLY it takes a profile that does not.

    Args:
        environment: that of the process.

    Returns:
        The path, or None where the package is not installed with its files.
    """
    localhost_only = environment.get('ROS_LOCALHOST_ONLY') == '1'
    return find_share('config', 'fastdds_localhost.xml' if localhost_only else 'fastdds.xml')


def dds_profile_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that give the profile to a process.

    Args:
        environment: that of the process.

    Returns:
        Paths by variable; empty where the user has a profile.
    """
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(dds_profile_path(environment)))
