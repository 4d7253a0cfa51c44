"""The host as a target: messages that its worker forges."""

import os
import socket
import sys
from contextlib import suppress

from tests.security.abuse import descriptors, facts, hand_over, say_as_output
from tests.security.probe import NOWHERE, harm, topic

probe = topic("Messages to the host")

_SURVIVES = "the host checks all that a worker says, in every profile"


@probe("sends garbage as output", possible=NOWHERE, why=_SURVIVES, fresh=True)
def garbage():
    say_as_output(b"garbage", b"\xff" * 1000)


@harm(garbage)
def _(world):
    return not world.host_answers()


@probe(
    "sends messages that are signed, and make no sense", possible=NOWHERE, why=_SURVIVES, fresh=True
)
def nonsense():
    kernel = get_ipython().kernel  # noqa: F821  the worker's
    content = {"text": 1, "data": [], "id": {}}
    for kind in ("stream", "display_data", "execute_reply", "commit_request", "status"):
        kernel.session.send(kernel.iopub_socket, kind, content=content, parent=kernel.get_parent())


@harm(nonsense)
def _(world):
    return not world.host_answers()


@probe(
    "sends a message that is nested a hundred thousand times",
    possible=NOWHERE,
    why=_SURVIVES,
    fresh=True,
)
def nested():
    text = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    say_as_output(b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", text)


@harm(nested)
def _(world):
    return not world.host_answers()


@probe(
    "writes garbage into the raw sockets of its kernel", possible=NOWHERE, why=_SURVIVES, fresh=True
)
def raw_garbage():
    for handle in descriptors():
        with suppress(OSError), socket.socket(fileno=os.dup(handle)) as raw:
            raw.setblocking(False)
            raw.send(b"\xff" * 4096)


@harm(raw_garbage)
def _(world):
    return not world.host_answers()


_ONLY_DATA = "what is pulled is data of a list of Hive's own, in every profile"


@probe("hands over a pickle where a variable is pulled", possible=NOWHERE, why=_ONLY_DATA)
def pickled_value():
    command = f"echo pickled >> {facts.marks}"
    python = "{}.{}".format(*sys.version_info)
    hand_over(["pickle", python, 0], f"cos\nsystem\n(S'{command}'\ntR.".encode())


@harm(pickled_value)
def _(world):
    world.pull()
    return world.marks.exists() and "pickled" in world.marks.read_text()


@probe("hands over an array that is longer than its memory", possible=NOWHERE, why=_ONLY_DATA)
def array_without_memory():
    hand_over(["array", "<i8", [2**20], None, 0], bytes(8))


@harm(array_without_memory)
def _(world):
    return world.pull() is not None


@probe("hands over addresses as the objects of an array", possible=NOWHERE, why=_ONLY_DATA)
def array_of_objects():
    hand_over(["array", "|O", [2], None, 0], b"A" * 16)


@harm(array_of_objects)
def _(world):
    return world.pull() is not None
