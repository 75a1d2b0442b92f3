"""Point the CMake files that ROS wheels install at this interpreter's headers.

The wheels were built on another machine, and their exported targets carry its include folders
(.../include/python3.11 and .../site-packages/numpy/_core/include). Run it with the interpreter of the
environment they were installed into. A second run changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILD_MACHINE = r'/opt/python/cp\d+-cp\d+'
REPLACEMENTS = [
    (re.compile(BUILD_MACHINE + r'/lib/python[\d.]+/site-packages/numpy/_core/include'), numpy.get_include()),
    (re.compile(BUILD_MACHINE + r'/include/python[\d.]+'), sysconfig.get_paths()['include']),
]


def main() -> None:
    """Rewrite the CMake files of this environment and print how many changed."""
    changed = 0
    for path in Path(sys.prefix, 'share').glob('*/cmake/*.cmake'):
        old = new = path.read_text()
        for pattern, replacement in REPLACEMENTS:
            new = pattern.sub(replacement.replace('\\', r'\\'), new)
        if new != old:
            path.write_text(new)
            changed += 1
    print(f'{changed} CMake files under {sys.prefix}/share now use {sysconfig.get_paths()["include"]}')


if __name__ == '__main__':
    main()
