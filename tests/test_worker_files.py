"""Reading, listing, writing and editing files, by the worker's tools."""

import codecs
import hashlib
import os
import stat
import time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hive_jupyter.worker.tools import workspace

LINES = "".join(f"line {n}\n" for n in range(1, 101))

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# read_file


def test_a_file_is_read_as_it_is_and_told_about(project):
    project.write("a.py", "x = 1\ny = 2\n")

    result = project.ok("read_file", path="a.py")

    text, about = map(str, result.content)
    assert "x = 1\ny = 2\n" == text
    assert "a.py: lines 1 to 2 of 2." in about
    assert {
        "path": "a.py",
        "start_line": 1,
        "end_line": 2,
        "total_lines": 2,
        "digest": sha256(b"x = 1\ny = 2\n"),
        "encoding": "utf-8",
    } == result.structured_content


def test_some_lines_are_read(project):
    project.write("a.txt", LINES)

    result = project.ok("read_file", path="a.txt", start_line=99, end_line=200)

    assert "line 99\nline 100\n" == str(result.content[0])
    assert (99, 100) == (
        result.structured_content["start_line"],
        result.structured_content["end_line"],
    )


def test_a_whole_number_may_come_as_another_kind_of_number(project):
    project.write("a.txt", LINES)

    result = project.ok("read_file", path="a.txt", start_line=100.0)

    assert "line 100\n" == str(result.content[0])


def test_lines_that_are_not_there_are_an_error_that_says_how_many_are(project):
    project.write("a.txt", LINES)

    assert "has 100 lines" in project.error("read_file", path="a.txt", start_line=101)
    assert "before" in project.error("read_file", path="a.txt", start_line=9, end_line=8)


def test_an_empty_file_has_no_lines(project):
    project.write("a.txt", "")

    result = project.ok("read_file", path="a.txt")

    assert "" == str(result.content[0])
    assert 0 == result.structured_content["total_lines"]


def test_a_long_file_is_read_piece_by_piece_as_the_answers_say(project):
    project.write("a.txt", LINES * 20)
    pieces, start, total = [], 1, 1
    while start <= total:
        result = project.ok("read_file", 5000, path="a.txt", start_line=start)
        facts = result.structured_content
        pieces.append(str(result.content[0]))
        if facts["end_line"] < facts["total_lines"]:
            assert f"start_line={facts['end_line'] + 1}" in str(result.content[1])
        start, total = facts["end_line"] + 1, facts["total_lines"]

    assert LINES * 20 == "".join(pieces)
    assert len(pieces) > 2


def test_a_line_that_is_longer_than_an_answer_is_cut_and_told(project):
    project.write("a.txt", "a" * 10_000)

    result = project.ok("read_file", 5000, path="a.txt")

    assert "Line 1 is cut" in str(result.content[1])
    assert result.structured_content["digest"]


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (codecs.BOM_UTF8 + "é\n".encode(), "é\n", "utf-8"),
        (codecs.BOM_UTF16_LE + "é\n".encode("utf-16-le"), "é\n", "utf-16-le"),
        (codecs.BOM_UTF16_BE + "é\n".encode("utf-16-be"), "é\n", "utf-16-be"),
        (codecs.BOM_UTF32_LE + "é\n".encode("utf-32-le"), "é\n", "utf-32-le"),
        ("# coding: latin-1\né\n".encode("latin-1"), "# coding: latin-1\né\n", "latin-1"),
        (
            "#!/bin/x\n# vim: fileencoding=cp1252\n€\n".encode("cp1252"),
            "#!/bin/x\n# vim: fileencoding=cp1252\n€\n",
            "cp1252",
        ),
        (b"x = 1\n# coding: latin-1\n", "x = 1\n# coding: latin-1\n", "utf-8"),
        (b"# coding: hex\n", "# coding: hex\n", "utf-8"),
        (b"# coding: no-such-thing\n", "# coding: no-such-thing\n", "utf-8"),
    ],
)
def test_a_files_beginning_tells_its_encoding(project, data, text, encoding):
    project.write("a.py", data)

    result = project.ok("read_file", path="a.py")

    assert text == str(result.content[0])
    assert encoding == result.structured_content["encoding"]


