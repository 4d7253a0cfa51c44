"""Reading files that somebody else may have put there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator

from hive_jupyter.errors import RepositoryError
from hive_jupyter.units import format_size

# No index and no attributes are so large; a hole of any size costs nothing to make.
LARGEST = 2**29


@contextlib.contextmanager
def regular(path: str | os.PathLike[str]) -> Iterator[int]:
    """
    Open a file for reading that somebody else may have put there.

    Args:
        path: where it is. Neither a pipe that nobody writes to nor a device without an end is read.

    Yields:
        Its descriptor.

    Raises:
        OSError: it cannot be opened.
        RepositoryError: it is something else than a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            msg = f"{os.fspath(path)!r} is no regular file, and so it is not read."
            raise RepositoryError(msg)
        yield descriptor
    finally:
        os.close(descriptor)


def copy_file(source: str, target: str | os.PathLike[str]) -> None:
    """
    Copy a file, with its time.

    Raises:
        OSError, RepositoryError: as for ``regular``; or it is too large to be what it should.
    """
    with regular(source) as descriptor, open(target, "wb") as copied:
        if os.fstat(descriptor).st_size > LARGEST:
            msg = f"{source!r} is larger than {format_size(LARGEST)}. Commit with git itself."
            raise RepositoryError(msg)
        with open(descriptor, "rb", closefd=False) as content:
            shutil.copyfileobj(content, copied)
        times = os.fstat(descriptor)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
