"""Every call of git is held to the rules."""

import os
import shutil

from hive_jupyter.guard import configuration, freeze, repository
from hive_jupyter.guard import git as gits
from tests.repos import ask, commit


def test_hooks_by_name_are_turned_off_by_name(repo):
    """As git 2.54 runs them; this one may be older."""
    repo("config", "hook.e=v.il.event", "reference-transaction")

    settings = gits.at(str(repo.folder / ".git")).settings

    assert {**gits.LASTING, "hook.e=v.il.enabled": "false"} == settings


def test_every_call_of_git_is_held_to_the_rules(guard, repo, monkeypatch):
    """On the whole way: git by its path, in an environment of Hive's own, without a terminal."""
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "evil")
    calls, run = [], gits.run_program

    def noted(command, folder, environment, stdin=b"", **options):
        calls.append((command, dict(environment), stdin))
        return run(command, folder, environment, stdin, **options)

    for module in (gits, configuration, freeze):
        monkeypatch.setattr(module, "run_program", noted)
    repo.write("a.py", "2\n")
    repo.write(":(top)new", "n\n")
    request = ask(guard, repo, ["a.py", ":(top)new"])
    request.diff()
    commit(guard, request)
    repository.settle(guard)

    assert len(calls) > 20
    for command, environment, stdin in calls:
        assert command[0] == shutil.which("git")
        assert environment["GIT_TERMINAL_PROMPT"] == environment["GIT_OPTIONAL_LOCKS"] == "0"
        assert environment["GIT_NO_REPLACE_OBJECTS"] == environment["GIT_LITERAL_PATHSPECS"] == "1"
        assert not {"GIT_SEQUENCE_EDITOR", "GIT_EDITOR", "GIT_PAGER"} & set(environment)
        assert stdin is not None
        if "rev-parse" not in command and "config" not in command and "var" not in command:
            assert {"core.hooksPath=/dev/null", "core.fsmonitor=false"} <= set(command)
            assert environment["GIT_GRAFT_FILE"] == os.devnull
            assert environment["GIT_ALLOW_PROTOCOL"] == "none"
            assert environment["GIT_NO_LAZY_FETCH"] == "1"
            assert environment["GIT_DIR"]
        if {"update-ref", "--strict"} & set(command):
            assert "core.fsync=committed,reference" in command
    assert {"update-ref", "--strict"} <= {word for command, _, _ in calls for word in command}
