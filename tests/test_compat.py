"""Each use of an internal of IPython or ipykernel, against the real thing."""

import pytest
from IPython.core.completer import SimpleCompletion, context_matcher

from hive_jupyter.config import HiveConfig
from hive_jupyter.notebook import compat
from tests.front_end import FrontEnd

SET_UP = """
import sys, threading
from hive_jupyter.notebook import compat
shell = get_ipython()
kernel = compat.kernel_of(shell)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        assert front_end.play(SET_UP).reply["status"] == "ok"
        yield front_end


def said(kernel, code, **options):
    """What the code printed in the kernel; it must not fail."""
    played = kernel.play(code, **options)
    assert played.reply["status"] == "ok", played.reply
    return played.stream()


def test_a_terminal_has_no_kernel(shell):
    assert compat.kernel_of(shell) is None


def test_the_kernel_of_a_notebook_is_found(kernel):
    assert said(kernel, "print(type(kernel).__name__)") == "IPythonKernel\n"


def test_a_kernels_connection_file_is_found(kernel):
    assert said(kernel, "print(compat.connection_file_of(kernel))") == (
        f"{kernel.manager.connection_file}\n"
    )


def test_the_parent_is_the_cell_that_runs(kernel):
    played = kernel.play("print(compat.parent_of(shell)['header']['msg_id'])")

    assert played.stream().strip() == played.messages[0]["parent_header"]["msg_id"]


def test_the_parent_of_a_plain_thread_is_the_cell_that_runs(kernel):
    played = kernel.play("""
parents = []
thread = threading.Thread(target=lambda: parents.append(compat.parent_of(shell)))
thread.start()
thread.join()
print(parents[0]['header']['msg_id'])
""")

    assert played.stream().strip() == played.messages[0]["parent_header"]["msg_id"]


def test_a_thread_stays_with_the_cell_to_which_the_user_pinned_it(kernel):
    started = kernel.play("""
go, parents = threading.Event(), []
def work(parent):
    getattr(shell, "set_thread_parent", shell.set_parent)(parent)
    go.wait(60)
    parents.append(compat.parent_of(shell))
thread = threading.Thread(target=work, args=(shell.get_parent(),))
thread.start()
""")
    later = said(kernel, "go.set(); thread.join(); print(parents[0]['header']['msg_id'])")

    assert later.strip() == started.messages[0]["parent_header"]["msg_id"]


def test_a_header_is_a_copy_without_the_hosts_own_subshell():
    parent = {"header": {"msg_id": "1", "session": "s", "subshell_id": "x", "msg_type": "comm_msg"}}

    header = compat.header_of(parent)

    assert header == {"msg_id": "1", "session": "s", "msg_type": "execute_request"}
    assert "subshell_id" in parent["header"]


def test_without_a_request_there_is_no_header():
    assert compat.header_of({}) is None


def test_a_pinned_thread_may_have_a_bare_header():
    header = compat.header_of({"msg_id": "1", "msg_type": "execute_request"})

    assert header == {"msg_id": "1", "msg_type": "execute_request"}


@pytest.mark.parametrize(("answers", "allowed"), [(None, "False"), ({}, "True")])
def test_what_the_front_end_allows_is_known(kernel, answers, allowed):
    code = "print(compat.allows_stdin(compat.parent_of(shell)))"

    assert said(kernel, code, answers=answers).strip() == allowed


@pytest.mark.parametrize(
    ("metadata", "tags"),
    [({}, []), ({"tags": ["a", 5, "b=1"]}, ["a", "b=1"]), ({"tags": "a"}, [])],
)
def test_the_tags_that_a_front_end_sends_are_known(metadata, tags):
    assert compat.tags_of({"metadata": metadata}) == tags


def test_a_message_is_published_as_the_cells_own_output(kernel):
    played = kernel.play("""
content = {"data": {"text/plain": "hello"}, "metadata": {}, "transient": {}}
compat.publish(kernel, "display_data", content, parent=compat.parent_of(shell),
               metadata={"a": 1}, buffers=(b"xyz",))
compat.publish(kernel, "stream", {"name": "stderr", "text": "err"}, parent=compat.parent_of(shell))
""")
    message = next(m for m in played.messages if m["msg_type"] == "display_data")

    assert message["content"]["data"] == {"text/plain": "hello"}
    assert message["metadata"] == {"a": 1}
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"xyz"]
    assert played.stream("stderr") == "err"


def test_the_kernels_own_streams_are_told_from_swapped_ones(kernel):
    code = """
