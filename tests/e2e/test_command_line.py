"""A running notebook's hive is reached from a terminal."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.front_end import FrontEnd
from tests.hosts import environment
from tests.processes import stopped, wait_until

# Hives below the temporary folder are others'.
PROGRAM = (
    "from hive_jupyter.swarm import runtime\n"
    "runtime._temporary_folders = lambda: []\n"
    "from hive_jupyter.cli import main\n"
    "main()"
)
BEGUN = "print('begun', flush=True)"
ENDLESS = f"import time\n{BEGUN}\nwhile True: time.sleep(0.01)"
FLOOD = f"{BEGUN}\nwhile True: print('x' * 1000)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("n")


@pytest.fixture(scope="module")
def notebook(runtime, folder):
    """A kernel that loaded the extension, for a notebook that jupyter_server has a name for."""
    with FrontEnd(folder, JPY_SESSION_NAME="work/analysis.ipynb") as kernel:
        load(kernel)
        yield kernel


def load(kernel, **changes):
    """Load the extension, and wait for the door, which is opened in the background."""
    assert kernel.play("%load_ext hive_jupyter").reply["status"] == "ok"
    wait_until(lambda: jupyter_hive("status", "--hive", kernel.pid, **changes).returncode == 0, 60)


def command(*words):
    return [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, words)]


def jupyter_hive(*words, typed=None, **changes):
    """The command, run to its end."""
    return subprocess.run(
        command(*words),
        input=typed,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(*words, **options):
    """What a command that ends well prints."""
    ended = jupyter_hive(*words, **options)
    assert (0, "") == (ended.returncode, ended.stderr)
    return ended.stdout


def started(*words):
    return subprocess.Popen(
        command(*words),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(code, *words):
    """A run in a terminal that is known to have begun in the worker."""
    process = started("run", *words, code)
    assert "begun\n" == process.stdout.readline()
    return process


def workers():
    (hive,) = json.loads(said("status", "--json"))["hives"]
    return hive["workers"]


# --- Commands ---


def test_the_status_says_which_notebook_it_is_and_how_its_workers_are(notebook, folder):
    text = said("status")

    assert text.startswith(f"Hive {notebook.pid}: work/analysis.ipynb, in {folder}, since ")
    assert "coder" in text


def test_the_status_is_there_for_programs(notebook, folder):
    notebook.play("%delegate 1")
    (hive,) = json.loads(said("status", "--json"))["hives"]

    assert (str(notebook.pid), notebook.pid) == (hive["id"], hive["pid"])
    assert ("work/analysis.ipynb", str(folder)) == (hive["title"], hive["folder"])
    assert "idle" == hive["workers"]["coder"]["state"]
    assert hive["direct"]


def test_code_runs_in_the_notebooks_worker(notebook):
    notebook.play("%delegate number = 41")

    assert "hello\n42\n" == said("run", "print('hello')\nnumber += 1\nnumber")
    assert ("execute_result", "42") in notebook.play("%delegate number").order
    assert (
        "print('hello')"
        in notebook.play("%hive history").of("display_data")[0]["data"]["text/plain"]
    )


def test_code_comes_from_a_file_or_from_standard_input(notebook, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print('naïve')\n", encoding="utf-8")

    assert "naïve\n" == said("run", script)
    assert "3\n" == said("run", "-", typed="print(1 + 2)\n")
    assert "-1\n" == said("run", "--", "-1")


def test_each_stream_keeps_its_place_and_an_error_is_one(notebook):
    ended = jupyter_hive("run", "import sys\nprint('o')\nprint('e', file=sys.stderr)\n1 / 0")

    assert 1 == ended.returncode
    assert "o\n" == ended.stdout
    assert ended.stderr.startswith("e\n")
    assert "ZeroDivisionError: division by zero\n" in ended.stderr
    assert "\033" not in ended.stderr


def test_a_run_is_one_document_for_programs(notebook):
    ended = jupyter_hive("run", "--json", "print('o')\ndisplay('shown')\n6 * 7")
    document = json.loads(ended.stdout)

    assert (0, "") == (ended.returncode, ended.stderr)
    assert ("ok", "o\n", "'shown'\n", "42") == tuple(
        document[key] for key in ("status", "stdout", "display", "value")
    )
    assert notebook.pid == document["hive"]["pid"]

    ended = jupyter_hive("run", "--json", "1 / 0")
    document = json.loads(ended.stdout)
    assert (1, "") == (ended.returncode, ended.stderr)
    assert ("error", "ZeroDivisionError") == (document["status"], document["error"])
    assert "division by zero" in document["traceback"]


def test_a_run_that_takes_too_long_ends_as_timeout_does(notebook):
    ended = jupyter_hive("run", "--timeout", "200ms", "import time; time.sleep(1000)")

    assert 124 == ended.returncode
    assert "was stopped after 200 ms" in ended.stderr


def test_a_worker_that_dies_is_told_of(notebook):
    ended = jupyter_hive("run", "-w", "dying", "import os; os._exit(3)")

    assert 1 == ended.returncode
    assert 'Worker "dying" ended itself with exit code 3' in ended.stderr


def test_a_worker_can_be_interrupted_and_restarted(notebook):
    assert 'Worker "coder" runs nothing.\n' == said("interrupt")
    running = begun(f"kept = 5\n{ENDLESS}")

    assert 'Worker "coder" was interrupted.\n' == said("interrupt")
    assert "KeyboardInterrupt" in running.communicate()[1]
    assert 1 == running.returncode
    assert "5\n" == said("run", "kept")

    assert 'Worker "coder" is idle, process ' in said("restart", "coder")
    assert "NameError" in jupyter_hive("run", "kept").stderr


def test_a_workers_log_is_shown(notebook, runtime):
    said("run", "1")
    for log in runtime.glob(f"hive/{notebook.pid}-*/w*/log"):
        with log.open("a") as file:
            file.write("first\nsecond\n")

    assert said("logs").endswith("first\nsecond\n")
    answer = json.loads(said("logs", "coder", "-n", 1, "--json"))
    assert ("coder", "second") == (answer["worker"], answer["log"])


def test_the_doctor_of_a_running_hive_looks_at_its_process(notebook, runtime):
    answer = json.loads(said("doctor", "--hive", notebook.pid, "--json"))

    assert ("work/analysis.ipynb", notebook.pid) == (
        answer["hive"]["title"],
        answer["hive"]["pid"],
    )
    found = {row["capability"]: row for row in answer["rows"] if not row["profile"]}
    assert f"in {runtime}/hive/{notebook.pid}-" in found["unix sockets"]["detail"]
    assert {"sandbox workspace", "sandbox strict"} <= {*found}
    assert "doctor" not in workers()

    text = said("doctor", "--hive", notebook.pid)
    assert text.startswith(f"Hive {notebook.pid}: work/analysis.ipynb, in ")
    assert f"in {runtime}/hive/{notebook.pid}-" in text


def test_a_doctor_is_not_sent_to_a_hive_that_does_not_run(notebook):
    ended = jupyter_hive("doctor", "--hive", "1", "--json")

    assert 2 == ended.returncode
    assert 'No hive with the ID "1" is running.' in ended.stderr
    assert 'No hive with the ID "1" is running.' in json.loads(ended.stdout)["error"]


def test_a_worker_that_does_not_exist_is_named(notebook):
    ended = jupyter_hive("interrupt", "codr", "--json")

    assert 2 == ended.returncode
    assert 'There is no worker "codr". Did you mean "coder"?' in ended.stderr
    assert 'There is no worker "codr"' in json.loads(ended.stdout)["error"]


def test_a_run_waits_for_the_notebooks_cell(notebook):
    queued = []

    def queue(message):
        if "begun" in str(message["content"]) and not queued:
            queued.append(started("run", "order += ['terminal']; order"))
            wait_until(lambda: workers()["coder"]["queue"] == 1, 30)
            said("interrupt")

    notebook.play("%delegate order = []")
    notebook.play(f"%%delegate\norder.append('cell')\n{ENDLESS}", on_message=queue)
    out, _ = queued[0].communicate()

    assert "['cell', 'terminal']\n" == out


# --- Ctrl-C, and ends that come from elsewhere ---


def test_ctrl_c_interrupts_the_code_and_the_worker_keeps_its_variables(notebook):
    running = begun(f"kept = 7\n{ENDLESS}")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate()

    assert 130 == running.returncode
    assert "KeyboardInterrupt" in errors
    assert "hive_jupyter/cli/" not in errors
    assert "7\n" == said("run", "kept")


def test_a_second_ctrl_c_kills_the_worker(notebook):
    deaf = (
        "import signal, time\n"
        "signal.signal(2, lambda *_: print('deaf', flush=True))\n"
        f"{BEGUN}\nwhile True: time.sleep(1)"
    )
    notebook.play("%hive config interrupt_grace=1h")
    running = begun(deaf, "-w", "deaf")
    running.send_signal(signal.SIGINT)
    assert "deaf\n" == running.stdout.readline()
    running.send_signal(signal.SIGINT)
    running.communicate()
    notebook.play("%hive config interrupt_grace=20s")

    assert 130 == running.returncode
    assert "dead" == workers()["deaf"]["state"]


@pytest.mark.parametrize("code", [ENDLESS, FLOOD])
def test_a_terminal_that_is_closed_interrupts_the_code(notebook, code):
    running = begun(f"kept = 8\n{code}")
    running.kill()
    running.communicate()

    wait_until(lambda: workers()["coder"]["state"] == "idle", 60)
    assert "8\n" == said("run", "kept")


def test_a_reader_that_goes_away_interrupts_the_code(notebook):
    """As in: jupyter hive run ... | head."""
    running = begun(f"kept = 9\n{FLOOD}")
    running.stdout.close()

    assert "" == running.stderr.read()
    assert 1 == running.wait(60)
    running.stderr.close()
    wait_until(lambda: workers()["coder"]["state"] == "idle", 60)
    assert "9\n" == said("run", "kept")


def test_a_notebook_that_is_killed_during_a_run_is_told_of(runtime, tmp_path):
    with FrontEnd(tmp_path) as kernel:
        load(kernel)
        pid = kernel.pid
        running = begun(ENDLESS, "--hive", pid)
        psutil.Process(pid).kill()
        _, errors = running.communicate(timeout=60)

    assert 1 == running.returncode
    assert f"The hive of process {pid} ended, or was closed" in errors


def test_a_hive_that_is_unloaded_during_a_run_ends_it(runtime, tmp_path):
    with FrontEnd(tmp_path) as kernel:
        load(kernel)
        pid = kernel.pid
        running = begun(ENDLESS, "--hive", pid)
        kernel.play("%unload_ext hive_jupyter")
        _, errors = running.communicate(timeout=60)

    assert 1 == running.returncode
    assert f"The hive of process {pid} ended, or was closed" in errors


def test_a_kernel_that_is_restarted_has_no_door_until_the_extension_is_loaded(tmp_path):
    runtime = tmp_path / "r"
    with FrontEnd(tmp_path, JUPYTER_RUNTIME_DIR=str(runtime)) as kernel:
        load(kernel, JUPYTER_RUNTIME_DIR=str(runtime))
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=60)
        between = jupyter_hive("status", JUPYTER_RUNTIME_DIR=str(runtime))
        load(kernel, JUPYTER_RUNTIME_DIR=str(runtime))

    assert 1 == between.returncode
    assert "No hive is running." in between.stderr


def test_a_notebook_that_is_stopped_is_waited_for_only_so_long(runtime, tmp_path):
    with FrontEnd(tmp_path) as kernel:
        load(kernel)
        pid = kernel.pid
        stopped(pid)
        try:
            asked = [started(word, "--hive", pid) for word in ("status", "interrupt")]
            (listed, _), (_, refused) = [process.communicate(timeout=60) for process in asked]
        finally:
            os.kill(pid, signal.SIGCONT)

    assert [1, 1] == [process.returncode for process in asked]
    assert f"The hive of process {pid} does not answer" in listed
    assert f"The hive of process {pid} does not answer" in refused


# --- Several, and none ---


def test_of_several_hives_one_is_chosen(notebook, tmp_path):
    with FrontEnd(tmp_path) as other:
        pid = other.pid
        load(other)
        other.play("%delegate -w second where = 'other'")
        undecided = jupyter_hive("run", "where")
        everything = said("status")
        chosen = said("run", "--hive", pid, "-w", "second", "where")
        wrong = jupyter_hive("logs", "--hive", "1")

    assert (2, "") == (undecided.returncode, undecided.stdout)
    assert "Choose one with --hive ID:" in undecided.stderr
    rows = {line.split()[0]: line for line in undecided.stderr.splitlines()[1:]}
    assert {"ID", str(notebook.pid), str(pid)} == set(rows)
    assert "work/analysis.ipynb" in rows[str(notebook.pid)]
    assert "kernel kernel.json" in rows[str(pid)]
    assert "coder, second" in rows[str(pid)]
    assert f"Hive {notebook.pid}: " in everything
    assert f"Hive {pid}: " in everything
    assert "'other'\n" == chosen
    assert 2 == wrong.returncode
    assert 'No hive with the ID "1" is running.' in wrong.stderr


@pytest.mark.parametrize("words", [("status",), ("logs",), ("run", "1"), ("interrupt",)])
def test_where_no_hive_runs_that_is_said(tmp_path, words):
    ended = jupyter_hive(*words, "--json", JUPYTER_RUNTIME_DIR=str(tmp_path))

    assert 1 == ended.returncode
    assert "No hive is running. One starts in a notebook" in ended.stderr
    assert "%load_ext hive_jupyter" in json.loads(ended.stdout)["error"]
