"""Paths of the files that the package ships, and of the user's cache."""

import os
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package's modules, with links resolved."""

NO_HOME = '/nonexistent'
"""Stands for the home of a user who has none, by Debian's convention. Not /tmp: anybody may put files there."""


def share_folders() -> Iterator[Path]:
    """Yield the folders that may hold config/, launch/ and weights/, the most specific first.

    They are the source tree, the share folders of colcon installs, and the folder inside a pip install.
    """
    source = PACKAGE.parent
    if (source / 'package.xml').exists():
        yield source
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / 'share' / 'lgseg_ros'
    yield PACKAGE / '_share'


def find_share(*parts: str) -> Path | None:
    """Find a file or folder that the package ships.

    Args:
        *parts: its relative path in parts, e.g. `find_share('weights', 'lgseg_lite0.json')`.

    Returns:
        Its path, or None where no share folder has it.
    """
    return next((path for folder in share_folders() if (path := folder.joinpath(*parts)).exists()), None)


def home_folder() -> Path:
    """Return the user's home; `NO_HOME` for a user without one, for whom Path.home() raises."""
    home = os.path.expanduser('~')   # stays "~" then
    return Path(NO_HOME if home == '~' else home)


def cache_folder() -> Path:
    """Return the folder of the user's caches. It may not exist yet.

    It is LGSEG_CACHE, else XDG_CACHE_HOME/lgseg, else ~/.cache/lgseg. For a user without a home it cannot be created.
    """
    chosen = os.environ.get('LGSEG_CACHE')
    if chosen:
        return Path(os.path.expanduser(chosen))
    return Path(os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache') / 'lgseg'