def test_the_caller_may_know_the_encoding(project):
    project.write("a.txt", "é\n".encode("latin-1"))

    assert "name its encoding" in project.error("read_file", path="a.txt")
    assert "é\n" == str(project.ok("read_file", path="a.txt", encoding="latin-1").content[0])
    assert "no encoding" in project.error("read_file", path="a.txt", encoding="latin-eins")
    assert "no encoding" in project.error("read_file", path="a.txt", encoding="base64")


def test_a_binary_file_is_told(project):
    project.write("a.png", b"\x89PNG\r\n\0\0\0")
    project.write("b.bin", b"text\0text")

    assert "binary file" in project.error("read_file", path="a.png")
    assert "binary file" in project.error("read_file", path="b.bin")


def test_a_file_of_5_gigabytes_is_refused_at_once(project):
    with open(project.root / "big.log", "wb") as file:
        file.truncate(5 * 2**30)
    started = time.monotonic()

    assert "5 GB" in project.error("read_file", path="big.log")
    assert "5 GB" in project.error("edit_file", path="big.log", old_text="a", new_text="b")
    assert "5 GB" in project.error("save_file", path="big.log", content="b")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        *((tool, "pipe") for tool in ("read_file", "save_file", "edit_file", "search_files")),
        *((tool, "socket") for tool in ("read_file", "save_file", "edit_file", "search_files")),
        *((tool, "folder") for tool in ("read_file", "save_file", "edit_file")),
    ],
)
def test_what_is_no_file_is_told_and_does_not_block(project, tool, kind):
    path = project.root / "thing"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.mkdir()
    arguments = {
        "read_file": {},
        "save_file": {"content": "a"},
        "edit_file": {"old_text": "a", "new_text": "b"},
        "search_files": {"pattern": "a"},
    }[tool]

    said = project.error(tool, path="thing", **arguments)

    assert "thing is a" in said
    assert kind in said


def test_a_missing_file_is_an_error_that_names_one_like_it(project):
    project.write("src/settings.py", "")

    said = project.error("read_file", path="src/setings.py")

    assert 'Did you mean "src/settings.py"?' in said


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "a" * 300, "a/" * 3000 + "b"])
def test_a_path_that_cannot_be_is_an_error(project, path):
    assert project.error("read_file", path=path)
    assert project.error("save_file", path=path, content="")


# list_files


def names(result):
    return [entry["path"] for entry in result.structured_content["entries"]]


def test_files_and_folders_are_listed_in_order(project):
    project.write("b.py", "12345")
    project.write("a/c/d.py", "")
    os.symlink("b.py", project.root / "link")

    result = project.ok("list_files")

    assert ["b.py", "link", "a", "a/c", "a/c/d.py"] == names(result)
    assert {"path": "b.py", "kind": "file", "size": 5} == result.structured_content["entries"][0]
    assert "b.py  (5 B)\nlink  (link)\na/\na/c/\na/c/d.py  (0 B)" == str(result)


def test_a_listing_leaves_out_what_git_ignores_and_what_is_hidden(project):
    for name in ("a.py", "b.log", "build/c.py", ".env", "sub/d.tmp", "sub/e.py"):
        project.write(name, "")
    project.write(".gitignore", "*.log\nbuild/\n")
    project.write("sub/.gitignore", "*.tmp\n")
    project.git("init", "--quiet")

    assert ["a.py", "sub", "sub/e.py"] == names(project.ok("list_files"))
    everything = names(project.ok("list_files", hidden=True))
    assert {".env", ".gitignore", "b.log", "build/c.py", "sub/d.tmp"} < set(everything)
    assert not any(name.startswith(".git/") for name in everything)


def test_a_repository_in_the_project_is_listed_too(project):
    project.write("a.py", "")
    project.write("inner/b.py", "")
    project.git("init", "--quiet")
    project.git("init", "--quiet", "inner")

    assert ["a.py", "inner", "inner/b.py"] == names(project.ok("list_files"))


def test_a_listing_can_be_narrowed(project):
    for name in ("a.py", "b.md", "src/c.py", "src/deep/d.py", "src/deep/e.md"):
        project.write(name, "")

    assert ["a.py", "src/c.py", "src/deep/d.py"] == names(project.ok("list_files", glob="*.py"))
    assert ["src/c.py"] == names(project.ok("list_files", glob="src/*.py"))
    assert ["src/c.py", "src/deep/d.py"] == names(project.ok("list_files", glob="src/**/*.py"))
    assert ["b.md", "src/deep/e.md"] == names(project.ok("list_files", glob="**/*.{md,rst}"))
    assert ["a.py", "b.md", "src"] == names(project.ok("list_files", depth=1))
    assert ["src/deep/d.py", "src/deep/e.md"] == names(project.ok("list_files", path="src/deep"))
    assert "Nothing matches *.c." == str(project.ok("list_files", glob="*.c"))
    assert "too many" in project.error("list_files", glob="{a,b}" * 20)


