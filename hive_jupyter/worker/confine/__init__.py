"""
A policy applied to this process, for good, between the fork and the user's code.

The order was found by breaking it::

    supervisor   namespaces, and what is mounted in them        arrange()
    worker       limits, capabilities, files (Landlock),
                 system calls (seccomp)                         confine()
                 the kernel starts and binds its sockets
                 sockets (seccomp, for all threads)             close()
                 the project goes on sys.path; user code

Each layer has its module, and can be read alone. Where one is not to be had here, "strict" refuses
to start, and "workspace" tells what is missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hive_jupyter.errors import SandboxUnavailable
from hive_jupyter.protocol import WorkerSpec
from hive_jupyter.worker.confine import (
    capabilities,
    landlock,
    limits,
    namespaces,
    prctl,
    seccomp,
)
from hive_jupyter.worker.confine.boundary import Boundary
from hive_jupyter.worker.confine.refusals import Refusals

# The first version of Landlock that has them (landlock(7)).
_TCP = 4
_SIGNALS = 6

FILES = "files"
PORTS = "TCP ports"
SYSTEM_CALLS = "system calls and sockets"
SIGNALS = "signals"


class Confinement:
    """
    The confinement of one worker, from its supervisor's first step to the last before user code.

    Args:
        spec: of the worker.
        has_namespaces: this process, the supervisor, is the first in namespaces of its own.

    Attributes:
        missing: what the policy asks for and this machine cannot enforce.
    """

    def __init__(self, spec: WorkerSpec, *, has_namespaces: bool) -> None:
        self._spec = spec
        self._has_namespaces = has_namespaces
        self._boundary: Boundary | None = None
        self._landlock = landlock.abi() if spec.policy.is_confined else 0
        self._has_filters = spec.policy.is_confined and seccomp.available()
        self.missing: tuple[str, ...] = ()
        if spec.policy.is_confined:
            self.missing = tuple(self._missing())

    def facts(self) -> dict[str, object]:
        """What the host is told when the worker is ready."""
        return {
            "missing": self.missing,
            "notes": self._boundary.notes if self._boundary else (),
            "landlock": self._landlock,
            "seccomp": self._has_filters,
            "namespaces": self._has_namespaces,
        }

    def refusals(self) -> Refusals | None:
        """What explains the refusals of this boundary; None: there is none."""
        if self._boundary is None:
            return None
        return Refusals(self._spec.policy, self._boundary)

    @property
    def environment(self) -> dict[str, str]:
        """What it adds to the worker's environment."""
        if self._boundary is None:
            return {}
        # git gives up where it may not read the user's configuration, in which tokens may be
        return {"TMPDIR": self._boundary.temporary, "GIT_CONFIG_GLOBAL": os.devnull}

    def arrange(self) -> None:
        """
        Prepare, in the supervisor, what the worker will see of files.

        Raises:
            SandboxUnavailable: this machine cannot enforce what "strict" promises.
        """
        if not self._spec.policy.is_confined:
            return
        if self.missing and not self._spec.policy.writes_project:
            msg = f"this machine cannot confine {', '.join(self.missing)}"
            raise SandboxUnavailable(msg, missing=self.missing)
        found = self._boundary = Boundary.of(self._spec, has_mounts=self._has_namespaces)
        os.makedirs(found.temporary, stat.S_IRWXU, exist_ok=True)
        if self._has_namespaces:
            namespaces.arrange(_mounts(found, self._spec.policy.memory))
            if self._keeps_to_itself():
                namespaces.leave_network()

    def confine(self) -> None:
        """Confine this process, the worker: before any thread and any code of the user."""
        policy = self._spec.policy
        limits.apply(policy, own_users=self._has_namespaces)
        found = self._boundary
        if found is None:
            return
        capabilities.drop()
        prctl.no_new_privs()
        if self._landlock:
            ports = policy.connect if policy.writes_project else ()
            landlock.restrict(read=found.read, write=found.write, connect=ports)
        if self._has_filters:
            seccomp.restrict_system_calls()

    def close(self) -> None:
        """Take away sockets: the kernel has bound its own. Holds for all threads."""
        if self._boundary is not None and self._has_filters:
            seccomp.restrict_sockets(internet=self._spec.policy.writes_project)

    def _missing(self) -> Iterator[str]:
        if not self._landlock:
            yield FILES
        if not self._has_filters:
            yield SYSTEM_CALLS
        if self._landlock < _TCP and self._spec.policy.writes_project:
            yield PORTS
        if self._landlock < _SIGNALS and not self._has_namespaces:
            yield SIGNALS

    def _keeps_to_itself(self) -> bool:
        """Whether the host reaches the worker without a network."""
        spec = self._spec
        return not spec.policy.writes_project and spec.connection.get("transport") == "ipc"


def _mounts(found: Boundary, memory: int | None) -> namespaces.Mounts:
    devices = "/dev/"  # on these a mount's being read-only has no effect
    writable = [path for path in found.write if not path.startswith(devices)]
    return namespaces.Mounts(
        writable=tuple(path for path in writable if os.path.exists(path)),
        read_only=tuple(path for path in found.mounted if os.path.exists(path)),
        temporary=found.temporary,
        keep=(*found.read, *found.write),
        shm_size=memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2,
    )
