"""A delegated cell shows the same in whatever runs the notebook, with the real programs."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import uuid
from contextlib import closing, suppress
from itertools import pairwise
from queue import Empty

import nbformat
import pexpect
import psutil
import pytest
import websocket

from tests.front_end import FrontEnd
from tests.hosts import environment
from tests.processes import wait_gone, wait_until

_COLOUR = re.compile(r"\x1b\[[\d;]*m")

# What a page of a notebook is made of, to be run at home and in a worker.
PAGE = {
    "text": "print('out')\nimport sys\nprint('err', file=sys.stderr)\nprint('out again')",
    "value": "6 * 7",
    "table": "import pandas\npandas.DataFrame({'a': [1, 2]})",
    "figure": "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
    "update": "handle = display('a', display_id=True)\nhandle.update('b')\nprint('between')",
    "clear": "from IPython.display import clear_output\nprint('a')\nclear_output()\nprint('b')",
    "await": "import asyncio\nawait asyncio.sleep(0)\nprint('awaited')",
    "error": "def ratio(a, b):\n    return a / b\nratio(1, 0)",
    "after": "print('the next cell runs')",
}


def write_notebook(path, cells):
    written = [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=written, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return notebook


def run(*command, cwd):
    """Run a program of Jupyter to its end, with a place of its own for all that it writes."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=own_place(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def own_place(folder):
    # in a test ipykernel would not watch what C code and children write
    changes = {name: None for name in os.environ if "PYTEST" in name}
    return environment(
        **changes,
        IPYTHONDIR=str(folder / "ipython"),
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "r"),
        HIVE_JUPYTER_INTERRUPT_GRACE="20",
    )


def shown(cell):
    """What a stored cell shows, without its numbers."""
    outputs = []
    for output in joined(cell.outputs):
        kept = {key: value for key, value in output.items() if key != "execution_count"}
        text = _COLOUR.sub("", json.dumps(kept, sort_keys=True).replace("\\u001b", "\x1b"))
        outputs.append(re.sub(r"0x[0-9a-f]+|In ?\[\d+\]", "", text))
    return outputs


def joined(outputs):
    """
    What is printed between two other outputs, as one text for each stream.

    In how many pieces it comes depends on the clock, at home and from a worker.
    """
    together, printed = [], {}
    for output in [*outputs, {"output_type": "end"}]:
        if output["output_type"] == "stream":
            printed[output["name"]] = printed.get(output["name"], "") + output["text"]
        else:
            together += [{"name": name, "text": printed[name]} for name in sorted(printed)]
            together.append(dict(output))
            printed = {}
    return together


# --- programs that execute a notebook: nbclient, nbconvert, papermill ---

EXECUTE = {
    "nbclient": (
        *("-c", "from nbclient.cli import main; main()"),
        *("--allow-errors", "--output", "out.ipynb", "in.ipynb"),
    ),
    "nbconvert": (
        *("-m", "nbconvert", "--execute", "--allow-errors", "--to", "notebook"),
        *("--output", "out", "in.ipynb"),
    ),
}


