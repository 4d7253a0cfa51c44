"""A run's messages in the calling cell: in a terminal here, and in a real kernel."""

import io
import os
import signal
import threading
from contextlib import redirect_stdout

import pytest
from IPython import get_ipython

from hive_jupyter.errors import HiveError, NodeDied, NodeTimeout, remote_error
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.relay import Cell, relay
from hive_jupyter.swarm.messages import Message
from tests.fake_manager import FakeDelegation, stream
from tests.front_end import FrontEnd

SET_UP = """
import signal, sys, threading
from hive_jupyter.errors import *
from hive_jupyter.notebook.relay import Cell, relay
from hive_jupyter.swarm.messages import Message
from tests.fake_manager import FakeDelegation, stream

def display(text, kind="display_data", **transient):
    data = {"data": {"text/plain": text}, "metadata": {}, "transient": transient}
    return Message(kind, data, {"m": text})

def value(text):
    content = {"data": {"text/plain": text}, "metadata": {}, "execution_count": 999}
    return Message("execute_result", content)

def run(*script, outcome=None, **options):
    delegation = FakeDelegation(*script, outcome=outcome)
    relayed = relay(Cell(get_ipython()), lambda: delegation, worker="coder", **options)
    return delegation, relayed

def ctrl_c():
    signal.raise_signal(signal.SIGINT)
"""


def display(text):
    return Message("display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": {}})


def value(text):
    return Message(
        "execute_result",
        {"data": {"text/plain": text}, "metadata": {}, "execution_count": 999},
    )


def question(prompt="", *, password=False):
    return Message("input_request", {"prompt": prompt, "password": password})


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        assert front_end.play(SET_UP).reply["status"] == "ok"
        yield front_end


@pytest.fixture
def run(shell):
    """Relay a scripted run into a terminal's cell."""

    def play(*script, outcome=None, **options):
        delegation = FakeDelegation(*script, outcome=outcome)
        relayed = relay(Cell(shell), lambda: delegation, worker="coder", **options)
        return delegation, relayed

    return play


def ok(played):
    assert played.reply["status"] == "ok", played.reply
    return played


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


# --- in a kernel ---


def test_everything_comes_in_order_between_what_the_cell_says_itself(kernel):
    played = ok(
        kernel.play("""
print("before")
run(stream("one\\n"), stream("two\\n", "stderr"), display("three"), stream("four\\n"), value("5"))
print("after")
""")
    )

    assert played.order == [
        ("stdout", "before\none\n"),
        ("stderr", "two\n"),
        ("display_data", "three"),
        ("stdout", "four\n"),
        ("execute_result", "5"),
        ("stdout", "after\n"),
    ]


def test_everything_belongs_to_the_cell_and_nothing_else_is_sent(kernel):
    played = ok(
        kernel.play("run(stream('a'), display('b'), Message('comm_open', {}), value('c'));")
    )

    assert [message["msg_type"] for message in played.messages] == [
        "status",
        "execute_input",
        "stream",
        "display_data",
        "execute_result",
        "status",
    ]
    assert len({message["parent_header"]["msg_id"] for message in played.messages}) == 1


def test_a_value_stands_under_the_cells_own_number(kernel):
    played = ok(kernel.play("run(value('5'));"))

    number = played.of("execute_input")[0]["execution_count"]
    assert [content["execution_count"] for content in played.of("execute_result")] == [number]
    assert played.reply["execution_count"] == number


def test_displays_are_updated_and_cleared(kernel):
    played = ok(
        kernel.play("""
run(display("a", display_id="x"), display("b", "update_display_data", display_id="x"),
    Message("clear_output", {"wait": True}));
""")
    )

    assert played.order == [
        ("display_data", "a"),
        ("update_display_data", "b"),
        ("clear_output", None),
    ]
    assert played.of("update_display_data")[0]["transient"] == {"display_id": "x"}
    assert played.of("clear_output")[0] == {"wait": True}


def test_metadata_and_buffers_go_along(kernel):
    played = ok(
        kernel.play("""
content = {"data": {"text/plain": "a"}, "metadata": {}, "transient": {}}
run(Message("display_data", content, {"key": 1}, (memoryview(b"abc"),)));
""")
    )
    message = next(m for m in played.messages if m["msg_type"] == "display_data")

    assert message["metadata"] == {"key": 1}
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"abc"]


def test_an_error_that_is_not_the_runs_own_is_shown(kernel):
    played = ok(
        kernel.play("""
run(Message("error", {"ename": "E", "evalue": "v", "traceback": ["line"]}));
""")
    )

    assert played.of("error") == [{"ename": "E", "evalue": "v", "traceback": ["line"]}]


