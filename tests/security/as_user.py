"""
Run a program as a user who is nobody else on this machine, in a world of that user's own.

::

    python -I as_user.py TIER MODULE

Where the machine allows it (as root, or in a user namespace), that world has its own processes,
network, ``/home``, ``/srv``, ``/run``, ``/tmp`` and ``/dev/shm``, and it is gone without a trace
when that program ends. Python and the checkout stay where they are, read-only where they would be
out of sight. Where the machine does not allow it, the user's files go into a temporary folder.

The module is run by a ``.venv`` in the user's project, and given a line of JSON with the places of
that world. The tier "plain" refuses namespaces as Docker does, "namespaces" does not.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from like_docker import refuse_namespaces  # noqa: E402

# An exit code that means: the machine does not allow this; what is missing is on stdout.
UNAVAILABLE = 77

METADATA = "169.254.169.254"
_FIRST_USER, _USERS = 61000, 4000
# Pids of the world begin here: a worker's own namespace counts from 1, and must not hit the host.
_FIRST_PID = 5000

_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_BIND, _REC, _PRIVATE, _READ_ONLY, _REMOUNT, _NO_SUID, _NO_DEV = (
    4096, 16384, 1 << 18, 1, 32, 2, 4,
)  # fmt: skip
_SET_PDEATHSIG = 1
_SET_FLAGS, _SET_ADDRESS, _UP = 0x8914, 0x8916, 1

_libc = ctypes.CDLL(None, use_errno=True)


def main():
    tier, module = sys.argv[1:]
    _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    user = os.getuid() or _FIRST_USER + os.getpid() % _USERS
    if _leave_namespaces(user):
        child = _forked(lambda: _first_process(tier, module, user))
        status = _ended(child)
    else:
        base = tempfile.mkdtemp(prefix="hive-probes-")
        child = _forked(lambda: _become(tier, module, user, _places_below(base, user)))
        status = _ended(child)
        shutil.rmtree(base)
    os._exit(status)


def _forked(body):
    child = os.fork()
    if not child:
        try:
            _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            body()
        finally:
            traceback.print_exc()
            os._exit(1)
    return child


def _ended(child):
    """Wait for the end of a child, and bury whoever else dies; give the exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return max(os.waitstatus_to_exitcode(status), 0)


def _leave_namespaces(user):
    """Whether this process, and what it starts, now has namespaces of its own."""
    wanted = _NEW_MOUNTS | _NEW_IPC | _NEW_PIDS | _NEW_NET
    group = os.getgid()
    if os.getuid() == 0:
        return _libc.unshare(wanted) == 0
    if _libc.unshare(wanted | _NEW_USER):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def _first_process(tier, module, user):
    """What process 1 of the world does: furnish it, start the program, and bury the dead."""
    _mount("none", "/", flags=_REC | _PRIVATE)
    kept = _kept(user)
    _mount("proc", "/proc", "proc")
    for folder in ("/home", "/srv", "/run", "/dev/shm"):
        _mount("tmpfs", folder, "tmpfs", data="mode=755")
    for folder in {*kept.values(), "/tmp"}:
        _cover(folder, [(path, fd) for (path, fd), above in kept.items() if above == folder])
    for folder in ("/tmp", "/dev/shm"):
        os.chmod(folder, 0o1777)
    _own_network(os.getgid() or user)
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(_FIRST_PID))
    places = {
        "home": _owned("/home/probe", user),
        "elsewhere": _owned("/srv/probe", user),
        "run": _owned(f"/run/user/{user}", user),
        "tmp": "/tmp",
        "sockets": _owned("/run/sockets", user),
        "metadata": METADATA,
        "port": 443,
        "setuid": _setuid_program(),
    }
    os._exit(_ended(_forked(lambda: _become(tier, module, user, places))))


