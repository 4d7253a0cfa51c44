"""How a worker ended, in plain words."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from hive_jupyter.errors import NodeDied
from hive_jupyter.units import format_duration, format_size, memory_option

# What comes next, as a rule.
FRESH = "The next cell gets a fresh worker."
STARTED_AGAIN = "The next call starts it again."
_NAMED = 10
# A shell reports the end of its child by signal N as its own exit code 128 + N.
_SHELL_SIGNAL = 128
# Limits that Hive itself keeps.
_LIMITS = ("memory", "processes")
# Above this part of its limit, a crash in C code may well be a failed allocation.
_NEARLY = 0.8
# What libraries and programs say of a failed allocation before they give up.
_NO_MEMORY = re.compile(
    r"memory allocation|allocate memory|malloc failed|bad_alloc|MemoryError|out of memory",
    re.IGNORECASE,
)
_GIGABYTE = 2**30

_MEANINGS = {
    signal.SIGABRT: "abort: the code, or a library in C, gave up on itself",
    signal.SIGALRM: "a timer that nobody handled",
    signal.SIGBUS: "bus error: memory that is not there, often a mapped file that shrank",
    signal.SIGFPE: "arithmetic error in C code",
    signal.SIGHUP: "hang-up",
    signal.SIGILL: "an instruction that this processor does not know",
    signal.SIGINT: "interrupt",
    signal.SIGKILL: "kill",
    signal.SIGPIPE: "a write to a pipe that nobody reads",
    signal.SIGQUIT: "quit",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGSYS: "a system call that is forbidden here",
    signal.SIGTERM: "terminate",
    signal.SIGTRAP: "a breakpoint without a debugger",
    signal.SIGXCPU: "its limit of processor time",
    signal.SIGXFSZ: "its limit of file size",
}

_BY_US = {
    "timeout": "did not stop at its time limit and was killed by Hive",
    "interrupt": "did not obey the interrupt and was killed by Hive",
    "stop": "was stopped",
    "restart": "was restarted",
    "hung": "stopped answering and was killed by Hive",
}


@dataclass(frozen=True)
class Exit:
    """
    The end of a worker's process, as far as it is known.

    Attributes:
        code: exit code, or None where a signal ended it or nobody knows.
        signal: number of the signal that ended it, or None.
        by_us: why Hive ended it: "timeout", "interrupt", "stop", "memory", ...; None: it did not.
        memory_limit: bytes that the worker and its descendants were allowed; None: no limit.
        memory_used: bytes that they used in the end, as far as that was measured.
        processes_limit: processes and threads that they were allowed; None: no limit.
        cpu_limit: seconds of processor time that each process was allowed; None: no limit.
        cpu_seconds: that the worker itself had used.
        oom_kill: the system's out-of-memory killer struck somewhere while the worker lived.
        lost_supervisor: the supervisor ended first, so nobody saw the worker's own end.
        last_words: what its standard streams got and it did not live to pass on, by name.
        lost_because: of a worker on another machine: why nothing is heard of it any more, or "".
    """

    code: int | None = None
    signal: int | None = None
    by_us: str | None = None
    memory_limit: int | None = None
    memory_used: int | None = None
    processes_limit: int | None = None
    cpu_limit: int | None = None
    cpu_seconds: float = 0.0
    oom_kill: bool = False
    lost_supervisor: bool = False
    last_words: Mapping[str, str] = field(default_factory=dict)
    lost_because: str = ""

    @property
    def is_accident(self) -> bool:
        """Whether nobody asked for it, nor had Hive a quarrel with it."""
        return self.by_us is None or self.by_us in _LIMITS


def explain(worker: str, exit: Exit, lost: tuple[str, ...], during: bool) -> NodeDied:  # noqa: A002
    """
    Say what happened to a worker and what comes next.

    Args:
        worker: its name.
        exit: how it ended.
        lost: names of the variables that it had; empty where they are not known.
        during: it ended while it ran a cell, and not between two of them.

    Returns:
        The error for the caller.
    """
    cause, happened, advice = _cause(worker, exit)
    moment = "while it ran this cell" if during else "while no cell ran in it"
    sentences = [
        f'Worker "{worker}" {happened} {moment}.',
        advice,
        "Your kernel is untouched.",
        f"Lost: {enumerate_names(lost)}.",
        FRESH,
    ]
    return NodeDied(
        " ".join(sentence for sentence in sentences if sentence),
        node=worker,
        cause=cause,
        exit_code=exit.code,
        signal=exit.signal,
        lost=lost,
    )


def explain_server(worker: str, exit: Exit, said: str, during: bool) -> NodeDied:  # noqa: A002
    """
    Say what happened to a server and what comes next; as ``explain``.

    Args:
        worker: its name.
        exit: how it ended.
        said: the end of its log, or "".
        during: it ended while it served a call.
    """
    cause, happened, advice = _cause(worker, exit)
    moment = "while it served this call" if during else "while nobody called it"
    sentences = [
        f'Worker "{worker}" {happened} {moment}.',
        said and f"It said last: {said}",
        advice,
        "Your kernel is untouched.",
        STARTED_AGAIN,
    ]
    return NodeDied(
        " ".join(sentence for sentence in sentences if sentence),
        node=worker,
        cause=cause,
        exit_code=exit.code,
        signal=exit.signal,
    )


def explain_item(worker: str, exit: Exit) -> NodeDied:  # noqa: A002
    """
    Say what happened to a worker that ran items of a map; as ``explain``.

    Args:
        worker: its name.
        exit: how it ended.
    """
    cause, happened, advice = _cause(worker, exit)
    sentences = [
        f'Worker "{worker}" {happened} while it ran an item.',
        advice.replace(f"%hive restart {worker} --memory ", "%hive config memory="),
        "Your kernel is untouched. The other items go on in a fresh worker.",
    ]
    return NodeDied(
        " ".join(sentence for sentence in sentences if sentence),
        node=worker,
        cause=cause,
        exit_code=exit.code,
        signal=exit.signal,
    )


def _cause(worker: str, end: Exit) -> tuple[str, str, str]:
    """NodeDied's cause, what happened, and advice (or "")."""
    if end.by_us == "memory":
        limit = format_size(end.memory_limit)
        used = f" (it used {format_size(end.memory_used)})" if end.memory_used else ""
        happened = f"reached its memory limit of {limit}{used} and was killed by Hive"
        return "memory", happened, _more_memory(worker, end)
    if end.by_us == "processes":
        limit = f"{end.processes_limit} processes and threads"
        happened = f"had more than {limit}, its limit, and was killed by Hive"
        return "processes", happened, _more("processes", 2 * (end.processes_limit or 1))
    if end.by_us is not None:
        return "killed", _BY_US.get(end.by_us, f"was ended by Hive ({end.by_us})"), ""
    if end.lost_because:
        return "lost", f"was lost, because {end.lost_because},", ""
    if end.cpu_limit is not None and _ran_out_of_time(end, end.cpu_limit):
        limit = format_duration(end.cpu_limit)
        happened = f"used {limit} of processor time, its limit, and was ended by the system"
        return "cpu_time", happened, _more("cpu_time", 2 * end.cpu_limit)
    if end.signal == signal.SIGKILL and end.oom_kill:
        happened = "was killed by SIGKILL, most likely by the system because memory ran out,"
        advice = (
            f"`%hive restart {worker} --memory 2G` sets a limit, at which Hive stops a worker "
            "before the machine is full."
        )
        return "memory", happened, advice
    if end.signal == signal.SIGKILL:
        return "killed", "was killed by SIGKILL, which Hive did not send,", ""
    if end.signal is not None:
        return "signal", f"was killed by {_signal(end.signal)}", _doubt(worker, end)
    if end.code is not None:
        return "exit", _left(end.code), _doubt(worker, end) if end.code else ""
    if end.lost_supervisor:
        return "lost", "ended, because the process that watches over it was killed,", ""
    return "lost", "ended, and how is not known,", ""


