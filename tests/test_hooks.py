"""The user's hooks for commits run over what was frozen, in workers of their own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from hive_jupyter import HiveManager, manager
from hive_jupyter.commits import Commits, asked_for
from hive_jupyter.errors import ConfigError, RemoteError, RepositoryError, SandboxUnavailable
from hive_jupyter.guard import hooks, repository
from hive_jupyter.guard.hooks import Task
from hive_jupyter.guard.requests import Requester
from hive_jupyter.swarm import throwaway
from tests.processes import wait_until
from tests.repos import Repo, commit, snapshot

SH = "#!/bin/sh\n"
PYTHON = f"#!{sys.executable}\n"
# Words by which a test finds its own process, and nobody else's.
LASTING = f"sleep 98{os.getpid()}"


@pytest.fixture(scope="module")
def hive(runtime):
    """Its workers start on a machine that stands still for a while, too."""
    with HiveManager(connect_timeout=60, commit_hooks=True) as hive:
        yield hive


@pytest.fixture(autouse=True)
def _nothing_stays(runtime):
    """Neither a checkout, nor a process."""
    yield
    assert not list(runtime.glob("hive/*/w*/tree"))
    assert not lasting()


@pytest.fixture
def commits(hive, repo, tmp_path, monkeypatch):
    """Commits in the repository, with a ledger of the test's own; ``a.py`` is changed."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(repo.folder)
    repo.write("a.py", "a = 2\n")
    return Commits(hive.config, hive._room_for_hooks)


@pytest.fixture
def setting(hive):
    """Change settings for the test."""
    before = {}

    def change(**values):
        before.update({name: getattr(hive.config, name) for name in values} | before)
        hive.config.change(**values)

    yield change
    hive.config.change(**before)


def lasting():
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()) == LASTING:
                found.append(process)
    return found


def hook(repo, code, name="pre-commit", mode=0o755):
    """Put a hook where git looks for it."""
    return repo.write(f".git/hooks/{name}", code, mode)


def refused(commits, *arguments, **options):
    """What is said of a commit that hooks refuse; nothing is left of it."""
    with pytest.raises(RepositoryError) as caught:
        commits.request("Change it", *arguments, **options)
    assert [] == commits.guard.pending()
    assert not list((commits.guard.ledger.path.parent / "frozen").iterdir())
    return str(caught.value)


# --- as git runs them ---


LOOKS_AROUND = """
import os, subprocess, sys
def git(*words):
    done = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()
print("files", git("ls-files").split())
print("staged", git("diff", "--cached", "--name-only"))
print("changed", git("diff-files", "--name-only"), git("status", "--porcelain"))
print("branch", git("rev-parse", "--abbrev-ref", "HEAD"), git("log", "--format=%s"))
print("top", git("rev-parse", "--show-toplevel") == os.getcwd(), git("rev-parse", "--git-dir"))
print("author", git("var", "GIT_AUTHOR_IDENT").rpartition(" ")[0].rpartition(" ")[0])
print("index", os.environ["GIT_INDEX_FILE"], git("config", "user.email"))
print("note", repr(git("config", "hooks.note")))
print("content", repr(open("a.py").read()), sys.argv[1:])
"""


def test_a_hook_sees_what_is_to_be_committed_as_git_would_show_it(commits, repo):
    """And not what is in the work tree by now."""
    note = 'a "b"\\c\n# d ;'
    repo("config", "hooks.note", note)
    repo("add", "a.py")
    repo.write("a.py", "later\n")
    repo.write("untracked.py")
    hook(repo, f"{PYTHON}{LOOKS_AROUND}")
    before = snapshot(repo.folder)

    request, frozen = commits.request("Say 2")

    said = [line.removeprefix("  | ") for line in frozen.said.split("\n")]
    assert said == [
        "files ['a.py', 'sub/b.txt']",
        "staged a.py",
        "changed  M  a.py",
        "branch main begin",
        "top True .git",
        "author Ada Lovelace <ada@example.org>",
        "index .git/index ada@example.org",
        f"note {note!r}",
        "content 'a = 2\\n' []",
    ]
    assert (("pre-commit",), ()) == (request.passed_hooks, request.skipped_hooks)
    assert before == snapshot(repo.folder)
    assert repo.show("a.py", commit(commits.guard, request)) == "a = 2"


