"""What a worker may touch, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_jupyter.errors import ConfigError
from hive_jupyter.units import format_size, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILES = ("open", "workspace", "strict")

# What may be shown of what a worker says, by the profile.
OUTPUT_RULES = {"open": "trusted", "workspace": "framed", "strict": "inert"}

# Before any code of the user a worker claims up to 143 MB (its threads' stacks included).
SMALLEST_MEMORY = 160 * 2**20
# The kernel has five sockets and as many threads before any code of the user runs.
_FEWEST_PROCESSES = 32
_FEWEST_FILES = 64

_HIGHEST_PORT = 2**16 - 1


@dataclass(frozen=True)
class SandboxPolicy:
    """
    What one worker may touch. A worker's policy never changes after it started.

    Attributes:
        profile: "open": an own process, process group and limits, no boundary. "workspace": writes
            only the project and a private temporary folder, reads no secrets, reaches TCP ports by
            number. "strict": reads Python, the system and the project, writes only the temporary
            folder, has no network. The rest of the attributes add to that.
        memory: bytes that the worker and all its descendants may use together; None: no limit.
        readable: absolute paths of further files and folders that it may read.
        writable: the same for writing.
        connect: TCP ports that "workspace" may connect to; "strict" has none, "open" all.
        cpu_time: seconds of processor time for each process of the worker; None: no limit.
        processes: that the worker may have at once, threads included; None: no limit.
        open_files: that each of its processes may have at once; None: as the host.
        file_size: bytes of the largest file that it may write; None: no limit.
        outputs: what may be shown of what it says: "trusted", "framed" or "inert"; None: by the
            profile (``output_rule``).

    Raises:
        ConfigError: an attribute makes no sense.
    """

    profile: str = "workspace"
    memory: int | None = None
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    connect: tuple[int, ...] = (443,)
    cpu_time: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    outputs: str | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            near = nearest(str(self.profile), PROFILES)
            msg = f'There is no sandbox profile "{self.profile}".{near}'
            raise ConfigError(msg)
        if self.outputs is not None and self.outputs not in OUTPUT_RULES.values():
            near = nearest(str(self.outputs), OUTPUT_RULES.values())
            msg = f'There is no rule "{self.outputs}" for outputs.{near}'
            raise ConfigError(msg)
        for path in (*self.readable, *self.writable):
            if not Path(path).is_absolute():
                msg = f'"{path}" is no absolute path. Write the whole of it, or begin with ~.'
                raise ConfigError(msg)
        for port in self.connect:
            if not 0 < port <= _HIGHEST_PORT:
                msg = f"{port} is no port. Ports go from 1 to {_HIGHEST_PORT}."
                raise ConfigError(msg)
        self._check_limits()

    def _check_limits(self) -> None:
        if self.memory is not None and self.memory < SMALLEST_MEMORY:
            msg = (
                f"A worker cannot start in {format_size(self.memory)}. "
                f"Give it at least {format_size(SMALLEST_MEMORY)}."
            )
            raise ConfigError(msg)
        for number, fewest, noun in (
            (self.processes, _FEWEST_PROCESSES, "processes"),
            (self.open_files, _FEWEST_FILES, "open files"),
            (self.cpu_time, 1, "seconds of processor time"),
            (self.file_size, 1, "bytes of a file"),
        ):
            if number is not None and number < fewest:
                msg = f"A worker cannot live with {number} {noun}. Give it at least {fewest}."
                raise ConfigError(msg)

    @property
    def is_confined(self) -> bool:
        """Whether there is a boundary around the worker."""
        return self.profile != "open"

    @property
    def writes_project(self) -> bool:
        """Whether the worker may write the project's files."""
        return self.profile != "strict"

    @property
    def output_rule(self) -> str:
        """What may be shown of what the worker says: "trusted", "framed" or "inert"."""
        return self.outputs or OUTPUT_RULES[self.profile]

    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> SandboxPolicy:
        """The inverse of ``facts``."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts.items()
        }
        return cls(**plain)
