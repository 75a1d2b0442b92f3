"""Where the package's own files lie: source tree, colcon install or pip install."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def share_folders():
    """Folders that may hold config/, launch/ and weights/, the most specific first."""
    source = PACKAGE.parent
    if (source / 'package.xml').exists():
        yield source
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / 'share' / 'lgseg_ros'
    yield PACKAGE / '_share'


def find_share(*parts):
    """Path of a file the package ships, e.g. find_share('weights', 'lgseg_lite0.json'), or None."""
    return next((path for folder in share_folders() if (path := folder.joinpath(*parts)).exists()), None)
