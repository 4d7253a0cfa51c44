"""
Workers on a Dask cluster: Dask says where there is room, and everything else is Hive's own.

::

    DaskProvisioner ── client ──▶ scheduler ──▶ Dask worker: hold(), a task as long as the worker
          │                                            └─ station ── supervisor ── worker
          └────────────── TCP with CurveZMQ ──────────────────▲

Through Dask go the two public keys and where the station listens; what is run, and what it says,
does not. Dask unpickles what its own workers send, so that a cluster is trusted as its user is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from hive_jupyter import __version__
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import PROTOCOL_VERSION
from hive_jupyter.swarm.channels import Context, curve_keys
from hive_jupyter.swarm.far import CANCELLED, PARENT, FarProcess, Station
from hive_jupyter.swarm.launch import Launch
from hive_jupyter.swarm.portal import apart, handle_sigint
from hive_jupyter.swarm.process import first_of
from hive_jupyter.swarm.runtime import RuntimeFolder
from hive_jupyter.units import format_duration, nearest

log = logging.getLogger(__name__)

LOCAL = "local"
HERE = "here"
_ADDRESS = re.compile(r"[a-z][a-z0-9+]*://[^\s?]+", re.ASCII)
# When something was decided, at the end of Dask's word for why.
_STAMP = re.compile(r"-\d+\.\d+$")
_RESTRICTIONS = ("resources", "workers")
# Whether a scheduler that is silent is still there, is soon known (seconds).
_LOOK = 2.0
_INSTALL = 'pip install "hive-jupyter[dask]"'
# What a task is, is sent as text: neither the scheduler nor another Python needs to know it.
_HOLD = "__import__('hive_jupyter.swarm.dask', fromlist=['hold']).hold(order)"


@dataclass(frozen=True)
class Place:
    """
    A cluster, and what of it may be used.

    Attributes:
        address: of the scheduler; "local"; "here" for none; or what a client is called.
        resources: that the worker takes of a Dask worker's, as pairs.
        workers: addresses or names of the Dask workers that may be used; empty: all.
        client: an existing one of the user's, or None.
    """

    address: str
    resources: tuple[tuple[str, float], ...] = ()
    workers: tuple[str, ...] = ()
    client: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.address


def place_of(on: object, names: Mapping[str, object] | None = None) -> Place:
    """
    What ``--on`` names.

    Args:
        on: "tcp://host:8786", "local", the name of a variable with a Dask client or of a client,
            each with restrictions behind it as in a URL, such as "?resources=GPU:1&workers=a,b";
            a client; or "here" for this machine.
        names: variables that may be meant.

    Raises:
        ConfigError: it names nothing, or Dask is not installed.
    """
    if on == HERE:
        return Place(HERE)
    if importlib.util.find_spec("distributed") is None:
        msg = f"Workers on a cluster need Dask, which is not installed here: {_INSTALL}"
        raise ConfigError(msg)
    if isinstance(on, Place):
        return on
    if not isinstance(on, str):
        return Place(_name_of(_checked_client(on)), client=on)
    address, _, query = on.strip().partition("?")
    resources, workers = _restrictions(query)
    client = None
    if address != LOCAL and not _ADDRESS.fullmatch(address):
        client = _known_client(address, names or {})
        address = _name_of(client)
    return Place(address, resources, workers, client)


def _restrictions(query: str) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    resources: dict[str, float] = {}
    workers: tuple[str, ...] = ()
    try:
        for name, text in parse_qsl(query, strict_parsing=True) if query else ():
            if name == "resources":
                pairs = (pair.rpartition(":") for pair in text.split(","))
                resources = {resource: float(amount) for resource, _, amount in pairs}
            elif name == "workers":
                workers = tuple(text.split(","))
            else:
                msg = f'"{name}" restricts nothing.{nearest(name, _RESTRICTIONS)}'
                raise ConfigError(msg)
    except ValueError as error:
        reason = f"{error} " if isinstance(error, ConfigError) else ""
        msg = f"{reason}Write restrictions as in tcp://host:8786?resources=GPU:1&workers=alice,bob"
        raise ConfigError(msg) from None
    return tuple(sorted(resources.items())), workers


def _checked_client(client: Any) -> Any:
    from distributed import Client

    if not isinstance(client, Client):
        msg = f"{client!r} is no Dask client. Give an address such as tcp://host:8786, or a client."
        raise ConfigError(msg)
    return client


def _known_client(name: str, names: Mapping[str, object]) -> Any:
    """The client that a variable holds, or that was made with this name."""
    from distributed import Client

    if isinstance(names.get(name), Client):
        return names[name]
    for client in list(Client._instances):  # noqa: SLF001  no other way leads from name to client
        if client.status == "running" and name == _name_of(client):
            return client
    words = [LOCAL, HERE, *(key for key, value in names.items() if isinstance(value, Client))]
    msg = (
        f'"{name}" is no Dask cluster.{nearest(name, words)} Write the address of its scheduler, '
        f"such as tcp://host:8786; {LOCAL}; or the name of a variable with a Dask client."
    )
    raise ConfigError(msg)


def _name_of(client: Any) -> str:
    """What a client was called, or else where its scheduler is."""
    named = re.fullmatch(r"Client-(.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", client.id)
    if named:
        return named[1]
    return str(client.scheduler.address) if client.scheduler is not None else str(client.id)


class DaskProvisioner:
    """
    Starts workers on one cluster; has the faces of ForkServers and ForkServer.

    Args:
        config: the settings.
        place: the cluster.
        runtime: for what the host keeps of a worker.
        context: for sockets.
        told: what the user has been told once of the workers' confinement.

    Attributes:
        last_words: nothing; who fails here says so itself.
    """

    last_words = ""

    def __init__(
        self,
        config: HiveConfig,
        place: Place,
        runtime: RuntimeFolder,
        context: Callable[[], Context],
        told: set[str],
    ) -> None:
        self.place = place
        self.runtime = runtime
        self.told = told
        self._config = config
        self._context = context
        self._topic = f"hive-{secrets.token_hex(8)}"
        self._client: Any = None
        self._cluster: Any = None
        self._connecting: asyncio.Task[Any] | None = None
        self._plugin_of: Any = None
        self._adding = asyncio.Lock()
        self._announced: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._releasing: set[asyncio.Future[None]] = set()

    @property
    def patience(self) -> float:
        """Seconds for a start: to reach the scheduler, to find room, and to start."""
        return 3 * float(self._config.connect_timeout)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def of(self, _interpreter: str, _policy: SandboxPolicy) -> DaskProvisioner:
        """What starts workers there: this."""
        return self

    async def refill(self, _launch: Launch, _count: int) -> None:
        """Nothing waits as a spare: each would take a place."""

    async def renew_boundaries(self) -> None:
        """Nothing waits as a spare."""

    async def spawn(self, launch: Launch, name: str) -> FarProcess:
        """
        Have Dask find a place, and a worker started there.

        Raises:
            SandboxUnavailable: that machine cannot enforce what the policy promises.
            HiveError: the scheduler does not answer, there is no room, or no worker could be
                started; the message says which.
        """
        client = await self.client()
        self._listen(client)
        keys = curve_keys()
        token = secrets.token_hex(8)
        loop = asyncio.get_running_loop()
        announced: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self._announced[token] = announced
        order = {
            "topic": self._topic,
            "token": token,
            "host_key": keys[0],
            "silence": self._config.far_silence,
        }
        task = await apart(lambda: self.submit(client, _HOLD, order, f"hive-{name}-{token}"))
        process: FarProcess | None = None
        try:
            told = await self._placed(client, task, announced)
            process = FarProcess(
                self._checked(told),
                self.runtime.worker_folder(),
                launch.policy,
                context=self._context(),
                keys=keys,
                patience=self._config.far_silence,
                why_gone=lambda why: self._why_gone(client, str(told["worker"]), why),
                over=lambda end: self._release(
                    # what was lost Dask may have begun anew, elsewhere
                    lambda: _cancel(task) if end.lost_because else _see_off(task)
                ),
                notes=_difference(str(told["python"]), str(told["worker"])),
            )
            await process.start(
                {
                    "name": name,
                    "cwd": launch.cwd,
                    "policy": launch.policy.facts(),
                    "settings": self._settings(),
                }
            )
        except BaseException:
            self._release(lambda: _cancel(task))
            if process is not None:
                await process.remove_folder()
            raise
        finally:
            del self._announced[token]
        return process

    async def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=2 * _LOOK)
        with contextlib.suppress(Exception):
            await _apart_or_here(self._disconnect)

    def _disconnect(self) -> None:
        client, cluster = self._client, self._cluster
        if self._plugin_of is not None and self._plugin_of.status == "running":
            with contextlib.suppress(Exception):
                self._plugin_of.unregister_worker_plugin(self._topic)
        self._plugin_of = None
        self._client = self._cluster = None
        if client is not None and client is self.place.client:
            client.unsubscribe_topic(self._topic)
        elif client is not None:
            client.close(timeout=_LOOK)
        if cluster is not None:
            cluster.close(timeout=_LOOK)

    async def client(self) -> Any:
        """
        A Dask client whose scheduler answers.

        Raises:
            HiveError: it does not, within ``connect_timeout``.
        """
        if self._client is not None and self._client.status == "running":
            return self._client
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Any:
        seconds = self._config.connect_timeout
        try:
            await apart(lambda: self._open(seconds))
        except Exception as error:
            reason = str(error) or type(error).__name__
            msg = f"the Dask cluster {self.place} does not answer: {reason}"
            raise HiveError(msg) from error
        return self._client

    def _listen(self, client: Any) -> None:
        """Have the scheduler pass on what tasks say; a new one at that address knows of nothing."""
        loop = asyncio.get_running_loop()

        def hear(event: tuple[float, Mapping[str, Any]]) -> None:
            # called on the client's own thread
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hear, event[1])

        client.subscribe_topic(self._topic, hear)

    def _open(self, seconds: float) -> None:
        """Connect; on a thread that may wait."""
        from distributed import Client, LocalCluster

        make_cluster: Any = LocalCluster
        make_client: Any = Client
        if self.place.client is not None:
            self._client = self.place.client
            if self._client.status != "running":
                msg = f'its client is "{self._client.status}"; make a new one'
                raise HiveError(msg)
            return
        self._disconnect()
        address: Any = self.place.address
        if address == LOCAL:
            address = self._cluster = make_cluster(dashboard_address=":0", preload=[__name__])
        self._client = make_client(address, timeout=seconds, set_as_default=False)

    async def have_plugin(self, make: Callable[[str], Any]) -> str:
        """
        Have all Dask workers, those to come too, hold something until the cluster is let go.

        Args:
            make: makes it of its name, the first time.

        Returns:
            The name of the plugin.

        Raises:
            HiveError: they cannot; the message says why.
        """
        client = await self.client()
        async with self._adding:
            if self._plugin_of is not client:
                try:
                    await apart(lambda: client.register_plugin(make(self._topic)))
                except Exception as error:
                    raise HiveError(self._no_plugin(error)) from error
                self._plugin_of = client
        return self._topic

    def _no_plugin(self, error: Exception) -> str:
        if isinstance(error, ImportError | AttributeError):
            return _not_there(error)
        return f"the Dask workers at {self.place} cannot run Hive: {error}"

    def submit(self, client: Any, code: str, order: Mapping[str, Any], key: Any) -> Any:
        """Have one of the Dask workers that may be used evaluate some text, with an order."""
        return client.submit(
            eval,
            code,
            {"order": dict(order)},
            key=key,
            workers=list(self.place.workers) or None,
            resources=dict(self.place.resources) or None,
            pure=False,
            retries=0,
        )

    async def _placed(
        self, client: Any, task: Any, announced: asyncio.Future[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Wait until a station listens; return where."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def note(_task: Any) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, ended)

        task.add_done_callback(note)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await first_of(announced, ended)
        except TimeoutError:
            raise HiveError(await self._no_room(client)) from None
        if not announced.done():
            raise HiveError(await apart(lambda: self._failure(task)))
        return announced.result()

    async def _no_room(self, client: Any) -> str:
        """Why no station came in time."""
        seconds = format_duration(self._config.connect_timeout)
        try:
            async with asyncio.timeout(_LOOK):
                threads = await apart(client.nthreads)
        except Exception:
            return f"the Dask scheduler {self.place} did not answer within {seconds}"
        if not threads:
            return f"the Dask cluster {self.place} has no workers; start some"
        wanted = [f"resources {dict(self.place.resources)}"] if self.place.resources else []
        wanted += [f"workers {', '.join(self.place.workers)}"] if self.place.workers else []
        which = f" with {' and '.join(wanted)}" if wanted else ""
        return (
            f"the Dask cluster {self.place} found no room for it{which} within {seconds} "
            f"({len(threads)} workers, {sum(threads.values())} threads, each of which runs one "
            "task or worker at a time)"
        )

    def _failure(self, task: Any) -> str:
        """Why a task could not start a station."""
        try:
            error: BaseException | None = task.exception(timeout=_LOOK)
        except Exception as failure:
            error = failure
        if isinstance(error, ImportError):
            return _not_there(error)
        return f"Dask at {self.place} could not start it: {error or task.status}"

    def _checked(self, told: Mapping[str, Any]) -> Station:
        """
        See that a station is one that this host can talk to.

        Raises:
            HiveError: it is of another version.
        """
        there, here = str(told["hive"]), __version__
        if told["protocol"] != PROTOCOL_VERSION or there != here:
            msg = (
                f"hive-jupyter is {there} on the Dask worker {told['worker']} and {here} here. "
                f"Install the same there: pip install hive-jupyter=={here}"
            )
            raise HiveError(msg)
        place = f"{self.place} (Dask worker {told['worker']})"
        ports = {str(name): int(port) for name, port in told["ports"].items()}
        return Station(str(told["host"]), int(told["link"]), ports, str(told["key"]), place)

    def _settings(self) -> dict[str, Any]:
        """What of the host's settings a worker needs where it starts."""
        names = ("environment", "pass_environment", "tool_modules", "transport")
        return {name: getattr(self._config, name) for name in names}

    def _hear(self, said: Mapping[str, Any]) -> None:
        """A task has something to say; one that Dask began a second time is for nobody."""
        announced = self._announced.get(str(said.get("token")))
        if announced is not None and not announced.done():
            announced.set_result(said)

    def _release(self, give_back: Callable[[], None]) -> None:
        """Give a place back; where Dask does not hear it, the station's end does it."""
        releasing = asyncio.ensure_future(_apart_or_here(give_back))
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _why_gone(self, client: Any, worker: str, why: str) -> str:
        """Why a station was told to end, in words."""
        if why == CANCELLED:
            return f"its place on the Dask worker {worker} was cancelled"
        if not await _listens(client):
            return f"the Dask scheduler {self.place} is gone, and its Dask workers with it"
        reason = await _reason_of_dask(client, worker)
        return f"the Dask worker {worker}, which held its place, ended{reason}"


