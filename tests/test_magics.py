"""What is typed behind the magics, what they do with it, and how they come and go."""

import os
import re
import sys

import pytest
from IPython.core.error import UsageError

import hive_jupyter.notebook as extension
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import (
    ConfigError,
    NodeDied,
    NodeTimeout,
    ToolError,
    remote_error,
)
from hive_jupyter.notebook.magics import COMMANDS, DELEGATE, HiveMagics
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import Tool, ToolContent, ToolResult
from tests.fake_manager import FakeDelegation, FakeManager, record, result, stream

DIED = NodeDied('Worker "coder" was killed.', node="coder", cause="signal", signal=11)


@pytest.fixture
def manager():
    return FakeManager()


@pytest.fixture
def magics(shell, manager):
    magics = HiveMagics(shell, manager)
    shell.register_magics(magics)
    return magics


@pytest.fixture
def shown(shell, monkeypatch):
    """What the shell displays, by MIME type."""
    bundles = []
    monkeypatch.setattr(
        type(shell.display_pub), "publish", lambda _self, data, *a, **k: bundles.append(data)
    )
    return bundles


def begun(manager):
    """The only run that was begun: its code, and the options that were typed."""
    ((code, options),) = manager.begun
    return code, {
        name: value
        for name, value in options.items()
        if name in {"worker", "timeout", "memory", "sandbox"}
    }


# --- reading the line of %delegate ---


@pytest.mark.parametrize(
    ("line", "code", "options"),
    [
        ("1 + 1", "1 + 1", {}),
        ("  x  =  'a  b'  ", "x  =  'a  b'", {}),
        ("-w train f(-1, '--timeout')", "f(-1, '--timeout')", {"worker": "train"}),
        ("-t train x", "x", {"worker": "train"}),
        ("--targets=train x", "x", {"worker": "train"}),
        ("-wtrain x", "x", {"worker": "train"}),
        ('--timeout "30 s" x', "x", {"timeout": "30 s"}),
        ("--timeout=30s --memory 2G --sandbox open x=1", "x=1", None),
        ("print(x) -w train", "print(x) -w train", {}),
        ("-w train -- -x", "-x", {"worker": "train"}),
        ("-- --timeout", "--timeout", {}),
        ("-1 + 2", "-1 + 2", {}),
        ("-.5", "-.5", {}),
        ("it's", "it's", {}),
        ('"never closed', '"never closed', {}),
        ("$HOME {x}", "$HOME {x}", {}),
        ("-w a -w b x", "x", {"worker": "b"}),
    ],
)
def test_options_end_at_the_first_word_that_is_none(magics, manager, line, code, options):
    magics.shell.run_line_magic("delegate", line)

    if options is None:
        options = {"timeout": "30s", "memory": "2G", "sandbox": "open"}
    assert begun(manager) == (code, options)


def test_a_variable_is_not_expanded_in_the_code(shell, magics, manager):
    shell.user_ns["x"] = "EXPANDED"

    shell.run_cell("%delegate print('$x', '{x}')")

    assert begun(manager) == ("print('$x', '{x}')", {})


def test_the_cell_is_the_code_and_its_line_holds_the_options(shell, magics, manager):
    shell.run_cell_magic("delegate", "-w train --timeout 5m", "a = 1\n  \nb = 2\n")

    assert begun(manager) == ("a = 1\n  \nb = 2\n", {"worker": "train", "timeout": "5m"})


def test_the_magic_returns_none(shell, magics):
    assert shell.run_line_magic("delegate", "1") is None
    assert shell.run_cell_magic("delegate", "", "1") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--timout 3 x", 'no option "--timout". Did you mean "--timeout"'),
        ("-z x", 'no option "-z". There are: --'),
        ("--wroker=a x", 'Did you mean "--worker"'),
        ("x --", None),
        ("", "there is no code to run"),
        ("-w train", "there is no code to run"),
        ("-w", "-w needs a value"),
        ("--timeout", "--timeout needs a value"),
        ("-o 1x x", '"1x" cannot be the name of a variable'),
        ("-o class x", '"class" cannot be the name of a variable'),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_help(shell, magics, manager, line, message):
    if message is None:
        shell.run_line_magic("delegate", line)
        assert begun(manager) == (line, {})
        return

    with pytest.raises(UsageError) as caught:
        shell.run_line_magic("delegate", line)

    assert message in str(caught.value)
    assert isinstance(caught.value, ConfigError)
    assert manager.begun == []


def test_code_above_and_below_is_refused(shell, magics, manager):
    with pytest.raises(UsageError, match=r'"x = 1" on its own line.*%delegate, with one %'):
        shell.run_cell_magic("delegate", "-w train x = 1", "y = 2")

    assert manager.begun == []


