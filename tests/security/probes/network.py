"""The network, of every family."""

import ctypes
import errno
import os
import signal
import socket
import struct

from tests.security.abuse import (
    BLUETOOTH,
    CRYPTO,
    FASTOPEN,
    FASTOPEN_CONNECT,
    MPTCP,
    NETLINK,
    PACKET,
    SCTP,
    SMC,
    VSOCK,
    XDP,
    Absent,
    Refused,
    call,
    connect,
    descriptors,
    facts,
    in_child,
    is_tcp,
    libc,
    messages,
    run,
    send_to,
)
from tests.security.probe import EVERYWHERE, IN_WORKSPACE, NOWHERE, STRICT_PLAIN, harm, topic

probe = topic("The network")

_PORTS = "workspace connects to port 443, and to what the user adds"
_DATAGRAMS = "nothing that an ordinary user has can stop UDP where TCP is allowed"


@probe("connects to port 443", possible=IN_WORKSPACE, why=_PORTS)
def https():
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts.allowed_port))


@probe("connects to another port of this machine (Jupyter, a database)")
def other_port():
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts.port))


@probe("asks a cloud for its credentials (169.254.169.254)")
def metadata():
    if facts.metadata == "":
        raise Absent("the world has no such address")
    connect(socket.AF_INET, socket.SOCK_STREAM, (facts.metadata, facts.metadata_port))


@probe("connects by IPv6", optional="it has no IPv6")
def ipv6():
    connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", facts.port6))


@probe("connects to an IPv4 address written as IPv6", optional="it has no IPv6")
def ipv4_as_ipv6():
    connect(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", facts.port))


@probe("connects a socket that does not wait")
def without_waiting():
    with socket.socket() as made:
        made.setblocking(False)
        code = made.connect_ex(("127.0.0.1", facts.port))
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, "connect")


@probe("connects from a child process")
def from_child():
    code = f"import socket; socket.create_connection(('127.0.0.1', {facts.port}))"
    run("/usr/bin/env", "python3", "-I", "-c", code)


@probe("connects by Multipath TCP", optional="it has no Multipath TCP")
def mptcp():
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts.port), MPTCP)


@probe("connects by SMC", optional="it has no SMC")
def smc():
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts.port), SMC)


@probe("connects by SCTP", optional="it has no SCTP")
def sctp():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()


@probe("connects while it sends (TCP Fast Open, `sendto`)")
def fast_open():
    with socket.socket() as made:
        made.sendto(b"x", FASTOPEN, ("127.0.0.1", facts.port))


@probe("connects while it sends (TCP Fast Open, `sendmsg`)")
def fast_open_message():
    with socket.socket() as made:
        made.sendmsg([b"x"], [], FASTOPEN, ("127.0.0.1", facts.port))


@probe("connects while it sends (TCP Fast Open, `sendmmsg`)")
def fast_open_messages():
    with socket.socket() as made:
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", facts.port)
        address += socket.inet_aton("127.0.0.1") + bytes(8)
        call("sendmmsg", made.fileno(), messages(b"x", address), 1, FASTOPEN)


@probe("connects with TCPFASTOPEN_CONNECT")
def fast_open_connect():
    with socket.socket() as made:
        made.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
        made.connect(("127.0.0.1", facts.port))
        made.send(b"x")


@probe("takes a TCP socket of its own kernel, and connects it elsewhere", fresh=True)
def reuse_socket():
    own = [handle for handle in descriptors() if is_tcp(handle)]
    if not own:
        raise Refused("there is none")
    # connecting to no family disconnects
    nowhere = struct.pack("=H", socket.AF_UNSPEC).ljust(16, b"\0")
    with socket.socket(fileno=os.dup(own[0])) as taken:

        def reconnect():
            os.kill(os.getppid(), signal.SIGSTOP)  # the kernel's threads must not notice yet
            libc.connect(taken.fileno(), nowhere, len(nowhere))
            taken.setblocking(True)
            try:
                taken.connect(("127.0.0.1", facts.port))
            finally:
                os.kill(os.getppid(), signal.SIGCONT)

        in_child(reconnect)


@harm(reuse_socket)
def _(world):
    return world.connected(world.facts["port"])


@probe("sends a datagram (UDP, DNS)", possible=IN_WORKSPACE, why=_DATAGRAMS)
def udp():
    send_to(socket.AF_INET, ("127.0.0.1", facts.udp_port))


@harm(udp)
def _(world):
    return world.heard("udp")


@probe("sends a datagram by IPv6", possible=IN_WORKSPACE, why=_DATAGRAMS, optional="it has no IPv6")
def udp6():
    send_to(socket.AF_INET6, ("::1", facts.udp_port6))


