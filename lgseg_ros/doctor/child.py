"""Try something in a Python of its own, because compiled modules that do not fit can take the process with them."""

import signal
import subprocess
from typing import NamedTuple

from ..python_process import python_code, python_module

LIMIT_S = 120   # importing torch from a cold disk on a busy machine takes a good part of this


class Outcome(NamedTuple):
    """worked: exit code 0; answer: the last line printed; reason: why it did not work, in one line."""

    worked: bool
    answer: str
    reason: str


def run_python(*arguments, limit=LIMIT_S):
    """Run this Python with `arguments` ('-c', code or '-m', module, and more) and return its `Outcome`."""
    kind, what, *more = arguments
    command = python_code(what) if kind == '-c' else python_module(what)
    try:
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Outcome(False, '', f'no answer within {limit} s')
    answer = last_line(done.stdout)
    if done.returncode == 0:
        return Outcome(True, answer, '')
    if done.returncode < 0:
        return Outcome(False, answer, f'crashed with {signal.Signals(-done.returncode).name}')
    return Outcome(False, answer, last_line(done.stderr)[:300] or f'exit code {done.returncode}')


def last_line(text):
    """The last line that is not blank, '' where there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), '')


def is_missing(outcome, module):
    """Whether the outcome is simply that `module` is not installed."""
    return outcome.reason == f"ModuleNotFoundError: No module named '{module}'"
