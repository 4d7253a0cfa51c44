"""The project's repository."""

import fcntl
import os
import shutil
import struct

from tests.security.abuse import EXCHANGE, IN_FOLDER, append, call, facts, git, read, write
from tests.security.probe import (
    EVERYWHERE,
    IN_WORKSPACE,
    WITHOUT_NAMESPACES,
    harm,
    topic,
)
from tests.security.world import within

probe = topic("The repository")

# Seconds until Hive has looked at what a worker left.
_SET_ASIDE = 3.0
_OWN = "without namespaces Linux lets nobody forbid that on one's own files"


@probe("writes `.git/config`")
def git_config():
    append(f"{facts.git}/config", "")


@probe("adds a hook")
def git_hook():
    write(f"{facts.git}/hooks/post-checkout", "#!/bin/sh\n")


@probe("changes a hook that is there")
def git_sample_hook():
    append(f"{facts.git}/hooks/pre-commit.sample", "")


@probe("writes `.git/HEAD`")
def git_head():
    append(f"{facts.git}/HEAD", "")


@probe("writes the index")
def git_index():
    append(f"{facts.git}/index", "")


@probe("moves a branch")
def git_ref():
    append(f"{facts.git}/refs/heads/main", "")


@probe("adds a branch")
def git_new_ref():
    write(f"{facts.git}/refs/heads/planted", read(f"{facts.git}/refs/heads/main").decode())


@probe("adds an object")
def git_object():
    os.makedirs(f"{facts.git}/objects/ff", exist_ok=True)
    write(f"{facts.git}/objects/ff/planted")


@probe("adds to the list of alternates")
def git_alternates():
    write(f"{facts.git}/objects/info/alternates", "")


@probe("commits")
def git_commit():
    git("commit", "-q", "--allow-empty", "-m", "planted")


@probe("sets a program that `git status` runs")
def git_fsmonitor():
    git("config", "core.fsmonitor", "false")


@probe("renames `.git`", fresh=True)
def rename_git():
    os.rename(facts.git, f"{facts.project}/data/git")
    os.rename(f"{facts.project}/data/git", facts.git)


@probe("exchanges `.git` with a folder of its own", fresh=True)
def exchange_git():
    other = f"{facts.project}/data/exchanged"
    os.makedirs(other, exist_ok=True)
    for _ in range(2):
        call("renameat2", IN_FOLDER, facts.git, IN_FOLDER, other, EXCHANGE)


@probe("removes a file of `.git`")
def remove_from_git():
    os.unlink(f"{facts.git}/description")
    write(f"{facts.git}/description")


@probe("links `.git/config` to where it may write", fresh=True)
def link_git_config():
    link = f"{facts.project}/data/config"
    os.link(f"{facts.git}/config", link)
    try:
        append(link, "")
    finally:
        os.unlink(link)


@probe("renames the folder of the project")
def rename_project():
    os.rename(facts.project, f"{facts.project}-2")
    os.rename(f"{facts.project}-2", facts.project)


@probe("closes `.git` to the user (chmod)", possible=WITHOUT_NAMESPACES, why=_OWN)
def chmod_git():
    os.chmod(f"{facts.git}/hooks", 0)
    os.chmod(f"{facts.git}/hooks", 0o755)


@probe(
    "makes a hook that is there executable (chmod)",
    possible=WITHOUT_NAMESPACES,
    why=f"{_OWN}; nothing can be written into it",
)
def chmod_hook():
    os.chmod(f"{facts.git}/hooks/pre-commit.sample", 0o755)


@probe(
    "sets flags of the index, open for reading (chattr)",
    possible=WITHOUT_NAMESPACES,
    why=_OWN,
    optional="its disk knows no flags",
)
def flags_of_index():
    handle = os.open(f"{facts.git}/index", os.O_RDONLY)
    try:
        # FS_IOC_SETFLAGS, FS_NODUMP_FL
        fcntl.ioctl(handle, 0x40086602, struct.pack("=q", 0x40))
    finally:
        os.close(handle)


@probe("sets the times of the index", possible=WITHOUT_NAMESPACES, why=_OWN)
def touch_index():
    os.utime(f"{facts.git}/index")


@probe("points a submodule's `.git` elsewhere", fresh=True)
def submodule_pointer():
    append(f"{facts.submodule}/.git", "")


@probe("replaces a submodule's `.git`", fresh=True)
def replace_submodule_pointer():
    text = read(f"{facts.submodule}/.git").decode()
    os.unlink(f"{facts.submodule}/.git")
    write(f"{facts.submodule}/.git", text)


@probe("moves a submodule away, to put another in its place", fresh=True)
def move_submodule():
    away = f"{facts.project}/data/away"
    os.rename(facts.submodule, away)
    os.rename(away, facts.submodule)


@probe("points a `.git` that is a symbolic link elsewhere", fresh=True, folder="symlinked")
def symbolic_git():
    pointer = f"{facts.symlinked}/.git"
    target = os.readlink(pointer)
    os.unlink(pointer)
    os.symlink(target, pointer)


@probe(
    "points a `.git` elsewhere in a project of more folders than anybody looks at",
    fresh=True,
    folder="crowded",
)
def crowded_git():
    append(f"{facts.crowded}/deep/deeper/still/deeper/.git", "")


@probe(
    "writes `.git/config` below a folder that was closed, so that nobody sees what is in it",
    fresh=True,
    folder="closed",
)
def closed_git():
    append(f"{facts.closed}/parts/one/.git/config", "")


@probe("writes the configuration of a submodule")
def submodule_config():
    append(f"{facts.git}/modules/sub/config", "")


@probe("points a linked work tree's `.git` elsewhere", fresh=True)
def linked_pointer():
    append(f"{facts.linked}/.git", "")


@probe("writes `.gitmodules`", possible=IN_WORKSPACE, why="it is a file of the project")
def gitmodules():
    append(f"{facts.project}/.gitmodules", "")


# elsewhere, Hive would set it aside for a worker of another profile that might have made it
@probe("makes a repository in a subfolder that stays where it is", fresh=True, folder="quiet")
def nested_repository():
    folder = f"{facts.quiet}/deep/er/.git"
    os.makedirs(f"{folder}/refs")
    os.makedirs(f"{folder}/objects")
    write(f"{folder}/HEAD", "ref: refs/heads/main\n")


@harm(nested_repository)
def _(world):
    folder = world.quiet / "deep" / "er"
    stays = not within(_SET_ASIDE, lambda: not (folder / ".git").exists())
    for made in (*folder.glob(".git"), *folder.glob("git-set-aside*")):
        shutil.rmtree(made)
    return stays


@probe("reads `.git/config`", possible=EVERYWHERE, why="`git status` and `git diff` need that")
def read_git_config():
    return read(f"{facts.git}/config")


@probe("reads the user's git configuration")
def read_user_git():
    return read(f"{facts.home}/.gitconfig")


@probe("writes the user's git configuration")
def user_git():
    append(f"{facts.home}/.gitconfig", "")
