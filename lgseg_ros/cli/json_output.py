"""Results for programs: the option --json."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Declare --json without a value: print JSON instead of text."""
    parser.add_argument('--json', action='store_true', help='print the results as JSON')


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Declare --json FILE: write JSON besides printing text."""
    parser.add_argument('--json', metavar='FILE', help='write the results to this file as JSON, too')


def write_json(path: str | Path | None, results: Mapping[str, object]) -> None:
    """Write results as JSON.

    Not atomically, because /dev/stdout and named pipes are allowed.

    Args:
        path: the file, whose folder is created where it is missing; None writes nothing.
        results: what JSON can represent.

    Raises:
        OSError: the file cannot be written.
    """
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + '\n')