import contextlib, io
results = [compat.is_kernel_stream(kernel, sys.stdout), compat.is_kernel_stream(kernel, sys.stderr)]
with contextlib.redirect_stdout(io.StringIO()):
    results.append(compat.is_kernel_stream(kernel, sys.stdout))
hook = lambda message: message
sys.stdout.register_hook(hook)
results.append(compat.is_kernel_stream(kernel, sys.stdout))
sys.stdout.unregister_hook(hook)
results.append(compat.is_kernel_stream(None, io.StringIO()))
print(results)
"""
    assert said(kernel, code) == "[True, True, False, False, False]\n"


def test_the_kernels_own_display_is_told_from_a_captured_or_hooked_one(kernel):
    code = """
from IPython.utils.capture import capture_output
results = [compat.is_kernel_display(shell), compat.is_capturing(shell)]
with capture_output():
    results += [compat.is_kernel_display(shell), compat.is_capturing(shell)]
hook = lambda message: message
shell.display_pub.register_hook(hook)
results.append(compat.is_kernel_display(shell))
shell.display_pub.unregister_hook(hook)
results.append(compat.is_kernel_display(shell))
print(results)
"""
    assert said(kernel, code) == "[True, False, False, True, False, True]\n"


def test_what_was_printed_precedes_what_is_published_after_a_flush(kernel):
    played = kernel.play("""
for i in range(200):
    print("a", i)
    compat.flush_streams()
    compat.publish(kernel, "stream", {"name": "stdout", "text": f"b {i}\\n"},
                   parent=compat.parent_of(shell))
""")

    assert played.stream() == "".join(f"a {i}\nb {i}\n" for i in range(200))


def test_a_flush_of_nothing_does_not_wait(kernel):
    code = """
import time
sys.stdout.flush()
waits = []
sys.stdout.pub_thread.schedule, kept = (lambda f: waits.append(f)), sys.stdout.pub_thread.schedule
try:
    compat.flush_streams()
finally:
    del sys.stdout.pub_thread.schedule
print(waits)
"""
    assert said(kernel, code) == "[]\n"


def test_a_stream_of_a_kernel_that_hive_started_is_flushed_where_it_holds_something(hive):
    """There the host's own streams are a worker's, which keep no ``_buffers``."""
    code = """
from hive_jupyter.notebook import compat
import sys
compat.flush_streams()
print("held")
before = len(sys.stdout._written)
compat.flush_streams()
before, len(sys.stdout._written)
"""
    assert "(4, 0)" == hive.delegate(code).value_repr


def test_other_streams_are_flushed(monkeypatch):
    class Stream:
        flushed = 0

        def flush(self):
            self.flushed += 1

    stream = Stream()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)

    compat.flush_streams()

    assert stream.flushed == 2


def test_the_front_end_is_asked_and_answers(kernel):
    code = """
print(compat.ask_front_end(kernel, "who? ", password=False),
      compat.ask_front_end(kernel, "secret? ", password=True))
"""
    assert said(kernel, code, answers={"who? ": "me", "secret? ": "xyz"}) == "me xyz\n"


def test_a_terminal_shows_a_value_with_its_number(shell, capsys):
    compat.print_result(shell, {"text/plain": "42"})

    assert capsys.readouterr().out == f"Out[{compat.execution_count(shell)}]: 42\n"


def test_the_number_of_the_running_cell_is_known(kernel, shell):
    played = kernel.play("print(compat.execution_count(shell))")

    assert int(played.stream()) == played.of("execute_input")[0]["execution_count"]

    shell.user_ns["compat"] = compat
    ran = shell.run_cell("compat.execution_count(get_ipython())", store_history=True)

    assert ran.result == ran.execution_count


def test_an_exception_is_shown_by_its_lines_alone(kernel):
    played = kernel.play("""
