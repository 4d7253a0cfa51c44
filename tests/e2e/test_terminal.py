"""What a terminal sees of the magics, with a real IPython and real workers."""

import os
import signal
import subprocess
import sys

import pytest

from tests.front_end import ROOT


@pytest.fixture
def ipython(tmp_path):
    """Start IPython on some lines, as ``ipython -c`` does."""
    started = []

    def start(*lines, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "IPython", "--colors=nocolor", "-c", "\n".join(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={
                **os.environ,
                "IPYTHONDIR": str(tmp_path / "ipython"),
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
            },
            text=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


LOAD = "%load_ext hive_jupyter"
# A busy machine speaks of a worker that starts, on stderr.
SPEAK_OF_NO_START = "import hive_jupyter.swarm.life; hive_jupyter.swarm.life.PROGRESS_AFTER = 1000"


def test_a_terminal_shows_what_the_worker_says(ipython):
    out, err = ipython(
        LOAD,
        SPEAK_OF_NO_START,
        "%delegate import sys; print('out'); print('err', file=sys.stderr); 6 * 7",
        "%delegate ping",
        "%hive workers",
    ).communicate(timeout=60)

    assert out.startswith("out\nOut[")
    assert out.endswith(": 42\npong\ncoder\n")
    assert err == "err\n"


def test_a_terminal_shows_tables_as_text(ipython):
    out, _ = ipython(LOAD, "%delegate 1", "%hive status").communicate(timeout=60)

    head, row = out.splitlines()[-2:]
    assert head.startswith("worker  state")
    assert row.startswith("coder   idle")


def test_a_terminal_fails_with_the_workers_exception(ipython):
    out, err = ipython(
        LOAD,
        "try:",
        "    get_ipython().run_line_magic('delegate', '1/0')",
        "except ZeroDivisionError:",
        "    print('caught')",
        "%delegate -o kept 1/0",
    ).communicate(timeout=60)

    assert out.startswith("caught\n")
    assert "ZeroDivisionError: division by zero" in out + err
    assert "hive_jupyter" not in out + err


def test_a_terminal_without_input_is_at_its_end(ipython):
    out, err = ipython(LOAD, "%delegate input('name? ')").communicate(timeout=60)

    assert "EOFError" in out + err


def test_a_terminal_answers(ipython):
    process = ipython(LOAD, "%delegate print('hello', input('name? '))", stdin=subprocess.PIPE)
    out, _ = process.communicate("me\n", timeout=60)

    assert out == "[coder] name? hello me\n"


def test_ctrl_c_in_a_terminal_stops_the_run(ipython):
    process = ipython(
        LOAD,
        "try:",
        "    get_ipython().run_cell_magic('delegate', '', 'print(\"go\")\\nwhile True: pass')",
        "except KeyboardInterrupt:",
        "    print('stopped')",
        "%delegate print('still there')",
    )
    assert process.stdout.readline() == "go\n"

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert out == "stopped\nstill there\n"


def test_an_unanswered_question_in_a_terminal_ends_with_the_run(ipython):
    process = ipython(LOAD, "%delegate --timeout 1s input('name? ')", stdin=subprocess.PIPE)
    process.wait(60)

    out, err = process.stdout.read(), process.stderr.read()
    assert "NodeTimeout: " in out + err
