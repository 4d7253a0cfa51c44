"""Looking for lines: the same is found by ripgrep and without it."""

import os
import signal
import threading
import time

import pytest

from hive_jupyter.worker.tools import programs, search, walk

CATASTROPHE = "(a+)+$"


@pytest.fixture(params=["ripgrep", "python"])
def way(request, monkeypatch):
    """With which of the two is looked."""
    find = programs.find
    if request.param == "python":
        monkeypatch.setattr(programs, "find", lambda name: None if name == "rg" else find(name))
    elif find("rg") is None:
        pytest.skip("there is no ripgrep on this machine")
    return request.param


@pytest.fixture
def python(monkeypatch):
    """There is no ripgrep."""
    find = programs.find
    monkeypatch.setattr(programs, "find", lambda name: None if name == "rg" else find(name))


def places(result):
    return [(match["path"], match["line"]) for match in result.structured_content["matches"]]


@pytest.mark.usefixtures("way")
def test_a_text_is_found_line_by_line(project):
    project.write("a.py", "one\ntwo (2)\nthree two (2)\n")
    project.write("sub/b.py", "é two (2)\r\n")

    result = project.ok("search_files", pattern="two (2)")

    assert "a.py:2: two (2)\na.py:3: three two (2)\nsub/b.py:1: é two (2)" == str(result)
    assert [
        {"path": "a.py", "line": 2, "column": 1, "text": "two (2)"},
        {"path": "a.py", "line": 3, "column": 7, "text": "three two (2)"},
        {"path": "sub/b.py", "line": 1, "column": 3, "text": "é two (2)"},
    ] == result.structured_content["matches"]
    assert result.structured_content["truncated"] is False


@pytest.mark.usefixtures("way")
def test_an_expression_is_found(project):
    project.write("a.py", "def f():\r\n    return 1\ndef g(): pass\n")

    result = project.ok("search_files", pattern=r"^def \w+\(\):$", regex=True)

    assert [("a.py", 1)] == places(result)


@pytest.mark.usefixtures("way")
def test_what_only_pythons_expressions_can_is_found_too(project):
    project.write("a.py", "abab\nabba\n")

    assert [("a.py", 1)] == places(project.ok("search_files", pattern=r"(ab)\1(?!b)", regex=True))


@pytest.mark.usefixtures("way")
def test_upper_and_lower_case_may_be_the_same(project):
    project.write("a.py", "TODO\ntodo\n")

    assert 1 == len(places(project.ok("search_files", pattern="todo")))
    assert 2 == len(places(project.ok("search_files", pattern="todo", ignore_case=True)))


@pytest.mark.usefixtures("way")
def test_what_git_ignores_and_hidden_and_binary_files_are_left_out(project):
    for name in ("a.py", "b.log", "build/c.py", ".env", "sub/d.tmp"):
        project.write(name, "needle\n")
    project.write("e.bin", b"needle\0needle\n")
    project.write(".gitignore", "*.log\nbuild/\n*.tmp\n")
    project.git("init", "--quiet")

    assert [("a.py", 1)] == places(project.ok("search_files", pattern="needle"))
    found = places(project.ok("search_files", pattern="needle", hidden=True))
    assert [".env", "a.py", "b.log", "build/c.py", "sub/d.tmp"] == sorted(name for name, _ in found)


@pytest.mark.usefixtures("way")
def test_a_search_can_be_narrowed_and_a_glob_brings_nothing_back(project):
    for name in ("a.py", "b.md", "src/c.py", "src/deep/d.py", "ignored.py", ".hidden.py"):
        project.write(name, "needle\n")
    project.write(".gitignore", "ignored.py\n")
    project.git("init", "--quiet")

    def found(**arguments):
        return [
            name for name, _ in places(project.ok("search_files", pattern="needle", **arguments))
        ]

    assert ["a.py", "src/c.py", "src/deep/d.py"] == found(glob="*.py")
    assert ["src/c.py", "src/deep/d.py"] == found(glob="src/**/*.py")
    assert ["b.md", "src/c.py"] == sorted(found(glob="{b,c}.{md,py}"))
    assert ["src/c.py", "src/deep/d.py"] == found(path="src")
    assert ["src/deep/d.py"] == found(path="src", glob="deep/*")
    assert ["a.py"] == found(path="a.py")
    assert [] == found(glob="[")


@pytest.mark.usefixtures("way")
def test_no_link_is_followed(project):
    project.write("../outside/a.py", "needle\n")
    os.symlink("../outside", project.root / "folder")
    os.symlink("../outside/a.py", project.root / "file.py")

    result = project.ok("search_files", pattern="needle")

    assert "Nothing found." == str(result)
    assert [] == result.structured_content["matches"]


@pytest.mark.usefixtures("way")
def test_a_search_says_where_it_was_cut(project):
    project.write("a.txt", "needle\n" * 1000)

    few = project.ok("search_files", pattern="needle", limit=3)
    little = project.ok("search_files", 5000, pattern="needle")

    assert 3 == len(places(few))
    assert "[Cut after 3." in str(few)
    assert few.structured_content["truncated"]
    assert 3 < len(places(little)) < 200
    assert "holds no more" in str(little)