def _not_there(error: Exception) -> str:
    return (
        f"hive-jupyter cannot be imported on the Dask worker ({error}). Install there what is "
        f"installed here: {_INSTALL.replace(']', f']=={__version__}')}"
    )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _difference(there: str, worker: str) -> list[str]:
    """What users are to know where a worker's Python is another one than theirs."""
    here = ".".join(map(str, sys.version_info[:2]))
    if there.rpartition(".")[0] == here:
        return []
    msg = (
        f"Python is {there} on the Dask worker {worker} and {here} here: data can be pushed and "
        "pulled, functions and classes cannot."
    )
    return [msg]


async def _apart_or_here(work: Callable[[], None]) -> None:
    try:
        await apart(work)
    except RuntimeError:  # the system gives no thread any more
        work()


def _see_off(task: Any) -> None:
    """Let a station end, which as a rule takes no time."""
    with contextlib.suppress(Exception):
        task.result(timeout=_LOOK)
    _cancel(task)


def _cancel(task: Any) -> None:
    with contextlib.suppress(Exception):
        task.cancel()


async def _listens(client: Any) -> bool:
    """Whether somebody still listens at a scheduler's address."""
    host, _, port = client.scheduler.address.rpartition("://")[2].rpartition(":")
    try:
        async with asyncio.timeout(_LOOK):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True


