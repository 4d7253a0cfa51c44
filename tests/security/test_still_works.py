"""
What people do in notebooks works in the profile "workspace", with and without namespaces.

Each cell prints what the test expects. All of a column run in one worker, as cells do.
"""

import pytest

from tests.security.probe import STRICT, STRICT_PLAIN, WORKSPACE, WORKSPACE_PLAIN

CELLS = {
    "numpy": (
        """
        import numpy
        matrix = numpy.random.default_rng(0).random((300, 300))
        print(numpy.allclose(matrix @ numpy.linalg.inv(matrix), numpy.eye(300)))
        """,
        "True\n",
    ),
    "pandas": (
        """
        import pandas
        table = pandas.read_csv("data/table.csv")
        table.to_csv("data/copy.csv", index=False)
        print(pandas.read_csv("data/copy.csv").equals(table))
        """,
        "True\n",
    ),
    "scikit-learn": (
        """
        from sklearn.ensemble import RandomForestClassifier
        x, y = [[i] for i in range(60)], [i // 30 for i in range(60)]
        print(RandomForestClassifier(20, n_jobs=2, random_state=0).fit(x, y).score(x, y))
        """,
        "1.0\n",
    ),
    "polars": (
        """
        import polars
        print(polars.scan_csv("data/table.csv").select(polars.col("b").sum()).collect().item())
        """,
        "2\n",
    ),
    "matplotlib, with the user's settings": (
        """
        import subprocess, sys
        asked = "get_configdir(), get_cachedir(), rcParams['lines.linewidth']"
        code = f"from matplotlib import *; print([{asked}][2])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        print(done.stdout + done.stderr, end="")
        """,
        "7.0\n",
    ),
    "joblib": (
        """
        import joblib, math
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(i * i) for i in range(4)))
        memory = joblib.Memory("data/cache", verbose=0)
        print(memory.cache(math.hypot)(3, 4))
        """,
        "[0.0, 1.0, 2.0, 3.0]\n5.0\n",
    ),
    "a fork pool": (
        """
        import math, multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(math.factorial, range(5)))
        """,
        "[1, 1, 2, 6, 24]\n",
    ),
    "a spawn pool": (
        """
        import math, multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(pool.map(math.factorial, range(5)))
        """,
        "[1, 1, 2, 6, 24]\n",
    ),
    "processes of the default kind": (
        """
        import concurrent.futures, math
        with concurrent.futures.ProcessPoolExecutor(2) as pool:
            print(list(pool.map(math.factorial, range(5))))
        """,
        "[1, 1, 2, 6, 24]\n",
    ),
    "shared memory": (
        """
        from multiprocessing import shared_memory
        block = shared_memory.SharedMemory(create=True, size=1000)
        block.buf[:3] = b"abc"
        same = shared_memory.SharedMemory(block.name)
        print(bytes(same.buf[:3]))
        same.close()
        block.close()
        block.unlink()
        """,
        "b'abc'\n",
    ),
    "threads": (
        """
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(len, ["a"] * 100)))
        """,
        "100\n",
    ),
    "!": (
        """
        !echo hello; ls data/table.csv
        lines = !echo one; echo two
        print(lines)
        """,
        "hello\ndata/table.csv\n['one', 'two']\n",
    ),
    "!pip": ("!pip list 2>&1 | grep -c numpy\n", "1\n"),
    "%%bash": ("%%bash\nfor i in 1 2; do echo $i; done\n", "1\n2\n"),
    "a program of asyncio's": (
        """
        import asyncio
        process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
        print((await process.communicate())[0])
        """,
        "b'hi\\n'\n",
    ),
    "tempfile": (
        """
        import tempfile
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
            open(folder + "/a", "w").write("a")
            file.write(b"b")
        print("both")
        """,
        "both\n",
    ),
    "sqlite": (
        """
        import sqlite3
        database = sqlite3.connect("data/a.sqlite")
        print(database.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        with database:
            database.execute("CREATE TABLE a (b)")
            database.execute("INSERT INTO a VALUES (1)")
        print(database.execute("SELECT * FROM a").fetchall())
        database.close()
        """,
        "wal\n[(1,)]\n",
    ),
    "HTTPS": (
        """
        import socket, ssl
        context = ssl.create_default_context()
        print(len(context.get_ca_certs()) > 10)
        with socket.create_connection(("127.0.0.1", 443), timeout=10) as raw:
            print(context.check_hostname)
        """,
        "True\nTrue\n",
    ),
    "asking for names": (
        """
        import socket
        print(socket.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)[0][4][1])
        """,
        "443\n",
    ),
    "git": (
        """
        import subprocess
        def git(*arguments):
            done = subprocess.run(["git", *arguments], capture_output=True, text=True)
            return done.stdout or done.stderr
        with open("module.py", "a") as file:
            file.write("y = 2\\n")
        print(git("status", "--short", "module.py"), git("diff", "module.py")[-7:], end="")
        print(git("log", "--format=%s").splitlines()[-1])
        """,
        " M module.py\n +y = 2\nbegin\n",
    ),
    "files": (
        """
        import os, pathlib, shutil
        pathlib.Path("data/new/folder").mkdir(parents=True)
        pathlib.Path("data/new/folder/a").write_text("a")
        os.rename("data/new", "data/old")
        os.rename("data/old/folder/a", "deep/a")
        shutil.copy("deep/a", "deep/b")
        os.symlink("a", "deep/c")
        shutil.move("deep/b", "data/b")
        os.chmod("data/b", 0o600)
        os.utime("data/b")
        shutil.rmtree("data/old")
        os.truncate("data/b", 0)
        print(pathlib.Path("deep/c").read_text(), os.path.getsize("data/b"))
        """,
        "a 0\n",
    ),
    "modules of the project": ("import module\nprint(module.x)\n", "1\n"),
    "a module of the project in another program": (
        """
        import subprocess, sys
        code = "import module; print(module.x)"
        print(subprocess.check_output([sys.executable, "-c", code], text=True), end="")
        """,
        "1\n",
    ),
    "a pipeline": ("!printf 'b\\na\\n' | sort\n", "a\nb\n"),
    "the machine's facts": (
        """
        import os, platform
        print(os.cpu_count() > 0, len(os.sched_getaffinity(0)) > 0, platform.system())
        """,
        "True True Linux\n",
    ),
    "psutil": (
        """
        import psutil
        print(psutil.virtual_memory().total > 0, psutil.Process().memory_info().rss > 0)
        """,
        "True True\n",
    ),
}

