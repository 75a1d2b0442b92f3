"""The `lgseg` command."""