@pytest.mark.usefixtures("way")
def test_of_a_long_line_the_place_is_shown(project):
    project.write("a.min.js", "x" * 100_000 + "needle" + "y" * 100_000)

    (match,) = project.ok("search_files", pattern="needle").structured_content["matches"]

    assert 100_001 == match["column"]
    assert "needle" in match["text"]
    assert len(match["text"]) < 1000


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[z-a]", "(" * 5000, "*"])
def test_an_expression_that_is_none_is_an_error(project, pattern):
    project.write("a.py", "a\n")

    assert "no regular expression" in project.error("search_files", pattern=pattern, regex=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("pattern", ["", "a\nb"])
def test_a_pattern_that_no_line_can_hold_is_an_error(project, pattern):
    assert project.error("search_files", pattern=pattern)


@pytest.mark.usefixtures("way")
def test_a_binary_file_is_told(project):
    project.write("a.bin", b"needle\0")

    assert "binary" in project.error("search_files", pattern="needle", path="a.bin")


@pytest.mark.usefixtures("way")
def test_a_pattern_may_look_like_an_option(project):
    project.write("a.txt", "--help\n")

    assert [("a.txt", 1)] == places(project.ok("search_files", pattern="--help"))
    assert [("a.txt", 1)] == places(project.ok("search_files", pattern="--help", path="a.txt"))


@pytest.mark.usefixtures("way")
def test_no_configuration_of_the_project_runs_a_program(project, monkeypatch):
    proof = project.root / "proof"
    program = project.write("run", f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    settings = project.write("rgrc", f"--pre={program}\n")
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(settings))

    project.ok("search_files", pattern="needle")

    assert not proof.exists()


@pytest.mark.usefixtures("python")
def test_an_expression_of_exponential_time_is_ended(project, monkeypatch):
    monkeypatch.setattr(search, "DEADLINE", 1.0)
    project.write("a.txt", "a" * 40 + "b\n")

    said = project.error("search_files", pattern=CATASTROPHE, regex=True)

    assert "took longer than 1 s" in said
    assert "a.txt" in said


def test_ripgrep_takes_no_exponential_time(project):
    if programs.find("rg") is None:
        pytest.skip("there is no ripgrep on this machine")
    project.write("a.txt", "a" * 40 + "b\n")

    assert "Nothing found." == str(project.ok("search_files", pattern=CATASTROPHE, regex=True))


@pytest.mark.usefixtures("python")
def test_a_search_can_be_interrupted(project, monkeypatch):
    project.write("a.txt", "a" * 40 + "b\n")
    begun = threading.Event()
    ask = search._Matcher.found

    def found(self, *arguments):
        begun.set()
        return ask(self, *arguments)

    monkeypatch.setattr(search._Matcher, "found", found)
    main = threading.main_thread().ident

    def interrupt():
        begun.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        project.call("search_files", pattern=CATASTROPHE, regex=True)
    thread.join()

    assert time.monotonic() - started < search.DEADLINE


@pytest.mark.usefixtures("python")
def test_a_matcher_that_dies_is_told(project, monkeypatch):
    project.write("a.txt", "a\n")
    ask = search._Matcher.found

    def found(self, *arguments):
        # its input ends, and so does it
        self._input.write(b"no number\n")
        self._input.flush()
        return ask(self, *arguments)

    monkeypatch.setattr(search._Matcher, "found", found)

    assert "was ended" in project.error("search_files", pattern="a")


def test_a_long_search_says_how_far_it_is(project, monkeypatch):
    monkeypatch.setattr("hive_jupyter.worker.tools.answers._SECONDS_BETWEEN_REPORTS", 0)
    project.write("a.txt", "needle\n")

    project.ok("search_files", pattern="needle")

    assert project.reports
    assert all(isinstance(message, str) for _, _, message in project.reports)


def test_a_program_is_never_one_of_the_projects(project, monkeypatch):
    fake = project.write("bin/rg", "#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project.root / 'bin'}:bin:/usr/bin")
    monkeypatch.chdir(project.root)

    assert str(fake) != programs.find("rg")
    assert (programs.find("git") or "/").startswith("/")


@pytest.mark.parametrize(
    ("name", "pattern", "is_one"),
    [
        ("a.py", "*.py", True),
        ("sub/a.py", "*.py", True),
        ("sub/a.py", "/*.py", False),
        ("sub/a.py", "sub/*.py", True),
        ("sub/deep/a.py", "sub/*.py", False),
        ("sub/deep/a.py", "sub/**/*.py", True),
        ("sub/a.py", "sub/**/*.py", True),
        ("sub/a.py", "sub/**", True),
        ("sub/a.py", "**/a.py", True),
        ("a.py", "?.[p]y", True),
        ("a.py", "*.{js,py}", True),
        ("a.py", "{a,b}.{js,{ts,py}}", True),
        ("a.py", "", False),
        ("a" * 200, "*a" * 60 + "b", False),
    ],
)
def test_patterns_for_paths_are_those_of_gitignore(name, pattern, is_one):
    assert is_one is walk.matches(name, pattern)
