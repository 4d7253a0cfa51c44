"""Files and secrets."""

import ctypes
import os
from pathlib import Path

from tests.security.abuse import Absent, append, call, facts, libc, read, write
from tests.security.probe import (
    EVERYWHERE,
    IN_WORKSPACE,
    NOWHERE,
    OPEN,
    WITHOUT_NAMESPACES,
    WORKSPACE_PLAIN,
    harm,
    topic,
)

probe = topic("Files and secrets")

_OWN = "without namespaces Linux lets nobody forbid that on one's own files"


@probe("reads an SSH key")
def ssh_key():
    return read(f"{facts.home}/.ssh/id_ed25519")


@probe("reads the credentials of a cloud")
def cloud_credentials():
    return read(f"{facts.home}/.aws/credentials")


@probe("reads `~/.netrc`")
def netrc():
    return read(f"{facts.home}/.netrc")


@probe("reads the shell's history")
def shell_history():
    return read(f"{facts.home}/.bash_history")


@probe("reads a file in another folder of the home")
def other_folder():
    return read(f"{facts.other}/notes.txt")


@probe("lists the home folder")
def list_home():
    return os.listdir(facts.home)


@probe("reads another program's file in `/tmp`")
def temporary_file():
    return read(f"{facts.tmp}/of-another-program")


@probe("reads another program's file in `/run/user`")
def run_file():
    return read(f"{facts.run}/token")


@probe(
    "reads a file that the user shares in `/dev/shm`",
    possible=(OPEN, WORKSPACE_PLAIN),
    why="without namespaces there is one `/dev/shm` for all, which multiprocessing needs",
)
def shared_file():
    return read(facts.shared_file)


@probe(
    "replaces a file that the user shares in `/dev/shm`",
    possible=(OPEN, WORKSPACE_PLAIN),
    why="without namespaces there is one `/dev/shm` for all, which multiprocessing needs",
)
def replace_shared_file():
    append(facts.shared_file)


@harm(replace_shared_file)
def _(world):
    path = Path(world.facts["shared_file"])
    changed = path.read_text() != world.secret
    path.write_text(world.secret)
    return changed


@probe("reads a secret through a symbolic link in the project", fresh=True)
def through_symbolic_link():
    link = f"{facts.project}/data/link"
    os.symlink(f"{facts.home}/.ssh/id_ed25519", link)
    try:
        return read(link)
    finally:
        os.unlink(link)


@probe("links a secret into the project")
def hard_link():
    link = f"{facts.project}/data/hard"
    os.link(f"{facts.home}/.ssh/id_ed25519", link)
    os.unlink(link)


@probe("moves a secret into the project")
def move_secret():
    os.rename(f"{facts.other}/notes.txt", f"{facts.project}/data/notes.txt")
    os.rename(f"{facts.project}/data/notes.txt", f"{facts.other}/notes.txt")


@probe("reads a secret by way of `/proc/self/root`")
def through_own_root():
    return read(f"/proc/self/root{facts.home}/.ssh/id_ed25519")


@probe("reads a secret by way of `..` from the project")
def through_parent():
    folder = os.open(facts.project, os.O_PATH)
    try:
        return os.read(os.open("../.ssh/id_ed25519", os.O_RDONLY, dir_fd=folder), 100)
    finally:
        os.close(folder)