@pytest.mark.parametrize("command", EXECUTE.values(), ids=EXECUTE)
def test_an_executed_notebook_stores_what_it_stores_of_cells_at_home(tmp_path, command):
    """The profile is open: HTML of a worker with a boundary is built anew."""
    delegated = [f"%%delegate\n{code}" for code in PAGE.values()]
    cells = ["%load_ext hive_jupyter", "%delegate --sandbox open 0", *PAGE.values(), *delegated]
    write_notebook(tmp_path / "in.ipynb", cells)

    ended = run(*command, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    stored = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[2:]
    home, away = stored[: len(PAGE)], stored[len(PAGE) :]
    for name, cell, there in zip(PAGE, home, away, strict=True):
        assert shown(cell) == shown(there), name
        numbers = {out.execution_count for out in there.outputs if "execution_count" in out}
        assert numbers <= {there.execution_count}


def test_nbconvert_makes_a_page_of_delegated_cells(tmp_path):
    cells = [f"%%delegate\n{PAGE[name]}" for name in ("text", "table", "figure")]
    write_notebook(tmp_path / "in.ipynb", ["%load_ext hive_jupyter", *cells])

    ended = run("-m", "nbconvert", "--execute", "--to", "html", "in.ipynb", cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "in.html").read_text()
    assert "out again" in page
    assert "<th>a</th>" in page
    assert "data:image/png;base64," in page


def test_nbconvert_fails_with_the_users_own_error(tmp_path):
    write_notebook(
        tmp_path / "in.ipynb", ["%load_ext hive_jupyter", f"%%delegate\n{PAGE['error']}"]
    )

    ended = run("-m", "nbconvert", "--execute", "--to", "notebook", "in.ipynb", cwd=tmp_path)

    assert ended.returncode != 0
    said = _COLOUR.sub("", ended.stderr)
    assert "ZeroDivisionError: division by zero" in said
    assert "return a / b" in said
    assert "hive_jupyter/" not in said


def test_papermill_gives_parameters_and_logs_the_output(tmp_path):
    notebook = write_notebook(
        tmp_path / "in.ipynb",
        [
            "count = 1",
            "%load_ext hive_jupyter",
            "get_ipython().run_cell_magic('delegate', '', f'count = {count}')",
            "%%delegate\nprint('counted to', count)\ncount",
            "%%delegate\nprint('so far')\n1/0",
            "print('never')",
        ],
    )
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "in.ipynb")

    ended = run(
        *("-m", "papermill", "in.ipynb", "out.ipynb", "-p", "count", "5"),
        *("--no-progress-bar", "--log-output", "-k", "python3"),
        cwd=tmp_path,
    )

    assert ended.returncode != 0
    assert "counted to 5" in ended.stderr
    assert "ZeroDivisionError: division by zero" in _COLOUR.sub("", ended.stderr)
    stored = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    (counted,) = (cell for cell in stored if "counted to" in cell.source)
    assert [output.output_type for output in counted.outputs] == ["stream", "execute_result"]
    (failed,) = (cell for cell in stored if "so far" in cell.source and "delegate" in cell.source)
    assert [output.output_type for output in failed.outputs] == ["stream", "error"]
    assert stored[-1].outputs == []


# --- a server, as JupyterLab and Notebook use it ---


