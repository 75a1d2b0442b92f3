"""Files that exist completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Replace a file atomically: write to a temporary file beside it and rename that at the end.

    A reader never sees half a file. A full disk, an error or a power failure leaves the old file.

    Args:
        path: the file to write. Its folder is created where it is missing.

    Yields:
        Path of the temporary file. The block writes it; it replaces `path` if the block ends without an error.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        yield partial
        with open(partial, 'rb') as file:
            os.fsync(file.fileno())   # else the name may reach the disk before the bytes do
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
