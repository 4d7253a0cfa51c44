"""Workers start: once, quickly, clean, on whatever Python or kernel there is."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import ConfigError, RemoteError
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.worker.confine import landlock
from tests.processes import family, start_host, titled, wait_gone, wait_until

SITE = Path(psutil.__file__).parents[1]


def value(hive, code, **options):
    return eval(hive.delegate(code, timeout=30, **options).value_repr)


def pid_of(hive, name="coder"):
    return hive.swarm_status()["workers"][name]["pid"]


def in_threads(count, work):
    """Let many threads do the same at once; return what each one got."""
    gate, got = threading.Barrier(count), []

    def run():
        gate.wait()
        got.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return got


# Once


def test_fifty_threads_at_once_start_one_worker(hive):
    pids = in_threads(50, lambda: value(hive, "import os; os.getpid()", worker="fifty"))

    assert 50 == len(pids)
    assert {pid_of(hive, "fifty")} == set(pids)
    # the next tests look at what is new, and do not take this for theirs
    wait_until(lambda: next(iter(hive.nodes.servers))._spares)


def test_a_worker_imports_from_the_project_where_its_host_does_not(tmp_path, monkeypatch, runtime):
    """A server for agents is no notebook, and has neither folder in its ``sys.path``."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "at_the_root.py").write_text("where = 'root'")
    (tmp_path / "json.py").write_text("where = 'instead of the library'")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "where_it_works.py").write_text("where = 'folder'")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    with HiveManager() as hive:
        code = "import at_the_root, where_it_works, json; "
        found = value(
            hive, f"{code}(at_the_root.where, where_it_works.where, hasattr(json, 'dumps'))"
        )

    assert ("root", "folder", True) == found


def test_fifty_threads_at_once_in_a_fresh_hive_start_one_zygote_and_one_worker(runtime):
    before = family()
    with HiveManager(spares=0) as hive:
        pids = in_threads(50, lambda: value(hive, "import os; os.getpid()"))
        mine = [process for process in family() if process not in before]

        assert 1 == len(set(pids))
        assert 1 == len(titled(mine, "hive: zygote"))
        assert 1 == len(titled(mine, "hive: worker"))


def test_nothing_is_started_before_it_is_needed(runtime):
    before = family()
    with HiveManager() as hive:
        hive.swarm_status()
        hive.workers()
        hive.history()

        assert [] == [process for process in family() if process not in before]


def test_warming_up_starts_a_zygote_and_no_worker_and_returns_at_once(runtime):
    before = family()
    with HiveManager() as hive:
        hive.warm_up()
        hive.warm_up()
        (zygote,) = wait_until(
            lambda: titled([p for p in family() if p not in before], "hive: zygote")
        )

        assert [] == titled([p for p in family() if p not in before], "hive: worker")
        assert 2 == value(hive, "1 + 1")
        assert zygote.pid == psutil.Process(pid_of(hive)).parent().ppid()


def test_one_spare_stands_by_after_the_first_cell_and_is_taken(runtime):
    before = family()

    def spares():
        return titled([p for p in family() if p not in before], "hive: worker (spare)")

    with HiveManager(sandbox="open") as hive:
        hive.start()
        assert [] == spares()
        value(hive, "1")
        (spare,) = wait_until(spares)
        wait_until(lambda: next(iter(hive.nodes.servers))._spares)

        assert spare.pid == value(hive, "import os; os.getpid()", worker="second")
        assert "hive: worker second" == " ".join(spare.cmdline()).strip()
        assert spare.pid not in [process.pid for process in wait_until(spares)]


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
@pytest.mark.parametrize("again", ["restart", "stop"])
def test_what_was_made_beside_a_spare_is_protected_after_a_restart(
    runtime, tmp_path, monkeypatch, again
):
    """A spare knows only of what was there when it was forked."""
    monkeypatch.chdir(tmp_path)
    write = "open('environment/new', 'w').close()"
    with HiveManager(sandbox="workspace") as hive:
        value(hive, "1")
        wait_until(lambda: next(iter(hive.nodes.servers))._spares)
        (tmp_path / "environment").mkdir()
        value(hive, write + "; 1")
        (tmp_path / "environment" / "pyvenv.cfg").touch()
        getattr(hive, again)()

        with pytest.raises(RemoteError, match="Read-only|Permission denied"):
            value(hive, write)


def test_without_spares_there_are_none(runtime):
    before = family()
    with HiveManager(spares=0) as hive:
        value(hive, "1")
        value(hive, "1")
        wait_until(hive.nodes.by_name["coder"]._refilling.done)

        assert [] == titled([p for p in family() if p not in before], "hive: worker (spare)")