def test_a_captured_cell_keeps_everything_for_itself(kernel):
    played = ok(
        kernel.play("""%%capture kept
done = run(stream("out"), stream("err", "stderr"), display("shown"), value("5"))
""")
    )

    assert played.order == []

    code = "print(kept.stdout, kept.stderr, *(o.data['text/plain'] for o in kept.outputs))"

    assert ok(kernel.play(code)).stream() == "out err shown 5\n"


def test_a_redirected_stdout_gets_the_text_and_the_rest_is_displayed(kernel):
    played = ok(
        kernel.play("""
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as kept:
    run(stream("out"), stream("err", "stderr"), display("shown"), value("5"))
print([kept.getvalue()])
""")
    )

    assert played.order == [
        ("stderr", "err"),
        ("display_data", "shown"),
        ("execute_result", "5"),
        ("stdout", "['out']\n"),
    ]


def test_a_display_hook_of_the_user_sees_displays(kernel):
    played = ok(
        kernel.play("""
seen = []
def hook(message):
    seen.append(message["msg_type"])
    return message
get_ipython().display_pub.register_hook(hook)
run(display("shown"))
get_ipython().display_pub.unregister_hook(hook)
print(seen)
""")
    )

    assert played.order == [("display_data", "shown"), ("stdout", "['display_data']\n")]


def test_progress_is_replaced_and_then_gone(kernel):
    played = ok(
        kernel.play("""
progress = lambda text: Message("progress", {"text": text})
run(progress("starting"), progress("still starting"), progress(""), stream("a"));
run(progress("starting"));
""")
    )

    assert played.order == [
        ("display_data", "starting"),
        ("update_display_data", "still starting"),
        ("update_display_data", None),
        ("stdout", "a"),
        ("display_data", "starting"),
        ("update_display_data", None),
    ]
    first, second = (
        {played.of("display_data", "update_display_data")[i]["transient"]["display_id"] for i in r}
        for r in (range(3), range(3, 5))
    )
    assert len(first) == len(second) == 1
    assert first != second


def test_quiet_shows_nothing(kernel):
    played = ok(kernel.play("run(stream('a'), display('b'), value('c'), quiet=True);"))

    assert played.order == []


def test_the_person_at_the_cell_is_asked_with_the_workers_name(kernel):
    played = ok(
        kernel.play(
            """
ask = lambda prompt, password: Message("input_request", {"prompt": prompt, "password": password})
print(run(ask("name? ", False), ask("", True))[0].answers)
""",
            answers={"[coder] name? ": "me", "[coder] ": "secret"},
        )
    )

    assert played.stream() == "['me', 'secret']\n"


def test_the_end_of_input_is_handed_on(kernel):
    played = ok(
        kernel.play(
            'print(run(Message("input_request", {"prompt": "?", "password": False}))[0].answers)',
            answers={"[coder] ?": "\x04"},
        )
    )

    assert played.stream() == "['\\x04']\n"


@pytest.mark.parametrize(("answers", "allowed"), [(None, "False"), ({}, "True")])
def test_the_worker_may_ask_what_the_front_end_allows(kernel, answers, allowed):
    played = ok(kernel.play("print(Cell(get_ipython()).allow_stdin)", answers=answers))

    assert played.stream().strip() == allowed


def test_the_worker_runs_under_the_cells_own_header(kernel):
    played = ok(kernel.play("print(Cell(get_ipython()).header['msg_id'])"))

    assert played.stream().strip() == played.messages[0]["parent_header"]["msg_id"]


def test_an_exception_is_shown_with_the_workers_traceback(kernel):
    played = kernel.play("""
raise run(outcome=remote_error("ValueError", "bad", ["in the worker", "ValueError: bad"]))[1].error
""")

    assert (played.reply["ename"], played.reply["evalue"]) == ("ValueError", "bad")
    assert played.of("error")[0]["traceback"] == ["in the worker", "ValueError: bad"]


def test_after_ctrl_c_the_cell_ends_with_a_real_keyboard_interrupt(kernel):
    played = kernel.play("""
stopped = remote_error("KeyboardInterrupt", "", ["in the worker", "KeyboardInterrupt: "])
delegation, relayed = run(ctrl_c, stream("still\\n"), outcome=stopped)
print(delegation.interrupts, isinstance(relayed.error, KeyboardInterrupt),
      isinstance(relayed.error, Exception), flush=True)
raise relayed.error
""")

    assert played.stream() == "still\n1 True False\n"
    assert played.reply["ename"] == "KeyboardInterrupt"
    assert played.of("error")[0]["traceback"] == ["in the worker", "KeyboardInterrupt: "]


ASKING = """
ask = Message("input_request", {"prompt": "?", "password": False})
delegation, relayed = run(stream("go\\n"), ask, stream("still\\n"))
print(delegation.interrupts, delegation.answers)
"""


