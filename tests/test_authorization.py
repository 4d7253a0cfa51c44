"""Nothing happens without a human's yes, and nothing happens twice."""

import contextlib
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from hive_jupyter.errors import (
    AuthorizationError,
    ConfigError,
    HiveError,
    LedgerError,
    RequestDenied,
    RequestExpired,
    RequestUnknown,
    Superseded,
    TokenExpired,
    TokenMalformed,
    TokenMismatch,
    TokenSpent,
    TokenUnknown,
    TooManyRequests,
)
from hive_jupyter.guard import authorization
from hive_jupyter.guard.authorization import AuthorizationGuard, boot_clock, boot_id
from hive_jupyter.guard.requests import CallRequest, CommitRequest, Requester
from tests import hosts

EXPIRY = 300
PATIENCE = 24 * 3600
USER = Requester("user", "ada")
AGENT = Requester("agent", "claude")
COMMIT = {
    "repository": "/home/ada/project/.git",
    "ref": "refs/heads/main",
    "parent": "a" * 40,
    "tree": "b" * 40,
    "message": "Mend the fence",
    "requester": USER,
}


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock(1_800_000_000.0)


@pytest.fixture
def uptime():
    return Clock(5000.0)


@pytest.fixture
def guard(tmp_path, clock, uptime):
    return AuthorizationGuard(tmp_path / "ledger.sqlite", clock, uptime)


def ask(guard, **changes):
    return guard.request(**{**COMMIT, **changes})


def call(guard, **changes):
    asked = {"tool": "run_code", "arguments": {"code": "1"}, "worker": "coder", "requester": AGENT}
    return guard.request_call(**{**asked, **changes})


def told(guard, request=None):
    """Events, oldest first."""
    return [entry.event for entry in guard.history(request=request)][::-1]


# --- the plain way ---


def test_a_request_is_approved_and_its_token_is_good_once(guard):
    """The public contract."""
    request = ask(guard)
    assert ("pending", [request]) == (request.state, guard.pending())

    token = guard.approve(request.id)
    assert ("approved", []) == (guard.get(request.id).state, guard.pending())
    spent = guard.spend(token)

    assert replace(request, state="spent") == spent == guard.get(request.id)
    for _ in range(2):
        with pytest.raises(TokenSpent) as caught:
            guard.spend(token)
        assert (request.id, "spent") == (caught.value.request, caught.value.state)
    assert ["requested", "approved", "spent", "refused", "refused"] == told(guard, request.id)


def test_the_contract_needs_no_clock_and_a_requester_may_be_a_name(tmp_path):
    """Which is a claim, then."""
    guard = AuthorizationGuard(str(tmp_path / "ledger.sqlite"))

    request = ask(guard, requester="claude")

    assert 'an agent that claims to be "claude"' == str(request.requester)
    assert request.id == guard.spend(guard.approve(request.id)).id


def test_a_request_survives_its_process(guard, tmp_path, clock, uptime):
    """A terminal approves what a notebook asked."""
    request, other = (
        ask(guard, parent=None),
        AuthorizationGuard(tmp_path / "ledger.sqlite", clock, uptime),
    )

    assert [request] == other.pending()
    token = other.approve(request.id, origin="terminal")
    assert "spent" == guard.spend(token).state
    assert "terminal" == guard.history(request=request.id)[1].details["origin"]


def test_the_ledger_holds_no_token(guard, tmp_path):
    """Its hash, which nobody turns around."""
    request = ask(guard)
    token = guard.approve(request.id)

    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    content = (tmp_path / "ledger.sqlite").read_bytes()
    assert token.encode() not in content
    assert hashlib.sha256(token.encode()).hexdigest().encode() in content
    assert all(token not in repr(entry) for entry in guard.history())


def test_ids_can_be_typed_and_are_taken_as_they_are_typed(guard):
    """In capitals, and with a space behind."""
    ids = [ask(guard, requester=Requester("worker", f"w{number}")).id for number in range(40)]

    assert 40 == len(set(ids))
    assert all(re.fullmatch("[2-9b-df-hjkmnp-tv-z]{6}", one) for one in ids)
    assert ids[0] == guard.get(f" {ids[0].upper()} ").id


# --- the digest ---


