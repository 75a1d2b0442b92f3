"""Check this machine for everything that keeps the node from working, or from working well.

One line a check; the line below it says what to do. The exit code is 1 if a check failed, warnings aside.

Examples:
  lgseg doctor
  lgseg doctor --topic /camera/image_raw                     (who publishes it, and does the QoS fit?)
  lgseg doctor --json > report.json
"""

import json
import sys

from ..doctor.examine import examine

COLOURS = {'ok': '32', 'warn': '33', 'fail': '31', 'skip': '2'}


def add_arguments(parser):
    """The command line of `lgseg doctor`."""
    parser.add_argument('--topic', action='append', default=[], metavar='T',
                        help='a topic to look at, e.g. that of the camera; may be given several times')
    parser.add_argument('--json', action='store_true', help='print a list of {name, status, finding, cure}')


def run(arguments):
    """Print the findings as they come.  Returns 1 if a check failed, else 0."""
    findings = []
    for finding in examine(arguments.topic):
        findings.append(finding)
        if not arguments.json:
            print(as_line(finding, sys.stdout.isatty()), flush=True)
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    return int(any(finding.status == 'fail' for finding in findings))


def as_line(finding, colour=False):
    """The finding in a line, and its cure in a second one where it has one."""
    status = f'\033[{COLOURS[finding.status]}m{finding.status}\033[0m' if colour else finding.status
    line = f'{status}{" " * (5 - len(finding.status))}{finding.name:<14} {finding.finding}'
    return f'{line}\n{" " * 20}-> {finding.cure}' if finding.cure else line
