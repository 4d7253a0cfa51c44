"""
What git says about the project; it changes nothing and runs nothing of the repository's.

A repository may name programs: hooks, a file system monitor, filters, external diffs, transports.
All are switched off, and no environment variable of the worker's reaches git.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import ToolContent, ToolResult, current_call, head
from hive_jupyter.worker.tools import programs, workspace
from hive_jupyter.worker.tools.answers import FRAME, Row, answer, json_size, listing

_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    "--literal-pathspecs",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.quotePath=false"),
    *("-c", "color.ui=false"),
    *("-c", "diff.autoRefreshIndex=false"),
    *("-c", "safe.bareRepository=explicit"),
)
_DIFF = (
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--ignore-submodules=dirty",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
_NO_CHANGE = re.compile(r"^diff --git .*\n(?=diff --git |\Z)", re.MULTILINE)
_FILTERS = r"^filter\..*\.(clean|process)$"
_FIELDS_BEFORE_NAME = {"1": 7, "2": 8, "u": 9}


def git_status(path: str = ".") -> ToolResult:
    """The branch, and files that are changed, staged or new."""
    with _in_repository(path) as (folder, within, top):
        output = _git(
            folder,
            "status",
            *("--porcelain=v2", "--branch", "-z", "--untracked-files=normal"),
            *("--ignore-submodules=dirty", "--", within),
            environment=_without_filters(folder),
        )
    fields = output.decode(errors="surrogateescape").split("\0")[:-1]
    facts = _branch(fields)
    result = listing(
        _changes(iter(fields), top),
        key="files",
        limit=len(fields),
        none="Nothing is changed.",
        narrow="Give the path of a folder.",
        more={**facts, "root": workspace.shown(top)},
    )
    first, *others = result.content
    headed = ToolContent("text", f"{_sentence(facts)}\n{first.text}")
    return ToolResult((headed, *others), structured_content=result.structured_content)


def git_diff(path: str = ".", staged: bool = False, commit: str = "HEAD") -> ToolResult:
    """What has changed since a commit."""
    # once as text, and once as structure
    room = (current_call().limit - FRAME) // 2
    with _in_repository(path) as (folder, within, top):
        chosen = [*_DIFF, *(["--cached"] if staged else []), _base(folder, commit), "--", within]
        switched_off = _without_filters(folder)
        output = _git(folder, "diff", *chosen, environment=switched_off, most=room)
    # an index that is not refreshed has files change that are only younger
    diff = _NO_CHANGE.sub("", output.decode(errors="replace"))
    note = ""
    if json_size(diff) > room:
        diff = head(diff, room)
        note = "[Cut: an answer holds no more. Give the path of a file; git_status names them.]"
    facts = {"diff": diff, "root": workspace.shown(top), "truncated": bool(note)}
    return answer(diff or "Nothing has changed.", note, **facts)


def names_of_files(folder: workspace.Opened) -> list[str] | None:
    """
    The files below a folder that git knows or does not ignore, by their paths from there, sorted.

    A name that is a folder's is a repository of its own. None outside of a repository.
    """
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        output = _git(folder, *listed)
    except ToolError:
        return None
    names = {name.rstrip("/") for name in output.decode(errors="surrogateescape").split("\0")}
    return sorted(names - {""}, key=lambda name: name.split("/"))


# How git is run


@contextmanager
def _in_repository(path: str) -> Iterator[tuple[workspace.Opened, str, str]]:
    """The folder to run git in, what of it is meant, and the repository's top level."""
    whole, within = workspace.absolute(path), "."
    # a file; also one that is deleted, or a link, which is what git keeps
    if os.path.islink(whole) or not os.path.isdir(whole):
        whole, within = os.path.split(whole)
    with workspace.opened(whole) as folder:
        top = os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n"))
        if not workspace.is_inside(os.path.realpath(top)):
            msg = f"{path} belongs to a repository outside the project, at {top}."
            raise ToolError(msg)
        yield folder, within, top


