"""Whatever frames a worker sends: they are passed on checked, or it is reported, once."""

import asyncio
import json
import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_jupyter.swarm.channels import Channels, Context, _check_content
from hive_jupyter.swarm.messages import OUTPUTS
from hive_jupyter.swarm.run import Run
from tests.test_channels import Peer

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KINDS = st.sampled_from([*sorted(OUTPUTS), "status", "execute_reply", "input_request", "strange"])
FIELDS = st.sampled_from(
    [
        "name",
        "text",
        "data",
        "metadata",
        "transient",
        "wait",
        "ename",
        "evalue",
        "traceback",
        "execution_state",
        "status",
        "prompt",
        "password",
    ]
)
TRICKS = st.one_of(
    st.tuples(st.just("honest"), st.text(max_size=5)),
    st.tuples(st.just("large"), st.integers(1, 3_000_000)),
    st.tuples(st.just("lying"), KINDS, st.dictionaries(FIELDS, JSON, max_size=4)),
    st.tuples(st.just("nonsense"), st.lists(JSON, min_size=4, max_size=4)),
    st.tuples(st.just("noise"), st.lists(st.binary(max_size=10), min_size=1, max_size=8)),
    st.tuples(st.just("foreign")),
    st.tuples(st.just("replayed")),
    st.tuples(st.just("cut"), st.integers(0, 6)),
    st.tuples(st.just("swapped"), st.integers(1, 6), st.integers(1, 6)),
)


def honest(peer, request, text):
    return [b"topic", *peer.frames("stream", {"name": "stdout", "text": text}, request)]


def frames_of(peer, request, trick, last):
    """The frames that a worker sends who plays this trick; ``last`` are those before."""
    kind, *how = trick
    good = honest(peer, request, "x")
    if kind == "honest":
        return honest(peer, request, *how)
    if kind == "large":
        return honest(peer, request, "x" * how[0])
    if kind == "lying":
        return [b"topic", *peer.frames(*how, request)]
    if kind == "nonsense":
        parts = [json.dumps(part).encode() for part in how[0]]
        return [b"topic", b"<IDS|MSG>", peer.session.sign(parts), *parts]
    if kind == "noise":
        return how[0]
    if kind == "foreign":
        return [*good[:2], b"0" * 64, *good[3:]]
    if kind == "replayed":
        return last
    if kind == "cut":
        return [*good[: how[0]], *good[how[0] + 1 :]]
    first, second = how
    good[first], good[second] = good[second], good[first]
    return good


async def play(folder, tricks):
    """Send all that, then an honest word; what was heard, reported, and went wrong in the host."""
    faults, heard, violations = [], [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    peer, context = Peer(folder), Context()
    channels = Channels(context, peer.connection, "coder", violations.append)
    try:
        await peer.hears()
        run = Run("1", heard.append)
        channels.begin(run)
        request = await peer.receive()
        last = honest(peer, request, "first")
        for trick in (("honest", "first"), *tricks, ("honest", "end")):
            last = frames_of(peer, request, trick, last)
            await peer.iopub.send_multipart(last)
        async with asyncio.timeout(20):
            while not violations and "end" not in texts(heard):
                await asyncio.sleep(0.001)
    finally:
        channels.close()
        context.term()
        peer.close()
    return heard, violations, faults


def texts(heard):
    return [message.content["text"] for message in heard if message.type == "stream"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TRICKS, max_size=6))
def test_frames_are_passed_on_checked_or_reported_once(tricks):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        heard, violations, faults = asyncio.run(play(folder, tricks))

    assert [] == faults
    assert len(violations) <= 1
    assert "first" == texts(heard)[0]
    assert bool(violations) != ("end" in texts(heard)[1:])
    for message in heard:
        assert message.type in OUTPUTS
        _check_content(message.type, message.content, message.metadata)
    if {trick[0] for trick in tricks} <= {"honest", "large"}:
        said = [trick[1] if trick[0] == "honest" else "x" * trick[1] for trick in tricks]
        assert ["first", *said, "end"] == texts(heard)