async def _reason_of_dask(client: Any, worker: str) -> str:
    """What Dask's own events say of a worker's end, in brackets; or ""."""
    try:
        async with asyncio.timeout(_LOOK):
            events = await apart(lambda: client.get_events(worker))
    except Exception:
        return ""
    reasons = [event.get("reason") for _, event in events if isinstance(event, dict)]
    said = next((reason for reason in reversed(reasons) if isinstance(reason, str)), "")
    return f" (Dask says: {_STAMP.sub('', said)})" if said else ""


# On the Dask worker


async def dask_setup(worker: Any) -> None:  # noqa: ARG001  as Dask calls it
    """
    Have a Dask worker take no notice of SIGINT; called by Dask where this module is its preload.

    A notebook's stop button reaches all processes below its kernel, and would end it.
    """
    handle_sigint(lambda *_: None)


def hold(order: Mapping[str, Any]) -> str:
    """
    The task: keep a place on a Dask worker for as long as a Hive worker lives there.

    Args:
        order: "token" and "topic" to tell under; the rest is for the station.

    Returns:
        Why it ended.

    Raises:
        HiveError: the station could not be started.
    """
    from distributed import get_worker
    from distributed.comm.addressing import get_address_host

    worker = get_worker()
    key = str(worker.get_current_task())
    address = worker.contact_address or worker.address
    host = "127.0.0.1" if address.startswith("inproc") else get_address_host(address)
    command = [sys.executable, "-P", "-m", "hive_jupyter.swarm.station"]
    with subprocess.Popen(
        command,
        bufsize=0,  # what a station that has ended did not take is not tried again
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as station:
        assert station.stdin is not None
        assert station.stdout is not None
        line = json.dumps({**order, "bind": host, "path": sys.path})
        with contextlib.suppress(OSError):
            station.stdin.write(line.encode() + b"\n")
        told = station.stdout.readline()
        if not told:
            msg = f"the station at {host} ended with code {station.wait()}; its log is Dask's"
            raise HiveError(msg)
        with _watching(worker, key, station):
            said = {**json.loads(told), "token": order["token"], "worker": worker.address}
            worker.log_event(order["topic"], {**said, "host": host})
            station.wait()
    return "over"


@contextlib.contextmanager
def _watching(worker: Any, held: str, station: subprocess.Popen[bytes]) -> Iterator[None]:
    """While entered, a station ends when Dask does not want the task any more."""
    from distributed import WorkerPlugin

    class Watch(WorkerPlugin):
        def transition(self, key: Any, *_: Any, **__: Any) -> None:
            if key == held:
                _tell(station, CANCELLED)

        def teardown(self, worker: Any) -> None:  # noqa: ARG002
            _tell(station, PARENT)

    loop, name = worker.loop.asyncio_loop, f"watch-{held}"
    asyncio.run_coroutine_threadsafe(worker.plugin_add(plugin=Watch(), name=name), loop).result()
    try:
        yield
    finally:
        if name in worker.plugins:  # a Dask worker that closes has removed them
            asyncio.run_coroutine_threadsafe(worker.plugin_remove(name=name), loop)


def _tell(station: subprocess.Popen[bytes], why: str) -> None:
    """Have a station end. Idempotent."""
    assert station.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        station.stdin.write(why.encode() + b"\n")
