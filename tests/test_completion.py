"""Tab behind %hive and %delegate."""

from types import SimpleNamespace

import pytest
from IPython.core.completer import CompletionContext, provisionalcompleter

from hive_jupyter.notebook import compat
from hive_jupyter.notebook.completion import HiveCompleter
from hive_jupyter.notebook.magics import COMMANDS, DELEGATE, HiveMagics
from hive_jupyter.policy import PROFILES
from hive_jupyter.toolbox import BUILT_IN, SHORT_NAMES, read_details
from hive_jupyter.tools import Tool
from tests.fake_manager import FakeManager


@pytest.fixture
def manager():
    return FakeManager()


@pytest.fixture
def tab(shell, tab, monkeypatch, manager):
    """What Tab offers where the extension is loaded."""
    monkeypatch.setattr("hive_jupyter.notebook.completion._kernels", lambda: ["bash", "python3"])
    magics = HiveMagics(shell, manager)
    shell.register_magics(magics)
    compat.add_matcher(shell, HiveCompleter(magics).match)
    return tab


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("%hive ", list(COMMANDS)),
        ("%hive st", ["start", "stats", "status", "stop"]),
        ("%hive stop ", ["coder", "train"]),
        ("%hive stop tr", ["train"]),
        ("%hive logs -n 5 tr", ["train"]),
        ("%hive logs -w ", ["coder", "train"]),
        ("%hive logs --worker=tr", ["train"]),
        ("%hive restart train --", ["--help", "--memory", "--sandbox"]),
        ("%hive restart --sandbox ", list(PROFILES)),
        ("%hive restart --sandbox=st", ["strict"]),
        ("%hive add shell --kernel ", ["bash", "python3"]),
        ("%hive add shell --kernel=ba", ["bash"]),
        ("%hive config time", ["timeout="]),
        ("%hive config timeout=30s spa", ["spares="]),
        ("%hive config start", ["start_method"]),
        ("%hive tools sea", ["search", "search_files"]),
        ("%hive tools -w tr", ["train"]),
        ("  %hive stop tr", ["train"]),
        ("%delegate -w ", ["coder", "train"]),
        ("%delegate -w tr", ["train"]),
        ("%delegate -t tr", ["train"]),
        ("%delegate --worker=tr", ["train"]),
        ("%delegate --sandbox s", ["strict"]),
        ("%delegate -w train --time", ["--timeout"]),
        ("%delegate --timeout 30s -w tr", ["train"]),
        ("%%delegate -w tr", ["train"]),
        ("%%delegate --no", ["--no-raise-error"]),
    ],
)
def test_a_word_is_completed_and_nothing_else_is_offered(tab, text, offered):
    assert sorted(tab(text)) == sorted(offered)


# --- tools ---

FILES = ["README.md", "my notes.txt", "src/a.py", "src/b.py", "src/deep er/c.py", ".hidden/x"]


