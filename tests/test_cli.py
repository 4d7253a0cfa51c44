"""The command line says what it can do, what it did not understand, and how it ended."""

import json
import os
import signal
import subprocess
import sys

import nbformat.v4
import psutil
import pytest
from traitlets import import_item

from hive_jupyter import __version__, attach, cli
from hive_jupyter.cli import demo
from hive_jupyter.cli.attached import in_one_line
from hive_jupyter.cli.doctor import DoctorApp
from hive_jupyter.cli.run import _code
from hive_jupyter.config import ENVIRONMENT_PREFIX
from hive_jupyter.errors import ConfigError
from hive_jupyter.manager import HiveManager
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.swarm import runtime
from hive_jupyter.swarm.report import Report, Row
from tests.processes import wait_gone

APPS = (cli.HiveApp, *(import_item(app) for app, _ in cli.HiveApp.subcommands.values()))
# They speak to a running hive.
ATTACHED = ("status", "logs", "run", "interrupt", "restart")
# They need none.
ANSWERS = ("requests", "approve", "deny")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No settings of whoever runs the tests, and no application of an earlier test."""
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("JUPYTER_NO_CONFIG", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(runtime, "_temporary_folders", list)
    yield
    for app in APPS:
        app.clear_instance()


def run(*words):
    """Run the command in this process; its exit status."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return ended.value.code or 0


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_commands_are_listed(words, capsys):
    assert 0 == run(*words)

    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert [*ATTACHED, "mcp", *ANSWERS, "demo", "doctor"] == [
        word for word in listed if not word.startswith("-")
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("demo", "--help"), "--notebook"),
        (("doctor", "-h"), "--json"),
        (("doctor", "-h"), "Ask the running hive with this ID"),
        (("help", "doctor"), "--json"),
        (("doctor", "--help-all"), "HiveConfig.connect_timeout"),
        (("run", "--help"), "-w, --worker VALUE"),
        (("logs", "-h"), "-n, --lines VALUE"),
        (("status", "--help"), "--hive VALUE"),
        (("mcp", "--help"), "--sandbox VALUE"),
        (("mcp", "--help-all"), "HiveConfig.agent_tools"),
        (("--version",), __version__),
    ],
)
def test_help_is_where_people_look_for_it(words, expected, capsys):
    assert 0 == run(*words)
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("demoo",), 'There is no command "demoo". Did you mean "demo"?'),
        (("--versio",), 'There is no option "--versio". Did you mean "--version"?'),
        (("demo", "--notbook", "x"), 'There is no option "--notbook". Did you mean "--notebook"?'),
        (("demo", "--notebook"), "--notebook needs a value."),
        (("demo", "x.ipynb"), '"x.ipynb" is one word too many.'),
        (("demo", "--notebook=/nowhere.ipynb"), "/nowhere.ipynb cannot be read"),
        (("doctor", "--jsn"), 'Did you mean "--json"?'),
        (("doctor", "--json=3"), "ignored explicit argument '3'."),
        (("doctor", "--hive"), "--hive needs a value."),
        (("doctor", "coder"), '"coder" is one word too many.'),
        (("doctor", "--HiveConfig.timeuot=3"), 'Did you mean "--HiveConfig.timeout"?'),
        (("doctor", "--HiveConfig.timeout=soon"), "'soon' is no duration."),
        (("status", "coder"), '"coder" is one word too many.'),
        (("--debug", "status"), 'Put "status" first, and the options after it'),
        (("logs", "coder", "train"), '"train" is one word too many.'),
        (("logs", "-n"), "-n needs a value."),
        (("logs", "-n", "all"), '"all" is no number of lines.'),
        (("logs", "--line", "3"), 'Did you mean "--lines"?'),
        (("run",), "Say what to run: CODE, FILE.py, or -"),
        (("run", "print(1)", "+", "1"), '"+" is one word too many. Put quotes around the code.'),
        (("run", "-1"), 'There is no option "-1".'),
        (("run", "--HiveConfig.timeout=3", "1"), 'There is no option "--HiveConfig.timeout"'),
    ],
)
def test_a_wrong_word_is_named_in_one_line_with_the_nearest_right_one(words, expected, capsys):
    assert 2 == run(*words)

    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.startswith("jupyter hive")
    assert 1 == said.err.count("\n")
    assert "" == said.out


