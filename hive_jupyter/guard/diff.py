"""What a commit would change, made from git's objects so that nothing in it can hide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import marks
from hive_jupyter.guard.git import Git
from hive_jupyter.guard.objects import (
    EVERYTHING_SHOWN,
    LISTED,
    RawChange,
    checked_hash,
    content_ids,
    content_of,
    empty_tree,
    raw_changes,
    sizes_of,
)
from hive_jupyter.guard.private import opened, verified
from hive_jupyter.units import format_size, visible

# More than anybody reads. What cannot be shown cannot be approved.
MOST_TEXT = 32 * 2**20
_MOST_JUDGED = 4 * 2**20

# Hashes in full would fill a line each and tell a human nothing.
_PATCH = ("diff-tree", "-r", "-p", *EVERYTHING_SHOWN, "--abbrev=10")
# Names as people write them; git still quotes what could end a line.
_PLAIN_NAMES = {"core.quotePath": "false"}

_WORDS = {
    "A": "new",
    "C": "copied",
    "D": "deleted",
    "M": "changed",
    "R": "renamed",
    "T": "changed kind",
}


@dataclass(frozen=True)
class FileChange:
    """
    What happens to one file.

    Attributes:
        raw: its modes, hashes and paths.
        added, removed: numbers of lines; None where its content is no text.
        marks: what deserves a close look, in words.
        patch: the change itself, with nothing in it that a screen would obey or swallow.
    """

    raw: RawChange
    added: int | None
    removed: int | None
    marks: tuple[str, ...]
    patch: str

    @property
    def name(self) -> str:
        """Its path to be shown, with the old one where it was renamed."""
        new = visible(self.raw.path, keep="")
        old = visible(self.raw.old_path, keep="")
        return new if old == new else f"{old} -> {new}"

    @property
    def what(self) -> str:
        """What happens to it, in a word or two."""
        return _WORDS[self.raw.status]


def compare(
    repository: str, private: str | None, parent: str | None, tree: str
) -> tuple[FileChange, ...]:
    """
    Compare a tree with a commit.

    Args:
        repository: the user's git dir.
        private: the private repository that holds the tree; None: the user's has it.
        parent: the commit's hash; None: there is none, all is new.
        tree: the tree's hash.

    Returns:
        What happens to each file, in git's order.

    Raises:
        RepositoryError: git fails, or it is too much to be read.
    """
    if parent is not None:
        checked_hash(parent)
    with opened(repository, private) as source, verified(source, parent, tree) as copy:
        git = replace(copy, settings={**copy.settings, **_PLAIN_NAMES})
        return tuple(_changes(git, parent or empty_tree(git), tree))


def _changes(git: Git, old: str, new: str) -> Iterator[FileChange]:
    raw = raw_changes(git, old, new, "-M")
    sizes = sizes_of(git, raw)
    total = sum(sizes.values())
    if total > MOST_TEXT:
        # Pictures and data are not read line by line, and so do not count.
        total = sum(
            sizes[one] for change in _texts(git, old, new, raw) for one in content_ids(change)
        )
    if total > MOST_TEXT:
        msg = (
            f"This commit changes {format_size(total)} of text, more than anybody reads: "
            f"{format_size(MOST_TEXT)} is the most. Ask for it in parts, or commit it with git."
        )
        raise RepositoryError(msg)
    out = git.run(*_PATCH, "-M", old, new)
    sections = iter(_sections(out))
    for change in raw:
        # One that changes its kind is deleted and made anew.
        wanted = 2 if change.status == "T" else 1
        patch = b"".join(next(sections, b"") for _ in range(wanted))
        yield _judged(git, (old, new), change, patch, sizes)
    if next(sections, None) is not None:
        raise RepositoryError("git shows more than it lists. Commit this with git itself.")


def _texts(git: Git, old: str, new: str, raw: list[RawChange]) -> list[RawChange]:
    """Those that git takes for text."""
    out = git.run(*LISTED, "--numstat", "-M", old, new)
    rest = iter(out.split(b"\0")[:-1])
    texts = []
    for change, head in zip(raw, rest, strict=False):
        added, _, path = head.split(b"\t", 2)
        if not path:  # renamed: the old path and the new one follow
            next(rest), next(rest)
        if added != b"-":
            texts.append(change)
    return texts


def _sections(patches: bytes) -> Iterator[bytes]:
    """The patch of one file after the other: within one, no line begins like its head."""
    starts = [match.start() for match in re.finditer(rb"^diff --git ", patches, re.MULTILINE)]
    for start, end in pairwise([*starts, len(patches)]):
        yield patches[start:end]


def _judged(
    git: Git, trees: tuple[str, str], change: RawChange, patch: bytes, sizes: dict[str, int]
) -> FileChange:
    if not patch:
        raise RepositoryError("git lists more than it shows. Commit this with git itself.")
    noted = [*marks.of_path(change.path), *marks.of_modes(change.old_mode, change.new_mode)]
    is_binary = re.search(rb"^Binary files ", patch, re.MULTILINE) is not None
    if is_binary and all(
        sizes[one] <= _MOST_JUDGED and _is_text(content_of(git, one)) for one in content_ids(change)
    ):
        # One NUL is enough for git to show nothing.
        paths = sorted({change.old_path, change.path})
        patch = git.run(*_PATCH, "--no-renames", "--text", *trees, "--", *paths)
        noted.append("text that git takes for binary")
        is_binary = False
    is_notebook = change.path.endswith(".ipynb") and change.new_id in sizes
    if is_notebook and sizes[change.new_id] <= MOST_TEXT:
        old = [content_of(git, one) for one in content_ids(change)[:-1] if sizes[one] <= MOST_TEXT]
        noted += marks.of_notebook(content_of(git, change.new_id), *old)
    if is_binary:
        shown = [format_size(sizes[one]) for one in content_ids(change)]
        noted.append(f"binary, cannot be read: {' -> '.join(shown)}")
        return FileChange(change, None, None, tuple(noted), _shown(patch))
    if b"sha256:" in patch and change.new_id in sizes:
        noted += marks.of_pointer(content_of(git, change.new_id))
    added, removed = _lines(patch)
    # Of a notebook, pictures and outputs are long by nature.
    noted += [
        mark for mark in marks.of_lines(added) if mark != "very long lines" or not is_notebook
    ]
    return FileChange(change, len(added), len(removed), tuple(noted), _shown(patch))


def _is_text(content: bytes) -> bool:
    """Whether nine of ten characters are to be read."""
    text = content.decode("utf-8", "surrogateescape")
    odd = sum(not letter.isprintable() and letter not in "\n\r\t\f" for letter in text)
    return odd * 10 <= len(text)


def _lines(patch: bytes) -> tuple[list[str], list[str]]:
    """The lines that a patch adds and removes."""
    added: list[str] = []
    removed: list[str] = []
    in_hunk = False
    for line in patch.split(b"\n"):
        if line.startswith(b"diff --git "):
            in_hunk = False
        elif line.startswith(b"@@ "):
            in_hunk = True
        elif in_hunk and line[:1] in {b"+", b"-"}:
            lines = added if line[:1] == b"+" else removed
            lines.append(line[1:].decode("utf-8", "surrogateescape"))
    return added, removed


def _shown(patch: bytes) -> str:
    return visible(patch.decode("utf-8", "surrogateescape"))
