"""``%commit`` and ``%hive requests``, ``approve`` and ``deny``: asking for a yes, and giving it."""

from __future__ import annotations

import html
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hive_jupyter.commits import approve, approve_for_token, asked_for
from hive_jupyter.errors import ConfigError, RepositoryError
from hive_jupyter.guard.lines import Line, close_look
from hive_jupyter.listing import COLUMNS, LEDGER_COLUMNS, Listed, ledger_rows
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.tables import Table
from hive_jupyter.showing import Showing, as_text
from hive_jupyter.units import format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from hive_jupyter.manager import HiveManager

_ORIGIN = "notebook"

# Of a request, before somebody asks for all of it.
_MOST_LINES = 400
_MOST_LETTERS = 40_000
# Jupyter servers drop outputs that come faster than 1 MB/s for three seconds, and what was dropped
# was not seen. Each character is sent as HTML and as text.
_MOST_OF_ALL = 400_000

# Letters run from left to right whatever they are, lines break, between words where they can, and
# nothing is beyond the edge.
_BLOCK = (
    "font-family:Menlo,Consolas,monospace;font-size:0.93em;margin:0;white-space:pre-wrap;"
    "word-break:normal;overflow-wrap:anywhere;direction:ltr;unicode-bidi:bidi-override;tab-size:4"
)
_STYLES = {
    "head": "font-weight:bold",
    "mark": "font-weight:bold;background-color:rgba(210,153,34,0.3)",
    "hunk": "opacity:0.7",
    "added": "background-color:rgba(46,160,67,0.2)",
    "removed": "background-color:rgba(248,81,73,0.2)",
}


class Approvals:
    """
    Requests in one shell, and what of them was shown here.

    Args:
        shell: that shows them.
        manager: of the hive.
    """

    def __init__(self, shell: InteractiveShell, manager: HiveManager) -> None:
        self._shell = shell
        self._manager = manager
        self._seen: set[str] = set()

    def commit(self, options: argparse.Namespace) -> str:
        """Ask for a commit; what to say of it."""
        request, frozen = self._manager.commits.request(
            "\n\n".join(options.message),
            options.paths or None,
            supersedes=options.supersedes,
        )
        if options.out is not None:
            self._shell.user_ns[options.out] = request
        return asked_for(request, frozen)

    def requests(self, options: argparse.Namespace) -> Table:
        """The requests that wait, or the last ones of all."""
        guard = self._manager.guard
        requests = self._manager.requests()
        note = "" if requests else "Nothing waits."
        if options.all:
            requests, note = guard.latest(options.requests), ""
        if any(request.state == "pending" for request in requests):
            note = "%hive approve REQUEST shows one, and asks."
        return Table(COLUMNS, tuple(Listed.of(guard, one).row for one in requests), note)

    def history(self, limit: int) -> Table | None:
        """The ledger's last entries; None where it has none."""
        rows = tuple(ledger_rows(self._manager.guard, limit))
        return Table(LEDGER_COLUMNS, rows) if rows else None

    def approve(self, options: argparse.Namespace) -> str:
        """
        Show a request; or, where it was shown and the digest is typed, say yes.

        Returns:
            What to say of it; "" where it was shown.
        """
        guard = self._manager.guard
        self._manager.commits.settle()
        showing = Showing.of(guard.awaiting(options.id))
        digest = showing.request.digest
        if options.digest is None or options.all:
            self._present(showing, whole=options.all)
            return ""
        if digest not in self._seen:
            self._present(showing, whole=False)
            msg = (
                f"Request {showing.request.id} was not shown here in full before, and is not "
                "approved. Read it, and answer again as it says."
            )
            raise ConfigError(msg)
        if objection := showing.objection(options.digest):
            raise ConfigError(objection)
        answer = approve_for_token if options.token else approve
        return answer(guard, showing.request, origin=_ORIGIN)

    def deny(self, options: argparse.Namespace) -> str:
        """Say no; what to say of it."""
        reason = " ".join(options.reason)
        request = self._manager.guard.deny(options.id, reason, origin=_ORIGIN)
        return f"Request {request.id} is denied."

    def _present(self, showing: Showing, *, whole: bool) -> None:
        """
        Show a request and how to answer.

        Raises:
            RepositoryError: all of it is too much for a notebook.
        """
        name = showing.request.id
        if whole and _is_for_a_terminal(showing):
            msg = (
                f"All of request {name} is {format_size(showing.letters)}, more than a notebook "
                f"shows without loss. Answer it in a terminal: jupyter hive approve {name}"
            )
            raise RepositoryError(msg)
        limits = (len(showing.lines), _MOST_OF_ALL) if whole else (_MOST_LINES, _MOST_LETTERS)
        lines, left = showing.cut(*limits)
        self._publish([*lines, *_question(showing, left)])
        if not left:
            self._seen.add(showing.request.digest)

    def _publish(self, lines: Sequence[Line]) -> None:
        in_terminal = compat.kernel_of(self._shell) is None
        coloured = in_terminal and compat.has_colours(self._shell) and sys.stdout.isatty()
        data: dict[str, Any] = {"text/plain": as_text(lines, coloured=coloured)}
        if not in_terminal:
            data["text/html"] = _as_html(lines)
        self._shell.display_pub.publish(data)


def _is_for_a_terminal(showing: Showing) -> bool:
    return showing.letters > _MOST_OF_ALL


def _question(showing: Showing, left: int) -> list[Line]:
    name = showing.request.id
    if left:
        said = f"{left} lines more. They have to be shown before this can be approved"
        how = f": %hive approve {name} --all"
        if _is_for_a_terminal(showing):
            how = f", and are too much for a notebook. In a terminal: jupyter hive approve {name}"
        return [Line("plain", ""), Line("head", said + how)]
    return [
        *(close_look(showing.marks) if len(showing.lines) > _MOST_LINES else []),
        Line("plain", ""),
        Line("plain", f"digest {showing.request.digest}"),
        Line("head", f"To approve: %hive approve {name} DIGEST"),
        Line("plain", f"with the first {showing.needed} characters of the digest, or more of it."),
        Line("plain", f"To refuse: %hive deny {name} REASON"),
    ]


def _as_html(lines: Sequence[Line]) -> str:
    parts = "".join(
        _alike(kind, [line.text for line in group])
        for kind, group in groupby(lines, lambda line: line.kind)
    )
    return f'<pre style="{_BLOCK}">{parts}</pre>'


def _alike(kind: str, texts: Sequence[str]) -> str:
    # the last line end of a block ends the block and shows no line
    text = "".join(f"{html.escape(text)}\n" for text in texts)
    style = _STYLES.get(kind)
    # a block does not inherit the direction in which its own letters run
    return (
        f'<span style="display:block;unicode-bidi:bidi-override;{style}">{text}</span>'
        if style
        else text
    )