def test_who_asks_and_who_answers_are_told(commits, repo):
    hook(repo, f"{SH}echo one warning\n")
    hook(repo, SH, "commit-msg")
    hook(repo, SH, "post-commit")

    request, frozen = commits.request("Say 2")

    told = asked_for(request, frozen)
    assert "Your hooks ran, confined, and let it pass: pre-commit, commit-msg. They said:\n" in told
    assert "\n  | one warning" in told
    assert "Your hooks are not run: post-commit." in told
    shown = commits.guard.get(request.id).text()
    assert "\nhooks      of yours, run confined: pre-commit, commit-msg\n" in shown
    assert "\nnot run    hooks of yours: post-commit\n" in shown


def test_a_hook_that_fails_refuses_the_commit_and_is_heard(commits, repo):
    """Nothing that it says passes for Hive's own words, or is obeyed by a screen."""
    text = "line 3\\r\\033[31mred\\033[0m\\033]0;title\\007\\n\\342\\200\\256x\\n"
    hook(repo, f"{SH}printf '{text}'\nexit 3\n")

    said = refused(commits)

    assert "Your hook pre-commit refused the commit. Nothing was asked for." in said
    assert said.endswith("They said:\n  | line 3\n  | red<U+001B>]0;title<U+0007>\n  | <U+202E>x")


def test_hooks_change_the_message(commits, repo):
    """One in Python, and before it the one that prepares it; both texts are shown."""
    hook(repo, f'{SH}test "$2" = message && sed -i "1s/^/[T-1] /" "$1"\n', "prepare-commit-msg")
    code = "import sys\nwith open(sys.argv[1], 'a') as file: print('Seen-by: me', file=file)\n"
    hook(repo, f"{PYTHON}{code}", "commit-msg")

    request, frozen = commits.request("Say 2  \n\n# why")

    changed = "[T-1] Say 2  \n\n# why\nSeen-by: me"
    assert (changed, "Say 2  \n\n# why") == (request.message, request.asked_message)
    assert "They changed the message:\n  | [T-1] Say 2  \n" in asked_for(request, frozen)
    shown = commits.guard.get(request.id).text()
    assert "\nmessage:\n  | [T-1] Say 2  \n" in shown
    assert "\nbefore your hooks changed it:\n  | Say 2  \n" in shown
    commit(commits.guard, request)
    assert repo("log", "-1", "--format=%B") == changed


def test_a_message_that_hooks_leave_alone_stays_as_it_was_asked(commits, repo):
    hook(repo, SH, "commit-msg")

    request, _ = commits.request("  Say 2 \n\n\n# no comment  ")

    assert ("  Say 2 \n\n\n# no comment  ", "") == (request.message, request.asked_message)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("echo b >> a.py", "a.py"),
        ("echo b >> a.py; git add a.py", "a.py"),
        ("rm a.py; ln -s /etc/passwd a.py", "a.py"),
        ("rm -r sub; mkfifo sub", "sub/b.txt"),
        ("chmod +x sub/b.txt; touch a.py", "sub/b.txt"),
        ("echo > new.py; git add new.py", "what is staged"),
    ],
)
def test_a_hook_that_changes_files_refuses_the_commit(commits, repo, code, changed):
    """What is committed is what was frozen, so the user has to see to that."""
    hook(repo, f"{SH}{code}\n")

    said = refused(commits)

    assert f"Your hook pre-commit changed {changed}, in a copy. Run them yourself" in said
    assert (repo.folder / "a.py").read_text() == "a = 2\n"


def test_what_hooks_leave_beside_the_files_counts_for_nothing(commits, repo):
    """Caches, above all; and files that are only touched."""
    hook(repo, f"{SH}mkdir .cache && echo > .cache/x && touch a.py && git status --short\n")

    request, frozen = commits.request("Say 2")

    assert frozen.said == "  |  M a.py\n  | ?? .cache/" or "?? .cache/" in frozen.said
    assert request.passed_hooks == ("pre-commit",)
    assert not (repo.folder / ".cache").exists()


