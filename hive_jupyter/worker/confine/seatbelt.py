"""
A profile for macOS' sandbox-exec, as text: what it does not allow, is refused.

Apple documents neither the language nor what programs need. What stands here is what Chromium,
Bazel, Nix and others have found: their profiles are public, and so are Apple's own, in
/System/Library/Sandbox/Profiles. Where several rules match the last one decides, so what is refused
within something allowed comes after it. Paths are compared as they are without links: /tmp is
/private/tmp there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator

SANDBOX_EXEC = "/usr/bin/sandbox-exec"

# Without these no program starts, or Python not: dyld, the C library, the time zone, git's stub.
_SYSTEM = (
    "/System",
    "/bin",
    "/sbin",
    "/usr",
    "/Library/Apple",
    "/Library/Developer/CommandLineTools",
    "/Library/Fonts",
    "/Library/Frameworks",
    "/private/etc",
    "/private/var/db/dyld",
    "/private/var/db/timezone",
    "/private/var/db/xcode_select_link",
    "/private/var/select",
    "/dev/fd",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
)
# Whom the C library asks for users, groups and its temporary folder, and to whom it gives its log.
_SERVICES = (
    "com.apple.bsd.dirhelper",
    "com.apple.logd",
    "com.apple.system.logger",
    "com.apple.system.notification_center",
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.system.opendirectoryd.membership",
)
# What Python, and numpy through it, ask of the machine. Not kern.procargs2: in that is what other
# programs were started with.
_FACTS = (
    "kern.argmax",
    "kern.boottime",
    "kern.clockrate",
    "kern.hostname",
    "kern.maxfilesperproc",
    "kern.maxproc",
    "kern.ngroups",
    "kern.secure_kernel",
    "kern.usrstack64",
    "kern.version",
    "sysctl.proc_cputype",
    "vm.loadavg",
)
_FACTS_BEGIN = ("hw.", "kern.os", "machdep.cpu.")
# Looks up names of hosts for everybody.
_RESOLVER = "/private/var/run/mDNSResponder"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})

_FOR_ANY_PROGRAM = (
    "(version 1)",
    "(deny default)",
    "(allow process-exec process-fork)",
    "(allow process-info* (target same-sandbox))",
    "(allow signal (target same-sandbox))",
    "(allow system-socket)",
    "(allow ipc-posix-sem ipc-posix-shm*)",
    "(allow file-read-metadata file-map-executable)",
    '(allow file-read* (literal "/"))',
    '(allow file-read* file-ioctl (literal "/dev/dtracehelper"))',
    '(allow file-write-data (literal "/dev/null") (literal "/dev/zero") (subpath "/dev/fd"))',
)


def profile(
    *,
    read: Iterable[str],
    write: Iterable[str],
    never: Iterable[str],
    private: Iterable[str],
    own: str,
    connect: Iterable[int],
    binds_ports: bool,
    resolve: Callable[[str], str] = os.path.realpath,
) -> str:
    """
    The profile of one worker.

    Args:
        read: files and folders that may be read, with all below.
        write: the same for writing, too.
        never: what lies in these and may not be written, nor moved away.
        private: what may be neither read nor written, wherever it lies; that it is there is seen.
        own: the worker's folder, for its sockets; may lie in a private one.
        connect: TCP ports that may be connected to.
        binds_ports: it is reached by TCP on this machine.
        resolve: takes the symbolic links out of a path.
    """
    writable = _unlinked(write, resolve)
    # a link that leads to what is protected stays where it lies
    protected = [*_unlinked(never, resolve), *_unlinked(never, lambda path: _lies(path, resolve))]
    on_the_way = {folder for path in protected for folder in _between(path, writable)}
    home = resolve(own)
    rules = [
        *_FOR_ANY_PROGRAM,
        _rule("allow mach-lookup", [f"(global-name {_text(name)})" for name in _SERVICES]),
        _rule("allow sysctl-read", [f"(sysctl-name {_text(name)})" for name in _FACTS]),
        _rule(
            "allow sysctl-read", [f"(sysctl-name-prefix {_text(name)})" for name in _FACTS_BEGIN]
        ),
        _rule("allow file-read*", _below([*_SYSTEM, *_unlinked(read, resolve)])),
        _rule("allow file-read* file-write*", _below(writable)),
        _rule("deny file-write*", _below(protected)),
        _rule("deny file-write-unlink", [f"(literal {_text(path)})" for path in on_the_way]),
        _rule("deny file-read-data file-write*", _below(_unlinked(private, resolve))),
        _rule("allow file-read* file-write*", _below([home])),
        f"(allow network-bind network-inbound (local unix-socket (subpath {_text(home)})))",
        f"(allow network-outbound (remote unix-socket (subpath {_text(home)})))",
        f"(allow network-outbound (remote unix-socket (path-literal {_text(_RESOLVER)})))",
        _rule("allow network-outbound", [f'(remote tcp "*:{port}")' for port in connect]),
    ]
    if binds_ports:
        rules.append('(allow network-bind network-inbound (local tcp "localhost:*"))')
    return "\n".join(filter(None, rules)) + "\n"


def _rule(what: str, filters: Iterable[str]) -> str:
    """One rule, "" where there is nothing for it: without a filter it would hold for everything."""
    found = sorted(set(filters))
    return "\n  ".join([f"({what}", *found]) + ")" if found else ""


def _below(paths: Iterable[str]) -> list[str]:
    return [f"(subpath {_text(path)})" for path in paths]


def _text(value: str) -> str:
    """A string of the language."""
    return f'"{value.translate(_ESCAPES)}"'


def _unlinked(paths: Iterable[str], resolve: Callable[[str], str]) -> list[str]:
    return list(dict.fromkeys(map(resolve, paths)))


def _lies(path: str, resolve: Callable[[str], str]) -> str:
    """Where a file or link lies, whatever it leads to."""
    folder, name = os.path.split(path)
    return os.path.join(resolve(folder), name)


def _between(path: str, tops: Collection[str]) -> Iterator[str]:
    """The folders on the way from one that may be written to what lies in it."""
    folder = os.path.dirname(path)
    while any(folder.startswith(top.rstrip("/") + "/") for top in tops):
        yield folder
        folder = os.path.dirname(folder)
