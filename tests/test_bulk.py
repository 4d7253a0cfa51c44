"""The way of large values past the messages: its two ends, and what somebody may do to one."""

import os
import socket
import threading

import pytest

from hive_jupyter.errors import TransferError
from hive_jupyter.transfer import BulkSocket, bulk
from tests.processes import wait_until

MEGABYTE = 10**6


@pytest.fixture
def pair():
    """Both ends: one as Hive holds it, and a bare socket for who is not honest."""
    ours, theirs = socket.socketpair()
    own = BulkSocket(ours.detach())
    with theirs:
        yield own, theirs
    own.close()


def parts(*sizes):
    return [memoryview(os.urandom(min(size, 1000)) * (size // 1000 + 1))[:size] for size in sizes]


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_over():
    return True


def test_memory_comes_as_it_was_sent_and_can_be_written_to(pair):
    own, theirs = pair
    other = BulkSocket(theirs.detach())
    sent = parts(1, 0, 70_000, bulk._LARGE, 3 * MEGABYTE + 1)
    sending = in_thread(lambda: own.send(sent))
    received = other.receive([part.nbytes for part in sent])
    sending.join()

    assert sent == received
    assert not any(part.readonly for part in received)
    assert own.is_in_step()
    assert other.is_in_step()
    other.close()


def test_what_was_there_before_it_was_over_is_read(pair):
    own, theirs = pair
    theirs.sendall(b"x" * 100_000)

    assert [b"x" * 100_000] == own.receive([100_000], is_over)
    assert own.is_in_step()


@pytest.mark.parametrize("sent", [b"", b"x" * 10])
def test_who_sends_nothing_or_too_little_is_not_waited_for(pair, sent):
    own, theirs = pair
    theirs.sendall(sent)
    with pytest.raises(TransferError, match="broke off"):
        own.receive([100_000_000], is_over)

    assert not own.is_in_step()


def test_who_sends_drop_by_drop_after_it_was_over_is_not_waited_for(pair, monkeypatch):
    monkeypatch.setattr(bulk, "_LATE", 0.2)
    own, theirs = pair
    theirs.setblocking(False)
    ended = threading.Event()

    def drop():
        while not ended.is_set():
            try:
                theirs.send(b"x" * 10)
            except BlockingIOError:
                continue
            except OSError:
                return

    dropping = in_thread(drop)
    try:
        with pytest.raises(TransferError, match="broke off"):
            own.receive([2**30], is_over)
    finally:
        ended.set()
        dropping.join()


def test_announced_memory_is_taken_as_it_comes(pair):
    """Where bytes come, their pages are; not those of what was only announced."""
    own, theirs = pair
    theirs.sendall(b"x")
    found = [resident()]

    def over():
        found.append(resident())
        return len(found) > 3

    with pytest.raises(TransferError):
        own.receive([2**30] * 1000, over)

    assert len(found) > 3
    assert max(found) < found[0] + 20 * MEGABYTE


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_who_takes_nothing_is_not_waited_for(pair):
    own, theirs = pair
    asked = []

    def over():
        asked.append(1)
        return len(asked) > 20

    with pytest.raises(TransferError, match="not all taken"):
        own.send(parts(100 * MEGABYTE), over)

    assert not own.is_in_step()
    while theirs.recv(MEGABYTE):
        pass


@pytest.mark.parametrize("move", ["send", "receive"])
def test_the_end_of_the_other_side_ends_a_transfer(pair, move):
    own, theirs = pair
    theirs.close()
    with pytest.raises(TransferError):
        own.send(parts(100 * MEGABYTE)) if move == "send" else own.receive([100])

    assert not own.is_in_step()


@pytest.mark.parametrize("move", ["send", "receive"])
def test_a_transfer_ends_where_its_own_side_is_closed(pair, move):
    """By another thread; whoever has inherited an end of it."""
    own, theirs = pair
    copies = [theirs.dup(), own._socket.dup()]
    failed = []
    moving = in_thread(lambda: failed.append(failure(own, move)))
    if move == "send":
        theirs.recv(1)
    own.close()
    moving.join()

    assert [TransferError] == failed
    for copy in copies:
        copy.close()


def failure(own, move):
    try:
        own.send(parts(100 * MEGABYTE)) if move == "send" else own.receive([100])
    except TransferError as error:
        return type(error)


def test_what_nobody_announced_closes_the_way(pair):
    own, theirs = pair
    theirs.sendall(b"unasked")

    assert not own.is_in_step()
    with pytest.raises(TransferError, match="closed"):
        own.receive([7])


def test_another_file_in_its_place_is_left_alone(pair, tmp_path):
    own, _ = pair
    number = own._socket.fileno()
    with (tmp_path / "users").open("wb") as users:
        os.dup2(users.fileno(), number)
        assert not own.is_in_step()
        with pytest.raises(TransferError, match="closed"):
            own.send(parts(10))
        own.close()

    os.fstat(number)
    os.close(number)
    assert b"" == (tmp_path / "users").read_bytes()


def test_a_fork_that_leaves_it_closes_nothing_for_others(pair):
    own, theirs = pair
    if (child := os.fork()) == 0:
        own.leave()
        os._exit(0)
    os.waitpid(child, 0)

    theirs.sendall(b"x")
    assert [b"x"] == own.receive([1])


def test_descriptors_that_come_with_the_memory_are_not_taken(pair):
    own, theirs = pair
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(theirs, [b"x" * 10], [0, 1, 2])

    assert [b"x" * 10] == own.receive([10])
    assert before == len(os.listdir("/proc/self/fd"))


def test_without_descriptors_or_memory_it_is_told(pair, monkeypatch):
    own, _ = pair

    def lacking(_):
        raise MemoryError

    monkeypatch.setattr(bulk, "memory_of", lacking)
    with pytest.raises(TransferError, match="not enough memory"):
        own.receive([10])


def test_nothing_is_left_open(pair):
    own, _ = pair
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ours, theirs = socket.socketpair()
        other = BulkSocket(ours.detach())
        theirs.close()
        other.is_in_step()
        other.close()
    own.close()

    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before - 1)
