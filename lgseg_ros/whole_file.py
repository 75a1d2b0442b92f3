"""Files that are there whole or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Gives the path of a file beside `path` to write; it takes `path`'s place when the block ends without an error.

    A reader never sees half a file, and a full disk or a battery that ends leaves the old one.  The folder is made
    where it is missing.  Raises OSError.
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
