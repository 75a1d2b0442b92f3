"""What an engine raises, and how its errors are quoted."""


class EngineError(RuntimeError):
    """An engine cannot be built or run here; the message names the reason and the fix."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
