"""A death is told in plain words: what, when, what is lost, what comes next."""

import re
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import NodeDied
from hive_jupyter.swarm.death import Exit, explain, explain_server
from hive_jupyter.units import parse_size

GIGABYTE = 2**30
CAUSES = {"signal", "memory", "processes", "cpu_time", "exit", "killed", "lost"}


def test_a_segfault_is_told_whole():
    """The sentence that the design promises."""
    error = explain("coder", Exit(signal=signal.SIGSEGV), ("df", "model"), during=True)

    assert str(error) == (
        'Worker "coder" was killed by SIGSEGV (segmentation fault) while it ran this cell. '
        "Your kernel is untouched. Lost: df, model. The next cell gets a fresh worker."
    )
    assert ("coder", "signal", None, 11, ("df", "model")) == (
        error.node,
        error.cause,
        error.exit_code,
        error.signal,
        error.lost,
    )


def test_the_death_of_a_server_is_told_whole():
    error = explain_server("fs", Exit(signal=signal.SIGSEGV), "Reading a.txt", during=True)

    assert str(error) == (
        'Worker "fs" was killed by SIGSEGV (segmentation fault) while it served this call. '
        "It said last: Reading a.txt Your kernel is untouched. The next call starts it again."
    )
    assert ("fs", "signal", 11, ()) == (error.node, error.cause, error.signal, error.lost)
    assert "while nobody called it. Your" in str(explain_server("fs", Exit(code=1), "", False))


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        (Exit(signal=6), "signal", "SIGABRT (abort"),
        (Exit(signal=7), "signal", "SIGBUS (bus error"),
        (Exit(signal=9), "killed", "SIGKILL, which Hive did not send"),
        (Exit(signal=9, oom_kill=True), "memory", "because memory ran out"),
        (Exit(signal=11, oom_kill=True), "signal", "SIGSEGV"),
        (Exit(signal=40), "signal", "killed by signal 40"),
        (Exit(signal=999), "signal", "killed by signal 999"),
        (Exit(code=0), "exit", "ended itself with exit code 0 (sys.exit, os._exit"),
        (Exit(code=3), "exit", "exit code 3"),
        (Exit(code=139), "exit", "a shell says SIGSEGV that way"),
        (Exit(code=128), "exit", "exit code 128 (sys.exit"),
        (Exit(signal=9, by_us="timeout"), "killed", "did not stop at its time limit"),
        (Exit(signal=9, by_us="interrupt"), "killed", "did not obey the interrupt"),
        (Exit(code=0, by_us="stop"), "killed", "was stopped"),
        (Exit(signal=9, by_us="whim"), "killed", "was ended by Hive (whim)"),
        (Exit(lost_supervisor=True), "lost", "watches over it was killed"),
        (Exit(), "lost", "how is not known"),
    ],
)
def test_each_end_has_its_words(end, cause, words):
    """And a cause for programs."""
    error = explain("coder", end, (), during=True)

    assert cause == error.cause
    assert words in str(error)
    assert (end.code, end.signal) == (error.exit_code, error.signal)


def test_the_memory_limit_is_named_and_how_to_raise_it():
    """The command can be copied."""
    end = Exit(
        signal=9, by_us="memory", memory_limit=2 * GIGABYTE, memory_used=2 * GIGABYTE + 2**28
    )
    error = explain("coder", end, (), during=True)

    assert "memory" == error.cause
    assert "memory limit of 2 GB (it used 2.2 GB)" in str(error)
    assert "`%hive restart coder --memory 4G`" in str(error)


def test_a_limit_of_processes_is_named_and_how_to_raise_it():
    error = explain("coder", Exit(signal=9, by_us="processes", processes_limit=64), (), during=True)

    assert "processes" == error.cause
    assert str(error) == (
        'Worker "coder" had more than 64 processes and threads, its limit, and was killed by Hive '
        "while it ran this cell. `%hive config processes=128` gives the next one more. "
        "Your kernel is untouched. Lost: its variables. The next cell gets a fresh worker."
    )


@pytest.mark.parametrize(
    "end",
    [
        Exit(signal=signal.SIGXCPU, cpu_limit=60),
        Exit(signal=signal.SIGXCPU, cpu_limit=60, cpu_seconds=59.99),
        Exit(signal=signal.SIGKILL, cpu_limit=60, cpu_seconds=61),
        Exit(signal=signal.SIGKILL, cpu_limit=60, cpu_seconds=61, oom_kill=True),
    ],
)
def test_a_limit_of_processor_time_is_named_and_how_to_raise_it(end):
    """Also where the worker ignored the signal and was killed for it."""
    error = explain("coder", end, (), during=True)

    assert "cpu_time" == error.cause
    assert "used 1 min of processor time, its limit, and was ended by the system" in str(error)
    assert "`%hive config cpu_time=120` gives the next one more." in str(error)


