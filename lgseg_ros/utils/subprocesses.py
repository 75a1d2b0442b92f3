"""Child processes of this Python that find this package, whatever the current folder holds.

Python searches the current folder first. An empty folder `tensorrt` or a file `queue.py` there would be imported in
place of the real module.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = str(Path(__file__).parents[2])   # not resolved: the installed folder, where the files are links
SET_PATH = f'''import sys
sys.path[:] = filter(None, sys.path)
if {ROOT!r} not in sys.path:
    sys.path.insert(0, {ROOT!r})
'''
TIMEOUT_S = 120.0
"""Importing torch from a cold disk on a busy machine takes a good part of this."""


class ProcessResult(NamedTuple):
    """Result of a child process.

    Attributes:
        succeeded: whether the exit code was 0.
        answer: last line that it printed, '' for none.
        reason: why it failed, in one line; '' if it succeeded.
    """

    succeeded: bool
    answer: str
    reason: str


def python_code(code: str) -> list[str]:
    """Return the command that runs `code`. Words appended to it are in sys.argv from index 1 on."""
    return [sys.executable, '-c', SET_PATH + code]


def python_module(name: str) -> list[str]:
    """Return the command that runs the module `name` as a script. The name is a word of it, for ps and pgrep."""
    return [*python_code('import runpy\nrunpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'), name]


def start_module(name: str, *arguments: str, env: Mapping[str, str], stdout: int | None = None,
                 stderr: int | None = None) -> 'subprocess.Popen[str]':
    """Start a Python module as a script.

    Args:
        name: the module.
        *arguments: its command line.
        env: its environment.
        stdout: as for subprocess.Popen.
        stderr: as for subprocess.Popen.

    Returns:
        The process.
    """
    return subprocess.Popen([*python_module(name), *arguments], env=env, text=True, stdout=stdout, stderr=stderr)


def stop_process(process: 'subprocess.Popen[Any]', timeout: float = 5.0) -> int:
    """Interrupt a process with SIGINT; kill it if it runs for `timeout` more seconds. Returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def run_command(command: list[str], timeout: float = TIMEOUT_S) -> ProcessResult:
    """Run a command in a process of its own. A module that does not fit may crash that process, not this one.

    Args:
        command: e.g. from `python_code` or `python_module`, with arguments appended.
        timeout: seconds.

    Returns:
        What came of it. A crash and a timeout are results, not exceptions.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return ProcessResult(False, '', f'no answer within {timeout:g} s')
    answer = last_line(done.stdout)
    if done.returncode == 0:
        return ProcessResult(True, answer, '')
    if done.returncode < 0:
        return ProcessResult(False, answer, f'crashed with {signal.Signals(-done.returncode).name}')
    return ProcessResult(False, answer, last_line(done.stderr)[:300] or f'exit code {done.returncode}')


def run_code(code: str, *arguments: str, timeout: float = TIMEOUT_S) -> ProcessResult:
    """Run Python code with arguments; see `run_command`."""
    return run_command([*python_code(code), *arguments], timeout)


def run_module(name: str, *arguments: str, timeout: float = TIMEOUT_S) -> ProcessResult:
    """Run a Python module as a script with arguments; see `run_command`."""
    return run_command([*python_module(name), *arguments], timeout)


def is_missing(result: ProcessResult, module: str) -> bool:
    """Return whether the process failed only because `module` is not installed."""
    return result.reason == f"ModuleNotFoundError: No module named '{module}'"


def last_line(text: str) -> str:
    """Return the last line that is not blank, stripped; '' where there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), '')
