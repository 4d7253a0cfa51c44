"""
What there is of a policy where the system is not Linux.

On macOS a confined worker is started by sandbox-exec, with a profile made of the policy's paths and
ports (``seatbelt``). Apple calls that program deprecated, it filters no system calls, and no probe
has proven what it stops. Other systems give a worker a process of its own, and the limits that each
process has for itself. So "strict" is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hive_jupyter.protocol import WORKER, WorkerSpec
from hive_jupyter.worker.confine import FILES, PORTS, SIGNALS, SYSTEM_CALLS, Confinement, limits
from hive_jupyter.worker.confine.boundary import Boundary
from hive_jupyter.worker.confine.seatbelt import SANDBOX_EXEC, profile

PROCESSES = "the number of processes"
# With sandbox-exec, which knows sockets.
_CALLS = "system calls"

_UNPROVEN = (
    "The sandbox is degraded here: sandbox-exec, which Apple calls deprecated, and no probe has "
    "shown what it stops."
)
_NO_SUM = "--memory does not hold here: nobody counts what a worker and all that it starts use."


class Elsewhere(Confinement):
    """
    The confinement of one worker; see ``Confinement``.

    Args:
        spec: of the worker.
        has_profile: it is started by sandbox-exec, where it has a boundary.

    Attributes:
        wrapper: what its command line begins with.
    """

    def __init__(self, spec: WorkerSpec, *, has_profile: bool) -> None:
        self._has_profile = has_profile and spec.policy.is_confined
        super().__init__(spec, has_namespaces=False)
        self.wrapper: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: WorkerSpec, paths: Mapping[str, Any] | None) -> Elsewhere:
        """In the worker, as its supervisor has arranged it: the inverse of ``paths``."""
        made = cls(spec, has_profile=paths is not None)
        if paths is not None:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in paths.items()
            }
            made._boundary = Boundary(**fields)
        return made

    def paths(self) -> dict[str, Any] | None:
        """The boundary as plain values; None: there is none."""
        return asdict(self._boundary) if self._boundary else None

    def facts(self) -> dict[str, object]:
        """What the host is told when the worker is ready."""
        notes = [*(self._boundary.notes if self._boundary else ())]
        notes += [_UNPROVEN] if self._has_profile else []
        notes += [_NO_SUM] if self._spec.policy.memory else []
        return {**super().facts(), "notes": notes, "sandbox-exec": self._has_profile}

    @property
    def kept(self) -> frozenset[str]:
        """Nobody looks after these, as nothing tells of all of a worker's processes together."""
        return frozenset({"memory", "processes"})

    def arrange(self) -> None:
        """
        Prepare, in the supervisor, what the worker is started with.

        Raises:
            SandboxUnavailable: "strict" is asked for.
        """
        self._refuse_less_than_promised()
        if not self._has_profile:
            return
        spec = self._spec
        found = self._boundary = Boundary.of(spec, has_mounts=True)
        self._make_temporary(found)
        text = profile(
            read=found.read,
            write=found.write,
            never=found.never,
            private=spec.private,
            own=spec.folder,
            connect=spec.policy.connect,
            binds_ports=spec.role == WORKER and spec.connection.get("transport") == "tcp",
        )
        self.wrapper = (SANDBOX_EXEC, "-p", text)

    def confine(self) -> None:
        """Set, in the worker, the limits that each process has for itself."""
        limits.apply_to_each(self._spec.policy)

    def _layers(self) -> tuple[int, bool]:
        return 0, False

    def _missing(self) -> Iterator[str]:
        if self._has_profile:
            yield _CALLS
        else:
            yield from (FILES, SYSTEM_CALLS, PORTS, SIGNALS)
        if self._spec.policy.processes is not None:
            yield PROCESSES
