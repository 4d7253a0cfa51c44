"""A policy as a profile for sandbox-exec. No macOS is at hand: what is tried is the text."""

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from hive_jupyter import HiveManager
from hive_jupyter.swarm import system
from hive_jupyter.worker.confine.seatbelt import profile
from tests import elsewhere

LINKS = {"/tmp": "/private/tmp", "/var": "/private/var", "/etc": "/private/etc"}
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[()]|[^\s()"]+')
ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


def resolve(path):
    """As on macOS, where the project has a link of its own, too."""
    path = path.replace("/Users/me/project/link", "/Users/me/project/.venv")
    top = "/" + path.split("/")[1]
    return LINKS.get(top, top) + path[len(top) :]


def parsed(text):
    """The profile as nested lists; strings are as what they stand for."""
    stack = [[]]
    for token in TOKEN.findall(text):
        if token == "(":
            stack.append([])
        elif token == ")":
            stack[-2].append(stack.pop())
        elif token[0] == '"':
            inner = re.sub(
                r"\\(.)", lambda m: ESCAPED.get(m[1], m[1]), token[1:-1], flags=re.DOTALL
            )
            stack[-1].append(("text", inner))
        else:
            stack[-1].append(token)
    (rules,) = stack
    return rules


def is_met(condition, path):
    kind, (_, value) = condition
    return path == value or (kind == "subpath" and path.startswith(value.rstrip("/") + "/"))


def allows(text, operation, path):
    """What the last rule says that is for this: so Apple's compiler has it."""
    decision = None
    for verdict, *rest in parsed(text):
        operations = [word for word in rest if isinstance(word, str)]
        conditions = [word for word in rest if isinstance(word, list)]
        if verdict == "version" or not any(fnmatchcase(operation, each) for each in operations):
            decision = verdict if operations == ["default"] else decision
            continue
        paths = [each for each in conditions if each[0] in {"subpath", "literal"}]
        if not conditions or any(is_met(each, path) for each in paths):
            decision = verdict
    return decision == "allow"


@pytest.fixture
def text():
    return profile(
        read=["/tmp/data", "/Users/me/project", "/opt"],
        write=["/Users/me/project", "/var/folders/w1/tmp"],
        never=["/Users/me/project/.git", "/Users/me/project/sub/.git", "/Users/me/project/link"],
        private=["/var/folders", "/Users/me/Library/Jupyter"],
        own="/var/folders/w1",
        connect=[443, 8080],
        binds_ports=False,
        resolve=resolve,
    )


def test_what_no_rule_names_is_refused(text):
    assert ["(version 1)", "(deny default)"] == text.splitlines()[:2]
    assert not allows(text, "file-read-data", "/Users/me/.ssh/id_rsa")
    assert not allows(text, "file-write-data", "/Users/me/notes")
    assert not allows(text, "file-write-create", "/private/tmp/data/x")


@pytest.mark.parametrize("path", ["/usr/lib/dyld", "/System/Library/x", "/private/tmp/data/x", "/"])
def test_what_may_be_read_is_named_without_links(text, path):
    assert allows(text, "file-read-data", path)
    assert not allows(text, "file-write-data", path)


def test_the_project_is_written_but_for_what_is_protected_in_it(text):
    assert allows(text, "file-write-create", "/Users/me/project/new.py")
    assert allows(text, "file-write-unlink", "/Users/me/project/old.py")
    for path in ("/.git/config", "/sub/.git/hooks/x", "/.venv/bin/python", "/link"):
        assert not allows(text, "file-write-data", f"/Users/me/project{path}")
        assert not allows(text, "file-write-unlink", f"/Users/me/project{path}")


def test_a_folder_around_what_is_protected_is_not_moved_away(text):
    assert not allows(text, "file-write-unlink", "/Users/me/project/sub")
    assert allows(text, "file-write-create", "/Users/me/project/sub/new.py")


def test_of_private_folders_there_is_the_workers_own(text):
    assert allows(text, "file-write-create", "/private/var/folders/w1/tmp/x")
    assert allows(text, "file-read-data", "/private/var/folders/w1/log")
    assert not allows(text, "file-read-data", "/private/var/folders/w2/log")
    assert not allows(text, "file-read-data", "/Users/me/Library/Jupyter/hive/ledger")
    own = '(subpath "/private/var/folders/w1")'
    assert f"(allow network-outbound (remote unix-socket {own}))" in text
    assert f"(allow network-bind network-inbound (local unix-socket {own}))" in text


def test_of_the_network_there_are_the_ports_of_the_policy(text):
    remote = re.findall(r"\(remote (?:tcp|udp|ip) [^)]*\)", text)

    assert ['(remote tcp "*:443")', '(remote tcp "*:8080")'] == remote
    assert "(local tcp" not in text


def test_without_sockets_the_worker_listens_on_this_machine_alone():
    text = profile(
        read=[], write=[], never=[], private=[], own="/w", connect=[], binds_ports=True, resolve=str
    )

    assert '(local tcp "localhost:*")' in text
    assert "(remote tcp" not in text


@pytest.mark.parametrize(
    "name", ['a "b"', "a\\b", "a\nb", "a b) (allow default", "ä;x", "tab\there"]
)
def test_whatever_a_path_is_called_it_stays_one_string(name):
    text = profile(
        read=[],
        write=[f"/{name}"],
        never=[f"/{name}/.git"],
        private=[],
        own="/w",
        connect=[],
        binds_ports=False,
        resolve=str,
    )

    assert allows(text, "file-write-data", f"/{name}/x")
    assert not allows(text, "file-write-data", f"/{name}/.git/x")
    assert not allows(text, "file-write-data", "/elsewhere")


def test_rules_without_a_path_would_hold_for_all_and_are_left_out():
    text = profile(
        read=[],
        write=[],
        never=[],
        private=[],
        own="/w",
        connect=[],
        binds_ports=False,
        resolve=str,
    )

    assert not allows(text, "file-write-data", "/x")
    assert allows(text, "file-write-data", "/w/x")
    assert all(rule[-1] != "file-write*" for rule in parsed(text))


# A program that stands for sandbox-exec: it notes the profile, and runs what it is to run.
STANDS_FOR_IT = """#!/bin/sh
printf %s "$2" > "$(dirname "$0")/profile"
test "$1" = -p && shift 2 && exec "$@"
"""


def test_a_confined_worker_is_started_by_sandbox_exec_and_that_is_said(
    runtime, tmp_path, monkeypatch
):
    """On Linux, with a program in its place that confines nothing."""
    program = tmp_path / "sandbox-exec"
    program.write_text(STANDS_FOR_IT)
    program.chmod(0o700)
    project = tmp_path / "the project"
    (project / ".git").mkdir(parents=True)
    prepare = (
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from hive_jupyter.worker.confine import seatbelt\n"
        f"seatbelt.SANDBOX_EXEC = {str(program)!r}\n"
        "del sys.path[0]\n"
    )
    monkeypatch.setattr(system, "IS_LINUX", False)
    monkeypatch.setattr(sys, "executable", elsewhere.interpreter(tmp_path, prepare))
    monkeypatch.chdir(project)
    with HiveManager(connect_timeout=60) as hive:
        hive.add("coder", python=sys.executable)
        result = hive.delegate("import os\nprint(os.environ['TMPDIR'])")
        text = (tmp_path / "profile").read_text()
        rows = {row.capability: row for row in hive.doctor().rows}

    assert "degraded" in result.stderr
    assert "cannot confine system calls, the number of processes" in result.stderr
    assert allows(text, "file-write-create", f"{project}/new.py")
    assert not allows(text, "file-write-create", f"{project}/.git/hooks/pre-commit")
    assert allows(text, "file-write-create", f"{result.stdout.strip()}/x")
    assert "sandbox-exec (degraded" in rows["sandbox workspace"].detail
    assert "partly" == rows["sandbox workspace"].state
    assert "missing" == rows["sandbox strict"].state
