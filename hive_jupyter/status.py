"""How the hive is, as plain values that render themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hive_jupyter.swarm.node import NodeStatus
from hive_jupyter.units import format_duration, format_size


class SwarmStatus(dict[str, Any]):
    """All nodes as plain values; renders itself as a Markdown table or as text."""

    _COLUMNS = (
        "worker",
        "state",
        "pid",
        "up",
        "runs",
        "failed",
        "restarts",
        "p50",
        "p95",
        "memory",
    )

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, a row a worker."""
        return [
            (
                name,
                _state_words(node),
                str(node["pid"] or ""),
                format_duration(node["uptime"]) if node["uptime"] is not None else "",
                str(node["calls"]),
                str(node["failures"]),
                str(node["restarts"]),
                format_duration(node["p50"]) if node["p50"] is not None else "",
                format_duration(node["p95"]) if node["p95"] is not None else "",
                format_size(node["memory"]) if node["memory"] is not None else "",
            )
            for name, node in self["workers"].items()
        ]

    def notes(self) -> list[str]:
        """What the table has no room for."""
        lines = [
            f"{name}: {node['last_error']}"
            for name, node in self["workers"].items()
            if node["last_error"]
        ]
        lines += [
            f"{name}: {', '.join(node['drift'])} changed since it started; "
            f"`%hive restart {name}` takes that over"
            for name, node in self["workers"].items()
            if node["drift"]
        ]
        return [*lines, *self["notes"]]

    def _repr_markdown_(self) -> str:
        cells = [self._COLUMNS, ("---",) * len(self._COLUMNS), *self.rows()]
        table = "\n".join(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in cells)
        notes = "\n".join(f"- {_plain(note)}" for note in self.notes())
        return f"{table}\n\n{notes}" if notes else table

    def __str__(self) -> str:
        rows = [self._COLUMNS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self._COLUMNS))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes()])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(str(self))


def plain_values(status: NodeStatus) -> dict[str, Any]:
    """A node's status as the swarm's status holds it."""
    values = asdict(status)
    metrics = values.pop("metrics")
    return {**values, **metrics, "drift": list(status.drift)}


def _state_words(node: Mapping[str, Any]) -> str:
    words = str(node["state"])
    if node["queue"]:
        words += f", {node['queue']} waiting"
    if node["circuit"] == "open":
        words += f", tries again in {format_duration(node['retry_in'])}"
    return words


def _plain(text: str) -> str:
    """Text that is no Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
