"""
Notebooks are kept as they were written: valid, and without anything that running them leaves.

Run from the project's root: ``python tools/check_notebooks.py [FOLDER ...]``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat

FOLDERS = ("notebooks", "docs")


def notebooks(folders: list[Path]) -> list[Path]:
    """All notebooks below the folders, without the copies that Jupyter keeps of them."""
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    )


def problems(path: Path) -> Iterator[str]:
    """What is wrong with one notebook, a line for each thing."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            # nbformat only warns of cells without an id, and repairs its copy.
            warnings.simplefilter("error")
            nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError, Warning) as error:
        yield f"is no valid notebook: {str(error).splitlines()[0]}"
        return
    if notebook["nbformat"] != nbformat.current_nbformat:
        yield f"has the old format {notebook['nbformat']}"
        return
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell.get("outputs"):
            yield f"stores the output of cell {number}"
        if cell.get("execution_count") is not None:
            yield f"stores the execution count of cell {number}"


def main(arguments: list[str]) -> int:
    """Print every problem; the exit code tells whether there is one."""
    paths = notebooks([Path(name) for name in arguments or FOLDERS])
    found = [f"{path} {problem}" for path in paths for problem in problems(path)]
    if found:
        print(*found, sep="\n")
        print('Clear them in JupyterLab: "Edit", "Clear Outputs of All Cells", then save.')
    else:
        print(f"Notebooks looked at: {len(paths)}. All are valid and without outputs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
