"""The notebook on commits keeps every promise that it makes, and leaves nothing behind."""

import os

import pytest

from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.guard.requests import Requester
from tests.notebooks import check_failure, check_promises, code_cells, executed
from tests.repos import with_a_change

NAME = "02_commit_approval.ipynb"


class Others:
    """What other people's programs ask for while the notebook runs."""

    def __init__(self, folder, repo):
        self.guard = AuthorizationGuard(folder / "data" / "hive" / "ledger.sqlite")
        self._repo = repo
        self.requests = []

    def ask(self):
        asker = Requester("agent", "an editor")
        commit, _ = repository.request_commit(self.guard, self._repo, "Other", requester=asker)
        call = self.guard.request_call(
            tool="save_file", arguments={"path": "a"}, worker="coder", requester=asker
        )
        self.requests += [commit, call]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("k")
        patch.setenv("TMPDIR", str(folder))
        with_a_change(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def others(folder):
    return Others(folder, folder / "repo")


@pytest.fixture(scope="module")
def played(folder, others):
    return folder, executed(NAME, folder, before={"look-code": others.ask})


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_shows_what_its_text_promises(played, name):
    check_promises(played[1][name])


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_fails_if_and_only_if_it_is_tagged_so(played, name):
    check_failure(played[1][name])


def test_what_others_ask_for_meanwhile_is_not_answered(played, others):
    assert others.requests
    assert ["pending"] * len(others.requests) == [
        others.guard.get(request.id).state for request in others.requests
    ]


def test_its_repository_is_gone_with_the_kernel(played):
    assert [] == [name for name in os.listdir(played[0]) if name.startswith("hive-demo-")]
