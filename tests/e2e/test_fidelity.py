"""Code does the same in a worker as at home: each piece runs in both, message by message."""

import ast
import re
from itertools import pairwise

import pytest

from tests.front_end import FrontEnd

_COLOUR = re.compile(r"\033\[[\d;]*m")
# What differs from run to run, at home as well: addresses, the names and numbers of cells.
_CHANGING = [
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"(/tmp|/\S+?)/ipykernel_\d+/\d+\.py"), "CELL"),
    (re.compile(r"(In ?)\[\d+\]"), r"\1[N]"),
    (re.compile(r"\d+ hidden frame"), "N hidden frame"),
    (re.compile(r"<ipython-input-[^>]+>|\b\d+\.py(?=, line)"), "CELL"),
]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The profile is open: a boundary changes what may be shown, and how programs are run."""
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        loaded = front_end.play("%load_ext hive_jupyter\n%delegate --sandbox open 0")
        assert loaded.reply["status"] == "ok"
        yield front_end


def plain(value, names):
    """A value without what differs from run to run; ids are named in the order of appearance."""
    if isinstance(value, dict):
        return {key: plain(part, names) for key, part in value.items() if key != "execution_count"}
    if isinstance(value, list):
        return [plain(part, names) for part in value]
    if not isinstance(value, str):
        return value
    text = _COLOUR.sub("", value)
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return (
        names.setdefault(text, f"id {len(names)}") if re.fullmatch("[0-9a-f]{32}", text) else text
    )


def seen(played):
    """All that a front-end got, and the reply; how print was cut into messages does not matter."""
    names, messages = {}, []
    for message in played.messages:
        kind, content = message["msg_type"], plain(message["content"], names)
        if kind == "execute_input":
            continue
        if kind == "stream" and messages and messages[-1][:2] == (kind, content["name"]):
            messages[-1] = (kind, content["name"], messages[-1][2] + content["text"])
        elif kind == "stream":
            messages.append((kind, content["name"], content["text"]))
        else:
            messages.append((kind, content, message["metadata"]))
    return messages, plain(played.reply, names)


def both(notebook, code, **options):
    """What the code brings at home, and what it brings in a worker."""
    home = seen(notebook.play(code, **options))
    return home, seen(notebook.play(f"%%delegate\n{code}", **options))


SHOWING = {
    "a comment": "# nothing to do",
    "a value": "6 * 7",
    "no value for None": "None",
    "a hidden value": "6 * 7;",
    "a long value": "list(range(2000))",
    "a pretty value": "{'a' * 50: 'b' * 50, 'c' * 50: ['d' * 50]}",
    "two streams in turns": """
import sys
for i in range(3):
    print(i, flush=True)
    print("e", i, file=sys.stderr, flush=True)
""",
    "what streams say of themselves": """
import sys
print(sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable(), sys.stdin.__class__.__name__)
print(sys.stdout.write("abc\\n"), sys.stdout.closed, sys.stdout.errors)
print(type(sys.stdout), type(sys.stderr), sys.stdout.name, sys.__stdout__ is None)
""",
    "a line without an end": "print('no end', end='')",
    "control characters": r"print('a\rb\x08c\x1b[31mred\x1b[0m\x00\x07\v\f\x85\u2028 end')",
    "all of Unicode": "print('\\U0001f41d e\\u0301 \\u202e \\ufeff \\U0010ffff')",
    "a line of a megabyte": "print('x' * 1_000_000)",
    "writelines": "import sys\nsys.stdout.writelines(['a', 'b\\n'])",
    "where and what it is": """
import os, sys
print(__name__, os.getcwd(), sys.path[0] == '', '__file__' in globals(), sys.flags.isolated >= 0)
print(get_ipython().__class__.__name__, type(get_ipython().kernel).__mro__[-5].__name__ != '')
""",
    "HTML and its siblings": """
