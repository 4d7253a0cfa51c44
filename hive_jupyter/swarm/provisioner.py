"""
Kernels of the user's own, started from the zygote for any Jupyter front-end.

A kernelspec that names ``hive-provisioner`` gets its kernel from here; see docs/kernelspec.md. What
jupyter_client asks of a provisioner is LocalProvisioner's, down to the switch to unix sockets in
``pre_launch`` and to how a process is started, watched and ended::

    KernelManager ── any loop ──▶ HiveProvisioner ── portal ──▶ ForkServer ── zygote ── kernel
          └──────────────────────── unix sockets ───────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import os
import shutil
import signal
import site
import sys
import sysconfig
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from jupyter_client.localinterfaces import localhost
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import TraitError, Unicode

from hive_jupyter.config import HiveConfig, Size
from hive_jupyter.errors import ConfigError, SandboxUnavailable
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import CHANNELS, KERNEL
from hive_jupyter.swarm.death import Exit
from hive_jupyter.swarm.forkserver import ForkServer, make_server
from hive_jupyter.swarm.launch import Launch
from hive_jupyter.swarm.portal import Portal
from hive_jupyter.swarm.process import WorkerProcess
from hive_jupyter.swarm.runtime import RuntimeFolder, remove_apart, remove_tree, sweep
from hive_jupyter.units import format_size, nearest

_T = TypeVar("_T")

# What a kernelspec may say in its "config", and what jupyter_client adds.
_SETTINGS = ("sandbox", "memory")
_GIVEN = ("kernel_id", "kernel_spec", "parent", "config", "log")
# A kernel has bound its sockets long before; to a client that comes earlier it is only slower.
_READY_PATIENCE = 10.0
# A client's sockets try to connect again every 0.1 s, and zmq adds up to 0.1 s by chance. A new
# kernel that answers sooner may answer a client that cannot hear it yet.
_RECONNECT_PATIENCE = 0.25
_LAUNCHERS = (["-m", "ipykernel_launcher"], ["-m", "ipykernel"])
# In every kernelspec that ipykernel writes, for its debugger.
_FOR_DEBUGGER = "-Xfrozen_modules=off"
# What an interpreter reads from its environment before a zygote could know what a kernel's says.
_READ_AT_START = frozenset(
    {
        "LD_AUDIT",
        "LD_PRELOAD",
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONHASHSEED",
        "PYTHONHOME",
        "PYTHONINTMAXSTRDIGITS",
        "PYTHONMALLOC",
        "PYTHONOPTIMIZE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONTRACEMALLOC",
        "PYTHONUTF8",
        "PYTHONWARNINGS",
    }
)
_PORTS = tuple(f"{channel}_port" for channel in CHANNELS)


class _House:
    """What all kernels of this process share: the portal, a runtime folder, a zygote."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._portal = Portal()
        self._runtime: RuntimeFolder | None = None
        self._server: ForkServer | None = None
        self._folders: set[Path] = set()
        self._exiting = False
        atexit.register(self._exit)

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await work of the portal's loop on any other one."""
        return await asyncio.wrap_future(self._portal.submit(work))

    async def move_in(self) -> tuple[Path, bool]:
        """Make a folder for one kernel; also tell whether unix sockets are to be used in it."""
        if self._runtime is None or self._server is None:
            sweep()
            self._runtime = RuntimeFolder.create()
            server = make_server(HiveConfig(), sys.executable, self._runtime)
            # what a front-end has put on its own sys.path is not for kernels
            self._server = replace(server, path=_search_path(os.environ, os.getcwd()))
        folder = self._runtime.worker_folder()
        self._folders.add(folder)
        return folder, self._server.sockets

    async def spawn(self, launch: Launch, name: str) -> WorkerProcess:
        """Start a kernel in its folder; returns when it has bound its sockets, or has ended."""
        assert self._server is not None
        process = await self._server.spawn(launch, name)
        if not launch.argv:
            futures = (process.ready, process.exited)
            try:
                await asyncio.wait(futures, timeout=_READY_PATIENCE, return_when="FIRST_COMPLETED")
            except asyncio.CancelledError:
                await process.stop()
                raise
        return process

    async def move_out(self, folder: Path) -> None:
        """Remove a kernel's folder."""
        await remove_apart(lambda: remove_tree(folder))
        self._folders.discard(folder)
        if self._exiting:
            await self._close()

    async def _close(self) -> None:
        if self._server is not None and self._runtime is not None and not self._folders:
            await self._server.close()
            await remove_apart(self._runtime.remove)

    def _exit(self) -> None:
        # Kernels that still run may be shut down by an exit handler that comes after this one; if
        # they are not, they end with this process.
        if os.getpid() == self.pid and self._portal.is_open:
            self._exiting = True
            self._portal.call(self._close())
            if not self._folders:
                self._portal.close()