def test_the_digest_covers_all_that_is_asked(guard):
    """And not what becomes of it."""
    request = ask(guard)
    values = {
        **COMMIT,
        "author": "A <a@b> 1 +0000",
        "committer": "B <b@c> 2 +0000",
        "private": "/p",
    }
    request = guard.request(**values)
    changed = [
        replace(request, **{name: "other"})
        for name in ("id", "repository", "ref", "parent", "tree", "message", "author", "committer",
                     "private")
    ]  # fmt: skip
    changed += [
        replace(request, requester=AGENT),
        replace(request, requester=Requester("user", "bob")),
        replace(request, parent=None),
        replace(request, time=request.time + 1),
    ]

    assert len(changed) + 1 == len({one.digest for one in (request, *changed)})
    assert request.digest == replace(request, state="spent", commit="c" * 40).digest
    assert request.digest == guard.get(request.id).digest
    assert re.fullmatch("[0-9a-f]{64}", request.digest)


def test_what_no_hook_was_skipped_for_has_the_digest_that_it_always_had(guard):
    """Ledgers hold requests of before there was such a thing."""
    assert not {"skipped_hooks", "passed_hooks", "asked_message"} & set(ask(guard).content)
    one, other = ask(guard), replace(ask(guard), skipped_hooks=("pre-commit",))

    assert other.digest != replace(other, skipped_hooks=()).digest
    assert one.skipped_hooks == ()


def test_a_commit_and_a_call_never_have_the_same_digest(guard):
    """The kind is in it."""
    asked = call(guard)

    assert '"kind":"call"' in json.dumps(asked.content, separators=(",", ":"))
    assert "commit" == ask(guard).content["kind"]


def test_what_a_request_covers_is_to_be_read(guard):
    """Every value of it, and no line of it can pass for another."""
    message = "Title\n\ntree       " + "c" * 40 + "\n\u202egnp.exe\x1b[2K"
    request = ask(guard, message=message, requester=Requester("agent", "x\ntree  0"))

    lines = request.text().split("\n")

    assert all(any(str(value) in line for line in lines) for value in (
        request.repository, request.ref, request.parent, request.tree, request.digest))  # fmt: skip
    assert ["tree       " + "b" * 40] == [line for line in lines if line.startswith("tree")]
    assert "  | tree       " + "c" * 40 in lines
    assert "  | <U+202E>gnp.exe<U+001B>[2K" in lines
    assert 'claims to be "x<U+000A>tree  0"' in request.text()


# --- no ---


@pytest.mark.parametrize(
    ("ident", "shown"),
    [
        ("Ada <a@b> 1795786787 +0000", "Ada <a@b> 2026-11-27 13:39:47 +0000"),
        ("Ada <a@b> 1795786787 -0330", "Ada <a@b> 2026-11-27 10:09:47 -0330"),
        ("Ada <a@b> 1795786787 +9999", "Ada <a@b> 1795786787 +9999"),
        ("Ada <a@b> 999999999999 +0000", "Ada <a@b> 999999999999 +0000"),
        ("Ada 1 +0000", "Ada 1 +0000"),
        ("A <x> 1 +0000\n <a@b> 0 +0000", "A <x> 1 +0000<U+000A> <a@b> 1970-01-01 00:00:00 +0000"),
        (None, "as git's configuration says"),
    ],
)
def test_people_are_shown_with_a_time_that_people_read(guard, ident, shown):
    assert f"author     {shown}\n" in ask(guard, author=ident).text()


def test_a_denied_request_says_so_with_its_reason_and_is_not_approved_any_more(guard):
    """To the one who asked, and to the one who changes their mind."""
    request = ask(guard)

    assert "denied" == guard.deny(request.id, "not on a Friday\x1b").state

    for answer in (guard.approve, guard.deny):
        with pytest.raises(RequestDenied, match="not on a Friday<U\\+001B>") as caught:
            answer(request.id)
        assert "not on a Friday\x1b" == caught.value.reason
    assert ([], "denied") == (guard.pending(), guard.get(request.id).state)


def test_an_approval_is_taken_back_by_denying(guard):
    """Until it is used."""
    request = ask(guard)
    token = guard.approve(request.id)

    guard.deny(request.id)

    with pytest.raises(RequestDenied):
        guard.spend(token)


def test_what_was_spent_is_not_denied_any_more(guard):
    """It is too late, and that is said."""
    request = ask(guard)
    guard.spend(guard.approve(request.id))

    for answer in (guard.approve, guard.deny):
        with pytest.raises(TokenSpent):
            answer(request.id)


def test_a_request_is_approved_once(guard):
    """There is one token for it, ever."""
    request = ask(guard)
    guard.approve(request.id)

    with pytest.raises(AuthorizationError, match="approved already") as caught:
        guard.approve(request.id)

    assert (AuthorizationError, "approved") == (type(caught.value), caught.value.state)