@pytest.mark.parametrize("command", [*ATTACHED, "doctor"])
def test_where_no_hive_runs_a_command_says_how_one_starts(command, capsys):
    assert 1 == run(command, *{"run": ["1"], "doctor": ["--hive=1"]}.get(command, []))

    said = capsys.readouterr()
    assert "No hive is running. One starts in a notebook" in said.err
    assert 1 == said.err.count("\n")
    assert "" == said.out


def test_a_worker_runs_no_code_through_the_door(monkeypatch, capsys):
    monkeypatch.setenv(WORKER_VARIABLE, "coder")

    assert 1 == run("run", "1")
    assert "This is a worker already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file"), (b"\xff", "is no UTF-8 text")],
)
def test_a_file_that_cannot_be_run_is_named(tmp_path, content, expected):
    script = tmp_path / "script.py"
    if content is not None:
        script.write_bytes(content)

    with pytest.raises(ConfigError, match=expected):
        _code(str(script))


def test_what_a_hive_says_of_itself_cannot_disturb_a_terminal():
    """Its title and its folder are whatever somebody called them."""
    hive = attach.Identity("1", 1, "a\033[2Jb\nc", "/d\te", 0.0, ("coder",))

    assert in_one_line(hive).startswith("Hive 1: a [2Jb c, in /d e, since ")


def test_asking_for_help_imports_nothing_heavy():
    heavy = (
        *("zmq", "IPython", "jupyter_client"),
        *("hive_jupyter.manager", "hive_jupyter.attach", "hive_jupyter.cli.mcp"),
    )
    program = (
        "import sys\nfrom hive_jupyter.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: sys.exit(str([n for n in {heavy} if n in sys.modules]))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert "[]\n" == asked.stderr


def test_a_wrong_setting_in_the_environment_is_named(monkeypatch, capsys):
    monkeypatch.setenv("HIVE_JUPYTER_TIMEOUT", "soon")

    assert 2 == run("doctor")
    assert "HIVE_JUPYTER_TIMEOUT='soon'" in capsys.readouterr().err


def test_the_doctors_report_is_for_people_and_for_programs(monkeypatch, capsys):
    report = Report(
        (Row("fork", "yes", "fine"), Row("UDP", "missing", "could", "Bad.", "strict", "seccomp"))
    )
    monkeypatch.setattr(HiveManager, "doctor", lambda _: report)

    assert 0 == run("doctor")
    assert str(report) in capsys.readouterr().out
    cli.HiveApp.clear_instance()
    DoctorApp.clear_instance()
    assert 0 == run("doctor", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert [row.capability for row in report.rows] == [row["capability"] for row in facts["rows"]]
    assert list(report.missing) == facts["missing"]


def test_settings_come_from_the_command_lines_own_file(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JUPYTER_NO_CONFIG")
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "jupyter_hive_config.py").write_text("c.HiveConfig.worker = 3\n")

    assert 2 == run("doctor")
    assert "worker" in capsys.readouterr().err


def test_a_projects_own_files_change_no_setting(tmp_path, monkeypatch):
    """They may come from anybody; and a worker may have written them."""
    monkeypatch.delenv("JUPYTER_NO_CONFIG")
    project = tmp_path / "project"
    (project / ".jupyter").mkdir(parents=True)
    monkeypatch.chdir(project)
    for name in ("jupyter_hive_config", "jupyter_config", "ipython_kernel_config"):
        for folder in (project, project / ".jupyter"):
            (folder / f"{name}.py").write_text("raise SystemExit('run')\n")
            (folder / f"{name}.json").write_text('{"HiveConfig": {"worker": 3}}')

    assert 0 == run("doctor")


def test_a_file_of_settings_can_be_generated(tmp_path, monkeypatch):
    monkeypatch.delenv("JUPYTER_NO_CONFIG")
    cli.main(["--generate-config"])

    text = (tmp_path / "config" / "jupyter_hive_config.py").read_text()
    assert "c.HiveConfig.timeout" in text


def test_the_demo_says_what_to_install_where_its_extra_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    monkeypatch.delitem(sys.modules, "hive_jupyter.demo", raising=False)

    assert 1 == run("demo")
    assert '-m pip install "hive-jupyter[demo]"' in capsys.readouterr().err


def test_the_quickstart_is_found_beside_the_package_or_in_it(tmp_path, monkeypatch):
    checkout, wheel = tmp_path / "checkout", tmp_path / "wheel"
    for notebook, package in (
        (checkout / "notebooks", checkout / "hive_jupyter"),
        (wheel / "hive_jupyter" / "notebooks", wheel / "hive_jupyter"),
    ):
        notebook.mkdir(parents=True)
        package.mkdir(exist_ok=True)
        (notebook / demo.QUICKSTART).touch()
        monkeypatch.setattr(demo, "__file__", str(package / "cli" / "demo.py"))

        assert notebook / demo.QUICKSTART == demo.quickstart()


def test_a_quickstart_that_is_nowhere_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "hive_jupyter" / "cli" / "demo.py"))

    assert 1 == run("demo")
    assert "--notebook" in capsys.readouterr().err