def _signal(number: int) -> str:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    meaning = _MEANINGS.get(known)
    return f"{known.name} ({meaning})" if meaning else known.name


def _left(code: int) -> str:
    left = f"ended itself with exit code {code}"
    try:
        name = signal.Signals(code - _SHELL_SIGNAL).name
    except ValueError:
        return f"{left} (sys.exit, os._exit or the like)"
    return f"{left} (os._exit or the like; a shell says {name} that way)"


def _doubt(worker: str, end: Exit) -> str:
    """Where a crash may really be a lack of memory."""
    if not end.memory_limit:
        return ""
    limit = format_size(end.memory_limit)
    if (end.memory_used or 0) >= _NEARLY * end.memory_limit:
        return f"It was close to its memory limit of {limit}. {_more_memory(worker, end)}"
    if _NO_MEMORY.search(end.last_words.get("stderr", "")):
        return (
            f"Its last words are of memory, and its limit is {limit}. {_more_memory(worker, end)}"
        )
    return ""


def _more_memory(worker: str, end: Exit) -> str:
    """How to raise the limit, to twice of what it was."""
    twice = memory_option(2 * (end.memory_limit or _GIGABYTE))
    return f"`%hive restart {worker} --memory {twice}` gives it more."


def _more(setting: str, number: int) -> str:
    """How to raise a limit that is a setting, for the worker that comes next."""
    return f"`%hive config {setting}={number}` gives the next one more."


def _ran_out_of_time(end: Exit, limit: int) -> bool:
    """Whether it was the limit's signal; or what follows, where that was ignored."""
    if end.signal == signal.SIGXCPU:
        return True
    return end.signal == signal.SIGKILL and end.cpu_seconds >= limit


def enumerate_names(names: tuple[str, ...]) -> str:
    """What a worker's end costs."""
    if not names:
        return "its variables"
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f", and {more} more" if more > 0 else "")