def test_an_unknown_request_is_told(guard):
    """Also before there is a ledger, and whatever was typed."""
    for answer in (guard.get, guard.approve, guard.deny):
        with pytest.raises(RequestUnknown, match="no request 'no<U\\+001B>pe'"):
            answer("no\x1bpe")


# --- time ---


@pytest.mark.parametrize("which", ["clock", "uptime"])
def test_a_token_is_good_for_five_minutes_by_either_clock(guard, which, request):
    """Up to the last moment, and not in the next: neither sleeping nor turning clocks helps."""
    turned = request.getfixturevalue(which)
    first, second = ask(guard), ask(guard)
    tokens = [guard.approve(first.id), guard.approve(second.id)]

    turned.now += EXPIRY - 0.001
    assert "spent" == guard.spend(tokens[0]).state
    turned.now += 0.001
    with pytest.raises(TokenExpired, match="within 5 min. It expired; nobody denied it") as caught:
        guard.spend(tokens[1])

    assert (second.id, "expired") == (caught.value.request, caught.value.state)
    assert "expired" == guard.get(second.id).state


def test_what_expired_stays_so_when_a_clock_goes_back(guard, clock, uptime):
    """Once somebody has noticed."""
    request = ask(guard)
    token = guard.approve(request.id)
    clock.now += EXPIRY
    with pytest.raises(TokenExpired):
        guard.check(token)

    clock.now -= EXPIRY

    with pytest.raises(TokenExpired):
        guard.spend(token)
    with pytest.raises(RequestExpired):
        guard.approve(request.id)
    assert ["expired"] == [event for event in told(guard, request.id) if event == "expired"]


def test_a_clock_that_is_set_back_does_not_prolong_an_approval(guard, clock, uptime):
    """The one that nobody sets goes on."""
    token = guard.approve(ask(guard).id)
    clock.now -= 10_000
    uptime.now += EXPIRY

    with pytest.raises(TokenExpired):
        guard.spend(token)


def test_after_a_restart_the_wall_decides_and_going_back_ends_it(guard, clock, uptime):
    """A clock without a battery starts in the past."""
    tokens = [guard.approve(ask(guard).id) for _ in range(2)]
    guard._boot = "after a restart"
    uptime.now = 3.0
    clock.now += 60
    assert "spent" == guard.spend(tokens[0]).state
    clock.now -= 61

    with pytest.raises(TokenExpired):
        guard.spend(tokens[1])


def test_the_expiry_is_that_of_the_approval(guard, tmp_path, clock, uptime):
    """Whoever spends it may have another setting."""
    short = AuthorizationGuard(tmp_path / "ledger.sqlite", clock, uptime, expiry=10)
    token = short.approve(ask(guard).id)
    clock.now += 10

    with pytest.raises(TokenExpired, match="within 10 s"):
        guard.spend(token)


def test_a_request_that_nobody_answers_expires_and_is_not_called_denied(guard, clock):
    """After a day."""
    request = ask(guard)
    clock.now += PATIENCE - 1
    assert "pending" == guard.get(request.id).state
    clock.now += 1

    assert ("expired", []) == (guard.get(request.id).state, guard.pending())
    for answer in (guard.approve, guard.deny):
        with pytest.raises(RequestExpired, match="Nobody denied it"):
            answer(request.id)
    assert ["requested", "expired"] == told(guard, request.id)


def test_a_clock_that_tells_no_time_approves_nothing(guard, clock):
    """Not a number is not early enough; and neither can it be written down."""
    token = guard.approve(ask(guard).id)
    clock.now = float("nan")

    with pytest.raises(LedgerError):
        guard.spend(token)
    assert "spent" not in told(guard)


def test_the_clock_is_read_when_the_ledger_is_ours(guard, clock, tmp_path):
    """Waiting for another writer counts."""
    token = guard.approve(ask(guard).id)
    holder = sqlite3.connect(
        tmp_path / "ledger.sqlite", isolation_level=None, check_same_thread=False
    )
    holder.execute("BEGIN IMMEDIATE")
    errors = []

    def spend():
        try:
            guard.spend(token)
        except AuthorizationError as error:
            errors.append(error)

    spender = threading.Thread(target=spend)
    spender.start()
    clock.now += EXPIRY
    holder.execute("COMMIT")
    holder.close()
    spender.join(60)

    assert [TokenExpired] == [type(error) for error in errors]


def test_the_systems_clocks_are_what_they_say():
    """Time asleep included, where this kernel counts it."""
    assert boot_clock() > 0
    assert boot_id() == boot_id()


