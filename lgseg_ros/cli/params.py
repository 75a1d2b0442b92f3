"""Print the node's parameters: name, type, default, what is allowed, whether it may change at run time.

The table comes from the declarations themselves (lgseg_ros/node/settings.py), as does docs/parameters.md.

Examples:
  lgseg params
  lgseg params --yaml > my_robot.yaml                        (a parameter file with every default)
  lgseg params --markdown > docs/parameters.md               (after a change of a declaration)
"""

import json
from dataclasses import fields
from typing import NamedTuple

REGENERATE = 'lgseg params --markdown > docs/parameters.md'


class Row(NamedTuple):
    """One parameter; default is a plain value, the rest text ('' for nothing to say)."""

    name: str
    type: str
    default: object
    allowed: str
    changeable: bool
    description: str


def parameter_rows():
    """A `Row` for each parameter, in the order of declaration.

    Raises RuntimeError where ROS is not sourced, since the declarations use its descriptors.
    """
    try:
        from ..node.settings import Settings, type_name
    except ImportError as error:
        raise RuntimeError(f'the declarations need ROS 2, and their import failed ({error}): source your distribution, '
                           'or scripts/activate.sh in a clone; docs/parameters.md holds the same table') from error
    defaults = Settings()
    return [Row(entry.name, type_name(entry), getattr(defaults, entry.name), allowed(entry.metadata),
                entry.metadata['changeable'], entry.metadata['description']) for entry in fields(Settings)]


def allowed(metadata):
    """The range or the choices of a parameter in words, '' where any value will do."""
    if metadata['choices']:
        return ', '.join(metadata['choices'])
    if metadata['low'] is not None:
        return f'{metadata["low"]} to {metadata["high"]}'
    return ''


def as_text(rows):
    """The table for a terminal: two lines a parameter."""
    lines = []
    for row in rows:
        facts = [row.type, f'default {json.dumps(row.default)}', row.allowed,
                 'may change at run time' if row.changeable else 'fixed at start']
        lines += [f'{row.name}: {"; ".join(fact for fact in facts if fact)}', f'    {row.description}']
    return '\n'.join(lines)


def as_markdown(rows):
    """docs/parameters.md, whole."""
    def cell(text):
        return str(text).replace('|', '\\|')

    head = ['<!-- Do not edit: written by `' + REGENERATE + '` from lgseg_ros/node/settings.py. -->', '',
            '# Parameters of the node', '',
            'Those that may change at run time are set with `ros2 param set /lgseg NAME VALUE`: a value that is not',
            'allowed is refused with the reason and changes nothing. The others are given at start: as `NAME:=VALUE` to',
            '`ros2 launch`, with `-p NAME:=VALUE` to the node itself, or in a parameter file (`config/segment.yaml`, or',
            '`lgseg params --yaml` for all of them).', '',
            '| name | type | default | allowed | at run time | description |', '| --- | --- | --- | --- | --- | --- |']
    return '\n'.join(head + [
        f'| `{row.name}` | {row.type} | `{cell(json.dumps(row.default))}` | {cell(row.allowed)} | '
        f'{"may change" if row.changeable else "fixed"} | {cell(row.description)} |' for row in rows])


def as_yaml(rows):
    """A ROS parameter file with every default."""
    lines = ['/**:', '  ros__parameters:']
    for row in rows:
        lines += [f'    # {row.description}' + (f' ({row.allowed})' if row.allowed else ''),
                  f'    {row.name}: {json.dumps(row.default)}']   # what JSON writes for these types is YAML too
    return '\n'.join(lines)


def as_json(rows):
    """The table for programs: a list of objects."""
    return json.dumps([row._asdict() for row in rows], indent=2)


FORMATS = {'markdown': as_markdown, 'json': as_json, 'yaml': as_yaml}


def add_arguments(parser):
    """The command line of `lgseg params`."""
    group = parser.add_mutually_exclusive_group()
    for name, write in FORMATS.items():
        group.add_argument(f'--{name}', dest='write', action='store_const', const=write, help=write.__doc__)
    parser.set_defaults(write=as_text)


def run(arguments):
    """Print the table.  Returns 0."""
    print(arguments.write(parameter_rows()))
    return 0
