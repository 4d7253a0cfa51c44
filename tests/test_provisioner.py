"""Kernels of the user's own: a front-end starts them from the zygote, and notices no difference."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import jupyter_kernel_test
import psutil
import pytest
from jupyter_client.ioloop import AsyncIOLoopKernelManager
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager, MultiKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from hive_jupyter.errors import ConfigError, SandboxUnavailable
from hive_jupyter.swarm.provisioner import HiveProvisioner
from tests.processes import ROOT, family, start_host, titled, wait_gone, wait_until

IPYKERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")
# The same expectations hold for both, where nothing else is said.
BOTH = pytest.mark.parametrize("spec", ["python3-zygote", "local"])


def install(folder, name, *, argv=("python", *IPYKERNEL), provisioner="hive-provisioner", **config):
    """A kernelspec."""
    place = folder / "kernels" / name
    place.mkdir(parents=True)
    stanza = {"provisioner_name": provisioner, "config": config}
    spec = {
        "argv": list(argv),
        "display_name": name,
        "language": "python",
        "env": {"FROM_THE_SPEC": "here"},
        "metadata": {"kernel_provisioner": stanza} if provisioner else {},
    }
    (place / "kernel.json").write_text(json.dumps(spec))


@pytest.fixture(scope="module", autouse=True)
def specs(runtime, tmp_path_factory):
    """The folder of the kernelspecs; Jupyter and IPython have no other files of this user's."""
    folder = tmp_path_factory.mktemp("jupyter")
    install(folder, "python3-zygote")
    install(folder, "local", provisioner=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("JUPYTER_NO_CONFIG", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.delenv("PYTHONWARNINGS", raising=False)
        yield folder


@contextmanager
def talking(manager, ready=True):
    """A blocking client of a manager's kernel."""
    client = manager.client()
    client.start_channels()
    try:
        if ready:
            client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)


@contextmanager
def running(spec="python3-zygote", **options):
    """A kernel with its manager and a client."""
    manager = KernelManager(kernel_name=spec)
    manager.start_kernel(**options)
    try:
        with talking(manager) as client:
            yield manager, client
    finally:
        manager.shutdown_kernel(now=True)


def ask(client, code, **options):
    """The text that a cell prints."""
    texts = []

    def note(message):
        content = message["content"]
        texts.append(content.get("text") or "\n".join(content.get("traceback", ())))

    client.execute_interactive(code, timeout=60, output_hook=note, **options)
    return "".join(texts).strip()


def begin(client, code):
    """Run a cell up to its first output; its failure must not cancel the next one."""
    key = client.execute(code, stop_on_error=False)
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == key:
            return key


def reply_to(client, key):
    """The reply to a request."""
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == key:
            return reply["content"]


def free_port():
    """A port that nobody has, at least now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class TestMessages(jupyter_kernel_test.KernelTests):
    """The public suite for kernels."""

    kernel_name = "python3-zygote"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('oops', file=sys.stderr)"
    completion_samples = [  # noqa: RUF012
        {"text": "zi", "matches": {"zip"}},
        {"text": "import zlib; zlib.decompressob", "matches": {"decompressobj"}},
    ]
    complete_code_samples = ["1", "print('hello')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise ValueError"
    code_execute_result = [  # noqa: RUF012
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data = [  # noqa: RUF012
        {
            "code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
            "mime": "text/html",
        },
    ]
    code_history_pattern = "1?2*"
    # any ipykernel calls the running session 0 where the suite expects a number of its own
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


def test_jupyter_finds_it_by_its_name():
    entries = KernelProvisionerFactory.instance().get_provisioner_entries()

    assert "hive_jupyter.swarm.provisioner:HiveProvisioner" == entries["hive-provisioner"]


@BOTH
def test_a_kernel_starts_answers_restarts_and_ends(spec):
    with running(spec) as (manager, client):
        first = manager.provisioner.pid
        assert manager.is_alive()
        assert "2" == ask(client, "x = 1; print(x + 1)")
        assert str(first) == ask(client, "import os; print(os.getpid())")

        before = manager.get_connection_info()
        manager.restart_kernel()
        client.wait_for_ready(timeout=60)
        assert before == manager.get_connection_info()
        assert "NameError" in ask(client, "x")
        assert first != manager.provisioner.pid

        manager.shutdown_kernel()
        assert not manager.is_alive()
        assert not manager.provisioner.has_process
        assert 0 == asyncio.run(manager.provisioner.poll())
        assert not psutil.pid_exists(first)


@BOTH
async def test_an_async_manager_does_the_same(spec):
    manager = AsyncKernelManager(kernel_name=spec)
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    for now in (False, True):
        pid = manager.provisioner.pid
        await manager.restart_kernel(now=now)
        await client.wait_for_ready(timeout=60)
        assert pid != manager.provisioner.pid
        assert await manager.is_alive()
    await manager.interrupt_kernel()
    client.stop_channels()
    client.context.destroy(linger=0)
    await manager.shutdown_kernel(now=True)
    assert not await manager.is_alive()
    assert not manager.provisioner.has_process
    assert manager.context.closed


def test_nothing_is_left_of_a_kernel_but_the_zygote():
    before = {process.pid for process in family()}
    with running() as (manager, client):
        ask(
            client, "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
        )
        folder, file = Path(manager.ip).parent, Path(manager.connection_file)
        assert 0o700 == folder.stat().st_mode & 0o777
        assert file.exists()
        manager.shutdown_kernel()
    left = [process for process in family() if process.pid not in before]
    assert [] == [process for process in left if process not in titled(left, "hive: zygote")]
    assert not folder.exists()
    assert not file.exists()


def test_many_kernels_are_forked_from_a_zygote():
    managers = MultiKernelManager()
    keys = [managers.start_kernel(kernel_name="python3-zygote") for _ in range(3)]
    pids = {managers.get_kernel(key).provisioner.pid for key in keys}
    assert 3 == len(pids)
    zygotes = {psutil.Process(pid).parent().parent() for pid in pids}
    assert len(zygotes) == len(titled(zygotes, "hive: zygote"))
    managers.restart_kernel(keys[0], now=True)
    with talking(managers.get_kernel(keys[0])) as client:
        assert "1" == ask(client, "print(1)")
    managers.shutdown_all()
    wait_gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])
    assert [] == managers.list_kernel_ids()


async def test_many_kernels_start_at_once_under_an_async_manager():
    managers = AsyncMultiKernelManager()
    keys = await asyncio.gather(
        *(managers.start_kernel(kernel_name="python3-zygote") for _ in range(4))
    )
    alive = await asyncio.gather(*(managers.is_alive(key) for key in keys))
    assert [True] * 4 == alive
    await managers.shutdown_all(now=True)
    assert [] == managers.list_kernel_ids()


def test_a_kernel_outlives_the_loop_that_it_was_started_on():
    manager = AsyncKernelManager(kernel_name="python3-zygote")
    asyncio.run(manager.start_kernel())
    with asyncio.Runner() as runner:
        assert runner.run(manager.is_alive())
        os.kill(manager.provisioner.pid, signal.SIGKILL)
        wait_until(lambda: not runner.run(manager.is_alive()))
        runner.run(manager.shutdown_kernel(now=True))
    assert not manager.has_kernel


@BOTH
@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11)],
)
def test_the_end_of_a_kernel_is_told_by_poll_and_wait(spec, end, code):
    with running(spec) as (manager, client):
        client.execute(f"import os; {end}")
        provisioner = manager.provisioner
        assert code == wait_until(lambda: asyncio.run(provisioner.poll()), 30)
        assert not manager.is_alive()
        assert provisioner.has_process
        assert code == asyncio.run(provisioner.wait())
        assert not provisioner.has_process
        assert 0 == asyncio.run(provisioner.wait())


@BOTH
def test_an_interrupt_reaches_the_cell_and_what_it_started(spec):
    with running(spec) as (manager, client):
        code = (
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', \"import signal\\n"
            'signal.signal(signal.SIGINT, signal.SIG_DFL); print(1, flush=True); signal.pause()"],'
            " stdout=subprocess.PIPE)\n"
            "child.stdout.readline(); print('now')\n"
            "import time; time.sleep(1000)"
        )
        key = begin(client, code)
        manager.interrupt_kernel()
        assert "KeyboardInterrupt" == reply_to(client, key)["ename"]
        assert "-2" == ask(client, "print(child.wait())")


@BOTH
def test_a_kernel_that_does_not_listen_is_terminated(spec):
    with running(spec) as (manager, client):
        begin(
            client,
            "import time\nprint('now')\nwhile True:\n"
            " try: time.sleep(1000)\n except KeyboardInterrupt: pass",
        )
        manager.shutdown_wait_time = 1.0
        manager.shutdown_kernel()
        assert not manager.is_alive()


@BOTH
def test_a_signal_that_does_not_exist_is_refused(spec):
    with running(spec) as (manager, client):
        with pytest.raises(OSError) as caught:
            manager.signal_kernel(1000)
        assert errno.EINVAL == caught.value.errno
        assert "1" == ask(client, "print(1)")


@BOTH
def test_a_program_or_folder_that_is_missing_fails_the_start(spec, specs, tmp_path):
    name = f"missing-{spec}"
    provisioner = "hive-provisioner" if spec == "python3-zygote" else None
    install(specs, name, argv=("no-such-program", "{connection_file}"), provisioner=provisioner)
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        KernelManager(kernel_name=name).start_kernel()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        KernelManager(kernel_name=spec).start_kernel(cwd=str(tmp_path / "nowhere"))


@BOTH
def test_a_kernel_has_the_place_and_environment_that_the_front_end_says(spec, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "of_the_path.py").write_text("x = 1")
    (tmp_path / "of_the_folder.py").write_text("y = 2")
    profile = tmp_path / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "first.py").write_text("started = 'yes'")
    (profile / "ipython_kernel_config.py").write_text(
        "c.InteractiveShellApp.exec_lines = ['configured = 1']"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), os.environ["PYTHONPATH"]]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "SECRET": "of the user's",
    }
    code = (
        "import os, sys, json, of_the_path, of_the_folder, ipykernel\n"
        "history = str(get_ipython().history_manager.hist_file)\n"
        "wanted = ('SECRET', 'FROM_THE_SPEC', 'HIVE_JUPYTER_IN_WORKER', 'MPLBACKEND')\n"
        "print(json.dumps([os.getcwd(), started, configured, sys.path, __name__, history,\n"
        "    [os.environ.get(name) for name in wanted], ipykernel.get_connection_file()]))"
    )
    with running(spec, cwd=str(tmp_path), env=environment) as (manager, client):
        cwd, started, configured, path, name, history, variables, file = json.loads(
            ask(client, code)
        )
        assert [str(tmp_path), "yes", 1, "__main__"] == [cwd, started, configured, name]
        assert str(tmp_path / "lib") == path[0]
        assert "" in path
        assert history.startswith(str(profile))
        assert ["of the user's", "here", None] == variables[:3]
        assert "inline" in variables[3]
        assert os.path.realpath(manager.connection_file) == os.path.realpath(file)
        if hasattr(manager, "resolve_path"):  # older releases of jupyter_client have none
            assert str(tmp_path / "of_the_folder.py") == manager.resolve_path("of_the_folder.py")


def test_the_search_path_is_that_of_any_other_kernel():
    code = "import sys; print(sys.path)"
    paths = set()
    for spec in ("python3-zygote", "local"):
        with running(spec) as (_, client):
            paths.add(ask(client, code))
    assert 1 == len(paths), paths


@BOTH
def test_a_kernel_ends_as_python_does(spec, tmp_path):
    note = tmp_path / "note"
    with running(spec) as (manager, client):
        ask(client, f"import atexit; _ = atexit.register(open({str(note)!r}, 'w').write, 'bye')")
        manager.shutdown_kernel()
    assert "bye" == note.read_text()


def test_a_kernel_goes_by_its_name():
    with running() as (manager, client):
        title = Path(f"/proc/{manager.provisioner.pid}/cmdline").read_text().strip("\0 ")
        assert f"hive: kernel {manager.kernel_id[:8]}" == title
        assert "False" == ask(client, "import os; print('JPY_PARENT_PID' in os.environ)")


def test_what_a_front_end_has_asked_for_can_be_written_down():
    with running() as (manager, _):
        info = asyncio.run(manager.provisioner.get_provisioner_info())
        assert info["pid"] == info["pgid"] == manager.provisioner.pid
        assert manager.get_connection_info() == info["connection_info"]
        other = HiveProvisioner(kernel_spec=manager.kernel_spec)
        asyncio.run(other.load_provisioner_info(info))
        assert (info["kernel_id"], info["pid"]) == (other.kernel_id, other.pid)


def test_an_address_that_somebody_chose_is_kept():
    port = free_port()
    manager = KernelManager(kernel_name="python3-zygote", hb_port=port, cache_ports=False)
    manager.start_kernel()
    try:
        assert ("tcp", "127.0.0.1", port) == (manager.transport, manager.ip, manager.hb_port)
        with talking(manager) as client:
            assert "1" == ask(client, "print(1)")
    finally:
        manager.shutdown_kernel(now=True)


def test_a_python_with_other_options_is_started_as_it_is_written(specs):
    install(specs, "developer", argv=("python", "-X", "dev", "-W", "ignore", *IPYKERNEL))
    with running("developer") as (manager, client):
        code = "import os, sys; print(sys.flags.dev_mode, 'HIVE_JUPYTER_IN_WORKER' in os.environ)"
        assert "True False" == ask(client, code)
        supervisor = psutil.Process(manager.provisioner.pid).parent()
        assert "hive: supervisor" == " ".join(supervisor.cmdline())[:16]
        manager.restart_kernel()
        client.wait_for_ready(timeout=60)
        assert "True False" == ask(client, code)


def test_what_python_reads_only_at_its_start_is_heeded():
    with running(env={**os.environ, "PYTHONHASHSEED": "7"}) as (_, client):
        expected = subprocess.run(
            [sys.executable, "-c", "print(hash('x'))"],
            env={**os.environ, "PYTHONHASHSEED": "7"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert expected.stdout.strip() == ask(client, "print(hash('x'))")


def test_a_memory_limit_holds_for_the_whole_kernel(specs):
    install(specs, "small", memory="300M")
    with running("small") as (manager, client):
        assert "MemoryError" in ask(client, "x = bytearray(2**30)")
        assert "1" == ask(client, "print(1)")
        assert 300 * 2**20 == manager.provisioner.memory


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"sandbox": "strict"}, SandboxUnavailable, "kernel of your own"),
        ({"sandbox": "opne"}, ConfigError, "open"),
        ({"memory": "1M"}, ConfigError, "at least"),
        ({"memory": "a lot"}, ConfigError, "a lot"),
        ({"memroy": "1G"}, ConfigError, 'no setting "memroy".*"memory"'),
    ],
)
def test_a_kernelspec_that_asks_for_what_is_not_to_be_had_starts_nothing(
    specs, tmp_path, monkeypatch, config, error, message
):
    install(tmp_path, "refused", **config)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = KernelManager(kernel_name="refused")
    with pytest.raises(error, match=message):
        manager.start_kernel()
    assert not manager.has_kernel


async def test_a_kernel_that_crashed_is_restarted_by_the_restarter():
    manager = AsyncIOLoopKernelManager(kernel_name="python3-zygote")
    restarted = asyncio.Event()
    await manager.start_kernel()
    manager._restarter.time_to_dead = 0.1
    manager.stop_restarter()
    manager._restarter = None
    manager.start_restarter()
    manager.add_restart_callback(restarted.set)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    first = manager.provisioner.pid
    client.execute("import os; os.kill(os.getpid(), 9)")
    async with asyncio.timeout(60):
        await restarted.wait()
        while manager.provisioner.pid == first or not manager.has_kernel:
            await asyncio.sleep(0.05)
    await client.wait_for_ready(timeout=60)
    assert await manager.is_alive()
    client.stop_channels()
    client.context.destroy(linger=0)
    await manager.shutdown_kernel(now=True)


def test_an_end_that_nobody_asked_for_is_logged(caplog):
    with running() as (manager, client):
        manager.provisioner.log.propagate = True
        client.execute("import faulthandler; faulthandler._sigsegv()")
        wait_until(lambda: not manager.is_alive(), 30)
        manager.shutdown_kernel(now=True)
    assert "ended with -11" in caplog.text
    assert "Segmentation fault" in caplog.text


def test_a_kernel_can_delegate():
    with running() as (_, client):
        assert "" == ask(client, "import os; x = 1\n%load_ext hive_jupyter")
        first = ask(client, "%%delegate\nimport os\nprint(os.environ['HIVE_JUPYTER_IN_WORKER'])")
        assert "coder" == first
        assert "1" == ask(client, "print(x)")


def test_a_kernel_ends_with_its_server(specs, runtime):
    code = (
        "import sys\n"
        "from jupyter_client.manager import KernelManager\n"
        "manager = KernelManager(kernel_name='python3-zygote')\n"
        "manager.start_kernel()\n"
        "print(manager.provisioner.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "import signal; signal.pause()\n"
    )
    host = start_host(code, runtime)
    with host:
        kernel = psutil.Process(int(host.stdout.readline()))
        host.kill()
    wait_gone([kernel])


@pytest.mark.parametrize("end", ["manager.shutdown_kernel()", "pass"])
def test_a_process_that_had_kernels_ends_and_leaves_no_process(specs, tmp_path, end):
    runtime = tmp_path / "r"
    code = (
        "import atexit\n"
        "from jupyter_client.manager import KernelManager\n"
        "manager = KernelManager(kernel_name='python3-zygote')\n"
        f"atexit.register(lambda: {'None' if end == 'pass' else end})\n"
        "manager.start_kernel()\n"
        "print(manager.provisioner.pid, flush=True)\n"
    )
    host = start_host(code, runtime)
    with host:
        pid = int(host.stdout.readline())
        assert 0 == host.wait(60)
    wait_until(lambda: not psutil.pid_exists(pid))
    if end != "pass":
        assert [] == list((runtime / "hive").iterdir())


@asynccontextmanager
async def jupyter_server(runtime, folder):
    """A Jupyter server of its own; gives the address of its kernels."""
    pytest.importorskip("jupyter_server")
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "jupyter_server",
                f"--ServerApp.port={free_port()}",
                "--no-browser",
                "--allow-root",
            ),
            *("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"),
        ],
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        info = runtime / f"jpserver-{process.pid}.json"
        yield process, wait_until(lambda: info.exists() and _port(info), 60)
    finally:
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60)


def _port(info):
    with suppress(json.JSONDecodeError, ConnectionRefusedError):
        port = json.loads(info.read_text())["port"]
        with socket.create_connection(("127.0.0.1", port)):
            return port
    return None


async def _printed(channels, code):
    """What a cell prints, over a front-end's web socket."""
    key = os.urandom(8).hex()
    header = {
        "msg_id": key,
        "msg_type": "execute_request",
        "username": "u",
        "session": "s",
        "version": "5.3",
        "date": "2024-01-01T00:00:00Z",
    }
    content = {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": True}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
    await channels.write_message(json.dumps({**message, "content": content}))
    text = ""
    async with asyncio.timeout(60):
        while True:
            answer = json.loads(await channels.read_message())
            if answer["parent_header"].get("msg_id") != key or answer["channel"] != "iopub":
                continue
            text += answer["content"].get("text", "") + answer["content"].get("ename", "")
            if answer["content"].get("execution_state") == "idle":
                return text


async def test_the_restart_button_of_a_server_leaves_its_clients_connected(tmp_path):
    async with jupyter_server(tmp_path / "r", tmp_path) as (process, port):
        client = AsyncHTTPClient(force_instance=True)
        api = f"http://127.0.0.1:{port}/api/kernels"
        made = await client.fetch(
            api, method="POST", body='{"name": "python3-zygote"}', request_timeout=60
        )
        key = json.loads(made.body)["id"]
        channels = await websocket_connect(f"ws://127.0.0.1:{port}/api/kernels/{key}/channels")
        assert "1\n" == await _printed(channels, "x = 1; print(x)")
        kernels = titled(family(process.pid), "hive: kernel")
        assert 1 == len(kernels)

        await client.fetch(f"{api}/{key}/restart", method="POST", body="", request_timeout=60)
        assert "NameError" == await _printed(channels, "x")
        assert "2\n" == await _printed(channels, "print(2)")
        wait_gone(kernels)

        channels.close()
        await client.fetch(f"{api}/{key}", method="DELETE", request_timeout=60)
        assert [] == titled(family(process.pid), "hive: kernel")
        client.close()
    assert [] == list((tmp_path / "r" / "hive").iterdir())