@pytest.mark.parametrize(
    "end",
    [
        Exit(signal=signal.SIGXCPU),
        Exit(signal=signal.SIGKILL, cpu_seconds=61),
        Exit(signal=signal.SIGKILL, cpu_limit=60, cpu_seconds=3),
        Exit(signal=signal.SIGSEGV, cpu_limit=60, cpu_seconds=61),
        Exit(signal=signal.SIGKILL, by_us="stop", cpu_limit=60, cpu_seconds=61),
    ],
)
def test_an_end_of_another_cause_is_not_blamed_on_processor_time(end):
    assert "cpu_time" != explain("coder", end, (), during=True).cause


@pytest.mark.parametrize(
    ("by_us", "is_accident"),
    [(None, True), ("memory", True), ("processes", True), ("stop", False), ("protocol", False)],
)
def test_an_end_is_an_accident_where_nobody_asked_for_it(by_us, is_accident):
    assert is_accident == Exit(by_us=by_us).is_accident


@given(st.integers(1, 2**50))
def test_the_advised_limit_is_larger_and_can_be_typed(limit):
    """Whatever the limit was."""
    error = explain("a", Exit(by_us="memory", memory_limit=limit), (), during=True)
    advised = re.search(r"--memory (\S+)`", str(error))[1]

    assert parse_size(advised) >= 2 * limit


def test_a_crash_close_to_the_limit_names_the_limit():
    """Code in C aborts or crashes where an allocation fails."""
    near = Exit(signal=6, memory_limit=GIGABYTE, memory_used=GIGABYTE - 2**20)
    far = Exit(signal=6, memory_limit=GIGABYTE, memory_used=2**20)

    assert "close to its memory limit of 1 GB" in str(explain("a", near, (), during=True))
    assert "memory" not in str(explain("a", far, (), during=True))


SPOKE_OF_MEMORY = [
    "OpenBLAS error: Memory allocation still failed after 10 retries, giving up.",
    "OpenBLAS: malloc failed in gemm_driver",
    "OSError: [Errno 12] Cannot allocate memory",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "MemoryError",
    "fatal: Out of memory, malloc failed (tried to allocate 1 bytes)",
]


@pytest.mark.parametrize("said", SPOKE_OF_MEMORY)
@pytest.mark.parametrize("how", [{"code": 1}, {"signal": 6}])
def test_an_end_that_speaks_of_memory_names_the_limit(how, said):
    """What is refused was never used: the peak says nothing of it."""
    end = Exit(**how, memory_limit=GIGABYTE, memory_used=2**20, last_words={"stderr": said})
    error = explain("a", end, (), during=True)

    assert "Its last words are of memory, and its limit is 1 GB." in str(error)
    assert "`%hive restart a --memory 2G`" in str(error)


@pytest.mark.parametrize(
    "end",
    [
        Exit(code=1, memory_limit=GIGABYTE, last_words={"stderr": "no such file"}),
        Exit(code=1, last_words={"stderr": "MemoryError"}),
        Exit(code=1, memory_limit=GIGABYTE, last_words={"stdout": "a MemoryError is an Exception"}),
        Exit(code=0, memory_limit=GIGABYTE, memory_used=GIGABYTE),
    ],
)
def test_no_other_end_is_blamed_on_memory(end):
    assert "--memory" not in str(explain("a", end, (), during=True))


def test_a_death_between_cells_is_not_blamed_on_a_cell():
    """It says so."""
    error = explain("coder", Exit(signal=11), (), during=False)

    assert "this cell" not in str(error)
    assert "while no cell ran in it" in str(error)


def test_at_most_ten_variables_are_named():
    """The rest is counted; the attribute has all."""
    names = tuple(f"v{number}" for number in range(13))
    error = explain("coder", Exit(signal=11), names, during=True)

    assert "v9, and 3 more." in str(error)
    assert "v10" not in str(error)
    assert names == error.lost
    assert "v9." in str(explain("coder", Exit(signal=11), names[:10], during=True))


def test_unknown_variables_are_lost_too():
    """Nothing is promised that is not known."""
    assert "Lost: its variables." in str(explain("a", Exit(signal=11), (), during=True))


@given(
    st.builds(
        Exit,
        code=st.none() | st.integers(-(2**31), 2**31),
        signal=st.none() | st.integers(-1, 200),
        by_us=st.none() | st.sampled_from(["timeout", "memory", "processes", "stop", "hung", "x"]),
        processes_limit=st.none() | st.integers(32, 2**20),
        cpu_limit=st.none() | st.integers(1, 2**20),
        cpu_seconds=st.floats(0, 2**20),
        memory_limit=st.none() | st.integers(1, 2**50),
        memory_used=st.none() | st.integers(0, 2**50),
        oom_kill=st.booleans(),
        lost_supervisor=st.booleans(),
    ),
    st.booleans(),
)
def test_every_end_can_be_explained(end, during):
    """Each message says who, that the kernel is well, and what comes next."""
    error = explain("coder", end, ("x",), during=during)

    assert isinstance(error, NodeDied)
    assert error.cause in CAUSES
    assert str(error).startswith('Worker "coder" ')
    assert "Your kernel is untouched. Lost: x. The next cell gets a fresh worker." in str(error)
