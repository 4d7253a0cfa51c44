"""What a worker is started from: a kernel, and what it takes over from the host."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_core.paths import (
    jupyter_config_dir,
    jupyter_config_path,
    jupyter_data_dir,
    jupyter_path,
    jupyter_runtime_dir,
)

from hive_jupyter.config import PASSED_VARIABLES, HiveConfig
from hive_jupyter.errors import SandboxUnavailable
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.project import project_root
from hive_jupyter.protocol import WORKER

# Where these are, a worker's kernel is found.
_OF_A_KERNEL = ("IPython", "ipykernel", "jupyter_client", "jupyter_core", "traitlets", "zmq")


@dataclass(frozen=True)
class Kernel:
    """
    What runs in a worker.

    Attributes:
        interpreter: absolute path of the Python that runs Hive's own worker, or "".
        argv: command line of another kernel, with ``{connection_file}`` in it.
        environment: what its kernelspec adds.
        interrupt_by_message: its kernelspec says interrupt_mode "message".
        language: of the code.
        description: for the status.
        protocol: that it speaks: "jupyter", or "mcp" for a server with tools alone.
    """

    interpreter: str = sys.executable
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    interrupt_by_message: bool = False
    language: str = "python"
    description: str = "python"
    protocol: str = "jupyter"


@dataclass(frozen=True)
class Launch:
    """
    What makes two workers interchangeable before they have a name.

    Attributes:
        interpreter: absolute path of the Python, or "" for another kernel.
        argv: command line of another kernel, with ``{connection_file}``, or of a server; empty for
            Hive's own.
        cwd: working folder.
        path: entries of ``sys.path`` for the worker.
        environment: its whole environment, as sorted pairs.
        policy: what it may touch.
        root: the project's.
        protected: folders of the user's own that it never writes where it is confined.
        tools: names of modules with tools of the user's own.
        role: WORKER; or KERNEL, one of the user's own, whose command line names the connection; or
            SERVER, which talks through its standard input and output.
        options: of a KERNEL without argv: the arguments of ``python -m ipykernel_launcher``.
        folder: the private folder of a KERNEL, the same at each of its starts; a WORKER gets a
            fresh one.
        patience: seconds that such a KERNEL waits before its first answer, for its clients.
    """

    interpreter: str
    argv: tuple[str, ...]
    cwd: str
    path: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    policy: SandboxPolicy
    root: str = ""
    protected: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    role: str = WORKER
    options: tuple[str, ...] = ()
    folder: str = ""
    patience: float = 0.0


def snapshot(kernel: Kernel, config: HiveConfig, policy: SandboxPolicy, folder: str = "") -> Launch:
    """
    What a worker takes over from the host, now.

    Args:
        kernel: what runs in it.
        config: the settings.
        policy: what it may touch.
        folder: its working folder and project, where that is not the host's; it then imports
            nothing from where the host does.

    Raises:
        FileNotFoundError: the working folder does not exist any more.
    """
    takes_path = kernel.interpreter == sys.executable and not folder
    environment = {**worker_environment(config), **(kernel.environment or {})}
    return Launch(
        interpreter="" if kernel.argv else kernel.interpreter,
        argv=kernel.argv,
        cwd=folder or os.getcwd(),
        path=host_path() if takes_path else ("",),
        environment=tuple(sorted(environment.items())),
        policy=policy,
        root=folder or project_root(os.getcwd(), os.path.expanduser("~")),
        protected=folders_of_jupyter() if policy.is_confined else (),
        tools=tuple(config.tool_modules),
    )


def first_policy(kernel: Kernel, config: HiveConfig) -> SandboxPolicy:
    """The policy that what runs begins with: Hive confines its own worker only."""
    return config.policy("open" if kernel.argv else None)


def changed(
    policy: SandboxPolicy, kernel: Kernel, memory: int | None, sandbox: str | None
) -> SandboxPolicy:
    """
    A policy with another memory or profile.

    Args:
        policy: that there is.
        kernel: what runs under it.
        memory: bytes, 0 for no limit; None: as it is.
        sandbox: a profile; None: as it is.

    Raises:
        ConfigError: there is no such policy.
        SandboxUnavailable: only Hive's own worker can be confined, and this is another program.
    """
    chosen = replace(
        policy,
        profile=policy.profile if sandbox is None else sandbox,
        memory=policy.memory if memory is None else memory or None,
    )
    if chosen.is_confined and kernel.argv:
        msg = (
            f"{kernel.description} cannot run in the sandbox {chosen.profile}: Hive confines its "
            "own worker only, which takes part in that. --sandbox open gives it a process and "
            "limits of its own, and your rights."
        )
        raise SandboxUnavailable(msg, missing=("other programs",))
    return chosen


def drift(launch: Launch, now: Launch) -> tuple[str, ...]:
    """What changed in the host since a worker took its snapshot, in words."""
    words = {
        "cwd": "working folder",
        "path": "sys.path",
        "environment": "environment",
        "tools": "modules of tools",
    }
    return tuple(
        word for name, word in words.items() if getattr(launch, name) != getattr(now, name)
    )


def worker_environment(config: HiveConfig) -> dict[str, str]:
    """What a worker gets of the host's environment, by the allowlist, and what the user adds."""
    patterns = (*PASSED_VARIABLES, *config.pass_environment)
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in exact or (prefixes and name.startswith(prefixes))
    }
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONUNBUFFERED": "1"}
    return {**inline, **passed, **config.environment}


def folders_of_jupyter() -> tuple[str, ...]:
    """Where Jupyter and IPython keep what they run, and Hive its ledger."""
    return _folders_of_jupyter(tuple(os.environ.items()))


# asked at each start, and slow for that; what Jupyter answers depends on the environment alone
@functools.lru_cache(maxsize=1)
def _folders_of_jupyter(_environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    ipython = os.environ.get("IPYTHONDIR") or str(Path("~/.ipython").expanduser())
    one_each = (jupyter_config_dir(), jupyter_data_dir(), jupyter_runtime_dir(), ipython)
    return tuple(dict.fromkeys([*one_each, *jupyter_config_path(), *jupyter_path()]))


def host_path() -> tuple[str, ...]:
    """The host's ``sys.path``, without what Python itself passes over in it."""
    # whatever the type of the list's entries should be, users put other things in
    entries: list[object] = list(sys.path)
    return tuple(entry for entry in entries if isinstance(entry, str))


def library_path() -> tuple[str, ...]:
    """
    Entries of the host's ``sys.path`` that a zygote may import from.

    Those that no worker may write: of this Python's own folders, and others for packages. Where the
    host has imported a kernel's packages from elsewhere, they are found there, too; that folder is
    then protected like the others.
    """
    homes = {os.path.dirname(place) for module in _OF_A_KERNEL for place in _places(module)}
    return tuple(entry for entry in host_path() if entry and _is_library(entry, homes))


def _places(module: str) -> list[str]:
    """The folders of a package that the host has imported: a project may hold one of that name."""
    return list(getattr(sys.modules.get(module), "__path__", ()))


def _is_library(entry: str, homes: set[str]) -> bool:
    try:
        path = Path(entry).resolve()
    except (OSError, ValueError):  # the entry can be no path
        return False
    prefixes = (Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix))
    return entry.endswith("-packages") or entry in homes or any(map(path.is_relative_to, prefixes))
