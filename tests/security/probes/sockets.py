"""Sockets of other programs on this machine."""

import os
import socket

from tests.security.abuse import connect, descriptors, facts, send_to
from tests.security.probe import EVERYWHERE, NOWHERE, harm, topic

probe = topic("Sockets of other programs")


@probe("asks the SSH agent to sign")
def ssh_agent():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.agent)


@probe("has Docker start a container as root")
def docker():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.docker)


@probe("has systemd run a program (D-Bus)")
def dbus():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.bus)


@probe("connects to a socket of packets")
def packets():
    connect(socket.AF_UNIX, socket.SOCK_SEQPACKET, facts.packets)


@probe("writes into the system's log (`/dev/log`)")
def system_log():
    send_to(socket.AF_UNIX, facts.log)


@harm(system_log)
def _(world):
    return world.heard("log")


@probe("connects to an abstract socket (X11, D-Bus)")
def abstract():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.abstract)


@probe("sends to an abstract socket")
def abstract_datagram():
    send_to(socket.AF_UNIX, facts.abstract_log)


@harm(abstract_datagram)
def _(world):
    return world.heard("abstract_log")


@probe("pretends to be a service (binds an abstract socket)")
def bind_abstract():
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"\0planted-{os.getpid()}")
        made.listen()


@probe(
    "reserves the name of a service (binds one of a pair of sockets)",
    possible=EVERYWHERE,
    why="servers have to be able to bind; it cannot listen there",
)
def reserve_abstract():
    first, second = socket.socketpair()
    with first, second:
        first.bind(f"\0planted-{os.getpid()}")


@probe("listens on a socket in the project")
def bind_path():
    path = f"{facts.project}/data/planted"
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)
            made.listen()
    finally:
        if os.path.lexists(path):
            os.unlink(path)


@probe("has the host run code in another worker (its door for `jupyter hive`)")
def attach_door():
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(facts.attach)
        return made.recv(100)


@probe("connects to the sockets of another worker")
def other_worker():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, f"{facts.sibling_folder}/k-1")


@probe("connects to its own kernel a second time, as a client")
def own_kernel():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, f"{facts.own_folder}/k-1")


@probe(
    "takes a connected unix socket of its own kernel to another program",
    possible=NOWHERE,
    why="Linux reconnects no unix stream",
)
def reuse_unix_socket():
    for handle in descriptors():
        with socket.socket(fileno=os.dup(handle)) as taken:
            if taken.family == socket.AF_UNIX:
                try:
                    taken.connect(facts.agent)
                except OSError as error:
                    last = error
                else:
                    return
    raise last