@pytest.mark.parametrize("cell", ["", "\n", "  \n\t\n"])
def test_an_empty_cell_is_refused(shell, magics, manager, cell):
    with pytest.raises(UsageError, match="empty"):
        shell.run_cell_magic("delegate", "", cell)

    assert manager.begun == []


def test_help_shows_every_option_and_runs_nothing(shell, magics, manager, capsys):
    for line in ("-h", "--help", "-w train -h 1 + 1"):
        shell.run_line_magic("delegate", line)
        text = capsys.readouterr().out

        assert all(flag in text for flag in DELEGATE.flags)

    assert manager.begun == []


def test_the_docstrings_are_the_help(magics):
    assert "--timeout TIME" in HiveMagics.delegate.__doc__
    assert all(f"  {name}" in HiveMagics.hive.__doc__ for name in COMMANDS)


# --- what %delegate does with a run ---


def test_what_the_worker_says_is_shown(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(stream("out\n"), stream("err\n", "stderr"))

    shell.run_line_magic("delegate", "f()")

    assert capsys.readouterr() == ("out\n", "err\n")


def test_quiet_shows_no_output_but_errors(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(
        stream("out\n"), outcome=remote_error("KeyError", "'a'", ["tb"])
    )

    with pytest.raises(KeyError):
        shell.run_line_magic("delegate", "-q f()")

    assert capsys.readouterr().out == ""


def test_out_binds_the_result_and_asks_for_its_output(shell, magics, manager):
    done = result(value_repr="2")
    manager.delegation = FakeDelegation(outcome=done)

    shell.run_line_magic("delegate", "-o kept 1 + 1")

    assert shell.user_ns["kept"] is done
    assert manager.begun[0][1]["collect"] is True


def test_output_that_nobody_keeps_is_not_collected(shell, magics, manager):
    shell.run_line_magic("delegate", "1 + 1")

    assert manager.begun[0][1]["collect"] is False


@pytest.mark.parametrize("error", [remote_error("ValueError", "bad", ["tb"]), DIED])
def test_out_binds_the_result_of_a_failed_run_too(shell, magics, manager, error):
    manager.delegation = FakeDelegation(outcome=error)

    with pytest.raises(type(error)):
        shell.run_line_magic("delegate", "--out kept f()")

    assert shell.user_ns["kept"] is manager.delegation.result


def test_the_users_exception_is_raised_with_its_own_type(shell, magics, manager):
    manager.delegation = FakeDelegation(outcome=remote_error("ZeroDivisionError", "by 0", ["tb"]))

    with pytest.raises(ZeroDivisionError, match="by 0"):
        shell.run_line_magic("delegate", "1/0")


def test_no_raise_error_shows_the_error_and_goes_on(shell, magics, manager, capsys):
    errors = [
        (remote_error("ValueError", "bad", ["the traceback", "ValueError: bad"]), "the traceback"),
        (DIED, 'NodeDied: Worker "coder" was killed.'),
        (NodeTimeout("too late", node="coder", seconds=1), "NodeTimeout: too late"),
    ]
    for error, said in errors:
        manager.delegation = FakeDelegation(outcome=error)

        shell.run_line_magic("delegate", "--no-raise-error -q f()")

        assert said in capsys.readouterr().err


def test_no_raise_error_does_not_forgive_a_wrong_request(shell, magics, manager):
    manager.delegation = ConfigError("a/b is no name")

    with pytest.raises(ConfigError, match="a/b is no name"):
        shell.run_line_magic("delegate", "--no-raise-error -w a/b x")


def test_hives_own_errors_are_shown_without_hives_stack(shell, magics, manager, capsys):
    for delegation in (ConfigError("no such thing"), FakeDelegation(outcome=DIED)):
        manager.delegation = delegation

        shell.run_cell("%delegate x")
        text = capsys.readouterr().out

        assert text.startswith(("ConfigError: no such", "NodeDied: Worker"))
        assert "Traceback" not in text


def test_instructions_are_shown_and_bound_and_not_raised(shell, magics, manager, shown):
    told = Instructions("1 + 1", "because")
    manager.delegation = FakeDelegation(outcome=told)

    shell.run_line_magic("delegate", "-q -o kept 1 + 1")

    assert shown == [{"text/plain": str(told), "text/markdown": told._repr_markdown_()}]
    assert shell.user_ns["kept"] is told


# --- tools ---


def answer(text, is_error=False, **structure):
    return ToolResult((ToolContent("text", text),), is_error, structure or None)


def called(manager):
    """The only tool that was called, with what arguments."""
    ((tool, arguments, options),) = manager.called("begin_tool")
    assert manager.begun == []
    return tool, arguments, options


def test_a_tools_name_calls_the_tool(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(outcome=answer("pong"))

    shell.run_line_magic("delegate", "-w train --timeout 5s -o kept ping")

    assert called(manager) == ("ping", {}, {"worker": "train", "timeout": "5s"})
    assert capsys.readouterr().out == "pong\n"
    assert shell.user_ns["kept"] == answer("pong")


@pytest.mark.parametrize(
    ("line", "tool", "arguments"),
    [
        ("read src/a.py", "read_file", {"path": "src/a.py"}),
        ("read 'a b.py' start_line=3", "read_file", {"path": "a b.py", "start_line": 3}),
        ("read_file path=$HOME", "read_file", {"path": "$HOME"}),
        ("search  TODO   glob=*.py", "search_files", {"pattern": "TODO", "glob": "*.py"}),
        ('search {"pattern": "a b"}', "search_files", {"pattern": "a b"}),
        ("ast_search 'print($$$A)'", "ast_search", {"pattern": "print($$$A)"}),
        ("write a.py content=x", "save_file", {"path": "a.py", "content": "x"}),
        ("variables", "variables", {}),
    ],
)
def test_details_become_arguments(shell, magics, manager, line, tool, arguments):
    shell.run_cell(f"%delegate {line}")

    assert called(manager)[:2] == (tool, arguments)


@pytest.mark.parametrize(
    "line",
    ["ping(1)", "ping = 3", "ping == 3", "-- ping", "pings", "ping.x", "ping=3", "--  read a.py"],
)
def test_code_that_begins_like_a_tool_is_code(shell, magics, manager, line):
    shell.run_line_magic("delegate", line)

    assert manager.called("begin_tool") == []
    assert len(manager.begun) == 1


def test_a_cell_whose_line_names_no_tool_is_code(shell, magics, manager):
    shell.run_cell_magic("delegate", "", "ping")

    assert begun(manager) == ("ping", {})


def test_wrong_details_are_told_and_nothing_is_called(shell, magics, manager, capsys):
    shell.run_cell("%delegate read 'a.py")

    assert capsys.readouterr().out.startswith('ConfigError: "\'a.py": No closing quotation')
    assert manager.called("begin_tool") == []


@pytest.mark.parametrize(
    ("line", "body", "tool", "arguments"),
    [
        ("write path=a.py", "x = 1\n", "save_file", {"path": "a.py", "content": "x = 1\n"}),
        ("-w train write a.py", "x", "save_file", {"path": "a.py", "content": "x"}),
        ("search", "a  b\n", "search_files", {"pattern": "a  b"}),
        (
            "edit_file a.py old_text=x",
            "y\n",
            "edit_file",
            {"path": "a.py", "old_text": "x", "new_text": "y"},
        ),
        (
            "ast_rewrite pattern='f($A)' dry_run=true",
            "g($A)\n",
            "ast_rewrite",
            {"pattern": "f($A)", "dry_run": True, "rewrite": "g($A)"},
        ),
    ],
)
def test_the_text_below_is_the_missing_argument(
    shell, magics, manager, line, body, tool, arguments
):
    shell.run_cell_magic("delegate", line, body)

    assert called(manager)[:2] == (tool, arguments)


@pytest.mark.parametrize("line", ["ping", "write a.py content=x", "reset"])
def test_a_text_that_no_argument_takes_is_refused(shell, magics, manager, line):
    with pytest.raises(UsageError, match="no place for the text below"):
        shell.run_cell_magic("delegate", line, "x")

    assert manager.called("begin_tool") == []


@pytest.mark.parametrize("line", ["execute print( 'a' )", "execute code=\"print( 'a' )\""])
def test_execute_runs_code_as_ever(shell, magics, manager, line):
    shell.run_line_magic("delegate", f"--memory 1G -w train {line}")

    assert begun(manager) == ("print( 'a' )", {"memory": "1G", "worker": "train"})
    assert manager.called("begin_tool") == []


def test_execute_takes_its_code_from_below(shell, magics, manager):
    shell.run_cell_magic("delegate", "execute", "x = 1\ny = 2\n")

    assert begun(manager) == ("x = 1\ny = 2", {})


def test_quiet_shows_no_result_of_a_tool(shell, magics, manager, shown):
    manager.delegation = FakeDelegation(outcome=answer("pong"))

    shell.run_line_magic("delegate", "-q -o kept ping")

    assert shown == []
    assert shell.user_ns["kept"] == answer("pong")


def test_how_far_a_tool_is_is_shown(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(
        Message("progress", {"text": "3 of 9 files"}), outcome=answer("done")
    )

    shell.run_line_magic("delegate", "search TODO")

    assert capsys.readouterr() == ("done\n", "3 of 9 files\n")


def test_a_result_is_shown_again_as_the_value_of_a_cell(shell, loaded, shown):
    extension.load_ipython_extension(shell)
    shell.user_ns["kept"] = answer("pong")

    shell.run_cell("kept")

    assert shown == [{"text/plain": "pong"}]


def test_a_terminal_gets_text_and_colours_only_on_a_screen(
    shell, magics, manager, shown, monkeypatch
):
    code = answer("x = 1", path="a.py", start_line=1, total_lines=1)
    manager.delegation = FakeDelegation(outcome=code)
    monkeypatch.setattr("hive_jupyter.notebook.compat.has_colours", lambda shell: True)

    shell.run_line_magic("delegate", "read a.py")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shell.run_line_magic("delegate", "read a.py")

    plain, coloured = shown
    assert plain == {"text/plain": "1  x = 1"}
    assert set(coloured) == {"text/plain"}
    assert "\033[" in coloured["text/plain"]


def test_a_tools_failure_fails_the_cell(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(outcome=answer("no such file", is_error=True))

    with pytest.raises(ToolError, match="no such file"):
        shell.run_line_magic("delegate", "ping")

    shell.run_line_magic("delegate", "--no-raise-error ping")

    assert capsys.readouterr().err == "ToolError: no such file\n"


def test_a_failures_text_moves_no_cursor(shell, magics, manager):
    manager.delegation = FakeDelegation(outcome=answer("gone\033[2J\u202e", is_error=True))

    with pytest.raises(ToolError) as caught:
        shell.run_line_magic("delegate", "ping")

    assert str(caught.value) == "gone<U+001B>[2J<U+202E>"


def test_a_worker_that_dies_in_a_tool_fails_the_cell(shell, magics, manager):
    manager.delegation = FakeDelegation(outcome=DIED)

    with pytest.raises(NodeDied):
        shell.run_line_magic("delegate", "ping")


def test_instructions_for_a_tool_are_shown(shell, magics, manager, shown):
    manager.delegation = FakeDelegation(outcome=Instructions("ping", "because", language=""))

    shell.run_line_magic("delegate", "ping")

    assert "No worker did this" in shown[0]["text/plain"]


@pytest.mark.parametrize("option", ["--memory 1G", "--sandbox open"])
def test_options_that_a_tool_cannot_take_are_refused(shell, magics, option):
    with pytest.raises(UsageError, match="goes with code, not with the tool ping"):
        shell.run_line_magic("delegate", f"{option} ping")


@pytest.mark.parametrize(
    ("line", "kind", "meant"),
    [
        ("serach TODO", "SyntaxError", "search"),
        ("raed a.py", "SyntaxError", "read"),
        ("varables", "NameError", "variables"),
    ],
)
def test_a_mistyped_tool_is_named_below_the_codes_error(
    shell, magics, manager, capsys, line, kind, meant
):
    manager.delegation = FakeDelegation(outcome=remote_error(kind, "bad", ["the traceback"]))

    shell.run_cell(f"%delegate {line}")

    word = line.split()[0]
    told = f'There is no tool "{word}". Did you mean "{meant}"?'
    assert capsys.readouterr().out.splitlines() == ["the traceback", told]


def test_why_tools_are_missing_is_told_below_an_unknown_word(shell, magics, manager, capsys):
    manager.delegation = FakeDelegation(outcome=remote_error("NameError", "bad", ["the traceback"]))
    manager.replies["tool_problems"] = ("The tools of mytools are missing.",)

    shell.run_cell("%delegate row_count")

    told = capsys.readouterr().out.splitlines()
    assert told == ["the traceback", "The tools of mytools are missing."]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("serach TODO", "KeyError"),
        ("-- serach TODO", "SyntaxError"),
        ("print x", "SyntaxError"),
        ("import", "SyntaxError"),
        ("somethingelse TODO", "SyntaxError"),
        ("serach + 1", "NameError"),
    ],
)
def test_other_errors_are_shown_alone(shell, magics, manager, capsys, line, kind):
    manager.delegation = FakeDelegation(outcome=remote_error(kind, "bad", ["the traceback"]))

    shell.run_cell(f"%delegate {line}")

    assert capsys.readouterr().out == "the traceback\n"


def test_a_mistyped_tool_above_a_text_is_named(shell, magics, manager):
    with pytest.raises(UsageError, match='no tool "wirte". Did you mean "write"'):
        shell.run_cell_magic("delegate", "wirte path=a.py", "x = 1")


# --- %hive ---


class NodeStub:
    name, state, pid = "train", "idle", 123


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("start train", ["start", "train", {}]),
        ("start", ["start", None, {}]),
        ("stop train", ["stop", "train", {}]),
        ("interrupt train", ["interrupt", "train", {}]),
        (
            "restart train --memory 2G --sandbox open",
            ["restart", "train", {"memory": "2G", "sandbox": "open"}],
        ),
        ("restart", ["restart", None, {"memory": None, "sandbox": None}]),
        (
            "add fs --mcp npx -y server --kernel k",
            ["add", "fs", {"mcp": ["npx", "-y", "server", "--kernel", "k"]}],
        ),
        ("add r --kernel ir", ["add", "r", {"kernel": "ir"}]),
        (
            "add old --python '/a b/python'",
            ["add", "old", {"python": "/a b/python"}],
        ),
        ("logs", ["logs", None, 50, {}]),
        ("logs -n 5 -w train", ["logs", "train", 5, {}]),
        ("logs train", ["logs", "train", 50, {}]),
        ("logs train -n 1 -w train", ["logs", "train", 1, {}]),
    ],
)
def test_a_command_asks_the_manager(magics, manager, capsys, line, call):
    manager.replies["start"] = manager.replies["restart"] = NodeStub()

    magics.shell.run_line_magic("hive", line)

    assert [list(entry) for entry in manager.calls] == [call]
    assert capsys.readouterr().out != ""


def test_a_started_worker_is_told(shell, magics, manager, capsys):
    manager.replies["start"] = NodeStub()

    shell.run_line_magic("hive", "start train")

    assert capsys.readouterr().out == 'Worker "train" is idle, process 123.\n'


def test_status_stands_for_nothing_and_then_hints(shell, magics, manager, shown, capsys):
    manager.replies["swarm_status"] = Instructions("looks", "like a status")

    shell.run_line_magic("hive", "status")
    shell.run_line_magic("hive", "")

    assert len(shown) == 2
    assert capsys.readouterr().out == "%hive -h lists what else there is.\n"


@pytest.mark.parametrize("line", ["-h", "--help", "help"])
def test_help_lists_the_commands(shell, magics, capsys, line):
    shell.run_line_magic("hive", line)
    text = capsys.readouterr().out

    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_does_nothing(shell, magics, manager, capsys, name):
    shell.run_line_magic("hive", f"{name} -h")

    assert f"usage: %hive {name}" in capsys.readouterr().out
    assert manager.calls == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_the_nearest_flag(shell, magics, name):
    with pytest.raises(UsageError, match='Did you mean "--help"'):
        shell.run_line_magic("hive", f"{name} --halp")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("staus", 'no command "staus". Did you mean "status"'),
        ("frobnicate", "There are: add, agents"),
        ("add", "say a NAME and one of"),
        ("add r", "say a NAME and one of"),
        ("add r --kernel ir --python p", "say a NAME and one of"),
        ("logs -n many", "'many' is no whole number from 1 on"),
        ("logs -n 0", "'0' is no whole number from 1 on"),
        ("logs --lines=-1", "'-1' is no whole number from 1 on"),
        ("history -n 0", "'0' is no whole number from 1 on"),
        ("history -n -1", "'-1' is no whole number from 1 on"),
        ("logs coder -w train", 'two workers are named, "coder" and "train"'),
        ("logs -n", "expected one argument"),
        ("stop a b", "unrecognized arguments: b"),
        ("stop 'a", "a quote is not closed"),
        ("status now", "unrecognized arguments: now"),
        ("config timeot=3", 'no setting "timeot". Did you mean "timeout"'),
        ("config timeout=soon", "is no duration"),
        ("config spares=-1", "spares"),
        ("config direct=maybe", "direct=maybe: 'maybe' is neither true nor false"),
        ("config sandbox=loose", "sandbox"),
        ("config memory=1K", "Give it at least 160 MB"),
        ("config start_method=exec", "start_method is read when the hive starts"),
        ("config transport=tcp", "HIVE_JUPYTER_TRANSPORT before %load_ext hive_jupyter"),
        ("config workers={}", "c.HiveConfig.workers in ipython_kernel_config.py"),
        ("config warm_up=False", "warm_up is read"),
    ],
)
def test_a_wrong_command_is_refused_with_help(shell, magics, line, message):
    with pytest.raises(ConfigError) as caught:
        shell.run_line_magic("hive", line)

    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["logs -n 0", "history -n -1", "logs coder -w train"])