from IPython.display import HTML, JSON, SVG, Code, Image, Javascript, Latex, Markdown, Math, display
display(HTML("<b>bold</b>"), Markdown("**bold**"), Latex("$x$"), Math("x^2"), JSON({"a": [1]}))
display(Javascript("1 + 1"), SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"), Code("x = 1"))
display(Image(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(range(256)), format="png", width=10))
""",
    "a bundle with metadata": """
from IPython.display import display
display({"text/plain": "p", "application/x": {"deep": [1, None, "\\u20ac"]}}, raw=True,
        metadata={"application/x": {"k": 1}}, transient={"own": 2})
""",
    "a class that shows itself": """
class Shown:
    def __repr__(self): return "text"
    def _repr_html_(self): return "<i>html</i>", {"isolated": True}
    def _repr_mimebundle_(self, include=None, exclude=None): return {"application/y": "z"}
Shown()
""",
    "a display that is updated": """
from IPython.display import display, update_display
handle = display("a", display_id=True)
other = display("b", display_id="named")
handle.update("c")
handle.display("d")
update_display("e", display_id="named")
""",
    "clearing": """
from IPython.display import clear_output
print("gone")
clear_output()
print("gone too")
clear_output(wait=True)
print("kept")
""",
    "history": "_ = 5\nprint(_, 'In' in globals(), 'Out' in globals())",
    "a table": "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['x', None]})",
    "a styled table": "pandas.DataFrame({'a': [1.5]}).style.format(precision=2).set_uuid('u')",
    "arrays": "import numpy\nnumpy.arange(2000).reshape(40, 50)",
    "figures": """
import matplotlib.pyplot as plt
plt.figure(figsize=(1, 1)); plt.plot([1, 2])
print("between")
plt.figure(figsize=(1, 1)); plt.bar([1, 2], [3, 4]);
""",
    "a figure as a value": """
figure, axes = plt.subplots(figsize=(1, 1))
plt.close(figure)
figure
""",
    "a figure shown in between": """
print("before")
plt.figure(figsize=(1, 1)); plt.plot([1]); plt.show()
print("after")
""",
    "figures as the user configures them": """
%matplotlib inline
%config InlineBackend.figure_formats = ["svg"]
import matplotlib
matplotlib.rcParams["svg.hashsalt"] = "same"
plt.figure(figsize=(1, 1)); plt.savefig("x.svg", metadata={"Date": None}); plt.close()
%config InlineBackend.figure_formats = ["png"]
plt.figure(figsize=(1, 1)); plt.plot([1, 3]);
""",
    "warnings": """
import warnings
warnings.warn('careful')
warnings.warn('old', DeprecationWarning)
""",
    "logging": """
import logging
logging.getLogger("x").warning("to stderr")
logging.basicConfig(level="INFO", force=True)
logging.info("configured")
""",
    "awaiting": """
import asyncio
async def numbers():
    for i in range(3):
        await asyncio.sleep(0)
        yield i
async for number in numbers():
    print(number)
print(await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3))))
await asyncio.sleep(0, "value")
""",
    "a thread that prints": """
import threading
thread = threading.Thread(target=lambda: print("from a thread"))
thread.start(); thread.join()
print("after it")
""",
    "capturing": """
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from IPython.utils.capture import capture_output
with capture_output() as kept:
    print("out"); print("err", file=sys.stderr); display("shown")
print(repr(kept.stdout), repr(kept.stderr), len(kept.outputs))
kept.show()
with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()):
    print("redirected")
print(repr(out.getvalue()))
""",
    "a cell that captures itself": """
get_ipython().run_cell_magic('capture', 'kept', 'print(1); 2')
print(kept)
""",
    "magics": """
%precision 3
%who_ls str
%lsmagic
3.14159
""",
    "magics of cells": """
