"""
The worker's kernel: an ordinary IPython kernel to anyone who speaks the Jupyter protocol.

``prepare`` runs once in the zygote and builds what a fork may share; ``run`` runs in each worker.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import random
import signal
import site
import sys
import tempfile
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import zmq
from ipykernel.compiler import XCachingCompiler
from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.heartbeat import Heartbeat
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.profiledir import ProfileDir
from jupyter_client.jsonutil import json_default
from jupyter_client.session import Session
from traitlets import Type
from traitlets.config import Config

from hive_jupyter import transfer
from hive_jupyter.errors import TransferError
from hive_jupyter.protocol import (
    CHANNELS,
    PROTOCOL_VERSION,
    REPLY_METADATA,
    RUN_KEY,
    WORKER,
    WORKER_NAME,
    WORKER_VARIABLE,
    WorkerSpec,
    encode_line,
)
from hive_jupyter.tools import LARGEST_RESULT, Call
from hive_jupyter.worker import compat, hooks, streams
from hive_jupyter.worker.commits import CommitRequests, commit
from hive_jupyter.worker.confine import Confinement, prctl
from hive_jupyter.worker.confine.refusals import Refusals
from hive_jupyter.worker.items import Items
from hive_jupyter.worker.threads import OfThread, Threads
from hive_jupyter.worker.tools import Toolbox, workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from types import FrameType

_T = TypeVar("_T")

# Ends a system call, and is nothing else to anybody: elsewhere than on Linux the one that is for
# sockets that nobody uses.
WAKE = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGURG

# Names in a reply's metadata: enough for a person, bounded for a namespace of a million entries.
MAX_NAMES = 1000

# Imported at the first use of a feature (completion, tracebacks): in the zygote it is paid once,
# and a project's file of that name cannot take its place.
_PRELOADED = (
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "ctypes",
    "executing",
    "faulthandler",
    "ipykernel.comm",
    "jedi",
    "multiprocessing",
    "pdb",
    "stack_data",
    "subprocess",
    "tornado.platform.asyncio",
)


class CoderWorker(IPythonKernel):
    """The IPython kernel with the message types of tools; names of variables go with each reply."""

    msg_types = [  # noqa: RUF012
        *IPythonKernel.msg_types,
        "list_tools_request",
        "call_tool_request",
        "push_request",
        "pull_request",
        "map_request",
        "run_hooks_request",
    ]
    control_msg_types = [  # noqa: RUF012
        *IPythonKernel.control_msg_types,
        "wake_request",
        "interrupt_run_request",
        "map_stop_request",
        "map_return_request",
        "commit_reply",
    ]
    _execute_sleep = 0
    interrupted = False
    runs_cell = False
    # The app replaces them, once it knows what the worker is.
    toolbox = Toolbox(())
    items = Items("", None)
    # For the memory of large values; None: it goes with the messages.
    bulk: transfer.BulkSocket | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.threads = Threads()
        self.commit_requests = CommitRequests(self._publish_commit_request)
        self.shell_handlers["comm_msg"] = self.comm_msg
        self._published = 0
        self._is_silent = False
        self._count_what_is_published()

    def _count_what_is_published(self) -> None:
        thread: Any = self.iopub_thread

        def counting(send: Callable[..., None]) -> Callable[..., None]:
            def send_and_count(*arguments: Any, **options: Any) -> None:
                self._published += 1
                send(*arguments, **options)

            return send_and_count

        # what is said on other threads goes by the first, and streams send by the second
        thread.send_multipart = counting(thread.send_multipart)
        thread._really_send = counting(thread._really_send)  # noqa: SLF001  private in ipykernel

    def comm_msg(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Take what a front-end says to a comm; as a rule on a subshell's thread."""
        self.comm_manager.comm_msg(stream, ident, parent)
        # a callback may have resolved what a cell awaits, and a future does not wake a loop that
        # sleeps in another thread
        self.io_loop.add_callback(lambda: None)

    def kernel_info_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> Any:
        """Answer as any kernel does; the first request tells a spare its name."""
        name = parent["header"].get(WORKER_NAME)
        if isinstance(name, str) and os.environ.get(WORKER_VARIABLE) != name:
            os.environ[WORKER_VARIABLE] = name
            prctl.set_title(f"hive: worker {name}")
        return super().kernel_info_request(stream, ident, parent)

    @property
    def kernel_info(self) -> dict[str, Any]:
        """Kernel info that names Hive's protocol."""
        return {**super().kernel_info, "hive_protocol": PROTOCOL_VERSION}

    async def poll_stopped_queue(self) -> None:
        """There is no debugger whose stops could be polled."""

    def finish_metadata(
        self, parent: dict[str, Any], metadata: dict[str, Any], reply_content: dict[str, Any]
    ) -> dict[str, Any]:
        """Add the names that exist now: what is lost if the worker dies later."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        return {**metadata, REPLY_METADATA: {"names": self._variables()}}

    def set_parent(self, ident: Any, parent: dict[str, Any], channel: str = "shell") -> None:
        """Take up a request; an interrupt that came before was not meant for it."""
        if channel == "shell":
            self.interrupted = False
        super().set_parent(ident, parent, channel)

    def _publish_execute_input(self, code: str, parent: dict[str, Any], count: int) -> None:
        """Repeat the code to those who look on; Hive's host, which sent it, does not."""
        if RUN_KEY not in parent["header"]:
            super()._publish_execute_input(code, parent, count)

    def _publish_status(
        self, status: str, channel: str, parent: dict[str, Any] | None = None
    ) -> None:
        """Say it, but of a request of a map that has published nothing: its reply says enough."""
        header = (parent or self.get_parent(channel)).get("header", {})
        if header.get("msg_type") != "map_request":
            super()._publish_status(status, channel, parent)
        elif status == "busy":
            self._is_silent = False
        elif not self._is_silent:
            super()._publish_status(status, channel, parent)

    def pre_handler_hook(self) -> None:
        """Leave SIGINT as it is: ``do_execute`` has it raise, and nothing else does."""

    def post_handler_hook(self) -> None:
        """See ``pre_handler_hook``."""

    async def do_execute(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """
        Run code; SIGINT raises KeyboardInterrupt while it runs, and at no other time.

        ipykernel lets it raise in its own dispatch code too, where it cut a message in two or lost
        a reply.
        """
        compat.forget_what_could_not_be_shown(self.shell)
        work = super().do_execute(*arguments, **options)
        if threading.current_thread() is not threading.main_thread():
            with self.threads.running(self.get_parent()["header"].get(RUN_KEY, "")):
                return dict(await work)
        self.runs_cell = True
        try:
            return await self._interruptible(work) or self._interrupted_reply()
        finally:
            self.runs_cell = False

    async def _interruptible(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Await it, while SIGINT raises; None where it did."""
        if threading.current_thread() is not threading.main_thread():
            return await work
        result: _T | None = None
        noting = signal.getsignal(signal.SIGINT)
        try:
            try:
                signal.signal(signal.SIGINT, self.raise_interrupt)
                if not self.interrupted:
                    result = await work
            finally:
                signal.signal(signal.SIGINT, noting)
        except KeyboardInterrupt:
            # in code around the user's, or in the last moment: not even the line above is safe
            # from it
            signal.signal(signal.SIGINT, noting)
        work.close()
        return result

    def raise_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note an interrupt and raise it: where IPython swallows it, its shell still knows."""
        self.interrupted = True
        signal.default_int_handler(number, frame)

    async def wake_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """
        End the system call that the user's code waits in, so that Python looks for signals.

        One that comes in the moment before the call begins is noted, and does not end it. From the
        control thread.
        """
        signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
        self._reply(stream, ident, parent, "wake_reply", {})

    async def interrupt_run_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Interrupt a run on a subshell, which no signal reaches; from the control thread."""
        self.threads.interrupt(str(parent["content"].get("key")))
        self._reply(stream, ident, parent, "interrupt_run_reply", {})

    def _interrupted_reply(self) -> dict[str, Any]:
        return {
            "status": "error",
            "ename": "KeyboardInterrupt",
            "evalue": "",
            "traceback": ["KeyboardInterrupt"],
            "execution_count": self.execution_count,
            "user_expressions": {},
            "payload": [],
        }

    async def list_tools_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Answer with the worker's tools; the user's own modules may be imported for that."""

        async def work() -> dict[str, Any]:
            return self.toolbox.list_tools()

        self._reply(stream, ident, parent, "list_tools_reply", await self._interruptible(work()))

    async def call_tool_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run a tool and answer with its result."""
        content = parent["content"]
        limit = content.get("limit")
        call = Call(
            limit if isinstance(limit, int) else LARGEST_RESULT,
            lambda done, total, message: self._report(parent, done, total, message),
        )

        async def work() -> dict[str, Any]:
            return self.toolbox.call_tool(content.get("name"), content.get("arguments") or {}, call)

        result = await self._interruptible(work())
        # what the tool printed comes before its result
        sys.stdout.flush()
        sys.stderr.flush()
        self._reply(stream, ident, parent, "call_tool_reply", result)

    async def push_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Take values from the host, which the worker trusts: all of them, or none."""
        content, parts = parent["content"], parent["buffers"]

        async def work() -> dict[str, Any]:
            shell: Any = self.shell
            try:
                if "bulk" in content:
                    parts.extend(self._receive(content["bulk"]))
                taken = transfer.unpack(content["values"], parts, loads=transfer.unpickled)
            except TransferError as error:
                return {"refused": str(error)}
            shell.user_ns.update(taken)
            return {}

        reply = await self._interruptible(work())
        if reply is None:
            self._leave_bulk()
        self._reply(stream, ident, parent, "push_reply", reply)

    async def pull_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Hand variables over to the host: all of them, or none."""
        content = parent["content"]
        parts: list[memoryview] = []

        async def work() -> dict[str, Any]:
            shell: Any = self.shell
            missing = [name for name in content["names"] if name not in shell.user_ns]
            if missing:
                return {"missing": missing}
            values = {name: shell.user_ns[name] for name in content["names"]}
            dumps = transfer.pickled if content["pickles"] else None
            try:
                told, packed = transfer.pack(values, limit=content["limit"], dumps=dumps)
            except TransferError as error:
                return {"refused": str(error)}
            parts.extend(packed)
            return {"values": told}

        reply = await self._interruptible(work())
        bulk = self.bulk if content.get("bulk") else None
        size = sum(part.nbytes for part in parts)
        if reply is None or bulk is None or size < transfer.SMALLEST or not bulk.is_in_step():
            self._reply(stream, ident, parent, "pull_reply", reply, buffers=parts)
            return
        # the host reads from here on: it knows now what is to come
        told = {**reply, "bulk": [part.nbytes for part in parts]}
        self._reply(stream, ident, parent, "pull_reply", told)
        await self._send(bulk, parts)

    def _receive(self, sizes: Sequence[int]) -> list[memoryview]:
        if self.bulk is None:
            raise TransferError("there is no way for large values to this worker")
        return self.bulk.receive(sizes)

    async def _send(self, bulk: transfer.BulkSocket, parts: Sequence[memoryview]) -> None:
        async def work() -> bool:
            with suppress(TransferError):  # the host knows why it has not taken all
                bulk.send(parts)
            return True

        if await self._interruptible(work()) is None:
            self._leave_bulk()

    def _leave_bulk(self) -> None:
        """Of what was interrupted nobody knows what is still on its way."""
        if self.bulk is not None:
            self.bulk.close()

    async def map_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run items of a map and answer with what came of each."""
        parts: list[memoryview] = []
        before = self._published
        try:
            answer, parts = self.items.run(parent["content"], parent["buffers"])
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        # what the items printed comes before what came of them
        sys.stdout.flush()
        sys.stderr.flush()
        self._is_silent = answer["silent"] = self._published == before
        self._reply(stream, ident, parent, "map_reply", answer, buffers=parts)

    async def map_stop_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Stop the items of a map_request, also one that has not begun; on the control thread."""
        self.items.stop(parent["content"]["number"])
        self._reply(stream, ident, parent, "map_stop_reply", {})

    async def map_return_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Begin no further item of a map_request; on the control thread."""
        first = self.items.give_back(parent["content"]["number"])
        self._reply(stream, ident, parent, "map_return_reply", {"first": first})

    async def run_hooks_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run the user's hooks for a commit; a worker is started for that alone."""

        async def work() -> dict[str, Any]:
            try:
                return hooks.run(parent["content"])
            except OSError as error:
                name = type(error).__name__
                return {"status": "error", "ename": name, "evalue": str(error), "traceback": []}

        self._reply(stream, ident, parent, "run_hooks_reply", await self._interruptible(work()))

    async def commit_reply(self, _stream: Any, _ident: Any, parent: dict[str, Any]) -> None:
        """The host's answer to a commit that code asked for; from the control thread."""
        self.commit_requests.take_reply(parent["content"])

    def _publish_commit_request(self, content: dict[str, Any]) -> None:
        session: Any = self.session
        sys.stdout.flush()
        sys.stderr.flush()
        parent = self.get_parent()
        session.send(self.iopub_socket, "commit_request", content, parent, ident=b"commit_request")

    def _report(
        self, parent: dict[str, Any], done: float, total: float | None, message: str
    ) -> None:
        session: Any = self.session
        content = {"progress": done, "total": total, "message": message}
        session.send(self.iopub_socket, "tool_progress", content, parent, ident=b"tool_progress")

    def _reply(
        self,
        stream: Any,
        ident: Any,
        parent: dict[str, Any],
        kind: str,
        content: dict[str, Any] | None,
        *,
        buffers: Sequence[memoryview] = (),
    ) -> None:
        session: Any = self.session
        answer = self._interrupted_reply() if content is None else {"status": "ok", **content}
        told = {REPLY_METADATA: {"names": self._variables()}}
        session.send(stream, kind, answer, parent, ident=ident, metadata=told, buffers=[*buffers])

    def _variables(self) -> list[str]:
        shell: Any = self.shell
        hidden = shell.user_ns_hidden
        names = [
            name
            for name in list(shell.user_ns)
            if isinstance(name, str) and not name.startswith("_") and name not in hidden
        ]
        return names[:MAX_NAMES]


class WorkerDisplayHook(ZMQShellDisplayHook):
    """ipykernel's, for runs in several threads: the message that each is about to send."""

    msg = OfThread(None)


@compat.called_as_its_base
class WorkerShell(ZMQInteractiveShell):
    """IPython's shell for a kernel; it keeps no copy of what a cell prints."""

    displayhook_class = Type(WorkerDisplayHook)
    # what a run leaves for its reply is not that of a run in another thread
    _last_traceback = OfThread(None)
    _last_traceback_during_displayhook = OfThread(False)

    # What explains why the boundary or a limit refused something; the app sets it.
    refusals: Refusals | None = None

    def run_code(self, *arguments: Any, **options: Any) -> Any:
        """
        Run code, from here on with SIGINT as in any Python.

        Up to here an interrupt may have been taken for the error of a callback, which IPython shows
        and forgets. Not a coroutine: its frame would stand in tracebacks.
        """
        kernel: Any = self.kernel
        if threading.current_thread() is threading.main_thread():  # a subshell gets no signals
            if kernel.interrupted:
                raise KeyboardInterrupt
            if signal.getsignal(signal.SIGINT) == kernel.raise_interrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        return super().run_code(*arguments, **options)

    def init_traceback_handlers(self, custom_exceptions: Any) -> None:
        """Have a traceback say at its end where the worker's boundary or a limit is the cause."""
        super().init_traceback_handlers(custom_exceptions)
        compat.end_tracebacks_with(self.InteractiveTB, self.reason)

    def reason(self, error: BaseException | None) -> str | None:
        """Why the boundary or a limit refused something, in a line; None where neither did."""
        if self.refusals is None:
            return None
        return self.refusals.explain(error, os.environ[WORKER_VARIABLE])

    def _tee(self, *_: Any, **__: Any) -> Any:
        """
        Do without what IPython 9 does here.

        It keeps all that is printed for ever, for ``%notebook``, whose home is the user's kernel;
        that took a third of a print's time.
        """
        return nullcontext()


class WorkerApp(IPKernelApp):
    """ipykernel's start, with the connection given and no file, profile or extension looked for."""

    kernel_class = CoderWorker
    outstream_class = "hive_jupyter.worker.streams.WorkerStream"

    def serve(self, spec: WorkerSpec, confinement: Confinement, ready: int) -> None:
        """
        Bind the sockets, close the boundary, say ready on the pipe, and run until the kernel ends.

        Nothing of the project is imported before.
        """
        self._configure(spec)
        self.init_pdb()
        self.init_sockets()
        self.init_heartbeat()
        self._ports = {channel: getattr(self, f"{channel}_port") for channel in CHANNELS}
        self.init_io()
        self.init_signal()
        self.init_kernel()
        compat.reply_through_the_stream(self.kernel)
        self.shell = self.kernel.shell
        compat.join(self.shell, self.kernel)
        compat.hear_comms_on_any_subshell()
        compat.leave_the_running_cell_alone(lambda: self.kernel.runs_cell)
        self.kernel.toolbox = Toolbox(spec.tools, spec.root, self.shell.reason)
        self.kernel.items = Items(spec.folder, self.shell)
        workspace.enter(spec.root or spec.cwd, spec.cwd)
        self.kernel.io_loop = None
        if not spec.name:
            self._exercise()
        if spec.policy.is_confined:
            compat.live_without_sockets()
        self.shell.refusals = confinement.refusals()
        confinement.close()
        _search_as_the_host(spec)
        _search_project(spec)
        ports = {f"{name}_port": port for name, port in self._ports.items()}
        os.write(ready, encode_line({**ports, "confinement": confinement.facts()}))
        os.close(ready)
        self.start()

    def _exercise(self) -> None:
        """Have a spare copy now the pages that its first cell will write to: nobody waits yet."""
        shell: Any = self.shell
        shell.run_cell("pass", store_history=False, silent=True)
        request = self.session.msg("execute_request", {"code": "pass"})
        _, frames = self.session.feed_identities(self.session.serialize(request))
        self.session.deserialize(frames)

    def init_signal(self) -> None:
        """
        Note an interrupt outside of the user's code.

        ipykernel ignores it there. But between the "busy" of a cell and its first line that would
        leave it running, undisturbed.
        """
        signal.signal(signal.SIGINT, self._note_interrupt)
        signal.signal(WAKE, lambda *_: None)

    def _note_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if isinstance(self.kernel, CoderWorker):
            self.kernel.interrupted = True

    def _configure(self, spec: WorkerSpec) -> None:
        connection = spec.connection
        self.log.setLevel(logging.WARNING)
        self.transport = connection["transport"]
        self.ip = connection["ip"]
        for channel in CHANNELS:
            setattr(self, f"{channel}_port", connection[f"{channel}_port"])
        self.session = Session(parent=self, key=connection["key"].encode())
        self.session.pack = _replacing(self.session.pack)
        self.profile_dir = _profile(spec.folder)
        if connection["transport"] == "tcp":
            self.curve_publickey = connection["curve_publickey"].encode()
            self.curve_secretkey = connection["curve_secretkey"].encode()

    def _bind_socket(self, s: zmq.Socket[bytes], port: int) -> int:
        # What the user prints is never dropped; how much may wait is the memory limit's affair.
        s.sndhwm = 0
        self._encrypt(s)
        bound: int = super()._bind_socket(s, port)
        return bound

    def init_heartbeat(self) -> None:
        """Echo what comes, on a thread with a context of its own: nothing here can block it."""
        streams.wire.find()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._encrypt(context)
        self.heartbeat = _Heartbeat(context, (self.transport, self.ip, self.hb_port))
        self.hb_port = self.heartbeat.port
        self.heartbeat.start()
        self.heartbeat.is_bound.wait()

    def _encrypt(self, sockets: zmq.Socket[bytes] | zmq.Context[zmq.Socket[bytes]]) -> None:
        # ipykernel does this itself from 7.3 on, and knows no such trait before
        if getattr(self, "curve_secretkey", None) is not None:
            sockets.curve_secretkey = self.curve_secretkey
            sockets.curve_publickey = self.curve_publickey
            sockets.curve_server = True


class _Heartbeat(Heartbeat):
    """
    ipykernel's, which binds its socket in its own thread.

    Attributes:
        is_bound: set once it has.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_bound = threading.Event()

    def _bind_socket(self) -> None:
        try:
            super()._bind_socket()
        finally:
            self.is_bound.set()


class KernelApp(WorkerApp):
    """A kernel of the user's own: ipykernel's whole start, from its command line on."""

    def serve(self, spec: WorkerSpec, confinement: Confinement, ready: int) -> None:  # noqa: ARG002
        """Do what ``python -m ipykernel_launcher`` does, and say ready on the pipe on the way."""
        self._ready = ready
        _search_as_the_host(spec)
        sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        # the zygote's shell knows nothing of the user's profile
        ZMQInteractiveShell.clear_instance()
        self.initialize(list(spec.options))
        compat.reply_through_the_stream(self.kernel)
        time.sleep(max(0.0, self._bound + spec.patience - time.monotonic()))
        self.start()

    def init_heartbeat(self) -> None:
        """All sockets are bound now; what comes next may be a startup file that takes its time."""
        super().init_heartbeat()
        self._bound = time.monotonic()
        os.write(self._ready, encode_line({}))
        os.close(self._ready)

    def init_poller(self) -> None:
        """The supervisor watches the host; a parent keeps ipykernel from greeting a terminal."""
        self.parent_handle = os.getppid()

    def init_path(self) -> None:
        """Search the working folder where IPython does; the zygote's own -I is not the kernel's."""
        if "" not in sys.path and not self.ignore_cwd and "PYTHONSAFEPATH" not in os.environ:
            packages = (n for n, entry in enumerate(sys.path) if entry.endswith("-packages"))
            sys.path.insert(next(packages, 0), "")


def prepare(folder: str) -> None:
    """
    Import and build what all workers of a zygote share; starts no thread, loop or zmq context.

    Args:
        folder: a private folder for IPython's profile.
    """
    for name in _PRELOADED:
        importlib.import_module(name)
    compat.leave_debugpy_out()
    _build_shell(folder).run_cell("pass", store_history=False, silent=True)


def run(
    spec: WorkerSpec,
    confinement: Confinement,
    ready: int,
    pipes: Mapping[str, tuple[int, int]],
    bulk: Sequence[int] = (),
) -> None:
    """
    Be the worker: returns when its kernel has been shut down.

    Args:
        spec: of the worker.
        confinement: of this process, all but closed.
        ready: a pipe; one line of JSON with the bound ports goes there.
        pipes: for its streams; see ``WorkerStream``.
        bulk: the socket for large values, where there is one.
    """
    # fd 2 becomes a pipe to the notebook; a crash is written to the log
    faulthandler.enable(file=os.dup(2), all_threads=False)
    random.seed()
    tempfile.tempdir = None  # the zygote has looked for one of its own
    compat.leave_debugpy_out()
    if not ZMQInteractiveShell.initialized():
        # exec'd: also here nothing of the project may take the place of what a kernel imports
        sys.path += [entry for entry in spec.library if entry not in sys.path]
        prepare(spec.folder)
    sys.argv[:] = ["ipykernel_launcher", *spec.options]
    streams.WorkerStream.pipes = pipes
    for descriptor in bulk:
        CoderWorker.bulk = transfer.BulkSocket(descriptor)
        os.register_at_fork(after_in_child=CoderWorker.bulk.leave)
    app = WorkerApp.instance(config=_config()) if spec.role == WORKER else KernelApp.instance()
    try:
        app.serve(spec, confinement, ready)
    finally:
        compat.finish_as_python_does()


def _search_as_the_host(spec: WorkerSpec) -> None:
    """Import from where the host does, a notebook's folder included, and what .pth files name."""
    for folder in [entry for entry in sys.path if entry.endswith("-packages")]:
        site.addsitedir(folder)
    sys.path[:] = [*spec.path, *(entry for entry in sys.path if entry not in spec.path)]


def _search_project(spec: WorkerSpec) -> None:
    """
    Import from the working folder and the project, behind the standard library.

    A host that is no notebook, such as a server for agents, searches neither.
    """
    known = {os.path.realpath(entry or spec.cwd) for entry in sys.path}
    folders = dict.fromkeys(filter(None, (spec.cwd, spec.root)))
    behind = [place for place, entry in enumerate(sys.path) if entry.endswith("-packages")]
    place = min(behind, default=len(sys.path))
    sys.path[place:place] = [each for each in folders if os.path.realpath(each) not in known]


def _replacing(pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Put a question mark where text holds half a character, which no UTF-8 and no JSON can."""

    def packed(part: Any) -> bytes:
        try:
            return pack(part)
        except UnicodeEncodeError:
            text = json.dumps(part, default=json_default, ensure_ascii=False, allow_nan=False)
            return text.encode(errors="replace")

    return packed


def _config() -> Config:
    config = Config()
    # A history file would mean a thread, and one SQLite handle for all forks.
    config.HistoryManager.hist_file = ":memory:"
    # It takes a tenth of a second or more, and finds nothing in a subshell from the third time on.
    config.Completer.use_jedi = False
    return config


def _profile(folder: str) -> ProfileDir:
    return ProfileDir(location=os.path.join(folder, "profile"))


def _build_shell(folder: str) -> ZMQInteractiveShell:
    shell: ZMQInteractiveShell = WorkerShell.instance(
        config=_config(),
        profile_dir=_profile(folder),
        compiler_class=XCachingCompiler,
        user_ns={},
    )
    shell.magics_manager.register_function(commit)
    return shell
