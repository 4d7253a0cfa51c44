"""
The world of the user whom the probes attack: files, secrets, sockets and other programs.

It is made in the host's process, which runs as that user.
"""

import ctypes
import fcntl
import mmap
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cached_property
from itertools import product
from pathlib import Path

_SHM_KEY = 0x48495645
_CREATE = 0o1600

# What the user's other program is: it holds secrets, and says so when SIGURG reaches it.
_VICTIM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: anybody
secret = ctypes.create_string_buffer(sys.argv[1].encode())
signal.signal(signal.SIGURG, lambda *_: os.write(1, b"urgent\\n"))
os.write(1, b"%d %d\\n" % (ctypes.addressof(secret), os.open(sys.argv[2], os.O_RDONLY)))
while True:
    signal.pause()
"""

_TRAP = """
import os
with open({marks!r}, "a") as file:
    file.write(f"{{__name__}} in {{os.getpid()}}\\n")
"""
# Modules that a worker's start and the zygote import, in a project's folder.
TRAPS = ("ipykernel", "random", "sitecustomize", "stack_data", "tornado", "usercustomize", "zmq")

# Of which the square is more than anybody looks at.
_MANY = 145


def within(seconds, condition):
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(value)


class World:
    """
    All of it.

    Args:
        places: from ``as_user.py``.

    Attributes:
        facts: what probes are told: names and paths, ports and pids.
        urgent: how often SIGURG has reached this process.
        last_log: of the last worker that had a probe for itself.
        host_answers: asks the host for a worker's answer; the host sets it.
        start_another_hive: what it says; the host sets it.
        pull: what the host gets that pulls x from the worker of the last probe, or None; the host
            sets it.
        quiet: a project in which no worker but that of one probe ever runs.
    """

    def __init__(self, places):
        self.secret = "SECRET-" + secrets.token_hex(16)
        self.home = Path(places["home"])
        self.project = self.home / "project"
        self.traps = self.home / "traps"
        self.later = self.home / "later"
        self.symlinked = self.home / "symlinked"
        self.signposted = self.home / "signposted"
        self.quiet = self.home / "quiet"
        self.closed = self.home / "closed"
        self.last_log = ""
        self.host_answers = self.start_another_hive = self.pull = None
        self.marks = self.home / "marks"
        self.elsewhere = Path(places["elsewhere"] or places["home"])
        self.urgent = 0
        self._places = places
        self._victim = None
        self._received = {}
        self._listening = {}
        self._listeners = []
        signal.signal(signal.SIGURG, self._note)
        self._environment()
        self._files()
        self._repository()
        self.facts = {
            **places,
            **{name: str(path) for name, path in self._paths().items()},
            **self._network(),
            **self._unix_sockets(),
            **self._shared(),
            "host": os.getpid(),
            "host_group": os.getpgid(0),
            "has_secret": self._secret_in_the_heap(),
        }

    # --- files ---

    def _paths(self):
        version = "python{}.{}".format(*sys.version_info)
        return {
            "home": self.home,
            "project": self.project,
            "git": self.project / ".git",
            "submodule": self.project / "sub",
            "linked": self.project / "linked",
            "venv": self.project / ".venv",
            "site": self.project / ".venv" / "lib" / version / "site-packages",
            "user_site": self.home / ".local" / "lib" / version / "site-packages",
            "other": self.home / "other",
            "lock": self.project / "data" / "lock",
            "marks": self.marks,
            "later": self.later,
            "symlinked": self.symlinked,
            "signposted": self.signposted,
            "quiet": self.quiet,
            "closed": self.closed,
            "crowded": self.home / "crowded",
            "traps": self.traps,
            "jupyter": self.home / ".local" / "share" / "jupyter",
        }

    def _environment(self):
        """Of the host: what grants rights is there, as it is in a user's shell."""
        os.environ.update(
            AWS_SECRET_ACCESS_KEY=self.secret,
            GITHUB_TOKEN=self.secret,
            IPYTHONDIR=str(self.home / ".ipython"),
            JUPYTER_TOKEN=self.secret,
            PATH=":".join(map(str, self._folders_of_programs())),
            SSH_AUTH_SOCK=f"{self._places['sockets']}/agent",
            VIRTUAL_ENV=str(self.project / ".venv"),
            XDG_RUNTIME_DIR=self._places["run"],
        )

    def _folders_of_programs(self):
        """PATH: with a folder that is not there, and one that a link leads to."""
        yield from (folder / "bin" for folder in (self.project, self.project / "tools"))
        yield from (folder / "bin" for folder in (self.later, self.signposted, self.home))
        yield from (self.project / ".venv" / "bin", "/usr/bin", "/bin")

    def _files(self):
        secret = self.secret
        for path, text in {
            ".aws/credentials": secret,
            ".bash_history": f"curl -H 'Authorization: {secret}'\n",
            ".bashrc": "# mine\n",
            ".config/git/config": "",
            ".config/matplotlib/matplotlibrc": "lines.linewidth: 7\n",
            ".gitconfig": "[user]\n name = Ada\n email = ada@example.org\n",
            ".ipython/profile_default/startup/README": "",
            ".jupyter/jupyter_server_config.json": "{}",
            ".local/share/jupyter/kernels/mine/kernel.json": "{}",
            ".local/share/jupyter/hive/ledger.sqlite": secret,
            ".netrc": f"machine example.org password {secret}",
            ".ssh/authorized_keys": "",
            ".ssh/id_ed25519": secret,
            "bin/tool": "#!/bin/sh\n",
            "other/notes.txt": secret,
            "project/.env": secret,
            "project/.gitignore": ".env\n.venv\nlinked\n",
            "project/Makefile": "all:\n\ttrue\n",
            "project/bin/tool": "#!/bin/sh\n",
            "project/data/lock": "",
            "project/data/table.csv": "a,b\n1,2\n",
            "project/deep/er/module.py": "x = 1\n",
            "project/environments/one/pyvenv.cfg": "home = /usr/bin\n",
            "project/module.py": "x = 1\n",
            "project/notebook.ipynb": "{}",
            "project/source/package/__init__.py": "",
            "project/tools/bin/tool": "#!/bin/sh\n",
            "quiet/deep/er/module.py": "x = 1\n",
        }.items():
            file = self.home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        site = self.home / ".local" / "lib" / "python{}.{}".format(*sys.version_info)
        (site / "site-packages").mkdir(parents=True)
        Path(self._places["run"], "token").write_text(secret)
        Path(self._places["tmp"], "of-another-program").write_text(secret)
        if self.elsewhere != self.home:
            (self.elsewhere / "data.csv").write_text("a,b\n1,2\n")
        (self.home / "store.js").touch()
        (self.project / "data" / "linked.js").hardlink_to(self.home / "store.js")
        self.traps.mkdir()
        for name in TRAPS:
            text = _TRAP.format(marks=str(self.marks))
            (self.traps / f"{name}.py").write_text(text)

    def _repository(self):
        """The project's: with a submodule, and another work tree in it."""

        def git(*arguments, folder=self.project):
            subprocess.run(
                ["git", "-c", "protocol.file.allow=always", *arguments],
                cwd=folder, check=True, capture_output=True,
            )  # fmt: skip

        part = self.home / "part"
        part.mkdir()
        (part / "part.txt").write_text("part\n")
        for folder in (part, self.project):
            git("init", "-q", "-b", "main", folder=folder)
            git("add", ".", folder=folder)
            git("commit", "-qm", "begin", folder=folder)
        git("submodule", "--quiet", "add", str(part), "sub")
        git("commit", "-qm", "with a part")
        git("worktree", "add", "-q", "linked")
        self.later.mkdir()
        git("init", "-q", str(self.later))
        self.symlinked.mkdir()
        git("init", "-q", str(self.symlinked / "real"))
        (self.symlinked / "real" / ".git").rename(self.symlinked / "repository")
        (self.symlinked / ".git").symlink_to("repository")
        (self.signposted / "programs").mkdir(parents=True)
        git("init", "-q", str(self.signposted))
        (self.signposted / "bin").symlink_to("programs")
        (self.signposted / "env").symlink_to(self.project / "environments" / "one")
        git("init", "-q", str(self.closed / "parts" / "one"))
        (self.closed / "parts").chmod(0o300)

    @cached_property
    def crowded(self):
        """A project with very many folders, one of them a work tree, deeper than all others."""
        folder = self.home / "crowded"
        for one, other in product(range(_MANY), range(_MANY)):
            os.makedirs(folder / "many" / str(one) / str(other))
        deep = folder / "deep" / "deeper" / "still" / "deeper"
        deep.mkdir(parents=True)
        (deep / ".git").write_text("gitdir: ../../project/.git/modules/sub\n")
        return folder

    # --- network ---

    def _network(self):
        """Ports that programs of the user listen on."""
        chosen = self._places["port"]
        return {
            "allowed_port": self._listen(socket.AF_INET, "127.0.0.1", chosen),
            "port": self._listen(socket.AF_INET, "127.0.0.1"),
            "port6": self._listen(socket.AF_INET6, "::1"),
            "mptcp_port": self._listen(socket.AF_INET, "127.0.0.1", protocol=262),
            "metadata_port": self._listen(socket.AF_INET, self._places["metadata"], 80),
            "udp_port": self._receive("udp", socket.AF_INET, ("127.0.0.1", 0)),
            "udp_port6": self._receive("udp6", socket.AF_INET6, ("::1", 0)),
        }

    def _listen(self, family, host, port=0, protocol=0):
        """The port; 0 where that cannot be had here."""
        if not host:
            return 0
        try:
            listener = socket.socket(family, socket.SOCK_STREAM, protocol)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
            listener.bind((host, port))
            listener.listen(64)
        except OSError:
            return 0
        listener.setblocking(False)
        chosen = self._keep(listener).getsockname()[1]
        self._listening[chosen] = listener
        return chosen

    def _receive(self, name, family, address, kind=socket.SOCK_DGRAM):
        try:
            receiver = socket.socket(family, kind)
            receiver.bind(address)
        except OSError:
            return 0
        receiver.setblocking(False)
        self._received[name] = self._keep(receiver)
        return receiver.getsockname()[1] if isinstance(address, tuple) else address

    def _keep(self, listener):
        self._listeners.append(listener)
        return listener

    def connected(self, port):
        """Whether somebody connected to a port since this was last asked."""
        listener = self._listening[port]
        found = False
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return found
            found = True

    def heard(self, name):
        """Whether something came to a receiver of datagrams since it was last asked."""
        heard = False
        while True:
            try:
                self._received[name].recv(65536)
            except BlockingIOError:
                return heard
            heard = True

    def _unix_sockets(self):
        folder = self._places["sockets"]
        abstract = f"\0hive-probe-{os.getpid()}"
        places = {name: f"{folder}/{name}" for name in ("agent", "docker", "bus", "packets")}
        for name, path in places.items():
            kind = socket.SOCK_SEQPACKET if name == "packets" else socket.SOCK_STREAM
            self._listen_at(path, kind)
        self._listen_at(abstract, socket.SOCK_STREAM)
        unix = socket.AF_UNIX
        return {
            **places,
            "abstract": abstract,
            "log": self._receive("log", unix, f"{folder}/log"),
            "abstract_log": self._receive("abstract_log", unix, f"{abstract}-log"),
        }

    def _listen_at(self, path, kind):
        listener = self._keep(socket.socket(socket.AF_UNIX, kind))
        listener.bind(path)
        listener.listen(64)

    # --- what programs of one user share ---

    def _shared(self):
        """Shared memory, a terminal, and a file that this process holds open."""
        memory = Path("/dev/shm", f"hive-probe-{os.getpid()}")
        memory.write_text(self.secret)
        libc = ctypes.CDLL(None, use_errno=True)
        key = _SHM_KEY + os.getpid()
        self._segment = libc.shmget(key, mmap.PAGESIZE, _CREATE)
        _, terminal = os.openpty()
        handle = os.open(self.home / ".netrc", os.O_RDONLY)
        os.set_inheritable(handle, True)
        return {
            "shared_file": str(memory),
            "segment_key": key,
            "terminal": os.ttyname(terminal),
            "handle": handle,
        }

    def _secret_in_the_heap(self):
        """Something that is nowhere but in the host's own memory; gives how it begins."""
        self._in_the_heap = "-".join(("HEAP", "OF", "THE", "HOST", secrets.token_hex(16)))
        return self._in_the_heap[:16][::-1]

    # --- other programs ---

    @property
    def victim(self):
        """Another program of the user, started anew where it has ended."""
        if self._victim is None or self._victim.poll() is not None:
            command = [sys.executable, "-I", "-S", "-c", _VICTIM, self.secret]
            self._victim = subprocess.Popen(
                [*command, self.home / ".netrc"], stdout=subprocess.PIPE, start_new_session=True
            )
            address, handle = self._victim.stdout.readline().split()
            self.facts |= {"victim_address": int(address), "victim_handle": int(handle)}
            self.facts["victim"] = self._victim.pid
        return self._victim

    def renew(self):
        """End the other program: it is not what it was."""
        self._victim.kill()
        self._victim.wait()
        self._victim.stdout.close()

    def victim_heard(self):
        """Whether SIGURG has reached the victim since this was last asked."""
        ready, _, _ = select.select([self._victim.stdout], [], [], 0)
        return bool(ready and os.read(self._victim.stdout.fileno(), 4096))

    def victim_state(self):
        """The letter of proc(5), or "" where it is gone."""
        if self._victim.poll() is not None:
            return ""
        stat = Path(f"/proc/{self._victim.pid}/stat").read_text()
        return stat[stat.rindex(")") + 2]

    def _note(self, *_):
        self.urgent += 1

    def daemon_lives(self, seconds=5.0):
        """Whether somebody still holds the lock that daemons take, after all that time."""
        return not within(seconds, self._lock_is_free)

    def _lock_is_free(self):
        with open(self.facts["lock"], "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def end_daemons(self):
        """Kill who holds the lock."""
        lock = self.facts["lock"]
        for path in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if os.readlink(path) == lock:
                    os.kill(int(path.parts[2]), signal.SIGKILL)

    def close(self):
        """Leave nothing that outlives this process."""
        if self._victim is not None:
            self.renew()
        (self.closed / "parts").chmod(0o700)
        libc = ctypes.CDLL(None)
        libc.shmctl(self._segment, 0, None)  # IPC_RMID
        Path(self.facts["shared_file"]).unlink(missing_ok=True)
