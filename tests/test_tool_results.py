"""What tools are and answer, on the wire and within its limits; tools of the user's own."""

import json
import math
from typing import Annotated, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import (
    LARGEST_RESULT,
    REGISTERED,
    Call,
    Tool,
    ToolContent,
    ToolResult,
    current_call,
    head,
    serve,
    tool,
    within,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
blocks = st.one_of(
    st.builds(ToolContent, st.just("text"), text=st.text()),
    st.builds(
        ToolContent, st.sampled_from(["image", "audio"]), data=st.text(), mime_type=st.text()
    ),
    st.builds(ToolContent, st.just("resource_link"), uri=st.text(), name=st.text()),
    st.builds(ToolContent, st.just("resource"), uri=st.text(), text=st.text()),
)
results = st.builds(
    ToolResult,
    st.lists(blocks, max_size=5).map(tuple),
    st.booleans(),
    st.none() | st.dictionaries(st.text(), anything, max_size=3),
)


@pytest.fixture
def registered():
    """The registry of tools, as it was at the end."""
    before = dict(REGISTERED)
    yield REGISTERED
    REGISTERED.clear()
    REGISTERED.update(before)


def size(result):
    return len(json.dumps(result.to_wire()))


# On the wire


@given(results)
def test_a_result_survives_the_wire(result):
    wire = json.loads(json.dumps(result.to_wire()))

    assert result == ToolResult.from_wire(wire)


@given(
    anything.filter(lambda value: isinstance(value, dict))
    | st.fixed_dictionaries(
        {}, optional={"content": anything, "isError": anything, "structuredContent": anything}
    )
)
def test_whatever_comes_is_some_result(wire):
    result = ToolResult.from_wire(wire)

    json.dumps(result.to_wire())
    assert isinstance(str(result), str)


def test_a_tool_survives_the_wire():
    described = Tool("a", "Do it.", {"type": "object"}, read_only=False, destructive=False)

    assert described == Tool.from_wire(json.loads(json.dumps(described.to_wire())))


@given(st.dictionaries(st.sampled_from(["name", "inputSchema", "annotations", "x"]), anything))
def test_a_tool_of_another_server_is_understood_or_refused(wire):
    try:
        described = Tool.from_wire(wire)
    except ToolError:
        return
    assert described.obvious is None or isinstance(described.obvious, str)
    json.dumps(described.to_wire())


words = st.sampled_from(["type", "enum", "minimum", "maximum", "items", "x"])
odd_schemas = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(
            st.sampled_from("ab"), anything | st.dictionaries(words, anything | st.just("array"))
        ),
        "required": anything | st.lists(st.sampled_from("ab")),
    },
)


@given(schema=odd_schemas, arguments=st.dictionaries(st.sampled_from("abc"), anything))
def test_arguments_are_checked_against_any_schema(schema, arguments):
    try:
        Tool("a", "", schema).check(arguments)
    except ToolError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ["", "a"], [1, None, []]),
        ({"type": "integer"}, [1, -1, 2.0], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True], [1, "true"]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"type": "array", "items": {"type": "string"}}, [[], ["a"]], ["a", [1]]),
        ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 3], [0, 4]),
        ({"enum": ["a", "b"]}, ["a"], ["c", 1]),
        ({}, [1, "a", None], []),
    ],
)
def test_a_value_fits_a_schema_or_is_refused(schema, good, bad):
    described = Tool("t", "", {"type": "object", "properties": {"x": schema}})

    for value in good:
        assert {"x": value} == described.check({"x": value})
    for value in bad:
        with pytest.raises(ToolError, match="t: x has to be"):
            described.check({"x": value})


def test_a_whole_number_is_one_however_it_came():
    described = Tool("t", "", {"type": "object", "properties": {"x": {"type": "integer"}}})

    assert isinstance(described.check({"x": 2.0})["x"], int)


# Within limits