def test_numbers_and_names_that_make_no_sense_are_shown_as_usage(shell, magics, manager, line):
    with pytest.raises(UsageError, match=f"%hive {line.split()[0]} -h shows"):
        shell.run_line_magic("hive", line)

    assert manager.calls == []


def test_a_managers_refusal_is_shown_without_hives_stack(shell, magics, manager, capsys):
    manager.replies["stop"] = ConfigError('There is no worker "b".')

    shell.run_cell("%hive stop b")

    assert capsys.readouterr().out.strip() == 'ConfigError: There is no worker "b".'


def test_an_interrupt_tells_whether_something_ran(shell, magics, manager, capsys):
    for reply, said in ((True, "was interrupted"), (False, "runs nothing")):
        manager.replies["interrupt"] = reply

        shell.run_line_magic("hive", "interrupt")

        assert capsys.readouterr().out == f'Worker "coder" {said}.\n'


def test_workers_are_listed(shell, magics, capsys):
    shell.run_line_magic("hive", "workers")

    assert capsys.readouterr().out == "coder\ntrain\n"


def test_tools_are_listed_with_what_they_take(shell, magics, manager, shown):
    shell.run_line_magic("hive", "tools -w train")

    assert manager.called("list_tools") == [["train", {}]]
    lines = shown[0]["text/plain"].splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(BUILT_IN)
    (read,) = (line for line in lines if line.startswith("read_file"))
    assert "path* start_line end_line encoding" in read
    assert read.endswith(BUILT_IN["read_file"].description.partition(". ")[0] + ".")


