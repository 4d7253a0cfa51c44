"""The worker itself and its variables."""

from __future__ import annotations


def ping() -> str:
    """Return "pong"."""
    return "pong"