@given(results, st.integers(1000, 3000))
def test_a_result_is_never_larger_than_the_limit(result, limit):
    cut = within(result, limit)

    assert size(cut) <= limit
    assert result.is_error is cut.is_error
    if size(result) <= limit:
        assert result is cut


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=50), min_size=20))
def test_what_is_left_is_the_beginning_and_the_cut_is_told(lines):
    text = "\n".join(lines)
    cut = within(ToolResult((ToolContent("text", text),)), 1000, "Ask for less.")

    if size(ToolResult((ToolContent("text", text),))) > 1000:
        *beginning, note = map(str, cut.content)
        assert text.startswith("".join(beginning))
        assert note.startswith("[Cut: ")
        assert note.endswith("Ask for less.]")


def test_more_blocks_than_anybody_reads_are_cut():
    read = ToolResult.from_wire({"content": [{"type": "text", "text": ""}] * 10**6})

    assert len(read.content) < 10_000
    assert "blocks more" in read.content[-1].text


def test_structure_goes_before_text():
    text = ToolContent("text", "a" * 1000)

    cut = within(ToolResult((text,), structured_content={"a": "a" * 2000}), 2000)

    assert text == cut.content[0]
    assert "structured content was left out" in str(cut)


@given(st.text(), st.integers(-10, 100))
def test_the_beginning_of_a_text_is_one_and_fits(text, most):
    beginning = head(text, most)

    assert text.startswith(beginning)
    assert not beginning or len(json.dumps(beginning)) <= most


# The call


def test_a_tool_knows_its_call_and_no_other():
    call = Call(17, lambda *_: None)

    assert "17" == str(serve(call, lambda: str(current_call().limit), {}))
    assert LARGEST_RESULT == current_call().limit


# Tools of the user's own


def test_a_function_is_described_by_its_signature(registered):
    @tool(read_only=True)
    def rows(
        path: Annotated[str, "Of the file."],
        count: int = 3,
        kind: Literal["a", "b"] = "a",
        names: list[str] | None = None,
        share: Optional[float] = None,  # noqa: UP045
        other="x",
        mode: Literal["r", "w"] | None = None,
        place: Literal["here"] | int = 0,
    ):
        """Tell rows."""

    described, function = registered["rows"]

    assert function is rows
    assert "Tell rows." == described.description
    assert described.read_only
    assert described.is_repeatable
    assert ("path",) == described.required
    assert {"type": "string", "description": "Of the file."} == described.arguments["path"]
    assert {"type": "integer", "default": 3} == described.arguments["count"]
    assert {"enum": ["a", "b"], "default": "a"} == described.arguments["kind"]
    assert {"array", "null"} == set(described.arguments["names"]["type"])
    assert {"type": "string"} == described.arguments["names"]["items"]
    assert {"enum": ["r", "w", None]} == described.arguments["mode"]
    assert [{"enum": ["here"]}, {"type": "integer"}] == described.arguments["place"]["anyOf"]
    assert {"number", "null"} == set(described.arguments["share"]["type"])
    assert "string" == described.arguments["other"]["type"]
    json.dumps(described.to_wire())


def test_a_function_without_a_docstring_is_no_tool(registered):
    with pytest.raises(ToolError, match="docstring"):

        @tool
        def silent():
            pass

    assert "silent" not in registered


def test_an_annotation_without_a_schema_is_refused(registered):
    with pytest.raises(ToolError, match="odd: x"):

        @tool
        def odd(x: complex):
            """Do it."""

    assert "odd" not in registered


@pytest.mark.parametrize("value", [object(), math.inf, {1}, b""])
def test_a_default_that_json_cannot_hold_is_refused(registered, value):
    with pytest.raises(ToolError, match="odd: x has the default"):

        @tool
        def odd(x=value):
            """Do it."""

    assert "odd" not in registered


def test_arguments_without_names_are_refused(registered):
    with pytest.raises(ToolError, match="rest"):

        @tool
        def many(*rest):
            """Do it."""

    assert "many" not in registered


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), ("a", "a"), (ToolResult.failure("no"), "no")]
)
def test_what_a_function_returns_is_a_result(value, text):
    assert text == str(ToolResult.of(value))


def test_a_dict_is_structure_and_text():
    result = ToolResult.of({"a": 1})

    assert {"a": 1} == result.structured_content
    assert {"a": 1} == json.loads(str(result))