# What a worker is


@pytest.fixture(params=["fork", "exec"], scope="module")
def either(request, runtime):
    """A hive whose workers are forked, and one whose workers are exec'd."""
    options = {"environment": {"ADDED": "yes"}, "connect_timeout": 60, "sandbox": "open"}
    with HiveManager(start_method=request.param, **options) as hive:
        yield hive


def test_a_worker_is_a_session_of_its_own(either):
    pid, group, session = value(either, "import os; (os.getpid(), os.getpgid(0), os.getsid(0))")

    assert pid == group == session == pid_of(either)


def test_a_workers_standard_streams_are_its_own_and_nothing_is_inherited(either, tmp_path):
    with (tmp_path / "the host's").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        either.stop()
        links = value(
            either,
            "import os\n"
            "links = {}\n"
            "for fd in os.listdir('/proc/self/fd'):\n"
            "    try: links[int(fd)] = os.readlink(f'/proc/self/fd/{fd}')\n"
            "    except OSError: pass\n"
            "links",
        )

    assert "/dev/null" == links[0]
    assert not any("host's" in link for link in links.values())
    files = [link for link in links.values() if link.startswith("/") and "/dev/" not in link]
    folder = str(either.nodes.by_name["coder"]._process.folder)
    assert [] == [link for link in files if not link.startswith(folder)]


def test_stdin_is_at_its_end(either):
    assert "" == value(either, "import os; os.read(0, 10).decode()")


def test_a_worker_leaves_no_core_and_dies_with_its_supervisor(either):
    core, signal = value(
        either,
        "import ctypes, resource\n"
        "number = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)\n"
        "(resource.getrlimit(resource.RLIMIT_CORE), number.value)",
    )

    assert (0, 0) == core
    assert 9 == signal


def test_a_worker_treats_signals_as_any_python_does(either):
    """A write to a closed pipe is a BrokenPipeError, and no end of the worker."""
    with pytest.raises(RemoteError) as caught:
        either.delegate("import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')")

    assert isinstance(caught.value, BrokenPipeError)
    blocked, _ = value(
        either,
        "import signal; (signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1))",
    )
    assert set() == blocked
    assert [] == value(
        either,
        "[s for s in ('SIGCHLD', 'SIGTERM', 'SIGHUP') "
        "if signal.getsignal(getattr(signal, s)) is not signal.SIG_DFL]",
    )