def test_why_tools_are_missing_is_told(shell, magics, manager, shown):
    manager.replies["tool_problems"] = ("The tools of mine are missing: ImportError: no | mine.",)

    shell.run_line_magic("hive", "tools")

    assert "The tools of mine are missing: ImportError: no | mine." in shown[0]["text/plain"]
    assert r"no \| mine" in shown[0]["text/markdown"]


def test_one_tool_is_explained_in_full(shell, magics, manager, shown, capsys):
    shell.run_line_magic("hive", "tools search")

    assert capsys.readouterr().out.startswith("search_files: Find lines that hold a text")
    lines = [line.split(maxsplit=2) for line in shown[0]["text/plain"].splitlines()[1:]]
    assert [line[0] for line in lines[:-1]] == list(BUILT_IN["search_files"].arguments)
    assert "whole number from 1  200" in shown[0]["text/plain"]
    assert "example: %delegate search_files pattern=..." in shown[0]["text/plain"]


def test_any_schema_is_explained(shell, magics, manager, shown):
    arguments = {
        "how": {"enum": ["fast", "slow", 3], "default": "fast"},
        "names": {"type": "array", "items": {"type": "string"}},
        "maybe": {"type": ["string", "null"]},
        "odd": {"oneOf": [{"type": "string"}], "description": "It is\nodd."},
        "any": True,
    }
    tool = Tool("mine", "Mine.", {"type": "object", "properties": arguments})
    manager.replies["known_tools"] = {"mine": tool}

    shell.run_line_magic("hive", "tools mine")

    rows = [re.split("  +", line.strip()) for line in shown[0]["text/plain"].splitlines()[1:-1]]
    assert rows == [
        ["how", '"fast" | "slow" | 3', '"fast"'],
        ["names", "list of: text"],
        ["maybe", "text or null"],
        ["odd", '{"oneOf": [{"type": "string"}]}', "It is odd."],
        ["any", "true"],
    ]


