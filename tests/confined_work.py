"""What people do in a worker goes on behind both filters; a script: `confined_work.py INTERNET`."""

import asyncio
import concurrent.futures
import ctypes
import multiprocessing
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psutil

from hive_jupyter.worker.confine import prctl, seccomp


def double(number):
    return 2 * number


def pools():
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert [0, 2, 4] == pool.map(double, range(3))
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert [0, 2, 4] == list(pool.map(double, range(3)))


def processes():
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=queue.put, args=(b"x" * 100_000,))
    process.start()
    assert 100_000 == len(queue.get())
    process.join()
    process = multiprocessing.Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    assert -signal.SIGTERM == process.exitcode


def programs():
    shown = subprocess.run(["sh", "-c", "echo $((2+3))"], stdout=subprocess.PIPE, check=True)
    assert b"5\n" == shown.stdout
    assert 0 == os.system("true")
    started = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)
    assert 3 == os.waitstatus_to_exitcode(os.waitpid(started, 0)[1])
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        os.killpg(process.pid, signal.SIGKILL)
    pip = [sys.executable, "-m", "pip", "list", "--disable-pip-version-check"]
    assert b"numpy" in subprocess.run(pip, stdout=subprocess.PIPE, check=True).stdout


def coroutines():
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        assert (b"hi", None) == await process.communicate(b"hi")
        assert 3 == await asyncio.to_thread(double, 1.5)

    asyncio.run(main())


def arrays():
    square = np.ones((400, 400))
    assert 400 == (square @ square)[0, 0]
    np.linalg.svd(square)


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/file"
        open(path, "w").close()
        os.chmod(path, 0o755)
        assert 0o755 == stat.S_IMODE(os.stat(path).st_mode)
        os.truncate(path, 10)
        with sqlite3.connect(f"{folder}/base") as base:
            base.execute("create table t (a)")
        base.close()
        os.chmod(folder, 0o2755)  # a folder of a group
    os.close(os.memfd_create("hive"))


def oneself():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (soft - 2, hard))
    os.nice(1)
    os.setpriority(os.PRIO_PROCESS, os.getpid(), os.nice(0) + 1)
    os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0))
    psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    os.close(os.pidfd_open(os.getpid()))


def signals():
    caught = []
    signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    assert [1, 1, 1] == caught
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Ends with its parent, as launchers of parallel programs have it.
        assert 0 == ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        os.abort()
    assert -signal.SIGABRT == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def network(*, internet):
    assert "lo" in psutil.net_if_addrs()
    if internet:
        host, port = "localhost", 0
        with socket.create_server((host, port)) as server:
            socket.create_connection((host, server.getsockname()[1])).close()


def main(*, internet):
    prctl.no_new_privs()
    seccomp.restrict_system_calls()
    seccomp.restrict_sockets(internet=internet)
    for work in (pools, processes, programs, coroutines, arrays, files, oneself, signals):
        work()
    network(internet=internet)
    print("done")


if __name__ == "__main__":
    main(internet=sys.argv[1] == "True")
