"""Limits of what a worker uses, which hold in every profile, and what it leaves behind."""

import fcntl
import mmap
import os
import shutil
import signal
import threading
import time
from contextlib import suppress

from tests.security.abuse import (
    SET_PDEATHSIG,
    SET_SUBREAPER,
    Refused,
    daemonize,
    facts,
    hold_lock,
    in_children,
    prctl,
    temporary,
)
from tests.security.probe import EVERYWHERE, NOWHERE, OPEN, WORKSPACE_PLAIN, harm, topic

limit = topic("Limits, where they are set")

_SET = "the limit holds in every profile"


@limit("starts processes without end", possible=NOWHERE, why=_SET, limited=True)
def fork_bomb():
    children = []
    try:
        for _ in range(120):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
        time.sleep(facts.patience)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@limit("starts threads without end", possible=NOWHERE, why=_SET, limited=True)
def thread_bomb():
    over = threading.Event()
    try:
        for _ in range(200):
            threading.Thread(target=over.wait).start()
        time.sleep(facts.patience)
    except RuntimeError as error:
        raise Refused(str(error)) from None
    finally:
        over.set()


@limit("takes too much memory", possible=NOWHERE, why=_SET, limited=True)
def memory():
    bytearray(2**29)


@limit("takes too much memory that is shared (mmap)", possible=NOWHERE, why=_SET, limited=True)
def shared_memory():
    size = 2**29
    with mmap.mmap(-1, size) as shared:
        for place in range(0, size, mmap.PAGESIZE):
            shared[place] = 1
        time.sleep(facts.patience)


@limit("takes too much memory in many processes", possible=NOWHERE, why=_SET, limited=True)
def memory_of_many():
    def take(ready):
        taken = bytearray(os.urandom(2**20)) * 100
        os.write(ready, b"!")
        signal.pause()
        del taken

    in_children(8, take)


@limit(
    "takes too much memory that is shared, and lets go of it",
    possible=EVERYWHERE,
    why="Linux tells the size of such memory only to control groups",
    limited=True,
)
def shared_memory_let_go():
    def take(ready):
        size = 80 * 2**20
        shared = mmap.mmap(-1, size)
        for place in range(0, size, mmap.PAGESIZE):
            shared[place] = 1
        shared.madvise(mmap.MADV_DONTNEED)
        os.write(ready, b"!")
        signal.pause()

    in_children(6, take)


@limit(
    "takes too much memory in files in `/dev/shm`",
    possible=(OPEN, WORKSPACE_PLAIN),
    why="without namespaces there is one `/dev/shm` for all, and files in it belong to nobody",
    limited=True,
)
def shared_files():
    folder = f"/dev/shm/planted-{os.getpid()}"
    os.mkdir(folder)

    def take(ready):
        for number in range(80):
            with open(f"{folder}/{os.getpid()}-{number}", "wb", buffering=0) as file:
                file.write(bytes(2**20 - 1))
        os.write(ready, b"!")

    try:
        in_children(6, take)
    finally:
        shutil.rmtree(folder)


@limit(
    "takes too much memory in files that are none (memfd)",
    possible=NOWHERE,
    why=_SET,
    limited=True,
)
def memory_file():
    def take(ready):
        for _ in range(40):
            os.write(os.memfd_create("planted"), bytes(2**20 - 1))
        os.write(ready, b"!")

    in_children(12, take)


@limit("writes a file that is too large", possible=NOWHERE, why=_SET, limited=True)
def file_size():
    handle = os.open(temporary("large"), os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(handle, b"x", 2**21)
    finally:
        os.close(handle)
        os.unlink(temporary("large"))


@limit("opens too many files", possible=NOWHERE, why=_SET, limited=True)
def open_files():
    handles = []
    try:
        for _ in range(200):
            handle = os.open(os.devnull, os.O_RDONLY)
            handles.append(handle)
    finally:
        for handle in handles:
            os.close(handle)


@limit("computes without end", possible=NOWHERE, why=_SET, limited=True)
def processor_time():
    end = time.process_time() + 2.5
    while time.process_time() < end:
        pass


leaving = topic("What a worker leaves behind")

_GONE = "all that a worker starts ends with it, in every profile"


@leaving("leaves a daemon that was forked twice", possible=NOWHERE, why=_GONE, fresh=True)
def daemon():
    daemonize(hold_lock)


@harm(daemon)
def _(world):
    return world.daemon_lives()


@leaving(
    "leaves a daemon that forks on and on, to be nowhere", possible=NOWHERE, why=_GONE, fresh=True
)
def hopping_daemon():
    def hop(writer):
        handle = os.open(facts.lock, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(writer, b"!")
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()

    daemonize(hop)


@harm(hopping_daemon)
def _(world):
    return world.daemon_lives()


@leaving(
    "adopts its own orphans, to keep them from its supervisor",
    possible=NOWHERE,
    why=_GONE,
    fresh=True,
)
def adopting_daemon():
    prctl(SET_SUBREAPER, 1)
    daemonize(hold_lock)


@harm(adopting_daemon)
def _(world):
    return world.daemon_lives()


@leaving(
    "outlives its supervisor (clears PDEATHSIG, kills it)", possible=NOWHERE, why=_GONE, fresh=True
)
def outlive_supervisor():
    daemonize(hold_lock)
    prctl(SET_PDEATHSIG, 0)
    os.kill(os.getppid(), signal.SIGKILL)


@harm(outlive_supervisor)
def _(world):
    return world.daemon_lives()


@leaving("kills its supervisor and the zygote, and leaves a daemon", fresh=True)
def outlive_zygote():
    def avenge(writer):
        handle = os.open(facts.lock, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        for victim in (facts.zygote, facts.supervisor):
            with suppress(OSError):
                os.kill(victim, signal.SIGKILL)
        os.write(writer, b"!")
        while True:
            time.sleep(60)

    daemonize(avenge)


@harm(outlive_zygote)
def _(world):
    lives = world.daemon_lives(1.0)
    world.end_daemons()
    return lives
