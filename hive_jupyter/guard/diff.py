"""What a commit would change, made from git's objects so that nothing in it can hide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    contents_of,
    empty_tree,
    read_raw,
    sizes_of,
)
from hive_jupyter.guard.private import opened, verified
from hive_jupyter.units import format_size, visible

# More than anybody reads: files, and bytes of text in them, old and new. What cannot be shown
# cannot be approved, and to show it takes many times as much memory.
MOST_FILES = 5000
MOST_TEXT = 8 * 2**20

# What git takes for binary may be text; in bytes, of which so many at the beginning tell.
_MOST_JUDGED = 4 * 2**20
_JUDGED = 2**16
# A content up to so many bytes is looked into, also where git takes it for binary.
_SMALL = 2**13

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
    raw = _listed(git, old, new)
    sizes = sizes_of(git, raw)
    # Pictures and data are not read line by line, and what is only renamed is not shown.
    texts = [one for one in _texts(git, old, new, raw) if one.old_id != one.new_id]
    total = sum(_size(change, sizes) for change in texts)
    _refuse_much(total)
    wanted = {one for change in texts for one in content_ids(change)}
    wanted |= {one for one, size in sizes.items() if size <= _SMALL}
    contents = contents_of(git, {one: sizes[one] for one in wanted})
    sections = iter(_sections(git.run(*_PATCH, "-M", old, new)))
    for change in raw:
        # One that changes its kind is deleted and made anew.
        number = 2 if change.status == "T" else 1
        patch = b"".join(next(sections, b"") for _ in range(number))
        if not patch:
            raise RepositoryError("git lists more than it shows. Commit this with git itself.")
        noted = [*marks.of_path(change.path), *marks.of_modes(change.old_mode, change.new_mode)]
        if _is_binary(patch) and _is_all_text(git, change, sizes, contents):
            # One NUL is enough for git to show nothing.
            total += _size(change, sizes)
            _refuse_much(total)
            paths = sorted({change.old_path, change.path})
            patch = git.run(*_PATCH, "--no-renames", "--text", old, new, "--", *paths)
            noted.append("text that git takes for binary")
        yield _judged(change, patch, noted, sizes, contents)
    if next(sections, None) is not None:
        raise RepositoryError("git shows more than it lists. Commit this with git itself.")


def _listed(git: Git, old: str, new: str) -> list[RawChange]:
    out = git.run(*LISTED, "--raw", "-M", old, new)
    # A file takes two NULs or three, and a list that is far too long is not even taken apart.
    raw = read_raw(out) if out.count(b"\0") <= 3 * MOST_FILES else None
    if raw is None or len(raw) > MOST_FILES:
        msg = (
            f"This commit changes more than {MOST_FILES} files, more than anybody reads. Ask for "
            "it in parts, or commit it with git."
        )
        raise RepositoryError(msg)
    return raw


def _size(change: RawChange, sizes: Mapping[str, int]) -> int:
    return sum(sizes[one] for one in content_ids(change))


def _refuse_much(text: int) -> None:
    if text > MOST_TEXT:
        msg = (
            f"This commit changes {format_size(text)} of text, more than anybody reads: "
            f"{format_size(MOST_TEXT)} is the most. Ask for it in parts, or commit it with git."
        )
        raise RepositoryError(msg)


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
    change: RawChange,
    patch: bytes,
    noted: list[str],
    sizes: Mapping[str, int],
    contents: Mapping[str, bytes],
) -> FileChange:
    content = contents.get(change.new_id, b"")
    is_notebook = change.path.endswith(".ipynb") and change.new_id in sizes
    if is_notebook and change.old_id != change.new_id:
        before = [contents.get(one, b"") for one in content_ids(change)[:-1]]
        noted += marks.of_notebook(content, *before)
    # Also where it is only renamed: what is found under its new name is what it leads to.
    noted += marks.of_pointer(content)
    if _is_binary(patch):
        shown = [format_size(sizes[one]) for one in content_ids(change)]
        noted.append(f"binary, cannot be read: {' -> '.join(shown)}")
        return FileChange(change, None, None, tuple(noted), _shown(patch))
    added, removed = _lines(patch)
    # Of a notebook, pictures and outputs are long by nature.
    noted += [
        mark for mark in marks.of_lines(added) if mark != "very long lines" or not is_notebook
    ]
    return FileChange(change, len(added), len(removed), tuple(noted), _shown(patch))


def _is_binary(patch: bytes) -> bool:
    return re.search(rb"^Binary files ", patch, re.MULTILINE) is not None


def _is_all_text(
    git: Git, change: RawChange, sizes: Mapping[str, int], contents: Mapping[str, bytes]
) -> bool:
    return all(
        sizes[one] <= _MOST_JUDGED
        and _is_text(contents[one] if one in contents else content_of(git, one))
        for one in content_ids(change)
    )


def _is_text(content: bytes) -> bool:
    """Whether nine of ten characters at its beginning are to be read."""
    text = content[:_JUDGED].decode("utf-8", "surrogateescape")
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
