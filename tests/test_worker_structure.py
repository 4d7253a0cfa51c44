"""Finding and rewriting code by its structure."""

import ast
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("ast_grep_py")


CODE = """\
def main():
    print("one")
    print(
        "two",
        2,
    )
"""


def places(result):
    return [(match["path"], match["line"]) for match in result.structured_content["matches"]]


def test_code_is_found_whatever_its_layout(project):
    project.write("a.py", CODE)
    project.write("b.js", 'print("one");\n')
    project.write("c.txt", 'print("one")\n')

    result = project.ok("ast_search", pattern="print($$$ARGS)")

    assert [("a.py", 2), ("a.py", 3), ("b.js", 1)] == places(result)
    assert {
        "path": "a.py",
        "line": 3,
        "column": 5,
        "end_line": 6,
        "text": 'print(\n        "two",\n        2,\n    )',
    } == result.structured_content["matches"][1]
    assert 'a.py:2: print("one")\na.py:3: print(\na.py:4:         "two",' in str(result)


def test_a_search_can_be_narrowed(project):
    project.write("a.py", CODE)
    project.write("b.js", "print(1);\n")
    project.write("sub/c.py", "print(1)\n")

    def found(**arguments):
        result = project.ok("ast_search", pattern="print($A)", **arguments)
        return [name for name, _ in places(result)]

    assert ["a.py", "sub/c.py"] == found(language="Python")
    assert ["b.js"] == found(glob="*.js")
    assert ["sub/c.py"] == found(path="sub")
    assert ["a.py"] == found(path="a.py")


def test_a_file_of_unknown_language_needs_one(project):
    project.write("script", "print(1)\n")

    assert "language" in project.error("ast_search", pattern="print($A)", path="script")
    found = project.ok("ast_search", pattern="print($A)", path="script", language="python")
    assert [("script", 1)] == places(found)


def test_an_unknown_language_is_an_error_that_names_the_nearest(project):
    said = project.error("ast_search", pattern="a", language="pyton")

    assert 'Did you mean "python"?' in said


@pytest.mark.parametrize("pattern", ["", "f($A) g", "a b c", "x" * 5000, "\ud800"])
@pytest.mark.parametrize("tool", ["ast_search", "ast_rewrite"])
def test_a_pattern_that_ast_grep_rejects_is_an_error(project, tool, pattern):
    path = project.write("a.py", CODE)
    arguments = {"rewrite": "x"} if tool == "ast_rewrite" else {}

    said = project.error(tool, pattern=pattern, **arguments)

    assert "pattern" in said
    assert "backtrace" not in said
    assert CODE == path.read_text()


def test_a_pattern_that_is_no_code_and_finds_nothing_is_an_error(project):
    project.write("a.py", CODE)

    assert "no complete piece of python" in project.error("ast_search", pattern="print(")


def test_a_pattern_need_not_be_a_piece_of_every_language_that_is_there(project):
    project.write("a.py", CODE)
    project.write("settings.json", "{}")

    assert [] == places(project.ok("ast_search", pattern="no_such_function($A)"))


def test_nothing_found_is_no_error(project):
    project.write("a.py", CODE)

    assert "Nothing found." == str(project.ok("ast_search", pattern="log($A)"))
    assert "Nothing found." == str(project.ok("ast_rewrite", pattern="log($A)", rewrite="$A"))