OFFERED = {
    "%delegate ping ": [],
    "%delegate read start": ["start_line="],
    "%delegate read_file README.md ": ["start_line=", "end_line=", "encoding="],
    "%delegate read path=README.md start_line=3 e": ["end_line=", "encoding="],
    "%delegate search TODO re": ["regex="],
    "%delegate search TODO regex=": ["true", "false"],
    "%delegate search TODO regex=t": ["true"],
    "%delegate search 'a b' gl": ["glob="],
    "%delegate -w train search TODO gl": ["glob="],
    "%%delegate write path=x con": ["content="],
    "%delegate read R": ["README.md"],
    "%delegate read src/": ["src/a.py", "src/b.py", "'src/deep er/"],
    "%delegate read path=src/a": ["src/a.py"],
    "%delegate read path=sr": ["src/"],
    "%%delegate write path=src/a": ["src/a.py"],
    "%delegate read path=my": ["'my notes.txt'"],
    "%delegate read path='my no": ["'my notes.txt'"],
    '%delegate read path="my no': ["'my notes.txt'"],
    "%delegate read path='src/deep er/": ["'src/deep er/c.py'"],
    "%delegate read 'src/deep er/": ["'src/deep er/c.py'"],
    "%delegate read path=.": [".git/", ".hidden/"],
    "%delegate read path=i": ["in/"],
    "%delegate read path=o": [],
    "%delegate read path=../": [],
    "%delegate read path=/etc/pass": [],
    "%delegate read path=out/": [],
    "%delegate read path=nowhere/": [],
    "%delegate read path=README.md/": [],
    "%delegate read path=a\0b/": [],
    "%delegate read nonsense=": [],
    "%delegate -- read path=s": [],
    "%commit ": ["README.md", "books/", "in/", "'my notes.txt'", "src/"],
    "%commit -m 'Read it' R": ["README.md"],
    "%commit -m 'Read it' README.md src/": ["src/a.py", "src/b.py", "'src/deep er/"],
    "%commit -m x 'src/deep er/": ["'src/deep er/c.py'"],
    "%commit -m x ../": [],
    "%commit -m 'Read R": [],
    "%commit -m R": [],
    "%commit -m x --su": ["--supersedes"],
}


