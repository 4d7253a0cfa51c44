"""A refusal of the boundary is explained in one line; an error of the user's own is not."""

import errno
import os
import signal
import socket
import threading
from dataclasses import replace
from subprocess import CalledProcessError

import pytest

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker.confine.boundary import Boundary
from hive_jupyter.worker.confine.refusals import Refusals

BOUNDARY = Boundary(
    read=("/usr", "/project", "/venv"),
    granted=("/project",),
    write=("/project/src", "/runtime/tmp"),
    never=("/project/.git", "/project/src/.venv"),
    later=("/project/src/.venv", "/secret", "/venv"),
    mounted=(),
    temporary="/runtime/tmp",
    notes=(),
)


def explained(error, **policy):
    return Refusals(SandboxPolicy(**policy), BOUNDARY).explain(error, "coder")


def refused(*names, number=errno.EACCES):
    return OSError(
        number, os.strerror(number), *names[:1], *((None, names[1]) if names[1:] else ())
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            refused("/etc/passwd"),
            ["/etc/passwd is none of its files", "readable_paths=/etc/passwd`"],
        ),
        (refused("/etc/passwd", number=errno.EROFS), ["%hive config writable_paths=/etc/passwd`"]),
        (refused("/etc/hive-new"), ["%hive config writable_paths=/etc/hive-new`"]),
        (refused("/etc/hive new"), ["%hive config writable_paths=...`"]),
        (refused("/usr/x"), ["/usr/x may be read only", "writable_paths"]),
        (
            refused("/venv/lib/x.pth", number=errno.EROFS),
            ["x.pth runs with your rights", "--sandbox open"],
        ),
        (refused("/secret"), ["/secret is none of its files"]),
        (refused(b"/usr/x"), ["/usr/x may be read only"]),
        (
            refused("/project/.git/config", number=errno.EROFS),
            [".git/config runs with your rights"],
        ),
        (refused("/project/src/.venv/x.pth"), ["runs with your rights", "--sandbox open"]),
        (refused("/project/src/a", "/usr/b"), ["/usr/b may be read only"]),
        (
            refused("/project/new.py"),
            ["in /project nothing can be made", "/project/.git has to stay"],
        ),
        (refused("/root"), ["/root is none of its files"]),
        (refused(), ["may connect to 443", "connect_ports=443,...`", "%hive restart coder"]),
        (refused(number=errno.EPERM), ["no unix sockets", "%hive restart coder --sandbox open"]),
    ],
)
def test_a_refusal_names_the_profile_the_reason_and_the_way_out(error, words):
    line = explained(error)

    assert line.startswith("The sandbox workspace refused this: ")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_a_link_that_is_to_stay_is_spoken_of_itself(tmp_path):
    """Where it leads is not what was to be removed."""
    link = tmp_path / ".venv"
    link.symlink_to("/somewhere/else")
    boundary = replace(BOUNDARY, never=(str(link),))

    line = Refusals(SandboxPolicy(), boundary).explain(refused(str(link)), "coder")

    assert f"{link} runs with your rights" in line


@pytest.mark.parametrize(
    "error",
    [
        refused("/project/src/a.py"),
        refused("/usr/x", number=errno.ENOENT),
        refused(number=errno.ECONNREFUSED),
        ValueError("Permission denied"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EFBIG, "File too large"),
        OSError(errno.EMFILE, "Too many open files"),
        None,
    ],
)
def test_what_the_policy_has_nothing_to_do_with_is_not_explained(error):
    """A file's own mode, a server that is not there, a limit of somebody else's."""
    assert explained(error) is None


def test_a_file_that_is_missing_in_a_folder_of_the_workers_own_may_be_there_for_others():
    refusals = Refusals(SandboxPolicy(), BOUNDARY, ["/elsewhere", "/var/elsewhere"])
    line = refusals.explain(refused("/var/elsewhere/data.csv", number=errno.ENOENT), "coder")

    assert line.startswith("/var/elsewhere is this worker's own")
    assert "Put it into the project" in line


@pytest.mark.parametrize("name", ["/project/x", "/usr/x", "/elsewhere/x"])
def test_a_file_that_is_missing_for_all_is_not_explained(name):
    refusals = Refusals(SandboxPolicy(), BOUNDARY, ["/project", "/usr"])

    assert refusals.explain(refused(name, number=errno.ENOENT), "coder") is None


def test_without_a_network_names_cannot_be_looked_up():
    error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert "no network" in explained(error, profile="strict")
    assert "no network" in explained(refused(), profile="strict")
    assert "--sandbox workspace` lets it reach TCP port 443" in explained(error, profile="strict")


def test_what_a_setting_names_already_stays_in_the_command():
    line = explained(refused("/etc/passwd"), readable=("/data",))

    assert "`%hive config readable_paths=/data:/etc/passwd`" in line


@pytest.fixture
def crowd():
    """Some threads of this process, which are its own limit's affair."""
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


NO_THREAD = RuntimeError("can't start new thread")
NOT_NOW = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
BY_SIGNAL = {
    number: [CalledProcessError(status, "a") for status in (-number, 128 + number)]
    for number in (signal.SIGXFSZ, signal.SIGXCPU)
}
REACHED = [
    (OSError(errno.EFBIG, "File too large"), {"file_size": 2**20}, "larger than 1 MB"),
    *((error, {"file_size": 2**20}, "larger than 1 MB") for error in BY_SIGNAL[signal.SIGXFSZ]),
    *((error, {"cpu_time": 60}, "60 s of processor time") for error in BY_SIGNAL[signal.SIGXCPU]),
    (OSError(errno.EMFILE, "Too many open files"), {"open_files": 64}, "open 64 files"),
    (NOT_NOW, {"processes": 32}, "32 processes and threads"),
    (NO_THREAD, {"processes": 32}, "32 processes and threads"),
]


@pytest.mark.parametrize(("error", "limit", "words"), REACHED)
@pytest.mark.parametrize("profile", ["open", "workspace", "strict"])
def test_a_limit_is_named_with_its_setting(crowd, error, limit, words, profile):
    """In each profile; "open" has limits, too."""
    (setting,) = limit
    boundary = None if profile == "open" else BOUNDARY
    line = Refusals(SandboxPolicy(profile, **limit), boundary).explain(error, "coder")

    assert line.startswith("A limit of this worker: ")
    assert words in line
    assert line.endswith(f"`%hive config {setting}=...`, then `%hive restart coder`, allows more.")


@pytest.mark.parametrize("error", [error for error, *_ in REACHED])
def test_where_there_is_no_limit_nothing_is_blamed_on_one(crowd, error):
    assert explained(error, processes=None) is None


@pytest.mark.parametrize("error", [NO_THREAD, OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_limit_of_memory_is_named_with_the_way_to_raise_it(error):
    """Threads' stacks are memory, too."""
    line = explained(error, memory=2**28)

    assert "256 MB of memory" in line
    assert "`%hive restart coder --memory 512M` gives it more." in line


def test_what_is_only_not_ready_yet_is_not_blamed_on_the_number_of_processes():
    """A socket or a pipe that does not block gives the same error."""
    assert explained(NOT_NOW, processes=1000) is None


def test_what_a_library_makes_of_a_refusal_is_explained_too():
    """Libraries raise errors of their own from that of the system."""
    try:
        try:
            raise refused()
        except OSError as error:
            raise ConnectionError("HTTPConnectionPool: Max retries exceeded") from error
    except ConnectionError as error:
        assert "connect_ports" in explained(error)


def test_errors_that_cause_each_other_come_to_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one

    assert explained(one) is None