def test_only_those_run_that_git_would_run(commits, repo):
    """Not executable, or for another occasion."""
    hook(repo, f"{SH}exit 1\n", mode=0o644)
    hook(repo, f"{SH}exit 1\n", "pre-push")

    request, _ = commits.request("Say 2")

    assert ((), ()) == (request.passed_hooks, request.skipped_hooks)


def test_turned_off_they_are_named_and_nothing_runs(commits, repo, setting, hive):
    setting(commit_hooks=False)
    hook(repo, f"{SH}exit 1\n")

    request, _ = commits.request("Say 2")

    assert ((), ("pre-commit",)) == (request.passed_hooks, request.skipped_hooks)
    with HiveManager() as configured:
        assert not configured.config.commit_hooks


@pytest.mark.parametrize(
    ("version", "enabled", "names"),
    [((2, 54), "true", ("pre-commit",)), ((2, 54), "false", ()), ((2, 53), "true", ())],
)
def test_hooks_by_name_run_where_git_runs_them(commits, repo, monkeypatch, version, enabled, names):
    """This git may not; what is looked at here is who is said to run."""
    monkeypatch.setattr(hooks, "_version", lambda _user: version)
    repo("config", "hook.check.command", "true")
    repo("config", "hook.check.event", "pre-commit")
    repo("config", "hook.check.enabled", enabled)

    request, _ = commits.request("Say 2")

    assert names == request.passed_hooks


# --- where they are ---


def test_hooks_among_the_projects_files_run_as_they_are_to_be_committed(commits, repo):
    repo("config", "core.hooksPath", "tools/hooks")
    repo.write("tools/word", "frozen\n")
    repo.write("tools/hooks/pre-commit", f'{SH}cat "$(dirname "$0")/../word"\n', 0o755)
    repo("add", "tools", "a.py")
    repo.write("tools/word", "later\n")
    repo.write("tools/hooks/pre-commit", f"{SH}exit 1\n")

    _, frozen = commits.request("Say 2")

    assert frozen.said == "  | frozen"


def test_a_hook_that_is_not_to_be_committed_cannot_run_in_its_place(commits, repo):
    repo("config", "core.hooksPath", "tools/hooks")
    repo.write("tools/hooks/pre-commit", SH, 0o755)

    said = refused(commits)

    assert "Your hook tools/hooks/pre-commit cannot run: it is not among the files" in said


def test_a_folder_that_the_user_names_is_read_in_its_place(commits, repo, home):
    """With what lies beside the hook."""
    folder = home / "my hooks"
    folder.mkdir()
    (folder / "word").write_text("mine\n")
    (folder / "pre-commit").write_text(f'{SH}cat "$(dirname "$0")/word"\n')
    (folder / "pre-commit").chmod(0o755)
    repo("config", "--global", "core.hooksPath", "~/my hooks")

    _, frozen = commits.request("Say 2")

    assert frozen.said == "  | mine"


def test_a_folder_that_only_the_repository_names_is_not_read(commits, repo, home, setting):
    """The user may let workers read it."""
    (home / "pre-commit").write_text(f"{SH}echo read\n")
    (home / "pre-commit").chmod(0o755)
    repo("config", "core.hooksPath", str(home))

    said = refused(commits)
    assert "pre-commit': Permission denied" in said or "cannot run" in said
    assert "readable_paths" in said

    setting(readable_paths=[str(home)])
    assert commits.request("Say 2")[1].said == "  | read"


