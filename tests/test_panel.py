"""What a panel is told, and what it does; how it looks and feels is in tests/browser."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import HiveError, NodeStartError, RemoteError
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.guard.requests import Requester
from hive_jupyter.manager import HiveManager
from hive_jupyter.panel import Panel, board
from hive_jupyter.protocol import WORKER_VARIABLE
from tests.repos import with_a_change

MARKUP = "<img src=x onerror=alert(1)> \u202e"


@pytest.fixture
def repo(tmp_path, monkeypatch):
    made = with_a_change(tmp_path, monkeypatch)
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def hive(repo, runtime):
    with HiveManager(connect_timeout=60, interrupt_grace=30) as hive:
        yield hive


class Page:
    """What a panel's page knows of what it was sent, and what it sends."""

    def __init__(self, hive, name="page", view="view", feed=None):
        self.feed, self.name, self.view = feed or hive._feed_of_panels(), name, view
        self.messages, self.board, self.numbers = [], None, []
        self._key = 0
        self._lock = threading.Condition()
        self.feed.join(name, self._take)

    def _take(self, message):
        with self._lock:
            self.messages.append(message)
            if message["kind"] == "all":
                self.board = message["board"]
                self.numbers = [message["number"]]
            elif message["kind"] == "change" and self.board is not None:
                self.numbers.append(message["number"])
                self.board = merged(self.board, message)
            self._lock.notify_all()

    def ask(self, do, **details):
        """Send a wish, and give what is answered."""
        self._key += 1
        key = {"view": self.view, "key": str(self._key)}
        self.feed.hear(self.name, {"do": do, **key, **details})

        def answers():
            return [m for m in self.messages if key.items() <= m.items()]

        self.until(lambda: len(answers()) == 2)
        heard, answer = answers()
        assert heard["kind"] == "heard"
        return answer

    def open(self):
        self.ask("look")
        return self

    def until(self, condition, seconds=60):
        with self._lock:
            assert self._lock.wait_for(condition, seconds), self.messages[-3:]

    def request(self, name):
        return self.board["requests"].get(name, {})

    def worker(self, name):
        return self.board["workers"].get(name, {})

    def job(self, job):
        return self.board["jobs"].get(job.id, {})


def merged(old, told):
    """A board with what was told of its changes."""
    new = dict(old)
    for part in board.PARTS:
        entries = {
            name: e for name, e in old[part].items() if name not in told.get(f"no_{part}", ())
        }
        for name, fields in told.get(part, {}).items():
            entries[name] = {**entries.get(name, {}), **fields}
        new[part] = entries
    for name, value in told.items():
        if name in new and name not in board.PARTS:
            new[name] = value
    return new


# --- the board ---

ENTRIES = st.dictionaries(
    st.sampled_from("abc"),
    st.fixed_dictionaries({"x": st.integers(0, 2), "y": st.lists(st.integers(0, 1), max_size=2)}),
)
BOARDS = st.fixed_dictionaries(
    {
        **dict.fromkeys(board.PARTS, ENTRIES),
        "notes": st.lists(st.text(max_size=1), max_size=2),
    }
)


@given(BOARDS, BOARDS)
def test_who_has_a_board_and_is_told_the_changes_has_the_next_one(old, new):
    assert new == merged(old, board.changes_of(old, new))


@given(BOARDS)
def test_nothing_is_told_where_nothing_changed(same):
    assert {} == board.changes_of(same, same)


def test_that_time_passes_is_no_change(hive):
    page = Page(hive).open()
    hive.start("coder")
    page.until(lambda: page.worker("coder").get("state") == "idle")
    said = len(page.messages)
    hive.delegate("1", worker="other")
    page.until(lambda: page.worker("other").get("state") == "idle" and page.worker("other")["ok"])

    of_coder = [
        m["workers"]["coder"] for m in page.messages[said:] if "coder" in m.get("workers", {})
    ]
    changed = set().union(*of_coder) - {"memory", "holds", "cpu"}
    assert changed == set()


# --- workers ---


