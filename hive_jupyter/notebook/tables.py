"""What ``%hive`` answers: a table in Markdown for a notebook, in columns for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hive_jupyter.tools import Tool
from hive_jupyter.units import as_markdown, in_columns, printable

_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}
# Times, durations and sizes, in Markdown: a narrow column would break within them.
_TOGETHER = re.compile(r"\d{4}\\-\d\d\\-\d\d \d\d(?=\\:)|\d (?:[KMGT]?B|ms|s|min|h)\b")
# Of an argument's schema: what other columns say.
_TOLD_BESIDE = ("description", "default", "title")


@dataclass(frozen=True)
class Table:
    """
    Rows of plain text under headings.

    Attributes:
        columns: the headings.
        rows: as long as ``columns`` each; control characters are shown as spaces.
        note: a sentence below.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def _repr_markdown_(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns)]
        lines += [
            tuple(_TOGETHER.sub(_unbroken, as_markdown(cell)) for cell in row) for row in self.rows
        ]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{table}\n\n{as_markdown(self.note)}".rstrip()

    def __str__(self) -> str:
        rows = [self.columns, *(tuple(map(printable, row)) for row in self.rows)]
        return "\n".join([*in_columns(rows), *([self.note] if self.note else [])])


def _unbroken(found: re.Match[str]) -> str:
    kept = found[0].replace(" ", "\N{NO-BREAK SPACE}")
    return kept.replace("\\-", "\N{NON-BREAKING HYPHEN}")


def table_of_tools(tools: Sequence[Tool], problems: Sequence[str] = ()) -> Table:
    """Tools with their arguments; ``problems`` says why some are missing."""
    rows = tuple(
        (tool.name, " ".join(_names_of_arguments(tool)), _first_sentence(tool.description))
        for tool in tools
    )
    note = "*: needed. %hive tools TOOL explains one."
    return Table(("tool", "arguments", ""), rows, " ".join([*problems, note]))


def table_of_arguments(tool: Tool) -> Table:
    """What a tool takes, as its schema says it."""
    rows = tuple(_row_of_argument(tool, name) for name in tool.arguments)
    words = [f"{name}=..." for name in tool.required]
    note = f"example: {' '.join(['%delegate', tool.name, *words])}"
    return Table(("argument", "kind", "default", ""), rows, note)


def _names_of_arguments(tool: Tool) -> list[str]:
    return [f"{name}*" if name in tool.required else name for name in tool.arguments]


def _row_of_argument(tool: Tool, name: str) -> tuple[str, ...]:
    schema = tool.arguments[name]
    if not isinstance(schema, Mapping):
        return (name, json.dumps(schema), "", "")
    default = json.dumps(schema["default"]) if "default" in schema else ""
    if name in tool.required:
        default = "needed"
    return (name, _kind(schema), default, str(schema.get("description", "")))


def _kind(schema: Mapping[str, object]) -> str:
    """A type of JSON Schema in words; one that words do not say is shown as it is."""
    kind, items, choices = schema.get("type"), schema.get("items"), schema.get("enum")
    if isinstance(choices, list):
        return " | ".join(map(json.dumps, choices))
    if isinstance(kind, list) and all(isinstance(word, str) and word in _KINDS for word in kind):
        return " or ".join(_KINDS[word] for word in kind)
    if kind == "array" and isinstance(items, Mapping):
        return f"list of: {_kind(items)}"
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind] + _bounds(schema)
    shown = {word: value for word, value in schema.items() if word not in _TOLD_BESIDE}
    return json.dumps(shown)


def _bounds(schema: Mapping[str, object]) -> str:
    words = {"minimum": "from", "maximum": "up to"}
    return "".join(f" {said} {schema[key]}" for key, said in words.items() if key in schema)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:;])\s", text.strip(), maxsplit=1)[0].rstrip(":;")
