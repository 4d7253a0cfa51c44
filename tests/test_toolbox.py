"""Hive's own tools as data, and how people call them."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import ConfigError
from hive_jupyter.toolbox import BUILT_IN, SHORT_NAMES, full_name, read_details
from hive_jupyter.tools import Tool

READ, SEARCH, SAVE = (BUILT_IN[name] for name in ("read_file", "search_files", "save_file"))
tools = st.sampled_from(list(BUILT_IN.values()))


@pytest.mark.parametrize("described", BUILT_IN.values(), ids=BUILT_IN)
def test_each_tool_is_described_and_refuses_the_unknown(described):
    schema = described.input_schema

    assert "." == described.description[-1]
    assert "object" == schema["type"]
    assert schema["additionalProperties"] is False
    assert set(described.required) <= set(described.arguments)
    for argument in described.arguments.values():
        assert argument["description"]
    wire = json.loads(json.dumps(described.to_wire()))
    assert wire == Tool.from_wire(wire).to_wire()


def needed(described):
    return dict.fromkeys(described.required, "a")


def test_defaults_fit_their_schemas():
    for described in BUILT_IN.values():
        defaults = {n: a["default"] for n, a in described.arguments.items() if "default" in a}
        described.check({**needed(described), **defaults})


def test_what_writes_says_so():
    reading = {name for name, described in BUILT_IN.items() if described.read_only}

    assert BUILT_IN.keys() - reading == {
        "save_file",
        "edit_file",
        "ast_rewrite",
        "execute",
        "reset",
        "request_commit",
    }


@pytest.mark.parametrize(("word", "name"), [*SHORT_NAMES.items(), ("ping", "ping"), ("x", "x")])
def test_short_names_are_words_for_tools(word, name):
    assert name == full_name(word)
    assert name in BUILT_IN or word == "x"


@pytest.mark.parametrize(
    ("described", "details", "arguments"),
    [
        (READ, "", {}),
        (READ, "a.py", {"path": "a.py"}),
        (READ, "path=a.py", {"path": "a.py"}),
        (READ, "path='my file.py' start_line=3", {"path": "my file.py", "start_line": 3}),
        (READ, "a.py start_line=3", {"path": "a.py", "start_line": 3}),
        (READ, '{"path": "a.py"}', {"path": "a.py"}),
        (READ, "pth=a.py", {"pth": "a.py"}),
        (SEARCH, "TODO", {"pattern": "TODO"}),
        (SEARCH, '"two words"', {"pattern": "two words"}),
        (SEARCH, "two  words", {"pattern": "two  words"}),
        (SEARCH, "x=1", {"pattern": "x=1"}),
        (SEARCH, "TODO regex=yes limit=3", {"pattern": "TODO", "regex": True, "limit": 3}),
        (SEARCH, "TODO regex=perhaps", {"pattern": "TODO", "regex": "perhaps"}),
        (SAVE, "a.py content=1", {"path": "a.py", "content": "1"}),
        (BUILT_IN["execute"], "print('a b')", {"code": "print('a b')"}),
        (BUILT_IN["request_commit"], "m paths=a,b", {"message": "m", "paths": ["a", "b"]}),
        (BUILT_IN["request_commit"], 'm paths=["a,b"]', None),
    ],
)
def test_details_are_read(described, details, arguments):
    if arguments is not None:
        assert arguments == read_details(described, details)
    else:
        assert "paths" in read_details(described, details)


@pytest.mark.parametrize(
    ("described", "details", "said"),
    [
        (READ, "'a.py", "No closing quotation"),
        (READ, '{"path": ', "begin like JSON"),
        (READ, "path=a.py b.py", "'b.py' is no argument of read_file"),
        (BUILT_IN["ping"], "loud", "it takes: none"),
    ],
)
def test_details_that_make_no_sense_are_an_error(described, details, said):
    with pytest.raises(ConfigError, match=said):
        read_details(described, details)


@given(tools, st.text())
def test_any_details_are_arguments_or_an_error(described, details):
    try:
        arguments = read_details(described, details)
    except ConfigError as error:
        assert str(error)
        return
    assert all(isinstance(name, str) for name in arguments)


values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(path=values, line=st.integers(1, 99))
def test_quoted_words_are_what_was_meant(path, line):
    details = f"path={shlex.quote(path)} start_line={line}"

    assert {"path": path, "start_line": line} == read_details(READ, details)


@given(st.dictionaries(st.sampled_from(["path", "content", "x"]), values))
def test_json_is_taken_as_it_is(arguments):
    assert arguments == read_details(SAVE, json.dumps(arguments))
