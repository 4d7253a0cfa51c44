"""The work that all contestants are given, and how it is timed and checked."""

import json
import os
import re
import time
import zlib
from pathlib import Path

# What a reader that does not keep up does for each message, in seconds.
SLOW = 0.02
# A flood has ended where the host has not grown for so long, in seconds.
_SETTLED = 3.0


def lines(count):
    """Code that prints ``count`` lines of 100 characters, no two the same."""
    return f"for i in range({count}): print(format(i, '099d'))"


def prints(count):
    """Code that prints ``count`` numbers."""
    return f"for i in range({count}): print(i)"


def timed_prints(count):
    """Code whose value is how long ``prints`` takes it, in seconds; all of it is flushed."""
    return (
        "import sys, time\n"
        "began = time.perf_counter()\n"
        f"{prints(count)}\n"
        "sys.stdout.flush()\n"
        "time.perf_counter() - began"
    )


class Printed:
    """Takes what a contestant brings of ``lines`` or ``prints``, and knows what it has to be."""

    def __init__(self):
        self._size = 0
        self._sum = 0

    def take(self, text):
        data = text.encode() if isinstance(text, str) else text
        self._size += len(data)
        self._sum = zlib.crc32(data, self._sum)

    def check(self, code):
        """All of it has come, in order and once."""
        wanted = Printed()
        texts = []
        exec(code, {"print": lambda value: texts.append(f"{value}\n")})
        wanted.take("".join(texts))
        assert (self._size, self._sum) == (wanted._size, wanted._sum), (
            f"{self._size} bytes came instead of {wanted._size}, or out of order"
        )


def timed(work):
    """How long ``work()`` takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def repeated(work, count):
    """How long each of ``count`` calls takes, after a few that warm up."""
    for _ in range(10):
        work()
    return [timed(work) for _ in range(count)]


def noops(run, size):
    """How long maps of calls that do nothing take, once all workers are there."""
    return _maps(run, abs, range(size), [*range(size)])


def naps(run, size):
    """The same for calls of 5 ms."""
    return _maps(run, time.sleep, [0.005] * size, [None] * size)


def _maps(run, function, items, wanted):
    assert wanted == run(function, items)
    samples = []
    for _ in range(5):
        began = time.perf_counter()
        results = run(function, items)
        samples.append(time.perf_counter() - began)
        assert wanted == results
    return samples


def suicide(file):
    """
    Code that ends its process by SIGKILL, and leaves when: the clock is the same in all processes.

    Somebody may run it again in silence; then it lives.
    """
    return (
        "import os, time\n"
        f"if not os.path.exists({file!r}):\n"
        f"    open({file!r}, 'w').write(repr(time.monotonic()))\n"
        "    os.kill(os.getpid(), 9)"
    )


def since_death(file):
    """Seconds since ``suicide(file)``."""
    now = time.monotonic()
    text = Path(file).read_text(encoding="ascii")
    os.unlink(file)
    return now - float(text)


def memory(pids):
    """Bytes of processes, each page divided by how many share it (PSS)."""
    lines = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids)
    return sum(map(int, re.findall(r"^Pss: +(\d+) kB", lines, re.MULTILINE))) * 1024


def growth(work):
    """By how many bytes this process's peak exceeds what it held before ``work()``."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    work()
    return _peak() - before


def settle():
    """Wait until this process has not grown for a while."""
    quiet_since, peak = time.monotonic(), _peak()
    while time.monotonic() - quiet_since < _SETTLED:
        time.sleep(0.1)
        if _peak() > peak:
            quiet_since, peak = time.monotonic(), _peak()


def _peak():
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def in_kernel(setup, statement, count, warm_up=10):
    """Code for a kernel that prints, as JSON, how long each of ``count`` statements took."""
    return (
        f"{setup}\n"
        "import json as _json\n"
        "from time import perf_counter as _clock\n"
        "def _timed():\n"
        "    began = _clock()\n"
        f"    {statement}\n"
        "    return _clock() - began\n"
        f"for _ in range({warm_up}): _timed()\n"
        f"print(_json.dumps([_timed() for _ in range({count})]))"
    )


def samples(printed):
    """What ``in_kernel`` printed: its last line."""
    return json.loads(printed.splitlines()[-1])
