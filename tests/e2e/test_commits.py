"""A commit is asked for in a real notebook, and answered there or in a real terminal."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading

import pexpect
import pytest

from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.guard.requests import Requester
from tests.front_end import ROOT, FrontEnd
from tests.processes import wait_until
from tests.repos import with_a_change

COMMAND = (sys.executable, "-W", "error", "-c", "from hive_jupyter.cli import main; main()")


@pytest.fixture
def repo(tmp_path, monkeypatch):
    made = with_a_change(tmp_path, monkeypatch)
    monkeypatch.setenv("JUPYTER_NO_CONFIG", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return made


@pytest.fixture
def guard(tmp_path):
    return AuthorizationGuard(tmp_path / "data" / "hive" / "ledger.sqlite")


@pytest.fixture
def request_(guard, repo):
    """A request of an agent."""
    asker = Requester("agent", "an editor")
    return repository.request_commit(guard, repo.folder, "Change it", requester=asker)[0]


def jupyter_hive(*words, **options):
    """The command without a terminal, run to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
        **options,
    )


@pytest.fixture
def in_terminal():
    """Run the command in a terminal of its own."""
    spawned = []

    def run(*words, before=()):
        program, *arguments = [*before, *COMMAND, *words]
        child = pexpect.spawn(
            program, arguments, timeout=60, encoding="utf-8", dimensions=(60, 200), echo=True
        )
        spawned.append(child)
        return child

    yield run
    for child in spawned:
        child.close(force=True)


def ended(child):
    """What else the command says, and its exit status."""
    said = child.read()
    child.wait()
    return said, child.exitstatus


QUESTION = "approves nothing: "


# --- in a notebook ---


def test_a_commit_is_asked_for_read_and_approved_in_a_notebook(repo, tmp_path):
    with FrontEnd(repo.folder, JUPYTER_DATA_DIR=str(tmp_path / "data")) as kernel:
        kernel.play("%load_ext hive_jupyter")
        said = kernel.play("%commit -m 'Say <b>2</b>' a.py").stream()
        (name,) = re.findall(r"^Request (\w+): commit the named files", said)

        (listed,) = kernel.play("%hive requests").of("display_data")
        assert name in listed["data"]["text/markdown"]

        (shown,) = kernel.play(f"%hive approve {name}").of("display_data")
        page = shown["data"]["text/html"]
        assert "Say &lt;b&gt;2&lt;/b&gt;" in page
        (digest,) = re.findall(r"^digest (\w+)$", shown["data"]["text/plain"], re.MULTILINE)
        assert digest in page

        refused = kernel.play(f"%hive approve {name} y")
        assert refused.reply["status"] == "error"
        assert repo("log", "--format=%s") == "begin"

        said = kernel.play(f"%hive approve {name} {digest[:4]}").stream()
        assert said == f"Committed {repo.head} to main of {repo.folder}.\n"
        assert repo("log", "-1", "--format=%s") == "Say <b>2</b>"
        assert repo("status", "--porcelain", "a.py") == ""


REFUSED = """
import os, subprocess, sys
clean = {{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME")}}
clean["JUPYTER_DATA_DIR"] = {data!r}
for words in (["approve", {name!r}], ["deny", {name!r}], ["requests"]):
    command = [sys.executable, "-c", "from hive_jupyter.cli import main; main()", *words]
    for options in ({{}}, {{"env": clean, "start_new_session": True}}):
        done = subprocess.run(command, capture_output=True, text=True, **options)
        print(done.returncode, done.stderr)
"""


def test_what_a_worker_starts_answers_nothing(repo, guard, request_, tmp_path):
    """Also without the variable that marks a worker's environment."""
    with FrontEnd(repo.folder, JUPYTER_DATA_DIR=str(tmp_path / "data")) as kernel:
        kernel.play("%load_ext hive_jupyter")
        code = REFUSED.format(name=request_.id, data=str(tmp_path / "data"))
        said = kernel.play(f"%%delegate\n{code}").stream()

    assert said.count("runs in a worker, and nothing is approved") == 6
    assert guard.get(request_.id).state == "pending"


