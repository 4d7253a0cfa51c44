"""A diff shows all that a commit would change, whatever is done to hide it."""

import json
import re
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import diff, marks
from hive_jupyter.guard import git as gits
from hive_jupyter.guard.requests import CommitRequest, Requester


class Trees:
    """A bare repository into which trees are written without any work tree."""

    def __init__(self, folder):
        self.folder = folder
        self("init", "-q", "--bare", "-b", "main")

    def __call__(self, *arguments, stdin=b""):
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def tree(self, files):
        """A tree of {path: content, or (mode, content)}; all in one folder."""
        lines = []
        for path, given_ in files.items():
            mode, content = given_ if isinstance(given_, tuple) else ("100644", given_)
            content = (
                content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
            )
            kind, blob = "blob", None
            if mode == "160000":
                kind, blob = "commit", content.decode()
            blob = blob or self("hash-object", "-w", "--stdin", stdin=content)
            lines.append(f"{mode} {kind} {blob}\t{path}\0".encode("utf-8", "surrogateescape"))
        return self("mktree", "-z", stdin=b"".join(lines))

    def request(self, old, new):
        parent = None
        if old is not None:
            who = ("-c", "user.name=a", "-c", "user.email=a@b")
            parent = self(*who, "commit-tree", "-m", "m", self.tree(old))
        return CommitRequest(
            id="abc", requester=Requester("user", "ada"), repository=str(self.folder),
            ref="refs/heads/main", parent=parent, tree=self.tree(new), message="m",
        )  # fmt: skip

    def changes(self, old, new):
        return {change.name: change for change in self.request(old, new).changes()}


@pytest.fixture
def trees(tmp_path):
    return Trees(tmp_path)


def test_each_kind_of_change_is_told(trees):
    """With its numbers of lines."""
    long = "".join(f"line {number}\n" for number in range(40))
    found = trees.changes(
        {"m": "1\n2\n", "d": "x\n", "old": long, "t": "f\n", "x": "1\n", "same": "s\n"},
        {"m": "1\n3\n", "a": "n", "new": long + "more\n", "t": ("120000", "/etc"),
         "x": ("100755", "1\n"), "same": "s\n"},
    )  # fmt: skip

    assert {
        "m": ("changed", 1, 1), "d": ("deleted", 0, 1), "a": ("new", 1, 0),
        "old -> new": ("renamed", 1, 0), "t": ("changed kind", 1, 1), "x": ("changed", 0, 0),
    } == {name: (one.what, one.added, one.removed) for name, one in found.items()}  # fmt: skip
    assert ("is a symbolic link",) == found["t"].marks
    assert ("becomes executable",) == found["x"].marks
    assert "old mode 100644\nnew mode 100755" in found["x"].patch
    assert "rename from old\nrename to new" in found["old -> new"].patch
    assert ["-f", "+/etc"] == [
        line for line in found["t"].patch.split("\n") if line[1:] in {"f", "/etc"}
    ]


def test_the_text_has_a_summary_what_to_look_at_and_all_patches(trees):
    """In this order."""
    text = trees.request({}, {"a.py": "a\n", ".gitattributes": "*.py -diff\n"}).diff()

    assert text.startswith("Files changed: 2. Lines added: 2, removed: 0.\n\n  new ")
    assert text.index("Look closely at:\n  .gitattributes: steers git\n") < text.index(
        "+*.py -diff"
    )
    assert "+++ b/a.py\n@@ -0,0 +1 @@\n+a\n" in text


def test_a_change_of_nothing_is_shown_as_nothing(trees):
    """An empty file's mode, and no file at all."""
    assert "Files changed: 0." in trees.request({"a": "1"}, {"a": "1"}).diff()
    assert (0, 0) == ((one := trees.changes({}, {"e": ""})["e"]).added, one.removed)


@pytest.mark.parametrize("content", [b"import os\0\nevil()\n", b"x = 1\n" * 1000 + b"\0\n"])
def test_a_nul_hides_no_text(trees, content):
    """git would say that binary files differ."""
    change = trees.changes({"a.py": "old = 1\n"}, {"a.py": content})["a.py"]

    assert "text that git takes for binary" in change.marks
    assert "-old = 1\n" in change.patch
    assert "<U+0000>" in change.patch
    assert content.count(b"\n") == change.added


