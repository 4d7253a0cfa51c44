"""
Which files a policy means on this machine: from a spec and this interpreter to lists of paths.

It is computed in the supervisor, of whose memory no code of the user's is part, before the worker
is forked. What a worker must never write although it lies in a folder that it may write (a
``.git``, a ``.venv`` in the project) is protected: mounted read-only where there are namespaces;
where not, a folder that holds something protected is not granted, but each of its other children
is (``_without``): then nothing new can be made in the folder itself.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hive_jupyter.protocol import WorkerSpec

# The folder for temporary files, below the worker's own.
TEMPORARY = "tmp"

# Of /etc, to whom all of it would tell secrets: who is root, or runs under "strict".
_ETC = (
    "OpenCL",
    "R",
    "alternatives",
    "bash.bashrc",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "gitconfig",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "localtime",
    "lsb-release",
    "magic",
    "mailcap",
    "matplotlibrc",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/tls",
    "profile",
    "profile.d",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vulkan",
)
_ETC_PREFIXES = ("ImageMagick-", "ca-certificates", "ld.so.", "locale.", "python3")
_SYSTEM = ("bin", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "sbin", "usr")
# What a process may see of the machine that it runs on.
_MACHINE = (
    "/proc",
    "/sys/block",
    "/sys/bus",
    "/sys/class",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/var/cache/fontconfig",
    "/var/lib/fonts",
)
_DEVICES = ("full", "null", "random", "urandom", "zero")
_PROCESSORS = ("dri", "dxg", "hisi_hdc", "kfd")
_PROCESSOR_PREFIXES = ("accel", "davinci", "nvidia")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a place, not a file)
# Children of / that are nobody's data: other processes' files and sockets, and other people's.
_NOT_DATA = (
    "boot",
    "dev",
    "etc",
    "home",
    "lost+found",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var",
)
if sys.platform == "darwin":
    _NOT_DATA = (*_NOT_DATA, "Library", "Volumes", "cores", "private")
_NOT_DATA_IN_VAR = ("backups", "crash", "lock", "log", "mail", "run", "spool", "tmp")
# No place for a project, nor for a library: everybody's temporary files.
_SHARED = ("/dev/shm", "/private/tmp", "/private/var/tmp", "/run", "/tmp", "/var/tmp")  # noqa: S108
# Of a home folder: what makes plots quick and pretty.
OF_MATPLOTLIB = (".cache/matplotlib", ".config/matplotlib", ".matplotlib")
_OF_HOME = (
    *OF_MATPLOTLIB,
    ".cache/fontconfig",
    ".config/fontconfig",
    ".fonts",
    ".local/share/fonts",
)
# Folders in which to look for repositories and environments; where there are more, it is said.
_MOST_FOLDERS = 20_000
# Where a folder cannot be granted as a whole: each part costs a rule, and a mount.
_MOST_PARTS = 2000
# Linux follows no more on one path.
_MOST_LINKS = 40
_BARE_REPOSITORY = {"HEAD", "objects", "refs"}

_PACKAGE = str(Path(__file__).parents[2])
# Where this process found itself when it began. By now, a worker may have put another link there.
_BEGUN_FROM = tuple(map(os.path.realpath, (sys.prefix, sys.base_prefix, sys.exec_prefix, _PACKAGE)))


@dataclass(frozen=True)
class Boundary:
    """
    The paths of one worker.

    Attributes:
        read: may be read, and run, with all below.
        granted: what the policy means to be written, such as the project.
        write: may be written, too: that without what is never, and the worker's own.
        never: lie in folders that may be written, and may not be.
        later: hold what runs with the user's rights, wherever they lie; nothing there is to be
            granted for the sake of an error.
        mounted: which of those are to be mounted read-only.
        temporary: the private temporary folder.
        notes: what the user is to be told once.
    """

    read: tuple[str, ...]
    granted: tuple[str, ...]
    write: tuple[str, ...]
    never: tuple[str, ...]
    later: tuple[str, ...]
    mounted: tuple[str, ...]
    temporary: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, spec: WorkerSpec, *, has_mounts: bool) -> Boundary:
        """
        The paths that a spec means here, now.

        Args:
            spec: of a confined worker.
            has_mounts: there are namespaces, in which ``mounted`` is mounted read-only, and shared
                memory is the worker's own.
        """
        policy = spec.policy
        homes = _homes(spec)
        temporary = os.path.join(os.path.realpath(spec.folder), TEMPORARY)
        projects = _project(spec.root or spec.cwd, homes)
        look = _Look()
        # here a worker may have made links, now or before
        hands = [*projects, *map(os.path.realpath, policy.writable)]
        loose = [
            path for path in (*policy.readable, *policy.writable) if _links_within(path, hands)
        ]
        granted = [
            *(os.path.realpath(path) for path in policy.writable if path not in loose),
            *(projects if policy.writes_project else ()),
        ]
        later = list(_never_writable(spec))
        protected: list[str] = []
        if granted:
            found = [*later, *look.around(granted)]
            protected = _outermost(p for p in found if any(is_below(p, top) for top in granted))
        # nothing is mounted on a link, on what is not there, and on countless folders: these stay
        # as they are where nothing in the folder around them can be made or removed; nor on what
        # is private: it would be read as part of that folder
        private = [os.path.realpath(path) for path in spec.private]
        mounted = [path for path in protected if has_mounts and _can_be_mounted_on(path)]
        mounted = [p for p in mounted if p not in look.unseen and not _holds_any(p, private)]
        write = [os.path.realpath(spec.folder), temporary, *_devices(_DEVICES)]
        if has_mounts or policy.writes_project:
            write.append(os.path.realpath(_SHARED_MEMORY))
        if policy.writes_project:
            write += [*_devices(_PROCESSORS), *_beginning_with("/dev", _PROCESSOR_PREFIXES)]
        parts = [
            part
            for top in granted
            for part in _without(top, set(protected) - set(mounted), set(mounted))
        ]
        write += parts[:_MOST_PARTS]
        read = [*_of_system(strict=not policy.writes_project), *projects, *granted]
        elsewhere = [*_of_python(spec, homes), *policy.readable]
        if policy.writes_project:
            read += _data(homes)
            elsewhere += _of_homes(homes)
        # what lies in a folder that workers may write is read as part of that; what leads through
        # one would be read wherever a worker has it lead
        read += [path for path in elsewhere if not _is_in(path, hands)]
        read = [part for path in read for part in _without(path, private)]
        return cls(
            read=tuple(dict.fromkeys(read)),
            granted=tuple(granted),
            write=tuple(dict.fromkeys(write)),
            never=tuple(dict.fromkeys(protected)),
            later=tuple(_outermost(later)),
            mounted=tuple(dict.fromkeys(mounted)),
            temporary=temporary,
            notes=(
                *_notes(spec, homes, granted, look),
                *map(_note_of_link, loose),
                *_note_of_parts(parts),
            ),
        )


def _homes(spec: WorkerSpec) -> list[str]:
    """The user's home folders: that of the environment, and that of the system's list of users."""
    found = [spec.environment.get("HOME", "")]
    with contextlib.suppress(KeyError):
        found.append(pwd.getpwuid(os.geteuid()).pw_dir)
    return [home for home in map(os.path.realpath, filter(None, found)) if home != "/"]


def _project(root: str, homes: Iterable[str]) -> list[str]:
    """The project: its root, or its visible children where the root is a home or above one."""
    if root in _SHARED:
        return []
    if not _is_above_any(root, homes) and root != "/":
        return [root]
    hidden = {*_NOT_DATA, *_SYSTEM, "opt"} if root == "/" else set()
    return [
        child
        for child in _children(root)
        if not os.path.basename(child).startswith(".")
        and os.path.basename(child) not in hidden
        and not _is_above_any(child, homes)
    ]


def _of_system(*, strict: bool) -> Iterator[str]:
    yield from (f"/{name}" for name in _SYSTEM)
    yield from _MACHINE
    # the name service's file is often a link into /run
    yield os.path.realpath("/etc/resolv.conf")
    if not strict and os.geteuid() != 0:
        yield "/etc"
        return
    yield from (f"/etc/{name}" for name in _ETC)
    yield from _beginning_with("/etc", _ETC_PREFIXES)


def _of_python(spec: WorkerSpec, homes: Iterable[str]) -> list[str]:
    """What belongs to this interpreter, and what the host's may import."""
    entries = [*_BEGUN_FROM, *_prefixes(spec), *spec.library, *spec.path, *sys.path, _PACKAGE]
    entries += _folders_on_path(spec)
    return [
        entry
        for entry in dict.fromkeys(entries)
        if os.path.isabs(entry) and entry not in _SHARED and not _is_above_any(entry, homes)
    ]