@probe("opens a secret as a mere path, and that anew for reading")
def through_path_descriptor():
    handle = os.open(f"{facts.home}/.ssh/id_ed25519", os.O_PATH)
    try:
        return read(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


@probe("opens a secret by its handle", possible=NOWHERE, why="Linux wants CAP_DAC_READ_SEARCH")
def by_handle():
    handle = b"\x08\0\0\0\x01\0\0\0" + bytes(8)
    call("open_by_handle_at", os.open(facts.project, os.O_RDONLY), handle, os.O_RDONLY)


@probe("changes a file in another folder of the home")
def change_other():
    append(f"{facts.other}/notes.txt", "")


@probe("cuts a file in another folder of the home")
def truncate_other():
    os.truncate(f"{facts.other}/notes.txt", 100)


@probe("removes a file in another folder of the home")
def remove_other():
    os.unlink(f"{facts.home}/.bash_history")
    write(f"{facts.home}/.bash_history", "")


@probe("adds a command to `~/.bashrc`")
def bashrc():
    append(f"{facts.home}/.bashrc")


@probe("adds a key that may log in")
def authorized_keys():
    append(f"{facts.home}/.ssh/authorized_keys")


@probe("has a program started when the user logs in")
def autostart():
    os.makedirs(f"{facts.home}/.config/autostart", exist_ok=True)
    write(f"{facts.home}/.config/autostart/planted.desktop")


@probe("writes outside the project through a symbolic link in it", fresh=True)
def write_through_link():
    link = f"{facts.project}/data/away"
    os.symlink(facts.other, link)
    try:
        write(f"{link}/planted")
    finally:
        os.unlink(link)


@probe("leaves a file in `/tmp` for other programs")
def leave_in_tmp():
    write("/tmp/planted")


@harm(leave_in_tmp)
def _(world):
    path = Path("/tmp/planted")
    planted = path.exists()
    path.unlink(missing_ok=True)
    return planted


@probe("changes a file of the system", possible=NOWHERE, why="it is not the user's")
def system_file():
    append("/etc/hosts", "")


@probe("makes a secret readable to all (chmod)", possible=WITHOUT_NAMESPACES, why=_OWN)
def chmod_secret():
    os.chmod(f"{facts.other}/notes.txt", 0o644)


@probe("sets the times of a file outside the project", possible=WITHOUT_NAMESPACES, why=_OWN)
def touch_other():
    os.utime(f"{facts.other}/notes.txt", (1, 1))


@probe("sets an attribute of a file outside the project", possible=WITHOUT_NAMESPACES, why=_OWN)
def attribute_of_other():
    os.setxattr(f"{facts.other}/notes.txt", "user.planted", b"1")


@probe(
    "learns whether a secret exists, and how long it is",
    possible=EVERYWHERE,
    why="Landlock guards contents and lists of names, not what stat tells of a known path",
)
def stat_secret():
    return os.stat(f"{facts.home}/.ssh/id_ed25519")


@probe(
    "watches what happens in another folder of the home (inotify)",
    possible=EVERYWHERE,
    why="Landlock does not guard it",
)
def watch_folder():
    watcher = libc.inotify_init()
    number = libc.inotify_add_watch(watcher, facts.other.encode(), 0xFFF)
    code = ctypes.get_errno()
    os.close(watcher)
    if number < 0:
        raise OSError(code, "inotify_add_watch")


@probe(
    "reads data outside the home",
    possible=IN_WORKSPACE,
    why="workspace reads the machine's data folders",
)
def read_data():
    if facts.elsewhere == "":
        raise Absent("the world has no folder outside the home")
    return read(f"{facts.elsewhere}/data.csv")


@probe("changes data outside the home")
def write_data():
    if facts.elsewhere == "":
        raise Absent("the world has no folder outside the home")
    append(f"{facts.elsewhere}/data.csv", "")


@probe(
    "reads `.env` in the project",
    possible=EVERYWHERE,
    why="what lies in the project is read as the project's",
)
def dot_env():
    return read(f"{facts.project}/.env")


@probe(
    "changes the project's own files", possible=IN_WORKSPACE, why="this is what workspace is for"
)
def project_file():
    append(f"{facts.project}/module.py", "")


@probe(
    "plants commands in a file of the project that the user runs later",
    possible=IN_WORKSPACE,
    why="a Makefile is a file of the project like any other; look at the diff before you run it",
)
def plant_in_makefile():
    append(f"{facts.project}/Makefile", "")


@probe(
    "changes a file outside the project that has a second name in it (a hard link)",
    possible=IN_WORKSPACE,
    why="it is one file; pnpm links its store into projects so",
)
def second_name():
    append(f"{facts.project}/data/linked.js", "")


@probe("reads Hive's ledger")
def read_ledger():
    return read(f"{facts.jupyter}/hive/ledger.sqlite")


@probe("changes Hive's ledger")
def write_ledger():
    append(f"{facts.jupyter}/hive/ledger.sqlite", "")
