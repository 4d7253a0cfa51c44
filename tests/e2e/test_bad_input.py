"""Wrong arguments and odd code: each gets an error that says what to do next, or just works."""

import math
import re
import tempfile

import pytest
from IPython.core.error import UsageError

from hive_jupyter import ConfigError, HiveManager, RemoteError
from hive_jupyter.errors import HiveError, NodeTimeout

SURROGATE = "x = '\ud800'"


@pytest.fixture(scope="module")
def hive():
    """One hive for all cases that leave its worker alive."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="h") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("JUPYTER_RUNTIME_DIR", folder)
        with HiveManager() as hive:
            yield hive


@pytest.fixture
def magic(shell, hive, monkeypatch, capsys):
    """Run cells in a shell that has the extension; gives what they raised and what they printed."""
    monkeypatch.setattr("hive_jupyter.notebook.HiveManager", lambda _config: hive)
    monkeypatch.setattr(hive, "close", lambda: None)
    shell.run_line_magic("load_ext", "hive_jupyter")

    def run(cell):
        result = shell.run_cell(cell)
        said = capsys.readouterr()
        return result.error_before_exec or result.error_in_exec, said.out + said.err

    yield run
    shell.run_line_magic("unload_ext", "hive_jupyter")


# --- names, limits, policies ---

NAMES = ["a/b", "../../etc", "a b", "", " ", "-w", ".", "ü", "a\nb", "a\0b", "a" * 65, 5, b"coder"]
TIMEOUTS = ["5 parsecs", "", "-1s", "nan", "1e999", -1, -0.5, math.nan, -math.inf, 1e300, True, []]
SIZES = ["2 parsecs", "", "-1G", "nan", "1e999", -1, 1.5, math.nan, 2**70, True, []]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_what_is_no_name_of_a_worker_is_refused(hive, name):
    with pytest.raises(ConfigError, match="is no name for a worker. Use letters"):
        hive.delegate("1", worker=name)
    for method in (hive.start, hive.stop, hive.restart, hive.interrupt, hive.logs, hive.health):
        with pytest.raises(ConfigError, match="is no name for a worker"):
            method(name)
    with pytest.raises(ConfigError, match="is no name for a worker"):
        hive.add(name, kernel="python3")


def test_commands_for_an_unknown_worker_name_the_nearest(hive):
    """A delegated cell may start a new worker by its name, a command means one that there is."""
    for method in (hive.start, hive.stop, hive.restart, hive.interrupt, hive.logs, hive.health):
        with pytest.raises(ConfigError, match='no worker "codr". Did you mean "coder"'):
            method("codr")


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=repr)
def test_what_is_no_time_limit_is_refused(hive, timeout):
    with pytest.raises(ConfigError, match="is no duration. Write seconds or a unit"):
        hive.delegate("1", timeout=timeout)
    with pytest.raises(ConfigError, match="is no duration"):
        hive.delegate_to_coder("ping", timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.0, "0", "none", None, math.inf, 100 * 365 * 86400, "99h"])
def test_no_time_limit_can_be_said_in_several_ways(hive, timeout):
    assert hive.delegate("1 + 1", timeout=timeout).value_repr == "2"
    assert str(hive.delegate_to_coder("ping", timeout=timeout)) == "pong"


def test_a_short_time_limit_ends_a_run_and_not_the_worker(hive):
    hive.delegate("kept = 1")

    with pytest.raises(NodeTimeout, match="--timeout gives more"):
        hive.delegate("import time; time.sleep(60)", timeout="100ms")

    assert hive.delegate("kept").value_repr == "1"


def test_the_shortest_time_limit_ends_a_run(hive):
    for _ in range(5):
        with pytest.raises(NodeTimeout):
            hive.delegate("import time; time.sleep(60)", timeout=1e-9)

    assert hive.delegate("1 + 1").value_repr == "2"


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_what_is_no_size_is_refused(hive, size):
    for call in (hive.delegate, hive.begin):
        with pytest.raises(ConfigError, match="is no size. Write bytes or a unit"):
            call("1", worker="new", memory=size)
    with pytest.raises(ConfigError, match="is no size"):
        hive.restart(memory=size)


@pytest.mark.parametrize("size", ["10M", "1", 2**20])
def test_less_memory_than_a_worker_needs_is_refused(hive, size):
    with pytest.raises(ConfigError, match="cannot start in .* Give it at least 160 MB"):
        hive.delegate("1", worker="new", memory=size)
    with pytest.raises(ConfigError, match="at least 160 MB"):
        HiveManager(memory=size).delegate("1")


def test_a_sandbox_that_does_not_exist_is_refused(hive):
    with pytest.raises(ConfigError, match='profile "opne". Did you mean "open"'):
        hive.delegate("1", worker="new", sandbox="opne")
    with pytest.raises(ConfigError, match="sandbox"):
        hive.delegate("1", worker="new", sandbox=5)


def test_another_policy_for_a_living_worker_names_the_restart(hive):
    hive.delegate("treasure = 1")

    with pytest.raises(ConfigError, match=re.escape("%hive restart coder --memory")) as refusal:
        hive.delegate("1", memory="2G")

    assert "treasure" in str(refusal.value)
    assert hive.delegate("treasure").value_repr == "1"


def test_a_restart_that_is_refused_leaves_the_worker_alone(hive):
    hive.delegate("treasure = 2")

    for wrong in ({"memory": "10M"}, {"memory": "much"}, {"sandbox": "opne"}):
        with pytest.raises(ConfigError):
            hive.restart(**wrong)

    assert hive.delegate("treasure").value_repr == "2"


def test_a_restart_can_lift_a_limit(hive):
    hive.delegate("1", worker="limited", memory="1G")

    assert hive.restart("limited").memory_limit == 2**30
    assert hive.restart("limited", memory="none").memory_limit is None


def test_what_is_refused_leaves_no_worker_behind(hive):
    with pytest.raises(ConfigError):
        hive.delegate("1", worker="never", memory="10M")

    assert "never" not in hive.workers()


@pytest.mark.parametrize("details", ["path", "'a=b", "=", "a=1 b"])
def test_arguments_of_a_tool_that_are_none_are_refused(hive, details):
    with pytest.raises(ConfigError, match="key=value"):
        hive.delegate_to_coder("ping", details)


def test_an_unknown_tool_and_an_unknown_argument_are_answered(hive):
    assert 'no tool "pong"' in str(hive.delegate_to_coder("pong"))
    assert 'no argument "loud"' in str(hive.delegate_to_coder("ping", "loud=yes"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tiemout": 5}, 'no setting "tiemout". Did you mean "timeout"'),
        ({"timeout": "soon"}, "'soon' is no duration"),
        ({"timeout": math.nan}, "timeout"),
        ({"connect_timeout": -1}, "connect_timeout"),
        ({"memory": "lots"}, "'lots' is no size"),
        ({"spares": -1}, "spares"),
        ({"worker": "a/b"}, "no name for a worker"),
        ({"workers": {"r": {"kernel": "no-such"}}}, 'No kernelspec "no-such"'),
        ({"workers": {"r": {"colour": "red"}}}, "colour"),
        ({"workers": {"r": "ir"}}, '"r"'),
        ({"workers": {"a/b": {"kernel": "python3"}}}, "no name for a worker"),
        ({"environment": {"A=B": "c"}}, "A=B"),
        ({"environment": {"A": "c\0"}}, "NUL"),
        ({"environment": {"": "c"}}, "environment"),
    ],
    ids=repr,
)
def test_a_wrong_setting_is_refused_where_it_is_made(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        HiveManager(**settings)


# --- code ---


@pytest.mark.parametrize("code", ["", " \n\t ", "\f"], ids=repr)
def test_an_empty_cell_is_refused(hive, code):
    with pytest.raises(ConfigError, match="no code to run. Write it below"):
        hive.delegate(code)


@pytest.mark.parametrize("code", [None, b"1", 5])
def test_code_that_is_no_text_is_refused(hive, code):
    with pytest.raises(ConfigError, match="code.*text"):
        hive.delegate(code)


def test_a_nul_character_is_refused(hive):
    with pytest.raises(ConfigError, match="NUL"):
        hive.delegate("x = 1\0")


@pytest.mark.parametrize("code", [SURROGATE, "'\udcff'", "\udc80"], ids=ascii)
def test_a_lone_surrogate_is_refused_with_its_place(hive, code):
    with pytest.raises(ConfigError, match=r"in line 2, half a character .a lone surrogate"):
        hive.delegate(f"x = 1\n{code}")


def test_unicode_of_every_kind_arrives_as_it_was_written(hive):
    odd = "\u202e\u2028\x85\U0001f600e\u0301\ufeff\x1b\x7f"
    code = f"text = {odd!r}\nprint(text, end='')\nascii(text)"
    result = hive.delegate(code, worker="open", sandbox="open")

    assert result.value_repr == repr(ascii(odd))
    assert result.stdout == odd


def test_a_cell_above_the_limit_is_refused(hive, monkeypatch):
    monkeypatch.setattr(hive.config, "max_cell_bytes", 1000)

    with pytest.raises(ConfigError, match=r"2 KB long; at most 1000 B.*max_cell_bytes.*file"):
        hive.delegate("ü" * 1000)


def test_a_syntax_error_is_the_users_own(hive):
    with pytest.raises(RemoteError) as error:
        hive.delegate("def f(:\n  pass")

    assert error.value.ename == "SyntaxError"
    assert hive.delegate("1 + 1").value_repr == "2"


def test_code_that_nests_too_deeply_fails_alone(hive):
    with pytest.raises(RemoteError) as error:
        hive.delegate("(" * 10_000 + ")" * 10_000)

    assert error.value.ename in ("SyntaxError", "RecursionError", "MemoryError")
    assert hive.delegate("1 + 1").value_repr == "2"


def test_an_exception_that_cannot_be_shown_is_shown(hive):
    code = """