def test_an_unknown_tool_is_told_with_the_nearest(shell, magics):
    with pytest.raises(ToolError, match='no tool "serach_files". Did you mean "search_files"'):
        shell.run_line_magic("hive", "tools serach_files")


def test_what_a_table_says_is_no_link(shell, magics, manager, shown):
    manager.replies["list_tools"] = [
        Tool("mine", "See https://evil.example, www.evil.example, a@b.c", {"type": "object"})
    ]

    shell.run_line_magic("hive", "tools")

    assert r"See https\://evil.example, www\.evil.example, a\@b.c" in shown[0]["text/markdown"]


def test_history_shows_the_latest_runs_last(shell, magics, manager, shown):
    manager.replies["history"] = [record(f"code_{i}") for i in range(30)]

    shell.run_line_magic("hive", "history")
    shell.run_line_magic("hive", "history -n 2")

    assert shown[0]["text/plain"].count("code_") == 20
    assert shown[1]["text/plain"].splitlines()[-1].endswith("code_29")
    assert shown[1]["text/plain"].count("code_") == 2
    assert "| code\\_29 |" in shown[1]["text/markdown"]


def test_history_keeps_long_and_wild_code_on_one_line(shell, magics, manager, shown):
    code = "# " + "x" * 100 + "\nimport os"
    manager.replies["history"] = [record(code, status="error", detail="KeyError: '|\x1b[31m'")]

    shell.run_line_magic("hive", "history")

    (line,) = shown[0]["text/plain"].splitlines()[1:]
    assert line.endswith("x ...")
    assert "\x1b" not in line
    assert "\\|" in shown[0]["text/markdown"]