get_ipython().run_cell_magic("html", "", "<p>")
get_ipython().run_cell_magic("bash", "", "echo out; echo err >&2")
get_ipython().run_cell_magic("writefile", "written.txt", "text"); os.remove("written.txt")
get_ipython().run_cell_magic("javascript", "", "1")
""",
    "a shell command": "!echo out; echo err >&2; exit 3\nprint(_exit_code)",
    "a shell command's lines": "lines = !printf 'a\\nb\\n'\nlines",
}


@pytest.mark.parametrize("code", SHOWING.values(), ids=SHOWING)
def test_what_code_shows_is_the_same(notebook, code):
    set_up = "import os, sys, pandas, matplotlib.pyplot as plt"
    both(notebook, set_up)

    home, away = both(notebook, code)

    assert home[1]["status"] == "ok"
    assert home == away


FAILING = {
    "a plain error": "1/0",
    "no message": "assert False",
    "several lines": "raise ValueError('one\\ntwo\\n\\nfour')",
    "output before it": "print('so far')\nprint('err', file=sys.stderr)\n1/0",
    "in a function": "def f(n):\n    return f(n - 1) if n else undefined\nf(3)",
    "a cause": "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
    "a context": "try:\n    1/0\nexcept ZeroDivisionError:\n    {}['a']",
    "a note": "e = ValueError('x'); e.add_note('a note')\nraise e",
    "a syntax error": "print('never')\n1 +",
    "an indentation": "if True:\npass",
    "a mistake at run time": "eval('1 +')",
    "a class of the user's": "class Own(LookupError):\n    pass\nraise Own('x', 1)",
    "a class that hides its text": """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")
raise Odd()
""",
    "a class that renders itself": """
class Rendered(Exception):
    def _render_traceback_(self):
        return ["its own", "lines"]
raise Rendered("x")
""",
    "a name nearby": "value = 1\nvalu",
    "no such module": "import no_such_module_at_all",
    "an end of iteration": "next(iter([]))",
    "an interrupt of its own": "raise KeyboardInterrupt('mine')",
    "Unicode in it": "raise ValueError('\\u20ac \\U0001f41d')",
    "colours in it": "raise ValueError('\\x1b[31mred\\x1b[0m')",
    "code from elsewhere": "import json\njson.loads('{')",
    "an awaited one": "import asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.01)",
    "a cancelled one": "import asyncio\nraise asyncio.CancelledError",
    "a usage": "%precision 1 2 3",
    "a display that fails in between": """
class Bad:
    def __repr__(self): 1/0
print("before")
display(Bad())
print("after")
""",
    "a mode of tracebacks": "%xmode Minimal\ntry:\n    1/0\nfinally:\n    %xmode Context",
}


@pytest.mark.parametrize("code", FAILING.values(), ids=FAILING)
def test_how_code_fails_is_the_same(notebook, code):
    both(notebook, "import sys")

    home, away = both(notebook, code)

    assert home == away


def test_a_value_that_cannot_be_shown_fails_as_what_was_raised(notebook):
    """At home the cell shows that, too; the reply says NoneType, or with IPython 8 nothing."""
    (_, home), (shown, away) = both(notebook, "class Bad:\n    def __repr__(self): 1/0\nBad()")

    assert home["status"] == away["status"]
    assert away.get("ename", "ZeroDivisionError") == "ZeroDivisionError"
    assert any("ZeroDivisionError" in str(entry) for entry in shown)


# IPython prints these itself, and its reply has no traceback: the cell that delegated says once
# more why it has failed.
PRINTED = {
    "a group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "an unknown magic": "%no_such_magic",
    "a debugger that quits": "import pdb; pdb.set_trace()\nprint('never')",
}


@pytest.mark.parametrize("code", PRINTED.values(), ids=PRINTED)
def test_what_ipython_prints_of_an_error_is_printed(notebook, code):
    (home, home_reply), (away, away_reply) = both(notebook, code, answers=Answers({}))

    assert home_reply["ename"] == away_reply["ename"]
    assert home_reply["evalue"] == away_reply["evalue"]
    assert home == [message for message in away if message[0] != "error"]
    assert 1 == len([message for message in away if message[0] == "error"])


# --- what is written to the descriptors ---


WRITTEN = {
    "os.write": "os.write(1, b'one\\ntwo\\n')",
    "os.write to stderr": "os.write(2, b'one\\ntwo\\n')",
    "a child": "subprocess.run(['sh', '-c', 'echo one; echo two'])",
    "a child's stderr": "subprocess.run(['sh', '-c', 'echo one >&2'])",
    "a child of a child": "subprocess.run(['sh', '-c', 'sh -c \"sh -c \\\\\"echo one\\\\\"\"'])",
    "a fork": """
pid = os.fork()
if not pid:
    os.write(1, b'child')
    os._exit(0)
