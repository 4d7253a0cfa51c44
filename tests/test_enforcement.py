"""The doctor says what Hive has of what it needs of this machine, and each probe can fail."""

import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from hive_jupyter.errors import HiveError
from hive_jupyter.swarm import enforcement, system
from hive_jupyter.swarm.enforcement import examine

SOCKETS = "unix sockets"
SPACE = "space for runtime files"


def rows(found):
    return {row.capability: row for row in found}


def missing(found):
    return {row.capability for row in found if row.state != "yes"}


def prove(preparation):
    """What the probes find in an interpreter of their own where something was taken away."""
    program = f"from hive_jupyter.swarm import enforcement\n{preparation}\nenforcement.prove()"
    answer = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    return {name: ok for name, (ok, _) in json.loads(answer.stdout).items()}


def test_a_machine_that_runs_these_tests_has_all_that_hive_needs():
    found = examine()

    assert set() == missing(found)
    assert version("ipykernel") == rows(found)["ipykernel"].detail


def test_it_takes_about_a_second_at_most():
    """Somebody waits for it; the bound is loose because machines are shared."""
    started = time.monotonic()
    examine()

    assert time.monotonic() - started < 15


def test_the_folder_is_probed_and_left_as_it_was(tmp_path):
    """The one that is in use."""
    found = rows(examine(tmp_path))

    assert str(tmp_path) in found[SPACE].detail
    assert [] == list(tmp_path.iterdir())


def test_a_folder_of_no_use_is_reported():
    """With the system's own reason."""
    found = rows(examine(Path("/proc/hive")))

    assert ("missing", "No such file or directory") == (found[SPACE].state, found[SPACE].detail)
    assert "missing" == found[SOCKETS].state
    assert "TCP" in found[SOCKETS].meaning


def test_a_path_too_long_for_a_socket_is_reported(tmp_path):
    """Space is there all the same."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    found = rows(examine(folder))

    assert ("missing", "yes") == (found[SOCKETS].state, found[SPACE].state)
    assert "too long" in found[SOCKETS].detail


def test_no_folder_at_all_is_reported(monkeypatch):
    """The report never raises; it is there for machines where things are missing."""

    def nowhere():
        raise HiveError("no place")

    monkeypatch.setattr(enforcement.RuntimeFolder, "create", nowhere)
    found = rows(examine())

    assert ("no place", "missing") == (found[SPACE].detail, found[SOCKETS].state)


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    """Before the first worker's log is cut."""
    monkeypatch.setattr(
        enforcement.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 2**20})
    )

    assert "only 1 MB free" in rows(examine(tmp_path))[SPACE].detail


def test_a_missing_package_is_reported(tmp_path, monkeypatch):
    """With the command that installs it."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(enforcement.importlib.metadata, "version", missing)
    row = rows(examine(tmp_path))["ipykernel"]

    assert ("missing", "not installed") == (row.state, row.detail)
    assert "pip install ipykernel" in row.meaning


@pytest.mark.parametrize(
    ("preparation", "lost"),
    [
        ("", set()),
        (
            "enforcement._prctl = lambda *arguments: None",
            {"adopting orphans (subreaper)", "dying with the parent (PDEATHSIG)"},
        ),
        (
            (
                "enforcement._EVENT_TIMEOUT = 0.3; prctl = enforcement._prctl\n"
                "enforcement._prctl = lambda option, value: option == 1 or prctl(option, value)"
            ),
            {"dying with the parent (PDEATHSIG)"},
        ),
        ("del enforcement.os.pidfd_open", {"process descriptors (pidfd)"}),
        (
            "enforcement.resource.setrlimit = lambda *arguments: None",
            {"memory limit (RLIMIT_DATA)"},
        ),
        ("enforcement.read_stat = lambda pid: None", {"processes shown in /proc"}),
    ],
    ids=["nothing", "prctl", "PDEATHSIG", "pidfd", "RLIMIT_DATA", "proc"],
)
def test_each_probe_notices_what_is_missing(preparation, lost):
    """A probe that cannot fail proves nothing."""
    assert lost == {name for name, ok in prove(preparation).items() if not ok}


def test_without_fork_all_that_needs_a_child_is_missing():
    """And nothing hangs."""
    found = prove(
        "def no(): raise BlockingIOError(11, 'no more processes')\nenforcement.os.fork = no"
    )

    assert set(enforcement._PROVEN_APART) == {name for name, ok in found.items() if not ok}


@pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/true", ""])
def test_an_interpreter_that_does_not_answer_is_reported(tmp_path, monkeypatch, program):
    """Where Python is embedded, there may be none to start."""
    monkeypatch.setattr(sys, "executable", program)
    found = examine(tmp_path)

    assert missing(found) == {*enforcement._PROVEN_APART}
    assert "did not answer" in rows(found)["fork"].detail


def test_an_interpreter_that_hangs_is_given_up(tmp_path, monkeypatch):
    """At its own deadline."""
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(enforcement, "PROBE_TIMEOUT", 0.2)

    assert "TimeoutExpired" in rows(examine(tmp_path))["fork"].detail


def test_every_row_says_what_it_means_to_be_without():
    """Python is never missing where this runs."""
    assert {"Python"} == {name for name, meaning in enforcement._MEANINGS.items() if not meaning}
    assert [*enforcement._MEANINGS] == [row.capability for row in examine()]


def test_on_another_system_it_is_said_what_workers_do_without(tmp_path, monkeypatch):
    """What is not used there is not looked for either."""
    monkeypatch.setattr(system, "IS_LINUX", False)
    monkeypatch.setattr(enforcement, "_prove_apart", None)
    found = examine(tmp_path)

    assert {*enforcement._MEANINGS_ELSEWHERE} == missing(found)
    assert all(row.meaning for row in found if row.state == "missing")
    assert "--memory" in rows(found)["memory limit (RLIMIT_DATA)"].meaning


def test_where_no_worker_runs_it_is_said_that_there_are_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "IS_LINUX", False)
    monkeypatch.setattr(system, "HAS_WORKERS", False)
    row = rows(examine(tmp_path))["Linux"]

    assert "missing" == row.state
    assert "instructions" in row.meaning
