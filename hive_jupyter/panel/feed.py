"""
What all panels of a hive are told, and what they ask for.

One task on the portal's loop looks, and tells what changed; a panel's clicks are carried out there,
too, so that they work while a cell runs. git and the ledger block, and have a thread for a moment:
nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_jupyter.commits import approve
from hive_jupyter.errors import ConfigError, HiveError, RequestUnknown
from hive_jupyter.listing import Listed
from hive_jupyter.panel import board
from hive_jupyter.showing import Showing
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.units import visible

if TYPE_CHECKING:
    from hive_jupyter.guard.authorization import AnyRequest
    from hive_jupyter.guard.diff import FileChange
    from hive_jupyter.manager import HiveManager

log = logging.getLogger(__name__)

Say = Callable[[Mapping[str, Any]], None]
Answer = dict[str, Any]

# Seconds between two looks, and between two messages at least.
_TICK = 0.5
_SHORTEST = 0.25
# Of the requests that are decided: those of before, and how many are kept in all.
_DECIDED_BEFORE = 5
_MOST_DECIDED = 30
# Nothing becomes of a request any more in these states.
_FINAL = {"denied", "expired", "superseded", "committed", "void"}
# What a request is about; it is forgotten here once the request is decided.
_CONTENT = ("files", "text", "marks", "problem")
_LOG_LINES = 200
# Jobs that are over, and characters of what one said.
_MOST_JOBS = 20
_MOST_OUTPUT = 100_000
# How exactly a file system tells when a file was written to.
_MOMENT = 0.1
_ORIGIN = "panel"


class Feed:
    """
    What the panels of one hive have in common.

    A panel may be shown in several views, pages or outputs; each says who it is.

    Args:
        manager: of the hive.
    """

    def __init__(self, manager: HiveManager) -> None:
        self._manager = manager
        self._panels: dict[str, Say] = {}
        self._views: set[tuple[str, str]] = set()
        self._heard: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._board: dict[str, Any] = {
            "workers": {},
            "jobs": {},
            "requests": {},
            "notes": [],
            "sandbox": "",
        }
        self._number = 0
        self._looking = asyncio.Lock()
        self._cpu: dict[str, tuple[int, float, float]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._ledger: float | None = None
        self._next_expiry = 0.0
        self._problem = ""
        self._cards: dict[str, dict[str, Any]] = {}
        # Of the requests that wait, what their files become.
        self._changes: dict[str, tuple[FileChange, ...]] = {}
        # What of a card's files is still folded, in each view of each panel.
        self._folded: dict[tuple[str, str, str], set[int]] = {}

    # On any thread

    def join(self, name: str, say: Say) -> None:
        """
        Have a panel told what happens, once a view of it has asked for all of it.

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
        if not isinstance(message, Mapping):
            return
        self._heard.append((name, message))
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self._take_up)

    # On the portal's loop

    async def run(self, _folder: Path) -> None:
        """Look and tell, until the hive is closed."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._take_up()
                self._woken.clear()
                if self._views:
                    await self._look_again()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._woken.wait()
                        await asyncio.sleep(_SHORTEST)
        finally:
            for task in self._tasks:
                task.cancel()
            for panel in list(self._panels):
                self._say(panel, {"kind": "ended"})

    def _take_up(self) -> None:
        while self._heard:
            self._do_beside(self._answer(*self._heard.popleft()))

    def _do_beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(note_failure)
        return task

    async def _answer(self, panel: str, message: Mapping[str, Any]) -> None:
        about = {name: message.get(name) for name in ("view", "key", "do", "file", "job")}
        about["of"] = message.get("worker") or message.get("request") or ""
        self._say(panel, {"kind": "heard", **about})
        try:
            answer = await self._act(panel, message)
        except Exception as error:  # the page is told of all that goes wrong
            if not isinstance(error, HiveError):
                log.exception("a panel's wish failed")
            answer = {"kind": "told", "text": str(error) or type(error).__name__, "failed": True}
        self._woken.set()
        self._say(panel, {**about, **answer})

    async def _act(self, panel: str, message: Mapping[str, Any]) -> Answer:
        acts = {
            "look": self._show_all,
            "leave": self._forget_view,
            "interrupt": self._interrupt,
            "start": self._start,
            "restart": self._restart,
            "stop": self._stop,
            "logs": self._logs,
            "doctor": self._doctor,
            "cancel": self._cancel,
            "output": self._output,
            "open": self._open,
            "approve": self._approve,
            "deny": self._deny,
        }
        wanted = str(message.get("do"))
        if wanted not in acts:
            msg = f"A panel cannot {wanted!r}. Open a new one: %hive panel"
            raise ConfigError(msg)
        return await acts[wanted]((panel, str(message.get("view"))), message)

    def _say(self, panel: str, message: Mapping[str, Any]) -> None:
        say = self._panels.get(panel)
        if say is not None:
            say(message)

    # Looking

    async def _look_again(self) -> None:
        try:
            await self._look()
        except Exception:  # the next look may be luckier
            log.exception("a panel could not be told how the hive is")

    async def _look(self) -> None:
        """See how the hive is, and tell all panels what has changed."""
        async with self._looking:
            self._read_if_needed()
            status = await self._manager.status_of_workers()
            new = {
                "workers": self._workers(status["workers"]),
                "jobs": self._jobs(),
                "requests": self._cards,
                "notes": [*status["notes"], *filter(None, [self._problem])],
                "sandbox": self._manager.config.sandbox,
            }
            told = board.changes_of(self._board, new)
            if not told:
                return
            self._board = new
            self._number += 1
            for panel in {panel for panel, _ in self._views}:
                self._say(panel, {"kind": "change", "number": self._number, **told})

    def _workers(self, statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        now = time.time()
        rows = {}
        for name, status in statuses.items():
            before = self._board["workers"].get(name, {})
            cpu = self._processors(name, status)
            rows[name] = board.worker(status, now=now, cpu=cpu, before=before)
        return rows

    def _jobs(self) -> dict[str, dict[str, Any]]:
        """The latest; those that are not over in any case."""
        jobs = list(self._manager.jobs)
        over = [job for job in jobs if job.done()]
        left_out = set(over[:-_MOST_JOBS])
        return {job.id: board.job(job) for job in jobs if job not in left_out}

    def _processors(self, name: str, status: Mapping[str, Any]) -> float:
        """How many processors a worker kept busy since the last look."""
        pid, used, now = status["pid"], status["cpu_seconds"], time.monotonic()
        if pid is None or used is None:
            self._cpu.pop(name, None)
            return 0.0
        last_pid, last_used, then = self._cpu.get(name, (pid, used, now))
        self._cpu[name] = (pid, used, now)
        return (used - last_used) / (now - then) if last_pid == pid and now > then else 0.0

    def _read_if_needed(self) -> None:
        """Look requests up where the ledger was written to, or the time of one is up."""
        if self._reading is not None and not self._reading.done():
            return
        written = _written(self._manager.guard.ledger.path)
        if written != self._ledger or time.time() >= self._next_expiry:
            self._reading = self._do_beside(self._read(written))

    async def _read(self, written: float) -> None:
        try:
            self._cards = await apart(self._cards_now)
        except HiveError as error:
            problem = f"Requests cannot be shown: {visible(str(error))}"
            if problem != self._problem:
                log.warning("a panel: %s", problem)
            self._problem = problem
            return
        self._problem = ""
        # a file's time tells nothing of what is written in the same moment
        self._ledger = written if time.time() - written > _MOMENT else None
        pending = {name for name, card in self._cards.items() if card["state"] == "pending"}
        self._changes = {name: self._changes[name] for name in pending & self._changes.keys()}
        self._folded = {key: left for key, left in self._folded.items() if key[2] in pending}
        self._woken.set()

    # In a thread, one at a time

    def _cards_now(self) -> dict[str, dict[str, Any]]:
        guard = self._manager.guard
        waiting = self._manager.requests()
        before = [] if self._cards else guard.latest(_DECIDED_BEFORE)
        asked = {request.id: request for request in (*before, *waiting, *self._concluded(waiting))}
        cards = dict(self._cards)
        for name, request in asked.items():
            cards[name] = self._card(request, cards.get(name, {}))
        for name in cards.keys() - asked.keys():
            if cards[name]["state"] not in _FINAL:  # the ledger does not know it any more
                cards[name] = {**_without_content(cards[name]), "state": "void"}
        self._next_expiry = self._expiry_of(waiting)
        decided = [name for name, card in cards.items() if card["state"] in _FINAL]
        decided.sort(key=lambda name: cards[name]["asked"])
        for name in decided[:-_MOST_DECIDED]:
            del cards[name]
        return cards

    def _concluded(self, waiting: Iterable[AnyRequest]) -> list[AnyRequest]:
        """The requests that something became of since the last look."""
        still = {request.id for request in waiting}
        found = []
        for name, card in self._cards.items():
            if name not in still and card["state"] not in _FINAL:
                with contextlib.suppress(RequestUnknown):
                    found.append(self._manager.guard.get(name))
        return found

    def _expiry_of(self, waiting: Iterable[AnyRequest]) -> float:
        """When the time of the first of them is up, as Unix time."""
        guard = self._manager.guard
        ends = [math.inf]
        for request in waiting:
            answered = Listed.of(guard, request).answered
            by_answer = (answered or 0.0) + guard.expiry
            ends.append(request.time + guard.patience if answered is None else by_answer)
        return min(ends)

    def _card(self, request: AnyRequest, shown: Mapping[str, Any]) -> dict[str, Any]:
        if request.state != "pending":
            told = board.answered(Listed.of(self._manager.guard, request))
            kept = _without_content(shown) if request.state in _FINAL else shown
            return {**kept, **told}
        if "files" in shown:
            return dict(shown)
        expires = request.time + self._manager.guard.patience
        try:
            showing = Showing.of(request)
        except HiveError as error:
            return board.unshowable(request, str(error), expires)
        self._changes[request.id] = showing.changes
        return board.card(showing, expires)

    # What a view of a panel asks for

    async def _show_all(self, view: tuple[str, str], _message: Mapping[str, Any]) -> Answer:
        self._views.add(view)
        self._folded = {key: left for key, left in self._folded.items() if key[:2] != view}
        self._read_if_needed()
        if self._reading is not None and not self._board["requests"]:
            await asyncio.wait({self._reading})
        await self._look()
        return {"kind": "all", "number": self._number, "board": self._board}

    async def _forget_view(self, view: tuple[str, str], _message: Mapping[str, Any]) -> Answer:
        self._views.discard(view)
        self._folded = {key: left for key, left in self._folded.items() if key[:2] != view}
        return {"kind": "left"}

    async def _interrupt(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name = self._manager.checked(message.get("worker"))
        done = await self._manager.nodes.interrupt(name)
        return {"kind": "told", "text": "" if done else "It runs nothing."}

    async def _start(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        await self._manager.nodes.start(self._manager.checked(message.get("worker"), starts=True))
        return {"kind": "told", "text": ""}

    async def _restart(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name = self._manager.checked(message.get("worker"), starts=True)
        await self._manager.nodes.restart(name)
        return {"kind": "told", "text": ""}

    async def _stop(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        await self._manager.nodes.stop(self._manager.checked(message.get("worker")))
        return {"kind": "told", "text": ""}

    async def _logs(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name = self._manager.checked(message.get("worker"))
        text = await self._manager.nodes.log(name, _LOG_LINES)
        return {"kind": "log", "text": visible(text) or "Nothing was logged."}

    async def _cancel(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        done = self._manager.jobs.get(message.get("job")).cancel()
        return {"kind": "told", "text": "" if done else "It is over already."}

    async def _output(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        text = self._manager.jobs.get(message.get("job")).text
        left_out = max(0, len(text) - _MOST_OUTPUT)
        told = f"({left_out} characters before this are left out.)\n" if left_out else ""
        return {"kind": "output", "text": told + visible(text[left_out:]) or "It has said nothing."}

    async def _doctor(self, _view: tuple[str, str], _message: Mapping[str, Any]) -> Answer:
        report = await apart(self._manager.doctor)
        return {"kind": "doctor", "text": visible(str(report))}

    async def _open(self, view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name, number = str(message.get("request")), message.get("file")
        changes, card = self._changes.get(name, ()), self._cards.get(name, {})
        if not isinstance(number, int) or not 0 <= number < len(changes) or "files" not in card:
            msg = "There is no such file in a request that waits."
            raise ConfigError(msg)
        if card["files"][number]["is_too_large"]:
            msg = f"That is too much for a notebook. In a terminal: jupyter hive approve {name}"
            raise ConfigError(msg)
        self._folded.setdefault((*view, name), board.folded(card)).discard(number)
        return {"kind": "patch", "patch": board.patch(changes, number)}

    async def _approve(self, view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name, digest = str(message.get("request")), message.get("digest")
        card = self._cards.get(name)
        if card is None or not digest or card.get("digest") != digest:
            msg = f"Request {name} is not what this panel shows. Nothing was approved."
            raise ConfigError(msg)
        if self._folded.get((*view, name), board.folded(card)):
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

    async def _deny(self, _view: tuple[str, str], message: Mapping[str, Any]) -> Answer:
        name, reason = str(message.get("request")), str(message.get("reason") or "")
        guard = self._manager.guard
        await apart(lambda: guard.deny(name, reason, origin=_ORIGIN))
        return {"kind": "told", "text": ""}


def _without_content(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name not in _CONTENT}


def _written(ledger: str | os.PathLike[str]) -> float:
    """When somebody wrote to the ledger last, as Unix time; 0.0 where there is none."""
    try:
        return Path(ledger).stat().st_mtime
    except OSError:
        return 0.0
