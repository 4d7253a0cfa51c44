"""Worker processes from a zygote, or exec'd."""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import zmq

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm import forkserver
from hive_jupyter.swarm.forkserver import ForkServer
from hive_jupyter.swarm.launch import Launch, library_path, worker_environment
from hive_jupyter.swarm.process import WorkerProcess, first_of
from hive_jupyter.swarm.runtime import RuntimeFolder
from tests.processes import family, has_ended, start_host, stopped, titled, wait_gone

pytestmark = pytest.mark.asyncio(loop_scope="module")

DROP_FROM_BOUNDING_SET, CAP_SYS_PTRACE, PIDFD_GETFD = 24, 19, 438
SIGINT_BIT = 1 << (signal.SIGINT - 1)


@asynccontextmanager
async def serving(**options):
    """A fork server of a test's own; it leaves nothing."""
    before = family()
    folder = RuntimeFolder.create()
    environment = worker_environment(HiveConfig())
    plain = {"interpreter": sys.executable, "path": library_path()}
    server = ForkServer(folder, **{**plain, "environment": environment, **options})
    try:
        yield server
    finally:
        await server.close()
        folder.remove()
        wait_gone([process for process in family() if process not in before])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(runtime):
    async with serving() as server:
        yield server


@pytest.fixture
def launch(tmp_path):
    return Launch(
        interpreter=sys.executable,
        argv=(),
        cwd=str(tmp_path),
        path=tuple(sys.path),
        environment=tuple(sorted(worker_environment(HiveConfig()).items())),
        policy=SandboxPolicy(),
    )


async def started(server, launch, name="coder"):
    process = await server.spawn(launch, name)
    await asyncio.wait_for(first_of(process.ready, process.exited), 20)
    return process


async def zygote_of(server):
    await server.warm_up()
    return psutil.Process(server._zygote.process.pid)


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: words.strip() for name, _, words in (line.partition(":") for line in lines)}


def importable(name):
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(name) is not None
    return False


# The zygote


async def test_the_zygote_is_a_clean_single_threaded_process_of_its_own_session(server):
    zygote = await zygote_of(server)

    assert "hive: zygote" == " ".join(zygote.cmdline()).strip()
    assert ["zygote"] == [status(zygote.pid)["Name"].removeprefix("hive: ")]
    assert 1 == zygote.num_threads()
    assert zygote.pid == os.getsid(zygote.pid)
    assert "/" == zygote.cwd()
    assert int(status(zygote.pid)["SigIgn"], 16) & SIGINT_BIT


async def test_the_zygote_holds_none_of_the_hosts_descriptors(server, tmp_path):
    zygote = await zygote_of(server)
    links = [os.readlink(entry) for entry in Path(f"/proc/{zygote.pid}/fd").iterdir()]

    assert "/dev/null" == os.readlink(f"/proc/{zygote.pid}/fd/0")
    assert 1 == sum(link.startswith("socket:") for link in links)
    assert {"socket", "pipe", "anon_inode", "/dev/null", str(server.runtime.path)} >= {
        link.split(":")[0] if ":" in link else link.split("/w")[0] for link in links
    }


@pytest.mark.parametrize("method", ["fork", "exec"])
async def test_zygote_and_supervisor_let_nobody_look_into_their_memory(runtime, method):
    """They are not dumpable; their workers, whose memory is the user's own, are."""
    inner = (
        "import ctypes, os, psutil\n"
        "from hive_jupyter import HiveManager\n"
        "def open_to_us(pid):\n"
        f"    return ctypes.CDLL(None).syscall({PIDFD_GETFD}, os.pidfd_open(pid), 0, 0) >= 0\n"
        f"with HiveManager(spares=0, start_method='{method}') as hive:\n"
        "    worker = hive.start().pid\n"
        "    supervisor, zygote, *_ = psutil.Process(worker).parents()\n"
        "    assert zygote in psutil.Process().children()\n"
        "    print(*map(open_to_us, (zygote.pid, supervisor.pid, worker)))\n"
    )
    # root may look into everything, unless it gives that right up (capabilities(7)) and execs
    outer = (
        "import ctypes, os, sys\n"
        f"ctypes.CDLL(None).prctl({DROP_FROM_BOUNDING_SET}, {CAP_SYS_PTRACE}, 0, 0, 0)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {inner!r}])\n"
    )
    with start_host(outer, runtime) as host:
        assert "False False True" == host.stdout.read().strip()


