"""The fault table: each break that a test makes of the real thing, and what the user sees of it.

Tests enter their rows with `fault` (one row) or `fault_rows` (a row each parameter set);
docs/reference/faults.md is written from them:

    python test/faults_table.py > docs/reference/faults.md
"""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / 'docs' / 'reference' / 'faults.md'
HEAD = """# Failure modes

Every row is a test that breaks the real thing: the node runs as a process of its own and is spoken to over DDS, unless
the row says otherwise. Run them with `./scripts/test.sh test/test_faults*.py`. This file is written from the tests by
`python test/faults_table.py > docs/reference/faults.md`, and a test fails when it differs.

Hostile images and vocabularies are each followed by a good frame on the same camera, which must give a mask.
"""


class Fault(NamedTuple):
    """One row."""

    group: str
    broken: str
    seen: str
    test: str


FAULTS = []


def fault(group, broken, seen):
    """Enter the row that the decorated test proves."""
    def register(test):
        FAULTS.append(Fault(group, broken, seen, f'{Path(test.__code__.co_filename).stem}::{test.__name__}'))
        return test
    return register


def fault_rows(group, names, rows):
    """Parametrize a test by `rows`, each (broken, seen, *values of `names`), and enter them all."""
    def register(test):
        for broken, seen, *_ in rows:
            fault(group, broken, seen)(test)
        return pytest.mark.parametrize(names, [pytest.param(*values, id=broken) for broken, _, *values in rows])(test)
    return register


def all_faults():
    """The rows of all test modules by group; groups and rows in the order in which the modules have them."""
    for path in sorted(HERE.glob('test_faults*.py')):
        importlib.import_module(path.stem)
    # pytest may have imported the modules in another order; sorting is stable.
    rows = sorted(FAULTS, key=lambda row: row.test.partition('::')[0])
    groups = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: groups.index(row.group))


def render():
    """docs/reference/faults.md as text."""
    rows, lines, group = all_faults(), [HEAD], None
    for number, row in enumerate(rows, 1):
        if row.group != group:
            group = row.group
            lines.append(f'\n## {group}\n\n| # | broken | seen | test |\n| --- | --- | --- | --- |\n')
        cells = (text.replace('|', '\\|') for text in (row.broken, row.seen, f'`{row.test}`'))
        lines.append(f'| {number} | {" | ".join(cells)} |\n')
    return ''.join(lines)


if __name__ == '__main__':
    # As a script this file is __main__; the tests enter their rows in the module of its name.
    sys.path[:0] = [str(HERE / 'helpers'), str(HERE)]
    sys.stdout.write(importlib.import_module('faults_table').render())