def free_port():
    """A port that nobody listens on; older servers cannot tell which one they found."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A Jupyter server with one kernel, spoken to over REST and a websocket."""

    def __init__(self, folder):
        self._place = folder
        self.folder = folder / "project"
        self.folder.mkdir()
        self._token = uuid.uuid4().hex
        self._session = uuid.uuid4().hex

    def __enter__(self):
        self._log = open(self._place / "server.log", "wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
                *(
                    "--ip=127.0.0.1",
                    f"--port={free_port()}",
                    f"--IdentityProvider.token={self._token}",
                ),
                f"--ServerApp.root_dir={self.folder}",
            ],
            cwd=self.folder,
            env=own_place(self._place),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self._process.kill()
            raise
        return self

    def _wait_until_ready(self):
        facts = self._place / "r" / f"jpserver-{self._process.pid}.json"
        wait_until(lambda: facts.exists() and facts.read_text().endswith("}"), 60)
        self._url = json.loads(facts.read_text())["url"]
        self.kernel = wait_until(self._new_kernel, 60)

    def __exit__(self, *_):
        with suppress(OSError):
            self.rest("DELETE", f"api/kernels/{self.kernel}")
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _new_kernel(self):
        with suppress(OSError):
            return self.rest("POST", "api/kernels", {"name": "python3"})["id"]

    def rest(self, method, path, content=None):
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=json.dumps(content or {}).encode(),
            headers={"Authorization": f"token {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def connect(self, protocol=None, session=None):
        """A page in a browser; a session that comes back gets what was said meanwhile."""
        session = session or self._session
        address = self._url.replace("http", "ws", 1)
        connection = websocket.create_connection(
            f"{address}api/kernels/{self.kernel}/channels?session_id={session}",
            header=[f"Authorization: token {self._token}"],
            subprotocols=[protocol] if protocol else None,
            timeout=60,
        )
        return Page(connection, session, protocol)


NEW_PROTOCOL = "v1.kernel.websocket.jupyter.org"


class Page:
    """One websocket to a kernel, in either of the protocols."""

    def __init__(self, connection, session, protocol):
        assert connection.getsubprotocol() == protocol
        self._connection = connection
        self._session = session
        self._is_new = protocol == NEW_PROTOCOL

    def close(self):
        self._connection.close()

    def send(self, kind, content, channel="shell"):
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self._session,
            "username": "",
            "date": "2026-01-01T00:00:00.000Z",
            "version": "5.3",
        }
        parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        if self._is_new:
            texts = [channel.encode(), *(json.dumps(part).encode() for part in parts.values())]
            self._connection.send_binary(_with_offsets(texts))
        else:
            self._connection.send(json.dumps({**parts, "channel": channel, "buffers": []}))
        return header["msg_id"]

    def wait_until_heard(self):
        """Wait for the kernel's broadcasts; a server may connect to them later than it says."""
        self._connection.settimeout(1)
        channel = None
        while channel != "iopub":
            with suppress(websocket.WebSocketTimeoutException):
                self.send("kernel_info_request", {})
                channel = self.receive()[0]
        self._connection.settimeout(60)

    def execute(self, code):
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True}
        return self.send("execute_request", {**content, "user_expressions": {}})

    def receive(self):
        """The next message: its channel, header, parent header and content."""
        text = self._connection.recv()
        if not self._is_new:
            message = json.loads(text)
            parts = [message[part] for part in ("header", "parent_header", "content")]
            return message["channel"], *parts
        count = struct.unpack_from("<Q", text)[0]
        offsets = struct.unpack_from(f"<{count}Q", text, 8)
        texts = [text[start:end] for start, end in pairwise(offsets)]
        return texts[0].decode(), *(json.loads(texts[part]) for part in (1, 2, 4))

    def until_over(self, key, answer=None, look=None):
        """All that the request ``key`` brings, with its reply last."""
        messages, reply = [], None
        while reply is None or not messages or messages[-1][1].get("execution_state") != "idle":
            channel, header, parent, content = self.receive()
            if channel == "iopub" and parent == {}:
                continue
            assert parent.get("msg_id") == key or channel != "stdin"
            if parent.get("msg_id") != key:
                continue
            if channel == "stdin":
                self.send("input_reply", {"value": answer[content["prompt"]]}, "stdin")
            elif channel == "shell":
                reply = content
            else:
                messages.append((header["msg_type"], content))
                if look is not None:
                    look(content)
        return messages, reply

    def watch(self, key):
        """All that the request ``key`` of another page shows."""
        messages = []
        while not messages or messages[-1][1].get("execution_state") != "idle":
            channel, header, parent, content = self.receive()
            if channel == "iopub" and parent.get("msg_id") == key:
                messages.append((header["msg_type"], content))
        return messages

    def play(self, code, **options):
        messages, reply = self.until_over(self.execute(code), **options)
        assert reply["status"] == "ok", reply
        return messages


def _with_offsets(texts):
    offsets = [8 * (len(texts) + 2)]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(texts)


def printed(messages, name="stdout"):
    return "".join(c["text"] for kind, c in messages if kind == "stream" and c["name"] == name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("s")) as server:
        with closing(server.connect()) as page:
            page.play("%load_ext hive_jupyter\n%delegate 0")
        yield server


@pytest.fixture(params=[None, NEW_PROTOCOL], ids=["old protocol", "new protocol"])
def page(server, request):
    with closing(server.connect(request.param)) as page:
        yield page


def test_a_page_shows_a_delegated_cell(page):
    messages = page.play(
        "%%delegate\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n"
        "print(input('name? '))\n6 * 7",
        answer={"[coder] name? ": "me"},
    )

    kinds = [kind for kind, _ in messages if kind not in {"status", "execute_input"}]
    assert kinds == ["stream", "stream", "display_data", "stream", "execute_result"]
    assert printed(messages) == "out\nme\n"
    assert messages[-2][1]["data"] == {"text/plain": "42"}


