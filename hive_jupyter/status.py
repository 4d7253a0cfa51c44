"""How the hive is, as plain values that render themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hive_jupyter.swarm.life import NodeStatus
from hive_jupyter.units import as_markdown, format_duration, format_size, in_columns

_COLUMNS = (
    "worker",
    "state",
    "circuit",
    "pid",
    "up",
    "runs",
    "ok",
    "failed",
    "restarts",
    "p50",
    "p95",
    "memory",
    "CPU",
)
# Where a node's value has another name than its column.
_VALUES = {
    "up": "uptime",
    "runs": "calls",
    "ok": "successes",
    "failed": "failures",
    "CPU": "cpu_seconds",
}


class SwarmStatus(dict[str, Any]):
    """All nodes as plain values; renders itself as a Markdown table or as text."""

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, a row a worker."""
        return [
            (name, *(_cell(column, node) for column in _COLUMNS[1:]))
            for name, node in self["workers"].items()
        ]

    def notes(self) -> list[str]:
        """What the table has no room for."""
        lines = [
            f"{name}: last error: {node['last_error']}"
            for name, node in self["workers"].items()
            if node["last_error"]
        ]
        lines += [
            f"{name}: lives at {node['place']}"
            for name, node in self["workers"].items()
            if node["place"]
        ]
        lines += [
            f"{name}: {', '.join(node['drift'])} changed since it started; "
            f"`%hive restart {name}` takes that over"
            for name, node in self["workers"].items()
            if node["drift"]
        ]
        return [*lines, *self["notes"]]

    def _repr_markdown_(self) -> str:
        rows = [tuple(map(as_markdown, row)) for row in self.rows()]
        lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "\n".join(f"- {as_markdown(note)}" for note in self.notes())
        return f"{table}\n\n{notes}" if notes else table

    def __str__(self) -> str:
        return "\n".join([*in_columns([_COLUMNS, *self.rows()]), *self.notes()])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        printer.text(str(self))


def plain_values(status: NodeStatus) -> dict[str, Any]:
    """A node's status as the swarm's status holds it."""
    values = asdict(status)
    metrics = values.pop("metrics")
    return {**values, **metrics, "drift": list(status.drift)}


def _cell(column: str, node: Mapping[str, Any]) -> str:
    value = node[_VALUES.get(column, column)]
    if value is None:
        return ""
    if column == "state" and node["queue"]:
        return f"{value}, {node['queue']} waiting"
    if column == "circuit" and value == "open":
        return f"open for {format_duration(node['retry_in'])}"
    if column in ("up", "p50", "p95", "CPU"):
        return format_duration(value)
    return format_size(value) if column == "memory" else str(value)