error = LookupError("first line")
compat.render_briefly(error)
raise error
""")

    assert played.of("error")[0]["traceback"] == ["LookupError: first line"]
    assert played.reply["ename"] == "LookupError"


def test_what_would_be_shown_of_an_exception_is_known():
    error = ValueError("wrong")

    assert compat.rendered(error) == ["ValueError: wrong"]

    compat.render_as(error, ["one", "two"])

    assert compat.rendered(error) == ["one", "two"]


def test_the_colours_of_a_shell_are_known(kernel, shell):
    assert not compat.has_colours(shell)
    assert said(kernel, "print(compat.has_colours(shell))") == "True\n"


def test_magics_come_and_go(shell):
    def magic(line):
        return line.upper()

    assert compat.find_magic(shell, "line", "shout") is None

    compat.add_magic(shell, "line", "shout", magic)

    assert compat.find_magic(shell, "line", "shout") is magic
    assert shell.run_line_magic("shout", "hey") == "HEY"

    compat.remove_magic(shell, "line", "shout")
    compat.remove_magic(shell, "line", "shout")

    assert shell.find_line_magic("shout") is None


def test_matchers_come_and_go(shell, tab):
    @context_matcher()
    def matcher(context):
        return {"completions": [SimpleCompletion("zzz_only_here")], "suppress": True}

    compat.add_matcher(shell, matcher)

    assert tab("zzz") == ["zzz_only_here"]

    compat.remove_matcher(shell, matcher)
    compat.remove_matcher(shell, matcher)

    assert tab("zzz") == []


def test_a_matcher_can_say_that_there_is_nothing(shell, tab):
    @context_matcher()
    def matcher(context):
        return {"completions": compat.NO_COMPLETIONS, "suppress": True}

    assert "print" in tab("prin")
    compat.add_matcher(shell, matcher)

    assert tab("prin") == []


def test_config_knows_a_configurable_while_it_is_there(shell, capsys):
    config = HiveConfig()
    compat.add_configurable(shell, config)

    shell.run_line_magic("config", "HiveConfig.timeout = '30s'")

    assert config.timeout == 30

    compat.remove_configurable(shell, config)
    compat.remove_configurable(shell, config)
    capsys.readouterr()
    shell.run_line_magic("config", "")

    assert "HiveConfig" not in capsys.readouterr().out


def test_shift_tab_can_be_answered_by_somebody_else(kernel):
    said(
        kernel,
        "compat.ask_first(kernel, lambda code, *_: 'told' if 'mine' in code else None)",
    )
    assert kernel.inspect("mine")["data"] == {"text/plain": "told"}
    assert "number of items" in kernel.inspect("len")["data"]["text/plain"]

    said(kernel, "compat.ask_no_more(kernel)")

    assert not kernel.inspect("mine")["found"]


HEARING = """
heard = []

def hear(message):
    heard.append((message["msg_type"], message["content"]["data"], *map(bytes, message["buffers"])))
    return message["content"]["comm_id"] == "elsewhere"

compat.hear_comms_first(kernel, hear)
"""


def say(kernel, comm, data, *buffers):
    """Say something to a comm, and wait until the kernel has dealt with what came before it."""
    session, socket = kernel.client.session, kernel.client.shell_channel.socket
    message = session.msg("comm_msg", {"comm_id": comm, "data": data})
    session.send(socket, message, buffers=list(buffers))


def test_what_is_said_through_comms_is_offered_to_somebody_else_first(kernel):
    said(kernel, HEARING)
    at_home = """
from comm import create_comm
taken = []
comm = create_comm("home", comm_id="home")
comm.on_msg(lambda message: taken.append(message["content"]["data"]))
"""
    said(kernel, at_home)

    say(kernel, "elsewhere", {"n": 1}, b"bytes")
    say(kernel, "home", {"n": 2})

    assert said(kernel, "print(heard, taken)") == (
        "[('comm_msg', {'n': 1}, b'bytes'), ('comm_msg', {'n': 2})] [{'n': 2}]\n"
    )
    said(kernel, "compat.hear_comms_no_more(kernel)")
    say(kernel, "home", {"n": 3})
    assert said(kernel, "print(len(heard), taken)") == "2 [{'n': 2}, {'n': 3}]\n"


def test_what_is_said_to_a_comm_without_a_signature_is_left_to_the_kernel(kernel):
    said(kernel, f"{HEARING}\nheard.clear()")
    session, socket = kernel.client.session, kernel.client.shell_channel.socket
    message = session.msg("comm_msg", {"comm_id": "elsewhere", "data": {}})
    key, session.key = session.key, b"another"

    session.send(socket, message)

    session.key = key
    assert said(kernel, "print(heard)") == "[]\n"
    said(kernel, "compat.hear_comms_no_more(kernel)")


def test_a_comm_of_others_is_named_to_front_ends_while_it_is_there(kernel):
    names = "print(compat.has_comm(kernel, 'theirs'))"
    assert said(kernel, f"compat.add_comm(kernel, 'theirs', 'a.target')\n{names}") == "True\n"
    key = kernel.client.comm_info("a.target")
    reply = kernel.client.get_shell_msg(timeout=30)
    while reply["parent_header"]["msg_id"] != key:
        reply = kernel.client.get_shell_msg(timeout=30)
    assert reply["content"]["comms"] == {"theirs": {"target_name": "a.target"}}

    assert said(kernel, f"compat.remove_comm(kernel, 'theirs')\n{names}") == "False\n"