def test_ctrl_c_during_a_question_stops_the_run(kernel):
    played = ok(kernel.play(ASKING, answers={"[coder] ?": kernel.manager.interrupt_kernel}))

    assert played.stream() == "go\nstill\n1 []\n"


def test_a_question_is_withdrawn_when_the_run_ends(kernel):
    code = """
ask = Message("input_request", {"prompt": "?", "password": False})
delegation = FakeDelegation(ask, stream("still\\n"))
timer = threading.Timer(0.2, lambda: delegation.withdraw())
timer.start()
relayed = relay(Cell(get_ipython()), lambda: delegation, worker="coder")
print(delegation.interrupts, delegation.answers, relayed.error)
"""
    played = ok(kernel.play(code, answers={"[coder] ?": lambda: None}))

    assert played.stream() == "still\n0 [] None\n"


def test_a_flood_of_displays_arrives_whole(kernel):
    played = ok(kernel.play("run(*(display(str(i)) for i in range(2000)));"))

    assert [content["data"]["text/plain"] for content in played.of("display_data")] == [
        str(i) for i in range(2000)
    ]


# --- in a terminal ---


def test_a_terminal_prints_streams(run, capsys):
    run(stream("out\n"), stream("err\n", "stderr"))

    assert capsys.readouterr() == ("out\n", "err\n")


def test_a_terminal_shows_displays_and_values(shell, run, capsys):
    run(display("shown"), value("5"))

    assert capsys.readouterr().out == f"shown\nOut[{compat.execution_count(shell)}]: 5\n"


def test_a_terminal_shows_an_error_that_is_not_the_runs_own(run, capsys):
    run(Message("error", {"ename": "E", "evalue": "v", "traceback": ["one", "two"]}))

    assert capsys.readouterr().err == "one\ntwo\n"


def test_a_terminal_clears(run, capsys):
    run(Message("clear_output", {"wait": False}))

    assert "\033[2K" in capsys.readouterr().out


def test_capturing_works_in_a_terminal_too(shell, run):
    shell.user_ns["run"] = lambda: run(stream("out"), display("shown"), value("5"))
    shell.run_cell("%%capture kept\ndone = run()")
    kept = shell.user_ns["kept"]

    assert kept.stdout == "out"
    assert [output.data["text/plain"] for output in kept.outputs] == ["shown", "5"]


def test_a_redirected_stdout_gets_the_text_in_a_terminal(run):
    with redirect_stdout(io.StringIO()) as kept:
        run(stream("out"))

    assert kept.getvalue() == "out"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(text):
    return Message("progress", {"text": text})