os.waitpid(pid, 0)
""",
    "C code": "libc.printf(b'%s %d\\n', b'printf', 1); libc.puts(b'puts'); libc.fflush(None)",
    "a file of the descriptor": """
with os.fdopen(os.dup(1), 'w') as out:
    print('one', file=out)
""",
    "binary": "os.write(1, bytes(range(256)))",
    "half a character": "os.write(1, 'a\\u20ac'.encode()[:-1])",
    "no UTF-8 at all": "os.write(1, b'\\xff\\xfe\\x00\\xc0\\x80 \\xed\\xa0\\x80')",
    "Latin-1": "subprocess.run(['printf', 'caf\\\\351\\n'])",
    "much": "os.write(1, b'x' * 60_000)",
}
END = "the end of it"


@pytest.mark.parametrize("code", WRITTEN.values(), ids=WRITTEN)
def test_what_is_written_to_the_descriptors_is_the_same(notebook, tmp_path, code):
    """At home it comes when a thread has read it: the cell waits until that was seen."""
    read = tmp_path / "read"
    name = "stderr" if "(2" in code or ">&2" in code else "stdout"
    texts = []
    for before in ("", "%%delegate\n"):
        read.unlink(missing_ok=True)
        text = ""

        def look(message):
            nonlocal text
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == name:
                text += content["text"]
                if END in text:
                    read.touch()

        played = notebook.play(
            f"""{before}import ctypes, os, subprocess, time
libc = ctypes.CDLL(None)
{code}
os.write({2 if name == "stderr" else 1}, b"{END}")
while not os.path.exists({str(read)!r}):
    time.sleep(0.01)
""",
            on_message=look,
        )
        assert played.reply["status"] == "ok"
        texts.append(text)
        assert text == played.stream(name)

    assert texts[0] == texts[1]


# --- asking ---


ASKING = {
    "input": ("print(repr(input('name? ')))", {"name? ": "me"}),
    "input without a prompt": ("print(repr(input()))", {"": " me "}),
    "input of a number": ("print(input(5))", {"5": "6"}),
    "getpass": ("import getpass\nprint(getpass.getpass())", {"Password: ": "se cret"}),
    "two questions": (
        "print('x', end=''); print(input('a? '), input('b? '))",
        {"a? ": "1", "b? ": "\u20ac"},
    ),
    "an end": (
        "try:\n    input('more? ')\nexcept EOFError as e:\n    print(repr(e))",
        {"more? ": "\x04"},
    ),
    "the debugger": (
        "def f():\n    x = 41\n    import pdb; pdb.set_trace()\n    return x\nf()",
        {"ipdb> ": ["p x + 1", "up", "x = 2", "w", "n", "c"]},
    ),
    "a debugger after the fact": ("%debug", {"ipdb> ": ["p depth", "up", "q"]}),
    "the confirmation of a magic": ("%reset_selective never_there", {}),
}


class Answers:
    """Given in their order; each prompt is noted, and where no answer is left, the input ends."""

    def __init__(self, answers):
        self.prompts = []
        self._left = {
            prompt: list(answer) if isinstance(answer, list) else [answer]
            for prompt, answer in answers.items()
        }

    def __getitem__(self, prompt):
        self.prompts.append(prompt)
        left = self._left.get(prompt.removeprefix("[coder] "))
        return left.pop(0) if left else "\x04"


@pytest.mark.parametrize(("code", "answers"), ASKING.values(), ids=ASKING)
def test_questions_are_the_same_but_for_the_workers_name(notebook, code, answers):
    failing = "def inner(depth):\n    1/0\ninner(3)"
    there, here = Answers(answers), Answers(answers)

    notebook.play(f"%%delegate\n{failing}")
    away = seen(notebook.play(f"%%delegate\n{code}", answers=there))
    notebook.play(failing)
    home = seen(notebook.play(code, answers=here))

    assert [f"[coder] {prompt}" for prompt in here.prompts] == there.prompts
    assert home == away


def test_a_breakpoint_asks_whether_or_not_the_host_has_a_debugger(notebook):
    """At home a front-end's debugger takes it; none looks into a worker."""
    answers = Answers({"ipdb> ": ["p x", "c"]})

    played = notebook.play("%%delegate\nx = 41\nbreakpoint()\nprint('on')", answers=answers)

    assert played.reply["status"] == "ok"
    assert answers.prompts == ["[coder] ipdb> "] * 2
    assert "41\n" in played.stream()
    assert played.stream().endswith("on\n")


