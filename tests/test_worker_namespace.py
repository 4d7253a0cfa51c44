"""The worker's variables, looked at without running the user's code."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.worker.tools import namespace


@pytest.fixture
def variables(project, shell):
    """What the tool says of variables that are given by name."""

    def told(**values):
        shell.user_ns.update(values)
        rows = project.ok("variables").structured_content["variables"]
        return {row["name"]: row for row in rows}

    return told


def test_ping_answers_pong(project):
    assert "pong" == str(project.ok("ping"))


def test_variables_are_told_with_type_size_and_text(variables):
    told = variables(a=1, words=["x", "y"], text="é" * 1000, _hidden=1)

    assert {"name": "a", "type": "int", "text": "1"} == told["a"]
    assert ("list", 2, "['x', 'y']") == tuple(
        told["words"][key] for key in ("type", "length", "text")
    )
    assert told["words"]["size"] > 0
    assert (1000, True) == (told["text"]["length"], told["text"]["text"].endswith("..."))
    assert "_hidden" not in told
    assert not {"In", "Out", "exit", "get_ipython"} & set(told)


def test_tables_and_arrays_are_told_with_their_shapes(variables):
    frame = pd.DataFrame({"n": range(10), "dtype": "x", "nbytes": "y"})

    told = variables(array=np.zeros((3, 4)), frame=frame, series=frame["n"])

    assert "numpy.ndarray" == told["array"]["type"]
    assert ([3, 4], 96) == (told["array"]["shape"], told["array"]["size"])
    assert "3 x 4  float64" == told["array"]["text"]
    assert [10, 3] == told["frame"]["shape"]
    assert "10 x 3  'n', 'dtype', 'nbytes'" == told["frame"]["text"]
    assert "10  int64" == told["series"]["text"]


def test_no_code_of_the_users_runs(variables):
    ran = []

    class Sly:
        shape = property(lambda self: ran.append("shape"))

        def note(self, *_):
            ran.append("method")
            raise SystemExit

        __repr__ = __str__ = __len__ = __sizeof__ = __iter__ = __hash__ = __getattr__ = note
        __class__ = property(lambda self: ran.append("class"))

    class Items(list):
        __repr__ = __len__ = __iter__ = Sly.note

    told = variables(sly=Sly(), items=Items([1]), inside=[Sly(), {1: Sly()}], kind=Sly)

    assert [] == ran
    assert told["sly"]["text"].endswith("Sly>")
    assert "length" not in told["items"]
    assert "Sly" in told["inside"]["text"]


def test_a_value_that_cannot_be_looked_at_is_told(variables):
    class Meta(type):
        @property
        def __module__(cls):
            raise RuntimeError

    told = variables(odd=Meta("Odd", (), {})(), fine=1)

    assert "cannot be shown: RuntimeError" == told["odd"]["text"]
    assert "1" == told["fine"]["text"]


def test_variables_can_be_asked_for_by_a_pattern_and_are_limited(project, shell):
    shell.user_ns.update({f"df{number}": number for number in range(10)}, other=1)

    few = project.ok("variables", name="df*", limit=3)

    assert ["df0", "df1", "df2"] == [row["name"] for row in few.structured_content["variables"]]
    assert "[Cut after 3." in str(few)
    assert 11 == few.structured_content["total"]
    assert "No variable matches x*." == str(project.ok("variables", name="x*"))


def test_reset_forgets_all(project, shell):
    shell.run_cell("a = 1\nimport os\n_private = 2")

    said = str(project.ok("reset"))

    assert "Forgotten: a, os." == said
    assert "There are no variables." == str(project.ok("variables"))
    assert "There were no variables." == str(project.ok("reset"))
    assert shell.run_cell("a").error_in_exec is not None
    assert shell.run_cell("b = 1; b").success


def test_without_a_shell_there_are_no_variables(project):
    assert "no IPython shell" in project.error("variables")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=9)
        | st.dictionaries(st.text(), inner, max_size=9)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(plain)
def test_a_short_text_is_short(value):
    text = namespace.short(value)

    assert len(text) < 10_000
    if isinstance(value, (bool, float, type(None))):
        assert repr(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(10**5000, "<a number of 16610 bits>", id="huge"),
        (list(range(10)), "[0, 1, 2, 3, 4, ...]"),
        ({"a": {"b": {"c": {}}}}, "{'a': {'b': <dict>}}"),
        ({1}, "{1}"),
        ("x" * 100, "'" + "x" * 80 + "'..."),
        (len, "<builtin_function_or_method len>"),
        (int, "<type int>"),
        (np, "<module numpy>"),
    ],
)
def test_short_texts(value, text):
    assert text == namespace.short(value)


# In a worker


def test_a_worker_tells_its_variables_forgets_them_and_goes_on(hive):
    hive.delegate("import math\nanswer = 42\ntable = [1, 2]")
    told = hive.delegate_to_coder("variables").structured_content["variables"]

    assert ["answer", "math", "table"] == [row["name"] for row in told]
    assert "Forgotten: answer, math, table." == str(hive.delegate_to_coder("reset"))
    assert "There are no variables." == str(hive.delegate_to_coder("variables"))
    with pytest.raises(NameError):
        hive.delegate("answer")
    assert "3" == hive.delegate("a = 1\na + 2").value_repr