def test_a_page_that_opens_is_told_all_and_then_what_changes(hive):
    page = Page(hive).open()
    assert page.worker("coder")["state"] == "cold"

    hive.delegate("kept = 1")
    page.until(lambda: page.worker("coder")["ok"] == 1)

    assert page.worker("coder")["pid"]
    assert page.worker("coder")["holds"].endswith("MB")
    assert page.numbers == list(range(page.numbers[0], page.numbers[0] + len(page.numbers)))


def test_what_runs_is_shown_and_can_be_interrupted_meanwhile(hive):
    page = Page(hive).open()
    run = hive.begin("\n\nwhile True: pass", worker="train", timeout=None)
    page.until(lambda: page.worker("train").get("state") == "busy")
    page.until(lambda: page.worker("train")["now"] == "while True: pass")
    assert abs(time.time() - page.worker("train")["since"]) < 60

    page.ask("interrupt", worker="train")

    with pytest.raises(RemoteError):
        run.outcome()
    page.until(lambda: page.worker("train")["state"] == "idle")
    assert page.worker("train")["now"] == ""


def test_a_worker_is_started_restarted_and_stopped(hive):
    page = Page(hive).open()
    page.ask("start", worker="coder")
    page.until(lambda: page.worker("coder")["state"] == "idle")
    first = page.worker("coder")["pid"]

    page.ask("restart", worker="coder")
    page.until(lambda: page.worker("coder")["pid"] not in (first, None))
    page.ask("stop", worker="coder")
    page.until(lambda: page.worker("coder")["state"] == "cold")


def test_a_log_is_shown(hive):
    page = Page(hive).open()
    assert page.ask("logs", worker="coder")["text"] == "Nothing was logged."


# --- jobs ---

BAR = """import time
print("\\r 40%|####      | 4/10", end="", flush=True)
while True: time.sleep(0.01)"""


def test_a_job_is_shown_with_how_far_it_is_and_cancelled(hive):
    page = Page(hive).open()
    job = hive.submit(BAR, worker="train")
    page.until(lambda: page.job(job).get("percent") == 40)
    shown = page.job(job)
    assert ("running", "train", "import time ...") == (
        shown["state"],
        shown["worker"],
        shown["code"],
    )
    assert "4/10" in page.ask("output", job=job.id)["text"]

    assert "" == page.ask("cancel", job=job.id)["text"]
    page.until(lambda: page.job(job)["state"] == "cancelled")
    assert page.job(job)["took"]
    assert "over already" in page.ask("cancel", job=job.id)["text"]


def test_a_job_that_said_nothing_and_one_that_said_too_much(hive):
    page = Page(hive).open()
    quiet, loud = hive.submit("1;"), hive.submit("print('x' * 200_000)")
    loud.result(60)
    assert "It has said nothing." == page.ask("output", job=quiet.id)["text"]
    text = page.ask("output", job=loud.id)["text"]
    assert text.startswith("(100001 characters before this are left out.)")
    assert len(text) < 101_000


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        (" 40%|####", 40),
        ("epoch 3: 12.5 % then 99%", 99),
        ("100%|##", 100),
        ("1200% more", None),
        ("nothing", None),
    ],
)
def test_bars_of_progress_are_read(hive, line, percent):
    job = hive.submit(f"print({line!r})")
    job.result(60)
    assert percent == board.job(job)["percent"]


def test_markup_in_what_a_job_says_stays_text_and_is_visible(hive):
    job = hive.submit(f"print({MARKUP!r})")
    job.result(60)
    assert "\u202e" not in board.job(job)["progress"]


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"do": "cancel", "job": "999"}, "no job"),
        ({"do": "output"}, "no job"),
        ({"do": "stop", "worker": "nobody"}, "no worker"),
        ({"do": "stop", "worker": 5}, "name"),
        ({"do": "dance"}, "dance"),
        ({"do": None}, "None"),
        ({"do": "open", "request": "abc", "file": 0}, "no such file"),
        ({"do": "open", "request": "abc", "file": "0"}, "no such file"),
        ({"do": "approve", "request": "abc", "digest": "a" * 64}, "Nothing was approved"),
        ({"do": "approve", "request": ["abc"]}, "Nothing was approved"),
        ({"do": "deny", "request": "abc"}, "no request"),
    ],
)
def test_a_wish_that_makes_no_sense_is_answered_with_the_reason(hive, wish, reason):
    page = Page(hive).open()

    answer = page.ask(**wish)

    assert answer["failed"]
    assert reason in answer["text"]