# --- the demo, as a program ---

COMMAND = (sys.executable, "-c", "from hive_jupyter.cli import main; main()", "demo")


def delegating(path, *cells):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in ("%load_ext hive_jupyter", *cells)]
    )
    nbformat.write(notebook, path)
    return f"--notebook={path}"


def test_the_exit_status_of_the_demo_is_that_of_the_notebook(tmp_path):
    good = delegating(tmp_path / "good.ipynb", "%delegate 6 * 7")
    bad = delegating(tmp_path / "bad.ipynb", "%delegate 1 / 0")

    played = subprocess.run([*COMMAND, good], capture_output=True, text=True, check=False)
    assert (0, "") == (played.returncode, played.stderr)
    assert "│ 42" in played.stdout

    played = subprocess.run([*COMMAND, bad], capture_output=True, text=True, check=False)
    assert (1, "") == (played.returncode, played.stderr)
    assert "an unexpected ZeroDivisionError" in played.stdout


def test_ctrl_c_leaves_neither_kernel_nor_worker(tmp_path):
    """Not even one that ignores SIGINT."""
    notebook = delegating(
        tmp_path / "long.ipynb",
        "%%delegate\nimport signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
        "print('begun', flush=True)\ntime.sleep(60)",
    )
    with subprocess.Popen(
        [*COMMAND, notebook], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        while "│ begun" not in demo.stdout.readline():
            assert demo.poll() is None
        processes = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        rest, said = demo.communicate()

    assert 128 + signal.SIGINT == demo.returncode
    assert "Stopped." in rest
    assert "" == said
    assert len(processes) > 2, "kernel, zygote, supervisor, worker"
    wait_gone(processes)


def test_a_reader_that_goes_away_ends_the_demo_quietly(tmp_path):
    """As in: jupyter hive demo | head."""
    notebook = delegating(
        tmp_path / "long.ipynb", "%%delegate\nimport time\nwhile True:\n    print('x' * 80)"
    )
    with subprocess.Popen(
        [*COMMAND, notebook], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        while "│ xxx" not in demo.stdout.readline():
            assert demo.poll() is None
        processes = psutil.Process(demo.pid).children(recursive=True)
        demo.stdout.close()
        said = demo.stderr.read()

    assert "" == said
    wait_gone(processes)
