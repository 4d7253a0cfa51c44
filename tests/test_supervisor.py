"""A supervisor, run in a child of the test."""

import itertools
import os
import socket
from pathlib import Path

import pytest

from hive_jupyter import procfs
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import WORKER, WorkerSpec
from hive_jupyter.worker import supervisor
from hive_jupyter.worker.confine import Confinement, prctl
from hive_jupyter.worker.supervisor import Supervisor
from tests.children import in_child, place_of, users
from tests.processes import family, wait_until


def begun(folder):
    """
    Be a supervisor, as nobody else may trace one.

    Returns:
        The host's socket, and the supervisor, whose worker has a child in another process group.
    """
    prctl.set_dumpable(False)
    prctl.adopt_orphans()
    spec = WorkerSpec(
        name="coder",
        folder=folder,
        cwd=folder,
        path=(),
        environment={"PATH": os.defpath},
        policy=SandboxPolicy("open"),
        connection={},
        argv=("/bin/sh", "-c", "setsid sleep 1000 & wait"),
        role=WORKER,
    )
    host, ours = socket.socketpair()
    confinement = Confinement(spec, has_namespaces=False)
    confinement.arrange()
    watched = Supervisor(ours, os.pidfd_open(os.getpid()), spec, confinement)
    wait_until(lambda: len({os.getsid(process.pid) for process in family()}) == 2)
    return host, watched


def is_its_workers(folder, monkeypatch):
    """Of each signal, when the host goes, whether the pid was still the worker's."""
    host, watched = begun(folder)
    told, rounds = [], itertools.count()
    signal_group, kill_below = supervisor._signal_group, supervisor.kill_below

    def note_signal(pid, number):
        told.append(procfs.read_stat(pid) is not None)
        signal_group(pid, number)

    monkeypatch.setattr(supervisor, "_signal_group", note_signal)
    monkeypatch.setattr(supervisor, "kill_below", lambda: next(rounds) == 0 or kill_below())
    host.close()
    watched.run()
    return told


def test_no_pid_is_signalled_that_may_be_anothers_by_now(tmp_path, monkeypatch):
    assert {True} == set(in_child(is_its_workers, str(tmp_path), monkeypatch))


def score(pid):
    """How soon a process goes where there is no memory."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def workers_score(folder):
    host, watched = begun(folder)
    found = score(watched._worker)
    host.close()
    watched.run()
    return found


@pytest.mark.parametrize("user", users())
def test_a_worker_goes_first_where_there_is_no_memory_left(user):
    with place_of(user) as place:
        workers = in_child(workers_score, place.path, user=user)

    assert workers == min(score(os.getpid()) + 500, 1000)
