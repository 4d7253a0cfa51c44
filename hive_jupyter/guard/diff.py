"""What a commit would change, made from git's objects so that nothing in it can hide."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import marks
from hive_jupyter.guard.git import Git, opened
from hive_jupyter.units import format_size, visible

# More than anybody reads. What cannot be shown cannot be approved.
MOST_TEXT = 32 * 2**20
_MOST_JUDGED = 4 * 2**20

_EVERYTHING_SHOWN = ("--no-ext-diff", "--no-textconv", "--no-color")
_LISTED = ("diff-tree", "-r", "-z", *_EVERYTHING_SHOWN, "--no-abbrev")
# Hashes in full would fill a line each and tell a human nothing.
_PATCH = ("diff-tree", "-r", "-p", *_EVERYTHING_SHOWN, "--abbrev=10")
# Names as people write them; git still quotes what could end a line.
_PLAIN_NAMES = {"core.quotePath": "false"}
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
NO_FILE = "000000"

_WORDS = {
    "A": "new",
    "C": "copied",
    "D": "deleted",
    "M": "changed",
    "R": "renamed",
    "T": "changed kind",
}


@dataclass(frozen=True)
class RawChange:
    """
    One line of ``git diff-tree --raw``.

    Attributes:
        status: "A", "C", "D", "M", "R" or "T".
        old_mode, new_mode: as git writes them, such as "100644"; "000000" where there is no file.
        old_id, new_id: hashes of the content.
        old_path, path: relative to the top; bytes that are no UTF-8 are surrogates.
    """

    status: str
    old_mode: str
    new_mode: str
    old_id: str
    new_id: str
    old_path: str
    path: str


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
    with opened(repository, private) as plain:
        git = replace(plain, settings={**plain.settings, **_PLAIN_NAMES})
        old = checked_hash(parent) if parent is not None else empty_tree(git)
        return tuple(_changes(git, old, checked_hash(tree)))


def checked_hash(text: str) -> str:
    """
    Take a hash.

    Raises:
        RepositoryError: it is no hash in full, and git might read it as something else.
    """
    if not _HASH.fullmatch(text):
        msg = f"{text!r} is no full hash of an object."
        raise RepositoryError(msg)
    return text


def empty_tree(git: Git) -> str:
    """The hash of a tree without files."""
    return git.run("hash-object", "-t", "tree", "--stdin").decode().strip()


def raw_changes(git: Git, old: str, new: str, *options: str) -> list[RawChange]:
    """
    The files in which two trees differ.

    Raises:
        RepositoryError: git fails.
    """
    out = git.run(*_LISTED, "--raw", *options, old, new)
    return list(read_raw(out.split(b"\0")))


def read_raw(fields: list[bytes]) -> Iterator[RawChange]:
    """Read what git lists with --raw and -z, taken apart at its NULs."""
    rest = iter(fields)
    for head in rest:
        if not head.startswith(b":"):
            return
        old_mode, new_mode, old_id, new_id, status = os.fsdecode(head[1:]).split(" ")
        old_path = os.fsdecode(next(rest))
        path = os.fsdecode(next(rest)) if status[0] in "CR" else old_path
        yield RawChange(status[0], old_mode, new_mode, old_id, new_id, old_path, path)


def _changes(git: Git, old: str, new: str) -> Iterator[FileChange]:
    raw = raw_changes(git, old, new, "-M")
    sizes = _sizes(git, raw)
    total = sum(sizes.values())
    if total > MOST_TEXT:
        # Pictures and data are not read line by line, and so do not count.
        total = sum(sizes[one] for change in _texts(git, old, new, raw) for one in _ids(change))
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


def _ids(change: RawChange) -> list[str]:
    """Hashes of the contents that a change is made of; a submodule's commit is not here."""
    pairs = ((change.old_mode, change.old_id), (change.new_mode, change.new_id))
    return [one for mode, one in pairs if mode not in {NO_FILE, marks.GITLINK}]