def test_what_cannot_be_read_says_so(trees):
    """And how large it is."""
    picture = bytes(range(256)) * 8
    change = trees.changes({"a.png": picture}, {"a.png": picture * 2})["a.png"]

    assert (None, None) == (change.added, change.removed)
    assert ("binary, cannot be read: 2 KB -> 4 KB",) == change.marks
    assert "Binary files a/a.png and b/a.png differ" in change.patch


def test_a_file_that_looks_like_a_patch_does_not_pass_for_one(trees):
    """Its lines are its lines."""
    fake = (
        "x\n\ndiff --git a/b b/b\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-1\n+2\n"
        "Binary files a and b differ\n"
    )
    found = trees.changes({"a": "1\n", "z": "1\n"}, {"a": fake, "z": "2\n"})

    assert ["a", "z"] == list(found)
    assert (9, 1) == (found["a"].added, found["a"].removed)
    assert "+diff --git a/b b/b\n" in found["a"].patch
    assert found["z"].patch.startswith("diff --git a/z b/z\n")


def test_what_a_screen_would_obey_or_swallow_is_visible(trees):
    """In lines, and in names."""
    line = "if admin:\u202e \u2066# \u2069 \u200b\x1b[1A\x1b[2K\r\x07\u3164\U000e0041\ufe01\udcff"
    found = trees.changes({}, {"a\u202ey\x1b.py": line})
    ((name, change),) = found.items()

    assert "a<U+202E>y<U+001B>.py" == name
    assert (
        "+if admin:<U+202E> <U+2066># <U+2069> <U+200B><U+001B>[1A<U+001B>[2K<U+000D><U+0007>"
        "<U+3164><U+E0041><U+FE01><0xFF>"
    ) in change.patch
    assert {"odd characters in its name", "invisible or control characters"} <= set(change.marks)
    assert all(letter.isprintable() or letter in "\n\t" for letter in change.patch)


def test_names_are_shown_as_people_write_them(trees):
    """In the patch, too; what is no letter is spelled out there as well."""
    found = trees.changes({"Übung\u202e.py": "1\n"}, {"Übung\u202e.py": "2\n"})

    patch = found["Übung<U+202E>.py"].patch
    assert "diff --git a/Übung<U+202E>.py b/Übung<U+202E>.py\n" in patch
    assert "--- a/Übung<U+202E>.py\n+++ b/Übung<U+202E>.py\n" in patch
    new = trees.changes({}, {"Übung.png": bytes(range(256)) * 8})["Übung.png"]
    assert "Binary files /dev/null and b/Übung.png differ" in new.patch


def test_a_name_does_not_pass_for_a_patch(trees):
    """Nothing that a name holds begins a line of git's."""
    long = "".join(f"line {number}\n" for number in range(40))
    names = [
        "é\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2".replace("/", "|"),
        "diff --git a|x b|x",
        "é\u2028diff --git a|x b|x",
        "é\x85@@ -1 +1 @@",
        "é\rdiff --git x",
        'é" b|"diff --git x',
    ]
    old = {"m": long, **dict.fromkeys(names[2:], "1\n")}
    request = trees.request(old, {names[0]: long, **dict.fromkeys(names[1:], "2\n")})
    changes = request.changes()

    assert {("m", names[0]), *((name, name) for name in names[1:])} == {
        (change.raw.old_path, change.raw.path) for change in changes
    }
    for change in changes:
        heads = [line for line in change.patch.split("\n") if line.startswith("diff --git ")]
        assert 1 == len(heads)
    assert {(0, 0), (1, 0), (1, 1)} == {(change.added, change.removed) for change in changes}


def test_hashes_of_a_patch_are_short(trees):
    """In full they fill a line, and say nothing more: the tree's hash says it all."""
    change = trees.changes({"a": "1\n", "b": b"1\0\n"}, {"a": "2\n", "b": b"2\0\n"})

    for name in ("a", "b"):
        assert re.search(
            r"^index [0-9a-f]{7,12}\.\.[0-9a-f]{7,12} 100644$", change[name].patch, re.MULTILINE
        )
        assert re.fullmatch("[0-9a-f]{40}", change[name].raw.new_id)


