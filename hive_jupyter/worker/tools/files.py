"""Reading, listing, writing and editing files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import ToolResult, current_call, head
from hive_jupyter.units import format_size
from hive_jupyter.worker.tools import texts, walk, workspace
from hive_jupyter.worker.tools.answers import FRAME, Progress, Row, answer, listing

NEW = "new"
_MOST_PLACES = 10


def digest_of(data: bytes) -> str:
    """By which a file's content is known: its SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_file(
    path: str,
    start_line: int = 1,
    end_line: int | None = None,
    encoding: str | None = None,
) -> ToolResult:
    """
    Read lines of a text file.

    Returns:
        The lines as they are, with a line feed at their ends; then a sentence on which they are.
    """
    with workspace.opened(path) as there:
        data = there.read()
        where = workspace.shown(there.path)
    content, used = texts.decode(data, where, encoding)
    lines = texts.lines_of(content)
    last = min(end_line or len(lines), len(lines))
    if start_line > max(len(lines), 1):
        msg = f"{where} has {len(lines)} lines; start_line={start_line} is behind its end."
        raise ToolError(msg)
    if end_line is not None and end_line < start_line:
        msg = f"end_line={end_line} is before start_line={start_line}."
        raise ToolError(msg)
    wanted = "".join(f"{line}\n" for line in lines[start_line - 1 : last])
    shown = head(wanted, current_call().limit - FRAME)
    rest = ""
    if shown != wanted:
        complete = shown.count("\n")
        if complete:
            last = start_line + complete - 1
            rest = f"An answer holds no more; continue with start_line={last + 1}. "
        else:
            last = start_line
            rest = f"Line {last} is cut: an answer holds no more. Use execute to see its end. "
    about = (
        f"[{where}: lines {start_line} to {last} of {len(lines)}. {rest}"
        f"{used.name}, digest {digest_of(data)}]"
    )
    return answer(
        shown,
        about,
        path=where,
        start_line=start_line,
        end_line=last,
        total_lines=len(lines),
        digest=digest_of(data),
        encoding=used.name,
    )


def list_files(
    path: str = ".",
    glob: str | None = None,
    depth: int | None = None,
    hidden: bool = False,
    limit: int = 1000,
) -> ToolResult:
    """List files and folders, below a folder and in the order of their names."""
    with workspace.opened(path) as there:
        if not there.is_folder:
            msg = f"{path} is no folder. read_file shows what is in a file."
            raise ToolError(msg)
        return listing(
            _entries(there, glob, depth, hidden=hidden),
            key="entries",
            limit=limit,
            none="There is nothing." if glob is None else f"Nothing matches {glob}.",
            narrow="Give a folder, a glob, or a depth.",
        )


def _entries(
    folder: workspace.Opened, glob: str | None, depth: int | None, *, hidden: bool
) -> Iterator[Row]:
    progress = Progress()
    for number, entry in enumerate(walk.walk(folder, hidden=hidden)):
        progress(number, None, f"at {entry.name}")
        if depth is not None and entry.name.count("/") >= depth:
            continue
        if glob is not None and (entry.kind == walk.FOLDER or not walk.matches(entry.name, glob)):
            continue
        path = workspace.shown(os.path.join(folder.path, entry.name))
        facts = {"path": path, "kind": entry.kind, "size": entry.size}
        if entry.kind == walk.FILE:
            yield f"{path}  ({format_size(entry.size)})", facts
        elif entry.kind == walk.FOLDER:
            yield f"{path}/", facts
        else:
            yield f"{path}  ({entry.kind})", facts


def save_file(
    path: str, content: str, digest: str | None = None, encoding: str | None = None
) -> ToolResult:
    """Write a whole file; see ``workspace.Target.write``."""
    target = workspace.target(path)
    data = _encoded(target, content, encoding)
    if data == target.data:
        where = workspace.shown(target.path)
        word = f"{where} holds this text already."
    else:
        if digest is not None:
            _check(target, digest)
        where = workspace.shown(target.write(data))
        word = f"{where} {'is new' if target.data is None else 'is overwritten'}."
    new = digest_of(data)
    return answer(
        f"{word} [{format_size(len(data))}, digest {new}]",
        path=where,
        digest=new,
        created=target.data is None,
    )