def test_a_listing_says_where_it_was_cut(project):
    for number in range(100):
        project.write(f"{number:03}.txt", "")

    few = project.ok("list_files", limit=3)
    little = project.ok("list_files", 4000)

    assert ["000.txt", "001.txt", "002.txt"] == names(few)
    assert few.structured_content["truncated"]
    assert "[Cut after 3." in str(few)
    assert 3 < len(names(little)) < 100
    assert "holds no more" in str(little)


def test_a_file_has_no_listing(project):
    project.write("a.py", "")

    assert "read_file" in project.error("list_files", path="a.py")


# save_file


def test_a_new_file_is_written_with_its_folders(project):
    result = project.ok("save_file", path="a/b/c.py", content="x = 1\n")

    assert b"x = 1\n" == (project.root / "a/b/c.py").read_bytes()
    assert {"path": "a/b/c.py", "digest": sha256(b"x = 1\n"), "created": True} == (
        result.structured_content
    )


def test_a_file_keeps_its_mode_and_line_ends(project):
    path = project.write("run.bat", "one\r\ntwo\r\n")
    path.chmod(0o754)

    result = project.ok("save_file", path="run.bat", content="1\n2\n3\n")

    assert b"1\r\n2\r\n3\r\n" == path.read_bytes()
    assert 0o754 == stat.S_IMODE(path.stat().st_mode)
    assert result.structured_content["created"] is False
    assert ["run.bat"] == os.listdir(project.root)


def test_a_file_keeps_its_byte_order_mark(project):
    path = project.write("a.csv", codecs.BOM_UTF16_LE + "é".encode("utf-16-le"))

    project.ok("save_file", path="a.csv", content="ü")

    assert codecs.BOM_UTF16_LE + "ü".encode("utf-16-le") == path.read_bytes()


def test_a_new_files_mode_is_that_of_any_new_file(project):
    old = os.umask(0o027)
    try:
        project.ok("save_file", path="a.py", content="")
    finally:
        os.umask(old)

    assert 0o640 == stat.S_IMODE((project.root / "a.py").stat().st_mode)


def test_a_file_that_has_changed_since_it_was_read_is_not_overwritten(project):
    path = project.write("a.py", "mine\n")
    digest = project.ok("read_file", path="a.py").structured_content["digest"]
    path.write_text("theirs\n")

    said = project.error("save_file", path="a.py", content="mine too\n", digest=digest)

    assert "changed since" in said
    assert "theirs\n" == path.read_text()
    path.unlink()
    assert "gone" in project.error("save_file", path="a.py", content="", digest=digest)


def test_a_new_file_takes_no_others_place(project):
    path = project.write("a.py", "theirs\n")

    assert "exists already" in project.error(
        "save_file", path="a.py", content="mine\n", digest="new"
    )
    assert "theirs\n" == path.read_text()
    project.ok("save_file", path="b.py", content="mine\n", digest="new")


def test_to_save_again_after_an_answer_was_lost_is_no_error(project):
    project.write("a.py", "old\n")
    digest = project.ok("read_file", path="a.py").structured_content["digest"]

    for _ in range(2):
        project.ok("save_file", path="a.py", content="new\n", digest=digest)
        project.ok("save_file", path="b.py", content="new\n", digest="new")


def test_a_link_is_followed_and_stays(project):
    path = project.write("real/a.py", "old\n")
    os.symlink("real/a.py", project.root / "link.py")

    project.ok("save_file", path="link.py", content="new\n")

    assert "new\n" == path.read_text()
    assert (project.root / "link.py").is_symlink()


def test_a_link_that_leads_nowhere_is_not_written(project):
    os.symlink("nowhere.py", project.root / "link.py")

    assert "leads nowhere" in project.error("save_file", path="link.py", content="")
    assert not (project.root / "nowhere.py").exists()


