"""
Words that host and worker share.

Host, zygote and supervisor talk over unix stream sockets in lines of JSON. A worker's supervisor
has a socket of its own to the host: the first line that comes down it is the ``WorkerSpec``, later
ones are requests (``{"signal": 2}``, ``{"kill": true}``); what goes up are events (``STARTED`` with
two pidfds and the host's end of the bulk socket beside it, ``READY``, ``SIGNALLED``, ``EXIT``). The
end of the stream means that the other side is gone.
Host and worker talk in Jupyter messages (https://jupyter-client.readthedocs.io/en/stable/messaging.html),
and in these besides, whose contents have the shapes of MCP::

    shell  list_tools_request {}                        -> list_tools_reply {tools, problems}
    shell  call_tool_request {name, arguments, limit}   -> call_tool_reply {content, isError, ...}
    shell  run_hooks_request {git, repository, hooks, message, environment, seconds}
           -> run_hooks_reply {code, said, missing, message, tree}, see ``worker.hooks``
    shell  push_request {values, bulk} and buffers      -> push_reply {refused}
    shell  pull_request {names, limit, pickles, bulk}   -> pull_reply {values, missing, refused,
           bulk} and buffers; what values are is in ``transfer``, and what bulk is in its ``bulk``
    shell  map_request {number, slot, key, function, spread, items, seconds, pickles, limit} and
           buffers -> map_reply {results, stopped, seconds} or {unknown} or {refused}, each with
           {silent}: nothing was published, "busy" and "idle" neither; and buffers;
           see ``swarm.items``
    control  map_stop_request {number}                  -> map_stop_reply {}
    control  map_return_request {number}                -> map_return_reply {first}
    iopub  tool_progress {progress, total, message}     while a tool runs
    iopub  commit_request {id, message, paths, supersedes}  while a cell runs
           -> control commit_reply {id, text} or {id, error}
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hive_jupyter.policy import SandboxPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = 2

# Key of a run, and name of the worker, in the header of a request; ipykernel hands the whole header
# back as parent_header of everything that the run says.
RUN_KEY = "hive_run"
WORKER_NAME = "hive_worker"
# Key in the metadata of an execute_reply: {"names": [...]}, the variables that exist after the run.
REPLY_METADATA = "hive"

# Marks the environment of a worker, so that Hive refuses to nest. Not HIVE_JUPYTER_WORKER: that is
# the setting "worker".
WORKER_VARIABLE = "HIVE_JUPYTER_IN_WORKER"

# What is started: a worker runs delegated code, a kernel is one of the user's own, a server talks
# with the host through its standard input and output.
WORKER = "worker"
KERNEL = "kernel"
SERVER = "server"

STARTED = "started"
READY = "ready"
FAILED = "failed"
SIGNALLED = "signalled"
EXIT = "exit"

# One byte to the zygote, with the supervisor's socket beside it.
FORK = b"f"

# The file in a worker's folder, with the request's slot behind its name, in which it notes what
# came of the items of a map_request: the request's number, the item that runs and since when
# (time.monotonic); then, for each finished one, the length of a line of JSON, [index, kind,
# description, sizes], that line, and its memory.
JOURNAL = "items"
JOURNAL_HEAD = struct.Struct("<qqd")
JOURNAL_LENGTH = struct.Struct("<I")

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


@dataclass(frozen=True)
class WorkerSpec:
    """
    All that a supervisor needs to start one worker.

    Attributes:
        name: of the worker; a spare is started without one.
        folder: the worker's private runtime folder: sockets, log, temporary profile.
        cwd: its working folder.
        path: what comes first in its ``sys.path``: for the host's own Python, the host's whole one.
        environment: the whole environment of the worker.
        policy: what it may touch.
        connection: Jupyter connection information: transport, ip, key, ports; for TCP
            curve_publickey and curve_secretkey (Z85), ports 0 for the worker to choose. Empty for
            a kernel of the user's, which reads it from a file, and for a server.
        argv: command line of another kernel or of a server, or empty for Hive's own.
        library: entries of ``sys.path`` from which a kernel that is not forked may be imported.
        role: WORKER, KERNEL or SERVER.
        options: of a KERNEL without argv: the arguments of ``python -m ipykernel_launcher``.
        root: the project's; its tools do not leave it.
        protected: folders of the user's own that a confined worker never writes, wherever they lie.
        private: the same for reading: other workers' sockets and logs, and the ledger.
        tools: names of modules with tools of the user's own.
        patience: seconds between the binding of such a KERNEL's sockets and its first answer.
    """

    name: str
    folder: str
    cwd: str
    path: tuple[str, ...]
    environment: Mapping[str, str]
    policy: SandboxPolicy
    connection: Mapping[str, Any]
    argv: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    role: str = WORKER
    options: tuple[str, ...] = ()
    patience: float = 0.0
    root: str = ""
    tools: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """One line."""
        nested = {
            "environment": dict(self.environment),
            "connection": dict(self.connection),
            "policy": self.policy.facts(),
        }
        return encode_line({**vars(self), **nested})

    @classmethod
    def from_json(cls, line: bytes) -> WorkerSpec:
        """The inverse of ``to_json``."""
        fields = json.loads(line)
        names = ("path", "argv", "library", "options", "tools", "protected", "private")
        sequences = {name: tuple(fields[name]) for name in names}
        policy = SandboxPolicy.of(fields["policy"])
        return cls(**{**fields, **sequences, "policy": policy})


def encode_line(event: Mapping[str, Any]) -> bytes:
    """An event or a request, as one line of JSON."""
    return json.dumps(dict(event), separators=(",", ":")).encode() + b"\n"


@dataclass
class LineBuffer:
    """Puts lines together from the pieces in which a stream delivers them."""

    _pending: bytes = field(default=b"")

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """Take the next bytes; return the events that are complete now."""
        *lines, self._pending = (self._pending + piece).split(b"\n")
        return [json.loads(line) for line in lines]