async def test_fifty_callers_at_once_warm_one_zygote_up():
    async with serving() as server:
        before = len(titled(family(), "hive: zygote"))
        await asyncio.gather(*(server.warm_up() for _ in range(50)))

        assert before + 1 == len(titled(family(), "hive: zygote"))


async def test_a_project_does_not_get_into_zygote_or_start(runtime, tmp_path, monkeypatch):
    """Files called like installed modules run in neither; the user's own code finds them."""
    mark = tmp_path / "mark"
    spoil = f"open({str(mark)!r}, 'a').write(__name__ + ' ')\n"
    names = {*sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
    names |= {
        "zmq",
        "tornado",
        "jedi",
        "numpy",
        "psutil",
        "debugpy",
        "matplotlib",
    }
    for folder in ("project", "pythonpath"):
        (tmp_path / folder).mkdir()
        for name in filter(importable, names - {"__main__", "tests", "conftest"}):
            (tmp_path / folder / f"{name}.py").write_text(spoil)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "pythonpath"))
    path = ("", str(tmp_path / "pythonpath"), *filter(None, sys.path))
    launch = Launch(
        interpreter=sys.executable,
        argv=(),
        cwd=str(tmp_path / "project"),
        path=path,
        environment=tuple(sorted(worker_environment(HiveConfig()).items())),
        policy=SandboxPolicy(),
    )
    plain = library_path()
    for options in ({}, {"fork": False}):
        async with serving(path=(*plain, path[1]), **options) as server:
            process = await started(server, launch)
            assert process.ready.done(), process.log_tail()
            await process.stop()

        assert not mark.exists(), mark.read_text()


async def test_a_changed_package_retires_the_zygote(tmp_path, launch, monkeypatch):
    """It forks no more, keeps its living worker, goes with it, and stays no zombie."""
    monkeypatch.setattr(forkserver, "_LOOK_INTERVAL", 0)
    packages = tmp_path / "site-packages"
    packages.mkdir()
    async with serving(path=(*library_path(), str(packages))) as server:
        worker = await started(server, launch)
        await server.refill(launch, 1)
        spare = server._spares[0][1]
        old = await zygote_of(server)
        (packages / "new.py").touch()
        fresh = await started(server, launch)
        new = await zygote_of(server)

        assert old.pid != new.pid
        assert not spare.alive
        assert worker.alive
        assert fresh.alive
        assert old.pid == psutil.Process(worker.supervisor_pid).ppid()
        await worker.stop()
        await asyncio.to_thread(wait_gone, [old])
        assert fresh.alive
        await fresh.stop()


async def test_an_interpreter_that_cannot_run_is_an_error_and_leaves_nothing(tmp_path, launch):
    (tmp_path / "python").write_text("no program\n")
    for name in ("python", "missing"):
        for fork in (True, False):
            async with serving(interpreter=str(tmp_path / name), fork=fork) as server:
                with pytest.raises(OSError, match=name):
                    await server.spawn(launch, "coder")


