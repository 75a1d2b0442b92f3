"""Where measured figures go for machines: the option --json."""

import json
from pathlib import Path


def add_json(parser):
    """Declare --json FILE."""
    parser.add_argument('--json', metavar='FILE', help='write the figures there too')


def write_json(path, figures):
    """Write `figures` to `path`, making its folder; None writes nothing.

    In place, because /dev/stdout and named pipes are wanted too.  Raises OSError.
    """
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + '\n')
