"""What a cell says beyond what is shown of it, in a file."""

from __future__ import annotations

import contextlib
import os
import secrets

from hive_jupyter.units import format_size

_LARGEST_FILE = 2**30


class Surplus:
    """
    A file that the host makes when there is something to put into it.

    Args:
        folder: the worker's private one. The worker may put what it likes there, so the file is a
            new one, and stays open.

    Attributes:
        path: of the file; "" where none was made.
        trouble: why not all could be kept, or "".
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = -1
        self._left = _LARGEST_FILE
        self.path = ""
        self.trouble = ""

    def add(self, text: str) -> None:
        """Keep a text, as long as there is room."""
        data = text.encode(errors="replace")
        if self.trouble:
            return
        try:
            if self._file < 0:
                self._open()
            written = os.write(self._file, data[: self._left])
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return
        self._left -= written
        if self._left <= 0:
            self.trouble = f"it has reached {format_size(_LARGEST_FILE)}"
        elif written < len(data):
            self.trouble = "the disk is full"

    def close(self) -> None:
        """Keep nothing more."""
        self.trouble = self.trouble or "the cell has ended"
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        path = os.path.join(self._folder, f"output-{secrets.token_hex(4)}.txt")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self.path = path
