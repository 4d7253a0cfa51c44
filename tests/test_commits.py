"""Asking for a commit and answering, as it is typed in a notebook; the rest is in e2e."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from hive_jupyter import commits, manager
from hive_jupyter.errors import (
    AuthorizationError,
    ConfigError,
    LedgerError,
    NodeDied,
    RepositoryError,
    RequestDenied,
    RequestExpired,
    RequestUnknown,
    Superseded,
    TokenSpent,
    TooManyRequests,
)
from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.guard.lines import Line
from hive_jupyter.guard.requests import CommitRequest, Requester
from hive_jupyter.listing import Listed, place
from hive_jupyter.manager import HiveManager
from hive_jupyter.notebook import approval, compat
from hive_jupyter.notebook.completion import HiveCompleter
from hive_jupyter.notebook.magics import HiveMagics
from hive_jupyter.notebook.tables import Table
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.showing import Showing, as_text
from tests.repos import with_a_change

# Of a file, a message and a name: what HTML, Markdown or a screen would obey.
MARKUP = "<img src=x onerror=alert(1)> [a](javascript:b) &amp; `c` \u202e\x1b[31m"


@pytest.fixture
def repo(tmp_path, monkeypatch):
    made = with_a_change(tmp_path, monkeypatch)
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def hive(repo):
    with HiveManager() as hive:
        yield hive


@pytest.fixture
def shown(shell, monkeypatch):
    """What the shell displays, by MIME type."""
    bundles = []
    monkeypatch.setattr(
        type(shell.display_pub), "publish", lambda _self, data, *a, **k: bundles.append(data)
    )
    return bundles


@pytest.fixture
def type_in(shell, hive, capsys):
    """Type a line; returns what it prints."""
    shell.register_magics(HiveMagics(shell, hive))

    def type_in(line):
        magic, _, rest = line.removeprefix("%").partition(" ")
        shell.run_line_magic(magic, rest)
        return capsys.readouterr().out

    return type_in


@pytest.fixture
def in_notebook(monkeypatch):
    monkeypatch.setattr(compat, "kernel_of", lambda _shell: object())


def asked(hive):
    (request,) = hive.requests()
    return request


# --- asking and answering ---


def test_what_was_asked_for_and_read_is_committed_at_once(type_in, shown, hive, repo):
    said = type_in("%commit -m 'Change it' -m 'Because $HOME {x}' a.py")
    request = asked(hive)

    assert said.startswith(f"Request {request.id}: commit the named files to main of {repo.folder}")
    assert f"%hive approve {request.id}" in said
    assert repo("log", "--format=%s") == "begin"

    assert type_in(f"%hive approve {request.id}") == ""
    text = shown[-1]["text/plain"]
    assert "Because $HOME {x}" in text
    assert "+a = 2" in text
    assert request.digest in text
    assert f"To approve: %hive approve {request.id} DIGEST" in text
    assert "the first 4 characters" in text

    repo.write("a.py", "a = 3\n")
    said = type_in(f"%hive approve {request.id} {request.digest[:4].upper()}")
    assert said == f"Committed {repo.head} to main of {repo.folder}.\n"
    assert repo("log", "-1", "--format=%B") == "Change it\n\nBecause $HOME {x}"
    assert repo.show("a.py") == "a = 2"
    assert repo("status", "--porcelain") == " M a.py"
    assert hive.requests() == []


def test_the_summary_and_the_marks_come_before_the_patch(type_in, shown, hive, repo):
    repo.write(".github/workflows/x.yml")
    type_in("%commit -m x a.py .github")
    type_in(f"%hive approve {asked(hive).id}")

    text = shown[-1]["text/plain"]
    places = [
        text.index(part) for part in ("message:", "Files changed: 2", "runs in CI", "diff --git")
    ]
    assert places == sorted(places)
    assert text.rindex("digest ") > text.index("diff --git")


@pytest.mark.parametrize("answer", ["y", "yes", "", "123", "zzzz"])
def test_nothing_but_the_digest_is_a_yes(type_in, hive, repo, answer):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")

    with pytest.raises(ConfigError, match="Nothing was approved"):
        type_in(f"%hive approve {request.id} '{answer}'")
    assert asked(hive).state == "pending"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "'' is too short: 4 characters of the digest are needed. Nothing"),
        ("12\u202e", "'12<U+202E>' is too short: 4 characters"),
        ("zzzz", "'zzzz' is not how the digest of request {} begins. Nothing"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(type_in, hive, repo, answer, said):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")

    with pytest.raises(ConfigError, match=re.escape(said.format(request.id))):
        type_in(f"%hive approve {request.id} '{answer}'")


def test_what_was_not_shown_here_is_shown_and_not_approved(type_in, shown, hive, repo):
    request = hive.request_commit("x", ["a.py"])

    with pytest.raises(ConfigError, match="was not shown here in full"):
        type_in(f"%hive approve {request.id} {request.digest}")
    assert "+a = 2" in shown[-1]["text/plain"]

    assert type_in(f"%hive approve {request.id} {request.digest}").startswith("Committed ")


def test_where_something_is_to_be_looked_at_more_of_the_digest_is_typed(type_in, shown, hive, repo):
    repo.write("run.sh", "#!/bin/sh\n", mode=0o755)
    type_in("%commit -m x run.sh")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")

    assert "run.sh: becomes executable" in shown[-1]["text/plain"]
    assert "the first 8 characters" in shown[-1]["text/plain"]
    said = "8 characters of the digest are needed, since something deserves a close look. Nothing"
    with pytest.raises(ConfigError, match=said):
        type_in(f"%hive approve {request.id} {request.digest[:7]}")
    assert type_in(f"%hive approve {request.id} {request.digest[:8]}").startswith("Committed ")


def test_what_was_cut_has_to_be_opened_first(type_in, shown, hive, repo):
    repo.write("long.py", "".join(f"line = {number}\n" for number in range(500)))
    type_in("%commit -m x long.py")
    request = asked(hive)

    for _ in range(2):
        type_in(f"%hive approve {request.id}")
        text = shown[-1]["text/plain"]
        assert f"before this can be approved: %hive approve {request.id} --all" in text
        assert "line = 499" not in text
        assert "DIGEST" not in text
        with pytest.raises(ConfigError, match="not shown here in full"):
            type_in(f"%hive approve {request.id} {request.digest}")

    assert type_in(f"%hive approve {request.id} {request.digest} --all") == ""
    assert "line = 499" in shown[-1]["text/plain"]
    assert type_in(f"%hive approve {request.id} {request.digest}").startswith("Committed ")


def test_a_line_without_an_end_is_cut_too(type_in, shown, hive, repo):
    repo.write("long.txt", "x" * 100_000)
    type_in("%commit -m x long.txt")
    type_in(f"%hive approve {asked(hive).id}")

    assert "lines more" in shown[-1]["text/plain"]
    assert len(shown[-1]["text/plain"]) < 50_000


def test_what_no_notebook_can_show_without_loss_is_for_a_terminal(type_in, shown, hive, repo):
    repo.write("long.txt", "x = 1\n" * 100_000)
    type_in("%commit -m x long.txt")
    request = asked(hive)

    type_in(f"%hive approve {request.id}")
    text = shown[-1]["text/plain"]
    assert f"In a terminal: jupyter hive approve {request.id}" in text
    assert "--all" not in text
    with pytest.raises(RepositoryError, match=f"jupyter hive approve {request.id}"):
        type_in(f"%hive approve {request.id} --all")
    with pytest.raises(ConfigError, match="not shown here in full"):
        type_in(f"%hive approve {request.id} {request.digest}")


def test_a_token_is_handed_out_on_demand_and_good_once(type_in, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")
    token = type_in(f"%hive approve {request.id} {request.digest[:4]} --token").strip()

    assert repo("log", "--format=%s") == "begin"
    assert asked(hive).state == "approved"
    assert hive.commit(token) == repo.head
    with pytest.raises(TokenSpent):
        hive.commit(token)


def test_nothing_is_approved_twice(type_in, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)
    hive.guard.approve(request.id)

    with pytest.raises(AuthorizationError, match="approved already"):
        type_in(f"%hive approve {request.id}")

    other = hive.request_commit("y", ["a.py"])
    type_in(f"%hive approve {other.id}")
    type_in(f"%hive approve {other.id} {other.digest}")
    with pytest.raises(TokenSpent):
        type_in(f"%hive approve {other.id} {other.digest}")


def test_where_git_fails_the_approval_is_not_lost(type_in, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)
    repo("config", "commit.gpgsign", "true")
    repo("config", "gpg.program", "/nonexistent/gpg")
    type_in(f"%hive approve {request.id}")

    with pytest.raises(RepositoryError, match="approved and not committed") as caught:
        type_in(f"%hive approve {request.id} {request.digest}")
    assert repo("log", "--format=%s") == "begin"

    repo("config", "commit.gpgsign", "false")
    assert hive.commit(str(caught.value).split('"')[1]) == repo.head


def test_whatever_fails_the_approval_is_not_lost(type_in, hive, repo, monkeypatch):
    """The token is shown, and good."""
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")
    monkeypatch.setattr(repository, "_hand_over", lambda *_: int("no number"))

    with pytest.raises(RepositoryError, match="approved and not committed") as caught:
        type_in(f"%hive approve {request.id} {request.digest}")
    monkeypatch.undo()
    monkeypatch.chdir(repo.folder)
    guard = hive.guard
    assert repository.commit(guard, str(caught.value).split('"')[1]).commit == repo.head


# --- what became of a request is never confused ---


def test_a_branch_that_moved_supersedes(type_in, shown, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")
    repo.write("b.py")
    repo("add", "b.py")
    repo("commit", "-qm", "other")

    with pytest.raises(Superseded, match="refs/heads/main moved"):
        type_in(f"%hive approve {request.id} {request.digest}")
    assert hive.requests() == []
    type_in("%hive requests --all")
    assert "superseded" in shown[-1]["text/plain"]


def test_one_request_takes_the_place_of_another_only_if_its_asker_says_so(type_in, hive, repo):
    type_in("%commit -m one a.py")
    first = asked(hive)
    type_in("%commit -m two a.py")
    assert len(hive.requests()) == 2
    type_in(f"%commit -m three --supersedes {first.id} a.py")

    assert [request.message for request in hive.requests()] == ["two", "three"]
    with pytest.raises(Superseded):
        type_in(f"%hive approve {first.id}")


def test_a_request_is_put_into_a_variable(type_in, hive, repo, shell):
    """For lines that follow; and a message stays as it stands."""
    type_in("%commit -m 'Cost {first.id} $first' -o first a.py")
    first = shell.user_ns["first"]
    assert asked(hive) == first
    assert first.message == "Cost {first.id} $first"

    type_in("%commit -m x --supersedes {first.id} --out second a.py")
    second = shell.user_ns["second"]
    assert asked(hive) == second
    assert type_in("%hive deny {second.id}") == f"Request {second.id} is denied.\n"


def test_where_nothing_was_asked_for_no_variable_is_set(type_in, hive, repo, shell):
    with pytest.raises(RequestUnknown, match="no request '{gone}'"):
        type_in("%commit -m x --supersedes {gone} -o found a.py")
    assert "found" not in shell.user_ns


def test_a_commit_supersedes_what_else_waits_for_its_branch(type_in, hive, repo):
    type_in("%commit -m one a.py")
    type_in("%commit -m two a.py")
    first, second = hive.requests()
    type_in(f"%hive approve {first.id}")
    type_in(f"%hive approve {first.id} {first.digest}")

    with pytest.raises(Superseded):
        type_in(f"%hive approve {second.id}")


def test_expired_is_not_denied(type_in, shown, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")
    hive.guard._clock = lambda: time.time() + 25 * 3600

    with pytest.raises(RequestExpired, match="Nobody denied it"):
        type_in(f"%hive approve {request.id} {request.digest}")
    type_in("%hive requests --all")
    assert shown[-1]["text/plain"].endswith(" expired")


def test_a_no_has_its_reason(type_in, shown, hive, repo):
    type_in("%commit -m x a.py")
    request = asked(hive)

    assert type_in(f"%hive deny {request.id} not now, 'please'") == (
        f"Request {request.id} is denied.\n"
    )
    with pytest.raises(RequestDenied, match="not now, please") as caught:
        type_in(f"%hive approve {request.id}")
    assert caught.value.reason == "not now, please"

    type_in("%hive requests")
    assert "Nothing waits." in shown[-1]["text/plain"]
    type_in("%hive requests --all")
    row = shown[-1]["text/plain"].splitlines()[1]
    assert "denied" in row
    assert "in the notebook, " in row
    assert row.endswith("not now, please")


def test_the_last_requests_of_all_are_listed_first(type_in, shown, hive, repo):
    made = [hive.request_commit(f"number {number}", ["a.py"]).id for number in range(3)]
    hive.guard.deny(made[1])

    type_in("%hive requests --all -n 2")
    rows = shown[-1]["text/plain"].splitlines()[1:-1]
    assert [row.split()[0] for row in rows] == [made[2], made[1]]
    type_in("%hive requests")
    rows = shown[-1]["text/plain"].splitlines()[1:-1]
    assert [row.split()[0] for row in rows] == [made[0], made[2]]


# --- what is said of it ---


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("/tmp/r4/.git", "wt of /tmp/r4"),
        ("/srv/r4.git", "wt of /srv/r4.git"),
        ("/tmp/r4/.git/worktrees/r4wt", "wt of worktree r4wt of /tmp/r4"),
        ("/tmp/r4/.git/modules/smod", "wt of submodule smod of /tmp/r4"),
        ("/tmp/r4/.git/modules/libs/x", "wt of submodule libs/x of /tmp/r4"),
        ("/tmp/r\n4/.git/modules/\u202e", "wt of submodule <U+202E> of /tmp/r<U+000A>4"),
    ],
)
def test_a_repository_is_called_as_people_call_it(repository, said):
    request = CommitRequest(
        id="abc", requester=Requester("user", "ada"), repository=repository,
        ref="refs/heads/wt", parent=None, tree="a" * 40, message="m",
    )  # fmt: skip
    assert said == place(request)


def test_how_to_go_on_is_said_where_there_is_something_to_answer(type_in, shown, hive, repo):
    first = hive.request_commit("x", ["a.py"])
    hint = "%hive approve REQUEST shows one, and asks."
    for line in ("%hive requests", "%hive requests --all"):
        type_in(line)
        assert shown[-1]["text/plain"].endswith(hint)

    hive.guard.approve(first.id)
    for line in ("%hive requests", "%hive requests --all"):
        type_in(line)
        assert first.id in shown[-1]["text/plain"]
        assert hint not in shown[-1]["text/plain"]


def test_an_approval_that_ran_out_is_told_of_as_one(type_in, shown, hive, repo):
    """The answer was a yes, and was given in time."""
    request = hive.request_commit("x", ["a.py"])
    hive.guard.approve(request.id, origin="notebook")
    hive.guard._clock = lambda: time.time() + 600
    type_in("%hive requests --all")

    when = "[0-9-]+ [0-9:]+"
    row = shown[-1]["text/plain"].splitlines()[1]
    assert re.search(f"expired  approved in the notebook, {when}, not used in time$", row)
    with contextlib.suppress(AuthorizationError):
        hive.guard.approve(request.id)  # from here on the ledger says so
    type_in("%hive requests --all")
    assert shown[-1]["text/plain"].endswith(row[row.index("expired") :])


def test_what_nobody_answered_has_no_answer(hive, repo):
    """Whether it expired or was superseded, and whoever noticed that."""
    first = hive.request_commit("x", ["a.py"])
    second = hive.request_commit("y", ["a.py"], supersedes=first.id)
    hive.guard._clock = lambda: time.time() + 10 * 24 * 3600
    with pytest.raises(RequestExpired):
        hive.guard.approve(second.id)

    for request, state in ((first, "superseded"), (second, "expired")):
        listed = Listed.of(hive.guard, hive.guard.get(request.id))
        facts = listed.facts
        assert (state, None, "") == (facts["state"], facts["answered"], facts["origin"])


def test_how_long_a_request_waits_is_its_age(type_in, shown, hive, repo):
    hive.request_commit("x", ["a.py"])
    type_in("%hive requests")

    assert shown[-1]["text/plain"].splitlines()[0].split() == [
        "request", "what", "asked", "by", "age", "state", "answer",
    ]  # fmt: skip


def test_times_and_sizes_do_not_break_in_a_notebook():
    """In a terminal columns are as wide as they have to be."""
    cells = ("179 ms", "at 2026-11-27 14:14:26, 3 x-1", "2 h 5 min", "3.5 MB", "2026-11-27 b")
    table = Table(("a", "b", "c", "d", "e"), (cells,))

    row = table._repr_markdown_().splitlines()[2].replace("\\", "").strip("| ").split(" | ")
    assert row == [
        "179\xa0ms", "at 2026\u201111\u201127\xa014:14:26, 3 x-1", "2\xa0h 5\xa0min", "3.5\xa0MB",
        "2026-11-27 b",
    ]  # fmt: skip
    assert "\xa0" not in str(table)


def test_the_history_tells_what_became_of_requests_and_tokens(type_in, shown, hive, repo):
    asker = Requester("agent", "an | editor\x1b[31m")
    first = hive.request_commit("Do it", requester=asker)
    second = hive.request_commit("Do it again")
    hive.guard.deny(first.id, "not | so", origin="terminal")
    made = hive.commit(hive.guard.approve(second.id))
    with pytest.raises(AuthorizationError):
        hive.commit("no token")
    type_in("%hive history")

    runs, ledger = (data["text/plain"] for data in shown)
    assert "Nothing was delegated yet." in runs
    lines = [line.split(maxsplit=2)[2] for line in ledger.splitlines()[1:]]
    told = [" ".join(line.split()) for line in lines]
    asked = f"commit to main of {repo.folder}"
    claims = 'an agent that claims to be "an | editor<U+001B>[31m"'
    assert told == [
        f"asked for {first.id} {claims}, {asked}: Do it",
        f"asked for {second.id} {hive.guard.get(second.id).requester}, {asked}: Do it again",
        f"denied {first.id} in the terminal, not | so",
        f"approved {second.id} from Python",
        f"token used {second.id} {made}",
        f"committed {second.id}",
        "refused TokenMalformed",
    ]
    type_in("%hive history -n 1")
    assert 2 == len(shown[-1]["text/plain"].splitlines())
    assert "\\|" in shown[1]["text/markdown"]


def test_a_death_is_kept_for_the_next_hive(type_in, shown, hive, repo, monkeypatch):
    """Also where the hive is closed at once."""
    monkeypatch.setattr(manager, "_QUIET", 3600.0)
    with HiveManager() as dying, pytest.raises(NodeDied):
        dying.delegate("import os; os._exit(3)", worker="train")
    type_in("%hive history")

    (death,) = shown[-1]["text/plain"].splitlines()[1:]
    assert "death" in death
    assert 'Worker "train" ended itself with exit code 3' in death


def test_a_ledger_that_another_holds_does_not_hold_up_the_end_of_a_hive(hive, repo, caplog):
    hive.request_commit("Do it")
    connection = sqlite3.connect(hive.guard.ledger.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with HiveManager() as dying, pytest.raises(NodeDied):
        dying.delegate("import os; os._exit(3)")
    connection.close()

    assert time.monotonic() - began < 25  # others wait for half a minute
    assert "has been locked by another program for 2 s" in caplog.text


def test_a_damaged_ledger_keeps_no_death_and_no_cell_from_running(hive, repo, tmp_path, caplog):
    hive.request_commit("Do it")
    (tmp_path / "data" / "hive" / "ledger.sqlite").write_bytes(b"no database")
    with HiveManager() as dying:
        with pytest.raises(NodeDied):
            dying.delegate("import os; os._exit(3)")
        assert "2" == dying.delegate("1 + 1").value_repr

    assert "the ledger does not tell" in caplog.text


def test_what_is_to_be_committed_is_said(type_in, hive, repo):
    assert "commit the changes of tracked files to main" in type_in("%commit -m x")
    repo("add", "a.py")
    assert "commit what is staged to main" in type_in("%commit -m x")


def test_hooks_that_are_not_run_are_named(type_in, hive, repo):
    repo.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n", mode=0o755)

    assert "Your hooks are not run: pre-commit." in type_in("%commit -m x")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%commit", "-m MESSAGE"),
        ("%commit a.py", "-m MESSAGE"),
        ("%commit -m", "expected one argument"),
        ("%commit --mesage=x", 'Did you mean "--message"'),
        ("%commit -m x -o 1x", "cannot be the name of a variable"),
        ("%hive approve", "say which request"),
        ("%hive deny", "say which request"),
        ("%hive requests -n 0", "no whole number"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_help(type_in, hive, line, message):
    with pytest.raises(UsageError, match=message):
        type_in(line)


@pytest.mark.parametrize("line", ["%hive approve nosuch", "%hive deny nosuch"])
def test_an_id_that_there_is_not_is_said(type_in, hive, line):
    with pytest.raises(RequestUnknown, match="no request 'nosuch'"):
        type_in(line)


def test_help_is_where_people_look_for_it(type_in, hive):
    assert "-m MESSAGE" in type_in("%commit -h")
    assert "--token" in type_in("%hive approve -h")


def test_tab_completes_the_ids(type_in, hive, repo, shell, tab):
    compat.add_matcher(shell, HiveCompleter(HiveMagics(shell, hive)).match)
    request = hive.request_commit("x", ["a.py"])

    assert request.id in tab("%hive approve ")
    assert request.id in tab("%hive deny ")


def test_a_working_folder_that_is_gone_is_said(type_in, hive, repo, monkeypatch):
    gone = repo.folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(RepositoryError, match="working folder does not exist"):
        type_in("%commit -m x")
    monkeypatch.undo()


def test_a_damaged_ledger_approves_nothing_and_is_told_of(type_in, hive, repo, tmp_path):
    type_in("%commit -m x a.py")
    request = asked(hive)
    type_in(f"%hive approve {request.id}")
    ledger = tmp_path / "data" / "hive" / "ledger.sqlite"
    ledger.write_bytes(b"x" * 100)

    for line in ("%hive requests", f"%hive approve {request.id} {request.digest}", "%commit -m y"):
        with pytest.raises(LedgerError, match="is damaged"):
            type_in(line)
    with HiveManager() as other:
        assert other.guard.expiry == 300
        with pytest.raises(LedgerError):
            other.requests()
    assert repo("log", "--format=%s") == "begin"


def test_the_time_of_an_approval_is_a_setting(repo):
    with HiveManager(approval_expiry="2m") as hive:
        assert hive.guard.expiry == 120
    with pytest.raises(ConfigError, match="less than 1"):
        HiveManager(approval_expiry=0)


def test_which_filters_run_is_a_setting(repo, monkeypatch):
    """It counts from the next request on."""
    repo("config", "--global", "filter.up.clean", "tr a-z A-Z")
    repo.write(".gitattributes", "a.py filter=up\n")
    monkeypatch.chdir(repo.folder)
    with HiveManager() as hive:
        with pytest.raises(RepositoryError, match="commit_filters does not name it"):
            hive.request_commit("m", ["a.py"])
        hive.config.change(commit_filters=["up"])
        request = hive.request_commit("m", ["a.py"])

    assert "+A = 2" in request.diff()


def test_nothing_is_committed_from_a_worker(repo, monkeypatch):
    monkeypatch.setenv(WORKER_VARIABLE, "coder")
    with HiveManager() as hive, pytest.raises(AuthorizationError, match="runs in a worker"):
        hive.request_commit("x")


@pytest.mark.parametrize(
    ("title", "refused"),
    [("hive: worker w", True), ("hive: supervisor of w", True), ("hive: kernel k", False)],
)
def test_ancestors_say_whether_this_is_a_worker(title, refused):
    """A kernel that the provisioner started is its user's own."""
    program = "from hive_jupyter.commits import refuse_in_worker; refuse_in_worker()"
    shell = 'exec -a "$0" /bin/bash -c \'"$@"; exit $?\' "$@"'
    # the innermost shell is called as $0 says, and keeps its name while Python runs below it
    inner = ["/bin/bash", "-c", shell, title, "sh", sys.executable, "-c", program]
    done = subprocess.run(inner, capture_output=True, text=True, check=False)

    assert ("runs in a worker" in done.stderr) is refused, done.stderr
    assert (done.returncode != 0) is refused


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def fail():
        raise KeyError

    monkeypatch.setattr(commits.getpass, "getuser", fail)
    assert commits._user().name == str(os.getuid())


