"""What the doctor found, as plain values that render themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hive_jupyter.units import as_markdown, in_columns, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# There, and proven. There in part. Not to be had on this machine. Not what the profile promises.
YES, PARTLY, MISSING, ALLOWED = "yes", "partly", "missing", "allowed"

_NEEDS = ("capability", "", "found", "without it")
_KEPT = "what a worker is kept from"


@dataclass(frozen=True)
class Row:
    """
    One capability.

    Attributes:
        capability: its name; with a profile, what a worker of that is kept from.
        state: "yes", "partly", "missing", or "allowed" where the profile does not promise it.
        detail: what the probe found.
        meaning: what that means for the user; "" where there is nothing to say.
        profile: of the sandbox; "" where it is about the machine.
        by: what enforces it, such as "Landlock ABI 7, seccomp"; "" where there is no profile.
    """

    capability: str
    state: str
    detail: str
    meaning: str = ""
    profile: str = ""
    by: str = ""


@dataclass(frozen=True)
class Report:
    """
    What this machine offers; renders itself in a notebook and in a terminal.

    Attributes:
        rows: one for each capability, or for each that a profile is to have.
    """

    rows: tuple[Row, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not to be had here, such as "fork" or "unix sockets (strict)"."""
        return tuple(
            f"{row.capability} ({row.profile})" if row.profile else row.capability
            for row in self.rows
            if row.state == MISSING
        )

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Report:
        """The report that has these ``facts``."""
        return cls(tuple(Row(**row) for row in facts["rows"]))

    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "missing": self.missing}

    def _repr_markdown_(self) -> str:
        return "\n\n".join(map(_markdown, self._tables()))

    def __str__(self) -> str:
        return "\n\n".join(map(_text, self._tables()))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """IPython's protocol for a terminal."""
        printer.text(str(self))

    def _tables(self) -> Iterator[list[Sequence[str]]]:
        """Titles and cells of each table; its last column may be empty."""
        needs = [
            (row.capability, row.state, row.detail, row.meaning)
            for row in self.rows
            if not row.profile
        ]
        yield [_NEEDS, *needs]
        profiles = tuple(dict.fromkeys(row.profile for row in self.rows if row.profile))
        if profiles:
            yield [(_KEPT, *profiles, "by", "what that means"), *self._kept(profiles)]

    def _kept(self, profiles: Sequence[str]) -> Iterator[Sequence[str]]:
        """What workers are kept from: one row for all profiles."""
        by_name: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            if row.profile:
                by_name.setdefault(row.capability, {})[row.profile] = row
        for name, found in by_name.items():
            states = [found[each].state if each in found else "" for each in profiles]
            layers = [layer for row in found.values() for layer in row.by.split(", ") if layer]
            yield (name, *states, ", ".join(dict.fromkeys(layers)), _meaning(list(found.values())))


def _meaning(rows: Sequence[Row]) -> str:
    """What the states of one capability mean; profiles are named where it differs."""
    meanings = dict.fromkeys(row.meaning for row in rows)
    if len(meanings) == 1:
        return rows[0].meaning
    of_which = {
        meaning: ", ".join(row.profile for row in rows if row.meaning == meaning)
        for meaning in meanings
        if meaning
    }
    return " ".join(f"{profiles}: {meaning}" for meaning, profiles in of_which.items())


def _markdown(table: Sequence[Sequence[str]]) -> str:
    titles, *rows = table
    lines = [titles, ("---",) * len(titles), *(tuple(map(_cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A cell in Markdown; what is not there stands out."""
    return f"**{text}**" if text in {PARTLY, MISSING} else as_markdown(text)


def _text(table: Sequence[Sequence[str]]) -> str:
    """Columns, and below a row, indented, what stands in its last one."""
    cells = [tuple(map(printable, row)) for row in table]
    lines = in_columns([row[:-1] for row in cells])
    meanings = ["", *(row[-1] for row in cells[1:])]
    return "\n".join(
        f"{line}\n    -> {meaning}" if meaning else line
        for line, meaning in zip(lines, meanings, strict=True)
    )
