"""What a worker could inherit from the host, and what surrounds it."""

import fcntl
import os
import re

from tests.security.abuse import Refused, call, facts, in_child, read
from tests.security.probe import NOWHERE, topic

probe = topic("What a worker inherits")

_CLEAN = "a worker comes from a clean zygote, in every profile"


@probe("finds the host's tokens in its environment", possible=NOWHERE, why=_CLEAN)
def environment():
    found = [name for name, text in os.environ.items() if text.startswith("SECRET")]
    if not found:
        raise Refused("there is none")


@probe("finds them in the environment that its process began with", possible=NOWHERE, why=_CLEAN)
def first_environment():
    if b"SECRET" not in read("/proc/self/environ"):
        raise Refused("there is none")


@probe("finds files of the host among its open ones", possible=NOWHERE, why=_CLEAN, fresh=True)
def open_files_of_host():
    own = (facts.own_folder, "/dev/", "pipe:", "socket:", "anon_inode:", "/proc/", "/memfd:")
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if not target.startswith(own):
            found.append(target)
    if not found:
        raise Refused("there is none")
    return found


@probe("finds a secret of the host's memory in its own", possible=NOWHERE, why=_CLEAN)
def heap():
    secret = re.compile(re.escape(facts.has_secret[::-1].encode()) + rb"-[0-9a-f]{32}")
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if not rights.startswith("rw") or end - start > 2**28:
                continue
            memory.seek(start)
            try:
                found = secret.search(memory.read(end - start))
            except (OSError, ValueError):
                continue
            if found:
                return found.group()
    raise Refused("it is not there")


@probe("reads the user's IPython history through its own shell", possible=NOWHERE, why=_CLEAN)
def history():
    manager = get_ipython().history_manager  # noqa: F821  the worker's
    files = [row[2] for row in manager.db.execute("PRAGMA database_list")]
    if not any(files):
        raise Refused("it is in memory")
    return files


@probe("opens the terminal that the host was started in", possible=NOWHERE, why=_CLEAN)
def own_terminal():
    os.close(os.open("/dev/tty", os.O_RDWR))


@probe("writes into another terminal of the user")
def write_terminal():
    handle = os.open(facts.terminal, os.O_WRONLY | os.O_NOCTTY)
    os.write(handle, b"\x1b[2J")
    os.close(handle)


@probe("types into another terminal of the user (TIOCSTI)", optional="it has no TIOCSTI any more")
def type_into_terminal():
    def type_it():
        os.setsid()
        handle = os.open(facts.terminal, os.O_RDWR)
        fcntl.ioctl(handle, 0x540E, 0)  # TIOCSCTTY
        fcntl.ioctl(handle, 0x5412, b"!")  # TIOCSTI

    in_child(type_it)


shared = topic("Memory and messages shared by key")


@shared("attaches another program's shared memory (System V)")
def segment():
    number = call("shmget", facts.segment_key, 0, 0)
    call("shmat", number, None, 0o10000)


@shared("opens a queue of messages that others use (POSIX)", optional="it has no queues")
def queue():
    handle = call("mq_open", b"planted", os.O_RDWR | os.O_CREAT, 0o600, None)
    os.close(handle)
    mounted = "/dev/mqueue/planted"
    if os.path.exists(mounted):
        os.unlink(mounted)


@shared("finds the user's keys in the kernel (keyctl)")
def keyring():
    call("keyctl", 0, -4, 1)  # KEYCTL_GET_KEYRING_ID of the user's keyring


@shared("adds a key to the user's")
def add_key():
    number = call("add_key", b"user", b"planted", b"x", 1, -4)
    call("keyctl", 9, number, -4)  # KEYCTL_UNLINK
