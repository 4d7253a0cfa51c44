"""What a worker may touch, as data."""

from __future__ import annotations

from dataclasses import dataclass

from hive_jupyter.errors import ConfigError, SandboxUnavailable
from hive_jupyter.units import format_size, nearest

PROFILES = ("open", "workspace", "strict")

# A worker needs about 60 MB of private memory (five threads' stacks included) to answer at all.
SMALLEST_MEMORY = 128 * 2**20


@dataclass(frozen=True)
class SandboxPolicy:
    """
    What one worker may touch. A worker's policy never changes after it started.

    Attributes:
        profile: "open": an own process, process group and limits, no boundary. "workspace": what
            this machine and version can enforce of its boundary (today nothing beyond "open",
            which ``%hive doctor`` and the status say). "strict" refuses rather than pretend.
        memory: bytes that the worker and all its descendants may use together; None: no limit.
    """

    profile: str = "open"
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            near = nearest(str(self.profile), PROFILES)
            msg = f'There is no sandbox profile "{self.profile}".{near}'
            raise ConfigError(msg)
        if self.profile == "strict":
            msg = (
                'The sandbox profile "strict" needs confinement, which this version of Hive does '
                "not have yet. --sandbox open gives an own process with its own limits, but the "
                "same rights as your notebook."
            )
            raise SandboxUnavailable(msg, missing=("filesystem", "network"))
        if self.memory is not None and self.memory < SMALLEST_MEMORY:
            msg = (
                f"A worker cannot start in {format_size(self.memory)}. "
                f"Give it at least {format_size(SMALLEST_MEMORY)}."
            )
            raise ConfigError(msg)