def test_what_is_no_wish_at_all_is_passed_over(hive):
    page = Page(hive)
    for nonsense in (None, 5, "look", ["look"]):
        page.feed.hear(page.name, nonsense)

    assert page.open().board is not None


def test_two_pages_agree(hive):
    one, other = Page(hive, "one").open(), Page(hive, "other").open()
    hive.delegate("1")
    for page in (one, other):
        page.until(lambda page=page: page.worker("coder")["ok"] == 1)

    assert one.board["requests"] == other.board["requests"]


def test_who_left_is_told_nothing_more(hive):
    page, other = Page(hive, "one").open(), Page(hive, "other").open()
    page.feed.leave("one")
    said = len(page.messages)

    hive.delegate("1")
    other.until(lambda: other.worker("coder")["ok"] == 1)

    assert said == len(page.messages)


# --- requests ---


def asked_for(hive, page, message="Mend the fence"):
    request = hive.request_commit(message)
    # on a busy machine git may take too long for the first look
    page.until(lambda: page.request(request.id).get("digest") == request.digest)
    return request


def test_a_request_is_shown_with_all_that_a_yes_would_cover(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)
    card = page.request(request.id)

    assert card["text"] == request.text().split("\n")
    assert card["digest"] == request.digest
    assert [file["name"] for file in card["files"]]
    shown = [text for file in card["files"] for _, text in file["patch"]]
    assert all(line in request.diff().split("\n") for line in shown)


def test_a_request_that_waited_before_the_page_opened_is_there(hive):
    request = hive.request_commit("Mend the fence")
    page = Page(hive).open()

    assert page.request(request.id)["state"] == "pending"


def test_approving_commits_and_says_so(hive, repo):
    page = Page(hive).open()
    request = asked_for(hive, page)

    answer = page.ask("approve", request=request.id, digest=request.digest)

    page.until(lambda: page.request(request.id)["state"] == "committed")
    assert page.request(request.id)["commit"] == repo.head
    assert page.request(request.id)["commit"] in answer["text"]
    assert hive.guard.history(1, request=request.id)[0].event == "committed"
    origins = [e.details.get("origin") for e in hive.guard.history(9, request=request.id)]
    assert "panel" in origins


def test_a_digest_that_is_not_the_requests_approves_nothing(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)

    answer = page.ask("approve", request=request.id, digest="0" * 64)

    assert "not what this panel shows" in answer["text"]
    assert hive.guard.get(request.id).state == "pending"


def test_of_two_pages_one_approves_and_the_other_is_told_that_it_is_late(hive):
    one, other = Page(hive, "one").open(), Page(hive, "other").open()
    request = asked_for(hive, one)
    other.until(lambda: other.request(request.id))

    first = one.ask("approve", request=request.id, digest=request.digest)
    second = other.ask("approve", request=request.id, digest=request.digest)

    assert "failed" not in first
    assert second["failed"]
    assert "committed already" in second["text"]


def test_denying_says_why(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)

    page.ask("deny", request=request.id, reason=MARKUP)

    page.until(lambda: page.request(request.id)["state"] == "denied")
    assert page.request(request.id)["reason"] == "<img src=x onerror=alert(1)> <U+202E>"
    assert page.request(request.id)["files"]


def test_what_another_process_asks_and_answers_is_shown(hive, repo):
    page = Page(hive).open()
    other = AuthorizationGuard(hive.guard.ledger.path)
    request = other.request_call(
        tool="save_file", arguments={"path": MARKUP}, worker="coder", requester="claude"
    )
    page.until(lambda: page.request(request.id).get("kind") == "call")
    assert 'an agent that claims to be "claude"' in page.request(request.id)["by"]

    other.deny(request.id, "no")

    page.until(lambda: page.request(request.id)["state"] == "denied")


