"""
The append-only record of requests, approvals, tokens spent, and whatever else is worth keeping.

One SQLite file, and one table of entries; what state a request is in follows from its entries. Two
triggers forbid changing or deleting one. Every call opens the file anew: there is no handle that
threads would have to share or that a fork would carry along.

The journal is SQLite's rollback journal and not WAL: that needs shared memory, which a home folder
on a network does not give two machines. Entries are few and short.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

from hive_jupyter.errors import LedgerError
from hive_jupyter.units import format_duration

_APPLICATION = 0x48495645  # "HIVE": how SQLite's header tells whose file this is

# What ends a request. A request is open until one of these.
_ENDS = "('denied', 'expired', 'superseded', 'spent', 'committed', 'void')"
_OUTCOMES = "('superseded', 'committed', 'void')"

# Never change one that was released: append another. The file's user_version counts them.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE entries (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            event TEXT NOT NULL,
            request TEXT,
            token TEXT,
            commit_hash TEXT,
            time REAL NOT NULL,
            boot TEXT NOT NULL,
            uptime REAL NOT NULL,
            details TEXT NOT NULL
        )
        """,
        "CREATE INDEX entries_of_a_request ON entries (request, number)",
        "CREATE UNIQUE INDEX an_id_once ON entries (request) WHERE event = 'requested'",
        "CREATE UNIQUE INDEX approved_once ON entries (request) WHERE event = 'approved'",
        "CREATE UNIQUE INDEX a_token_once ON entries (token) WHERE event = 'approved'",
        "CREATE UNIQUE INDEX spent_once ON entries (request) WHERE event = 'spent'",
        """
        CREATE TRIGGER nothing_changes BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
        """
        CREATE TRIGGER nothing_goes BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
    ),
    (
        # REPLACE deletes what is in its way without a trigger's being asked
        """
        CREATE TRIGGER nothing_is_replaced BEFORE INSERT ON entries WHEN EXISTS (
            SELECT 1 FROM entries WHERE number = NEW.number
            OR (event = NEW.event AND request = NEW.request
                AND event IN ('requested', 'approved', 'spent'))
            OR (event = NEW.event AND token = NEW.token AND event = 'approved')
        )
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
    ),
)

# The trigger says so first, and without it the constraint would.
_THERE_ALREADY = ("SQLITE_CONSTRAINT_TRIGGER", "SQLITE_CONSTRAINT_UNIQUE")

_COLUMNS = "number, event, request, commit_hash, time, boot, uptime, details"

_ADVICE = {
    "SQLITE_BUSY": "has been locked by another program for {timeout}. Try again; if that lasts, "
    "look for a program that holds it.",
    "SQLITE_LOCKED": "is locked. Try again.",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space and try again.",
    "SQLITE_READONLY": "cannot be written. Make it and its folder writable for you, or set another "
    "JUPYTER_DATA_DIR.",
    "SQLITE_CANTOPEN": "cannot be opened. Make it and its folder readable and writable for you, or "
    "set another JUPYTER_DATA_DIR.",
    "SQLITE_PERM": "cannot be opened. Make it readable and writable for you.",
    "SQLITE_CORRUPT": "is damaged. Move it away, and a new one is begun; requests that wait in it "
    "have to be made again. Your commits are in git and safe.",
    "SQLITE_IOERR": "cannot be read or written: the disk or the network says no.",
}
_ADVICE["SQLITE_NOTADB"] = _ADVICE["SQLITE_CORRUPT"]


@dataclass(frozen=True)
class Moment:
    """
    A point in time, by two clocks.

    Attributes:
        time: Unix time in seconds; somebody may set this clock.
        boot: which start of which machine ``uptime`` counts from; "" where that is unknown.
        uptime: seconds since then, with the time that the machine slept.
    """

    time: float
    boot: str
    uptime: float

    def since(self, earlier: Moment) -> float:
        """Seconds by the clock that says more; infinite where no clock can be believed."""
        by_wall = self.time - earlier.time
        if not self.boot or self.boot != earlier.boot:
            return by_wall if by_wall >= 0 else math.inf
        by_uptime = self.uptime - earlier.uptime
        return max(by_wall, by_uptime) if by_uptime >= 0 else math.inf


@dataclass(frozen=True)
class Entry:
    """
    One line of the ledger.

    Attributes:
        number: counts up; never used twice.
        event: such as "requested", "approved", "denied", "spent", "refused".
        request: the id of the request that it belongs to, if any.
        commit: the hash of the commit that a token was spent for, if any.
        at: when.
        details: what else there is to say, as JSON can hold it.
    """

    number: int
    event: str
    request: str | None
    commit: str | None
    at: Moment
    details: Mapping[str, Any]


class Entries:
    """The ledger's entries within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(
        self,
        event: str,
        at: Moment,
        *,
        request: str | None = None,
        token: str | None = None,
        commit: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> bool:
        """
        Write an entry.

        Args:
            event: what happened.
            at: when.
            request: the id of the request that it belongs to.
            token: the hash of a token, never the token.
            commit: a commit's hash.
            details: what else there is to say, as JSON can hold it.

        Returns:
            False where there can be only one such entry, and there is one already.
        """
        try:
            self._connection.execute(
                "INSERT INTO entries"
                " (event, request, token, commit_hash, time, boot, uptime, details)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event,
                    request,
                    token,
                    commit,
                    at.time,
                    at.boot,
                    at.uptime,
                    json.dumps(details or {}, sort_keys=True, allow_nan=False),
                ),
            )
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname not in _THERE_ALREADY:
                raise
            return False
        return True

    def of_request(self, request: str) -> list[Entry]:
        """All entries of a request, oldest first."""
        return self._select("WHERE request = ? ORDER BY number", request)

    def approval(self, token: str) -> Entry | None:
        """The approval that made the token of this hash."""
        found = self._select("WHERE token = ? AND event = 'approved'", token)
        return found[0] if found else None

    def open_requests(self) -> list[str]:
        """The ids of requests that nothing has ended, oldest first; some may be out of time."""
        return self._ids(
            "SELECT request FROM entries AS asked"  # noqa: S608 - a constant of ours
            " WHERE event = 'requested' AND NOT EXISTS"
            " (SELECT 1 FROM entries AS later WHERE later.request = asked.request"
            f"  AND later.event IN {_ENDS}) ORDER BY number"
        )

    def interrupted_requests(self) -> list[str]:
        """The ids of requests whose token was spent for a commit, and whose outcome is open."""
        return self._ids(
            "SELECT request FROM entries AS spent WHERE event = 'spent'"  # noqa: S608 - likewise
            " AND commit_hash IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM entries AS later WHERE later.request = spent.request"
            f"  AND later.event IN {_OUTCOMES}) ORDER BY number"
        )

    def latest(self, limit: int) -> list[Entry]:
        """The last entries, newest first."""
        return self._select("ORDER BY number DESC LIMIT ?", limit)

    def latest_requests(self, limit: int) -> list[str]:
        """The ids of the requests that were made last, newest first."""
        return self._ids(
            "SELECT request FROM entries WHERE event = 'requested' ORDER BY number DESC LIMIT ?",
            limit,
        )

    def check(self) -> None:
        """Read the whole file; damage raises, so that no approval rests on half of the entries."""
        (said,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise _Damaged(said)

    def _ids(self, query: str, *values: object) -> list[str]:
        return [request for (request,) in self._connection.execute(query, values)]

    def _select(self, rest: str, *values: object) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM entries {rest}"  # noqa: S608 - constants of ours
        return [
            Entry(number, event, request, commit, Moment(when, boot, uptime), json.loads(details))
            for number, event, request, commit, when, boot, uptime, details in (
                self._connection.execute(query, values)
            )
        ]


class _Damaged(Exception):
    """The file is SQLite's, and its content is not what the ledger wrote."""


class Ledger:
    """
    The ledger's file.

    Nothing is opened or made before it is needed. Any number of threads and processes may use one
    file at once; a writer waits for the others.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, timeout: float = 30.0) -> None:
        """
        Name a ledger.

        Args:
            path: the file; by default ``hive/ledger.sqlite`` below the user's Jupyter data folder.
            timeout: seconds to wait for others that write.
        """
        self.path = Path(path or Path(jupyter_data_dir(), "hive", "ledger.sqlite")).absolute()
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Ledger {self.path}>"

    @contextlib.contextmanager
    def reading(self) -> Iterator[Entries]:
        """
        Entries to look at, all of one moment; none where there is no file yet.

        Raises:
            LedgerError: the file cannot be read, is damaged, or belongs to something else.
        """
        with self._explaining(), self._connected() as connection:
            connection.execute("BEGIN")
            # The moment is that of the first look, not of BEGIN: a clock that is read before it
            # would be behind an entry that comes in between.
            connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone()
            try:
                yield Entries(connection)
            finally:
                _rollback(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Entries]:
        """
        Entries to look at and to add to, with all other writers held off; an exception undoes all.

        Raises:
            LedgerError: as for ``reading``, or the file cannot be written.
        """
        with self._explaining():
            self._make()
            with self._connected() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield Entries(connection)
                    connection.execute("COMMIT")
                finally:
                    _rollback(connection)

    def _make(self) -> None:
        # Not by umask, which is the whole process's: SQLite gives its journal the file's mode.
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise self._error(_ADVICE["SQLITE_CANTOPEN"], error) from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.as_uri()}?mode=rw" if os.path.lexists(self.path) else ":memory:"
        connection = sqlite3.connect(
            address, timeout=self._timeout, isolation_level=None, uri=address != ":memory:"
        )
        try:
            # Also the folder is synced: after a power cut a spent token must not come back.
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA trusted_schema = OFF")
            self._migrate(connection)
            yield connection
        finally:
            connection.close()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        try:
            if self._version(connection) == len(MIGRATIONS):
                return
        finally:
            _rollback(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statements in MIGRATIONS[self._version(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        finally:
            _rollback(connection)

    def _version(self, connection: sqlite3.Connection) -> int:
        """How many migrations the file has seen; to be asked in a transaction, of one moment."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (version or tables) and application != _APPLICATION:
            raise self._error("is a database of another program. Name another file.")
        if version > len(MIGRATIONS):
            raise self._error(
                "was written by a newer version of Hive. Update Hive here: pip install -U "
                "hive-jupyter"
            )
        return int(version)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            for code, advice in _ADVICE.items():
                if name.startswith(code):
                    said = advice.format(timeout=format_duration(self._timeout))
                    raise self._error(said, error) from error
            raise self._error("cannot be used", error) from error
        except (_Damaged, json.JSONDecodeError) as error:
            raise self._error(_ADVICE["SQLITE_CORRUPT"], error) from error

    def _error(self, advice: str, error: Exception | None = None) -> LedgerError:
        said = f" ({error})" if error is not None else ""
        msg = f"The ledger {self.path} {advice}{said} Nothing was approved or committed."
        return LedgerError(msg, path=str(self.path))


def _rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
