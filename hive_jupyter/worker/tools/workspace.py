"""The files that tools may touch: those of the project."""

from __future__ import annotations


class _Workspace:
    """Where the worker is at home."""

    root = ""
    folder = ""


_HERE = _Workspace()


def enter(root: str, folder: str) -> None:
    """
    Say where the worker is at home.

    Args:
        root: the project's; nothing outside is read or written.
        folder: where relative paths begin.
    """
    _HERE.root, _HERE.folder = root, folder