# --- tokens that are none ---


@pytest.mark.parametrize(
    "token",
    ["", "x", "a" * 42, "a" * 44, "a" * 42 + "!", " " + "a" * 42, "é" * 43, None, 7, b"a" * 43],
)
def test_a_text_that_is_no_token_is_refused_and_recorded(guard, token):
    """Without writing down what it was: it may have been a secret of another kind."""
    ask(guard)

    with pytest.raises(TokenMalformed):
        guard.spend(token)

    entry = guard.history()[0]
    assert ("refused", None, {"error": "TokenMalformed"}) == (
        entry.event,
        entry.request,
        entry.details,
    )


def test_a_token_that_nobody_made_is_refused_and_recorded(guard):
    """As one of another ledger."""
    with pytest.raises(TokenUnknown):
        guard.spend("a" * 43)

    assert {"error": "TokenUnknown"} == guard.history()[0].details


def test_a_token_for_another_request_is_refused_and_still_good(guard):
    """Whoever asked for the wrong one has taken nothing."""
    one, other = ask(guard), call(guard)
    token = guard.approve(one.id)

    with pytest.raises(TokenMismatch, match=f"for request {one.id}, not for {other.id}"):
        guard.spend(token, request=other.id)
    with pytest.raises(TokenMismatch, match="for a commit, not for a call"):
        guard.spend(token, kind="call")

    assert ["refused", "refused"] == told(guard, one.id)[-2:]
    assert "spent" == guard.spend(token, request=one.id.upper(), kind="commit").state


def test_checking_a_token_does_not_use_it(guard):
    """Refusals are recorded all the same."""
    request = ask(guard)
    token = guard.approve(request.id)

    assert {request.id} == {guard.check(token).id for _ in range(3)}
    with pytest.raises(TokenUnknown):
        guard.check("b" * 43)
    guard.spend(token)
    with pytest.raises(TokenSpent):
        guard.check(token)


def rewrite(path, change):
    """What a program does that does not keep to the triggers."""
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER nothing_changes")
    for number, details in connection.execute("SELECT number, details FROM entries").fetchall():
        new = json.dumps(change(json.loads(details)))
        connection.execute("UPDATE entries SET details = ? WHERE number = ?", (new, number))
    connection.commit()
    connection.close()


def test_a_request_that_was_changed_in_the_ledger_is_good_for_nothing(guard, tmp_path):
    """Its digest does not fit."""
    request = ask(guard)
    token = guard.approve(request.id)

    def change(details):
        if "content" in details:
            details["content"]["tree"] = "e" * 40
        return details

    rewrite(tmp_path / "ledger.sqlite", change)

    for use in (lambda: guard.spend(token), lambda: guard.get(request.id)):
        with pytest.raises(LedgerError, match="not hold request"):
            use()


def test_an_approval_of_other_content_is_refused(guard, tmp_path):
    """Also where the request and its digest were changed together."""
    request = ask(guard)
    token = guard.approve(request.id)

    def change(details):
        if "content" in details:
            details["content"]["tree"] = "e" * 40
            details["digest"] = replace(request, tree="e" * 40).digest
        return details

    rewrite(tmp_path / "ledger.sqlite", change)

    with pytest.raises(TokenMismatch, match="other content"):
        guard.spend(token)


# --- many requests ---


def test_an_asker_has_so_many_requests_waiting_and_no_more(guard, clock):
    """Answered ones and those that expired do not count."""
    requests = [ask(guard, requester=Requester("worker", "coder")) for _ in range(8)]

    with pytest.raises(TooManyRequests, match='Worker "coder" has 8 requests waiting'):
        ask(guard, requester=Requester("worker", "coder"))
    assert ask(guard, requester=Requester("worker", "other"))
    guard.deny(requests[0].id)
    guard.approve(requests[1].id)
    for _ in range(2):
        ask(guard, requester=Requester("worker", "coder"))
    clock.now += PATIENCE

    assert ask(guard, requester=Requester("worker", "coder"))


def test_an_agent_does_not_get_more_by_another_name(guard):
    """Names cost it nothing."""
    for number in range(8):
        call(guard, requester=Requester("agent", f"agent {number}"))

    with pytest.raises(TooManyRequests):
        ask(guard, requester=Requester("agent", "a ninth"))
    assert ask(guard)