CASES = [(name, column) for column in (WORKSPACE, WORKSPACE_PLAIN) for name in CELLS]


@pytest.mark.parametrize(
    ("name", "column"), CASES, ids=[f"{name}-{column.replace(' ', '-')}" for name, column in CASES]
)
def test_what_people_do_works_in_workspace(host, name, column):
    code, expected = CELLS[name]
    said = host.code(code, "workspace")

    assert (expected, None) == (said["stdout"], said["error"]), said


@pytest.mark.parametrize("column", [WORKSPACE, WORKSPACE_PLAIN])
def test_a_plot_is_drawn_though_nothing_of_matplotlib_was_cached(host, column):
    said = host.code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", "workspace")

    assert said["error"] is None, said
    assert any("image/png" in output.get("data", {}) for output in said["outputs"]), said


@pytest.mark.parametrize("column", [STRICT, STRICT_PLAIN])
def test_a_strict_worker_reads_and_computes(host, column):
    said = host.code(
        """
        import numpy, pandas, subprocess, tempfile
        with tempfile.NamedTemporaryFile() as file:
            pandas.read_csv("data/table.csv").to_csv(file.name)
        print(numpy.arange(3).sum(), subprocess.check_output(["echo", "hello"]))
        """,
        "strict",
    )

    assert ("3 b'hello\\n'\n", None) == (said["stdout"], said["error"]), said