def test_a_workers_environment_is_by_allowlist_plus_what_is_added(either, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    monkeypatch.setenv("LC_TIME", "C")
    either.stop()
    names = value(either, "import os; dict(os.environ)")

    assert "yes" == names["ADDED"]
    assert "C" == names["LC_TIME"]
    assert os.environ["PATH"] == names["PATH"]
    assert "coder" == names["HIVE_JUPYTER_IN_WORKER"]
    assert {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "JPY_PARENT_PID"}.isdisjoint(names)


def test_further_variables_can_be_passed(runtime, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "t")
    with HiveManager(pass_environment=["MY_*"], spares=0) as hive:
        assert "t" == value(hive, "import os; os.environ['MY_TOKEN']")


def test_secrets_of_the_host_are_in_no_process_of_hive(runtime):
    """Not in the memory that /proc shows of zygote and supervisor either."""
    code = (
        "import psutil\n"
        "from hive_jupyter import HiveManager\n"
        "with HiveManager() as hive:\n"
        "    hive.delegate('1')\n"
        "    for process in psutil.Process().children(recursive=True):\n"
        "        print(process.environ().get('MY_SECRET'))\n"
    )
    with start_host(code, runtime, MY_SECRET="s") as host:
        lines = host.stdout.read().split()

    assert len(lines) >= 3
    assert {"None"} == set(lines)


def test_processes_have_readable_titles(either):
    value(either, "1")
    worker = psutil.Process(pid_of(either))

    assert "hive: worker coder" == " ".join(worker.cmdline()).strip()
    assert "hive: supervisor" == " ".join(worker.parent().cmdline())[:16]
    assert worker.name().startswith("hive: worker")


def test_a_worker_has_the_hosts_folder_and_path(either, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("x = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    either.stop()

    assert 7 == value(either, "import beside; beside.x")
    assert str(tmp_path) == value(either, "import os; os.getcwd()")
    either.stop()


def test_forked_workers_do_not_share_their_random_numbers(hive):
    numbers = {value(hive, "import random; random.random()", worker=f"r{n}") for n in range(3)}

    assert 3 == len(numbers)


def test_a_workers_log_and_history_are_its_own(hive):
    value(hive, "1", worker="logged")

    assert ":memory:" == value(hive, "get_ipython().history_manager.hist_file", worker="logged")
    assert "" == hive.logs("logged")


# Other ways and places


def test_tcp_works_like_unix_sockets(runtime):
    with HiveManager(transport="tcp") as hive:
        assert 2 == value(hive, "1 + 1")
        assert 3 == value(hive, "1 + 2", worker="second")
        result = hive.delegate("import warnings; print('x')")
        assert ("x\n", "") == (result.stdout, result.stderr)


def test_a_path_too_long_for_a_socket_does_not_matter(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(long))
    with HiveManager(spares=0) as hive:
        assert 2 == value(hive, "1 + 1")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python that has ipykernel, and no Hive."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (library,) = folder.glob("lib/python*/site-packages")
    for entry in SITE.iterdir():
        if "hive" not in entry.name.lower() and not entry.name.endswith(".pth"):
            (library / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def test_another_python_needs_ipykernel_only(runtime, bare):
    with HiveManager(spares=0) as hive:
        hive.add("other", python=str(bare))
        assert str(bare.parent.parent) == value(hive, "import sys; sys.prefix", worker="other")
        assert ["coder", "other"] == hive.workers()
        assert str(bare) in hive.swarm_status()["workers"]["other"]["kernel"]


def test_a_host_whose_packages_come_by_pythonpath_has_workers(runtime, tmp_path):
    """Forked or exec'd."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    code = "from hive_jupyter import HiveManager\nwith HiveManager() as h: print(h.delegate('7'))"
    root = str(Path(__file__).parents[2])
    for method in ("fork", "exec"):
        result = subprocess.run(
            [tmp_path / "v" / "bin" / "python", "-c", code],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([root, str(SITE)]),
                "HIVE_JUPYTER_START_METHOD": method,
                "JUPYTER_RUNTIME_DIR": str(runtime),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "value_repr='7'" in result.stdout


@pytest.fixture
def bash(tmp_path, monkeypatch):
    """The kernelspec of a kernel that is not Python."""
    pytest.importorskip("bash_kernel")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path / "kernels" / "bash-for-test"
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
        "display_name": "Bash",
        "language": "bash",
        "env": {"PS1": "$", "FROM_SPEC": "yes"},
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return "bash-for-test"


def test_any_kernelspec_is_a_worker_without_hives_messages_and_says_so(runtime, bash):
    before = family()
    with HiveManager(worker="shell", connect_timeout=60) as hive:
        hive.add("shell", kernel=bash)
        assert "kernelspec bash-for-test" in hive.swarm_status()["workers"]["shell"]["kernel"]
        result = hive.delegate("echo hello $FROM_SPEC; cd /", timeout=30)
        again = hive.delegate("pwd", timeout=30)
        called = hive.delegate_to_coder("ping")
        worker = psutil.Process(pid_of(hive, "shell"))

        assert ("hello yes\n", "/\n") == (result.stdout, again.stdout)
        assert isinstance(called, Instructions)
        assert "no tools" in called.reason
        assert worker.pid == os.getsid(worker.pid)
        worker.kill()
        wait_gone([worker])
        wait_until(lambda: hive.swarm_status()["workers"]["shell"]["state"] == "dead")
        assert "back\n" == hive.delegate("echo back", timeout=30).stdout
    wait_gone([process for process in family() if process not in before])


def test_a_kernelspec_or_python_that_is_not_there_is_refused_at_once(hive, tmp_path):
    with pytest.raises(ConfigError, match="kernelspec"):
        hive.add("none", kernel="no-such-kernel")
    with pytest.raises(ConfigError, match="no program"):
        hive.add("none", python=str(tmp_path / "python"))


def test_a_python_without_ipykernel_says_what_to_install(runtime, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    python = str(tmp_path / "v" / "bin" / "python")
    with HiveManager() as hive:
        hive.add("bare", python=python)
        outcome = hive.delegate("1", worker="bare")

        assert isinstance(outcome, Instructions)
        assert f"{python} -m pip install ipykernel" in outcome.reason
        assert "ModuleNotFoundError" in hive.logs("bare")


def test_there_is_no_warning_in_anybodys_output(hive):
    """Of encryption, debuggers, frozen modules and the like."""
    result = hive.delegate("import time; time.sleep(0.1)", worker="quiet")

    assert ("", "", ()) == (result.stdout, result.stderr, result.outputs)


def test_several_hives_in_one_process_do_not_meet(hive, runtime):
    hive.delegate("a = 1")
    with HiveManager(spares=0) as other:
        with pytest.raises(NameError):
            other.delegate("a")
        assert pid_of(other) != pid_of(hive)
    assert 1 == value(hive, "a")
