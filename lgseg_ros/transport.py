"""The Fast DDS profile that lets large pictures through (docs/transport.md), for the processes that we start."""

from .paths import find_share

# Fast DDS 3 renamed the variable and does not read the old one; Fast DDS 2 does not know the new one.
PROFILE_VARIABLES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


def transport_profile(environment):
    """Path of the Fast DDS profile for a process of `environment` (docs/transport.md).

    Humble keeps to this host by a transport of its own that it puts beside those of a profile, whose UDP would go on
    listening everywhere: with ROS_LOCALHOST_ONLY it takes a profile that does not.
    """
    alone = environment.get('ROS_LOCALHOST_ONLY') == '1'
    return find_share('config', 'fastdds_localhost.xml' if alone else 'fastdds.xml')


def profile_variables(environment):
    """{variable: path} that bring the profile to a process of `environment`; empty where the user has one."""
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(transport_profile(environment)))
