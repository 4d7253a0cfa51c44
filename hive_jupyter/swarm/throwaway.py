"""A worker for one request: confined, started for it, and ended with all that it started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hive_jupyter.config import HiveConfig
from hive_jupyter.swarm.channels import Context
from hive_jupyter.swarm.forkserver import ForkServers
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.run import Request

# Where the user sets no other limit: nobody looks on while it works.
_MOST_MEMORY = 4 * 2**30
_LARGEST_FILE = 4 * 2**30

# Seconds beyond its own in which a worker is to say that its time was over.
_GRACE = 5.0


async def ask_throwaway(
    name: str,
    kind: str,
    content: Mapping[str, Any],
    *,
    config: HiveConfig,
    servers: ForkServers,
    context: Context,
    folder: str,
    readable: Sequence[str],
    seconds: float,
) -> Mapping[str, Any]:
    """
    Ask a worker that nobody else sees, under the profile "strict".

    Args:
        name: of the worker, for errors.
        kind: of the request, such as "run_hooks_request".
        content: of the request.
        config: the settings.
        servers: start it.
        context: for its sockets.
        folder: its working folder, and all that it may write.
        readable: what it may read, besides what all such workers may.
        seconds: that it has once it has begun; it sees to that itself.

    Returns:
        The content of its reply.

    Raises:
        SandboxUnavailable: this machine cannot confine it.
        NodeStartError, NodeDied, NodeTimeout, RemoteError: it does not come to an answer.
    """
    policy = config.policy("strict")
    policy = replace(
        policy,
        readable=(*policy.readable, *readable),
        writable=(folder,),
        memory=policy.memory or _MOST_MEMORY,
        file_size=policy.file_size or _LARGEST_FILE,
    )
    async with SwarmNode(
        name, config=config, policy=policy, servers=servers, context=context, folder=folder
    ) as node:
        reply = await node.execute(Request(kind, content, seconds + _GRACE))
    return reply.content
