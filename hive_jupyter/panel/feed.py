"""
What all panels of a hive are told, and what they ask for.

One task on the portal's loop looks, and tells what changed; a panel's clicks are carried out there,
too, so that they work while a cell runs. git and the ledger block, and have a thread for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_jupyter.commits import approve
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.listing import Listed
from hive_jupyter.panel import board
from hive_jupyter.showing import Showing
from hive_jupyter.swarm.portal import apart
from hive_jupyter.units import visible

if TYPE_CHECKING:
    from hive_jupyter.guard.authorization import AnyRequest
    from hive_jupyter.guard.diff import FileChange
    from hive_jupyter.manager import HiveManager

log = logging.getLogger(__name__)

Say = Callable[[Mapping[str, Any]], None]

# Seconds between two looks, and between two messages at least.
_TICK = 0.5
_SHORTEST = 0.25
# Requests that are decided and were not waiting when the first panel was opened.
_DECIDED = 5
_LOG_LINES = 200
# How exactly a file system tells when a file was written to.
_MOMENT = 0.1
_ORIGIN = "panel"


class Feed:
    """
    What the panels of one hive have in common.

    Args:
        manager: of the hive.
    """

    def __init__(self, manager: HiveManager) -> None:
        self._manager = manager
        self._panels: dict[str, Say] = {}
        self._heard: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._board: dict[str, Any] = {"workers": {}, "requests": {}, "notes": [], "sandbox": ""}
        self._notes: list[str] = []
        self._number = 0
        self._looking = asyncio.Lock()
        self._cpu: dict[str, tuple[int, float, float]] = {}
        self._ledger: float | None = None
        self._next_expiry = 0.0
        self._cards: dict[str, dict[str, Any]] = {}
        # Of the requests that wait, what their files become.
        self._changes: dict[str, tuple[FileChange, ...]] = {}
        # What of a card's files is still folded, in each panel.
        self._folded: dict[tuple[str, str], set[int]] = {}

    # On any thread

    def join(self, name: str, say: Say) -> None:
        """
        Have a panel told what happens; it asks for all of it first.

        Args:
            name: of the panel.
            say: is called on the portal's thread; must not block.
        """
        self._panels[name] = say

    def leave(self, name: str) -> None:
        """Tell a panel nothing more."""
        self._panels.pop(name, None)

    def hear(self, name: str, message: object) -> None:
        """Take what a panel's page sends; returns at once."""
        if isinstance(message, Mapping):
            self._heard.append((name, message))
            loop = self._loop
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # closed meanwhile
                    loop.call_soon_threadsafe(self._woken.set)

    # On the portal's loop

    async def run(self, _folder: Path) -> None:
        """Look and tell, until the hive is closed."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._woken.clear()
                while self._heard:
                    self._begin(*self._heard.popleft())
                if self._panels:
                    await self._look_again()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._woken.wait()
                        await asyncio.sleep(_SHORTEST)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _look_again(self) -> None:
        try:
            await self._look()
        except Exception:  # the next look may be luckier
            log.exception("a panel could not be told how the hive is")

    def _begin(self, panel: str, message: Mapping[str, Any]) -> None:
        task = asyncio.create_task(self._answer(panel, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, panel: str, message: Mapping[str, Any]) -> None:
        about = {"of": message.get("worker") or message.get("request") or ""}
        self._say(panel, {"kind": "heard", "key": message.get("key"), **about})
        try:
            answer = await self._act(panel, message)
        except Exception as error:  # the page is told of all that goes wrong
            if not isinstance(error, HiveError):
                log.exception("a panel's wish failed")
            answer = {"kind": "told", "text": str(error) or type(error).__name__, "failed": True}
        self._woken.set()
        self._say(panel, {**about, **answer})

    async def _act(self, panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        acts = {
            "look": self._show_all,
            "interrupt": self._interrupt,
            "start": self._start,
            "restart": self._restart,
            "stop": self._stop,
            "logs": self._logs,
            "doctor": self._doctor,
            "open": self._open,
            "approve": self._approve,
            "deny": self._deny,
        }
        wanted = str(message.get("do"))
        if wanted not in acts:
            msg = f"A panel cannot {wanted!r}. Open a new one: %hive panel"
            raise ConfigError(msg)
        return await acts[wanted](panel, message)

    def _say(self, panel: str, message: Mapping[str, Any]) -> None:
        say = self._panels.get(panel)
        if say is not None:
            say(message)

    async def _look(self) -> None:
        """See how the hive is, and tell all panels what has changed."""
        async with self._looking:
            new = {
                "workers": await self._workers(),
                "requests": await self._requests(),
                "notes": self._notes,
                "sandbox": self._manager.config.sandbox,
            }
            told = board.changes_of(self._board, new)
            if not told:
                return
            self._board = new
            self._number += 1
            for panel in list(self._panels):
                self._say(panel, {"kind": "change", "number": self._number, **told})

    async def _workers(self) -> dict[str, dict[str, Any]]:
        status = await self._manager.status_of_workers()
        self._notes = list(status["notes"])
        now = time.time()
        rows = {}
        for name, values in status["workers"].items():
            before = self._board["workers"].get(name, {})
            cpu = self._processors(name, values)
            rows[name] = board.worker(values, now=now, cpu=cpu, before=before)
        return rows

    def _processors(self, name: str, status: Mapping[str, Any]) -> float:
        """How many processors a worker kept busy since the last look."""
        pid, used, now = status["pid"], status["cpu_seconds"], time.monotonic()
        if pid is None or used is None:
            self._cpu.pop(name, None)
            return 0.0
        last_pid, last_used, then = self._cpu.get(name, (pid, used, now))
        self._cpu[name] = (pid, used, now)
        return (used - last_used) / (now - then) if last_pid == pid and now > then else 0.0

    async def _requests(self) -> dict[str, dict[str, Any]]:
        """The cards; looked up anew where the ledger was written to, or a request's time is up."""
        written = _written(self._manager.guard.ledger.path)
        now = time.time()
        if written != self._ledger or now >= self._next_expiry:
            # a file's time tells nothing of what is written in the same moment
            self._ledger = written if now - written > _MOMENT else None
            self._cards = await apart(self._read)
        return self._cards

    # In a thread

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            waiting = self._manager.requests()
            guard = self._manager.guard
            known = [*guard.latest(_DECIDED)[::-1], *waiting]
            others = [guard.get(name) for name in self._cards]
        except HiveError as error:
            log.warning("a panel cannot show requests: %s", error)
            return self._cards
        patience = guard.patience
        self._next_expiry = min(
            (request.time + patience for request in waiting), default=float("inf")
        )
        requests = {request.id: request for request in (*others, *known)}
        cards = {name: self._card(request) for name, request in requests.items()}
        pending = {name for name, request in requests.items() if request.state == "pending"}
        self._changes = {name: self._changes[name] for name in pending & self._changes.keys()}
        return cards

    def _card(self, request: AnyRequest) -> dict[str, Any]:
        shown = self._cards.get(request.id, {})
        if request.state != "pending":
            return {**shown, **board.answered(Listed.of(self._manager.guard, request))}
        if shown:
            return shown
        expires = request.time + self._manager.guard.patience
        try:
            showing = Showing.of(request)
        except HiveError as error:
            return board.unshowable(request, str(error), expires)
        self._changes[request.id] = showing.changes
        return board.card(showing, expires)

    # What a panel asks for

    async def _show_all(self, panel: str, _message: Mapping[str, Any]) -> dict[str, Any]:
        await self._look()
        for name, card in self._board["requests"].items():
            self._folded[panel, name] = board.folded(card) if "files" in card else set()
        return {"kind": "all", "number": self._number, "board": self._board}

    async def _interrupt(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name = self._manager.checked(message.get("worker"))
        done = await self._manager.interrupt_worker(name)
        return {"kind": "told", "text": "" if done else "It runs nothing."}

    async def _start(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        await self._manager.start_worker(self._manager.checked(message.get("worker"), starts=True))
        return {"kind": "told", "text": ""}

    async def _restart(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name = self._manager.checked(message.get("worker"), starts=True)
        await self._manager.restart_worker(name)
        return {"kind": "told", "text": ""}

    async def _stop(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        await self._manager.stop_worker(self._manager.checked(message.get("worker")))
        return {"kind": "told", "text": ""}

    async def _logs(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name = self._manager.checked(message.get("worker"))
        text = await self._manager.log_of_worker(name, _LOG_LINES)
        return {"kind": "log", "text": visible(text) or "Nothing was logged."}

    async def _doctor(self, _panel: str, _message: Mapping[str, Any]) -> dict[str, Any]:
        report = await apart(self._manager.doctor)
        return {"kind": "doctor", "text": visible(str(report))}

    async def _open(self, panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name, number = str(message.get("request")), message.get("file")
        changes = self._changes.get(name, ())
        if not isinstance(number, int) or not 0 <= number < len(changes):
            msg = "There is no such file in this request."
            raise ConfigError(msg)
        if self._cards[name]["files"][number]["is_too_large"]:
            msg = f"That is too much for a notebook. In a terminal: jupyter hive approve {name}"
            raise ConfigError(msg)
        folded = board.folded(self._cards[name])
        self._folded.setdefault((panel, name), folded).discard(number)
        return {"kind": "patch", "file": number, "patch": board.patch(changes, number)}

    async def _approve(self, panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name, digest = str(message.get("request")), message.get("digest")
        card = self._cards.get(name)
        if card is None or not digest or card.get("digest") != digest:
            msg = f"Request {name} is not what this panel shows. Nothing was approved."
            raise ConfigError(msg)
        if self._folded.get((panel, name), board.folded(card)):
            msg = f"Open all files of request {name} first. Nothing was approved."
            raise ConfigError(msg)
        said = await apart(lambda: self._carry_out(name, digest))
        return {"kind": "told", "text": said}

    def _carry_out(self, name: str, digest: str) -> str:
        commits = self._manager.commits
        commits.settle()
        request = commits.guard.awaiting(name)
        if request.digest != digest:
            msg = f"Request {name} is not what this panel shows. Nothing was approved."
            raise ConfigError(msg)
        return approve(commits.guard, request, origin=_ORIGIN)

    async def _deny(self, _panel: str, message: Mapping[str, Any]) -> dict[str, Any]:
        name, reason = str(message.get("request")), str(message.get("reason") or "")
        guard = self._manager.guard
        await apart(lambda: guard.deny(name, reason, origin=_ORIGIN))
        return {"kind": "told", "text": ""}


def _written(ledger: str | os.PathLike[str]) -> float:
    """When somebody wrote to the ledger last, as Unix time; 0.0 where there is none."""
    try:
        return Path(ledger).stat().st_mtime
    except OSError:
        return 0.0