@harm(udp6)
def _(world):
    return world.heard("udp6")


@probe("pings", optional="it lets no user ping")
def ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as made:
        made.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1), ("127.0.0.1", 0))


@probe(
    "listens on a TCP port",
    possible=IN_WORKSPACE,
    why="ipykernel listens itself, and so do many libraries",
)
def listen():
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.listen()


@probe("listens by Multipath TCP", optional="it has no Multipath TCP")
def listen_mptcp():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


@probe("opens a raw socket", possible=NOWHERE, why="Linux wants CAP_NET_RAW")
def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@probe("opens a packet socket", possible=NOWHERE, why="Linux wants CAP_NET_RAW")
def packet():
    socket.socket(PACKET, socket.SOCK_RAW, 0).close()


@probe("opens an XDP socket", possible=NOWHERE, why="Linux wants CAP_NET_RAW")
def xdp():
    socket.socket(XDP, socket.SOCK_RAW, 0).close()


@probe(
    "asks the kernel for the machine's addresses (netlink)",
    possible=EVERYWHERE,
    why="the C library and libzmq ask so; it changes nothing",
)
def netlink_route():
    with socket.socket(NETLINK, socket.SOCK_RAW, 0) as made:
        made.bind((0, 0))


@probe("asks the kernel about other processes' sockets (netlink)")
def netlink_diag():
    socket.socket(NETLINK, socket.SOCK_RAW, 4).close()


@probe("listens to the kernel's news of devices (netlink)")
def netlink_uevent():
    with socket.socket(NETLINK, socket.SOCK_RAW, 15) as made:
        made.bind((0, 1))


@probe("opens a netlink socket of any other kind")
def netlink_others():
    opened = []
    for kind in {*range(1, 23)} - {4, 15}:
        try:
            socket.socket(NETLINK, socket.SOCK_RAW, kind).close()
            opened.append(kind)
        except OSError as error:
            last = error
    if not opened:
        raise last
    return opened


@probe("opens a socket to the machine's hypervisor (vsock)", optional="it has no vsock")
def vsock():
    socket.socket(VSOCK, socket.SOCK_STREAM, 0).close()


@probe("opens a socket to the kernel's cryptography", optional="it has none")
def crypto():
    socket.socket(CRYPTO, socket.SOCK_SEQPACKET, 0).close()


@probe("opens a Bluetooth socket", optional="it has no Bluetooth")
def bluetooth():
    socket.socket(BLUETOOTH, socket.SOCK_RAW, 1).close()


@probe("opens a socket of any other family", optional="it has none")
def other_families():
    opened = []
    for family in {*range(3, 46)} - {
        socket.AF_INET6,
        NETLINK,
        PACKET,
        CRYPTO,
        BLUETOOTH,
        VSOCK,
        XDP,
    }:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            try:
                socket.socket(family, kind, 0).close()
                opened.append(family)
            except OSError as error:
                last = error
    if not opened:
        raise last
    return opened


@probe("makes a pair of sockets, and sends from it to a path (`sendto`)")
def pair_sendto():
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        first.sendto(b"x", facts.log)


@harm(pair_sendto)
def _(world):
    return world.heard("log")


@probe("makes a pair of sockets, and sends from it to a path (`sendmsg`)")
def pair_sendmsg():
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        first.sendmsg([b"x"], [], 0, facts.log)


@harm(pair_sendmsg)
def _(world):
    return world.heard("log")


@probe("makes a pair of sockets, and sends from it to a path (`sendmmsg`)")
def pair_sendmmsg():
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        address = struct.pack("=H", socket.AF_UNIX) + facts.log.encode() + b"\0"
        call("sendmmsg", first.fileno(), messages(b"x", address), 1, 0)


@harm(pair_sendmmsg)
def _(world):
    return world.heard("log")


@probe("makes a pair of sockets, and connects one of them to a path")
def pair_connect():
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        first.connect(facts.log)
        first.send(b"x")


@harm(pair_connect)
def _(world):
    return world.heard("log")


@probe("has io_uring connect for it", optional="it has no io_uring")
def io_uring():
    handle = call("io_uring_setup", 4, ctypes.create_string_buffer(120))
    os.close(handle)


@probe(
    "reads which ports others listen on (`/proc/net`)",
    possible=(*IN_WORKSPACE, STRICT_PLAIN),
    why="only a network namespace hides them, and only strict has one",
)
def listening_ports():
    with open("/proc/net/tcp") as file:
        if f":{facts.port:04X} " not in file.read():
            raise Refused("the port is not there")


@probe("leaves its network for another one", possible=NOWHERE, why="Linux wants CAP_SYS_ADMIN")
def other_network():
    call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)