def test_stats_count_by_worker(shell, magics, manager, shown):
    manager.replies["history"] = [
        *(record(seconds=i / 100) for i in range(1, 101)),
        record(worker="train", status="died", seconds=2.0),
    ]

    shell.run_line_magic("hive", "stats")

    head, coder, train = (line.split() for line in shown[0]["text/plain"].splitlines())
    assert head[:7] == ["worker", "runs", "ok", "error", "timeout", "died", "instructions"]
    assert " ".join(coder) == "coder 100 100 0 0 0 0 500 ms 950 ms 1 s 50.5 s"
    assert train[:7] == ["train", "1", "0", "0", "0", "1", "0"]


@pytest.mark.parametrize("command", ["history", "stats"])
def test_without_runs_there_is_a_sentence(shell, magics, shown, command):
    shell.run_line_magic("hive", command)

    assert "Nothing was delegated yet." in shown[0]["text/plain"]


def config_row(shown, name):
    lines = shown[-1]["text/plain"].splitlines()
    return next(line for line in lines if line.startswith(name + " "))


def test_config_shows_every_setting_and_where_it_came_from(shell, manager, shown, monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_SPARES", "3")
    monkeypatch.setenv("HIVE_JUPYTER_MEMORY", "")
    shell.config.HiveConfig.timeout = "90s"
    manager = FakeManager(extension.HiveConfig(parent=shell, max_failures=7))
    shell.register_magics(HiveMagics(shell, manager))

    shell.run_line_magic("hive", "config")

    assert config_row(shown, "direct").split()[1:3] == ["True", "default"]
    assert config_row(shown, "spares").split()[1:3] == ["3", "environment,"]
    assert "HIVE_JUPYTER_SPARES" in config_row(shown, "spares")
    assert config_row(shown, "memory").split()[1:4] == ["no", "limit", "default"]
    assert config_row(shown, "timeout").split()[1:4] == ["90", "s", "configuration"]
    assert config_row(shown, "max_failures").split()[1:3] == ["7", "code"]
    assert "128 MB" in config_row(shown, "max_cell_bytes")


def test_config_sets_several_and_shows_them(shell, magics, manager, shown):
    shell.run_line_magic("hive", "config timeout=30s spares=2 memory=2G direct=False memory=none")

    config = manager.config
    assert (config.timeout, config.spares, config.memory, config.direct) == (30, 2, None, False)
    assert "%hive config" in config_row(shown, "timeout")


@pytest.mark.parametrize("line", ['environment={"A":"1"}', 'environment={"A": "1"} spares=2'])
def test_quotes_that_are_lost_are_told_with_what_to_write(shell, magics, manager, capsys, line):
    with pytest.raises(ConfigError) as caught:
        shell.run_line_magic("hive", f"config {line}")

    sentence, _, what_to_write = str(caught.value).partition(" in quotes: ")
    assert "is no dict" in sentence
    assert "object at" not in sentence
    assert manager.config.environment == {}

    assert shell.run_cell(what_to_write).success
    assert manager.config.environment == {"A": "1"}


def test_config_shows_one(shell, magics, shown):
    shell.run_line_magic("hive", "config timeout")

    assert len(shown[0]["text/plain"].splitlines()) == 2


@pytest.mark.parametrize(
    "wrong", ["nonsense=1", "nonsense", "timeout=soon", "max_failures=0", 'environment={"":"1"}']
)
def test_a_wrong_setting_among_good_ones_sets_nothing(shell, magics, manager, shown, wrong):
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        shell.run_line_magic("hive", f"config spares=9 '{wrong}'")

    assert manager.config.spares == 1
    shell.run_line_magic("hive", "config spares")
    assert "%hive config" not in config_row(shown, "spares")


@pytest.mark.parametrize("name", HiveConfig.class_trait_names(at_start=True))
def test_what_is_read_when_the_hive_starts_can_be_shown(shell, magics, shown, name):
    shell.run_line_magic("hive", f"config {name}")

    assert config_row(shown, name)


def test_hive_expands_variables_as_other_magics_do(shell, magics, manager, capsys):
    shell.user_ns["which"] = "train"

    shell.run_cell("%hive stop $which")

    assert manager.called("stop") == [["train", {}]]


# --- coming and going ---


@pytest.fixture
def loaded(shell, monkeypatch):
    """The shell with the extension; the managers that it made."""
    managers = []

    def make(config):
        managers.append(FakeManager(config))
        return managers[-1]

    monkeypatch.delenv(WORKER_VARIABLE, raising=False)
    monkeypatch.setattr(extension, "HiveManager", make)
    yield managers
    extension.unload_ipython_extension(shell)


def traces(shell):
    """What an extension can leave in a shell."""
    magics = shell.magics_manager.magics
    return (
        {(kind, name) for kind in magics for name in magics[kind]},
        list(shell.Completer.custom_matchers),
        list(shell.configurables),
        dict(shell.display_formatter.ipython_display_formatter.type_printers),
    )


def test_loading_brings_the_magics_and_warms_up(shell, loaded):
    shell.extension_manager.load_extension("hive_jupyter")

    assert shell.find_line_magic("delegate").__self__.manager is loaded[0]
    assert shell.find_cell_magic("delegate") is not None
    assert shell.find_line_magic("hive") is not None
    assert shell.find_cell_magic("hive") is None
    assert loaded[0].called("warm_up") == [[{}]]


def test_loading_takes_the_shells_configuration(shell, loaded):
    shell.config.HiveConfig.warm_up = False
    shell.config.HiveConfig.timeout = 12

    extension.load_ipython_extension(shell)

    assert loaded[0].config.timeout == 12
    assert loaded[0].called("warm_up") == []


def test_loading_twice_is_harmless(shell, loaded):
    extension.load_ipython_extension(shell)
    once = traces(shell)

    extension.load_ipython_extension(shell)

    assert len(loaded) == 1
    assert traces(shell) == once


def test_unloading_leaves_no_trace(shell, loaded):
    before = traces(shell)
    extension.load_ipython_extension(shell)

    assert traces(shell) != before

    extension.unload_ipython_extension(shell)

    assert traces(shell) == before
    assert loaded[0].called("close") == [[{}]]

    extension.unload_ipython_extension(shell)

    assert loaded[0].called("close") == [[{}]]


def test_reloading_makes_a_new_manager(shell, loaded):
    shell.extension_manager.load_extension("hive_jupyter")

    shell.extension_manager.reload_extension("hive_jupyter")

    assert len(loaded) == 2
    assert shell.find_line_magic("hive").__self__.manager is loaded[1]


def test_somebody_elses_magic_is_left_alone(shell, loaded):
    def theirs(line):
        return "theirs"

    shell.register_magic_function(theirs, "line", "hive")

    with pytest.warns(UserWarning, match="%hive is somebody else's magic already"):
        extension.load_ipython_extension(shell)

    assert shell.run_line_magic("hive", "") == "theirs"
    assert shell.find_line_magic("delegate") is not None

    extension.unload_ipython_extension(shell)

    assert shell.find_line_magic("hive") is theirs
    assert shell.find_line_magic("delegate") is None


def test_a_magic_that_somebody_put_over_ours_stays(shell, loaded):
    def theirs(line):
        return "theirs"

    extension.load_ipython_extension(shell)
    shell.register_magic_function(theirs, "line", "delegate")

    extension.unload_ipython_extension(shell)

    assert shell.find_line_magic("delegate") is theirs


def test_a_wrong_configuration_is_told_and_nothing_stays(shell, loaded, monkeypatch, capsys):
    monkeypatch.setenv("HIVE_JUPYTER_TIMEOUT", "soon")
    magics, matchers, *_ = traces(shell)

    shell.run_cell("%load_ext hive_jupyter")

    text = capsys.readouterr().out
    assert text.startswith("ConfigError: HIVE_JUPYTER_TIMEOUT")
    assert "Traceback" not in text
    assert traces(shell)[:2] == (magics, matchers)


@pytest.mark.parametrize("cell", ["%delegate 1", "%%delegate\n1", "%hive status", "%hive"])
def test_inside_a_worker_the_magics_refuse(shell, loaded, monkeypatch, capsys, cell):
    monkeypatch.setenv(WORKER_VARIABLE, "train")
    extension.load_ipython_extension(shell)

    ran = shell.run_cell(cell)

    assert isinstance(ran.error_in_exec, UsageError)
    assert 'runs in the worker "train" already' in capsys.readouterr().out
    assert loaded == []


def test_loading_a_second_shell_gives_it_a_hive_of_its_own(shell, loaded):
    assert os.environ.get(WORKER_VARIABLE) is None
    extension.load_ipython_extension(shell)

    assert shell in extension._extensions
    assert len(loaded) == 1


def test_the_extension_is_found_in_the_package():
    import hive_jupyter

    assert hive_jupyter.load_ipython_extension is extension.load_ipython_extension
    assert hive_jupyter.unload_ipython_extension is extension.unload_ipython_extension
    assert "hive_jupyter.notebook" in sys.modules
