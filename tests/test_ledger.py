"""The ledger keeps what it is given, for any number of processes, or says why it cannot."""

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
from dataclasses import replace

import pytest
from jupyter_core.paths import jupyter_data_dir

from hive_jupyter.errors import LedgerError
from hive_jupyter.guard import ledger as ledgers
from hive_jupyter.guard.ledger import Ledger, Moment
from tests import hosts

NOW = Moment(1000.0, "boot", 10.0)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "hive" / "ledger.sqlite", timeout=20)


def filled(ledger, *events):
    with ledger.writing() as entries:
        for event in events or ("requested",):
            entries.append(event, NOW, request="abc", details={"a": [1, "ä", None]})
    return ledger


def events(ledger):
    with ledger.reading() as entries:
        return [entry.event for entry in entries.latest(100)]


def test_what_is_written_is_read_by_the_next_process(ledger):
    """With all that belongs to it."""
    with ledger.writing() as entries:
        entries.append(
            "spent", NOW, request="abc", token="0" * 64, commit="1" * 40, details={"a": 1}
        )

    with Ledger(ledger.path).reading() as entries:
        (entry,) = entries.of_request("abc")

    assert (1, "spent", "abc", "1" * 40) == (
        entry.number, entry.event, entry.request, entry.commit,
    )  # fmt: skip
    assert (NOW, {"a": 1}) == (entry.at, entry.details)


def test_looking_makes_no_file(ledger):
    """A hive that commits nothing leaves nothing."""
    with ledger.reading() as entries:
        assert ([], []) == (entries.latest(5), entries.open_requests())

    assert not ledger.path.parent.exists()


def test_the_default_is_below_the_users_jupyter_data(monkeypatch, tmp_path):
    """And follows its variable."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))

    assert os.path.join(jupyter_data_dir(), "hive", "ledger.sqlite") == str(Ledger().path)
    assert Ledger().path.is_relative_to(tmp_path)


def test_nobody_else_can_read_it_whatever_the_umask_is(ledger):
    """The journal beside it included."""
    modes = {}
    before = os.umask(0)
    try:
        with ledger.writing() as entries:
            entries.append("requested", NOW, request="abc")
            for path in (ledger.path.parent, *ledger.path.parent.iterdir()):
                modes[path.name] = stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)

    assert {"hive": 0o700, "ledger.sqlite": 0o600, "ledger.sqlite-journal": 0o600} == modes


@pytest.mark.parametrize(
    "statement",
    ["UPDATE entries SET event = 'denied'", "DELETE FROM entries", "DELETE FROM entries WHERE 1=1"],
)
def test_entries_are_never_changed_nor_deleted(ledger, statement):
    """The file itself forbids it."""
    filled(ledger)
    connection = sqlite3.connect(ledger.path)

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)

    connection.close()
    assert ["requested"] == events(ledger)


@pytest.mark.parametrize(
    "values",
    [
        {"number": 1, "event": "note"},
        {"event": "requested"},
        {"event": "approved"},
        {"event": "approved", "request": "other"},
        {"event": "spent"},
    ],
)
def test_no_entry_takes_the_place_of_another(ledger, values):
    """REPLACE deletes what is in its way, and asks no trigger for that."""
    filled(ledger)
    with ledger.writing() as entries:
        for event in ("approved", "spent"):
            entries.append(event, NOW, request="abc", token="0" * 64)
    row = {"request": "abc", "token": "0" * 64, "time": 0, "boot": "", "uptime": 0, "details": "{}"}
    row |= values
    names, places = ", ".join(row), ", ".join("?" * len(row))
    connection = sqlite3.connect(ledger.path)

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(f"REPLACE INTO entries ({names}) VALUES ({places})", tuple(row.values()))

    connection.close()
    assert ["spent", "approved", "requested"] == events(ledger)


def test_what_is_written_is_on_the_disk_with_the_name_of_its_journal(ledger):
    """After a power cut a spent token must not come back."""
    with ledger.writing() as entries:
        assert (3,) == entries._connection.execute("PRAGMA synchronous").fetchone()


@pytest.mark.parametrize("event", ["requested", "approved", "spent"])
def test_what_can_happen_once_is_written_once(ledger, event):
    """Whoever comes second is told."""
    with ledger.writing() as entries:
        assert entries.append(event, NOW, request="abc", token="0" * 64)
        assert not entries.append(event, NOW, request="abc", token="1" * 64)
        assert entries.append(event, NOW, request="xyz", token="2" * 64)


def test_an_exception_undoes_what_was_written_before_it(ledger):
    """Half an answer is none."""
    filled(ledger)

    with contextlib.suppress(KeyError), ledger.writing() as entries:
        assert entries.append("approved", NOW, request="abc")
        raise KeyError

    assert ["requested"] == events(ledger)


def test_a_reader_sees_one_moment(ledger):
    """What others write meanwhile does not come in between two looks."""
    filled(ledger)
    with ledger.reading() as entries:
        entries.latest(1)
        with pytest.raises(LedgerError, match="locked"):
            filled(Ledger(ledger.path, timeout=0), "denied")

        assert 1 == len(entries.latest(5))


def test_many_threads_write_and_nothing_is_lost(ledger):
    """Each waits for the others."""
    threads = [
        threading.Thread(target=lambda: [filled(ledger, "note") for _ in range(5)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with ledger.reading() as entries:
        assert list(range(40, 0, -1)) == [entry.number for entry in entries.latest(100)]


def test_a_fork_of_a_user_does_not_share_a_handle(ledger):
    """There is none between two calls: SQLite's locks do not survive a fork."""
    filled(ledger)
    open_files = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{fd}")}  # fmt: skip

    assert not any(str(ledger.path.parent) in path for path in open_files)


