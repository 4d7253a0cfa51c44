"""A refusal of the boundary is explained in one line; an error of the user's own is not."""

import errno
import os
import socket

import pytest

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker.confine.boundary import Boundary
from hive_jupyter.worker.confine.refusals import Refusals

BOUNDARY = Boundary(
    read=("/usr", "/project"),
    write=("/project/src", "/runtime/tmp"),
    never=("/project/.git", "/project/src/.venv"),
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
        (refused("/home/me/.ssh/id"), ["/home/me/.ssh/id is none of its files", "readable_paths"]),
        (refused("/usr/x"), ["/usr/x may be read only", "writable_paths"]),
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
        (refused(), ["may connect to 443", "connect_ports", "%hive restart coder"]),
        (refused(number=errno.EPERM), ["no unix sockets", "%hive restart coder --sandbox open"]),
    ],
)
def test_a_refusal_names_the_profile_the_reason_and_the_way_out(error, words):
    line = explained(error)

    assert line.startswith("The sandbox workspace refused this: ")
    assert "\n" not in line
    for word in words:
        assert word in line


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


def test_without_a_network_names_cannot_be_looked_up():
    error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert "no network" in explained(error, profile="strict")
    assert "no network" in explained(refused(), profile="strict")


@pytest.mark.parametrize(
    ("error", "limit", "words"),
    [
        (OSError(errno.EFBIG, "File too large"), {"file_size": 9}, "larger than 9 bytes"),
        (OSError(errno.EMFILE, "Too many open files"), {"open_files": 64}, "open 64 files"),
        (BlockingIOError(errno.EAGAIN, "x"), {"processes": 50}, "50 processes and threads"),
        (RuntimeError("can't start new thread"), {"processes": 50}, "50 processes and threads"),
    ],
)
def test_a_limit_is_named_with_its_setting(error, limit, words):
    (setting,) = limit
    line = explained(error, **limit)

    assert words in line
    assert f"%hive config {setting}=..." in line


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