async def test_an_interpreter_without_the_packages_says_so(tmp_path, launch):
    """A zygote that fails says why; workers are then exec'd, and fail with the same words."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    async with serving(interpreter=str(tmp_path / "v" / "bin" / "python"), path=()) as server:
        await server.warm_up()
        assert "No module named" in server.no_fork_because
        process = await started(server, launch)

        assert process.exited.done()
        assert "No module named" in process.log_tail()
        await process.gone.wait()


async def test_a_full_disk_is_an_error_and_leaves_nothing(launch, monkeypatch):
    async with serving() as server:

        def full():
            msg = "no space left"
            raise HiveError(msg)

        monkeypatch.setattr(server.runtime, "worker_folder", full)
        with pytest.raises(HiveError, match="no space"):
            await server.spawn(launch, "coder")
        monkeypatch.undo()
        await server.warm_up()
        monkeypatch.setattr(server.runtime, "worker_folder", full)
        with pytest.raises(HiveError, match="no space"):
            await server.spawn(launch, "coder")


# The zygote's death


async def test_a_killed_zygote_is_reaped_at_once_and_replaced_at_the_next_need(launch):
    async with serving() as server:
        zygote = await zygote_of(server)
        worker = await started(server, launch)
        zygote.kill()
        await asyncio.to_thread(wait_gone, [zygote])

        assert worker.alive
        another = await started(server, launch)
        assert another.alive
        await asyncio.gather(worker.stop(), another.stop())


async def test_a_zygote_that_is_killed_while_it_should_fork_is_replaced(launch, monkeypatch):
    asked, send = asyncio.Event(), socket.send_fds
    async with serving() as server:
        zygote = await zygote_of(server)
        stopped(zygote.pid)
        monkeypatch.setattr(socket, "send_fds", lambda *what: (send(*what), asked.set()))
        spawning = asyncio.create_task(server.spawn(launch, "coder"))
        await asyncio.wait_for(asked.wait(), 30)
        zygote.kill()
        process = await asyncio.wait_for(spawning, 30)

        assert process.alive
        await process.stop()


async def test_a_zygote_that_is_killed_while_it_warms_up_costs_one_start_only(launch):
    async with serving() as server:
        made, execute = [], server._exec
        server._exec = lambda *what: made.append(execute(*what)) or made[-1]
        warming = asyncio.create_task(server.warm_up())
        while not made:
            await asyncio.sleep(0)
        made[0].kill()
        await warming
        process = await started(server, launch)
        assert process.ready.done()
        await process.stop()
        assert (await zygote_of(server)).is_running()


# Spares


async def test_a_spare_is_taken_by_the_next_of_its_kind_only(server, launch):
    await server.refill(launch, 1)
    (_, spare) = server._spares[0]
    other = Launch(**{**vars(launch), "policy": SandboxPolicy(memory=2**30)})
    stranger = await started(server, other)
    taken = await server.spawn(launch, "coder")

    assert stranger is not spare
    assert taken is spare
    assert [] == server._spares
    await asyncio.gather(stranger.stop(), taken.stop())


async def test_many_refills_at_once_make_the_spares_that_are_wanted_and_no_more(server, launch):
    await asyncio.gather(*(server.refill(launch, 2) for _ in range(5)))

    assert 2 == len(server._spares)
    assert 2 == len(titled(family(), "hive: worker (spare)"))
    await server._discard_spares()


async def test_spares_of_another_kind_go(server, launch):
    await server.refill(launch, 1)
    other = Launch(**{**vars(launch), "policy": SandboxPolicy(memory=2**30)})
    await server.refill(other, 1)

    assert [other] == [kind for kind, _ in server._spares]
    await server._discard_spares()
    assert [] == titled(family(), "hive: worker (spare)")


async def test_spares_with_a_boundary_of_before_go_and_so_does_one_on_its_way(
    server, launch, monkeypatch
):
    monkeypatch.setattr(server, "confined", True)
    await server.refill(launch, 1)
    refilling = asyncio.create_task(server.refill(launch, 2))
    started_so_far = server._start

    async def start(*arguments):
        process = await started_so_far(*arguments)
        await server.renew_boundaries()
        return process

    monkeypatch.setattr(server, "_start", start)
    await refilling

    assert [] == server._spares
    assert [] == titled(family(), "hive: worker (spare)")


async def test_spares_without_a_boundary_stay(server, launch):
    await server.refill(launch, 1)
    await server.renew_boundaries()

    assert 1 == len(server._spares)
    await server._discard_spares()


async def test_a_spare_that_died_is_not_taken(server, launch):
    await server.refill(launch, 1)
    (_, spare) = server._spares[0]
    os.kill(spare.pid, signal.SIGKILL)
    await spare.exited
    process = await started(server, launch)

    assert process is not spare
    assert process.alive
    await process.stop()
    await server._discard_spares()


async def test_a_spare_that_is_never_ready_keeps_nobody_from_having_one(
    server, launch, monkeypatch
):
    monkeypatch.setattr(forkserver, "_SPARE_PATIENCE", 0.05)
    started_so_far = server._start

    async def never_ready(*arguments):
        process = await started_so_far(*arguments)
        await process.ready
        process.ready = asyncio.get_running_loop().create_future()
        return process

    monkeypatch.setattr(server, "_start", never_ready)
    await server.refill(launch, 1)
    assert [] == server._spares
    assert [] == titled(family(), "hive: worker (spare)")

    monkeypatch.undo()
    await server.refill(launch, 1)
    assert 1 == len(server._spares)
    await server._discard_spares()


# A worker's process


async def test_a_workers_end_is_told_by_its_supervisor(server, launch):
    process = await started(server, launch)
    os.kill(process.pid, signal.SIGSEGV)
    end = await asyncio.wait_for(process.exited, 30)

    assert (signal.SIGSEGV, None, None, False) == (
        end.signal, end.code, end.by_us, end.lost_supervisor
    )  # fmt: skip
    await asyncio.wait_for(process.gone.wait(), 30)


async def test_a_killed_supervisor_takes_its_worker_along(server, launch):
    process = await started(server, launch)
    worker = psutil.Process(process.pid)
    os.kill(process.supervisor_pid, signal.SIGKILL)
    end = await asyncio.wait_for(process.exited, 30)

    assert end.lost_supervisor
    await asyncio.to_thread(wait_gone, [worker])
    await asyncio.wait_for(process.gone.wait(), 30)


KILLS_ITS_SUPERVISOR = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if (daemon := os.fork()) == 0:
        signal.pause()
    with open("daemon", "w") as file:
        file.write(str(daemon))
    os._exit(0)
os.wait()
os.kill(os.getppid(), signal.SIGKILL)
signal.pause()
"""


