"""Errors carry what callers need, and the user's own exception keeps its builtin type."""

import builtins
import copy
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import (
    AuthorizationError,
    CircuitOpen,
    HiveError,
    LedgerError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    RepositoryError,
    RequestDenied,
    SandboxUnavailable,
    TokenSpent,
    remote_error,
)

BUILTINS = sorted(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)
# The wire does not carry what these need, or what they mean would be lost; see errors.py.
ONLY_REMOTE = (
    StopIteration,
    StopAsyncIteration,
    SyntaxError,
    BaseExceptionGroup,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
)
# Text as it comes from a wire, with what only a broken or hostile worker sends.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]))


@pytest.mark.parametrize("name", BUILTINS)
def test_every_builtin_exception_is_rebuilt(name):
    """All but a few are instances of the builtin; all show the worker's text under their name."""
    builtin = getattr(builtins, name)

    error = remote_error(name, "why", ["a line"])

    assert isinstance(error, RemoteError)
    is_builtin = isinstance(error, builtin) and builtin is not BaseException
    assert not issubclass(builtin, ONLY_REMOTE) or not is_builtin
    assert is_builtin == (issubclass(builtin, Exception) and not issubclass(builtin, ONLY_REMOTE))
    assert (name, "why", ["a line"]) == (error.ename, error.evalue, error.traceback)
    assert (name, "why") == (type(error).__name__, str(error))


@given(
    ename=ANY_TEXT | st.sampled_from([*BUILTINS, "__build_class__", "print", "None", "\0", ""]),
    evalue=ANY_TEXT,
    lines=st.lists(ANY_TEXT, max_size=3),
)
def test_any_text_from_a_worker_makes_an_error(ename, evalue, lines):
    """Whatever a worker calls its exception, it becomes one here, and can be shown."""
    error = remote_error(ename, evalue, lines)

    assert (ename, evalue, lines) == (error.ename, error.evalue, error.traceback)
    assert evalue == str(error)
    assert (evalue,) == error.args
    assert traceback.format_exception(error)
    assert lines or error._render_traceback_() == [f"{ename}: {evalue}"]


def test_a_key_error_is_not_quoted_twice():
    """str() of a KeyError quotes its argument; the worker has done that already."""
    with pytest.raises(KeyError) as caught:
        raise remote_error("KeyError", "'x'", [])

    assert "'x'" == str(caught.value)


@pytest.mark.parametrize(
    ("evalue", "expected"),
    [
        ("[Errno 2] No such file or directory: 'a: b'", (2, "No such file or directory")),
        ("[Errno 13] Permission denied: 'a' -> 'b'", (13, "Permission denied")),
        ("[Errno 28] No space left on device", (28, "No space left on device")),
        ("out of cheese", (None, None)),
        ("[Errno 99999999999999999999] x", (None, None)),
        ("", (None, None)),
    ],
)
def test_an_os_error_has_its_number_again(evalue, expected):
    """Code that asks for errno works as it would at home."""
    error = remote_error("OSError", evalue, [])

    assert isinstance(error, OSError)
    assert expected == (error.errno, error.strerror)
    assert evalue == str(error)


def test_an_exception_that_needs_other_arguments_is_caught_by_its_type():
    """UnicodeDecodeError wants five arguments, of which the wire carries the text."""
    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        raise remote_error("UnicodeDecodeError", "'utf-8' codec: invalid start byte", [])


@pytest.mark.parametrize(
    "error",
    [
        NodeStartError("no", node="a", exit_code=3, log_tail="b"),
        NodeDied("no", node="a", cause="signal", signal=11, lost=("x",)),
        NodeTimeout("no", node="a", seconds=2.5),
        CircuitOpen("no", node="a", retry_at=7.0),
        SandboxUnavailable("no", missing=("network",)),
        RepositoryError("no", command=("update-ref",), stderr="locked"),
        LedgerError("no", path="/l"),
        RequestDenied("no", request="abc", state="denied", reason="why"),
        TokenSpent("no", request="abc", state="spent"),
        remote_error("KeyError", "'x'", ["line"]),
        remote_error("FileNotFoundError", "[Errno 2] No such file or directory: 'a'", []),
        remote_error("my error", "", []),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_survive_copying_and_pickling(error, duplicate):
    """Pools and loggers move exceptions between processes."""
    twin = duplicate(error)

    assert isinstance(twin, HiveError)
    assert type(error).__name__ == type(twin).__name__
    assert (str(error), vars(error)) == (str(twin), vars(twin))


def test_a_timeout_of_a_worker_is_a_timeout():
    """``except TimeoutError`` is what people write."""
    with pytest.raises(TimeoutError, match="too slow"):
        raise NodeTimeout("too slow", node="a", seconds=1)


def test_an_authorization_error_is_a_permission_error():
    """Its text is its message, and it is about a request."""
    with pytest.raises(PermissionError, match="^not yet$") as caught:
        raise RequestDenied("not yet", request="abc", state="denied", reason="why")

    assert isinstance(caught.value, AuthorizationError)
    assert ("abc", "denied", "why") == (
        caught.value.request, caught.value.state, caught.value.reason,
    )  # fmt: skip