# --- what others wrote stays text ---


def test_nothing_of_a_request_becomes_markup(type_in, shown, hive, repo, in_notebook):
    name = MARKUP.replace("/", "")
    repo.write(name, MARKUP)
    request = hive.request_commit(
        MARKUP, [name], requester=Requester("agent", f"<b>{MARKUP.strip(chr(27))}</b>"[:200])
    )
    type_in(f"%hive approve {request.id}")
    type_in("%hive requests")
    page, table = shown[0]["text/html"], shown[1]["text/markdown"]

    for text in (page, table, *(one["text/plain"] for one in shown)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "<U+202E>" in text.replace("&lt;", "<").replace("&gt;", ">").replace("\\", "")
    assert "<img" not in page
    assert page.count("<") == page.count("<pre") * 2 + page.count("<span") * 2
    assert "an agent that claims to be" in page
    assert "\\<img" in table
    assert "](javascript" not in table


def test_words_break_between_words_where_they_can(type_in, shown, hive, repo, in_notebook):
    """JupyterLab's own style breaks them anywhere."""
    type_in("%commit -m x a.py")
    type_in(f"%hive approve {asked(hive).id}")

    style = shown[-1]["text/html"].partition(">")[0]
    assert "word-break:normal" in style
    assert "overflow-wrap:anywhere" in style


def test_what_is_marked_by_the_message_counts(type_in, shown, hive, repo):
    type_in("%commit -m 'x\u202ey' a.py")
    type_in(f"%hive approve {asked(hive).id}")

    assert "the message: invisible or control characters" in shown[-1]["text/plain"]
    assert "the first 8 characters" in shown[-1]["text/plain"]


def test_lines_of_a_patch_have_colours_and_their_heads_are_none_of_them(hive, repo):
    repo.write("a.py", "++ b\n-- c\n@@ d\n")
    request = hive.request_commit("x", ["a.py"])
    kinds = {line.text: line.kind for line in Showing.of(request).lines}

    assert kinds["+++ b"] == kinds["+-- c"] == kinds["+@@ d"] == "added"
    assert kinds["-a = 1"] == "removed"
    assert kinds["diff --git a/a.py b/a.py"] == "head"
    assert kinds["--- a/a.py"] == kinds["+++ b/a.py"] == "plain"
    assert kinds["@@ -1 +1,3 @@"] == "hunk"


def test_colours_are_the_fronts_own(type_in, hive, repo):
    lines = [Line("added", "+a"), Line("plain", ""), Line("head", "")]

    assert as_text(lines) == "+a\n\n"
    assert as_text(lines, coloured=True) == "\033[32m+a\033[0m\n\n"


@given(
    st.lists(st.text(st.characters(exclude_characters="\n"), max_size=20), max_size=20),
    st.integers(0, 25),
    st.integers(0, 200),
)
def test_what_is_cut_is_counted(texts, most_lines, most_letters):
    showing = Showing(None, (), tuple(Line("plain", text) for text in texts), ())
    lines, left = showing.cut(most_lines, most_letters)

    assert len(lines) <= most_lines
    whole = lines[:-1] if len(lines) + left > len(texts) else lines
    assert list(showing.lines[: len(whole)]) == whole
    assert len(whole) + left == len(texts)
    assert sum(len(line.text) for line in whole) <= most_letters
    if not left:
        assert lines == list(showing.lines)


def test_loading_the_extension_does_not_load_the_guard():
    """Every kernel with the extension in its configuration would pay for it."""
    program = "import sys, hive_jupyter.notebook; print('hive_jupyter.guard' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert answer.stdout == "False\n"


# --- calls ---


@pytest.fixture
def guard(tmp_path):
    return AuthorizationGuard(tmp_path / "data" / "hive" / "ledger.sqlite")


def call(guard):
    return guard.request_call(
        tool="save_file", arguments={"path": "a"}, worker="coder", requester="an editor"
    )


def test_a_call_that_is_approved_may_go_on(type_in, shown, hive, guard):
    request = call(guard)
    type_in(f"%hive approve {request.id}")
    assert "save_file" in shown[-1]["text/plain"]
    with pytest.raises(ConfigError, match="token of a call"):
        type_in(f"%hive approve {request.id} {request.digest} --token")
    assert not guard.is_allowed(request.id)
    said = type_in(f"%hive approve {request.id} {request.digest}")

    assert said == f"Request {request.id} is approved; whoever waits for it goes on.\n"
    assert guard.is_allowed(request.id)


def test_those_that_were_given_up_do_not_count_as_waiting(hive, guard):
    requests = [call(guard) for _ in range(guard.max_pending)]
    with pytest.raises(TooManyRequests):
        call(guard)
    with pytest.raises(RequestExpired, match="who asked waits no more"):
        hive.commits.withdraw(requests[0].id)

    assert call(guard).state == "pending"
    with pytest.raises(RequestExpired):
        guard.approve(requests[0].id)


def test_a_yes_in_the_last_moment_counts(hive, guard):
    request = call(guard)
    guard.spend(guard.approve(request.id))

    hive.commits.withdraw(request.id)
    assert guard.is_allowed(request.id)


def test_approved_and_not_used_is_not_allowed_yet(hive, guard):
    request = call(guard)
    guard.approve(request.id)

    assert not guard.is_allowed(request.id)
    with pytest.raises(RequestExpired):
        hive.commits.withdraw(request.id)


# --- as tools ---


def test_the_tool_asks_for_a_commit_of_the_users_own(hive, guard):
    answer = hive.delegate_to_coder("request_commit", {"message": "Change a", "paths": ["a.py"]})
    (request,) = guard.pending()

    assert not answer.is_error
    assert {"request": request.id, "state": "pending", "files": ["a.py"]} == (
        answer.structured_content
    )
    assert f"%hive approve {request.id}" in str(answer)
    assert request.digest[:8] not in str(answer)
    assert "user" == request.requester.kind
    assert ("ok", "") == (hive.history()[-1].status, hive.history()[-1].asker)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs message"),
        ({"message": 1}, "message has to be text"),
        ({"message": "a", "paths": "a.py"}, "paths has to be a list"),
        ({"message": "a", "paths": ["gone"]}, "gone"),
        ({"message": " "}, "needs a message"),
    ],
)
def test_a_wrong_wish_for_a_commit_is_answered_with_what_is_wrong(hive, guard, arguments, said):
    answer = hive.delegate_to_coder("request_commit", arguments)

    assert answer.is_error
    assert said in str(answer)
    assert [] == guard.pending()


def test_limits_of_a_notebook_leave_room_for_both_texts():
    """A Jupyter server drops what is more than 3 MB in three seconds."""
    assert approval._MOST_LETTERS < approval._MOST_OF_ALL <= 3_000_000 / 4