def _git(
    folder: workspace.Opened,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    most: int = workspace.LARGEST_FILE,
) -> bytes:
    """
    Run git in a folder; see ``programs.output_of``.

    Raises:
        ToolError: there is no git, no repository, or git refuses; with what it said.
    """
    program = programs.find("git")
    if program is None:
        msg = "There is no git on this machine, or the worker does not find it on its PATH."
        raise ToolError(msg)
    ours = {
        # the configuration may allow a protocol by its name, and the objects of a partial clone are
        # fetched by the programs that it names
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_CEILING_DIRECTORIES": workspace.ceiling(),
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        **(environment or {}),
    }
    command = [program, *_OPTIONS, *arguments]
    status, output, said = programs.output_of(command, folder=folder, environment=ours, most=most)
    if "not a git repository" in said:
        msg = f"{str(folder.path)!r} is in no git repository of this project."
        raise ToolError(msg)
    if status != 0:
        msg = f"git {arguments[0]} failed: {said}"
        raise ToolError(msg)
    return output


def _without_filters(folder: workspace.Opened) -> dict[str, str]:
    """
    Variables that switch off each filter which the configuration names.

    A work tree's ``.gitattributes`` says which files go through them, also for a mere comparison.
    """
    try:
        listed = _git(folder, "config", "-z", "--name-only", "--get-regexp", _FILTERS)
    except ToolError:  # none
        return {}
    keys = listed.decode(errors="surrogateescape").split("\0")[:-1]
    settings = [(key, "") for key in keys]
    settings += [(f"{key.rpartition('.')[0]}.required", "false") for key in keys]
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


def _base(folder: workspace.Opened, commit: str) -> str:
    """The hash of the commit to compare with; before the first one, that of nothing."""
    missing = ToolError(f'There is no commit or branch "{commit}".')
    if commit.startswith("-"):  # it would be an option
        raise missing
    try:
        found = _git(folder, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    except ToolError:
        if commit != "HEAD":
            raise missing from None
        found = _git(folder, "hash-object", "-t", "tree", "/dev/null")
    return found.decode().strip()


# What git status says: https://git-scm.com/docs/git-status#_porcelain_format_version_2


def _branch(fields: list[str]) -> dict[str, Any]:
    said = dict(field[2:].split(" ", 1) for field in fields if field.startswith("# "))
    facts: dict[str, Any] = {
        "branch": None if said["branch.head"] == "(detached)" else said["branch.head"],
        "commit": None if said["branch.oid"] == "(initial)" else said["branch.oid"],
    }
    if "branch.upstream" in said:
        facts["upstream"] = said["branch.upstream"]
    if "branch.ab" in said:
        ahead, behind = said["branch.ab"].split()
        facts |= {"ahead": int(ahead), "behind": -int(behind)}
    return facts


def _sentence(facts: Mapping[str, Any]) -> str:
    commit = facts["commit"] or ""
    where = f"On branch {facts['branch']}" if facts["branch"] else f"On commit {commit[:12]}"
    if not commit:
        where += ", with no commit yet"
    if facts.get("ahead") or facts.get("behind"):
        distance = f"{facts['ahead']} ahead and {facts['behind']} behind"
        where += f", {distance} {facts['upstream']}"
    return f"{where}."


def _changes(fields: Iterator[str], top: str) -> Iterator[Row]:
    for field in fields:
        kind, _, rest = field.partition(" ")
        if kind == "#":
            continue
        if kind == "?":
            letters, name = "??", rest
        else:
            parts = rest.split(" ", _FIELDS_BEFORE_NAME[kind])
            letters, name = parts[0].replace(".", " "), parts[-1]
        path = workspace.shown(os.path.join(top, name))
        entry = {"path": path, "index": letters[0], "worktree": letters[1]}
        line = f"{letters} {path}"
        if kind == "2":
            entry["was"] = workspace.shown(os.path.join(top, next(fields)))
            line = f"{letters} {entry['was']} -> {path}"
        yield line, entry