def test_the_magics_in_a_worker_only_say_so(repo):
    with FrontEnd(repo.folder) as kernel:
        kernel.play("%load_ext hive_jupyter")
        played = kernel.play("%%delegate\n%load_ext hive_jupyter\n%hive requests")

    assert "neither delegate nor approve" in played.reply["evalue"]


@pytest.fixture
def kernel(repo, tmp_path):
    """A notebook in the repository."""
    with FrontEnd(repo.folder, JUPYTER_DATA_DIR=str(tmp_path / "data")) as kernel:
        kernel.play("%load_ext hive_jupyter")
        yield kernel


@pytest.fixture
def in_worker(kernel):
    """Run a delegated cell there."""
    return lambda code: kernel.play(f"%%delegate\n{code}")


def test_a_delegated_cell_asks_for_a_commit_and_goes_on(repo, guard, in_worker):
    played = in_worker(
        "import os; os.mkdir('sub'); os.chdir('sub'); open('b.py', 'w').write('b')\n"
        "%commit -m 'Say \"two\"' -m Because ../a.py b.py\n"
        "print('goes on')"
    )

    (request,) = guard.pending()
    assert request.requester == Requester("worker", "coder")
    assert request.message == 'Say "two"\n\nBecause'
    assert {"a.py", "sub/b.py"} == {change.name for change in request.changes()}
    assert played.reply["status"] == "ok"
    said = played.stream()
    assert (
        f"Request {request.id}: commit the named files to main of {repo.folder}: a.py, sub/b.py."
        in said
    )
    assert f"%hive approve {request.id}" in said
    assert said.endswith("goes on\n")
    assert repo("log", "--format=%s") == "begin"


def test_a_delegated_cell_replaces_its_own_request(repo, guard, in_worker):
    in_worker("%commit -m first")
    (first,) = guard.pending()
    in_worker(f"%commit -m second --supersedes {first.id}")

    assert ["second"] == [request.message for request in guard.pending()]
    assert guard.get(first.id).state == "superseded"


def test_a_message_of_a_delegated_cell_stays_as_it_stands(guard, in_worker):
    """Names in what it supersedes are filled in."""
    in_worker("x, first = 'no', 'nosuch'\n%commit -m 'Cost {x} $x in $HOME' a.py")
    (request,) = guard.pending()
    assert "Cost {x} $x in $HOME" == request.message

    in_worker(f"first = '{request.id}'\n%commit -m second --supersedes {{first}} a.py")
    assert ["second"] == [request.message for request in guard.pending()]


def test_commit_explains_itself_in_a_delegated_cell(guard, in_worker):
    played = in_worker("%commit -h\nprint('goes on')")

    assert "ok" == played.reply["status"]
    assert "usage: %commit" in played.stream()
    assert "--supersedes ID" in played.stream()
    assert played.stream().endswith("goes on\n")
    assert [] == guard.pending()


def test_a_thread_and_a_task_of_a_delegated_cell_ask_too(guard, in_worker):
    in_worker(
        "import asyncio, threading\n"
        "ask = get_ipython().kernel.commit_requests.request_commit\n"
        "threads = [threading.Thread(target=ask, args=(str(n),)) for n in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "await asyncio.to_thread(ask, 'task')\n"
        "for thread in threads: thread.join()"
    )

    assert {"0", "1", "2", "task"} == {request.message for request in guard.pending()}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%commit a.py", "-m MESSAGE"),
        ("%commit -m 'x", "a quote is not closed"),
        ("%commit -m '' a.py", "message"),
        ("%commit -m x nosuch.py", '"nosuch.py" does not exist'),
        ("%commit -m x ../elsewhere", "is not in the repository's work tree"),
        ("%commit -m x --supersedes zzzzzz", "There is no request"),
    ],
)
def test_what_a_delegated_cell_cannot_have_is_refused_there(guard, in_worker, line, said):
    played = in_worker(line)

    assert "UsageError" == played.reply["ename"]
    assert said in played.reply["evalue"]
    assert [] == guard.pending()


