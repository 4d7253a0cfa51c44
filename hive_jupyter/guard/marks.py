"""What in a change deserves a close look: hints for a human, and no proof of anything."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, TypeVar

from hive_jupyter.guard.lfs import read_pointer
from hive_jupyter.guard.objects import EXECUTABLE, GITLINK, SYMLINK
from hive_jupyter.units import format_size, visible

_LONG_LINE = 1000
# Characters of a line in which a secret is looked for: one search is not to hold up everybody else.
_SEARCHED = 4096

# In bytes; what is read of it takes many times as much memory.
MOST_NOTEBOOK = 4 * 2**20

# Where other programs take commands from, as far as they are widely used.
_HOOKS = re.compile(
    r"(^|/)(\.githooks|\.?git-hooks|hooks|\.husky|\.lefthook)/"
    r"|(^|/)(\.pre-commit-(config|hooks)\.ya?ml|\.?lefthook\.ya?ml)$"
)
_CI = re.compile(
    r"^(\.github/(workflows|actions)|\.circleci|\.buildkite|\.woodpecker|\.gitlab|\.ci)/"
    r"|^(\.gitlab-ci|\.travis|\.drone|\.woodpecker|\.?appveyor|azure-pipelines|"
    r"bitbucket-pipelines|cloudbuild|buildspec)\.ya?ml$|(^|/)Jenkinsfile$"
)
_GIT_FILES = {".gitattributes", ".gitmodules", ".lfsconfig"}
_SECRET_FILES = re.compile(
    r"(^|/)(\.env(\.[^/]+)?|\.netrc|\.npmrc|\.pypirc|\.htpasswd|credentials(\.json)?|"
    r"id_(rsa|dsa|ecdsa|ed25519)|[^/]+\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk))$"
)

# Forms that their issuers publish, then assignments to a telling name. Every repetition that can
# fail late is bounded or gives nothing back (as in {1,9}+), and none begins within another of its
# kind: whoever writes the lines would otherwise choose how long this takes.
_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}"
    r"|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}|\bxox[abeoprs]-[\w-]{10,}|\bAIza[\w-]{35}"
    r"|\bsk-[\w-]{20,}|\b[rs]k_live_\w{20,}|\bpypi-AgE[\w-]{20,}|\bhf_[A-Za-z0-9]{30,}"
    r"|(?<![\w-])eyJ[\w-]{10,300}+\.eyJ[\w-]{10,}"
    r"|(?i:(passw(or)?d|secret|token|api_?key|access_?key|private_?key)\w{0,40}+[\"']?\s{0,8}+[:=]"
    r"\s{0,8}+[bru]?[\"'][^\"'\s]{8,}+[\"'])"
    r"|://[^/\s:@]{1,100}+:[^/\s:@]{3,300}+@"
)

_HIDING_TAGS = {"hide-cell", "hide-input", "hide-output", "remove-cell", "remove-input"}
_HIDING_FLAGS = ("source_hidden", "outputs_hidden", "collapsed")
_ACTIVE_OUTPUTS = ("text/html", "application/javascript", "image/svg+xml", "text/markdown")
_WIDGET = "application/vnd.jupyter.widget-view+json"

_Thing = TypeVar("_Thing")


def of_path(path: str) -> Iterator[str]:
    """Marks for what a file is called."""
    if _HOOKS.search(path):
        yield "runs as a git hook"
    if _CI.search(path):
        yield "runs in CI"
    if PurePosixPath(path).name in _GIT_FILES:
        yield "steers git"
    if _SECRET_FILES.search(path):
        yield "named like a secret"
    if visible(path, keep="") != path:
        yield "odd characters in its name"


def of_modes(old: str, new: str) -> Iterator[str]:
    """Marks for what kind of file it becomes; modes as git writes them."""
    if GITLINK in {old, new}:
        yield "is a submodule"
    elif new == EXECUTABLE != old:
        yield "becomes executable"
    elif new == SYMLINK:
        yield "is a symbolic link"


def of_lines(added: list[str]) -> Iterator[str]:
    """Marks for lines that are added."""
    secrets = [number for number, line in enumerate(added, 1) if _SECRETS.search(line[:_SEARCHED])]
    if secrets:
        yield f"looks like a secret: {_count(len(secrets), 'added line')}"
    if any(
        visible(line.removesuffix("\r"), keep="\t\xa0") != line.removesuffix("\r") for line in added
    ):
        yield "invisible or control characters"
    if any(len(line) > _LONG_LINE for line in added):
        yield "very long lines"


def of_pointer(content: bytes) -> Iterator[str]:
    """Marks for a file in whose place another content comes when it is checked out."""
    if pointer := read_pointer(content):
        yield f"kept by git-lfs: its {format_size(pointer.size)} are not shown"


def of_notebook(content: bytes, before: bytes = b"") -> Iterator[str]:
    """
    Marks for what a notebook holds beside the code that one sees (nbformat 4).

    One of more than ``MOST_NOTEBOOK`` bytes is not looked into.

    Args:
        content: of the notebook.
        before: its old content; what was there is not named again.
    """
    if len(content) > MOST_NOTEBOOK:
        yield "a notebook too large to look into"
        return
    cells = _cells(content)
    if cells is None:
        yield "not a notebook of format 4"
        return
    old = (_cells(before) if len(before) <= MOST_NOTEBOOK else None) or []
    outputs = _new(_outputs(cells), _outputs(old))
    kinds = [set(_dict(output.get("data"))) for output in outputs]
    if outputs:
        yield _count(len(outputs), "stored output")
    if active := sum(not kind.isdisjoint(_ACTIVE_OUTPUTS) for kind in kinds):
        yield f"{_count(active, 'output')} with HTML or script"
    if widgets := sum(_WIDGET in kind for kind in kinds):
        yield _count(widgets, "widget")
    if hidden := _new(_hidden(cells), _hidden(old)):
        yield _count(len(hidden), "hidden cell")
    if attached := _new(_attachments(cells), _attachments(old)):
        yield f"{_count(len(attached), 'cell')} with attachments"


def _cells(content: bytes) -> list[dict[str, Any]] | None:
    if b"\0" in content:  # no JSON, and nothing to look for its end in
        return None
    try:
        return [dict(cell) for cell in json.loads(content)["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _outputs(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    outputs = [output for cell in cells for output in _list(cell.get("outputs"))]
    # to run a cell once more is no change
    return [{**_dict(output), "execution_count": None} for output in outputs]


def _hidden(cells: list[dict[str, Any]]) -> list[object]:
    """The cells that are hidden, and by what."""
    return [
        (cell.get("cell_type"), cell.get("source"), hiding)
        for cell in cells
        if (hiding := _hiding(cell))
    ]


def _hiding(cell: dict[str, Any]) -> list[str]:
    metadata = _dict(cell.get("metadata"))
    flags = {**_dict(metadata.get("jupyter")), "collapsed": metadata.get("collapsed")}
    tags = {str(tag).replace("_", "-") for tag in _list(metadata.get("tags"))}
    return sorted(_HIDING_TAGS & tags) + [name for name in _HIDING_FLAGS if flags.get(name)]


def _attachments(cells: list[dict[str, Any]]) -> list[object]:
    return [cell["attachments"] for cell in cells if cell.get("attachments")]


def _new(things: list[_Thing], before: list[_Thing]) -> list[_Thing]:
    """What was not there before; of what is there more often, the difference."""
    known = Counter(map(_written, before))
    found = []
    for thing in things:
        written = _written(thing)
        if written and known[written]:
            known[written] -= 1
        else:
            found.append(thing)
    return found


def _written(thing: object) -> str:
    try:
        return json.dumps(thing, sort_keys=True)
    except RecursionError:  # nested as deep as it can just be read
        return ""


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
