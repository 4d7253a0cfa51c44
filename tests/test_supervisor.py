"""A supervisor, run in a child of the test."""

import itertools
import os
import socket

from hive_jupyter import procfs
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import KERNEL, WorkerSpec
from hive_jupyter.worker import supervisor
from hive_jupyter.worker.confine import Confinement, prctl
from hive_jupyter.worker.supervisor import Supervisor
from tests.children import in_child
from tests.processes import family, wait_until


def supervise(folder, monkeypatch):
    """
    Be a supervisor whose host goes, and whose worker ends before what that has started.

    Returns:
        Of each signal, whether the pid was still the worker's.
    """
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
        role=KERNEL,
    )
    told, rounds = [], itertools.count()
    signal_group, kill_below = supervisor._signal_group, supervisor.kill_below

    def note_signal(pid, number):
        told.append(procfs.read_stat(pid) is not None)
        signal_group(pid, number)

    monkeypatch.setattr(supervisor, "_signal_group", note_signal)
    monkeypatch.setattr(supervisor, "kill_below", lambda: next(rounds) == 0 or kill_below())
    host, ours = socket.socketpair()
    with ours:
        confinement = Confinement(spec, has_namespaces=False)
        watched = Supervisor(ours, os.pidfd_open(os.getpid()), spec, confinement)
        wait_until(lambda: len({os.getsid(process.pid) for process in family()}) == 2)
        host.close()
        watched.run()
    return told


def test_no_pid_is_signalled_that_may_be_anothers_by_now(tmp_path, monkeypatch):
    assert {True} == set(in_child(supervise, str(tmp_path), monkeypatch))
