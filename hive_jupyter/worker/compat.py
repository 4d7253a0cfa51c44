"""
What a worker changes in ipykernel and IPython beyond what these ask subclasses to do.

``tests/test_worker_compat.py`` holds each of it against the real thing, with the lowest ipykernel
that Hive allows and with the newest.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ipykernel import zmqshell
from ipykernel.comm.comm import BaseComm
from IPython.core.getipython import get_ipython

_C = TypeVar("_C", bound=type)

_INSTALLS = re.compile(r"\bpip[\d.]*\s+(?:un)?install\b")
_NO_ENVIRONMENT = (
    "Hive: no worker writes an environment. Run %pip in your own kernel; %hive restart, where the "
    "worker has imported an older version."
)


def called_as_its_base(kind: _C) -> _C:
    """Give a class the name of the one that it stands for: programs ask by it where they run."""
    base = kind.__mro__[1]
    kind.__module__, kind.__name__ = base.__module__, base.__name__
    kind.__qualname__ = base.__qualname__
    return kind


def leave_debugpy_out() -> None:
    """
    Have ipykernel find no debugpy: it costs each worker 55 ms, and no front-end debugs a worker.

    The user's own ``import debugpy`` works.
    """
    if "ipykernel.debugger" in sys.modules:
        return
    known = sys.modules.get("debugpy")
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("ipykernel.debugger")
    finally:
        del sys.modules["debugpy"]
        if known is not None:
            sys.modules["debugpy"] = known


def join(shell: Any, kernel: Any) -> None:
    """Tell a shell that was built before the fork which kernel it serves."""
    shell.kernel = kernel
    shell.parent = kernel
    shell.profile_dir = kernel.profile_dir


def reply_through_the_stream(kernel: Any) -> None:
    """
    Send on the shell socket only through the stream that reads it.

    A reply sent past the stream, as ipykernel did before 7.4, may swallow the socket's word that a
    request has come: the kernel then waits for ever, the request unread.
    """
    manager = kernel.shell_channel_thread.manager
    if hasattr(manager, "_shell_socket"):
        setattr(manager, "_shell_socket", kernel.shell_stream)  # noqa: B010  private in ipykernel


def hear_comms_on_any_subshell() -> None:
    """
    Have a comm's messages taken up by the subshell that they are sent to.

    ipykernel 7.4 takes them to the one that spoke through the comm last, as a rule the main shell,
    where they wait for the running cell.
    """
    if hasattr(BaseComm, "_reply_subshell_for"):
        setattr(BaseComm, "_reply_subshell_for", lambda _self, _data, default: default)  # noqa: B010


def leave_the_running_cell_alone(is_running: Callable[[], bool]) -> None:
    """
    Have what comes to a comm while a cell runs not end that cell.

    What IPython does before and after a cell is done for each of a comm's messages, too. At the end
    of a cell matplotlib shows what that has drawn, and closes it.
    """

    def handle_msg(comm: Any, message: dict[str, Any]) -> None:
        shell: Any = get_ipython()
        hear, events = comm._msg_callback, shell.events  # noqa: SLF001
        if hear is None:
            return
        # asked anew: a cell may begin or end while the callback runs
        if not is_running():
            events.trigger("pre_execute")
        hear(message)
        if not is_running():
            events.trigger("post_execute")

    setattr(BaseComm, "handle_msg", handle_msg)  # noqa: B010


def live_without_sockets() -> None:
    """
    Do what otherwise needs unix sockets or terminals, of which a confined worker has none.

    IPython runs ``!`` in a terminal of its own, and /dev/pts holds the user's others; the server
    from which multiprocessing forks, by default since Python 3.14, listens on a unix socket.
    """
    setattr(zmqshell, "system", _run_through_pipes)  # noqa: B010  the module's own, for all shells
    default: Any = multiprocessing.context._default_context  # noqa: SLF001
    if default._default_context.get_start_method() == "forkserver":  # noqa: SLF001
        default._default_context = multiprocessing.get_context("spawn")  # noqa: SLF001


def _run_through_pipes(command: str) -> int:
    """Run what the user wrote behind ``!``; return its exit code, or the signal's, negative."""
    try:
        code = subprocess.call(command, shell=True, executable=os.environ.get("SHELL"))  # noqa: S602
    except KeyboardInterrupt:
        return -signal.SIGINT
    if code and _INSTALLS.search(command):
        print(_NO_ENVIRONMENT, file=sys.stderr)  # noqa: T201  below what pip has said
    return code


def end_tracebacks_with(maker: Any, reason: Callable[[BaseException | None], str | None]) -> None:
    """
    Add a line to the tracebacks of those exceptions for which there is a reason.

    It is added where a traceback is made, not where it is shown: an exception that cannot say what
    it is fails there, and all that was called for that then stands in a traceback of its own.

    Args:
        maker: of the tracebacks, IPython's.
        reason: gives the line for an exception, or None.
    """
    made = maker.structured_traceback

    def explained(
        kind: Any = None, error: BaseException | None = None, *rest: Any, **options: Any
    ) -> list[str]:
        lines: list[str] = made(kind, error, *rest, **options)
        line = reason(error)
        # once, where the traceback of one exception holds those of others
        return [*(each for each in lines if each != line), line] if line else lines

    maker.structured_traceback = explained


def forget_what_could_not_be_shown(shell: Any) -> None:
    """
    Begin a run without what the displayhook of the run before left unfinished.

    ipykernel 7.4 notes that a value could not be shown, and forgets it only where the next run does
    not await: one that does then fails without an exception (its reply names NoneType).
    """
    shell.displayhook.msg = None
    if hasattr(shell, "_last_traceback_during_displayhook"):
        setattr(shell, "_last_traceback_during_displayhook", False)  # noqa: B010  private in ipykernel


def finish_as_python_does() -> None:
    """Wait for the user's threads, call what waits for the end, write what files hold back."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for thing in gc.get_objects():
        # looking at somebody's object may do anything
        with contextlib.suppress(Exception):
            if isinstance(thing, io.IOBase) and not thing.closed:
                thing.flush()