class _Houses:
    """The house of this process; a forked child gets one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._house: _House | None = None

    def here(self) -> _House:
        with self._lock:
            if self._house is None or self._house.pid != os.getpid():
                self._house = _House()
            return self._house


_houses = _Houses()


class _Kernel:
    """
    A kernel's process, with what LocalProvisioner and its users know of ``subprocess.Popen``.

    Its state may be read on any loop and thread; it is written on the portal's.
    """

    stdin = stdout = stderr = None

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.pid = process.pid

    @property
    def end(self) -> Exit | None:
        """How it ended, or None."""
        return self.process.exited.result() if self.process.exited.done() else None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative signal, or None while it runs."""
        end = self.end
        if end is None:
            return None
        if end.signal is not None:
            return -end.signal
        # where nobody saw its end, its supervisor was killed, and took it along
        return end.code if end.code is not None else -signal.SIGKILL

    def poll(self) -> int | None:
        return self.returncode


class HiveProvisioner(LocalProvisioner):
    """
    Starts kernels from Hive's zygote.

    Args:
        settings: ``sandbox`` and ``memory`` of the kernelspec's "config", and what jupyter_client
            gives to every provisioner.

    Raises:
        ConfigError: a setting that does not exist, or cannot have this value.
    """

    sandbox = Unicode("open", help="The sandbox profile.")
    memory = Size(None, allow_none=True, help="Bytes for the kernel and its descendants, or 2G.")

    process: _Kernel | None  # type: ignore[assignment]

    def __init__(self, **settings: Any) -> None:
        for name in settings:
            if name not in (*_SETTINGS, *_GIVEN):
                msg = (
                    f'The hive-provisioner has no setting "{name}".{nearest(name, _SETTINGS)} '
                    f'"config" in the kernelspec may hold: {", ".join(_SETTINGS)}.'
                )
                raise ConfigError(msg)
        try:
            super().__init__(**settings)
        except (TraitError, ValueError) as error:
            raise ConfigError(str(error)) from None
        self._house = _houses.here()
        self._folder: Path | None = None
        self._switched = False
        self._asked_to_end = False

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """
        Prepare a start: a folder, unix sockets in it, and what LocalProvisioner does.

        Raises:
            SandboxUnavailable: the profile cannot be enforced.
            ConfigError: there is no such profile, or the memory is too little.
            HiveError: there is no place for the runtime files.
        """
        self._policy()
        if self._folder is None:
            folder, sockets = await self._house.run(self._house.move_in())
            if sockets:
                self._switch_to_sockets(folder)
            self._folder = folder
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """
        Start the kernel; of Popen's options ``cwd`` and ``env`` are heeded.

        Returns:
            The connection information.

        Raises:
            FileNotFoundError: there is no such program, or no such working folder.
            HiveError: no process could be started.
        """
        launch = self._launch(cmd, kwargs.get("cwd"), kwargs.get("env"))
        process = await self._house.run(self._house.spawn(launch, (self.kernel_id or "")[:8]))
        self.process = _Kernel(process)
        self._asked_to_end = False
        self.pid = self.pgid = process.pid  # it leads a session and a group of its own
        self.cwd = launch.cwd
        return self.connection_info

    async def wait(self) -> int | None:
        """Wait until the kernel and all that it started are gone; return as ``poll``."""
        kernel = self.process
        if kernel is None:
            return 0
        await self._house.run(_all_gone(kernel.process))
        end = kernel.end
        if end is not None:
            self._tell_of(end, kernel)
        self.process = None
        return kernel.returncode

    async def shutdown_requested(self, restart: bool = False) -> None:  # noqa: ARG002
        """Note that the kernel's end is wanted, however it ends."""
        self._asked_to_end = True

    async def send_signal(self, signum: int) -> None:
        """
        Send a signal to the kernel's process group.

        Raises:
            OSError: there is no such signal.
        """
        if signum and signum not in signal.valid_signals():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.process is not None and self.process.poll() is None:
            await self._house.run(self.process.process.signal(signum))

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002
        """Kill the kernel and all that it started."""
        if self.process is not None:
            await self._house.run(_kill(self.process.process))

    async def cleanup(self, restart: bool = False) -> None:
        """Give back what a start took; what clients are connected to lasts over a restart."""
        await super().cleanup(restart=restart)
        if restart or self._folder is None:
            return
        folder, self._folder, self.pid = self._folder, None, None
        if self._switched:
            self._switch_back()
        await self._house.run(self._house.move_out(folder))

    def _launch(
        self, cmd: list[str], cwd: str | None, environment: Mapping[str, str] | None
    ) -> Launch:
        """
        Describe the start of a command.

        Raises:
            FileNotFoundError: as Popen does.
        """
        environment = dict(os.environ if environment is None else environment)
        # ipykernel would look for that parent, and end where it has another one
        environment.pop("JPY_PARENT_PID", None)
        cwd = os.path.abspath(cwd or os.getcwd())
        program = shutil.which(cmd[0], path=environment.get("PATH"))
        for exists, name in ((program, cmd[0]), (os.path.isdir(cwd), cwd)):
            if not exists:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        options = _options(cmd) if _zygote_will_do(environment) else ()
        return Launch(
            interpreter=sys.executable if options else "",
            argv=() if options else tuple(cmd),
            cwd=cwd,
            path=_search_path(environment, cwd),
            environment=tuple(sorted(environment.items())),
            policy=self._policy(),
            role=KERNEL,
            options=options,
            folder=str(self._folder),
            patience=_RECONNECT_PATIENCE if self.pid is not None else 0.0,
        )

    def _policy(self) -> SandboxPolicy:
        policy = SandboxPolicy(self.sandbox, self.memory)
        if policy.is_confined:
            msg = (
                f'"sandbox": "{self.sandbox}" cannot be had for a kernel of your own: it reads '
                'your profile and runs your startup files, with your rights. Say "open", or leave '
                "it out."
            )
            raise SandboxUnavailable(msg, missing=("kernels of your own",))
        return policy

    def _switch_to_sockets(self, folder: Path) -> None:
        """Have the manager use sockets in the folder, unless somebody chose an address for it."""
        manager: Any = self.parent
        if manager is None or manager.transport != "tcp" or manager.ip != localhost():
            return
        if any(getattr(manager, port) for port in _PORTS):
            return
        manager.cache_ports = False  # its default was found while it was for TCP
        manager.transport, manager.ip = "ipc", str(folder / "k")
        for number, port in enumerate(_PORTS, 1):
            setattr(manager, port, number)
        self._switched = True

    def _switch_back(self) -> None:
        """Leave the manager as it came: it may start another kernel, in another folder."""
        manager: Any = self.parent
        manager.transport, manager.ip = "tcp", localhost()
        for port in _PORTS:
            setattr(manager, port, 0)
        self._switched = False

    def _tell_of(self, end: Exit, kernel: _Kernel) -> None:
        """Log an end that nobody asked for: a front-end only says that the kernel has died."""
        if end.by_us == "memory":
            used, limit = format_size(end.memory_used), format_size(end.memory_limit)
            self.log.warning(
                "Kernel %s used %s of memory and was killed: its kernelspec allows %s.",
                self.kernel_id,
                used,
                limit,
            )
        elif end.by_us is None and kernel.returncode and not self._asked_to_end:
            self.log.warning(
                "Kernel %s ended with %s. It said last: %s",
                self.kernel_id,
                kernel.returncode,
                kernel.process.log_tail() or "nothing",
            )


