"""
Lookout: looks at a project, after confined workers ran in it, for what their code left.

::

    a worker begins ── and nobody else may write ──▶ all that is there is the user's
    a run is over, a worker has ended ── a second later ──▶ one look ──▶ what came is told

No run waits for a look; the first start in a large project waits until that is known.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from hive_jupyter.leftovers.report import report, summary
from hive_jupyter.leftovers.watch import Finding, Watch
from hive_jupyter.swarm.launch import Launch
from hive_jupyter.swarm.life import Watcher
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.units import format_duration, visible

log = logging.getLogger(__name__)

# So long after a run (seconds), so that the runs of a loop have one look together.
_PAUSE = 1.0
# Where a look takes long, looking takes one part in so many of the time.
_LEISURE = 20
# So long somebody waits for a look (seconds); a disk that does not answer keeps nobody from work.
_PATIENCE = 5.0
# So many times of each project something was found, the status tells of.
_REMEMBERED = 20


class Lookout:
    """
    Looks at the projects of one hive. Lives on one loop.

    Args:
        tell: is called on the loop with a worker's name, and what the user is to read there.
    """

    def __init__(self, tell: Callable[[str, str], object]) -> None:
        self._tell = tell
        self._projects: dict[str, _Project] = {}

    def watcher(self, name: str) -> Watcher:
        """Whom a worker of that name tells when it begins, rests and ends."""
        return _Reporter(name, self)

    def projects(self, launch: Launch) -> list[_Project]:
        """The folders in which a worker may write; none where it is not confined."""
        policy = launch.policy
        if not policy.is_confined:
            return []
        roots = [*([launch.root] * policy.writes_project), *policy.writable]
        return [
            self._project(root, launch.protected)
            for root in roots
            if Path(root).is_dir() and Path(root) != Path("/")
        ]

    async def know(self, launch: Launch) -> None:
        """Learn what is in a project ahead of its first worker."""
        for project in self.projects(launch):
            await project.know()

    async def look_now(self) -> None:
        """Look wherever somebody may have written; when all have ended, the rest is the user's."""
        for project in [*self._projects.values()]:
            await project.look_now()

    @property
    def notes(self) -> list[str]:
        """What was found, and what is not watched, in a line each."""
        return [note for project in self._projects.values() for note in project.notes()]

    def _project(self, root: str, protected: Iterable[str]) -> _Project:
        if root not in self._projects:
            never = (sys.prefix, sys.base_prefix, sys.exec_prefix, *protected)
            watch = Watch(root, str(Path.home()), never)
            self._projects[root] = _Project(root, watch, self._tell)
        return self._projects[root]


class _Start:
    """One start of a worker, until that has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False


class _Project:
    """One folder in which workers may write."""

    def __init__(self, root: str, watch: Watch, tell: Callable[[str, str], object]) -> None:
        self._root = root
        self._watch = watch
        self._tell = tell
        self._found: deque[str] = deque(maxlen=_REMEMBERED)
        # who may write, and who might have since the last look
        self._living: set[_Start] = set()
        self._ended: set[str] = set()
        self._latest = ""
        self._is_known = False
        self._problem = ""
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._took = 0.0
        self._work: set[asyncio.Task[None]] = set()

    async def know(self) -> None:
        """Learn what is there; what workers left is told."""
        await self._wait_for(self._know())

    async def begin(self, start: _Start) -> None:
        """The same; from then on a worker may write."""
        await self._wait_for(self._know(start))

    def rest(self, name: str) -> None:
        """A worker may have written."""
        self._latest = name
        if self._timer is None:
            pause = max(_PAUSE, self._took * _LEISURE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._look_soon)

    def end(self, start: _Start) -> None:
        """A worker writes no more."""
        start.is_over = True
        if start in self._living:
            self._living.remove(start)
            self._ended.add(start.name)
            self.rest(start.name)

    async def look_now(self) -> None:
        """Look, if somebody may have written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._living or self._ended:
            await self._wait_for(self._look())

    def notes(self) -> list[str]:
        """What was found, and what is not watched."""
        unwatched = self._problem or self._watch.unwatched
        if not unwatched:
            return [*self._found]
        note = f"not all of {self._root} is watched for what workers leave: {unwatched}"
        return [*self._found, visible(note, "")]

    async def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        # it goes on also where nobody waits for it any more, as its thread does
        done, _ = await asyncio.wait({self._do(work)}, timeout=_PATIENCE)
        if not done:
            self._problem = f"to read it takes longer than {format_duration(_PATIENCE)}"

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        task.add_done_callback(note_failure)
        return task

    def _look_soon(self) -> None:
        self._timer = None
        self._do(self._look())

    async def _know(self, *starts: _Start) -> None:
        async with self._turn:
            if self._living or self._ended:
                await self._find()
            else:
                self._is_known = await self._apart(self._watch.accept)
            self._living |= {start for start in starts if not start.is_over}

    async def _look(self) -> None:
        async with self._turn:
            if self._living or self._ended:
                await self._find()

    async def _find(self) -> None:
        workers = sorted({*(start.name for start in self._living), *self._ended})
        self._ended.clear()
        if not self._is_known:  # all that came would seem to be a worker's
            return
        began = time.monotonic()
        findings: list[Finding] = []
        await self._apart(lambda: findings.extend(self._watch.look()))
        self._took = time.monotonic() - began
        if findings:
            log.info("%s: %s", self._root, findings)
            self._found.append(summary(findings, workers, self._root))
            self._tell(self._latest or workers[0], report(findings, workers, self._root))

    async def _apart(self, work: Callable[[], object]) -> bool:
        """
        Have a thread do it; what fails in it must not keep workers from their work.

        Returns:
            Whether it was done.
        """
        try:
            await apart(work)
        except Exception as error:
            log.warning("%s cannot be watched", self._root, exc_info=True)
            self._problem = str(error)
            return False
        self._problem = ""
        return True


class _Reporter(Watcher):
    """Tells the lookout of one worker."""

    def __init__(self, name: str, lookout: Lookout) -> None:
        self._name = name
        self._lookout = lookout
        self._projects: list[_Project] = []

    async def begins(self, launch: Launch) -> Callable[[], None]:
        starts = [(project, _Start(self._name)) for project in self._lookout.projects(launch)]
        self._projects = [project for project, _ in starts]

        def ended() -> None:
            for project, start in starts:
                project.end(start)

        try:
            for project, start in starts:
                await project.begin(start)
        except asyncio.CancelledError:
            ended()
            raise
        return ended

    def rests(self) -> None:
        for project in self._projects:
            project.rest(self._name)
