"""Where a place was delegated, a worker has a control group, in which the kernel keeps the sums."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from hive_jupyter import procfs
from hive_jupyter.worker.confine import cgroups
from tests.hosts import play
from tests.processes import wait_until

# Moves itself into the group that its first argument names, and says what came of its code.
HOST = """
import json, os, sys
from pathlib import Path
own, settings, codes = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
Path(own, "cgroup.procs").write_text("0")
from hive_jupyter import HiveManager
from hive_jupyter.errors import HiveError
told = []
with HiveManager(spares=0, max_failures=100, connect_timeout=60, **settings) as hive:
    for code in codes:
        try:
            error = None
            value = str(getattr(answer := hive.delegate(code, timeout=120), "value_repr", answer))
        except HiveError as caught:
            value, error = None, caught
        told.append({
            "value": value,
            "error": str(error),
            "cause": getattr(error, "cause", None),
            "shown": "\\n".join(getattr(error, "traceback", [])),
        })
    pid = hive.swarm_status()["workers"]["coder"]["pid"]
    group = pid and Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2].strip()
print(json.dumps({"told": told, "group": group}))
"""


# Makes what its first argument names the top of all groups that it may know of, as in a container,
# and goes on as a host one group below.
CONTAINER = """
import ctypes, os, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
Path(sys.argv[1], "cgroup.procs").write_text("0")
assert libc.unshare(0x02000000 | 0x00020000) == 0  # CLONE_NEWCGROUP, CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x4000 | 0x40000, None) == 0  # MS_REC, MS_PRIVATE
libc.umount2(b"/sys/fs/cgroup", 2)  # MNT_DETACH: what there is would be in the way
assert libc.mount(b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None) == 0
sys.argv[1] = "/sys/fs/cgroup/host"
"""


def mark(folder):
    os.setxattr(folder, "user.delegate", b"1")


@pytest.fixture
def place():
    """A group as systemd delegates it, with a host's group in it."""
    top = cgroups._mount_point()
    if os.geteuid() != 0 or top is None:
        pytest.skip("only root can make a place, where version 2 of control groups is mounted")
    place = Path(top, f"hive-test-{os.getpid()}")
    for controller in ("memory", "pids"):
        with suppress(OSError):  # it may be in the hands of version 1
            Path(top, "cgroup.subtree_control").write_text(f"+{controller}")
    (place / "host").mkdir(parents=True)
    yield place
    with suppress(OSError):
        (place / "cgroup.kill").write_text("1")
    for group in [*filter(Path.is_dir, place.iterdir()), place]:
        wait_until(lambda group=group: _remove(group))


def _remove(group):
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


def has(place, *controllers):
    return set(controllers) <= set((place / "cgroup.controllers").read_text().split())


def played(place, *codes, **settings):
    """What a host of the place says."""
    return json.loads(play(HOST, place / "host", json.dumps(settings), *codes, timeout=110))


def played_in_container(place, *codes, **settings):
    """What a host says to which the place is the top."""
    said = play(CONTAINER + HOST, place, json.dumps(settings), *codes, timeout=110)
    return json.loads(said)


def groups(place):
    return [path.name for path in place.iterdir() if path.name.startswith("hive-")]


@pytest.mark.parametrize("profile", ["open", "workspace"])
def test_a_worker_is_in_a_group_of_its_own_beside_its_hosts(place, profile):
    mark(place)
    said = played(place, "1 + 1", sandbox=profile)

    assert "2" == said["told"][0]["value"]
    assert said["group"].startswith(f"/{place.name}/hive-")
    assert [] == groups(place)


@pytest.mark.parametrize("profile", ["open", "workspace"])
def test_in_a_container_the_top_of_its_groups_is_a_place(place, profile):
    """Without a mark, where its processes are one group down."""
    said = played_in_container(place, "1 + 1", sandbox=profile)

    assert "2" == said["told"][0]["value"]
    assert said["group"].startswith("/hive-")
    assert [] == groups(place)


def test_without_the_mark_of_a_delegation_it_stays_where_its_host_is(place):
    """It might leave a limit that somebody has set there."""
    assert f"/{place.name}/host" == played(place, "1")["group"]


@pytest.mark.parametrize("profile", ["open", "workspace"])
def test_all_that_a_worker_has_started_ends_with_its_group(place, profile):
    mark(place)
    daemons = (
        "import os, time\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        time.sleep(1000)"
    )
    played(place, daemons, sandbox=profile)

    assert [] == groups(place)
    assert "populated 0" in (place / "cgroup.events").read_text()


def test_a_group_whose_supervisor_was_killed_is_removed_at_the_next_start(place):
    mark(place)
    abandoned, used = place / "hive-abandoned", place / "hive-used"
    abandoned.mkdir()
    used.mkdir()
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    played(place, "1")
    os.close(descriptor)

    assert [used.name] == groups(place)


def test_the_kernel_ends_a_worker_that_uses_too_much_memory(place):
    """Whatever it does with it; and the next one is fine."""
    mark(place)
    if not has(place, "memory"):
        pytest.skip("the memory of this machine is in the hands of version 1")
    let_go = (
        "import mmap\n"
        "m = mmap.mmap(-1, 400 * 2**20)\n"
        "for start in range(0, len(m), 2**20):\n"
        "    m[start : start + 2**20] = bytes(2**20)\n"
        "    m.madvise(mmap.MADV_DONTNEED, start, 2**20)"
    )
    files = "import os\nfor _ in range(400): os.write(os.memfd_create('x'), bytes(2**20))"
    one = "x = bytearray(400 * 2**20)"
    for profile in ("open", "workspace"):
        codes = (let_go, files, one, "1 + 1")
        *killed, refused, fine = played(place, *codes, sandbox=profile, memory="200M")["told"]

        for each in killed:
            assert "memory" == each["cause"]
            assert "reached its memory limit of 200 MB (it used " in each["error"]
        assert "restart coder --memory 400M" in refused["error"]
        assert "2" == fine["value"]
    assert [] == groups(place)


def test_the_kernel_refuses_more_processes(place):
    """To root, too."""
    mark(place)
    if not has(place, "pids"):
        pytest.skip("the processes of this machine are in the hands of version 1")
    forks = "import os, time\nfor _ in range(200):\n    if os.fork() == 0: time.sleep(1000)\n"
    for profile in ("open", "workspace"):
        (refused,) = played(place, forks, sandbox=profile, processes=64)["told"]

        assert "may have 64 processes and threads" in refused["shown"]
    assert [] == groups(place)


@pytest.mark.parametrize("odd", [b"a\r\rb", b"a\r-\rb", "a\u00a0-\u00a0b".encode(), b"\xff"])
def test_a_place_with_an_odd_name_hides_nothing_behind_it(monkeypatch, odd):
    told = b"1 2 3:4 / /" + odd + b" rw - tmpfs none rw\n1 2 3:4 / /groups rw - cgroup2 none rw\n"
    monkeypatch.setattr(procfs, "_read", lambda _: told)

    assert "/groups" == cgroups._mount_point()
