"""Tools of a worker for whom nothing new can be made in the project's top folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from hive_jupyter import HiveManager

WITHOUT = Path(__file__).parents[1] / "without.py"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working folder, a repository."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / "fence.py").write_text("posts = 3\n" * 1000)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hive(project, runtime, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -I -S "{WITHOUT}" namespaces "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    with HiveManager(workers={"coder": {"python": str(python)}}, connect_timeout=60) as hive:
        yield hive


def test_a_file_of_the_top_folder_is_edited(hive, project):
    told = hive.delegate_to_coder("write", {"path": "fence.py", "content": "posts = 4\n"})
    assert not told.is_error, str(told)
    assert (project / "fence.py").read_text() == "posts = 4\n"

    edit = {"path": "fence.py", "old_text": "4", "new_text": "5 * 1000"}
    told = hive.delegate_to_coder("edit_file", edit)
    assert not told.is_error, str(told)
    assert (project / "fence.py").read_text() == "posts = 5 * 1000\n"
    assert {path.name for path in project.iterdir()} == {".git", "fence.py"}


def test_a_new_file_there_is_refused_with_the_reason(hive, project):
    told = hive.delegate_to_coder("write", {"path": "new.py", "content": "x = 1\n"})

    assert told.is_error
    assert not (project / "new.py").exists()
    assert "nothing can be made" in str(told)