async def test_who_kills_its_supervisor_leaves_nothing(server, launch, tmp_path):
    """Also where there is no zygote above it, as for programs."""
    argv = (sys.executable, "-c", KILLS_ITS_SUPERVISOR)
    process = await started(server, replace(launch, argv=argv, policy=SandboxPolicy("open")))

    assert process.exited.result().lost_supervisor
    await asyncio.wait_for(process.gone.wait(), 30)
    assert has_ended(int((tmp_path / "daemon").read_text()))


@pytest.mark.parametrize("fork", [True, False])
async def test_a_stopped_supervisor_does_not_save_its_worker(launch, fork):
    async with serving(fork=fork) as server:
        process = await started(server, launch)
        both = [psutil.Process(process.pid), psutil.Process(process.supervisor_pid)]
        stopped(process.supervisor_pid)
        await asyncio.wait_for(process.stop(), 30)
        await asyncio.to_thread(wait_gone, both)

        assert "stop" == process.exited.result().by_us


async def test_nobody_is_saved_by_stopping_all_that_supervise(launch):
    async with serving(fork=False) as server:
        process = await started(server, launch)
        both = [psutil.Process(process.pid), psutil.Process(process.supervisor_pid)]
        stopped(process._supervisor.pid)
        stopped(process.supervisor_pid)
        await asyncio.wait_for(process.stop(), 30)
        await asyncio.to_thread(wait_gone, both)


async def test_the_death_of_a_worker_is_seen_although_its_supervisor_is_stopped(server, launch):
    process = await started(server, launch)
    stopped(process.supervisor_pid)
    os.kill(process.pid, signal.SIGKILL)
    end = await asyncio.wait_for(process.exited, 30)

    assert end.lost_supervisor
    await asyncio.wait_for(process.gone.wait(), 30)


async def test_stop_may_be_called_by_many_and_again(server, launch):
    process = await started(server, launch)
    await asyncio.gather(*(process.stop() for _ in range(5)))
    await process.stop("again")

    assert "stop" == process.exited.result().by_us


async def test_the_folder_is_private_and_goes(server, launch):
    process = await started(server, launch)

    assert 0o700 == process.folder.stat().st_mode & 0o777
    assert len(f"{process.folder}/k-5") < 108
    await process.stop()
    await process.remove_folder()
    assert not process.folder.exists()


# TCP


async def test_over_tcp_only_who_has_the_keys_is_heard(launch):
    """The worker chooses its ports itself; without the curve key there is no conversation."""
    async with serving(sockets=False) as server:
        process = await started(server, launch)
        connection = process.connection
        context = zmq.Context()

        def ping(**keys):
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                for name, key in keys.items():
                    setattr(socket, name, key)
                socket.connect(f"tcp://{connection['ip']}:{connection['hb_port']}")
                socket.send_multipart([b"", b"ping"])
                return bool(socket.poll(300 if not keys else 5000))

        public = connection["curve_publickey"].encode()
        secret = connection["curve_secretkey"].encode()
        known = {"curve_serverkey": public, "curve_publickey": public, "curve_secretkey": secret}
        assert ("tcp", "127.0.0.1") == (connection["transport"], connection["ip"])
        assert all(connection[f"{name}_port"] > 0 for name in ("shell", "iopub", "hb"))
        assert not await asyncio.to_thread(ping)
        assert await asyncio.to_thread(lambda: ping(**known))
        context.term()
        await process.stop()


# The host's own side


async def test_the_hosts_sockets_are_not_inherited(server, launch):
    process = await started(server, launch)
    descriptors = [process._channel.fileno(), server._zygote.channel.fileno(), *process._pidfds]

    assert [False] * 4 == [os.get_inheritable(descriptor) for descriptor in descriptors]
    await process.stop()


async def test_a_process_object_belongs_to_the_loop_that_made_it(server, launch):
    process = await started(server, launch)

    assert isinstance(process, WorkerProcess)
    assert asyncio.get_running_loop() is process.exited.get_loop()
    await process.stop()