class Odd(Exception):
    def __str__(self): raise RuntimeError("no text")
raise Odd
"""
    with pytest.raises(RemoteError) as error:
        hive.delegate(code)

    assert error.value.ename in ("Odd", "RuntimeError")


def test_output_that_is_no_utf_8_arrives(hive):
    code = """
import os
print("\\udcff", "\\ud800", "a\\0b", flush=True)
os.write(1, b"\\xff\\n")
print("after")
"\\udcff"
"""
    result = hive.delegate(code, worker="open", sandbox="open")

    assert re.fullmatch("[?\ufffd] [?] a\0b\n\ufffd\nafter\n", result.stdout)
    assert result.value_repr == r"'\udcff'"


def test_half_characters_that_a_worker_sends_are_replaced(hive):
    """No front-end could be sent them; JSON can hold them as escapes."""
    code = """
import json
session = get_ipython().kernel.session
pack, session.pack = session.pack, lambda part: json.dumps(part, default=str).encode()
print("\\ud800 \\ude00 \U0001f600 \\\\ud800")
session.pack = pack
"""
    assert hive.delegate(code).stdout == "? ? \U0001f600 \\ud800\n"


def test_a_worker_does_not_delegate(hive):
    """A hive made in a worker gives instructions, which name the way out."""
    code = """
