"""What a check answers."""

from typing import NamedTuple

STATUSES = ('ok', 'warn', 'fail', 'skip')


class Verdict(NamedTuple):
    """status: ok, warn (works, but worse than it could), fail (cannot work) or skip (not here, or not needed).

    finding: what was seen; cure: what to do about it, '' where nothing need be done.
    """

    status: str
    finding: str
    cure: str = ''


def ok(finding):
    """All is well."""
    return Verdict('ok', finding)


def warn(finding, cure):
    """It works, but worse than it could, or will break later."""
    return Verdict('warn', finding, cure)


def fail(finding, cure):
    """It cannot work like this."""
    return Verdict('fail', finding, cure)


def skip(finding, cure=''):
    """Not here, and not needed for the rest; cure: how to get it, for those who want it."""
    return Verdict('skip', finding, cure)