def test_a_binary_file_is_not_overwritten_by_a_text(project):
    path = project.write("a.png", b"\x89PNG\0")

    assert "binary" in project.error("save_file", path="a.png", content="text")
    assert b"\x89PNG\0" == path.read_bytes()


def test_text_that_its_encoding_lacks_is_refused(project):
    path = project.write("a.py", "# coding: latin-1\n")

    said = project.error("save_file", path="a.py", content="# coding: latin-1\n€\n")

    assert "'€'" in said
    assert "# coding: latin-1\n" == path.read_text()
    assert project.error("save_file", path="b.py", content="\ud800")
    assert "no encoding" in project.error("save_file", path="b.py", content="", encoding="x")


def test_an_encoding_can_be_chosen_anew(project):
    path = project.write("a.txt", "é\r\n".encode("latin-1"))

    project.ok("save_file", path="a.txt", content="é\n", encoding="utf-8")

    assert "é\n".encode() == path.read_bytes()


def test_nothing_is_left_of_a_save_that_failed(project, monkeypatch):
    path = project.write("a.py", "old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert "No space left" in project.error("save_file", path="a.py", content="new\n")
    assert "old\n" == path.read_text()
    assert ["a.py"] == os.listdir(project.root)


@shared
@given(
    content=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
    there=st.none() | st.sampled_from([b"", b"a\n", b"a\r\nb\r\n", codecs.BOM_UTF8 + b"a\n"]),
)
def test_what_is_saved_is_what_is_read(project, content, there):
    path = project.root / "a.txt"
    path.unlink(missing_ok=True)
    if there is not None:
        path.write_bytes(there)

    saved = project.ok("save_file", path="a.txt", content=content)
    read = project.ok("read_file", path="a.txt")

    expected = content.removeprefix("\ufeff")
    assert expected.removesuffix("\n") == str(read.content[0]).removesuffix("\n")
    assert read.structured_content["digest"] == saved.structured_content["digest"]
    if there and b"\r" in there:
        assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


# edit_file


def test_a_text_is_replaced_and_the_difference_shown(project):
    path = project.write("a.py", "a = 1\nb = 2\nc = 3\n")

    result = project.ok("edit_file", path="a.py", old_text="b = 2", new_text="b = 4")

    assert "a = 1\nb = 4\nc = 3\n" == path.read_text()
    diff = "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n a = 1\n-b = 2\n+b = 4\n c = 3\n"
    assert {
        "path": "a.py",
        "digest": sha256(path.read_bytes()),
        "replacements": 1,
        "diff": diff,
    } == result.structured_content
    assert diff in str(result)


def test_each_of_several_is_replaced_where_so_many_are_expected(project):
    path = project.write("a.py", "x\ny\nx\n")

    said = project.error("edit_file", path="a.py", old_text="x", new_text="z")

    assert "2 times (lines 1, 3)" in said
    assert "x\ny\nx\n" == path.read_text()
    project.ok("edit_file", path="a.py", old_text="x", new_text="z", count=2)
    assert "z\ny\nz\n" == path.read_text()


def test_an_old_text_that_is_not_there_is_an_error_that_helps(project):
    project.write("a.py", "def f():\n    return 1\n")

    near = project.error("edit_file", path="a.py", old_text="def f():\n  return 1", new_text="x")
    far = project.error("edit_file", path="a.py", old_text="def g():", new_text="x")

    assert "From line 1 on it is there with other spaces" in near
    assert "Read the file again" in far


@pytest.mark.parametrize(("old", "new"), [("", "x"), ("a", "a")])
def test_an_edit_that_means_nothing_is_an_error(project, old, new):
    project.write("a.py", "a\n")

    assert project.error("edit_file", path="a.py", old_text=old, new_text=new)


def test_only_a_file_that_is_there_can_be_edited(project):
    assert "save_file" in project.error("edit_file", path="a.py", old_text="a", new_text="b")


def test_line_ends_are_those_of_the_file(project):
    path = project.write("a.txt", "one\r\ntwo\r\nthree\r\n")
    mixed = project.write("b.txt", "one\ntwo\r\nthree\n")

    project.ok("edit_file", path="a.txt", old_text="one\ntwo", new_text="1\n2")
    project.ok("edit_file", path="b.txt", old_text="two\nthree", new_text="2\n3")

    assert b"1\r\n2\r\nthree\r\n" == path.read_bytes()
    assert b"one\n2\r\n3\n" == mixed.read_bytes()


def test_an_edit_with_an_old_digest_is_refused(project):
    path = project.write("a.py", "a\n")
    digest = project.ok("read_file", path="a.py").structured_content["digest"]
    path.write_text("a\nb\n")

    assert "changed since" in project.error(
        "edit_file", path="a.py", old_text="a", new_text="c", digest=digest
    )


def test_a_file_that_would_change_elsewhere_is_not_edited(project):
    data = "# coding: utf-7\n+AOk- é\n".encode().replace("é".encode(), b"+AOkA6Q-")
    path = project.write("a.py", data)

    said = project.error("edit_file", path="a.py", old_text="coding", new_text="encoding")

    assert "cannot be edited as utf-7" in said
    assert data == path.read_bytes()


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "linked"])
@pytest.mark.parametrize("tool", ["edit_file", "save_file"])
def test_a_file_that_changes_under_the_edit_keeps_the_change(project, monkeypatch, tool, how):
    path = project.write("a.py", "a = 1\n")
    outside = project.write("../outside.py", "a = 1\n")
    flush = os.fsync

    def change(descriptor):
        if how == "written":
            path.write_text("a = 2\n")
        elif how == "replaced":
            project.write("other", "a = 2\n").replace(path)
        elif how == "removed":
            path.unlink()
        else:
            path.unlink()
            path.symlink_to(outside)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", change)
    arguments = {
        "edit_file": {"old_text": "1", "new_text": "3"},
        "save_file": {"content": "a = 3\n"},
    }[tool]

    assert "somebody else" in project.error(tool, path="a.py", **arguments)
    assert "a = 1\n" == outside.read_text()
    assert not [name for name in os.listdir(project.root) if "hive" in name]
    if how in ("written", "replaced"):
        assert "a = 2\n" == path.read_text()