def test_two_requests_for_a_branch_stand_until_one_is_committed(guard):
    """Then the other's parent is not the branch any more."""
    one, other, elsewhere = ask(guard), ask(guard), ask(guard, ref="refs/heads/next")
    token, late = guard.approve(one.id), guard.approve(other.id)

    guard.spend(token, commit="c" * 40)
    assert ["approved", "pending"] == [guard.get(each.id).state for each in (other, elsewhere)]
    assert ("committed", "c" * 40) == (
        (done := guard.conclude(one.id, "committed")).state, done.commit,
    )  # fmt: skip

    assert ["superseded", "pending"] == [guard.get(each.id).state for each in (other, elsewhere)]
    with pytest.raises(Superseded, match=f"refs/heads/main has the commit of request {one.id}"):
        guard.spend(late)
    with pytest.raises(Superseded):
        guard.approve(other.id)


def test_an_asker_replaces_a_waiting_request_by_saying_so(guard):
    """The old one is superseded, and says by which."""
    old = ask(guard)

    new = ask(guard, supersedes=old.id, message="Mend the fence, and the gate")

    assert [new] == guard.pending()
    with pytest.raises(Superseded, match=f"by {new.id}"):
        guard.approve(old.id)


@pytest.mark.parametrize(
    "changes",
    [{"requester": AGENT}, {"ref": "refs/heads/other"}, {"repository": "/elsewhere/.git"}],
)
def test_nobody_replaces_what_is_anothers(guard, changes):
    """Nor a request for another branch; and the attempt leaves no request."""
    old = ask(guard)

    with pytest.raises(AuthorizationError, match="cannot be replaced"):
        ask(guard, supersedes=old.id, **changes)

    assert [old] == guard.pending()


def test_what_is_approved_is_not_replaced(guard):
    """The human has answered; only they take that back."""
    old = ask(guard)
    guard.approve(old.id)

    with pytest.raises(AuthorizationError, match="cannot be replaced"):
        ask(guard, supersedes=old.id)
    with pytest.raises(RequestUnknown):
        ask(guard, supersedes="zzzzzz")


def test_a_commit_that_was_cut_off_is_known_until_its_outcome_is_told(guard):
    """One that was spent without a commit's hash is the spender's own affair."""
    one, other, plain = ask(guard), ask(guard), ask(guard)
    guard.spend(guard.approve(one.id), commit="c" * 40)
    guard.spend(guard.approve(other.id), commit="d" * 40)
    guard.spend(guard.approve(plain.id))

    assert [(one.id, "c" * 40), (other.id, "d" * 40)] == [
        (request.id, request.commit) for request in guard.interrupted()
    ]
    assert "void" == guard.conclude(one.id, "void", "cut off").state
    assert "void" == guard.conclude(one.id, "committed").state  # what ended stays as it is
    assert [other.id] == [request.id for request in guard.interrupted()]
    assert "pending" == guard.conclude(ask(guard).id, "committed").state


def test_history_is_what_happened_newest_first_and_holds_other_things_too(guard):
    """A worker's death, for one."""
    request = ask(guard)
    guard.record("death", {"worker": "coder", "signal": 11})
    guard.deny(request.id, "no")

    assert ["requested", "death", "denied"] == told(guard)
    assert ["denied"] == [entry.event for entry in guard.history(1)]
    assert {"worker": "coder", "signal": 11} == guard.history()[1].details
    with pytest.raises(ConfigError):
        guard.record("approved", {})


# --- calls of tools ---


def test_a_call_waits_in_the_same_queue_and_is_answered_in_the_same_way(guard):
    """What is run is what was approved."""
    commit, asked = ask(guard), call(guard, arguments={"code": "import os", "timeout": 30})

    assert [commit, asked] == guard.pending()
    spent = guard.spend(guard.approve(asked.id), kind="call")

    assert (CallRequest, {"code": "import os", "timeout": 30}) == (type(spent), spent.arguments)
    assert ("run_code", "coder", AGENT, "spent") == (
        spent.tool, spent.worker, spent.requester, spent.state,
    )  # fmt: skip
    assert [] == guard.interrupted()


def test_a_calls_text_shows_what_will_run_and_nothing_in_it_passes_for_something_else(guard):
    """Neither a line that looks like another argument, nor what a screen would obey."""
    code = "x = 1\ntimeout:\n  | 30\n# \u202e\x1b[8m \u200b"
    text = call(guard, arguments={"code": code, "timeout": 5, "n\n": ["a\x07", "é"]}).text()

    assert text.startswith('Call of    run_code on worker "coder"\nasked by   an agent that claims')
    assert (
        "code:\n  | x = 1\n  | timeout:\n  |   | 30\n  | # <U+202E><U+001B>[8m <U+200B>\n"
        'timeout:\n  | 5\nn<U+000A>:\n  | [\n  |   "a\\u0007",\n  |   "é"\n  | ]'
    ) in text
    assert call(guard, arguments={}).text().endswith("no arguments")


