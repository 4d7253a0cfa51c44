"""
The host whom the probes attack: it runs them in its workers, as it is told.

::

    python -m tests.security.host PLACES

A line of JSON in, ``["probe", name, column]`` or ``["code", code, profile]``; a line of JSON out.
The first line out tells of the world, and what this machine lacks.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from hive_jupyter import HiveManager, Instructions, attach, procfs
from hive_jupyter.errors import HiveError, NodeDied, NodeTimeout
from tests.security import abuse, probes
from tests.security.probe import (
    BROKEN,
    LANDLOCK,
    OPEN,
    REFUSED,
    SUCCEEDED,
    UNLIMITED,
    USER_NAMESPACES,
)
from tests.security.world import World, within

LIMITS = {
    "cpu_time": 1,
    "file_size": 2**20,
    "memory": 400 * 2**20,
    "open_files": 128,
    "processes": 60,
}
# Seconds for a probe; and for one that nothing is expected to stop, to show that.
_PATIENCE = 30
_NO_LIMIT = 0.5
_LANDLOCK_CREATE_RULESET, _VERSION, _SIGNALS_ARE_SCOPED = 444, 1, 6

_BEGIN = """
import sys, types
abuse = sys.modules["abuse"] = types.ModuleType("abuse")
exec({source!r}, vars(abuse))
"""
_RUN = """
import abuse, json
from abuse import *
{source}
abuse.tell({name}, json.loads({facts!r}))
"""


class Host:
    """Runs what it is asked in workers of the user's hive."""

    def __init__(self, world):
        self.world = world
        self.hive = HiveManager(
            spares=0, connect_ports=[world.facts["allowed_port"] or 443], connect_timeout=60
        )
        self._begun = set()
        self._count = 0
        attach.serve(self.hive, "probes")
        world.start_another_hive = _start_another_hive
        world.host_answers = lambda: self.code("1 + 1", "open")["value"] == "2"

    def probe(self, name, column):
        """Run a probe in a column of the table; gives the outcome, and what there is to say."""
        probe = probes.PROBES[name]
        self._drain()
        unstopped = probe.expected(column) == SUCCEEDED
        self.world.facts["patience"] = _NO_LIMIT if unstopped else _PATIENCE / 3
        os.chdir(getattr(self.world, probe.folder))
        try:
            outcome, detail = self._run(probe, column)
            if probe.harm is None or outcome not in {SUCCEEDED, REFUSED}:
                return outcome, detail
            return self._judge(probe, outcome, detail)
        finally:
            os.chdir(self.world.project)

    def _run(self, probe, column):
        profile = OPEN if column == UNLIMITED else column.split()[0]
        worker = self._worker(profile, probe, limited=probe.limited and column != UNLIMITED)
        outcome = self._outcome(probe, worker, profile)
        self.world.pull = lambda: self._pull(worker)
        if probe.fresh:
            self.world.last_log = self.hive.logs(worker)
            with suppress(HiveError):
                self.hive.stop(worker)
        return outcome

    def _pull(self, worker):
        with suppress(HiveError):
            return self.hive.pull("x", worker=worker, timeout=_PATIENCE)["x"]
        return None

    def _judge(self, probe, outcome, detail):
        """What counts is the harm, whatever the worker says."""
        patience = probe.patience if outcome == SUCCEEDED else 0
        if within(patience, lambda: probe.harm(self.world)):
            self.world.renew()
            return SUCCEEDED, detail if outcome == SUCCEEDED else f"harm was done ({detail})"
        return REFUSED, detail if outcome == REFUSED else "no harm was done"

    def code(self, code, profile):
        """Run code in the profile's worker; gives how it ended, and what it wrote."""
        try:
            result = self.hive.delegate(
                code, worker=f"{profile}-works", sandbox=profile, timeout=90, raise_error=False
            )
        except HiveError as error:
            return {"error": str(error)}
        said = {"stdout": result.stdout, "stderr": result.stderr, "outputs": result.outputs}
        return {**said, "value": result.value_repr, "error": result.error and str(result.error)}

    def _drain(self):
        """Forget what was heard before."""
        self.world.victim.poll()
        for name in list(self.world._received):
            self.world.heard(name)
        for port in list(self.world._listening):
            self.world.connected(port)
        self.world.victim_heard()
        self.world.urgent = 0
        self.world.facts["nice"] = os.getpriority(os.PRIO_PROCESS, self.world.victim.pid)

    def _worker(self, profile, probe, *, limited):
        if not probe.fresh:
            self._sibling(profile)
            return profile
        self._count += 1
        before = {name: getattr(self.hive.config, name) for name in LIMITS}
        worker = f"{profile}-{self._count}"
        self.hive.config.change(**(LIMITS if limited else {}))
        try:
            self._begin(worker, profile)
        finally:
            self.hive.config.change(**before)
        return worker

    def _sibling(self, profile):
        """Another worker like the one that runs the probes, and what is known of it."""
        name = f"{profile}-sibling"
        self._begin(name, profile)
        self.world.facts["sibling"] = self._pid(name)
        self.world.facts["sibling_folder"] = self._folder(name)

    def _begin(self, worker, profile):
        """Have a worker ready that knows ``abuse``."""
        pid = self._pid(worker)
        if (worker, pid) in self._begun and procfs.read_stat(pid):
            if _has_zygote(pid):
                return
            self.hive.stop(worker)  # a probe has ended the zygote
        begun = self.hive.delegate(
            _BEGIN.format(source=Path(abuse.__file__).read_text()),
            worker=worker,
            sandbox=profile,
            timeout=_PATIENCE,
        )
        assert not isinstance(begun, Instructions), begun
        self._begun.add((worker, self._pid(worker)))

    def _pid(self, worker):
        node = self.hive.nodes.by_name.get(worker)
        return node and node._process and node._process.pid

    def _folder(self, worker):
        return str(self.hive.nodes.by_name[worker]._process.folder)

    def _outcome(self, probe, worker, profile):
        self._begin(worker, profile)
        code = _RUN.format(
            source=probe.source, name=probe.name, facts=json.dumps(self.facts(worker))
        )
        try:
            result = self.hive.delegate(
                code, worker=worker, sandbox=profile, timeout=_PATIENCE, raise_error=False
            )
        except NodeTimeout:
            return BROKEN, "it did not come to an end"
        except NodeDied as death:
            return REFUSED, f"the worker ended: {death}"
        told = [line for line in result.stdout.split("\n") if line.startswith(abuse.MARK)]
        if not told:
            return BROKEN, f"it told nothing: {result.error} {result.stdout[-500:]}"
        return json.loads(told[-1].removeprefix(abuse.MARK))

    def facts(self, worker):
        """What the probe in a worker is told."""
        pid = self._pid(worker)
        stat = procfs.read_stat(pid)
        supervisor = stat.parent
        return {
            **self.world.facts,
            "own_folder": self._folder(worker),
            "worker": pid,
            "supervisor": supervisor,
            "zygote": procfs.read_stat(supervisor).parent,
            "runtime": str(self.hive.nodes.runtime.path),
            "attach": str(self.hive.nodes.runtime.path / "attach"),
        }


def _has_zygote(worker):
    supervisor = procfs.read_stat(procfs.read_stat(worker).parent)
    return procfs.title(supervisor.parent).startswith("hive: zygote")


def _start_another_hive():
    """Zygotes that begin now, for workers without a boundary and with one."""
    with HiveManager(spares=0, connect_timeout=60) as another:
        for profile in (OPEN, "workspace"):
            another.delegate("1", worker=profile, sandbox=profile)


def lacks():
    """What of a sandbox this machine does not have."""
    found = []
    if abuse.libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _VERSION) < _SIGNALS_ARE_SCOPED:
        found.append(LANDLOCK)
    try:
        abuse.in_child(lambda: abuse.call("unshare", abuse.NEW_USER | abuse.NEW_MOUNTS))
    except OSError:
        found.append(USER_NAMESPACES)
    return found


def main():
    """Make the world, and answer."""
    assert os.getuid(), "what Linux refuses to users would harm this machine"
    os.setsid()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    world = World(json.loads(sys.argv[1]))
    host = Host(world)
    print(json.dumps({"lacks": lacks()}), file=answers)
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        print(json.dumps(getattr(host, request)(*arguments)), file=answers)
    host.hive.close()
    world.close()


if __name__ == "__main__":
    main()
