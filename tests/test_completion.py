"""Tab behind %hive and %delegate."""

import pytest

from hive_jupyter.notebook import compat
from hive_jupyter.notebook.completion import HiveCompleter
from hive_jupyter.notebook.magics import COMMANDS, DELEGATE, HiveMagics
from hive_jupyter.policy import PROFILES
from tests.fake_manager import FakeManager


@pytest.fixture
def tab(shell, tab, monkeypatch):
    """What Tab offers where the extension is loaded."""
    monkeypatch.setattr("hive_jupyter.notebook.completion._kernels", lambda: ["bash", "python3"])
    magics = HiveMagics(shell, FakeManager())
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