@pytest.mark.parametrize(
    "arguments",
    [{"a": object()}, {"a": float("nan")}, {1: 2}, [1], None, {"a": "x" * 2**21}, {"a": {1, 2}}],
)
def test_arguments_are_what_json_can_hold(guard, arguments):
    """And no more than a human can be asked to look at."""
    with pytest.raises(ConfigError, match="arguments of a call"):
        call(guard, arguments=arguments)

    assert [] == guard.pending()


def test_arguments_cannot_be_changed_after_they_were_asked(guard):
    """Not by the one who asked, at least."""
    arguments = {"code": ["1"]}
    asked = call(guard, arguments=arguments)
    arguments["code"].append("2")

    assert {"code": ["1"]} == asked.arguments == guard.get(asked.id).arguments
    with pytest.raises(FrozenInstanceError):
        asked.arguments = {}


# --- what cannot be asked ---


@pytest.mark.parametrize(
    "changes",
    [
        {"message": ""},
        {"message": " \n"},
        {"message": "a\0b"},
        {"message": "\ud800"},
        {"message": "x" * 2**17},
        {"ref": ""},
        {"tree": None},
        {"parent": ""},
        {"requester": ""},
        {"requester": "x" * 201},
        {"author": "a\0"},
    ],
)
def test_a_request_that_cannot_be_is_refused_at_once(guard, changes):
    """And leaves nothing."""
    with pytest.raises(ConfigError):
        ask(guard, **changes)

    assert [] == guard.history()


def test_there_are_three_kinds_of_requesters():
    """Of which one only claims its name."""
    assert ["user ada", 'worker "coder"', 'an agent that claims to be "claude"'] == [
        str(one) for one in (USER, Requester("worker", "coder"), AGENT)
    ]
    with pytest.raises(ConfigError, match="no kind of requester"):
        Requester("root", "x")


@pytest.mark.parametrize(
    "values",
    [
        {"expiry": 0},
        {"expiry": float("inf")},
        {"patience": -1},
        {"max_pending": 0},
        {"expiry": float("nan")},
    ],
)
def test_an_approval_without_an_end_is_not_to_be_had(tmp_path, values):
    """Nor one that is over before it begins."""
    with pytest.raises(ConfigError):
        AuthorizationGuard(tmp_path / "l", **values)


def test_a_damaged_ledger_approves_nothing(guard, tmp_path):
    """And everything says so."""
    request = ask(guard)
    token = guard.approve(request.id)
    content = bytearray((tmp_path / "ledger.sqlite").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / "ledger.sqlite").write_bytes(content)

    for use in (
        lambda: ask(guard), lambda: guard.approve(request.id), lambda: guard.spend(token),
        lambda: guard.deny(request.id), guard.pending, guard.history,
    ):  # fmt: skip
        with pytest.raises(LedgerError):
            use()


def test_a_ledger_that_lost_a_constraint_approves_nothing(guard, tmp_path):
    """All of its entries can be read; and a token might be spent twice."""
    request = ask(guard)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = 'spent_once'")
    connection.commit()
    connection.close()

    assert [request] == guard.pending()
    with pytest.raises(LedgerError, match="damaged"):
        guard.approve(request.id)


def test_a_token_is_256_random_bits(guard, monkeypatch):
    """From where the system has them."""
    asked = []
    monkeypatch.setattr(
        authorization.secrets, "token_urlsafe", lambda count: asked.append(count) or "x" * 43
    )

    assert "x" * 43 == guard.approve(ask(guard).id)
    assert [32] == asked


def test_what_was_not_seen_is_not_approved(guard, tmp_path):
    """The ledger's content was changed, digest and all, between look and answer."""
    seen, other = ask(guard), ask(guard, tree="e" * 40)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("DROP TRIGGER nothing_changes")
    content = replace(other, id=seen.id).content
    digest = replace(other, id=seen.id).digest
    connection.execute(
        "UPDATE entries SET details = ? WHERE request = ?",
        (json.dumps({"content": content, "digest": digest}), seen.id),
    )
    connection.commit()
    connection.close()

    with pytest.raises(LedgerError, match="does not hold request"):
        guard.approve(seen.id, digest=seen.digest)
    assert "pending" == guard.get(seen.id).state