def test_a_request_whose_time_is_up_is_shown_as_expired(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)

    hive.commits.guard.patience = 0.0
    os.utime(hive.commits.guard.ledger.path)  # somebody has written to it

    page.until(lambda: page.request(request.id)["state"] == "expired")
    answer = page.ask("approve", request=request.id, digest=request.digest)
    assert "expired" in answer["text"]


def test_a_large_file_is_folded_and_must_be_opened_first(hive, repo):
    (repo.folder / "large.txt").write_text("".join(f"line {number}\n" for number in range(2000)))
    page = Page(hive).open()
    request = hive.request_commit("Add much", paths=["large.txt"])
    page.until(lambda: page.request(request.id).get("files"))
    (file,) = page.request(request.id)["files"]
    assert file["patch"] is None

    early = page.ask("approve", request=request.id, digest=request.digest)
    assert "Open all files" in early["text"]
    opened = page.ask("open", request=request.id, file=0)
    assert ["added", "+line 1999"] in opened["patch"]
    page.ask("approve", request=request.id, digest=request.digest)

    page.until(lambda: page.request(request.id)["state"] == "committed")


def test_what_one_page_opened_is_still_folded_in_another(hive, repo):
    (repo.folder / "large.txt").write_text("x\n" * 9000)
    one, other = Page(hive, "one").open(), Page(hive, "other").open()
    request = hive.request_commit("Add much", paths=["large.txt"])
    for page in (one, other):
        page.until(lambda page=page: page.request(request.id).get("files"))

    one.ask("open", request=request.id, file=0)

    answer = other.ask("approve", request=request.id, digest=request.digest)
    assert "Open all files" in answer["text"]


def test_what_is_too_large_for_a_notebook_is_for_a_terminal(hive, repo):
    (repo.folder / "large.txt").write_text("x" * 78 + "\n" + "y" * 78 + "\n" * 400_000)
    page = Page(hive).open()
    request = hive.request_commit("Add much", paths=["large.txt"])
    page.until(lambda: page.request(request.id).get("files"))

    answer = page.ask("open", request=request.id, file=0)
    assert f"jupyter hive approve {request.id}" in answer["text"]


def test_a_request_whose_content_is_gone_cannot_be_approved(hive, repo):
    request = hive.request_commit("Mend the fence")
    subprocess.run(["rm", "-rf", request.private], check=True)
    page = Page(hive).open()

    assert page.request(request.id)["problem"]
    answer = page.ask("approve", request=request.id, digest=request.digest)
    assert "Nothing was approved" in answer["text"]


def test_nothing_in_a_request_hides(hive, repo):
    (repo.folder / "a\u202eb.txt").write_text(MARKUP)
    page = Page(hive).open()
    request = hive.request_commit(f"Message {MARKUP}", paths=["a\u202eb.txt"])
    page.until(lambda: page.request(request.id).get("files"))

    assert "\u202e" not in repr(page.request(request.id))
    assert "<U+202E>" in page.request(request.id)["files"][0]["name"]


def test_requests_that_are_decided_already_are_told_in_short(hive):
    request = hive.request_commit("Mend the fence")
    hive.guard.deny(request.id)
    page = Page(hive).open()

    assert page.request(request.id)["state"] == "denied"
    assert "files" not in page.request(request.id)


def test_what_one_view_of_a_panel_opened_is_still_folded_in_another(hive, repo):
    (repo.folder / "large.txt").write_text("x\n" * 9000)
    one = Page(hive).open()
    other = Page(hive, view="other").open()
    request = hive.request_commit("Add much", paths=["large.txt"])
    other.until(lambda: other.request(request.id).get("files"))

    one.feed.hear(one.name, {"do": "open", "view": one.view, "request": request.id, "file": 0})

    answer = other.ask("approve", request=request.id, digest=request.digest)
    assert "Open all files" in answer["text"]


def test_a_page_that_is_loaded_again_has_all_folded(hive, repo):
    (repo.folder / "large.txt").write_text("x\n" * 9000)
    page = Page(hive).open()
    request = hive.request_commit("Add much", paths=["large.txt"])
    page.until(lambda: page.request(request.id).get("files"))
    page.ask("open", request=request.id, file=0)

    page.open()

    answer = page.ask("approve", request=request.id, digest=request.digest)
    assert "Open all files" in answer["text"]