def test_a_file_that_appears_under_the_save_stays(project, monkeypatch):
    flush = os.fsync

    def appear(descriptor):
        project.write("a.py", "theirs\n")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", appear)

    assert "somebody else" in project.error("save_file", path="a.py", content="mine\n")
    assert "theirs\n" == (project.root / "a.py").read_text()


def test_a_file_system_without_hard_links_takes_new_files(project, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    project.ok("save_file", path="a.py", content="mine\n")

    assert "mine\n" == (project.root / "a.py").read_text()
    assert ["a.py"] == os.listdir(project.root)


@shared
@given(
    before=st.text("ab\n", max_size=30),
    old=st.text("ab\n", min_size=1, max_size=3),
    new=st.text("xy\n", max_size=3),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
)
def test_an_edit_is_what_pythons_replace_does(project, before, old, new, end, mark):
    count = before.count(old)
    assume(count and old != new)
    # of a file without any line end, nobody can tell which it has
    assume("\n" in before or end == "\n")
    path = project.root / "a.txt"
    path.write_bytes(mark + before.replace("\n", end).encode())

    project.ok("edit_file", path="a.txt", old_text=old, new_text=new, count=count)

    assert mark + before.replace(old, new).replace("\n", end).encode() == path.read_bytes()


def test_the_difference_of_a_large_file_is_made_at_once(project):
    project.write("a.txt", "a\n" * 500_000)
    started = time.monotonic()

    result = project.ok("edit_file", path="a.txt", old_text="a", new_text="b", count=500_000)

    assert "[The diff is cut" in str(result)
    assert time.monotonic() - started < 60


def test_a_file_as_large_as_may_be_is_read(project, monkeypatch):
    monkeypatch.setattr(workspace, "LARGEST_FILE", 100)
    project.write("a.txt", "a" * 100)
    project.write("b.txt", "a" * 101)

    assert "a" * 100 in str(project.ok("read_file", path="a.txt"))
    assert "101 B" in project.error("read_file", path="b.txt")


def test_what_git_names_behind_a_link_is_not_listed(project, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    project.write("here/b.py", "x")
    project.commit()
    (project.root / "link").symlink_to(outside)
    content = project.git("rev-parse", "HEAD:here/b.py").decode().strip()
    project.git("update-index", "--add", "--cacheinfo", f"100644,{content},link/secret")

    listed = project.ok("list_files").structured_content["entries"]

    assert ["here", "here/b.py", "link"] == sorted(entry["path"] for entry in listed)
