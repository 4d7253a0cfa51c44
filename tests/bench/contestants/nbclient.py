"""Cells of a notebook, as nbclient executes them."""

import os
from contextlib import suppress

from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from tests.bench import work


def cold_start(_size):
    client = NotebookClient(new_notebook(cells=[new_code_cell("1 + 1")]))
    return [work.timed(lambda: _execute_first(client))]


def _execute_first(client):
    """Start a kernel, and run one cell; the end of the kernel is not waited for."""
    client.reset_execution_trackers()
    client.create_kernel_manager()
    client.start_new_kernel()
    client.start_new_kernel_client()
    client.execute_cell(client.nb.cells[0], 0)


def warm_call(size):
    client = NotebookClient(new_notebook(cells=[new_code_cell("pass")]))
    with client.setup_kernel():
        return work.repeated(lambda: client.execute_cell(client.nb.cells[0], 0), size)


def recovery(size):
    return [_recover() for _ in range(size)]


def _recover():
    file = os.path.abspath("died")
    client = NotebookClient(new_notebook(cells=[new_code_cell("1 + 1")]))
    _execute_first(client)
    with suppress(DeadKernelError):
        client.execute_cell(new_code_cell(work.suicide(file)), 0)
    again = NotebookClient(new_notebook(cells=[new_code_cell("1 + 1")]))
    _execute_first(again)
    return work.since_death(file)