def _sizes(git: Git, raw: list[RawChange]) -> dict[str, int]:
    ids = sorted({one for change in raw for one in _ids(change)})
    out = git.run("cat-file", "--batch-check", stdin="".join(f"{one}\n" for one in ids).encode())
    sizes = {}
    for line in out.decode().splitlines():
        one, _, size = line.split(" ", 2) if line.count(" ") > 1 else (line, "", "")
        if not size.isdigit():
            msg = f"Content of this commit is missing: {line}. Ask for it again."
            raise RepositoryError(msg)
        sizes[one] = int(size)
    return sizes


def small_contents(git: Git, raw: list[RawChange], most: int) -> list[bytes]:
    """
    The new contents of changed files that are no longer than so many bytes, each once.

    Raises:
        RepositoryError: git fails, or content is missing.
    """
    new = {change.new_id for change in raw if change.new_mode in marks.FILES}
    sizes = _sizes(git, raw)
    wanted = sorted(one for one in new if sizes[one] <= most)
    out = git.run("cat-file", "--batch", stdin="".join(f"{one}\n" for one in wanted).encode())
    contents = []
    for one in wanted:
        start = out.index(b"\n") + 1
        contents.append(out[start : start + sizes[one]])
        out = out[start + sizes[one] + 1 :]
    return contents


def _texts(git: Git, old: str, new: str, raw: list[RawChange]) -> list[RawChange]:
    """Those that git takes for text."""
    out = git.run(*_LISTED, "--numstat", "-M", old, new)
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
        sizes[one] <= _MOST_JUDGED and _is_text(_blob(git, one)) for one in _ids(change)
    ):
        # One NUL is enough for git to show nothing.
        paths = sorted({change.old_path, change.path})
        patch = git.run(*_PATCH, "--no-renames", "--text", *trees, "--", *paths)
        noted.append("text that git takes for binary")
        is_binary = False
    is_notebook = change.path.endswith(".ipynb") and change.new_id in sizes
    if is_notebook and sizes[change.new_id] <= MOST_TEXT:
        old = [_blob(git, one) for one in _ids(change)[:-1] if sizes[one] <= MOST_TEXT]
        noted += marks.of_notebook(_blob(git, change.new_id), *old)
    if is_binary:
        shown = [format_size(sizes[one]) for one in _ids(change)]
        noted.append(f"binary, cannot be read: {' -> '.join(shown)}")
        return FileChange(change, None, None, tuple(noted), _shown(patch))
    if b"sha256:" in patch and change.new_id in sizes:
        noted += marks.of_pointer(_blob(git, change.new_id))
    added, removed = _lines(patch)
    # Of a notebook, pictures and outputs are long by nature.
    noted += [
        mark for mark in marks.of_lines(added) if mark != "very long lines" or not is_notebook
    ]
    return FileChange(change, len(added), len(removed), tuple(noted), _shown(patch))


def _blob(git: Git, content: str) -> bytes:
    return git.run("cat-file", "blob", content)


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


def render(files: tuple[FileChange, ...]) -> str:
    """Changes as text: a summary, what deserves a close look, and the patches."""
    noted = [f"  {mark}" for mark in marked(files)]
    if noted:
        noted = ["", "Look closely at:", *noted]
    return "\n".join([*summary(files), *noted, "", *(file.patch for file in files)])


def summary(files: tuple[FileChange, ...]) -> list[str]:
    """A line on all changes, and one for each file."""
    added = sum(file.added or 0 for file in files)
    removed = sum(file.removed or 0 for file in files)
    lines = [f"Files changed: {len(files)}. Lines added: {added}, removed: {removed}.", ""]
    return lines + [f"  {file.what:12}  {_numbers(file):>12}  {file.name}" for file in files]


def marked(files: tuple[FileChange, ...]) -> list[str]:
    """What deserves a close look, a line for each mark of each file."""
    return [f"{file.name}: {mark}" for file in files for mark in file.marks]


def _numbers(file: FileChange) -> str:
    return "binary" if file.added is None else f"+{file.added} -{file.removed}"
