"""What host and worker say to each other arrives as it was meant."""

import types

from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.policy import SMALLEST_MEMORY, SandboxPolicy
from hive_jupyter.protocol import LineBuffer, WorkerSpec, encode_line

# As os.environ and file names have it: bytes that are no UTF-8 are lone surrogates.
TEXT = st.text(st.characters(codec=None, exclude_categories=[]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda children: st.lists(children) | st.dictionaries(TEXT, children),
    max_leaves=5,
)
EVENTS = st.dictionaries(TEXT, JSON, max_size=4)


@given(
    name=TEXT,
    path=st.lists(TEXT).map(tuple),
    environment=st.dictionaries(TEXT, TEXT),
    memory=st.none() | st.integers(SMALLEST_MEMORY),
    argv=st.lists(TEXT).map(tuple),
)
def test_a_spec_arrives_whole(name, path, environment, memory, argv):
    """File names and variables that are no UTF-8 included."""
    spec = WorkerSpec(
        name=name,
        folder="/f",
        cwd="/c",
        path=path,
        environment=environment,
        policy=SandboxPolicy(memory=memory),
        connection={"transport": "ipc", "ports": [0, 0]},
        argv=argv,
    )
    line = spec.to_json()

    assert 1 == line.count(b"\n")
    assert spec == WorkerSpec.from_json(line)


def test_any_mapping_may_be_the_environment():
    """A read-only view is as good as a dict."""
    spec = WorkerSpec(
        name="",
        folder="",
        cwd="",
        path=(),
        environment=types.MappingProxyType({"A": "1"}),
        policy=SandboxPolicy(),
        connection={},
    )

    assert {"A": "1"} == WorkerSpec.from_json(spec.to_json()).environment


@given(events=st.lists(EVENTS, max_size=5), data=st.data())
def test_lines_are_put_together_from_any_pieces(events, data):
    """A stream may cut anywhere, within a character too."""
    stream = b"".join(encode_line(event) for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    buffer = LineBuffer()

    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += buffer.feed(stream[start:end])

    assert events == received