def _encoded(target: workspace.Target, content: str, encoding: str | None) -> bytes:
    """The bytes of a new text, with the line ends and the mark of the file that is there."""
    if encoding is not None:
        chosen = texts.Encoding(encoding)
    else:
        chosen = texts.Encoding.for_text(content, target.data or b"")
    return chosen.encode(texts.with_line_end(content, texts.line_end(_before(target, encoding))))


def _before(target: workspace.Target, encoding: str | None) -> str:
    """
    The text that is there.

    Raises:
        ToolError: it is none, and nobody has said which encoding is meant.
    """
    try:
        return texts.decode(target.data or b"", workspace.shown(target.path), encoding)[0]
    except ToolError:
        if encoding is None:
            raise
        return ""


def _check(target: workspace.Target, digest: str) -> None:
    """Refuse to overwrite what is not what somebody has read."""
    where = workspace.shown(target.path)
    if digest == NEW:
        if target.data is not None:
            msg = f"{where} exists already. Read it, and save it with its digest."
            raise ToolError(msg)
    elif target.data is None:
        msg = f'{where} is gone since it was read. Save it with digest="new" to make it anew.'
        raise ToolError(msg)
    elif digest.lower() != digest_of(target.data):
        msg = f"{where} has been changed since it was read, and was left as it is. Read it again."
        raise ToolError(msg)


def edit_file(
    path: str, old_text: str, new_text: str, count: int = 1, digest: str | None = None
) -> ToolResult:
    """Replace a text by another one, wherever it is, if it is there ``count`` times."""
    target = workspace.target(path)
    where = workspace.shown(target.path)
    if target.data is None:
        msg = f"There is no {path}. save_file makes a new file."
        raise ToolError(msg)
    if digest is not None:
        _check(target, digest)
    before, encoding = texts.decode(target.data, where)
    if encoding.encode(before) != target.data:
        msg = f"{where} cannot be edited as {encoding.name}: parts of it would change unasked."
        raise ToolError(msg)
    edits = _edits(before, old_text, new_text, where, count)
    after = texts.apply(before, edits)
    data = texts.Encoding.for_text(after, target.data).encode(after)
    target.write(data)
    times = "once" if count == 1 else f"{count} times"
    diff = texts.unified_diff(where, before, edits)
    # once as text, and once as structure
    kept = head(diff, (current_call().limit - FRAME) // 2)
    note = "[The diff is cut: an answer holds no more. git_diff or read_file shows the file.]"
    return answer(
        f"Replaced {times} in {where}. [digest {digest_of(data)}]\n{kept}",
        note if kept != diff else "",
        path=where,
        digest=digest_of(data),
        replacements=count,
        diff=kept,
    )


def _edits(before: str, old_text: str, new_text: str, where: str, count: int) -> list[texts.Edit]:
    """The replacements. A line end of the old text means whatever the file has there."""
    old, new = texts.with_line_end(old_text, "\n"), texts.with_line_end(new_text, "\n")
    if not old:
        msg = "old_text is empty. Give the text that is to be replaced."
        raise ToolError(msg)
    if old == new:
        msg = "old_text and new_text are the same: there is nothing to do."
        raise ToolError(msg)
    wanted = re.compile("\r?\n".join(map(re.escape, old.split("\n"))))
    found = list(wanted.finditer(before))
    if len(found) != count:
        raise _miscounted(before, old, [match.start() for match in found], where, count)
    usual = "\r\n" if before.count("\r\n") * 2 > before.count("\n") else "\n"
    edits = []
    for match in found:
        end = texts.line_end(match[0]) or usual
        edits.append(texts.Edit(match.start(), match.end(), texts.with_line_end(new, end)))
    return edits


def _miscounted(before: str, old: str, starts: list[int], where: str, count: int) -> ToolError:
    if starts:
        lines = ", ".join(str(before.count("\n", 0, start) + 1) for start in starts[:_MOST_PLACES])
        more = ", ..." if len(starts) > _MOST_PLACES else ""
        msg = (
            f"{where} holds the old text {len(starts)} times (lines {lines}{more}), and not "
            f"{count}. Nothing was changed. Give more of what is around it, or count={len(starts)}."
        )
        return ToolError(msg)
    words = old.split()
    blurred = re.compile(r"\s+".join(map(re.escape, words))).search(before) if words else None
    if blurred:
        line = before.count("\n", 0, blurred.start()) + 1
        there = f"From line {line} on it is there with other spaces or line ends."
    else:
        there = "Read the file again, and copy the text exactly."
    msg = f"{where} does not hold the old text. Nothing was changed. {there}"
    return ToolError(msg)