from hive_jupyter import HiveManager
with HiveManager() as inner:
    print(type(inner.delegate("1 + 1")).__name__)
    print(inner.delegate("1 + 1"))
    print(inner.delegate_to_coder("ping"))
    print(inner.swarm_status())
"""
    shown = hive.delegate(code).stdout

    assert shown.startswith("Instructions\n")
    assert shown.count("workers do not delegate. Run the code as it is") >= 3


def test_the_magics_of_a_worker_say_that_it_does_not_delegate(hive):
    for cell in ("%delegate 1", "%%delegate\n1", "%hive status"):
        with pytest.raises(RemoteError, match='worker "coder" already.*Run the code here as it is'):
            hive.delegate(f"%load_ext hive_jupyter\nget_ipython().run_cell({cell!r}).raise_error()")


# --- the same behind the magics ---


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%delegate --tiemout 5\n1", 'no option "--tiemout". Did you mean "--timeout"'),
        ("%%delegate -x\n1", 'no option "-x"'),
        ("%delegate --wroker a 1", 'Did you mean "--worker"'),
        ("%%delegate --timeout soon\n1", "'soon' is no duration. Write seconds or a unit"),
        ("%%delegate --timeout -1\n1", "duration|needs a value|expected one argument"),
        ("%%delegate --timeout nan\n1", "'nan' is no duration"),
        ("%%delegate --timeout\n1", "needs a value|expected one argument"),
        ("%%delegate --memory lots -w new\n1", "'lots' is no size. Write bytes or a unit"),
        ("%%delegate --memory 10M -w new\n1", "at least 160 MB"),
        ("%%delegate -w a/b\n1", "'a/b' is no name for a worker"),
        ("%%delegate -w ''\n1", "'' is no name for a worker"),
        ("%%delegate -w 'a b'\n1", "'a b' is no name for a worker"),
        ("%%delegate --sandbox opne -w new\n1", 'Did you mean "open"'),
        ("%%delegate -o a.b\n1", "cannot be the name of a variable"),
        ("%%delegate 'never closed\n1", "quote|option"),
        ("%%delegate\n", "no code|empty"),
        ("%%delegate\n  \n\t\n", "no code|empty"),
        ("%delegate", "no code"),
        ("%%delegate\nx = '\0'", "NUL|null byte"),
        (f"%%delegate\n{SURROGATE}", "surrogate"),
        ("%hive statu", 'no command "statu". Did you mean "status"'),
        ("%hive stop codr", 'no worker "codr". Did you mean "coder"'),
        ("%hive start a/b", "'a/b' is no name for a worker"),
        ("%hive logs -n many", "'many' is no whole number from 1 on"),
        ("%hive restart --memory lots", "'lots' is no size"),
        ("%hive restart --memory 10M", "at least 160 MB"),
        ("%hive add", "say a NAME"),
        ("%hive add r", "say a NAME and one of --python, --kernel and --mcp"),
        ("%hive add r --kernel no-such", 'No kernelspec "no-such" is installed'),
        ("%hive add r --python /no/such", "'/no/such' is no program"),
        ("%hive add a/b --python /bin/sh", "'a/b' is no name for a worker"),
        ("%hive config timeout=soon", "'soon' is no duration"),
        ("%hive config tiemout=5", 'Did you mean "timeout"'),
        ("%hive config worker=a/b", "no name for a worker"),
        ("%hive config environment=5", "environment"),
    ],
    ids=ascii,
)
def test_a_magic_says_what_is_wrong(magic, cell, said):
    error, shown = magic(cell)

    assert isinstance(error, (UsageError, HiveError, SyntaxError, ValueError)), (error, shown)
    assert re.search(said, str(error))
    assert re.search(said, " ".join(shown.split()))
    assert "Traceback" not in shown


def test_after_all_that_the_next_cell_runs(magic):
    error, shown = magic("%%delegate\n1 + 1")

    assert error is None
    assert "2" in shown


def test_a_cell_of_50_mb_works(magic):
    """Nearly all of its time is IPython's, which reads a cell several times, here and there."""
    # without a name ipykernel makes one out of each character, in Python: that takes 15 seconds
    magic("%%delegate -w large\nimport os; os.environ['IPYKERNEL_CELL_NAME'] = 'large'")

    error, shown = magic(f"%%delegate -w large\nlen('{'x' * (50 * 2**20)}')")

    assert error is None
    assert str(50 * 2**20) in shown
