"""
Every exception of Hive.

::

    HiveError
    ├ ConfigError(ValueError)         a setting, flag or name that cannot be
    ├ NodeError                       .node
    │ ├ NodeStartError                .exit_code .log_tail
    │ ├ NodeDied                      .cause .exit_code .signal .lost
    │ ├ NodeTimeout(TimeoutError)     .seconds
    │ └ CircuitOpen                   .retry_at
    ├ RemoteError                     .ename .evalue .traceback   the user's own exception
    ├ ToolError                       a tool that cannot be called
    ├ TransferError                   a value or message that cannot be moved safely
    ├ SandboxUnavailable              .missing
    ├ RepositoryError                 .command .stderr   what git cannot do, or may not
    ├ LedgerError                     .path
    └ AuthorizationError(PermissionError)   .request .state
      ├ RequestUnknown
      ├ RequestDenied                 .reason
      ├ RequestExpired
      ├ Superseded
      ├ TooManyRequests
      ├ TokenMalformed
      ├ TokenUnknown
      ├ TokenExpired
      ├ TokenSpent
      └ TokenMismatch

A message says what happened, to which worker, and what to do next; callers read the attributes,
never the text.
"""

from __future__ import annotations

import builtins
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class HiveError(Exception):
    """Base of all errors that Hive raises itself."""


class ConfigError(HiveError, ValueError):
    """A flag, trait, name or file is wrong; the message names the nearest valid word."""


class NodeError(HiveError):
    """
    Something happened to one worker.

    Attributes:
        node: the worker's name.
    """

    def __init__(self, message: str, *, node: str) -> None:
        super().__init__(message)
        self.node = node

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class NodeStartError(NodeError):
    """
    A worker could not be started.

    Attributes:
        exit_code: of the worker's process, or None while it is unknown.
        log_tail: the last lines that the worker wrote.
    """

    def __init__(
        self, message: str, *, node: str, exit_code: int | None = None, log_tail: str = ""
    ) -> None:
        super().__init__(message, node=node)
        self.exit_code = exit_code
        self.log_tail = log_tail


class NodeDied(NodeError):
    """
    A worker ended while somebody needed it.

    Attributes:
        cause: one of "signal", "memory", "processes", "cpu_time", "exit", "killed", "protocol",
            "lost"; see ``swarm.death``.
        exit_code: of the process, None where a signal ended it.
        signal: the signal's number, None where the process exited.
        lost: names of the variables that went with it, as far as they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str,
        cause: str,
        exit_code: int | None = None,
        signal: int | None = None,
        lost: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, node=node)
        self.cause = cause
        self.exit_code = exit_code
        self.signal = signal
        self.lost = lost


class NodeTimeout(NodeError, TimeoutError):
    """
    A run reached its deadline and was stopped.

    Attributes:
        seconds: the time that it was given.
    """

    def __init__(self, message: str, *, node: str, seconds: float) -> None:
        super().__init__(message, node=node)
        self.seconds = seconds


class CircuitOpen(NodeError):
    """
    A worker failed several times in a row and rests.

    Attributes:
        retry_at: Unix time in seconds at which the next start is let through.
    """

    def __init__(self, message: str, *, node: str, retry_at: float) -> None:
        super().__init__(message, node=node)
        self.retry_at = retry_at


class RemoteError(HiveError):
    """
    The user's own exception, from the worker.

    ``remote_error`` makes it an instance of the builtin exception of the same name too, so that
    ``except ZeroDivisionError`` works.

    Attributes:
        ename: name of the exception's class in the worker.
        evalue: its text.
        traceback: its formatted lines, with ANSI colours.
    """

    def __init__(self, ename: str, evalue: str, traceback: list[str]) -> None:
        # Not super(): a builtin beside this class may want other arguments (UnicodeDecodeError).
        Exception.__init__(self, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback

    def __str__(self) -> str:
        return self.evalue

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_error, (self.ename, self.evalue, self.traceback)

    def _render_traceback_(self) -> list[str]:
        """IPython's protocol for an exception that brings its own traceback."""
        return self.traceback or [f"{self.ename}: {self.evalue}"]


class ToolError(HiveError):
    """A tool is unknown here, or the worker does not speak tools."""


class TransferError(HiveError):
    """A value or a message could not be moved, or was not what it claimed to be."""