# --- files that are no good ---


@pytest.mark.parametrize(
    "content", [b"not a database at all, " * 100, b"SQLite format 3\0" + b"x" * 4000]
)
def test_a_damaged_file_is_told_from_an_empty_one(ledger, content):
    """And stays as it is."""
    filled(ledger)
    ledger.path.write_bytes(content)

    for use in (ledger.reading, ledger.writing):
        with (
            pytest.raises(LedgerError, match="is damaged. Move it away") as caught,
            use() as entries,
        ):
            entries.latest(1)
        assert str(ledger.path) == caught.value.path
    assert content == ledger.path.read_bytes()


def test_damage_in_an_index_is_found_by_a_check(ledger):
    """A lost index entry could let a token be spent twice."""
    filled(ledger)
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = 'spent_once'")
    connection.commit()
    connection.close()

    with pytest.raises(LedgerError, match="damaged"), ledger.reading() as entries:
        entries.check()


def test_details_that_are_no_json_are_damage(ledger):
    """Somebody else wrote them."""
    filled(ledger)
    connection = sqlite3.connect(ledger.path)
    connection.execute(
        "INSERT INTO entries (event, request, time, boot, uptime, details)"
        " VALUES ('denied', 'abc', 0, '', 0, '{')"
    )
    connection.commit()
    connection.close()

    with pytest.raises(LedgerError, match="damaged"), ledger.reading() as entries:
        entries.of_request("abc")


def test_a_file_cut_short_to_nothing_is_begun_anew(ledger):
    """As after a crash right after it was made."""
    ledger.path.parent.mkdir()
    ledger.path.touch()

    assert ["requested"] == events(filled(ledger))


def test_a_newer_files_entries_are_left_alone(ledger):
    """Its version says that there is more to know about it than is known here."""
    filled(ledger)
    connection = sqlite3.connect(ledger.path)
    connection.execute(f"PRAGMA user_version = {len(ledgers.MIGRATIONS) + 1}")
    connection.commit()
    connection.close()

    with pytest.raises(LedgerError, match="newer version of Hive"), ledger.reading():
        pass


def test_another_programs_database_is_left_alone(ledger):
    """Whatever its tables are called."""
    ledger.path.parent.mkdir()
    connection = sqlite3.connect(ledger.path)
    connection.execute("CREATE TABLE entries (number)")
    connection.commit()
    connection.close()
    before = ledger.path.read_bytes()

    with pytest.raises(LedgerError, match="another program"), ledger.writing():
        pass
    assert before == ledger.path.read_bytes()


def test_an_older_file_is_brought_up_to_date_with_its_entries(ledger, monkeypatch):
    """Each migration that it has not seen runs once, in order."""
    filled(ledger)
    more = (
        "ALTER TABLE entries ADD COLUMN colour TEXT",
        "CREATE INDEX by_colour ON entries (colour)",
    )
    monkeypatch.setattr(ledgers, "MIGRATIONS", (*ledgers.MIGRATIONS, more))

    assert ["requested"] == events(ledger)
    assert ["denied", "requested"] == events(filled(ledger, "denied"))
    connection = sqlite3.connect(ledger.path)
    assert (len(ledgers.MIGRATIONS),) == connection.execute("PRAGMA user_version").fetchone()
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(ledger, monkeypatch):
    """All of it, or nothing."""
    filled(ledger)
    broken = ("ALTER TABLE entries ADD COLUMN colour TEXT", "nonsense")
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "MIGRATIONS", (*ledgers.MIGRATIONS, broken))
        with pytest.raises(LedgerError), ledger.reading():
            pass

    assert ["requested"] == events(ledger)