def test_a_diff_that_nobody_reads_is_refused(trees, monkeypatch):
    """Pictures do not count."""
    monkeypatch.setattr(diff, "MOST_TEXT", 1000)
    picture = bytes(range(256)) * 8
    assert trees.changes({}, {"a.png": picture, "b": "x\n"})
    assert trees.changes(
        {"a.png": picture, "old": "x\n" * 200}, {"a.png": b"\0", "new": "x\n" * 200 + "y"}
    )

    with pytest.raises(RepositoryError, match="1000 B is the most. Ask for it in parts"):
        trees.changes({}, {"a.png": picture, "b": "x\n" * 501})


def test_what_many_names_share_counts_for_each_of_them(trees, monkeypatch):
    monkeypatch.setattr(diff, "MOST_TEXT", 1000)

    assert 4 == len(trees.changes({}, dict.fromkeys("abcd", "x\n" * 120)))
    with pytest.raises(RepositoryError, match="1000 B is the most. Ask for it in parts"):
        trees.changes({}, dict.fromkeys("abcde", "x\n" * 120))


def test_text_behind_a_nul_counts_too(trees, monkeypatch):
    monkeypatch.setattr(diff, "MOST_TEXT", 1000)

    with pytest.raises(RepositoryError, match="1000 B is the most. Ask for it in parts"):
        trees.changes({}, dict.fromkeys("abcde", b"x = 1\n" * 40 + b"\0\n"))


def test_what_is_only_renamed_is_not_text_to_be_read(trees, monkeypatch):
    monkeypatch.setattr(diff, "MOST_TEXT", 1000)
    table = "1,2\n" * 1000

    moved = trees.changes({"a.csv": table}, {"b.csv": ("100755", table)})["a.csv -> b.csv"]

    assert (0, 0, ("becomes executable",)) == (moved.added, moved.removed, moved.marks)


@pytest.mark.parametrize("most", [2, 0])
def test_more_files_than_anybody_reads_are_refused(trees, monkeypatch, most):
    """Just too many, and so many that they are not even counted."""
    monkeypatch.setattr(diff, "MOST_FILES", 3)
    assert 3 == len(trees.changes({}, dict.fromkeys("abc", "")))
    monkeypatch.setattr(diff, "MOST_FILES", most)

    with pytest.raises(RepositoryError, match=f"more than {most} files.* Ask for it in parts"):
        trees.changes({}, dict.fromkeys("abc", ""))


@pytest.mark.parametrize(
    "padding", ["", " " * 2000 + "x\n", " " * 2000 + "\0" * 900], ids=["short", "long", "binary"]
)
def test_a_pointer_that_only_gets_another_name_is_marked(trees, padding):
    """Its content comes in its place when that name goes through git-lfs."""
    oid = "ab" * 32
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 3145728\n"
    content = pointer + padding

    change = trees.changes({"docs": content}, {"run.py": content})["docs -> run.py"]

    assert ("kept by git-lfs: its 3 MB are not shown",) == change.marks


def test_contents_are_read_in_one_call_of_git(trees, monkeypatch):
    """Each call starts a process."""
    calls, run = [], gits.run_program
    monkeypatch.setattr(
        gits, "run_program", lambda *given, **more: (calls.append(given[0]), run(*given, **more))[1]
    )
    files = {f"{number}.ipynb": notebook({"source": str(number)}) for number in range(20)}
    numbers = []
    for count in (2, 20):
        old = dict(list(files.items())[:count])
        new = {name: content + b"\n" for name, content in old.items()}
        calls.clear()
        assert count == len(trees.request(old, new).changes())
        numbers.append(len(calls))

    assert numbers[0] == numbers[1]


def test_a_submodules_commit_is_shown(trees):
    """It is a line of its own kind."""
    change = trees.changes({"m": ("160000", "a" * 40)}, {"m": ("160000", "b" * 40)})["m"]

    assert f"-Subproject commit {'a' * 40}\n+Subproject commit {'b' * 40}\n" in change.patch
    assert ("is a submodule",) == change.marks


