"""Check this machine for everything that keeps the node from working, or from working well.

One line a check; the line below it says how to fix it. The exit code is 1 if a check failed; warnings do not count.

Examples:
  lgseg doctor
  lgseg doctor --topic /camera/image_raw                     (who publishes it, and is the QoS compatible?)
  lgseg doctor --json > report.json
"""

import argparse
import json
import sys

from ..doctor.check_result import CheckResult
from ..doctor.checks import run_checks

COLOURS = {'ok': '32', 'warn': '33', 'fail': '31', 'skip': '2'}
"""SGR codes of terminals by status."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg doctor`."""
    parser.add_argument('--topic', action='append', default=[], metavar='T',
                        help='a topic to check, e.g. that of the camera; may be given several times')
    parser.add_argument('--json', action='store_true', help='print a list of {name, status, finding, hint}')


def run(arguments: argparse.Namespace) -> int:
    """Print the results as they come. Returns 1 if a check failed, else 0."""
    results: list[CheckResult] = []
    for result in run_checks(arguments.topic):
        results.append(result)
        if not arguments.json:
            print(format_result(result, sys.stdout.isatty()), flush=True)
    if arguments.json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    return int(any(result.status == 'fail' for result in results))


def format_result(result: CheckResult, colour: bool = False) -> str:
    """Return a result as one line, with its hint in a second one; `colour` adds terminal codes."""
    status = f'\033[{COLOURS[result.status]}m{result.status}\033[0m' if colour else result.status
    line = f'{status}{" " * (5 - len(result.status))}{result.name:<14} {result.finding}'
    return f'{line}\n{" " * 20}-> {result.hint}' if result.hint else line
