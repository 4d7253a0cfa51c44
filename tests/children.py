"""What confines a process for good is tried in children that nobody else is in."""

import ctypes
import errno
import os
import pickle
import shutil
import signal
import tempfile
import traceback

import pytest

from hive_jupyter.worker.confine import prctl

NOBODY = 65534

# More than any of them takes on a slow machine; the end of a child that hangs.
SECONDS = 60


def in_child(body, *arguments, user=None, fork=os.fork):
    """
    Run ``body`` in a fork of this process and return what it returns.

    What it raises fails the test, with its traceback. ``user``: whom the child becomes first.
    """
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        _be_child(body, arguments, user, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said:
        pytest.fail(f"the child ended with {status} and said nothing")
    value, failure = pickle.loads(said)
    if failure:
        pytest.fail(failure)
    return value


def ends(body, *arguments):
    """How a child that runs ``body`` ends: its exit code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        _be_child(body, arguments, None, os.open(os.devnull, os.O_WRONLY))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_child(body, arguments, user, writing):
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        become(user)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        try:
            answer = (body(*arguments), None)
            status = 0
        except BaseException:
            answer = (None, traceback.format_exc())
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
    finally:
        os._exit(status)


def become(user):
    """Be another user, for good; None: stay who we are."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        prctl.set_dumpable(True)  # as a process is that began as this user


def outcome(call, *arguments):
    """The name of the error that a call ends with; "" if it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def users():
    """Whom to be in a child: this user and, where root runs the tests, nobody as well."""
    return [None, NOBODY] if os.getuid() == 0 else [None]


class Place:
    """A folder that belongs to whom a test's child is."""

    def __init__(self, user, where=None):
        self.path = tempfile.mkdtemp(prefix="hive-test-", dir=where)
        self.user = user
        self._own(self.path)

    def folder(self, name):
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        self._own(path)
        return path

    def file(self, name, text="text"):
        path = os.path.join(self.path, name)
        with open(path, "w") as file:
            file.write(text)
        self._own(path)
        return path

    def remove(self):
        shutil.rmtree(self.path)

    def _own(self, path):
        if self.user is not None:
            os.chown(path, self.user, self.user)