def test_progress_is_a_line_that_vanishes(run, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    run(progress("starting"), progress("still"), progress(""), stream("x", "stderr"))

    assert terminal.getvalue() == "starting\r\033[Kstill\r\033[Kx"


def test_without_progress_nothing_is_cleared(run, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    run(stream("half a line", "stderr"))

    assert terminal.getvalue() == "half a line"


def test_progress_in_a_file_is_said_once(run, capsys):
    run(progress("starting"), progress(""))

    assert capsys.readouterr().err == "starting\n"


def test_a_terminal_asks(run, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "me")
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "secret")

    delegation, _ = run(question("name? "), question("key? ", password=True))

    assert asked == ["[coder] name? ", "[coder] key? "]
    assert delegation.answers == ["me", "secret"]


def test_a_terminal_without_input_ends_it(run, monkeypatch):
    def ended(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)

    assert run(question())[0].answers == ["\x04"]


def test_a_terminal_has_no_header_and_may_be_asked(shell):
    cell = Cell(shell)

    assert (cell.header, cell.allow_stdin) == (None, True)


# --- how a run ends ---


def test_what_the_run_left_is_handed_back(run):
    delegation, relayed = run()

    assert relayed.outcome is delegation.result
    assert relayed.error is None


@pytest.mark.parametrize(
    "error",
    [
        remote_error("ValueError", "bad", ["tb"]),
        NodeDied("it died", node="coder", cause="signal"),
        NodeTimeout("too late", node="coder", seconds=1),
        HiveError("closed"),
    ],
)
def test_a_failure_is_handed_back_and_not_raised(run, error):
    delegation, relayed = run(outcome=error)

    assert relayed.error is error
    assert relayed.outcome is delegation.result


def test_hives_own_failures_are_shown_in_one_line(run):
    _, relayed = run(outcome=NodeDied("it died", node="coder", cause="signal"))

    assert compat.rendered(relayed.error) == ["NodeDied: it died"]


def test_a_shell_without_colours_shows_a_traceback_without_them(run):
    _, relayed = run(outcome=remote_error("ValueError", "bad", ["\033[31mValueError\033[39m: bad"]))

    assert compat.rendered(relayed.error) == ["ValueError: bad"]


def test_a_users_own_keyboard_interrupt_is_no_ctrl_c(run):
    _, relayed = run(outcome=remote_error("KeyboardInterrupt", "", ["tb"]))

    assert not isinstance(relayed.error, KeyboardInterrupt)


@pytest.mark.parametrize("ename", ["KeyboardInterrupt", "CancelledError"])
def test_ctrl_c_is_a_keyboard_interrupt_whatever_stopped(run, ename):
    _, relayed = run(ctrl_c, outcome=remote_error(ename, "", ["tb"]))

    assert isinstance(relayed.error, KeyboardInterrupt)
    assert compat.rendered(relayed.error) == ["tb"]


def test_ctrl_c_that_took_a_kill_is_a_keyboard_interrupt_too(run):
    _, relayed = run(ctrl_c, outcome=NodeDied("was killed", node="coder", cause="killed"))

    assert isinstance(relayed.error, KeyboardInterrupt)
    assert compat.rendered(relayed.error) == ["was killed"]


@pytest.mark.parametrize(
    "error",
    [
        remote_error("ValueError", "while it stopped", ["tb"]),
        NodeDied("SIGSEGV", node="coder", cause="signal"),
    ],
)
def test_what_else_happens_after_ctrl_c_keeps_its_name(run, error):
    assert run(ctrl_c, outcome=error)[1].error is error


def test_code_that_copes_with_ctrl_c_has_not_failed(run, monkeypatch):
    monkeypatch.setattr("hive_jupyter.notebook.relay._REACTION", 0)
    delegation, relayed = run(ctrl_c)

    assert delegation.interrupts == 1
    assert relayed.error is None


def test_ctrl_c_that_missed_a_brief_run_ends_the_loop_around_it(run):
    delegation, relayed = run(ctrl_c)

    assert isinstance(relayed.error, KeyboardInterrupt)
    assert relayed.outcome is delegation.result


def test_every_ctrl_c_counts(run):
    assert run(ctrl_c, ctrl_c, ctrl_c)[0].interrupts == 3


def test_ctrl_c_before_the_run_has_begun_stops_it(shell):
    delegation = FakeDelegation()

    def begin():
        ctrl_c()
        return delegation

    relay(Cell(shell), begin, worker="coder")

    assert delegation.interrupts == 1


def test_ctrl_c_works_as_before_afterwards(run):
    for outcome in (None, HiveError("closed")):
        before = signal.getsignal(signal.SIGINT)
        run(ctrl_c, outcome=outcome)

        assert signal.getsignal(signal.SIGINT) is before

    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_any_handler_is_put_back(run, handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        run()

        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_question_answered_with_ctrl_c_stops_the_run(run, monkeypatch):
    def pressed(prompt):
        ctrl_c()

    monkeypatch.setattr("builtins.input", pressed)

    delegation, _ = run(question(), ctrl_c)

    assert delegation.interrupts == 2
    assert delegation.answers == []


def test_a_question_in_a_terminal_is_withdrawn_when_the_run_ends(run, monkeypatch):
    reading, writing = os.pipe()

    def blocked(prompt):
        threading.Timer(0.2, delegation.withdraw).start()
        os.read(reading, 1)

    monkeypatch.setattr("builtins.input", blocked)
    delegation = FakeDelegation(question(), stream("still"))
    try:
        relayed = relay(Cell(get_ipython()), lambda: delegation, worker="coder")
    finally:
        os.close(reading)
        os.close(writing)

    assert (delegation.interrupts, delegation.answers, relayed.error) == (0, [], None)


def test_a_question_that_came_too_late_is_not_asked(run, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked"))
    delegation = FakeDelegation(question())
    delegation.when_over = lambda action: action()

    relay(Cell(get_ipython()), lambda: delegation, worker="coder")

    assert delegation.answers == []


def test_another_thread_delegates_without_touching_signals(run, capsys):
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        seen.append(run(stream("out"), lambda: seen.append(signal.getsignal(signal.SIGINT)))[1])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen[0] is before
    assert seen[1].error is None
    assert capsys.readouterr().out == "out"


def test_a_cell_that_cannot_show_stops_the_run(shell, monkeypatch):
    closed = io.StringIO()
    closed.close()
    delegation = FakeDelegation(stream("a"), stream("b"))

    with redirect_stdout(closed), pytest.raises(ValueError, match="closed file"):
        relay(Cell(shell), lambda: delegation, worker="coder")

    assert delegation.interrupts == 1
    assert list(delegation) == []


def test_a_refusal_to_begin_is_raised(shell):
    def begin():
        raise HiveError("no")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(HiveError, match="no"):
        relay(Cell(shell), begin, worker="coder")

    assert signal.getsignal(signal.SIGINT) is before
