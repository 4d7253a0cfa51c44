"""The notebook on a Dask cluster keeps every promise that it makes."""

import psutil
import pytest

from tests.notebooks import check_failure, check_promises, code_cells, executed

NAME = "07_scale_out.ipynb"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return executed(NAME, tmp_path_factory.mktemp("k"))


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_shows_what_its_text_promises(played, name):
    check_promises(played[name])


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_fails_if_and_only_if_it_is_tagged_so(played, name):
    check_failure(played[name])


def test_no_worker_outlives_the_kernel(played):
    assert not psutil.wait_procs(played["processes"], timeout=30)[1]