def test_of_what_is_superseded_again_and_again_little_is_kept(hive, repo):
    page = Page(hive).open()
    request = hive.request_commit("Mend the fence")
    for number in range(40):
        request = hive.request_commit(f"Mend the fence {number}", supersedes=request.id)
    page.until(lambda: page.request(request.id).get("state") == "pending")

    page.until(lambda: len(page.board["requests"]) <= 31)
    assert sum("files" in card for card in page.feed._cards.values()) == 1


def test_clicks_are_carried_out_while_the_ledger_is_locked(hive):
    page = Page(hive).open()
    asked_for(hive, page)
    run = hive.begin("while True: pass", worker="train", timeout=None)
    page.until(lambda: page.worker("train").get("state") == "busy")
    with contextlib.closing(sqlite3.connect(hive.guard.ledger.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        os.utime(hive.guard.ledger.path)
        page.until(lambda: page.feed._reading and not page.feed._reading.done())

        page.ask("interrupt", worker="train")
        with pytest.raises(RemoteError):
            run.outcome()
        page.until(lambda: page.worker("train")["state"] == "idle")


def test_a_ledger_that_cannot_be_read_is_said_and_read_again(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)
    path = Path(hive.guard.ledger.path)
    kept = path.with_name("kept")
    shutil.copy(path, kept)
    other = path.with_name("other")
    other.write_bytes(b"no database" * 100)
    other.replace(path)  # at once: a half of it would be another ledger
    page.until(lambda: any("cannot be shown" in note for note in page.board["notes"]))

    kept.replace(path)
    os.utime(path)

    page.until(lambda: not any("cannot be shown" in note for note in page.board["notes"]))
    assert page.request(request.id)["state"] == "pending"


def test_requests_of_a_ledger_that_was_moved_away_are_void(hive):
    page = Page(hive).open()
    request = asked_for(hive, page)
    Path(hive.guard.ledger.path).unlink()
    page.until(lambda: page.request(request.id)["state"] == "void")

    again = hive.request_commit("Mend the fence")
    page.until(lambda: page.request(again.id).get("state") == "pending")


def test_an_approval_that_is_not_used_expires_on_the_screen(hive):
    hive.commits.guard.expiry = 1.0
    page = Page(hive).open()
    request = asked_for(hive, page)
    hive.guard.approve(request.id)
    page.until(lambda: page.request(request.id)["state"] == "approved")

    page.until(lambda: page.request(request.id)["state"] == "expired")


def test_what_is_too_much_for_a_page_is_for_a_terminal(hive):
    page = Page(hive).open()
    arguments = {"content": "\u200b" * 100_000}
    request = hive.guard.request_call(
        tool="save_file", arguments=arguments, worker="coder", requester="claude"
    )
    page.until(lambda: page.request(request.id))

    assert f"jupyter hive approve {request.id}" in page.request(request.id)["problem"]
    assert len(json.dumps(page.request(request.id))) < 200_000


# --- the widget ---


def test_a_panel_is_a_table_where_nothing_else_can_be_shown(hive):
    request = hive.request_commit("Mend the fence")
    panel = hive.panel()

    assert isinstance(panel, Panel)
    assert "coder" in str(panel)
    assert f"%hive approve {request.id}" in str(panel)
    assert panel.still["text"] == str(panel)


def test_in_a_worker_there_is_no_panel(monkeypatch):
    monkeypatch.setenv(WORKER_VARIABLE, "coder")
    with HiveManager() as hive, pytest.raises(NodeStartError, match="worker"):
        hive.panel()


def test_a_hive_that_is_closed_ends_its_feed(repo, runtime):
    with HiveManager() as hive:
        page = Page(hive).open()
    assert page.board is not None
    assert {"kind": "ended"} == page.messages[-1]
    page.feed.hear(page.name, {"do": "look"})
    with pytest.raises(HiveError, match="closed"):
        hive.panel()


def test_the_agents_name_is_what_it_claims(hive):
    page = Page(hive).open()
    request = hive.request_commit("x", requester=Requester("agent", MARKUP[:20]))
    page.until(lambda: page.request(request.id))

    assert page.request(request.id)["by"].startswith("an agent that claims to be")
