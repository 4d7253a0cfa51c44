"""
Nodes: the workers of a hive, and what they share.

Everything here belongs to the portal's loop; servers there use it as the manager does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hive_jupyter.delegation import Node
from hive_jupyter.errors import HiveError, NodeDied, NodeStartError, NodeTimeout
from hive_jupyter.lookout import Lookout
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm import confinement
from hive_jupyter.swarm.channels import Context, context_for
from hive_jupyter.swarm.dask import HERE, DaskProvisioner, Place
from hive_jupyter.swarm.enforcement import examine
from hive_jupyter.swarm.forkserver import ForkServers
from hive_jupyter.swarm.launch import Kernel, snapshot
from hive_jupyter.swarm.life import NodeStatus
from hive_jupyter.swarm.mcp_node import McpNode
from hive_jupyter.swarm.messages import Sink
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.pool import Pool
from hive_jupyter.swarm.pool_node import PoolNode
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.report import Report
from hive_jupyter.swarm.runtime import RuntimeFolder, remove_apart, sweep
from hive_jupyter.swarm.staff import Staff, overdue
from hive_jupyter.swarm.targets import Targets

if TYPE_CHECKING:
    from hive_jupyter.config import HiveConfig
    from hive_jupyter.tools import Tool


class Nodes:
    """
    A hive's nodes by name, each made when it is first needed.

    Args:
        config: the settings.
        kernels: what workers run that are not this Python, by name.
        died: is called with the news of each death that nobody wanted; must not block.

    Attributes:
        by_name: those that there are.
        servers: start their processes; None before the first.
        runtime: the hive's private folder; None before it is needed.
        lookout: looks what workers leave in projects.
        staff: the workers of pools.
        is_closing: no further worker is started.
    """

    def __init__(
        self,
        config: HiveConfig,
        kernels: Mapping[str, Kernel],
        died: Callable[[NodeDied | NodeTimeout], object],
    ) -> None:
        self.by_name: dict[str, Node] = {}
        self.servers: ForkServers | None = None
        self.runtime: RuntimeFolder | None = None
        self.lookout = Lookout(self._tell_of_leftovers)
        self.staff = Staff(config, self._make_for_pool, self.by_name.values)
        self.is_closing = False
        self._pools: set[Pool] = set()
        self._culling: asyncio.Task[None] | None = None
        self._config = config
        self._kernels = kernels
        self._died = died
        self._context: Context | None = None
        self._clusters: dict[Place, DaskProvisioner] = {}

    def get(self, name: str) -> Node:
        """
        The node of that name.

        Raises:
            NodeStartError: none can be made.
        """
        self._have_culling()
        if name not in self.by_name:
            self.staff.make_room(name)
            try:
                self.by_name[name] = self._make(name)
            except Exception as error:  # no folder, no space, no descriptors, no sockets, ...
                msg = f'Worker "{name}" could not be started: {error}'
                raise NodeStartError(msg, node=name) from error
        return self.by_name[name]

    def running_code(self, name: str) -> SwarmNode:
        """The same, where it is known to be no MCP server."""
        node = self.get(name)
        assert isinstance(node, SwarmNode)
        return node

    def sockets(self) -> Context:
        """What the sockets of all workers are made of."""
        if self._context is None:
            self._context = context_for(self._config.max_workers)
        return self._context

    def fork_servers(self) -> ForkServers:
        """
        What starts the processes of workers.

        Raises:
            HiveError: the hive is being closed, or has no folder.
        """
        if self.is_closing:
            msg = "This hive is being closed."
            raise HiveError(msg)
        if self.servers is None:
            self.servers = ForkServers(self._config, self.runtime_folder())
        return self.servers

    def runtime_folder(self) -> RuntimeFolder:
        """The hive's private folder; the first time, those of hives that are gone are removed."""
        if self.runtime is None:
            sweep()
            self.runtime = RuntimeFolder.create()
        return self.runtime

    def make_pool(
        self, wanted: int, policy: SandboxPolicy, timeout: float | None, sink: Sink
    ) -> Pool:
        """
        A pool of so many workers, or fewer, where that is told.

        Args:
            wanted: how many workers.
            policy: of each.
            timeout: seconds that each item has; None: no limit.
            sink: is called with what the items say; must not block.

        Raises:
            ConfigError: there is no room for any.
        """
        allowance = self.staff.allowance(wanted, policy)
        if allowance.note:
            warn(allowance.note)
        pool = Pool(self.staff, allowance, self._config, timeout=timeout, sink=sink)
        self._pools.add(pool)
        pool.over.add_done_callback(lambda _: self._pools.discard(pool))
        return pool

    async def warm_up(self) -> None:
        """Start the zygote, and learn what there is in the project."""
        policy = self._config.policy()
        zygote = self.fork_servers().of(Kernel().interpreter, policy)

        async def know_project() -> None:
            with contextlib.suppress(FileNotFoundError):  # the working folder was deleted
                await self.lookout.know(snapshot(Kernel(), self._config, policy))

        await asyncio.gather(zygote.warm_up(), know_project())

    async def statuses(self) -> list[NodeStatus]:
        """How each node is."""
        return [node.status() for node in self.by_name.values()]

    async def log(self, name: str, lines: int) -> str:
        """The last lines of a worker's own log."""
        node = self.by_name.get(name)
        return node.log(lines) if node is not None else ""

    async def health(self, name: str) -> str:
        """How a worker is, asked without waiting for what it runs; see SwarmNode.health_check."""
        node = self.by_name.get(name)
        return await node.health_check() if node is not None else "cold"

    async def interrupt(self, name: str) -> bool:
        """Stop what a worker runs now; False where nothing runs."""
        node = self.by_name.get(name)
        return await node.interrupt() if node is not None else False

    async def start(self, name: str) -> NodeStatus:
        """
        Have a worker ready.

        Raises:
            NodeStartError, CircuitOpen: it could not be started; the message says why.
        """
        node = self.get(name)
        if not await node.connect():
            assert node.last_error is not None
            raise node.last_error
        return node.status()

    async def stop(self, name: str) -> None:
        """End a worker."""
        node = self.by_name.get(name)
        if node is not None:
            await self._renew_boundaries()
            await node.stop()
            await self.lookout.look_now()

    async def restart(self, name: str) -> NodeStatus:
        """
        End a worker and start it anew.

        Raises:
            NodeStartError, CircuitOpen: it could not be started; the message says why.
        """
        node = self.get(name)
        await self._renew_boundaries()
        await node.stop("restart")
        return await self.start(name)

    async def move(self, name: str, place: Place) -> None:
        """Choose where a worker lives that has not started yet; see SwarmNode."""
        self.running_code(name).move(self._starters(place))

    def _starters(self, place: Place) -> ForkServers | DaskProvisioner:
        here = self.fork_servers()
        return here if place.address == HERE else self.cluster(place)

    def cluster(self, place: Place) -> DaskProvisioner:
        """What starts workers on a cluster."""
        here = self.fork_servers()
        if place not in self._clusters:
            self._clusters[place] = DaskProvisioner(
                self._config, place, self.runtime_folder(), self.sockets, here.told
            )
        return self._clusters[place]

    async def change_policy(self, name: str, memory: int | None, sandbox: str | None) -> None:
        """Choose the policy of a worker that has not started yet; see SwarmNode."""
        self.running_code(name).change_policy(memory, sandbox)

    async def tools(self, name: str) -> list[Tool]:
        """Ask a worker for its tools, starting it where it has not started."""
        node = self.get(name)
        await node.list_tools()
        return list(node.tools.values())

    async def examine(self, targets: Mapping[str, Targets | None]) -> Report:
        """
        Try out what this machine offers, and what confines a worker of each profile.

        Args:
            targets: see ``confinement.try_out``, by the profile.
        """
        servers, context = self.fork_servers(), self.sockets()
        needs, *trials = await asyncio.gather(
            apart(lambda: examine(servers.runtime.path)),
            *(
                confinement.try_out(profile, of_profile, servers, context, self._config)
                for profile, of_profile in targets.items()
            ),
        )
        abouts = [rows[0] for rows in trials]
        return Report((*needs, *abouts, *(row for rows in trials for row in rows[1:])))

    async def close(self) -> None:
        """End all workers, and what started them; whatever one meets, the others are ended, too."""
        if self._culling is not None:
            self._culling.cancel()
            await asyncio.wait({self._culling})
        nodes = self.by_name.values()
        closed = HiveError("The item was ended, because its hive was closed.")
        await asyncio.gather(*(pool.close(closed) for pool in [*self._pools]))
        await self.staff.close()
        await asyncio.gather(*(node.close() for node in nodes), return_exceptions=True)
        await self.lookout.look_now()
        for node in nodes:
            for text in node.take_untold() if isinstance(node, SwarmNode) else ():
                warn(text)
        await asyncio.gather(*(cluster.close() for cluster in self._clusters.values()))
        if self.servers is not None:
            await self.servers.close()
        if self._context is not None:
            self._context.destroy(linger=0)
        if self.runtime is not None:
            await remove_apart(self.runtime.remove)

    def _make(self, name: str) -> Node:
        kernel = self._kernels.get(name, Kernel())
        if kernel.protocol == "mcp":
            return McpNode(
                name,
                config=self._config,
                command=kernel.argv,
                runtime=self.runtime_folder(),
                died=self._died,
            )
        return SwarmNode(
            name,
            config=self._config,
            kernel=kernel,
            servers=self.fork_servers(),
            context=self.sockets(),
            died=self._died,
            watcher=self.lookout.watcher(name),
        )

    def _have_culling(self) -> None:
        """Look after idle workers, where the user wants that."""
        if self._config.cull_idle_timeout and (self._culling is None or self._culling.done()):
            self._culling = asyncio.create_task(self._cull())
            self._culling.add_done_callback(note_failure)

    async def _cull(self) -> None:
        """End named workers that have had nothing to do for long, while the user wants it."""
        while seconds := self._config.cull_idle_timeout:
            named = [node for node in self.by_name.values() if isinstance(node, SwarmNode)]
            idle = [(node, node.idle_since) for node in named]
            gone, pause = overdue(
                [(node, since) for node, since in idle if since is not None],
                time.monotonic(),
                seconds,
            )
            for node in gone:
                await self._renew_boundaries()
                await node.cull(seconds)
            await asyncio.sleep(seconds if pause is None else pause)

    def _make_for_pool(self, name: str, policy: SandboxPolicy) -> PoolNode:
        return PoolNode(
            name,
            config=self._config,
            policy=policy,
            servers=self.fork_servers(),
            context=self.sockets(),
            watcher=self.lookout.watcher(name),
        )

    def _tell_of_leftovers(self, name: str, text: str) -> None:
        node = self.by_name.get(name)
        if self.is_closing or not isinstance(node, SwarmNode):
            warn(text)
        else:
            node.tell(text)

    async def _renew_boundaries(self) -> None:
        """Before a worker ends: a run that waits for the next has it at once."""
        if self.servers is not None:
            await self.servers.renew_boundaries()


def warn(text: str) -> None:
    """Tell the user, now and in the place where something runs; a warning could be an error."""
    sys.stderr.write(f"{text}\n")
