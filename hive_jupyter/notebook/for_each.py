"""``%%delegate --map``: the cell is run for each item of a variable, in many workers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.display import display

from hive_jupyter.errors import NodeStartError, RemoteError
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.arguments import UsageError
from hive_jupyter.notebook.relay import Cell, Relayed, relay_results
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message, ignore
from hive_jupyter.units import nearest, printable

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from hive_jupyter.manager import HiveManager
    from hive_jupyter.mapping import MapResults

# As many items that failed are named, and as much of the reason of each (characters).
_NAMED = 10
_LONGEST_REASON = 200

_REFUSED = {
    "bg": "--bg makes a job of one cell. hive.map(...) in Python goes on at once",
    "concurrent": "--concurrent runs beside what one worker runs. --map has workers of its own",
    "worker": "-w goes with one worker. --map has workers of its own, which have no names",
    "on": "--on names the place of one worker. --map runs here; "
    'hive.map(..., engine="dask", address=...) in Python uses a cluster',
    "pull": "--pull takes variables of one worker. --map gives the value of the cell's last line, "
    "of each item: -o NAME puts them into a list",
    "allow_pickle": "--allow-pickle goes with --pull. With --map and --sandbox open, results that "
    "are no plain data are pickled anyway",
}


def check(options: argparse.Namespace) -> None:
    """
    See that the options go with --map, or without it.

    Raises:
        UsageError: one does not.
    """
    if options.map is None:
        if options.count is not None:
            msg = "-n says how many workers --map has. One cell runs in one worker: -w NAME."
            raise UsageError(msg)
        return
    for name, why in _REFUSED.items():
        if getattr(options, name):
            msg = f"{why}."
            raise UsageError(msg)


def run(
    shell: InteractiveShell,
    manager: HiveManager,
    code: str,
    options: argparse.Namespace,
    values: Mapping[str, Any],
) -> Relayed:
    """
    Run code for each item.

    Args:
        shell: whose variable holds the items.
        manager: of the workers.
        code: to be run.
        options: of the magic.
        values: variables that each worker gets.

    Returns:
        The list of results, and the first error; an item that failed has its exception there.
    """
    items = _items(shell, options.map)
    _check_syntax(shell, code)
    chosen = {
        name: getattr(options, name)
        for name in ("timeout", "memory", "sandbox")
        if getattr(options, name) is not None
    }
    cell = Cell(shell)

    def begin(show: Callable[[Message], object]) -> MapResults:
        return manager.map_cell(
            code,
            items,
            values=values,
            workers=options.count,
            progress=not options.quiet,
            show=show,
            **chosen,
        )

    try:
        relayed = relay_results(cell, begin, show=ignore if options.quiet else cell.show)
    except NodeStartError as error:
        return Relayed(Instructions(code, str(error)))
    if relayed.error is not None:
        return relayed
    assert isinstance(relayed.outcome, list)
    results = relayed.outcome
    # what is an exception by itself comes of no item that failed
    failures = [each for each in results if isinstance(each, Exception) and hasattr(each, "index")]
    if failures:
        _tell(failures, len(results))
        if isinstance(failures[0], RemoteError):
            cell.dress(failures[0])
        else:
            compat.render_briefly(failures[0])
        return Relayed(results, failures[0])
    if options.out is None and not options.quiet:
        display(results)
    return relayed


def _items(shell: InteractiveShell, name: str) -> Iterable[Any]:
    known = shell.user_ns
    if name not in known:
        hidden = shell.user_ns_hidden
        own = [each for each in known if not each.startswith("_") and each not in hidden]
        msg = f'--map: there is no variable "{name}" here.{nearest(name, own)}'
        raise UsageError(msg)
    try:
        iter(known[name])
    except TypeError:
        kind = type(known[name]).__name__
        msg = f'--map: "{name}" is of type {kind}, which has no items. Make it a list.'
        raise UsageError(msg) from None
    items: Iterable[Any] = known[name]
    return items


def _check_syntax(shell: InteractiveShell, code: str) -> None:
    """A mistake is told once, and not by each item."""
    try:
        ast.parse(shell.transform_cell(code))
    except SyntaxError as error:
        line = (error.text or "").strip()
        msg = f"The cell is no Python. Line {error.lineno}, {error.msg}: {line}"
        raise UsageError(msg) from None


def _tell(failures: list[Any], count: int) -> None:
    """Say which items failed."""
    lines = [f"{len(failures)} of {count} items failed:"]
    for error in failures[:_NAMED]:
        kind = getattr(error, "ename", type(error).__name__)
        reason = printable(f"{kind}: {error}"[:_LONGEST_REASON])
        lines.append(f"  {error.__notes__[-1]}: {reason}")
    if len(failures) > _NAMED:
        lines.append(f"  and {len(failures) - _NAMED} more")
    sys.stderr.write("\n".join(lines) + "\n")