@pytest.mark.parametrize("named", [".githooks", "{repo}/.githooks"])
def test_no_link_of_the_projects_decides_what_is_read(commits, repo, home, named):
    """Though the user has named the folder, for all repositories."""
    (home / "pre-commit").write_text(f"{SH}echo read\n")
    (home / "pre-commit").chmod(0o755)
    (repo.folder / ".githooks").symlink_to(home)
    repo("config", "--global", "core.hooksPath", named.format(repo=repo.folder))

    assert "| read" not in refused(commits)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_into_the_project_leads_to_what_is_to_be_committed(commits, repo, absolute):
    repo.write("tools/check", f"{SH}echo frozen\n", 0o755)
    repo("add", "tools", "a.py")
    repo.write("tools/check", f"{SH}echo later\n")
    place = repo.folder / ".git/hooks/pre-commit"
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(repo.folder / "tools/check" if absolute else "../../tools/check")

    assert commits.request("Say 2")[1].said == "  | frozen"


def test_a_link_out_of_the_repository_is_not_read(commits, repo, home):
    """What it leads to may be a secret."""
    (home / "secret").write_text(f"{SH}echo secret\n")
    (home / "secret").chmod(0o755)
    (repo.folder / ".git/hooks").mkdir(exist_ok=True)
    (repo.folder / ".git/hooks/pre-commit").symlink_to(home / "secret")

    said = refused(commits)

    assert "| secret" not in said
    assert "cannot run" in said or "Permission denied" in said


def test_a_folder_in_place_of_a_hook_refuses_as_git_does(commits, repo):
    (repo.folder / ".git/hooks/pre-commit").mkdir(parents=True)

    assert "cannot exec '.git/hooks/pre-commit'" in refused(commits)


def test_programs_beside_a_hook_come_with_it(commits, repo):
    """And what is no file or folder is left out."""
    hook(repo, f'{SH}"$(dirname "$0")/pre-commit.d/one"\n')
    hook(repo, f"{SH}echo one\n", "pre-commit.d/one")
    os.mkfifo(repo.folder / ".git/hooks/pipe")

    assert commits.request("Say 2")[1].said == "  | one"


def test_a_folder_of_hooks_has_its_limits(commits, repo, monkeypatch):
    hook(repo, SH)
    repo.write(".git/hooks/large", "x" * 100)
    monkeypatch.setattr(hooks, "_MOST_IN_FOLDER", 100)

    assert "holds more than 1000 files, or 100 B" in refused(commits)

    monkeypatch.setattr(hooks, "_MOST_FILES", 1)
    monkeypatch.setattr(hooks, "_MOST_IN_FOLDER", 2**20)
    assert "holds more than 1 files" in refused(commits)


# --- repositories of all kinds ---


@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)])
def test_the_first_commit_of_a_repository(hive, home, tmp_path, monkeypatch, options):
    """With hashes of either kind, on a branch whose name is a path."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    repo = Repo(tmp_path / "fresh", *options)
    repo("symbolic-ref", "HEAD", "refs/heads/topic/ünï")
    monkeypatch.chdir(repo.folder)
    repo.write("a.py")
    hook(repo, f"{SH}git symbolic-ref HEAD; git diff --cached --name-only\n")
    commits = Commits(hive.config, hive._room_for_hooks)

    request, frozen = commits.request("begin", ["a.py"])

    assert frozen.said == "  | refs/heads/topic/ünï\n  | a.py"
    assert commit(commits.guard, request) == repo.head


def test_a_linked_worktree_has_the_hooks_of_its_repository(commits, repo, tmp_path, monkeypatch):
    repo("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    hook(repo, f"{SH}git rev-parse --abbrev-ref HEAD\n")
    monkeypatch.chdir(tmp_path / "linked")
    Path("a.py").write_text("linked\n")

    assert commits.request("Say 2")[1].said == "  | other"


def test_links_submodules_and_line_ends_are_checked_out_as_git_does(commits, repo, tmp_path):
    """A filter is none that runs here."""
    other = Repo(tmp_path / "other")
    other.write("x")
    other.commit_all()
    repo("submodule", "--quiet", "add", str(other.folder), "module")
    (repo.folder / "link").symlink_to("a.py")
    repo.write(".gitattributes", "*.bat eol=crlf\n*.big filter=lfs\n")
    repo.write("x.bat", "x\r\n")
    repo.write("run", SH, 0o755)
    repo("add", "--all", "--", ":!a.py")
    repo("commit", "-qm", "more")
    looks = "git status --short; readlink link; od -c x.bat | head -1; ls -d module; test -x run"
    hook(repo, f"{SH}{looks}\n")

    _, frozen = commits.request("Say 2")

    assert frozen.said == "  | M  a.py\n  | a.py\n  | 0000000   x  \\r  \\n\n  | module"


def test_a_checkout_has_its_limit(commits, repo, monkeypatch):
    """A small object under many names would fill the disk."""
    hook(repo, SH)
    monkeypatch.setattr(hooks, "_MOST_CHECKED_OUT", 25)

    assert "the project's files are 26 B, and 25 B are checked out" in refused(commits)


def test_an_object_that_is_not_what_its_name_says_is_no_part_of_a_checkout(commits, repo):
    """Also where it is of a file that does not change."""
    hook(repo, SH)
    name = repo("rev-parse", "HEAD:sub/b.txt")
    other = repo("hash-object", "-w", "--stdin", stdin=b"other\n")
    stored = repo.folder / ".git/objects"
    place = stored / name[:2] / name[2:]
    place.chmod(0o644)
    place.write_bytes((stored / other[:2] / other[2:]).read_bytes())

    assert "does not have the content that its name says" in refused(commits)


# --- hooks that mean harm ---


ESCAPES = """
import os, socket, subprocess
def tries(what, work):
    try:
        print(what, "did it", work())
    except OSError as error:
        print(what, "is refused")