def _mount(source, target, kind=None, flags=0, data=None):
    encoded = [text and os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data and data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {target}: {os.strerror(number)}")


def _kept(user):
    """What must stay in sight, opened, and the folder above it that is about to be covered."""
    found = {}
    for path in {sys.base_prefix, sys.prefix, str(ROOT)}:
        above = next((str(p) for p in reversed(Path(path).parents) if _closed(p, user)), None)
        if above:
            found[path, os.open(path, os.O_PATH)] = above
    return found


def _closed(folder, user):
    is_covered = str(folder) in {"/home", "/srv", "/run", "/tmp"}
    state = folder.stat()
    return is_covered or (state.st_uid != user and not state.st_mode & 0o001)


def _cover(folder, kept):
    """Put an empty folder in a folder's place, with what is kept where it was."""
    if folder not in {"/home", "/srv", "/run"}:
        _mount("tmpfs", folder, "tmpfs", data="mode=755")
    # what lies within something else that is kept came with it
    for path, descriptor in sorted(kept):
        if not os.path.exists(path):
            os.makedirs(path)
            _mount(f"/proc/self/fd/{descriptor}", path, flags=_BIND | _REC)
            _mount("none", path, flags=_BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEV)
        os.close(descriptor)


def _own_network(group):
    """A loopback with the address of clouds' metadata, on which any user may listen anywhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        _configure(handle, "lo", _SET_FLAGS, struct.pack("h14x", _UP))
        address = struct.pack("hH4s8x", socket.AF_INET, 0, socket.inet_aton(METADATA))
        _configure(handle, "lo:1", _SET_ADDRESS, address)
    for name, value in (
        ("ip_unprivileged_port_start", "0"),
        ("ping_group_range", f"{group} {group}"),
        ("tcp_fastopen", "3"),
    ):
        Path("/proc/sys/net/ipv4", name).write_text(value)


def _configure(handle, name, request, value):
    fcntl.ioctl(handle, request, struct.pack("16s16s", name.encode(), value))


def _owned(path, user):
    os.makedirs(path, exist_ok=True)
    if os.getuid() == 0:
        os.chown(path, user, user)
    os.chmod(path, 0o700)
    return path


def _setuid_program():
    """A program that runs as root, whoever starts it, where we are root to make one."""
    if os.getuid():
        return ""
    path = "/srv/as-root"
    shutil.copy("/usr/bin/id", path)
    os.chmod(path, 0o4755)
    return path


def _places_below(base, user):
    """The places of a world that has only a folder for itself."""
    _owned(base, user)
    owned = {name: _owned(f"{base}/{name}", user) for name in ("home", "run", "sockets")}
    return {**owned, "elsewhere": "", "tmp": base, "metadata": "", "port": 0, "setuid": ""}


def _become(tier, module, user, places):
    """Become the user, and the program."""
    if tier == "plain":
        refuse_namespaces()
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # setresuid has taken it away
    python = sys._base_executable
    if not (os.access(python, os.X_OK) and os.access(__file__, os.R_OK)):
        print(f"{python} and {ROOT} are out of reach for another user here", flush=True)
        os._exit(UNAVAILABLE)
    os.umask(0o022)
    environment = {
        "HOME": places["home"],
        "LANG": "C.UTF-8",
        "LOGNAME": "probe",
        "PATH": "",
        "USER": "probe",
    }
    interpreter = _environment(Path(places["home"], "project", ".venv"), python)
    os.chdir(Path(places["home"], "project"))
    command = [interpreter, "-m", module, json.dumps(places)]
    os.execve(interpreter, command, environment)


def _environment(folder, python):
    """
    A virtual environment of the user's own; returns its Python.

    Hive's package is installed there, as far as anybody can tell; the rest is found in the
    environment of the tests.
    """
    (folder / "bin").mkdir(parents=True)
    interpreter = folder / "bin" / "python"
    interpreter.symlink_to(python)
    home = os.path.dirname(python)
    version = "{}.{}.{}".format(*sys.version_info)
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\nversion = {version}\ninclude-system-site-packages = false\n"
    )
    libraries = [entry for entry in sys.path if entry.endswith("-packages")]
    site = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    site.mkdir(parents=True)
    shutil.copytree(ROOT / "hive_jupyter", site / "hive_jupyter")
    (site / "checkout.pth").write_text("\n".join([*libraries, str(ROOT)]))
    (site / "editable.pth").write_text(f"{folder.parent}/source\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f"#!{interpreter}\nfrom pip._internal.cli.main import main\nmain()\n")
    pip.chmod(0o755)
    return str(interpreter)


if __name__ == "__main__":
    main()