def seen_at_once(server, code):
    """What a page of each protocol shows of one flood; the server has a limit for each of them."""
    with (
        closing(server.connect()) as page,
        closing(server.connect(NEW_PROTOCOL, session="another")) as other,
    ):
        for each in (page, other):
            each.wait_until_heard()
        key = page.execute(code)
        messages, _ = page.until_over(key)
        return messages, other.watch(key)


def test_the_servers_limit_drops_nothing_of_many_prints(server):
    for messages in seen_at_once(
        server, "%%delegate\nfor i in range(20_000): print(i, flush=True)"
    ):
        assert printed(messages) == "".join(f"{i}\n" for i in range(20_000))
        assert printed(messages, "stderr") == ""


def test_the_servers_limit_drops_nothing_of_many_displays(server):
    for messages in seen_at_once(server, "%%delegate\nfor i in range(5000): display(i)"):
        values = [said["data"]["text/plain"] for kind, said in messages if kind == "display_data"]
        assert values == [str(i) for i in range(5000)]
        assert printed(messages, "stderr") == ""


def test_the_stop_button_stops_the_run_and_keeps_the_worker(server, page):
    page.play("%delegate kept = 7")
    key = page.execute("%%delegate\nprint('go', flush=True)\nwhile True: pass")

    def stop(content):
        if "go" in content.get("text", ""):
            server.rest("POST", f"api/kernels/{server.kernel}/interrupt")

    _, reply = page.until_over(key, look=stop)

    assert reply["ename"] == "KeyboardInterrupt"
    assert printed(page.play("%delegate print(kept)")) == "7\n"


def test_a_page_that_comes_back_gets_what_was_said_meanwhile(server):
    gone, said = server.folder / "gone", server.folder / "said"
    page = server.connect()
    key = page.execute(f"""%%delegate
import os, time
print("before", flush=True)
while not os.path.exists({str(gone)!r}):
    time.sleep(0.01)
for i in range(2000):
    print(i, flush=True)
display("shown meanwhile")
open({str(said)!r}, "w").close()
while os.path.exists({str(gone)!r}):
    time.sleep(0.01)
print("after")
""")
    text = ""
    while "before" not in text:
        _, _, _, content = page.receive()
        text += content.get("text", "")
    page.close()
    wait_until(lambda: server.rest("GET", f"api/kernels/{server.kernel}")["connections"] == 0)
    gone.touch()
    wait_until(said.exists, 30)

    with closing(server.connect()) as page:
        gone.unlink()
        messages, reply = page.until_over(key)

    assert reply["status"] == "ok"
    assert printed(messages) == "".join(f"{i}\n" for i in range(2000)) + "after\n"
    assert [c["data"]["text/plain"] for k, c in messages if k == "display_data"] == [
        "'shown meanwhile'"
    ]


def test_a_restart_in_the_middle_of_a_run_leaves_no_process(server):
    with closing(server.connect()) as page:
        kernel = psutil.Process(int(printed(page.play("import os; print(os.getpid())"))))
        page.execute(
            "%%delegate -w doomed\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
            "print('go', flush=True)\nwhile True: pass"
        )
        while "go" not in page.receive()[3].get("text", ""):
            pass
        family = kernel.children(recursive=True)
        assert any("sleep" in process.name() for process in family)

        server.rest("POST", f"api/kernels/{server.kernel}/restart")

        wait_gone(family)
    with closing(server.connect()) as page:
        messages = page.play("%load_ext hive_jupyter\n%delegate -w doomed print('fresh')")
        assert printed(messages).endswith("fresh\n")
        page.play("%delegate 0")


# --- VS Code, which speaks to the kernel's sockets itself ---


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        assert front_end.play("%load_ext hive_jupyter\n%delegate 0").reply["status"] == "ok"
        yield front_end