@pytest.mark.parametrize("name", ["", "x" * 10**6, "\xad" * 1000, "a b", "../x", "\ud800"])
def test_what_can_be_no_id_is_told_briefly(guard, name):
    ask(guard)

    with pytest.raises(RequestUnknown) as caught:
        guard.get(name)
    assert len(str(caught.value)) < 1000


def test_a_token_may_be_copied_with_the_line_around_it(guard):
    request = ask(guard)
    token = guard.approve(request.id)

    assert request.id == guard.check(f" {token}\n").id
    assert "spent" == guard.spend(f"{token}\n").state


# --- at once ---


def test_of_fifty_threads_one_gets_the_request(guard):
    """All others are told that it was spent."""
    token = guard.approve(ask(guard).id)
    outcomes, start = [], threading.Barrier(50)

    def spend():
        start.wait()
        try:
            outcomes.append(guard.spend(token).state)
        except HiveError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=spend) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["TokenSpent"] * 49 + ["spent"] == sorted(outcomes)
    assert 49 == told(guard).count("refused")


SPENDER = """
import sys
from hive_jupyter.errors import HiveError
from hive_jupyter.guard.authorization import AuthorizationGuard

def clock():
    print("holds the ledger", flush=True)
    sys.stdin.readline()
    return float(sys.argv[3])

guard = AuthorizationGuard(sys.argv[1], clock, lambda: 5000.0)
print("ready", flush=True)
sys.stdin.readline()
try:
    print(guard.spend(sys.argv[2]).state, flush=True)
except HiveError as error:
    print(type(error).__name__, flush=True)
"""


def spender(guard, token, clock):
    return subprocess.Popen(
        [sys.executable, "-c", SPENDER, str(guard.ledger.path), token, str(clock.now)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=hosts.environment(),
        text=True,
    )


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_that_spend_at_once_the_one_in_front_wins(guard, clock):
    """The second comes while the first has read the ledger and not written to it yet."""
    token = guard.approve(ask(guard).id)
    with spender(guard, token, clock) as first, spender(guard, token, clock) as second:
        for process in (first, second):
            assert "ready\n" == process.stdout.readline()
        tell(first)
        assert "holds the ledger\n" == first.stdout.readline()
        tell(second)  # which must wait now
        tell(second)  # and is to read no clock that waits
        tell(first)

        assert "spent\n" == first.stdout.readline()
        assert "holds the ledger\n" == second.stdout.readline()
        assert "TokenSpent\n" == second.stdout.readline()


def test_of_ten_processes_one_gets_the_request(guard, clock):
    """All of them are let go at once."""
    token = guard.approve(ask(guard).id)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(spender(guard, token, clock)) for _ in range(10)]
        for process in processes:
            assert "ready\n" == process.stdout.readline()
        for process in processes:
            process.stdin.write("\n\n")
            process.stdin.flush()
        outcomes = [process.stdout.read().split("\n")[-2] for process in processes]

    assert ["TokenSpent"] * 9 + ["spent"] == sorted(outcomes)


def test_a_process_that_dies_while_it_spends_has_spent_nothing(guard, clock):
    """The next one gets the request."""
    token = guard.approve(ask(guard).id)
    with spender(guard, token, clock) as first:
        assert "ready\n" == first.stdout.readline()
        tell(first)
        assert "holds the ledger\n" == first.stdout.readline()
        first.kill()

    assert "spent" == guard.spend(token).state


def test_the_constraint_decides_where_the_look_before_it_was_wrong(guard, monkeypatch):
    """As it would be on a file system whose locks do not work."""
    token = guard.approve(ask(guard).id)
    stale = guard.check(token)
    guard.spend(token)
    monkeypatch.setattr(guard, "_examined", lambda *_: stale)

    with pytest.raises(TokenSpent):
        guard.spend(token)


# --- every order of everything ---


