"""Where a project begins: its root, which its workers' tools do not leave."""

from __future__ import annotations

import os
from pathlib import Path


def project_root(folder: str, home: str) -> str:
    """
    The project's root.

    Args:
        folder: the notebook's, absolute.
        home: the user's.

    Returns:
        The top level of the git repository that holds the folder, else the folder itself. A home
        folder, or one above it, is no project, whatever repository it is (of dotfiles, say).
    """
    start = Path(folder).resolve()
    for candidate in (start, *start.parents):
        if is_too_wide(candidate, home):
            break
        if os.path.lexists(candidate / ".git"):
            return str(candidate)
    return str(start)


def is_too_wide(folder: str | Path, home: str) -> bool:
    """Whether a folder is the home, or above it: then only its visible children are a project's."""
    return Path(home).resolve().is_relative_to(Path(folder).resolve())