repo, home, port = {repo!r}, {home!r}, {port}
for path in ("a.py", ".git/config", ".git/hooks/pre-commit", ".git/HEAD", "new.py"):
    tries("write", lambda: open(os.path.join(repo, path), "a").write("evil"))
tries("home", lambda: open(os.path.join(home, "new"), "w").write("evil"))
tries("secret", lambda: open(os.path.join(home, "secret")).read())
tries("look", lambda: open(os.path.join(repo, "sub/b.txt")).read())
tries("ledger", lambda: os.listdir({data!r}))
tries("shadow", lambda: open("/etc/shadow").read())
tries("connect", lambda: socket.create_connection(("127.0.0.1", port), 5))
tries("kill", lambda: os.kill({pid}, 9))
command = ["git", "-C", repo, "update-ref", "refs/heads/evil", "HEAD"]
done = subprocess.run(command, capture_output=True)
print("git", "did it" if done.returncode == 0 else "is refused")
print(os.environ.get("SECRET_TOKEN"))
"""


def test_a_hook_reaches_neither_the_repository_nor_the_home_nor_the_network(
    commits, repo, home, tmp_path, monkeypatch, setting
):
    """Whatever the settings let other workers write, and wherever the host imports from."""
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    monkeypatch.syspath_prepend(repo.folder)
    (home / "secret").write_text("a secret\n")
    setting(writable_paths=[str(repo.folder)])
    victim = subprocess.Popen(["sleep", "1000"])
    with socket.create_server(("127.0.0.1", 0)) as server, victim:
        names = {
            "repo": str(repo.folder), "home": str(home), "port": server.getsockname()[1],
            "data": str(tmp_path / "data/hive"), "pid": victim.pid,
        }  # fmt: skip
        hook(repo, f"{PYTHON}{ESCAPES.format(**names)}")
        before = snapshot(repo.folder, home)
        _, frozen = commits.request("Say 2")
        assert victim.poll() is None
        victim.kill()

    assert "did it" not in frozen.said
    assert frozen.said.count("is refused") == 13
    assert frozen.said.endswith("  | None")
    assert before == snapshot(repo.folder, home)


def test_a_hook_that_hangs_is_stopped_with_what_it_said(commits, repo, setting):
    setting(hook_timeout=1)
    hook(repo, f"{SH}trap '' INT TERM\necho so far\n{LASTING}\n")

    said = refused(commits)

    assert "Your hook pre-commit took longer than 1 s. hook_timeout is the setting" in said
    assert said.endswith("They said:\n  | so far")


def test_what_a_hook_leaves_in_the_background_ends_with_it(commits, repo):
    """It is not waited for either, whether it is silent or floods."""
    hook(repo, f"{SH}setsid {LASTING} &\nsetsid yes &\necho done\n")

    request, _ = commits.request("Say 2")

    assert request.passed_hooks == ("pre-commit",)


def test_of_a_flood_the_end_is_heard(commits, repo):
    """A gigabyte takes its time, and no memory."""
    hook(repo, f"{SH}head -c 1000000000 /dev/zero | tr '\\0' 'x'\necho\necho the end\nexit 1\n")

    said = refused(commits)

    assert said.endswith("x\n  | the end")
    assert len(said) < 10_000


def test_a_hook_that_kills_its_worker_passes_nothing(hive, commits, repo, tmp_path):
    """And its death is none of the user's workers'."""
    code = "import os, signal\npid = os.getppid()\n"
    code += "above = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
    hook(repo, f"{PYTHON}{code}os.kill(above, signal.SIGKILL)\n")
    runs, workers = len(hive.history()), list(hive.swarm_status()["workers"])

    said = refused(commits)

    assert 'Your hooks for commits cannot run: Worker "hooks" was killed by SIGKILL' in said
    assert (runs, workers) == (len(hive.history()), list(hive.swarm_status()["workers"]))


def test_a_worker_that_is_stopped_by_a_hook_is_ended(commits, repo, setting, monkeypatch):
    """It cannot say any more that the time is over."""
    monkeypatch.setattr(throwaway, "_GRACE", 0.5)
    setting(hook_timeout=1, interrupt_grace=0.5)
    hook(repo, f"{SH}kill -STOP $(cut -d' ' -f4 /proc/$PPID/stat)\n{LASTING}\n")

    assert 'cannot run: Worker "hooks" did not stop after 1.5 s' in refused(commits)


def test_what_goes_wrong_in_the_worker_is_told(hive):
    """A disk that is full, say."""
    with hive._room_for_hooks() as room:
        task = Task(room.folder, (), {"seconds": 5, "repository": "/nowhere"}, 5)
        with pytest.raises(RemoteError, match="No such file or directory: '/nowhere'"):
            room.run(task)


def test_a_death_in_a_hook_is_not_kept(repo, tmp_path, monkeypatch, runtime):
    """Closing a hive writes down at once what died in it."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(repo.folder)
    repo.write("a.py", "2\n")
    hook(repo, f"{SH}kill -9 $(cut -d' ' -f4 /proc/$PPID/stat)\n")
    with HiveManager(connect_timeout=60, commit_hooks=True) as hive:
        with pytest.raises(RepositoryError, match="cannot run"):
            hive.request_commit("Say 2")
        guard = hive.guard

    assert guard.history() == []


