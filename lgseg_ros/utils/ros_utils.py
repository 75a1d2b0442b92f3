"""Names and environment variables of ROS. Needs no ROS."""

import os
import re
from collections.abc import MutableMapping
from pathlib import Path


def is_topic_name(text: str) -> bool:
    """Return whether a text is an absolute ROS topic name, and neither an existing file nor a device."""
    return (bool(re.fullmatch(r'(/[A-Za-z_]\w*)+', text)) and not Path(text).exists()
            and not text.startswith('/dev/'))


def limit_discovery_to_localhost(environment: MutableMapping[str, str] = os.environ) -> None:
    """Hide the ROS graph of a process from other machines, unless its environment sets the discovery range.

    Args:
        environment: that of the process; changed in place.
    """
    if environment.get('ROS_DISTRO') == 'humble':   # later distributions warn about its variable
        environment.setdefault('ROS_LOCALHOST_ONLY', '1')
    else:
        environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
