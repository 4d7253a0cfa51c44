"""
Hive for Jupyter: a second, disposable Python for every notebook.

How the package is laid out, from the floor up (imports run downwards only):

- ``errors``, ``units``, ``protocol``, ``procfs``, ``policy``, ``config``: words and data that
  everybody shares; ``transfer/``: values as buffers and back.
- ``worker/``: runs inside zygote, supervisor and worker; the host never imports it.
- ``swarm/``: one worker's life, and many; everything there is ``async`` on one loop.
- ``guard/``: who may commit, and what an agent may call: requests, a human's approvals, and git.
- ``delegation``, ``status``: one run, and all workers, as the caller sees them.
- ``nodes``: the workers of a hive, and what they share.
- ``manager``: :class:`HiveManager`, the holder of the portal between sync and async
  (``swarm.provisioner`` has one for its kernels).
- ``attach``: the door for the command line.
- ``notebook/``, ``cli/`` and ``demo``: what the user meets.

Importing the package imports none of that: names are looked up when they are used (PEP 562).
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hive_jupyter.delegation import Result
    from hive_jupyter.errors import (
        AuthorizationError,
        CircuitOpen,
        ConfigError,
        HiveError,
        LedgerError,
        NodeDied,
        NodeError,
        NodeStartError,
        NodeTimeout,
        RemoteError,
        RepositoryError,
        RequestDenied,
        RequestExpired,
        RequestUnknown,
        SandboxUnavailable,
        Superseded,
        TokenExpired,
        TokenMalformed,
        TokenMismatch,
        TokenSpent,
        TokenUnknown,
        ToolError,
        TooManyRequests,
        TransferError,
    )
    from hive_jupyter.guard.authorization import AuthorizationGuard
    from hive_jupyter.guard.requests import CallRequest, CommitRequest, Requester
    from hive_jupyter.manager import HiveManager
    from hive_jupyter.notebook import load_ipython_extension, unload_ipython_extension
    from hive_jupyter.policy import SandboxPolicy
    from hive_jupyter.swarm.fallback import Instructions
    from hive_jupyter.swarm.node import SwarmNode
    from hive_jupyter.tools import ToolResult, tool

__version__ = "0.1.0"

_HOMES = {
    "AuthorizationError": "errors",
    "AuthorizationGuard": "guard.authorization",
    "CallRequest": "guard.requests",
    "CircuitOpen": "errors",
    "CommitRequest": "guard.requests",
    "ConfigError": "errors",
    "HiveError": "errors",
    "HiveManager": "manager",
    "Instructions": "swarm.fallback",
    "LedgerError": "errors",
    "NodeDied": "errors",
    "NodeError": "errors",
    "NodeStartError": "errors",
    "NodeTimeout": "errors",
    "RemoteError": "errors",
    "RepositoryError": "errors",
    "RequestDenied": "errors",
    "RequestExpired": "errors",
    "RequestUnknown": "errors",
    "Requester": "guard.requests",
    "Result": "delegation",
    "SandboxPolicy": "policy",
    "SandboxUnavailable": "errors",
    "Superseded": "errors",
    "SwarmNode": "swarm.node",
    "TokenExpired": "errors",
    "TokenMalformed": "errors",
    "TokenMismatch": "errors",
    "TokenSpent": "errors",
    "TokenUnknown": "errors",
    "TooManyRequests": "errors",
    "ToolError": "errors",
    "ToolResult": "tools",
    "TransferError": "errors",
    "load_ipython_extension": "notebook",
    "tool": "tools",
    "unload_ipython_extension": "notebook",
}

__all__ = [
    "AuthorizationError",
    "AuthorizationGuard",
    "CallRequest",
    "CircuitOpen",
    "CommitRequest",
    "ConfigError",
    "HiveError",
    "HiveManager",
    "Instructions",
    "LedgerError",
    "NodeDied",
    "NodeError",
    "NodeStartError",
    "NodeTimeout",
    "RemoteError",
    "RepositoryError",
    "RequestDenied",
    "RequestExpired",
    "RequestUnknown",
    "Requester",
    "Result",
    "SandboxPolicy",
    "SandboxUnavailable",
    "Superseded",
    "SwarmNode",
    "TokenExpired",
    "TokenMalformed",
    "TokenMismatch",
    "TokenSpent",
    "TokenUnknown",
    "TooManyRequests",
    "ToolError",
    "ToolResult",
    "TransferError",
    "load_ipython_extension",
    "tool",
    "unload_ipython_extension",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