def test_a_fork_of_a_worker_asks_for_nothing(guard, in_worker):
    played = in_worker(
        "import os\n"
        "if (child := os.fork()) == 0:\n"
        "    try: get_ipython().kernel.commit_requests.request_commit('x')\n"
        "    except BaseException as error: os.write(2, str(error).encode())\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)"
    )

    assert "cannot ask for a commit" in played.stream("stderr")
    assert [] == guard.pending()


def test_ctrl_c_ends_the_wait_for_a_host_that_is_busy(guard, kernel):
    """Another process holds the ledger meanwhile."""
    kernel.play("%%delegate\n%commit -m first")
    connection = sqlite3.connect(guard.ledger.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    frozen = guard.ledger.path.with_name("frozen")
    before = len(list(frozen.iterdir()))

    def interrupt_once_it_waits():
        wait_until(lambda: len(list(frozen.iterdir())) > before)
        os.kill(kernel.pid, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt_once_it_waits)
    interrupting.start()
    played = kernel.play("%%delegate\n%commit -m second", timeout=25)
    interrupting.join()
    connection.close()

    assert "KeyboardInterrupt" == played.reply["ename"]


def test_a_worker_has_so_many_requests_waiting_and_no_more(guard, in_worker):
    played = in_worker("for n in range(20): get_ipython().run_line_magic('commit', f'-m {n}')")

    assert 'Worker "coder" has 8 requests waiting' in played.reply["evalue"]
    assert 8 == len(guard.pending())


# --- in a terminal ---


def test_a_human_reads_and_types_the_digest(repo, guard, request_, in_terminal):
    child = in_terminal("approve", request_.id)
    child.expect_exact(QUESTION)
    shown = child.before.replace("\r\n", "\n")

    assert 'an agent that claims to be "an editor"' in shown
    assert "+a = 2" in shown
    assert request_.digest in shown
    assert "type the first 4 characters of its digest" in shown
    child.sendline(request_.digest[:4])
    said, status = ended(child)
    assert status == 0
    assert f"Committed {repo.head} to main of {repo.folder}." in said
    assert repo("log", "-1", "--format=%s %an") == "Change it Ada"
    (entry,) = [one for one in guard.history(request=request_.id) if one.event == "approved"]
    assert entry.details["origin"] == "terminal"


@pytest.mark.parametrize("answer", ["y", "yes", "", "zzzz", "\x04"])
def test_any_other_answer_approves_nothing(repo, guard, request_, in_terminal, answer):
    child = in_terminal("approve", request_.id)
    child.expect_exact(QUESTION)
    child.send(answer if answer == "\x04" else f"{answer}\n")
    said, status = ended(child)

    assert status == 1
    assert "Nothing was approved" in said
    told = "is not how the digest" if answer == "zzzz" else "is too short: 4 characters"
    assert told in said
    assert guard.get(request_.id).state == "pending"


def test_ctrl_c_approves_nothing(repo, guard, request_, in_terminal):
    child = in_terminal("approve", request_.id)
    child.expect_exact(QUESTION)
    child.sendintr()
    said, status = ended(child)

    assert status == 128 + signal.SIGINT
    assert "Traceback" not in said
    assert guard.get(request_.id).state == "pending"


def test_what_was_typed_before_the_question_is_no_answer(repo, guard, request_, in_terminal):
    repo.write("long.py", "".join(f"line = {number}\n" for number in range(3000)))
    asker = Requester("agent", "an editor")
    long, _ = repository.request_commit(
        guard, repo.folder, "Long", paths=["long.py"], requester=asker
    )
    child = in_terminal("approve", long.id)
    child.send(f"{long.digest}\n")
    child.expect_exact(QUESTION)
    assert "line = 2999" in child.before
    child.sendline("no")
    _, status = ended(child)

    assert status == 1
    assert guard.get(long.id).state == "pending"


def test_where_there_is_no_terminal_nobody_is_asked(repo, guard, request_):
    done = jupyter_hive("approve", request_.id)

    assert done.returncode == 1
    assert "no terminal to ask on" in done.stderr
    assert done.stdout == ""
    assert guard.get(request_.id).state == "pending"


def test_streams_that_lead_elsewhere_are_not_asked(repo, guard, request_, in_terminal, tmp_path):
    """The terminal is, whatever is piped in, and it shows what the file does not."""
    out = tmp_path / "out"
    line = f'printf "%s\\n" {request_.digest} | "$@" > {out}'
    child = in_terminal("approve", request_.id, "--token", before=["/bin/sh", "-c", line, "sh"])
    child.expect_exact(QUESTION)
    assert "+a = 2" in child.before
    child.sendline(request_.digest[:4])
    _, status = ended(child)

    assert status == 0
    assert repository.commit(guard, out.read_text()).commit == repo.head


def test_a_mark_asks_for_more(repo, guard, in_terminal):
    repo.write("run.sh", "#!/bin/sh\n", mode=0o755)
    request, _ = repository.request_commit(
        guard, repo.folder, "Run", paths=["run.sh"], requester=Requester("user", "ada")
    )
    child = in_terminal("approve", request.id)
    child.expect_exact(QUESTION)
    assert "run.sh: becomes executable" in child.before
    child.sendline(request.digest[:7])

    assert ended(child)[1] == 1
    assert guard.get(request.id).state == "pending"


def test_a_request_that_was_denied_meanwhile_is_not_committed(repo, guard, request_, in_terminal):
    child = in_terminal("approve", request_.id)
    child.expect_exact(QUESTION)
    guard.deny(request_.id, "elsewhere")
    child.sendline(request_.digest)
    said, status = ended(child)

    assert status == 1
    assert "was denied (elsewhere)" in said
    assert repo("log", "--format=%s") == "begin"


def test_colours_are_there_unless_unwanted(repo, request_, in_terminal, monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    child = in_terminal("approve", request_.id)
    child.expect_exact(QUESTION)

    assert "\033[32m+a = 2\033[0m" in child.before


# --- for programs ---


def test_requests_are_listed_without_a_notebook(repo, guard, request_):
    listed = jupyter_hive("requests").stdout
    assert request_.id in listed
    assert listed.endswith("\njupyter hive approve REQUEST shows one, and asks.\n")
    (listed,) = json.loads(jupyter_hive("requests", "--json").stdout)["requests"]
    assert (listed["id"], listed["state"]) == (request_.id, "pending")
    assert (listed["message"], listed["digest"]) == ("Change it", request_.digest)
    assert listed["requester"] == {"kind": "agent", "name": "an editor"}

    done = jupyter_hive("deny", request_.id, "not", "now")
    assert (done.returncode, done.stdout) == (0, f"Request {request_.id} is denied.\n")
    assert jupyter_hive("requests").stdout == "Nothing waits.\n"
    assert json.loads(jupyter_hive("requests", "--json").stdout) == {"requests": []}
    (listed,) = json.loads(jupyter_hive("requests", "--json", "--all").stdout)["requests"]
    assert (listed["state"], listed["reason"]) == ("denied", "not now")
    assert listed["origin"] == "terminal"
    listed = jupyter_hive("requests", "--all", "-n", "1").stdout
    assert "not now" in listed
    assert "jupyter hive approve" not in listed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["approve"], 2, "Say which request"),
        (["deny"], 2, "Say which request"),
        (["deny", "nosuch"], 1, "There is no request 'nosuch'"),
        (["approve", "a", "b"], 2, "one word too many"),
        (["requests", "-n", "x"], 2, "no number of requests"),
    ],
)
def test_what_makes_no_sense_is_said(repo, words, status, message):
    done = jupyter_hive(*words)

    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr


def test_a_damaged_ledger_is_said_to_programs_too(repo, tmp_path):
    folder = tmp_path / "data" / "hive"
    folder.mkdir(parents=True)
    (folder / "ledger.sqlite").write_bytes(b"x" * 100)
    done = jupyter_hive("requests", "--json")

    assert done.returncode == 1
    assert "is damaged" in json.loads(done.stdout)["error"]
    assert "is damaged" in done.stderr


def test_the_time_for_an_approval_is_taken_from_the_configuration(repo, request_, guard):
    done = jupyter_hive("requests", env={**os.environ, "HIVE_JUPYTER_APPROVAL_EXPIRY": "0"})

    assert done.returncode == 2
    assert "less than 1" in done.stderr
