"""Commands that start this Python with the package, whatever lies in the folder where the user happens to be.

Python looks for modules in the present folder first: an empty folder `tensorrt` or a file `queue.py` there would be
imported in place of the real one.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[1])   # not resolved: the installed one, where the files are links
FIRST = f'''import sys
sys.path[:] = filter(None, sys.path)
if {ROOT!r} not in sys.path:
    sys.path.insert(0, {ROOT!r})
'''


def python_code(code):
    """The command that runs `code`; what is appended to it is in sys.argv from 1 on."""
    return [sys.executable, '-c', FIRST + code]


def python_module(name):
    """The command that runs the module `name` as a script; the name is a word of it, so that ps and pgrep tell it."""
    return [*python_code('import runpy\nrunpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'), name]
