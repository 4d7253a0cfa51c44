"""Dask clusters of separate processes, as they run on several machines."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Client

from tests.processes import has_ended, send, titled, wait_until

STATION = f"{sys.executable} -P -m hive_jupyter.swarm.station"


class Cluster:
    """
    A scheduler, and workers with nannies.

    Args:
        folder: for what they write.
        host: the address that they listen at.
    """

    def __init__(self, folder, host="127.0.0.1"):
        self.folder = Path(folder)
        self._host = host
        self._processes = []
        file = self.folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", str(file))
        text = wait_until(lambda: file.exists() and file.read_text())
        self.address = json.loads(text)["address"]

    def start(self, role, *arguments, before=(), host=None, **environment):
        """Start a part of it."""
        command = [*before, sys.executable, "-m", f"distributed.cli.dask_{role}"]
        command += ["--host", host or self._host, "--no-dashboard", *arguments]
        with open(self.folder / f"{len(self._processes)}.log", "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**os.environ, "JUPYTER_RUNTIME_DIR": str(self.folder), **environment},
            )
        self._processes.append(process)
        return process

    def add_worker(self, name, *arguments, threads=4, **settings):
        """Start a worker, and wait until the scheduler knows it."""
        options = ["--name", name, "--nthreads", str(threads), "--local-directory", "."]
        nanny = self.start("worker", self.address, *options, *arguments, **settings)
        with Client(self.address, set_as_default=False) as client:
            wait_until(lambda: name in [each["name"] for each in workers(client).values()])
        return nanny

    def stations(self):
        """The stations on all its machines."""
        return [process for nanny in self._processes for process in stations_below(nanny.pid)]

    def close(self):
        """End it with all that it has started."""
        family = [each for process in self._processes for each in _family(process.pid)]
        for process in reversed(self._processes):
            send(process, 9)
            process.wait()
        for process in family:
            send(process, 9)
        wait_until(lambda: all(has_ended(process.pid) for process in family))


def workers(client):
    """A cluster's workers, by their addresses."""
    return client.scheduler_info(n_workers=-1)["workers"]


def stations_below(pid):
    """The stations that a process has started."""
    return titled(_family(pid), STATION)


def _family(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def cluster(folder, **settings):
    """One that ends with the block."""
    made = Cluster(folder, **settings)
    try:
        yield made
    finally:
        made.close()