def _prefixes(spec: WorkerSpec) -> list[str]:
    named = [spec.environment.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX")]
    return [sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(os.path.isabs, named)]


def _folders_on_path(spec: WorkerSpec) -> list[str]:
    return [entry for entry in spec.environment.get("PATH", "").split(":") if os.path.isabs(entry)]


def _data(homes: Iterable[str]) -> Iterator[str]:
    """All that is nobody's in particular: other disks and folders of the machine."""
    above = {"/": _NOT_DATA, "/var": _NOT_DATA_IN_VAR}
    for home in homes:
        # where homes are somewhere else than usual, data may lie beside the folder that holds them
        parts = Path(home).parts
        if parts[1] not in _NOT_DATA:
            above |= {os.path.join(*parts[:depth]): () for depth in range(2, len(parts) - 1)}
    if os.path.isdir("/mnt"):
        above["/mnt"] = ()
    for folder, others in above.items():
        for child in _children(folder):
            # another system's disk (WSL) holds other homes
            if folder == "/mnt" and os.path.isdir(os.path.join(child, "Users")):
                continue
            if os.path.basename(child) not in others and not _holds_any(child, homes):
                yield child


def _of_homes(homes: Iterable[str]) -> Iterator[str]:
    for home in homes:
        yield from (os.path.join(home, name) for name in _OF_HOME)


def _never_writable(spec: WorkerSpec) -> Iterator[str]:
    """What runs with the user's rights later, wherever it lies, and the links that lead there."""
    libraries = [*spec.library, *(entry for entry in spec.path if entry.endswith("-packages"))]
    own = [*spec.protected, *spec.private, _PACKAGE]
    paths = [sys.executable, *_prefixes(spec), *libraries, *_folders_on_path(spec), *own]
    for path in paths:
        yield _as_far_as_it_exists(os.path.realpath(path))
        yield from _links_on(path)


def _links_on(path: str) -> list[str]:
    """The symbolic links that a path leads through, each by where it lies itself."""
    found: list[str] = []
    here, names = "/", path.split("/")[::-1]
    while names and len(found) < _MOST_LINKS:
        name = names.pop()
        step = os.path.normpath(os.path.join(here, name))
        try:
            target = os.readlink(step)
        except OSError:
            here = step
            continue
        found.append(step)
        here = "/" if target.startswith("/") else here
        names += target.split("/")[::-1]
    return found


def _as_far_as_it_exists(path: str) -> str:
    """A path, or what of it would be made first."""
    while path != "/" and not os.path.lexists(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def _links_within(path: str, folders: Collection[str]) -> bool:
    """Whether a path leads through a symbolic link that lies in one of the folders."""
    return any(is_below(link, folder) for link in _links_on(path) for folder in folders)


def _is_in(path: str, folders: Collection[str]) -> bool:
    """Whether a path leads into one of the folders, or through one."""
    real = os.path.realpath(path)
    return any(is_below(real, folder) for folder in folders) or _links_within(path, folders)


def _can_be_mounted_on(path: str) -> bool:
    return os.path.exists(path) and not os.path.islink(path)


class _Look:
    """
    Looks for what is protected wherever it lies: repositories, and Python environments.

    Attributes:
        unseen: folders that were too many to be looked at, and are protected for that.
        closed: folders that could not be looked into, and are protected, too; and why not.
    """

    def __init__(self) -> None:
        self.unseen: set[str] = set()
        self.closed: list[tuple[str, str]] = []

    def around(self, tops: Iterable[str]) -> list[str]:
        """Return what is found in the folders and below; symbolic links are not followed."""
        found: list[str] = []
        waiting = deque(tops)
        for _ in range(_MOST_FOLDERS):
            if not waiting:
                break
            folder = waiting.popleft()
            try:
                names, folders, links = _listed(folder)
            except OSError as error:
                if not _holds_nothing(folder, error):
                    self.closed.append((folder, error.strerror or str(error)))
                    found.append(folder)
                continue
            if "pyvenv.cfg" in names or names >= _BARE_REPOSITORY:
                found.append(folder)
                continue
            if ".git" in names:
                found.append(os.path.join(folder, ".git"))
            found += [link for link in links if os.path.exists(os.path.join(link, "pyvenv.cfg"))]
            waiting += [path for path in folders if os.path.basename(path) != ".git"]
        self.unseen = set(waiting)
        return [*found, *waiting]


def _listed(folder: str) -> tuple[set[str], list[str], list[str]]:
    """The names in a folder, and the paths of the folders and of the symbolic links in it."""
    with os.scandir(folder) as entries:
        found = list(entries)
    folders = [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    links = [entry.path for entry in found if entry.is_symlink()]
    return {entry.name for entry in found}, folders, links


def _holds_nothing(folder: str, error: OSError) -> bool:
    """Whether a folder that cannot be listed holds nothing that a worker could change."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return True
    with contextlib.suppress(OSError):
        # what is somebody else's no worker has closed, nor can it open it
        return os.stat(folder).st_uid != os.geteuid() and not os.access(folder, os.X_OK)
    return False


def _outermost(paths: Iterable[str]) -> list[str]:
    """The paths but those that lie below another."""
    found: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not found or not is_below(path, found[-1]):
            found.append(path)
    return found


def _without(top: str, protected: Iterable[str], mounted: Collection[str] = ()) -> list[str]:
    """
    What to grant so that all below ``top`` is granted but what is protected.

    What is mounted read-only is protected within a folder that is granted, but is not granted
    itself: that would be writing it.
    """
    found: list[str] = []
    waiting = [(top, protected)]
    while waiting:
        path, protected = waiting.pop()
        inside = _by_child(path, protected)
        if path in mounted or path in inside:
            continue
        if inside:
            waiting += [(child, inside.get(child, ())) for child in reversed(_children(path))]
        else:
            found.append(path)
    return found


def _by_child(folder: str, paths: Iterable[str]) -> dict[str, list[str]]:
    """Which of the paths lie in which child of a folder, or are the folder itself."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if is_below(path, folder):
            name = path[len(folder.rstrip("/")) + 1 :].partition("/")[0]
            child = os.path.join(folder, name) if name else folder
            found.setdefault(child, []).append(path)
    return found


def _children(folder: str) -> list[str]:
    """Files and folders in a folder; a symbolic link is none, as it leads elsewhere."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if not entry.is_symlink())
    except OSError:
        return []


def _devices(names: Iterable[str]) -> list[str]:
    return [f"/dev/{name}" for name in names]


def _beginning_with(folder: str, prefixes: tuple[str, ...]) -> list[str]:
    """What in a folder has a name that begins so."""
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(prefixes)]


def _is_above_any(folder: str, homes: Iterable[str]) -> bool:
    """Whether a folder is one of the homes, or holds one."""
    real = os.path.realpath(folder)
    return any(is_below(home, real) for home in homes)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder's own, or lies in it; both absolute."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _holds_any(folder: str, paths: Iterable[str]) -> bool:
    return any(is_below(path, folder) for path in paths)


def _notes(
    spec: WorkerSpec, homes: Iterable[str], granted: Iterable[str], look: _Look
) -> Iterator[str]:
    root = spec.root or spec.cwd
    if spec.policy.writes_project and root in _SHARED:
        yield f"{root} is no project: nothing in it may be written. Work in a folder below it."
    elif spec.policy.writes_project and (root == "/" or _is_above_any(root, homes)):
        yield (
            f"{root} is no project of its own: only what is visible in it may be written, and "
            "nothing new can be made in it. Work in a folder below it."
        )
    for path in map(os.path.realpath, _folders_on_path(spec)):
        if not os.path.exists(path) and any(is_below(path, top) for top in granted):
            folder = os.path.dirname(_as_far_as_it_exists(path))
            yield (
                f"PATH names {path}, which does not exist: so that no worker puts programs there, "
                f"nothing can be made or removed in {folder}. Make that folder, or mend PATH."
            )
    if look.closed:
        folder, reason = look.closed[0]
        others = f" (and {len(look.closed) - 1} more)" if len(look.closed) > 1 else ""
        yield (
            f"{folder}{others} cannot be listed: {reason}. As nobody sees whether there are "
            "repositories and environments in it, it cannot be written. chmod u+rwx opens it."
        )
    if look.unseen:
        yield (
            f"The project has more than {_MOST_FOLDERS} folders. Those that were not looked at for "
            "repositories and environments cannot be written. Work in a folder below it."
        )


def _note_of_link(path: str) -> str:
    return (
        f"{path} leads through a symbolic link in a folder that workers may write. A worker may "
        f"have put that there, so it is not followed: name {os.path.realpath(path)} itself, if "
        "that is what you mean."
    )


def _note_of_parts(parts: list[str]) -> Iterator[str]:
    if len(parts) > _MOST_PARTS:
        yield (
            f"Of the {len(parts)} files and folders that may be written beside what no worker "
            f"writes, only {_MOST_PARTS} can be. Work in a folder below the project's."
        )
