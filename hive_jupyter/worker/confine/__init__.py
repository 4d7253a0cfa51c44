"""
A policy applied to this process, for good, between the fork and the user's code.

The order was found by breaking it::

    supervisor   a control group; namespaces, and what is
                 mounted in them                                arrange()
    worker       the control group                              join()
                 limits, capabilities, files (Landlock),
                 system calls (seccomp)                         confine()
                 the kernel starts and binds its sockets
                 sockets (seccomp, for all threads)             close()
                 the project goes on sys.path; user code

Each layer has its module, and can be read alone. Where one is not to be had here, "strict" refuses
to start, and "workspace" tells what is missing.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import signal
import stat
from collections.abc import Iterator

from hive_jupyter.errors import SandboxUnavailable
from hive_jupyter.protocol import KERNEL, WorkerSpec
from hive_jupyter.worker.confine import (
    capabilities,
    cgroups,
    landlock,
    limits,
    namespaces,
    prctl,
    seccomp,
)
from hive_jupyter.worker.confine.boundary import OF_MATPLOTLIB, Boundary
from hive_jupyter.worker.confine.refusals import Refusals

# The first version of Landlock that has them (landlock(7)).
_TCP = 4
_SIGNALS = 6

# Names the one folder for matplotlib's settings, and for what it has found out.
_MATPLOTLIB = "MPLCONFIGDIR"
_READ_BY_MATPLOTLIB = ("matplotlibrc", "stylelib", "fontlist-*.json")

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
        has_namespaces: as given.
    """

    def __init__(self, spec: WorkerSpec, *, has_namespaces: bool) -> None:
        self._spec = spec
        self.has_namespaces = has_namespaces
        self._boundary: Boundary | None = None
        self._landlock, self._has_filters = (
            self._layers() if spec.policy.is_confined else (0, False)
        )
        self._group: cgroups.Group | None = None
        self._reaches_nobody_else = False
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
            "namespaces": self.has_namespaces,
        }

    def refusals(self) -> Refusals:
        """What explains which limit or which part of the boundary is behind an error."""
        own = namespaces.TEMPORARY if self.has_namespaces else ()
        return Refusals(self._spec.policy, self._boundary, own)

    @property
    def kept(self) -> frozenset[str]:
        """Names of the limits that the kernel keeps for all of the worker's processes together."""
        kept = self._group.kept if self._group else frozenset()
        # a user namespace counts its own processes, except root's
        counts = self.has_namespaces and os.geteuid() != 0
        return kept | {"processes"} if counts else kept

    @property
    def environment(self) -> dict[str, str]:
        """What it adds to the worker's environment."""
        if self._boundary is None:
            return {}
        # git gives up where it may not read the user's configuration, in which tokens may be
        own = {"TMPDIR": self._boundary.temporary, "GIT_CONFIG_GLOBAL": os.devnull}
        if _MATPLOTLIB not in self._spec.environment:
            own[_MATPLOTLIB] = os.path.join(self._boundary.temporary, "matplotlib")
        return own

    def arrange(self) -> None:
        """
        Prepare, in the supervisor, what the worker will see of files, and whom it can reach.

        Raises:
            SandboxUnavailable: this machine cannot enforce what "strict" promises.
        """
        self._refuse_less_than_promised()
        if self._spec.role != KERNEL:
            limits.go_first()
        self._group = cgroups.make(self._spec.policy)
        if not self._spec.policy.is_confined:
            return
        found = self._boundary = Boundary.of(self._spec, has_mounts=self.has_namespaces)
        self._make_temporary(found)
        if self.has_namespaces:
            namespaces.arrange(_mounts(found, self._spec.policy.memory))
            if self._keeps_to_itself():
                namespaces.leave_network()
            self._reaches_nobody_else = os.getpid() == 1
        else:
            prctl.no_new_privs()
            self._reaches_nobody_else = landlock.keep_signals_below()

    def join(self) -> None:
        """Move this process, the worker, into its control group, while it has the descriptor."""
        if self._group is not None:
            self._group.enter()

    def confine(self) -> None:
        """Confine this process, the worker: before any thread and any code of the user."""
        policy = self._spec.policy
        limits.apply(policy, own_users=self.has_namespaces)
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

    def _layers(self) -> tuple[int, bool]:
        """The ABI of Landlock, or 0; whether system calls can be filtered."""
        return landlock.abi(), seccomp.available()

    def _refuse_less_than_promised(self) -> None:
        if self.missing and not self._spec.policy.writes_project:
            msg = f"this machine cannot confine {', '.join(self.missing)}"
            raise SandboxUnavailable(msg, missing=self.missing)

    def _missing(self) -> Iterator[str]:
        if not self._landlock:
            yield FILES
        if not self._has_filters:
            yield SYSTEM_CALLS
        if self._landlock < _TCP and self._spec.policy.writes_project:
            yield PORTS
        if self._landlock < _SIGNALS and not self.has_namespaces:
            yield SIGNALS

    def kill_all(self) -> bool:
        """
        Kill all that the worker has started, from its supervisor, at once.

        A fork that has begun sees the signal and fails (``copy_process`` in the kernel), so nothing
        gets away however fast it forks.

        Returns:
            Whether that surely hit all.
        """
        if self._reaches_nobody_else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif self._group is not None:
            self._group.kill()
        return self._reaches_nobody_else

    def memory_used(self) -> int | None:
        """Bytes that the worker used, where the kernel has ended it for that."""
        return self._group.memory_used() if self._group is not None else None

    def leave(self) -> None:
        """Remove what was arranged, with nobody in it any more."""
        if self._group is not None:
            self._group.remove()

    def _make_temporary(self, found: Boundary) -> None:
        os.makedirs(found.temporary, stat.S_IRWXU, exist_ok=True)
        if own := self.environment.get(_MATPLOTLIB):
            _lend_to_matplotlib(found, own)

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


def _lend_to_matplotlib(found: Boundary, own: str) -> None:
    """
    Show it in a folder of the worker's what is in the user's, of which there may be several.

    Where matplotlib may not write into its folder, it reads nothing there either, and complains.
    """
    os.makedirs(own, exist_ok=True)
    folders = [path for path in found.read if path.endswith(OF_MATPLOTLIB)]
    for folder, name in itertools.product(folders, _READ_BY_MATPLOTLIB):
        for path in glob.glob(os.path.join(glob.escape(folder), name)):
            with contextlib.suppress(FileExistsError):
                os.symlink(path, os.path.join(own, os.path.basename(path)))