class Editor:
    """Sends what VS Code sends, with ids and a session of its own."""

    def __init__(self, client):
        self._client = client
        self._session = str(uuid.uuid4())

    def send(self, kind, content, channel="shell", metadata=None, **header):
        message = self._client.session.msg(kind, content, metadata=metadata)
        message["header"].update(
            msg_id=str(uuid.uuid4()), session=self._session, username="vscode", **header
        )
        message["msg_id"] = message["header"]["msg_id"]
        getattr(self._client, f"{channel}_channel").send(message)
        return message["msg_id"]

    def execute(self, code, *, silent=False, metadata=None, **header):
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": not silent,
            "stop_on_error": False,
        }
        return self.send("execute_request", content, metadata=metadata, **header)

    def until_over(self, *keys, look=None, seconds=60):
        """What each of the requests brought: its messages and its reply."""
        brought = {key: [[], None] for key in keys}
        is_idle = dict.fromkeys(keys, False)
        end = time.monotonic() + seconds
        while not all(is_idle.values()) or any(reply is None for _, reply in brought.values()):
            assert time.monotonic() < end, brought
            for channel in ("iopub", "shell", "stdin"):
                with suppress(Empty):
                    message = getattr(self._client, f"get_{channel}_msg")(timeout=0.01)
                    key, content = message["parent_header"].get("msg_id"), message["content"]
                    if channel == "stdin":
                        self.send("input_reply", {"value": "typed"}, "stdin")
                    elif key in brought and channel == "shell":
                        brought[key][1] = content
                    elif key in brought:
                        brought[key][0].append((message["msg_type"], content))
                        is_idle[key] |= content.get("execution_state") == "idle"
                        if look is not None:
                            look(key, content)
        return [tuple(brought[key]) for key in keys]


def test_an_editor_with_hidden_requests_around_its_cells_shows_a_delegated_cell(kernel):
    """VS Code asks for variables and the like, silently, before and after each cell."""
    editor = Editor(kernel.client)
    cell = "%%delegate\nprint('out', input('name? '))\ndisplay('a', display_id='d').update('b')\n42"
    keys = [
        editor.execute("import os as _VSCODE_os; print('hidden')", silent=True),
        editor.execute(cell, metadata={"cellId": "vscode-notebook-cell:/x.ipynb#W0sZmlsZQ%3D%3D"}),
        editor.execute("%delegate hidden = 1", silent=True),
        editor.execute("%delegate 1/0"),
        editor.execute("%delegate print('goes on')"),
    ]

    _, shown_there, hidden, failed, after = editor.until_over(*keys)

    kinds = [kind for kind, _ in shown_there[0] if kind not in {"status", "execute_input"}]
    assert kinds == ["stream", "display_data", "update_display_data", "execute_result"]
    assert printed(shown_there[0]) == "out typed\n"
    displays = [content for kind, content in shown_there[0] if "display_data" in kind]
    assert [content["transient"] for content in displays] == [{"display_id": "coder/d"}] * 2
    assert shown_there[1]["status"] == "ok"
    assert [kind for kind, _ in hidden[0] if kind != "status"] == []
    assert failed[1]["ename"] == "ZeroDivisionError"
    assert printed(after[0]) == "goes on\n"


@pytest.mark.parametrize("how", ["message", "signal"])
def test_an_editor_interrupts_by_message_and_by_signal(kernel, how):
    editor = Editor(kernel.client)
    key = editor.execute("%%delegate\nprint('go', flush=True)\nwhile True: pass")

    def stop(_, content):
        speaks = "go" in content.get("text", "")  # the line's end may come apart
        if speaks and how == "message":
            editor.send("interrupt_request", {}, "control")
        elif speaks:
            kernel.manager.interrupt_kernel()

    ((_, reply),) = editor.until_over(key, look=stop)

    assert reply["ename"] == "KeyboardInterrupt"