NAMES = st.text(
    st.characters(codec=None, exclude_characters="\0/", exclude_categories=[]),
    min_size=1,
    max_size=12,
).filter(
    lambda name: (
        name.lower() not in {".", "..", ".git", "git~1"}
        and name.encode("utf-8", "ignore").decode() == name
    )
)
CONTENTS = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode())


@settings(max_examples=15)
@given(
    old=st.dictionaries(NAMES, CONTENTS, max_size=3),
    new=st.dictionaries(NAMES, CONTENTS, max_size=3),
)
def test_any_change_is_shown_without_harm(tmp_path_factory, old, new):
    """Nothing is left out, and nothing but text, line ends and tabs comes out."""
    trees = Trees(tmp_path_factory.mktemp("bare"))

    request = trees.request(old, new)
    text = request.diff()

    touched = {
        path for change in request.changes() for path in (change.raw.path, change.raw.old_path)
    }
    assert {name for name in {*old, *new} if old.get(name) != new.get(name)} == touched
    assert all(letter.isprintable() or letter in "\n\t" for letter in text)


# --- marks ---


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        (".github/workflows/test.yml", "runs in CI"),
        ("sub/Jenkinsfile", "runs in CI"),
        (".gitlab-ci.yml", "runs in CI"),
        (".pre-commit-config.yaml", "runs as a git hook"),
        (".githooks/pre-push", "runs as a git hook"),
        ("sub/.husky/x", "runs as a git hook"),
        ("sub/.gitattributes", "steers git"),
        (".gitmodules", "steers git"),
        (".env.production", "named like a secret"),
        ("keys/id_ed25519", "named like a secret"),
        ("x.pem", "named like a secret"),
        ("a\tb", "odd characters in its name"),
    ],
)
def test_files_that_others_obey_or_keep_for_themselves_are_marked(path, mark):
    assert [mark] == list(marks.of_path(path))


@pytest.mark.parametrize(
    "path", ["a.py", "src/hooked.py", "environment.yml", "docs/github/x.md", "keys.py", "é.py"]
)
def test_other_files_are_not_marked(path):
    assert [] == list(marks.of_path(path))


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "key = AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a" * 36,
        "PASSWORD = 'correct horse'".replace(" h", "h"),
        '  "api_key": "0123456789abcdef",',
        "url = https://ada:hunter2@example.org/x",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_lines_like_secrets_are_marked(line):
    assert ["looks like a secret: 1 added line"] == list(marks.of_lines([line, "x = 1"]))


@pytest.mark.parametrize(
    "line", ["password = getpass()", "token: str", "https://example.org/a:b@c", "x" * 1000, "\r"]
)
def test_ordinary_lines_are_not_marked(line):
    assert [] == list(marks.of_lines([line]))


@pytest.mark.parametrize("size", [2**23, 4000])
@pytest.mark.parametrize(
    "piece",
    ["eyJa", "-eyJ", "-eyJaaaaaaaaaa", "password", "://a", "-----BEGIN A", 'token="', "a://b:"],
)
def test_hostile_lines_do_not_hold_up_the_reader(piece, size):
    """Each mark looks at a line a bounded number of times."""
    lines = [piece * (size // len(piece))] * max(1, 2**20 // size)
    began = time.process_time()

    list(marks.of_lines(lines))

    assert time.process_time() - began < 5


@pytest.mark.parametrize("piece", ["/.", "/.env.", ".pem", "/hooks"])
def test_a_hostile_name_does_not_hold_up_the_reader(piece):
    name = piece * (2**17 // len(piece)) + "\n"
    began = time.process_time()

    list(marks.of_path(name))

    assert time.process_time() - began < 5


def test_a_secret_is_looked_for_at_the_beginning_of_a_long_line():
    long = "x" * 10_000

    assert "looks like a secret: 1 added line" in list(marks.of_lines([f"ghp_{'a' * 36} {long}"]))
    assert ["very long lines"] == list(marks.of_lines([f"{long} ghp_{'a' * 36}"]))


def notebook(*cells):
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}).encode()


def test_what_a_notebook_holds_beside_its_code_is_marked():
    shown = {
        "outputs": [{"data": {"text/html": "<b>"}}, {"data": {"image/png": ""}}, {"text": "x"}]
    }
    widget = {"outputs": [{"data": {"application/vnd.jupyter.widget-view+json": {}}}]}
    hidden = {"metadata": {"jupyter": {"source_hidden": True}}}
    tagged = {"metadata": {"tags": ["hide_input"]}, "attachments": {"a.png": {}}}

    assert [
        "4 stored outputs", "1 output with HTML or script", "1 widget", "2 hidden cells",
        "1 cell with attachments",
    ] == list(marks.of_notebook(notebook(shown, widget, hidden, tagged)))  # fmt: skip
    assert [] == list(marks.of_notebook(notebook({"cell_type": "code", "outputs": []})))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"cells": 1}',
        b'{"cells": [1]}',
        b"[" * 100_000,
        b"\xff",
        b'{"cells": []}\0',
    ],
)
def test_a_notebook_that_is_none_is_marked(content):
    assert ["not a notebook of format 4"] == list(marks.of_notebook(content))