def test_a_missing_package_is_told(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ast_grep_py", None)

    assert "pip install ast-grep-py" in project.error("ast_search", pattern="a")


def test_a_search_says_where_it_was_cut(project):
    project.write("a.py", "f(1)\n" * 1000)

    few = project.ok("ast_search", pattern="f($A)", limit=3)
    little = project.ok("ast_search", 5000, pattern="f($A)")

    assert 3 == len(places(few))
    assert "[Cut after 3." in str(few)
    assert 3 < len(places(little)) < 200


# ast_rewrite


def test_code_is_rewritten_and_the_difference_shown(project):
    path = project.write("a.py", CODE)
    other = project.write("sub/b.py", "print(3)\n")

    result = project.ok("ast_rewrite", pattern="print($$$ARGS)", rewrite="log($$$ARGS)")

    assert 'def main():\n    log("one")\n    log("two",\n    2,)\n' == path.read_text()
    assert "log(3)\n" == other.read_text()
    facts = result.structured_content
    assert [
        {"path": "a.py", "replacements": 2},
        {"path": "sub/b.py", "replacements": 1},
    ] == facts["files"]
    assert '-    print("one")\n' in facts["diff"]
    assert '+    log("one")\n' in facts["diff"]
    assert facts["dry_run"] is False
    assert "Rewrote 3 in 2 files." in str(result)
    assert facts["diff"].rstrip() in str(result)


def test_a_dry_run_changes_nothing(project):
    path = project.write("a.py", CODE)

    dry = project.ok("ast_rewrite", pattern="print($A)", rewrite="log($A)", dry_run=True)

    assert CODE == path.read_text()
    assert "Would rewrite 1 in 1 files." in str(dry)
    wet = project.ok("ast_rewrite", pattern="print($A)", rewrite="log($A)")
    assert dry.structured_content["diff"] == wet.structured_content["diff"]


def test_what_is_taken_over_keeps_its_place(project):
    path = project.write(
        "a.py", "class A:\n    if x:\n        one()\n        if y:\n            two()\n"
    )

    project.ok(
        "ast_rewrite",
        pattern="if x:\n    $$$BODY",
        rewrite="for i in x:\n    if i:\n        $$$BODY",
    )

    assert (
        "class A:\n    for i in x:\n        if i:\n            one()\n"
        "            if y:\n                two()\n"
    ) == path.read_text()


def test_matches_within_matches_stay_for_the_next_time(project):
    path = project.write("a.py", "f(f(1))\n")

    project.ok("ast_rewrite", pattern="f($A)", rewrite="g($A)")

    assert "g(f(1))\n" == path.read_text()


def test_line_ends_and_encodings_stay(project):
    path = project.write("a.py", "# coding: latin-1\r\nprint('é')\r\n".encode("latin-1"))

    project.ok("ast_rewrite", pattern="print($A)", rewrite="if 1:\n    log($A)")

    assert "# coding: latin-1\r\nif 1:\r\n    log('é')\r\n".encode("latin-1") == path.read_bytes()


def test_a_name_that_the_pattern_does_not_have_is_an_error(project):
    path = project.write("a.py", CODE)

    said = project.error("ast_rewrite", pattern="print($A)", rewrite="log($B)")

    assert "$B" in said
    assert CODE == path.read_text()


def test_a_file_that_changes_under_the_rewrite_keeps_the_change(project, monkeypatch):
    first, second = project.write("a.py", "f(1)\n"), project.write("b.py", "f(1)\n")
    flush = os.fsync
    flushed = []

    def change(descriptor):
        flushed.append(descriptor)
        if len(flushed) == 2:
            second.write_text("theirs\n")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", change)

    said = project.error("ast_rewrite", pattern="f($A)", rewrite="g($A)")

    assert "b.py has been changed by somebody else" in said
    assert "Rewritten before that: a.py" in said
    assert "g(1)\n" == first.read_text()
    assert "theirs\n" == second.read_text()


def test_if_one_file_cannot_be_written_none_is(project):
    path = project.write("a.py", "f(1)\n")
    project.write("z.py", b"# coding: utf-7\nf('+AOk-')\n")

    said = project.error("ast_rewrite", pattern="f($A)", rewrite="g($A)")

    assert "z.py" in said
    assert "f(1)\n" == path.read_text()


def test_a_large_difference_is_cut(project):
    path = project.write("a.py", "f(1)\n" * 5000)

    result = project.ok("ast_rewrite", 5000, pattern="f($A)", rewrite="g($A)")

    assert "g(1)\n" * 5000 == path.read_text()
    assert "[Cut:" in str(result)
    assert [{"path": "a.py", "replacements": 5000}] == result.structured_content["files"]


names = st.sampled_from(["a", "b", "f", "é"])
expressions = st.recursive(
    names | st.integers(0, 99).map(str),
    lambda inner: st.builds("f({})".format, inner) | st.builds("[{}, {}]".format, inner, inner),
    max_leaves=8,
)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@shared
@given(lines=st.lists(expressions, min_size=1, max_size=5), blank=st.sampled_from(["", "\n"]))
def test_to_rewrite_to_the_end_is_to_rename_each_call(project, lines, blank):
    path = project.write("a.py", f"{blank}\n".join(lines) + "\n")
    expected = ast.unparse(Renamed().visit(ast.parse(path.read_text())))

    while project.ok("ast_rewrite", pattern="f($A)", rewrite="g($A)").structured_content["files"]:
        pass

    assert expected == ast.unparse(ast.parse(path.read_text()))


class Renamed(ast.NodeTransformer):
    def visit_Call(self, node):
        node.func.id = "g"
        return self.generic_visit(node)