class GuardMachine(RuleBasedStateMachine):
    """Beside the guard runs a model that keeps each request's state as a word."""

    requests = Bundle("requests")
    tokens = Bundle("tokens")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.uptime = Clock(10_000.0), Clock(500.0)
        self.guard = AuthorizationGuard(f"{self.folder.name}/l", self.clock, self.uptime)
        self.states = {}
        self.since = {}

    def teardown(self):
        self.folder.cleanup()

    def age(self, request):
        time, uptime = self.since[request]
        return max(self.clock.now - time, self.uptime.now - uptime)

    def state(self, request):
        limit = {"pending": PATIENCE, "approved": EXPIRY}.get(self.states[request])
        return "expired" if limit and self.age(request) >= limit else self.states[request]

    def settle(self, request):
        """Whoever is refused for it writes down that it expired."""
        self.states[request] = self.state(request)
        return self.states[request]

    def becomes(self, request, state):
        self.states[request] = state
        self.since[request] = (self.clock.now, self.uptime.now)

    @rule(target=requests, kind=st.sampled_from(["commit", "call"]), name=st.sampled_from("ab"))
    def asks(self, kind, name):
        mine = Requester("worker", name)
        waiting = [
            one for one in self.states if self.settle(one) == "pending" and one.requester == mine
        ]
        ask_for = ask if kind == "commit" else call
        if len(waiting) >= 8:
            with pytest.raises(TooManyRequests):
                ask_for(self.guard, requester=mine)
            return multiple()
        request = ask_for(self.guard, requester=mine)
        self.becomes(request, "pending")
        return request

    @rule(target=tokens, request=requests)
    def approves(self, request):
        state = self.state(request)
        if state == "pending":
            token = self.guard.approve(request.id)
            self.becomes(request, "approved")
            return request, token
        with pytest.raises(AuthorizationError) as caught:
            self.guard.approve(request.id)
        assert ERRORS[state] is type(caught.value)
        assert state == caught.value.state
        self.settle(request)
        return multiple()

    @rule(request=requests)
    def denies(self, request):
        state = self.state(request)
        if state in {"pending", "approved"}:
            self.guard.deny(request.id, "no")
            self.becomes(request, "denied")
            return
        with pytest.raises(ERRORS[state]):
            self.guard.deny(request.id)
        self.settle(request)

    @rule(token=tokens, other=requests)
    def spends_for_another(self, token, other):
        if other != token[0]:
            with pytest.raises(TokenMismatch):
                self.guard.spend(token[1], request=other.id)

    @rule(token=tokens, looks=st.booleans())
    def spends(self, token, looks):
        request, text = token
        use = self.guard.check if looks else self.guard.spend
        state = self.state(request)
        if state == "approved":
            assert request.content == use(text).content
            if not looks:
                self.becomes(request, "spent")
            return
        with pytest.raises(AuthorizationError) as caught:
            use(text)
        assert (TokenExpired if state == "expired" else ERRORS[state]) is type(caught.value)
        self.settle(request)

    @rule(request=requests, outcome=st.sampled_from(["committed", "void", "superseded"]))
    def concludes(self, request, outcome):
        state = self.state(request)
        may = {"spent", "pending", "approved"} if outcome == "superseded" else {"spent"}
        self.guard.conclude(request.id, outcome)
        if state in may:
            self.becomes(request, outcome)
            if outcome == "committed" and isinstance(request, CommitRequest):
                for other in self.states:
                    if isinstance(other, CommitRequest) and self.state(other) in {
                        "pending",
                        "approved",
                    }:
                        self.becomes(other, "superseded")

    @rule(seconds=st.sampled_from([1, 60, 299, 300, 301, PATIENCE]), sets=st.booleans())
    def time_goes_on(self, seconds, sets):
        """Both clocks go on, or somebody sets the one on the wall forward."""
        self.clock.now += seconds
        if not sets:
            self.uptime.now += seconds

    @rule(seconds=st.sampled_from([1, 299, 300]))
    def sets_the_clock_back(self, seconds):
        self.clock.now -= seconds

    @invariant()
    def agree(self):
        for request in self.states:
            assert self.state(request) == self.guard.get(request.id).state
        waiting = [request for request in self.states if self.state(request) == "pending"]
        assert waiting == self.guard.pending()


ERRORS = {
    "approved": AuthorizationError,
    "denied": RequestDenied,
    "expired": RequestExpired,
    "superseded": Superseded,
    "spent": TokenSpent,
    "committed": TokenSpent,
    "void": TokenSpent,
}

GuardMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = GuardMachine.TestCase


def test_a_yes_that_comes_while_somebody_looks_is_not_taken_for_a_clock_gone_back(tmp_path):
    """The clock is read within the moment that is looked at: no later entry is seen beside it."""
    path = tmp_path / "ledger.sqlite"
    human = AuthorizationGuard(path)
    request = human.request_call(tool="ping", arguments={}, worker="coder", requester="x")
    answer = threading.Thread(target=lambda: tokens.append(human.approve(request.id)))
    tokens = []

    def clock():
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if answer.ident is None:
            answer.start()
            # it cannot end before the look does, which is what this waits for where it can
            answer.join(0.5)
        return now

    looking = AuthorizationGuard(path, boot_clock=clock)
    assert not looking.is_allowed(request.id)
    answer.join(60)
    human.spend(tokens[0])
    assert looking.is_allowed(request.id)
