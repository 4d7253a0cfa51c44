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
VIEW = "application/vnd.jupyter.widget-view+json"
_MODEL = "IPY_MODEL_"


def code_cells(name):
    """The ids of a notebook's code cells."""
    return [cell.id for cell in _written(name).cells if cell.cell_type == "code"]


def executed(name, folder, before=None):
    """
    A notebook's code cells by their id, executed.

    Their metadata say what each was promised, had shown when it was over, widgets included, and
    took. ``before`` has, by the id of a cell, what is to be called before it is executed.

    Beside them "processes": what the kernel had started in the end, when all of that has ended; and
    "widgets": what is saved of each, by its model.
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
            cell.metadata["shown"] = "\n".join([shown(cell), *_widgets(cell, client.widget_state)])
            cells[cell.id] = cell
        cells["processes"] = kernel.children(recursive=True)
        cells["widgets"] = client.widget_state
    return cells


def check_promises(cell):
    """Each code span behind "You should see" stands in the output of the cell below."""
    promised, said = cell.metadata.promised, cell.metadata.shown
    assert promised, f"the text above {cell.id} promises nothing"
    missing = [promise for promise in promised if promise not in said]
    assert not missing, f"{cell.id} does not show {missing}, but:\n{said}"


def check_failure(cell):
    """A cell fails if and only if it is tagged so."""
    tagged = "raises-exception" in cell.metadata.get("tags", [])
    failed = any(output.output_type == "error" for output in cell.outputs)
    assert tagged == failed, f"{cell.id} shows:\n{cell.metadata.shown}"


def shown(cell):
    """What a cell shows, as text."""
    return "\n".join(map(shown_text, cell.outputs))


def _widgets(cell, state):
    """What a cell's widgets show, as text."""
    views = [output.data[VIEW] for output in cell.outputs if VIEW in output.get("data", ())]
    for view in views:
        yield from _texts(f"{_MODEL}{view['model_id']}", state)


def _texts(value, state):
    """The texts in a saved value: in models that it names, and in what an Output holds."""
    if isinstance(value, str) and value.startswith(_MODEL):
        yield from _texts(state[value.removeprefix(_MODEL)], state)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, dict) and "output_type" in value:
        yield shown_text(value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each, state)


def _written(name):
    """A notebook as it is stored."""
    return nbformat.read(FOLDER / name, as_version=4)
