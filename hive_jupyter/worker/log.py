"""A log that holds what was written last, however much that was."""

from __future__ import annotations

import contextlib
import os

# As many bytes are kept.
KEPT = 2**20


class RecentLog:
    """
    A file with the latest that was written to it.

    A full disk, or something that somebody put in its way, costs log and nothing else.

    Args:
        path: of the file; another one of this name is replaced.
        kept: bytes that are kept; the file has twice as many at most, and one piece more.
    """

    def __init__(self, path: str, kept: int = KEPT) -> None:
        self._path = path
        self._kept = kept
        self._file, self._size = self._replace(b"")

    def write(self, piece: bytes) -> None:
        """Add a piece; the oldest ones go where it is too much."""
        with contextlib.suppress(OSError):
            self._size += os.write(self._file, piece)
        if self._size > 2 * self._kept:
            self._shorten()

    def _shorten(self) -> None:
        old = self._file
        try:
            tail = os.pread(old, self._kept, self._size - self._kept)
            self._file, self._size = self._replace(tail)
            os.close(old)
        except OSError:
            os.ftruncate(old, 0)
            self._size = 0

    def _replace(self, content: bytes) -> tuple[int, int]:
        """Put a file with this content in place of the one there is, so that readers see either."""
        fresh = f"{self._path}.fresh"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            size = os.write(descriptor, content)
            os.replace(fresh, self._path)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, size