class SandboxUnavailable(HiveError):
    """
    This machine, or this version, cannot enforce what the policy asks for.

    Attributes:
        missing: the capabilities that are not to be had.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class RepositoryError(HiveError):
    """
    Something cannot be done with this git repository.

    Attributes:
        command: the git command that failed, as a list of arguments; empty where none was run.
        stderr: what it said.
    """

    def __init__(self, message: str, *, command: tuple[str, ...] = (), stderr: str = "") -> None:
        super().__init__(message)
        self.command = command
        self.stderr = stderr


class LedgerError(HiveError):
    """
    The ledger cannot be read or written; nothing was approved or spent.

    Attributes:
        path: of the ledger's file.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class AuthorizationError(HiveError, PermissionError):
    """
    A commit or a call without a human's valid yes.

    Attributes:
        request: the id of the request that it is about; None where it is about none.
        state: that request's, such as "approved"; None where there is no such request.
    """

    def __init__(
        self, message: str, *, request: str | None = None, state: str | None = None
    ) -> None:
        super().__init__(message)
        self.request = request
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class RequestUnknown(AuthorizationError):
    """The ledger holds no request of that id."""


class RequestDenied(AuthorizationError):
    """
    A human said no.

    Attributes:
        reason: why, in the human's words; may be empty.
    """

    def __init__(
        self,
        message: str,
        *,
        request: str | None = None,
        state: str | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message, request=request, state=state)
        self.reason = reason


class RequestExpired(AuthorizationError):
    """Nobody answered the request in time, or its approval was not used in time."""


class Superseded(AuthorizationError):
    """The branch moved on, or the asker put another request in its place."""


class TooManyRequests(AuthorizationError):
    """The asker has as many unanswered requests as one may have."""


class TokenMalformed(AuthorizationError):
    """The text has not the form of a token."""


class TokenUnknown(AuthorizationError):
    """No approval in this ledger made that token."""


class TokenExpired(AuthorizationError):
    """The token was not used within its time."""


class TokenSpent(AuthorizationError):
    """The token was used before."""


class TokenMismatch(AuthorizationError):
    """The token is for another request, or for other content than was approved."""


def _rebuild(kind: type[HiveError], args: tuple[Any, ...], state: dict[str, Any]) -> HiveError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


# Raised in a coroutine, StopIteration becomes RuntimeError; IPython shows a SyntaxError its own way
# and would drop the worker's traceback.
_MISLEADING = (StopIteration, StopAsyncIteration, SyntaxError)

# How str() shows an OSError: "[Errno 2] No such file or directory: 'a.csv'".
_ERRNO = re.compile(r"\[Errno (\d{1,9})\] (.*?)(?:: ['\"b].*)?", re.DOTALL | re.ASCII)


def remote_error(ename: str, evalue: str, traceback: list[str]) -> RemoteError:
    """
    Build the exception that stands for one raised in a worker.

    Args:
        ename: name of the exception's class in the worker.
        evalue: its text.
        traceback: its formatted lines.

    Returns:
        An instance of RemoteError and, where a builtin Exception has that name and can be built
        from one string, of that builtin too. Its class is called ``ename``, so that nbclient and
        a traceback report the user's own exception.
    """
    name = ename if ename.isidentifier() else "RemoteError"
    namespace = {"__module__": __name__, "__doc__": RemoteError.__doc__}
    builtin = vars(builtins).get(ename)
    if (
        isinstance(builtin, type)
        and issubclass(builtin, Exception)
        and not issubclass(builtin, _MISLEADING)
    ):
        try:
            return _build(type(name, (RemoteError, builtin), namespace), ename, evalue, traceback)
        except TypeError:  # an ExceptionGroup is made of exceptions, which the wire does not carry
            pass
    return _build(type(name, (RemoteError,), namespace), ename, evalue, traceback)


def _build(
    kind: Callable[[str, str, list[str]], RemoteError],
    ename: str,
    evalue: str,
    traceback: list[str],
) -> RemoteError:
    error = kind(ename, evalue, traceback)
    match = _ERRNO.fullmatch(evalue) if isinstance(error, OSError) else None
    if isinstance(error, OSError) and match:
        error.errno, error.strerror = int(match[1]), match[2]
    return error