async def _all_gone(process: WorkerProcess) -> None:
    await asyncio.wait({process.exited})
    await process.stop()


async def _kill(process: WorkerProcess) -> None:
    if not process.gone.is_set():
        process.kill("stop")


def _options(cmd: list[str]) -> tuple[str, ...]:
    """The arguments of ipykernel's launcher, where a command is that with this Python; else ()."""
    words = [word for word in cmd[1:2] if word != _FOR_DEBUGGER] + cmd[2:]
    if words[:2] in _LAUNCHERS and _is_this_python(cmd[0]):
        return tuple(words[2:])
    return ()


def _zygote_will_do(environment: Mapping[str, str]) -> bool:
    """Whether an interpreter that was started without this environment is like one with it."""
    libraries = "LD_LIBRARY_PATH"
    same_libraries = environment.get(libraries) == os.environ.get(libraries)
    return same_libraries and _READ_AT_START.isdisjoint(environment)


def _is_this_python(program: str) -> bool:
    """Whether it is another name of this interpreter: ``bin/python``, ``bin/python3``."""
    place = Path(shutil.which(program) or program)
    with contextlib.suppress(OSError):
        same_environment = place.parent.samefile(Path(sys.executable).parent)
        return same_environment and place.samefile(sys.executable)
    return False


def _search_path(environment: Mapping[str, str], cwd: str) -> tuple[str, ...]:
    """What goes before the zygote's ``sys.path``, which knows neither PYTHONPATH nor user site."""
    entries = environment.get("PYTHONPATH", "").split(os.pathsep)
    named = dict.fromkeys(os.path.join(cwd, entry) for entry in entries if entry)
    if not site.ENABLE_USER_SITE or "PYTHONNOUSERSITE" in environment:
        return tuple(named)
    library = sysconfig.get_path("stdlib")
    standard = [entry for entry in sys.path if entry in {library, f"{library}/lib-dynload"}]
    return (*named, *standard, site.getusersitepackages())
