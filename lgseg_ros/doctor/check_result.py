"""The result of a check."""

from typing import Literal, NamedTuple

Status = Literal['ok', 'warn', 'fail', 'skip']
STATUSES: tuple[Status, ...] = ('ok', 'warn', 'fail', 'skip')


class CheckResult(NamedTuple):
    """Result of one check.

    Attributes:
        name: name of the check; `run_check` fills it in.
        status: ok, warn (works, but worse than it could), fail (cannot work) or skip (not present, or not needed).
        finding: what was found, in one line.
        hint: what to do about it; '' where nothing needs to be done.
    """

    name: str
    status: Status
    finding: str
    hint: str


def ok(finding: str) -> CheckResult:
    """Return the result of a check that passed."""
    return CheckResult('', 'ok', finding, '')


def warn(finding: str, hint: str) -> CheckResult:
    """Return the result for something that works, but worse than it could, or that will break later."""
    return CheckResult('', 'warn', finding, hint)


def fail(finding: str, hint: str) -> CheckResult:
    """Return the result for something that cannot work as it is."""
    return CheckResult('', 'fail', finding, hint)


def skip(finding: str, hint: str = '') -> CheckResult:
    """Return the result for something that is not present and that nothing else needs; `hint` says how to get it."""
    return CheckResult('', 'skip', finding, hint)
