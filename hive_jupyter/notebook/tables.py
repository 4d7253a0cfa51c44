"""What ``%hive`` answers: a table in Markdown for a notebook, in columns for a terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hive_jupyter.units import in_columns, printable

# What Markdown would obey, in a table's cell.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&-])")


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
        lines += [tuple(map(_escaped, row)) for row in self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{table}\n\n{_escaped(self.note)}".rstrip()

    def __str__(self) -> str:
        rows = [self.columns, *(tuple(map(printable, row)) for row in self.rows)]
        return "\n".join([*in_columns(rows), *([self.note] if self.note else [])])


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", printable(text))