def test_a_file_that_another_holds_is_told_after_a_while(ledger):
    """The wait is bounded."""
    filled(ledger)
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    impatient = Ledger(ledger.path, timeout=0.01)

    for use in (impatient.reading, impatient.writing):
        with pytest.raises(LedgerError, match="locked by another program for 10 ms"), use():
            pass
    holder.execute("ROLLBACK")
    holder.close()
    assert ["requested"] == events(impatient)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """A file is in its place."""
    (tmp_path / "hive").write_text("")

    with (
        pytest.raises(LedgerError, match="cannot be opened"),
        Ledger(tmp_path / "hive" / "l").writing(),
    ):
        pass


def test_a_folder_in_place_of_the_file_is_told(tmp_path):
    """And is not removed."""
    (tmp_path / "l").mkdir()

    with pytest.raises(LedgerError, match="cannot be opened"), Ledger(tmp_path / "l").writing():
        pass


FULL = """
import subprocess, sys
from hive_jupyter.errors import LedgerError
from hive_jupyter.guard.ledger import Ledger, Moment
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True)
ledger, now = Ledger(folder + "/ledger.sqlite"), Moment(0, "", 0)

def written():
    with ledger.writing() as entries:
        entries.append("note", now, details={"text": "x" * 3000})

def said(number=0):
    try:
        while True:
            written()
            number += 1
    except LedgerError as error:
        return number, str(error)

def count():
    with ledger.reading() as entries:
        return len(entries.latest(1000)), entries.check()

print(*said())
print(*count())
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
print(*said())
print(*count())
"""


def test_a_full_disk_and_a_read_only_one_are_told_and_what_was_written_is_read(tmp_path):
    """Both on a file system of the test's own."""
    out = hosts.play(FULL, tmp_path, before=hosts.own_mounts_or(pytest.skip))
    full, read, read_only, again = out.splitlines()

    number, _, said = full.partition(" ")
    assert "the disk is full" in said
    assert int(number) > 3
    assert f"{number} None" == read == again
    assert read_only.startswith("0 ")
    assert "cannot be written" in read_only


def test_a_crash_in_the_middle_of_writing_is_undone_by_the_next_reader(ledger):
    """The journal that it leaves is of no harm."""
    filled(ledger)
    copy = Ledger(ledger.path.parent.parent / "copy" / "ledger.sqlite")
    with ledger.writing() as entries:
        for number in range(2000):  # more than its memory holds, so that the file is written to
            entries.append("note", NOW, details={"text": "x" * 3000, "number": number})
        shutil.copytree(ledger.path.parent, copy.path.parent)

    assert (copy.path.parent / "ledger.sqlite-journal").stat().st_size
    assert ["requested"] == events(copy)
    assert 2001 == _count(ledger)


def _count(ledger):
    with ledger.reading() as entries:
        return len(entries.latest(5000))


# --- time ---


@pytest.mark.parametrize(
    ("later", "seconds"),
    [
        ({"time": 1060.0, "uptime": 70.0}, 60),
        ({"time": 1000.0, "uptime": 70.0}, 60),  # somebody set the clock back
        ({"time": 900.0, "uptime": 11.0}, 1),
        ({"time": 5000.0, "uptime": 11.0}, 4000),  # or forward
        ({"time": 1060.0, "boot": "another", "uptime": 1.0}, 60),
        ({"time": 999.0, "boot": "another", "uptime": 1.0}, float("inf")),
        ({"time": 1060.0, "uptime": 9.0}, float("inf")),  # no machine does that
        ({"time": 1060.0, "boot": "", "uptime": 9000.0}, 60),
    ],
)
def test_the_clock_that_says_more_is_believed(later, seconds):
    """After a restart, or on another machine, there is only the one on the wall."""
    assert seconds == replace(NOW, **later).since(NOW)


def test_where_the_system_names_no_start_the_wall_decides():
    """Two unknown starts are not the same."""
    unknown = Moment(1000.0, "", 10.0)

    assert 60 == replace(unknown, time=1060.0, uptime=5000.0).since(unknown)
    assert float("inf") == replace(unknown, time=999.0).since(unknown)
