"""Execute a notebook with this Python, and check what it promises: ``played.py NAME FOLDER``."""

import sys
from pathlib import Path

# behind what is installed: that is what is tried
sys.path.append(str(Path(__file__).parents[2]))

from tests.notebooks import check_failure, check_promises, code_cells, executed


def main():
    name, folder = sys.argv[1:]
    cells = executed(name, Path(folder))
    for cell in code_cells(name):
        check_failure(cells[cell])
        check_promises(cells[cell])


if __name__ == "__main__":
    main()
