"""The notebook on agents keeps every promise that it makes, and leaves nothing behind."""

import os

import pytest

from tests.notebooks import check_failure, check_promises, code_cells, executed

NAME = "05_agents.ipynb"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("k")
        patch.setenv("TMPDIR", str(folder))
        patch.delenv("PYTEST_CURRENT_TEST")  # with it, a kernel's stderr is not as people have it
        yield folder, executed(NAME, folder)


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_shows_what_its_text_promises(played, name):
    check_promises(played[1][name])


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_fails_if_and_only_if_it_is_tagged_so(played, name):
    check_failure(played[1][name])


def test_its_repository_is_gone_with_the_kernel(played):
    assert [] == [name for name in os.listdir(played[0]) if name.startswith("hive-demo-")]