def test_a_notebook_is_looked_into_up_to_a_size(monkeypatch):
    new = notebook(HIDDEN)
    monkeypatch.setattr(marks, "MOST_NOTEBOOK", len(new))

    assert "1 hidden cell" in list(marks.of_notebook(new, notebook(HIDDEN, ATTACHED)))
    assert ["a notebook too large to look into"] == list(marks.of_notebook(new + b"\n"))


def test_a_notebooks_marks_are_those_of_its_new_content(trees):
    old = notebook({"outputs": []})
    new = notebook({"outputs": [{"data": {"text/html": "x" * 5000}}]})

    assert ("1 stored output", "1 output with HTML or script") == (
        trees.changes({"a.ipynb": old}, {"a.ipynb": new})["a.ipynb"].marks
    )
    moved = trees.changes({"a.ipynb": new}, {"b.ipynb": new + b"\n"})["a.ipynb -> b.ipynb"]
    assert () == moved.marks


HTML = {"output_type": "execute_result", "execution_count": 1, "data": {"text/html": "<b>"}}
HIDDEN = {"source": "a", "metadata": {"jupyter": {"source_hidden": True}}, "outputs": [HTML]}
ATTACHED = {"source": "b", "attachments": {"a.png": {"image/png": "eA=="}}}


@pytest.mark.parametrize(
    ("new", "noted"),
    [
        ([HIDDEN, ATTACHED], []),
        ([ATTACHED, {"source": "new"}, HIDDEN], []),
        ([{**HIDDEN, "metadata": {**HIDDEN["metadata"], "execution": {"began": "12:00"}}}], []),
        ([{**HIDDEN, "outputs": [{**HTML, "execution_count": 7}]}], []),
        ([HIDDEN, {"outputs": [HTML]}], ["1 stored output", "1 output with HTML or script"]),
        ([{**HIDDEN, "outputs": [{"text": "new"}]}], ["1 stored output"]),
        ([{**HIDDEN, "source": "other"}], ["1 hidden cell"]),
        ([{**HIDDEN, "cell_type": "raw"}], ["1 hidden cell"]),
        ([{**HIDDEN, "metadata": {"tags": ["hide-cell"]}}], ["1 hidden cell"]),
        ([HIDDEN, HIDDEN], ["1 stored output", "1 output with HTML or script", "1 hidden cell"]),
        ([{**ATTACHED, "attachments": {"b.png": {}}}], ["1 cell with attachments"]),
    ],
)
def test_what_a_notebook_held_before_is_not_marked_again(new, noted):
    """How often a cell was run, and when, is not content."""
    assert noted == list(marks.of_notebook(notebook(*new), notebook(HIDDEN, ATTACHED)))


@pytest.mark.parametrize("old", [b"", b"{", b"[]", b'{"cells": [1]}', b"[" * 100_000])
def test_where_there_was_no_notebook_all_of_it_is_new(old):
    assert ["1 cell with attachments"] == list(marks.of_notebook(notebook(ATTACHED), old))