@pytest.mark.parametrize(
    "answer", [{"code": "0"}, {"code": 0, "said": 1}, {"code": 0, "message": None}, {"code": []}]
)
def test_an_answer_that_makes_no_sense_passes_nothing(commits, repo, monkeypatch, answer):
    """The worker that gives it ran the hook, and may say anything."""

    async def says(*_arguments, **_options):
        return answer

    monkeypatch.setattr(manager, "ask_throwaway", says)
    hook(repo, SH)

    assert "what came back from the worker makes no sense" in refused(commits)


@pytest.mark.parametrize("message", ["", "x" * 70_000, "a\0b"])
def test_a_message_that_no_commit_can_have_is_refused(commits, repo, monkeypatch, message):
    """Whoever has written it."""

    async def says(*_arguments, **_options):
        return {"code": 0, "message": message}

    monkeypatch.setattr(manager, "ask_throwaway", says)
    hook(repo, SH)

    with pytest.raises(ConfigError, match="message"):
        commits.request("Say 2")
    assert not list((commits.guard.ledger.path.parent / "frozen").iterdir())


def test_a_wrong_message_is_refused_before_a_hook_runs(commits, repo, tmp_path):
    hook(repo, f"{SH}exit 1\n")

    with pytest.raises(ConfigError, match="needs a message"):
        commits.request("  ")


# --- where none can be had ---


