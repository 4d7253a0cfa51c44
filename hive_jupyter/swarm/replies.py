"""What a worker's execute_reply tells. The worker is not trusted: any part of it may be missing."""

from __future__ import annotations

from hive_jupyter.errors import RemoteError, remote_error
from hive_jupyter.protocol import REPLY_METADATA
from hive_jupyter.swarm.messages import Message
from hive_jupyter.units import format_size, memory_option

# Of a variable or an exception, in characters.
_LONGEST_NAME = 100
# What ipykernel calls an interrupt of a cell that awaits.
_CANCELLED = "CancelledError"


def variables(reply: Message, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """
    The names of variables that a worker claims to have, those that can be names.

    Args:
        reply: of the worker.
        otherwise: what is known of a worker whose reply says nothing (another kernel's).
    """
    told = reply.metadata.get(REPLY_METADATA)
    if not isinstance(told, dict):
        return otherwise
    names = told.get("names")
    return tuple(
        name
        for name in (names if isinstance(names, list) else ())
        if isinstance(name, str) and name.isidentifier() and len(name) <= _LONGEST_NAME
    )


def users_error(
    reply: Message, worker: str, memory_limit: int | None, *, interrupted: bool
) -> RemoteError:
    """
    The exception of the user's own code that a reply reports.

    Args:
        reply: whose status is not "ok".
        worker: its name.
        memory_limit: of the worker, in bytes: a MemoryError then says how to raise it.
        interrupted: whether somebody has asked the code to stop.
    """
    name = str(reply.content.get("ename", "Error"))[:_LONGEST_NAME]
    if interrupted and name == _CANCELLED:
        name = "KeyboardInterrupt"
    value = str(reply.content.get("evalue", ""))
    sent = reply.content.get("traceback", [])
    lines = [str(line) for line in sent] if isinstance(sent, list) else []
    # numpy's is called _ArrayMemoryError
    if name.endswith("MemoryError") and memory_limit is not None:
        advice = (
            f'worker "{worker}" has a memory limit of {format_size(memory_limit)}; '
            f"`%hive restart {worker} --memory {memory_option(2 * memory_limit)}` raises it"
        )
        value = f"{value} ({advice})" if value else advice
        lines.append(f"MemoryError: {advice}")
    return remote_error(name, value, lines)


def asks_to_exit(reply: Message) -> bool:
    """Whether the code called ``exit()``; ipykernel says so, and ends a moment later."""
    payload = reply.content.get("payload")
    return isinstance(payload, list) and any(
        isinstance(part, dict) and part.get("source") == "ask_exit" and not part.get("keepkernel")
        for part in payload
    )


def payloads(reply: Message) -> list[Message]:
    """What ``?name`` and ``%load`` ask a front-end to do, as messages of type "payload"."""
    parts = reply.content.get("payload")
    if not isinstance(parts, list):
        return []
    found = []
    for part in filter(_is_dict, parts):
        if part.get("source") == "page":
            data = part.get("data")
            text = data.get("text/plain") if isinstance(data, dict) else None
            if isinstance(text, str):
                found.append({"source": "page", "data": {"text/plain": text}, "start": 0})
        elif part.get("source") == "set_next_input" and isinstance(part.get("text"), str):
            chosen = {"text": part["text"], "replace": bool(part.get("replace"))}
            found.append({"source": "set_next_input", **chosen})
    return [Message("payload", content) for content in found]


def text_of(payload: Message) -> str:
    """What one of ``payloads`` has to read, if anything, with a line end."""
    content = payload.content
    is_page = content["source"] == "page"
    text: str = content["data"]["text/plain"] if is_page else content["text"]
    return f"{text}\n" if text and not text.endswith("\n") else text


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)