def test_a_subshell_delegates_while_the_main_shell_is_busy(kernel):
    """The two runs are in two workers; each shows what is its own."""
    editor = Editor(kernel.client)
    editor.send("create_subshell_request", {}, "control")
    while "subshell_id" not in (created := kernel.client.get_control_msg(timeout=30)["content"]):
        pass  # the reply to an earlier request
    subshell = created["subshell_id"]
    done = kernel.folder / "done"
    main = editor.execute(f"""%%delegate
import os, time
print("main", flush=True)
while not os.path.exists({str(done)!r}):
    time.sleep(0.01)
print("main again")
""")

    aside = editor.execute("%delegate -w aside print('aside'); 'value'", subshell_id=subshell)
    ((messages, reply),) = editor.until_over(aside)
    done.touch()
    ((of_main, main_reply),) = editor.until_over(main)

    assert reply["status"] == main_reply["status"] == "ok"
    # IPython 8 adds that it cannot store two cells under one number
    assert printed(messages).startswith("aside\n")
    assert printed(of_main).endswith("main again\n")
    assert "aside" not in printed(of_main)


# --- IPython in a terminal ---


@pytest.fixture
def terminal(tmp_path):
    """IPython on a terminal of its own, with the extension loaded, in the folder "project"."""
    (tmp_path / "project").mkdir()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--colors=nocolor", "--no-banner", "--simple-prompt"],
        cwd=str(tmp_path / "project"),
        env={**own_place(tmp_path), "TERM": "dumb"},
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    terminal = Terminal(child)
    terminal.wait_for_prompt()
    terminal.type("%load_ext hive_jupyter")
    terminal.wait_for_prompt()
    yield terminal
    child.close(force=True)


class Terminal:
    """Types, and reads what is shown."""

    def __init__(self, child):
        self._child = child

    def type(self, line):
        self._child.send(line + "\r")

    def press_ctrl_c(self):
        self._child.sendintr()

    def wait_for(self, text):
        self._child.expect_exact(text)
        return self._child.before

    def wait_for_prompt(self):
        self._child.expect(r"In \[\d+\]: ")
        return self._child.before

    def run(self, code):
        """Run code that a magic takes; what it shows is written with care not to be in the code."""
        self.type(f"get_ipython().run_cell_magic('delegate', '', {code!r})")


def test_a_terminal_shows_a_line_before_the_cell_has_ended(terminal, tmp_path):
    seen = tmp_path / "project" / "seen"
    terminal.run(
        f"import os, time\nprint('fi' + 'rst')\nwhile not os.path.exists({str(seen)!r}):\n"
        "    time.sleep(0.01)\nprint('la' + 'st')"
    )

    terminal.wait_for("first\r\n")
    seen.touch()
    terminal.wait_for("last\r\n")


def test_a_terminal_asks_and_says_who_asks(terminal):
    terminal.run("name = input('na' + 'me? ')\nprint('hel' + 'lo', name)")
    terminal.wait_for("[coder] name? ")
    terminal.type("me")
    terminal.wait_for("hello me\r\n")

    terminal.run("import getpass\nkey = getpass.getpass('ke' + 'y: ')\nprint('go' + 't', len(key))")
    terminal.wait_for("[coder] key: ")
    terminal.type("se" + "cret")
    assert "secret" not in terminal.wait_for("got 6\r\n")


def test_a_terminal_shows_errors_as_ipython_shows_them(terminal):
    terminal.run("def ratio(a, b):\n    return a / b\nratio(1, 0)")

    before = terminal.wait_for("ZeroDivisionError: division by zero")
    assert "Traceback (most recent call last)" in before
    assert "----> 2     return a / b" in before
    assert "hive_jupyter" not in before


def test_ctrl_c_in_a_terminal_stops_the_run_and_keeps_the_worker(terminal):
    terminal.run("kept = 6\nprint('g' + 'o', flush=True)\nwhile True: pass")
    terminal.wait_for("go\r\n")
    terminal.press_ctrl_c()
    terminal.wait_for("KeyboardInterrupt")
    terminal.wait_for_prompt()

    terminal.run("print('ke' + 'pt', kept + 1)")
    terminal.wait_for("kept 7\r\n")


def test_a_terminal_shows_the_text_of_values_and_figures(terminal):
    terminal.run("[1, 2] + [3]")
    terminal.wait_for("[1, 2, 3]\r\n")

    terminal.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1));")
    terminal.wait_for("<Figure size 100x100 with 0 Axes>")
