"""Imports go down: a room imports itself and the rooms before it in ROOMS, and no import at the top closes a cycle."""

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / 'lgseg_ros'
# The lowest first. The procedural street is a leaf: images of it calibrate INT8 and make the self-test.
ROOMS = ('utils', 'vocabulary', 'model', 'demo.street', 'media', 'engines', 'training', 'pipeline', 'api',
         'launch_support', 'node', 'demo', 'doctor', 'cli')
GENERATED = {'srv'}   # by the build, from srv/*.srv


def modules():
    """{module name below the package: its path}."""
    paths = {'.'.join(path.relative_to(PACKAGE).with_suffix('').parts): path for path in PACKAGE.rglob('*.py')}
    return {name.removesuffix('__init__').rstrip('.'): path for name, path in paths.items() if name != '__init__'}


def type_checking_only(tree):
    """The nodes that run for type checkers alone."""
    guards = [node for node in ast.walk(tree)
              if isinstance(node, ast.If) and ast.unparse(node.test).endswith('TYPE_CHECKING')]
    return {id(node) for guard in guards for node in ast.walk(guard)}


def imports(name, path, known, top_only=False):
    """The modules of the package that a module imports."""
    tree = ast.parse(path.read_text())
    skipped = type_checking_only(tree)
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    for node in tree.body if top_only else ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in skipped:
            continue
        parts = package[:len(package) - node.level + 1] + (node.module.split('.') if node.module else [])
        for alias in node.names:
            whole = '.'.join([*parts, alias.name])
            yield whole if whole in known else '.'.join(parts)


def room(module):
    return next((each for each in ('demo.street',) if module.startswith(each)), module.split('.')[0])


def test_no_room_imports_a_higher_one():
    known = modules()
    upward = [f'{name} imports {target}' for name, path in known.items() for target in imports(name, path, known)
              if target and room(target) not in GENERATED and ROOMS.index(room(target)) > ROOMS.index(room(name))]
    assert not upward


def test_no_cycle_of_modules():
    known = modules()
    graph = {name: set(imports(name, path, known, top_only=True)) - {name} for name, path in known.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())   # raises CycleError
    assert len(order) >= len(known)
