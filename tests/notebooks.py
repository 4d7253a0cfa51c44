"""Notebooks, executed cell by cell, beside what the text above each cell promises."""

import sys
import time
from pathlib import Path

import nbformat
import psutil
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from hive_jupyter.demo import promises, shown_text

FOLDER = Path(__file__).parents[1] / "notebooks"


def code_cells(name):
    """The ids of a notebook's code cells."""
    return [cell.id for cell in _written(name).cells if cell.cell_type == "code"]


def executed(name, folder, before=None):
    """
    A notebook's code cells by their id, executed; metadata say what each was promised and took.

    ``before`` has, by the id of a cell, what is to be called before it is executed.

    Beside them "processes": what the kernel had started in the end, when all of that has ended.
    """
    notebook = _written(name)
    manager = KernelManager(
        kernel_name=NATIVE_KERNEL_NAME,
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        connection_file=str(folder / "kernel.json"),
    )
    client = NotebookClient(notebook, km=manager, timeout=60)
    cells = {}
    promised = []
    with client.setup_kernel(cwd=str(FOLDER), cleanup_kc=True):
        assert manager.kernel_spec.argv[0] == sys.executable
        kernel = psutil.Process(manager.provisioner.process.pid)
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":
                promised = promises(cell.source)
                continue
            if before and cell.id in before:
                before[cell.id]()
            begun = time.monotonic()
            client.execute_cell(cell, index)
            cell.metadata["promised"], promised = promised, []
            cell.metadata["seconds"] = time.monotonic() - begun
            cells[cell.id] = cell
        cells["processes"] = kernel.children(recursive=True)
    return cells


def check_promises(cell):
    """Each code span behind "You should see" stands in the output of the cell below."""
    assert cell.metadata.promised, "the text above the cell promises nothing"
    assert [] == [promise for promise in cell.metadata.promised if promise not in shown(cell)]


def check_failure(cell):
    """A cell fails if and only if it is tagged so."""
    tagged = "raises-exception" in cell.metadata.get("tags", [])
    assert tagged == any(output.output_type == "error" for output in cell.outputs)


def shown(cell):
    """What a cell shows, as text."""
    return "\n".join(map(shown_text, cell.outputs))


def _written(name):
    """A notebook as it is stored."""
    return nbformat.read(FOLDER / name, as_version=4)