def test_where_no_worker_can_be_had_nothing_is_asked(commits, repo, setting):
    setting(direct=False)
    hook(repo, SH)

    said = refused(commits)

    assert "Your hooks for commits cannot run: Workers are turned off" in said
    assert "%hive config commit_hooks=0" in said


def test_where_nothing_can_be_confined_no_hook_runs(commits, repo, monkeypatch):
    async def refuses(*_arguments, **_options):
        raise SandboxUnavailable("The sandbox profile strict cannot be had.", missing=("files",))

    monkeypatch.setattr(manager, "ask_throwaway", refuses)
    hook(repo, SH)

    assert "cannot run: The sandbox profile strict cannot be had. Nothing was" in refused(commits)


# --- who asks ---


def test_a_delegated_cell_and_an_agent_ask_in_the_same_way(commits, repo, hive, monkeypatch):
    """While the worker that asks is at work itself."""
    hook(repo, f"{SH}echo heard\n")
    monkeypatch.setitem(vars(hive), "commits", commits)

    said = hive.delegate("%commit -m 'Say 2'", worker="asks").stdout
    answer = commits.serve_request({"message": "Say 2"}, "an editor")
    hive.stop("asks")

    for text in (said, answer.content[0].text):
        assert "let it pass: pre-commit. They said:\n  | heard" in text
    kinds = [request.requester.kind for request in commits.guard.pending()]
    assert ["worker", "agent"] == kinds


def test_the_users_spare_stays(commits, repo, hive):
    """A worker for hooks is none of those that follow it."""
    hook(repo, SH)
    hive.delegate("1", worker="first")

    def spares():
        pairs = [pair for server in hive.nodes.servers for pair in server._spares]
        return [process for launch, process in pairs if launch.cwd == str(repo.folder)]

    (spare,) = wait_until(spares)

    commits.request("Say 2")

    assert spare.alive
    assert [spare] == spares()


def test_hooks_of_one_commit_run_at_a_time(commits, repo, monkeypatch):
    """However many ask at once; each is served."""
    hook(repo, SH)
    real, running, most = manager.ask_throwaway, [], []

    async def counted(*arguments, **options):
        running.append(1)
        most.append(len(running))
        try:
            return await real(*arguments, **options)
        finally:
            running.pop()

    monkeypatch.setattr(manager, "ask_throwaway", counted)
    answers = []

    def ask(name):
        request, _ = commits.request("Say 2", requester=Requester("agent", name))
        answers.append(request.passed_hooks)

    askers = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)

    assert [("pre-commit",)] * 3 == answers
    assert [1, 1, 1] == most


def begun(runtime):
    """Wait until a hook has said so by a file in its checkout."""
    return wait_until(lambda: list(runtime.glob("hive/*/w*/tree/begun")))


def test_ctrl_c_ends_a_hook(commits, repo, runtime):
    hook(repo, f"{SH}touch begun\n{LASTING}\n")

    def press():
        begun(runtime)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        commits.request("Say 2")
    pressing.join()

    assert [] == commits.guard.pending()
    assert not list((commits.guard.ledger.path.parent / "frozen").iterdir())


def test_closing_the_hive_ends_a_hook(repo, tmp_path, monkeypatch, runtime):
    """Whoever asked is told."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(repo.folder)
    repo.write("a.py", "2\n")
    hook(repo, f"{SH}touch begun\n{LASTING}\n")
    hive = HiveManager(connect_timeout=60, commit_hooks=True)
    errors = []

    def ask():
        try:
            hive.request_commit("Say 2")
        except RepositoryError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    begun(runtime)
    hive.close()
    asking.join(30)

    assert re.search(r"cannot run: This hive was closed meanwhile\. Nothing", errors[0])


def test_the_guard_alone_runs_no_hooks(commits, repo):
    """As where nobody gives it a place for them."""
    hook(repo, f"{SH}exit 1\n")

    request, frozen = repository.request_commit(
        commits.guard, repo.folder, "Say 2", requester=Requester("user", "ada")
    )

    assert (("pre-commit",), ()) == (request.skipped_hooks, frozen.passed_hooks)