# --- several at once ---


def test_the_same_text_fifty_times_in_a_loop(notebook):
    code = "for i in range(50):\n    %delegate count = globals().get('count', 0) + 1; print(count)"

    played = notebook.play(code)

    assert played.reply["status"] == "ok"
    assert played.stream() == "".join(f"{i}\n" for i in range(1, 51))


def test_the_same_text_in_three_workers_from_three_threads(notebook, tmp_path):
    """Each thread gets the output of its own runs, whole and in order, while the others speak."""
    played = notebook.play(f"meeting = {str(tmp_path)!r}")
    assert played.reply["status"] == "ok"
    played = notebook.play("""
import threading
results, barrier = {}, threading.Barrier(3)
code = '''
import os, sys, time
open(f"MEETING/{os.getpid()}", "w").close()
while len(os.listdir("MEETING")) < 3:  # the others may take longer to start
    time.sleep(0.001)
for i in range(200):
    sys.stdout.write(f"{os.getpid()} {i}\\\\n")  # print() writes the line's end apart
    sys.stdout.flush()
    time.sleep(0.001)
os.getpid()
'''.replace("MEETING", meeting)
def work(name):
    barrier.wait()
    for turn in range(3):
        line = f"-w {name} -o {name}{turn} --sandbox open"  # confined, each has the same pid
        get_ipython().run_cell_magic("delegate", line, code)
        results[name, turn] = get_ipython().user_ns[f"{name}{turn}"]
threads = [threading.Thread(target=work, args=(f"at_once_{i}",)) for i in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for (name, turn), result in results.items():
    pid = result.value_repr
    assert result.stdout == "".join(f"{pid} {i}\\n" for i in range(200)), (name, turn)
assert len({result.value_repr for result in results.values()}) == 3
assert len(results) == 9
""")

    assert played.reply["status"] == "ok", played.reply
    lines = played.stream().splitlines()
    assert len(lines) == 9 * 200
    for pid in {line.split()[0] for line in lines}:
        numbers = [int(line.split()[1]) for line in lines if line.split()[0] == pid]
        assert numbers == [*range(200)] * 3
    changes = sum(a.split()[0] != b.split()[0] for a, b in pairwise(lines))
    assert changes > 3, "they took turns"
    assert len(played.of("execute_result")) == 9


def test_threads_of_an_awaiting_cell_delegate_at_once(notebook):
    played = notebook.play("""
import asyncio
def run(name):
    code = "import os\\nprint(os.getpid())"
    line = f"-w {name} -o kept_{name} --sandbox open"  # confined, each has the same pid
    get_ipython().run_cell_magic("delegate", line, code)
    return get_ipython().user_ns[f"kept_{name}"].stdout
outputs = await asyncio.gather(*(asyncio.to_thread(run, name) for name in ("one", "two", "one")))
assert outputs[0] == outputs[2] != outputs[1], outputs
""")

    assert played.reply["status"] == "ok", played.reply
    assert len(played.stream().splitlines()) == 3


def test_threads_wait_for_their_turn_in_one_worker(notebook):
    played = notebook.play("""
import threading
def work(number):
    code = f"for i in range(50): turns.append({number}); print({number}, flush=True)"
    get_ipython().run_cell_magic("delegate", f"-o turn{number}", code)
get_ipython().run_line_magic("delegate", "turns = []")
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for number in range(4):
    assert globals()[f"turn{number}"].stdout == f"{number}\\n" * 50
""")

    assert played.reply["status"] == "ok", played.reply
    lines = played.stream().split()
    assert sorted(lines) == [str(number) for number in range(4) for _ in range(50)]
    turns = ast.literal_eval(notebook.play("%delegate print(turns)").stream())
    assert sum(a != b for a, b in pairwise(turns)) == 3
