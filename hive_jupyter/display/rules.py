"""
The rules for what a worker says: "trusted", "framed" and "inert".

Of a worker whose output is trusted all passes. Otherwise each message is built anew of what is
known to do no more than be looked at; the two rules differ in whether a page may run, in a frame
of its own, when the reader asks for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hive_jupyter.display import bundle
from hive_jupyter.display.text import line, plain
from hive_jupyter.policy import OUTPUT_RULES

TRUSTED, FRAMED, INERT = RULES = tuple(OUTPUT_RULES.values())

_LONGEST_NAME = 100
_LONGEST_PROMPT = 500
_LONGEST_ID = 100
# Of an exception: characters of its text and of its traceback, and lines of that.
_LONGEST_VALUE = 10_000
_LONGEST_TRACEBACK = 2**20
_MOST_LINES = 2000


def stricter(one: str, other: str) -> str:
    """The rule that lets less pass."""
    return max(one, other, key=RULES.index)


def passed(rule: str, kind: str, content: Mapping[str, Any], worker: str) -> Mapping[str, Any]:
    """
    What may pass of a message.

    Args:
        rule: one of RULES.
        kind: of the message, such as "stream".
        content: of the message, held against Jupyter's protocol already.
        worker: its name, which becomes part of the names of its displays.
    """
    if rule == TRUSTED:
        return content
    if kind in ("display_data", "update_display_data", "execute_result"):
        return _display(content, worker, runs=rule == FRAMED)
    return _OTHERS[kind](content)


def _stream(content: Mapping[str, Any]) -> dict[str, Any]:
    name = "stderr" if content["name"] == "stderr" else "stdout"
    return {"name": name, "text": plain(content["text"])}


def _clear(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"wait": content.get("wait", False)}


def _prompt(content: Mapping[str, Any]) -> dict[str, Any]:
    prompt = line(content["prompt"], _LONGEST_PROMPT)
    return {"prompt": prompt, "password": content.get("password", False)}


def _error(content: Mapping[str, Any]) -> dict[str, Any]:
    """An exception; also as a reply tells it, which may lack any part."""
    value, traceback = str(content.get("evalue", "")), content.get("traceback", [])
    return {
        "ename": line(str(content.get("ename", "")), _LONGEST_NAME),
        "evalue": plain(_cut(value, _LONGEST_VALUE)),
        "traceback": _traceback(traceback if isinstance(traceback, list) else []),
    }


def _traceback(lines: list[Any]) -> list[str]:
    """The middle is what it can do without, as Python itself says it of a recursion."""
    half = _MOST_LINES // 2
    if len(lines) > _MOST_LINES:
        left_out = len(lines) - 2 * half
        lines = [
            *lines[:half],
            f"... {left_out} parts of the traceback left out ...",
            *lines[-half:],
        ]
    most = max(_LONGEST_TRACEBACK // max(1, len(lines)), 500)
    return [plain(_cut(str(part), most)) for part in lines]


def _cut(text: str, most: int) -> str:
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n...\n{text[-half:]}"


def _display(content: Mapping[str, Any], worker: str, *, runs: bool) -> dict[str, Any]:
    data, metadata = bundle.shown(content["data"], content.get("metadata") or {}, runs=runs)
    shown: dict[str, Any] = {"data": data, "metadata": metadata}
    display_id = (content.get("transient") or {}).get("display_id")
    if isinstance(display_id, str) and 0 < len(display_id) <= _LONGEST_ID:
        # so it can be no display of the user's, nor of another worker
        shown["transient"] = {"display_id": f"{worker}/{display_id}"}
    count = content.get("execution_count")
    if isinstance(count, int) and not isinstance(count, bool):
        shown["execution_count"] = count
    return shown


_OTHERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "stream": _stream,
    "clear_output": _clear,
    "error": _error,
    "input_request": _prompt,
}
