"""One piece of work on its way to a worker and back: a run of code, or another request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from hive_jupyter.display.rules import TRUSTED
from hive_jupyter.errors import remote_error
from hive_jupyter.swarm.messages import Message, Sink, ignore
from hive_jupyter.swarm.outlet import Outlet
from hive_jupyter.swarm.process import first_of, note_failure
from hive_jupyter.swarm.replies import text_of
from hive_jupyter.transfer import BulkSocket

# How long a reply may be missing once the worker was interrupted and said "idle" (ipykernel loses
# it when SIGINT arrives in its own dispatch code).
_REPLY_PATIENCE = 0.25


def execute_content(code: str, *, allow_stdin: bool = False) -> dict[str, Any]:
    """The content of an execute_request."""
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": allow_stdin,
        "stop_on_error": False,
    }


class Run:
    """
    One delegated piece of work on its way.

    Args:
        code: to be run.
        sink: is called on the loop with each message that the run says; must not block.
        header: of the cell that it belongs to, or None.
        timeout: seconds it may take once it has begun, or None.
        allow_stdin: whether the code may ask the user.
        late: is called on the loop with what its threads and tasks say after its end, or None.
        commit_requests: is called on the loop with each commit that the code asks for, and sees
            that it is answered; None: the code may not ask.

    Attributes:
        type: of the message that asks for it.
        content: of that message.
        noun: what it is called in a sentence.
        rule: for what it shows, where that is stricter than the worker's.
        outlet: through which goes what its worker says.
        key: fresh for each run; it comes back with everything that the run says.
        is_confined: whether there is a boundary around the worker that it runs in.
        lost_its_worker: by an accident, which nobody asked for.
        patience: seconds it waits for its turn, or None: as long as it takes.
        waited: how long it did, in seconds, where that counts as its own time.
        buffers: binary parts of that message.
        before: what the worker is to be asked right before it, or None.
        is_concurrent: it runs beside what the worker runs, on a subshell of its own.
        subshell: which that is; None: the main one.
        stops: how often somebody asked it to stop.
        expired: its time is over.
        is_stopping: it has been asked to stop, and has its grace for that.
        begun: resolves once the worker takes it up.
        stopping: resolves with a wish to stop it; ``heed`` makes room for the next one.
        done: resolves with the reply once the worker is idle again.
        told: what Hive itself had to say, while it ran.
        since: when its turn came, as ``time.monotonic``; None: it waits.
    """

    type = "execute_request"
    is_confined = True
    is_concurrent = False
    subshell: str | None = None
    lost_its_worker = False
    patience: float | None = None
    waited = 0.0
    noun = "cell"
    rule = TRUSTED
    buffers: tuple[memoryview, ...] = ()

    def __init__(
        self,
        code: str,
        sink: Sink,
        *,
        header: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        allow_stdin: bool = False,
        late: Sink | None = None,
        commit_requests: Sink | None = None,
    ) -> None:
        self.content: Mapping[str, Any] = execute_content(code, allow_stdin=allow_stdin)
        self.header = dict(header or {})
        self.timeout = timeout
        self.allow_stdin = allow_stdin
        self.late = late
        self.commit_requests = commit_requests
        self.before: Request | None = None
        self.outlet = Outlet()
        self.key = secrets.token_hex(8)
        self.stops = 0
        self.expired = False
        self.is_stopping = False
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.stopping: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Message] = loop.create_future()
        self.told: list[str] = []
        self.since: float | None = None
        self._sink = sink
        self._reply: Message | None = None
        self._idle = False
        self._error: Message | None = None

    def stop(self) -> None:
        """Wish that it stops; the second wish is the last one."""
        self.stops += 1
        if self.before is not None:
            self.before.stop()
        if not self.stopping.done():
            self.stopping.set_result(None)
        self._miss_reply()

    def heed(self) -> None:
        """Begin to do what the wishes to stop it that came until now ask for."""
        self.is_stopping = True
        self.stopping = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        """Its time is over; where it is about to stop, it may, but for no longer than its grace."""
        if self.done.done():
            return
        self.expired = True
        if not self.is_stopping:
            self.stop()

    def go_by(self, bulk: BulkSocket | None) -> None:
        """Learn right before it begins of the way that large values have; most have none."""

    async def settle(self) -> None:
        """Have an end, right after the run's, of what goes past the messages."""

    def take_output(self, message: Message) -> None:
        """Say what may be shown of a message of the worker."""
        for shown in self.outlet.passed(message):
            self.say(shown)

    def take_payload(self, message: Message) -> None:
        """Hand on what a front-end is to do; where that may not pass, its text is printed."""
        if self.outlet.rule == TRUSTED:
            self.say(message)
        elif text := text_of(message):
            self.take_output(Message("stream", {"name": "stdout", "text": text}))

    def say(self, message: Message) -> None:
        """
        Hand a message on; an error is kept back while it may be the one that the reply brings.

        After the run's own error only figures and warnings come, with which IPython ends a cell.
        """
        if (
            message.type in ("error", "execute_result")
            or message.content.get("name") == "stdout"
            or _tells_what_is_captured(message)
        ):
            self.release_error()
        if message.type == "error" and not self.done.done():
            self._error = message
        else:
            self._sink(message)

    def tell(self, message: Message) -> None:
        """Say something that is Hive's own: text, that an agent reads in any case."""
        self.told.append(message.content["text"])
        self.say(message)

    def close(self) -> None:
        """Nothing more is to come but late output: keep no more of what is too much."""
        for told in self.outlet.close():
            self.say(told)

    @property
    def is_heard(self) -> bool:
        """Whether what it says reaches anybody."""
        return self._sink is not ignore

    @property
    def message_id(self) -> str:
        """Of its request: the cell's own, where it belongs to one."""
        return str(self.header.get("msg_id", self.key))

    @property
    def title(self) -> str:
        """Its code's first line that says anything."""
        code: str = self.content["code"]
        return next((line.strip() for line in code.split("\n") if line.strip()), "")

    @property
    def reply_type(self) -> str:
        """The type of the message that answers it."""
        return self.type.replace("_request", "_reply")

    @property
    def replied(self) -> bool:
        """Whether the worker's reply is in."""
        return self._reply is not None

    def take_reply(self, message: Message) -> None:
        """The worker's reply."""
        self._reply = message
        self._finish_if_over()

    def take_idle(self) -> None:
        """The worker says that it has nothing more to say."""
        self._idle = True
        self._miss_reply()
        self._finish_if_over()

    def release_error(self) -> None:
        """Show an error that no reply will bring any more."""
        error, self._error = self._error, None
        if error is not None:
            self._sink(error)

    def _miss_reply(self) -> None:
        # without an interrupt it is not lost: it comes by another socket, and may be overtaken
        if self.stops and self._idle and self._reply is None:
            asyncio.get_running_loop().call_later(_REPLY_PATIENCE, self._do_without_reply)

    def _do_without_reply(self) -> None:
        if self._reply is None:
            content = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
            if self._error is not None:
                content = dict(self._error.content)
            self.take_reply(Message(self.reply_type, {"status": "error", **content}))

    def _finish_if_over(self) -> None:
        if self._reply is None or not self._idle or self.done.done():
            return
        held, reply = self._error, self._reply
        if held is not None and held.content.get("traceback") == reply.content.get("traceback"):
            self._error = None
            # of an object that cannot be shown, ipykernel's reply names another exception
            reply = replace(reply, content={**reply.content, **held.content})
        self.release_error()
        self.done.set_result(reply)


