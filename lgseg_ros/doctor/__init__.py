"""Checks of `lgseg doctor`: one small function a check, each returning a `CheckResult`."""
