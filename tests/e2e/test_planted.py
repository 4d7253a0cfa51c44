"""What a worker puts into the project's folder does not run in the host."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.front_end import FrontEnd
from tests.hosts import environment

# A package that is installed beside Hive, and that no kernel imports by itself.
PLANT = """%%delegate
with open("iniconfig.py", "w") as file:
    file.write("open('it ran', 'w')")
"""
LEAVE = "import os; os.makedirs('sub/.git')"
COMMAND = Path(sys.executable).with_name("jupyter-hive")


@pytest.fixture
def notebook(runtime, tmp_path):
    with FrontEnd(tmp_path) as kernel:
        assert "ok" == kernel.play("%load_ext hive_jupyter").reply["status"]
        yield kernel


def test_a_kernel_imports_the_installed_module_and_the_cell_says_so(notebook, tmp_path):
    notebook.play(PLANT)

    cell = notebook.play("import iniconfig\nprint(iniconfig.IniConfig.__name__)")

    assert "IniConfig\n" == cell.stream()
    said = cell.stream("stderr")
    assert said.startswith("Hive: import iniconfig takes the installed module, ")
    assert f"not {tmp_path}/iniconfig.py, which a worker may have written." in said
    again = notebook.play("import sys; del sys.modules['iniconfig']; import iniconfig")
    assert "" == again.stream("stderr")
    (status,) = notebook.play("%hive status").of("display_data", "execute_result")
    assert "iniconfig.py" in status["data"]["text/plain"]
    assert not (tmp_path / "it ran").exists()


def test_what_a_kernel_itself_imports_at_an_exception_is_not_the_projects(notebook, tmp_path):
    for name in ("stack_data", "executing", "asttokens", "pure_eval"):
        (tmp_path / f"{name}.py").write_text("open('it ran', 'w')")

    is_there = notebook.play("import sys; print('stack_data' in sys.modules)").stream()

    cell = notebook.play("1 / 0")

    assert "ZeroDivisionError" == cell.reply["ename"]
    is_told = "import stack_data takes the installed module" in cell.stream("stderr")
    assert is_told == (is_there == "False\n")  # IPython 8 has it from its start on
    assert not (tmp_path / "it ran").exists()


def test_what_the_user_allows_is_imported_from_the_project(notebook, tmp_path):
    notebook.play(PLANT)
    notebook.play("%hive config shadowing_modules=iniconfig")

    assert "ok" == notebook.play("import iniconfig").reply["status"]

    assert (tmp_path / "it ran").exists()


def test_without_the_extension_the_import_system_is_as_before(notebook, tmp_path):
    finders = "import sys; print([type(finder).__name__ for finder in sys.meta_path])"
    assert "ShadowFinder" in notebook.play(finders).stream()

    notebook.play("%unload_ext hive_jupyter")

    assert "ShadowFinder" not in notebook.play(finders).stream()


def test_a_repository_that_a_cell_left_is_set_aside_and_told_in_that_cell(notebook, tmp_path):
    cell = notebook.play(f"%%delegate\n{LEAVE}")

    said = late_stderr(notebook, cell)

    assert f"Hive: in {tmp_path} something came that your tools act on by themselves." in said
    assert "sub/.git (a new repository)" in said
    assert [] == [*tmp_path.rglob(".git")]
    (status,) = notebook.play("%hive status").of("display_data", "execute_result")
    assert "sub/.git" in status["data"]["text/plain"]


def test_it_can_be_taken_back_and_is_the_users_from_then_on(notebook, tmp_path):
    said = late_stderr(notebook, notebook.play(f"%%delegate\n{LEAVE}"))
    notebook.play("%hive stop coder")

    subprocess.run(said.splitlines()[-1], shell=True, cwd=tmp_path, check=True)

    notebook.play("%%delegate\n1")
    notebook.play("%unload_ext hive_jupyter")
    assert (tmp_path / "sub/.git").is_dir()


def late_stderr(notebook, cell):
    """What comes as output of a cell after its end."""
    while True:
        message = notebook.client.get_iopub_msg(timeout=60)
        is_ours = message["parent_header"].get("msg_id") == cell.key
        if is_ours and message["content"].get("name") == "stderr":
            return message["content"]["text"]


@pytest.mark.parametrize(
    "words", [("status",), ("doctor",), ("requests",), ("mcp",), ("run", "1"), ("demo", "--help")]
)
def test_the_command_line_runs_nothing_of_the_folder_in_which_it_is_called(
    words, runtime, tmp_path
):
    (tmp_path / "ran").mkdir()
    names = {*sys.stdlib_module_names, "hive_jupyter", "jupyter_config", "jupyter_hive_config"}
    for entry in os.listdir(sysconfig.get_path("purelib")):
        names.add(entry.partition(".")[0])
    for name in names:
        mark = tmp_path / "ran" / name
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")

    played = subprocess.run(
        [COMMAND, *words],
        cwd=tmp_path,
        env=environment(PYTHONPATH=None),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert played.stdout or played.stderr
    assert "Traceback" not in played.stderr
    assert [] == os.listdir(tmp_path / "ran")