@pytest.fixture
def ours(shell, manager):
    """What Hive itself adds to what Tab offers."""
    completer = HiveCompleter(HiveMagics(shell, manager))

    def offered(text):
        context = CompletionContext(
            full_text=text,
            cursor_position=len(text),
            cursor_line=0,
            token=text.rpartition(" ")[2],
            limit=None,
        )
        return sorted(completion.text for completion in completer.match(context)["completions"])

    return offered


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a notebook in one of its folders, and something beside it."""
    root = tmp_path / "project"
    for name in (*FILES, "books/one.ipynb", "../outside.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / ".git").mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "src")
    monkeypatch.chdir(root)
    return root


def test_the_words_behind_a_tool_are_completed(ours, project):
    assert {text: ours(text) for text in OFFERED} == {
        text: sorted(offered) for text, offered in OFFERED.items()
    }


def test_paths_go_up_to_the_projects_root(ours, project, monkeypatch):
    monkeypatch.chdir(project / "books")

    assert ours("%delegate read path=../R") == ["../README.md"]
    assert ours("%delegate read path=../../") == []
    assert ours(f"%delegate read path={project}/R") == [f"{project}/README.md"]


def test_what_is_offered_can_be_read_back(ours, project):
    for typed in ("path=my", "path=src/", "R", "'src/deep er/"):
        words = ours(f"%delegate read {typed}")
        assert words
        for word in words:
            whole = word + "'" * (word.count("'") % 2)
            path = read_details(BUILT_IN["read_file"], f"path={whole}")["path"]
            assert (project / path).exists()


def test_a_quote_that_is_open_is_replaced_too(shell, tab, project):
    line = "%delegate read path='my no"
    with provisionalcompleter():
        (completion,) = shell.Completer.completions(line, len(line))

    assert completion.text == "'my notes.txt'"
    assert (completion.start, completion.end) == (line.index("'"), len(line))


def test_a_huge_folder_is_not_looked_through(ours, project, monkeypatch):
    monkeypatch.setattr("hive_jupyter.notebook.completion._MOST_ENTRIES", 10)
    monkeypatch.setattr("hive_jupyter.notebook.completion._MOST_OFFERED", 5)
    (project / "many").mkdir()
    for number in range(30):
        (project / "many" / f"f{number}").touch()

    assert len(ours("%delegate read path=many/")) == 5


def test_tools_of_the_users_own_are_completed_as_their_schema_says(ours, manager, project):
    arguments = {
        "how": {"enum": ["fast", "slow"]},
        "csv_file": {"type": "string"},
        "strict": {"type": ["boolean"]},
        "any": True,
    }
    tool = Tool("mine", "Mine.", {"type": "object", "properties": arguments})
    manager.replies["known_tools"] = {"mine": tool}

    assert "mine" in ours("%delegate -w train mi")
    assert manager.called("known_tools") == [["train", {}]]
    assert ours("%delegate mine how=") == ["fast", "slow"]
    assert ours("%delegate mine f") == ["fast"]
    assert ours("%delegate mine csv_file=R") == ["README.md"]
    assert ours("%delegate mine any=") == []
    assert ours("%hive tools mi") == ["mine"]


# Nothing is known that could stand there, or nothing that could be typed ahead.
NOTHING = [
    "%hive approve ",
    "%hive approve pr",
    "%hive approve abc ",
    "%hive approve abc pr",
    "%hive deny ",
    "%hive deny abc pr",
    "%hive deny abc it pr",
    "%hive status pr",
    "%hive pr",
    "%hive restart --memory pr",
    "%hive logs -n pr",
    "%hive logs coder pr",
    "%hive stop pr",
    "%hive tools ping pr",
    "%hive add pr",
    "%commit pr",
    "%commit -m pr",
    "%commit -m 'the pr",
    "%commit -m x --supersedes pr",
    "%delegate -w pr",
    "%delegate --timeout pr",
    "%delegate read pr",
    "%delegate read path=pr",
]


@pytest.mark.parametrize("text", NOTHING)
def test_where_there_is_nothing_to_offer_nothing_is(tab, manager, project, text):
    manager.guard = SimpleNamespace(open=list)

    assert tab(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "%delegate -o pr",
        "%commit -m x -o pr",
        "%delegate read = pr",
        "%hive add old --mcp x pr",
        "%hive approve {pr",
        "%commit -m x --supersedes $pr",
    ],
)
def test_python_is_offered_where_it_can_stand(tab, project, text):
    assert "print" in tab(text)


def test_completing_starts_no_worker(ours, manager, project):
    for text in ("%delegate ", "%delegate read ", "%hive tools ", "%%delegate write path="):
        ours(text)

    assert {name for name, *_ in manager.calls} == {"known_tools"}


def test_short_names_are_offered_beside_the_tools(tab):
    assert {*SHORT_NAMES, *BUILT_IN} <= set(tab("%delegate "))


def test_python_is_completed_behind_execute(shell, tab):
    shell.user_ns["workbench"] = 1

    assert "workbench" in tab("%delegate execute print(workb")


def test_all_flags_are_offered(tab):
    assert sorted(tab("%delegate -")) == sorted(DELEGATE.flags)


def test_a_tool_is_offered_beside_names(shell, tab):
    shell.user_ns["pinguin"] = 1

    assert {"ping", "pinguin"} <= set(tab("%delegate pin"))


@pytest.mark.parametrize(
    "text",
    [
        "%delegate x --wor",
        "%delegate -- -",
        "%delegate --nonsense -w tr",
        "%hive nonsense tr",
        "%hive status tr",
        "%hivestop tr",
        "x = 1 -",
        "print()\n%%delegate -w tr",
    ],
)
def test_elsewhere_nothing_is_offered(tab, text):
    assert not {"train", "--worker", "--workers"} & set(tab(text))


def test_python_is_completed_in_the_code(shell, tab):
    shell.user_ns["workbench"] = 1

    assert "workbench" in tab("%delegate print(workb")
    assert "workbench" in tab("%%delegate\nworkb")


def test_files_are_completed_behind_python(tab, tmp_path, monkeypatch):
    (tmp_path / "some_python").touch()
    monkeypatch.chdir(tmp_path)

    assert any("some_python" in offered for offered in tab("%hive add old --python some_py"))


def test_installed_kernels_are_known():
    from jupyter_client.kernelspec import KernelSpecManager

    from hive_jupyter.notebook import completion

    assert completion._kernels() == sorted(KernelSpecManager().find_kernel_specs())