class Request(Run):
    """
    A question to the worker, such as the call of a tool; it lives as a run does.

    Args:
        kind: of the message that asks, such as "call_tool_request".
        content: of that message.
        timeout: seconds it may take; waiting for its turn counts. None: as long as it takes.
        sink: as of a Run.
    """

    noun = "call"

    def __init__(
        self, kind: str, content: Mapping[str, Any], timeout: float | None, sink: Sink = ignore
    ) -> None:
        super().__init__("", sink, timeout=timeout)
        self.type = kind
        self.content = content
        self.patience = timeout

    @property
    def title(self) -> str:
        """The tool that it calls, or what else it asks."""
        return str(self.content.get("name") or self.type.removesuffix("_request"))


def _tells_what_is_captured(message: Message) -> bool:
    """Whether an Output begins or ends to take what is shown: an error belongs on its own side."""
    data = message.content.get("data")
    state = data.get("state") if isinstance(data, dict) else None
    return message.type == "comm_msg" and isinstance(state, dict) and "msg_id" in state


async def or_stopped(run: Run, work: Awaitable[Any]) -> None:
    """
    Wait for ``work``, or for the wish that a run that has not begun never does.

    Raises:
        RemoteError: it is to stop; named KeyboardInterrupt.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(note_failure)
    try:
        await first_of(task, run.stopping)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        await asyncio.wait({task})
    if task.cancelled():
        raise remote_error("KeyboardInterrupt", "", [])
    task.result()
