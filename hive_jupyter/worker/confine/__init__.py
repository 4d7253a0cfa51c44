"""
A policy applied to this process, for good, between the fork and the kernel.

``prctl`` and ``limits`` hold for every profile. The boundary of the confined profiles belongs here
too; until it exists, ``SandboxPolicy`` refuses "strict" and Hive says that "workspace" is not
enforced.
"""

from __future__ import annotations

from hive_jupyter.protocol import WorkerSpec
from hive_jupyter.worker.confine import limits


def confine(spec: WorkerSpec) -> None:
    """Apply the worker's policy; called once, before any thread and any code of the user."""
    limits.apply(spec.policy, own_users=False)
