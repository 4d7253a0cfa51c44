"""
Finding and rewriting code by its structure, with ast-grep.

Patterns are those of https://ast-grep.github.io/guide/pattern-syntax.html.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import ToolResult, current_call, head
from hive_jupyter.units import nearest
from hive_jupyter.worker.tools import texts, walk, workspace
from hive_jupyter.worker.tools.answers import FRAME, Progress, Row, answer, json_size, listing

# A larger file is hardly code that somebody wrote, and takes seconds in which nothing interrupts.
LARGEST_SOURCE = 2 * 2**20
# A deep pattern takes quadratic time, and a very deep one all of the stack.
LONGEST_PATTERN = 2000
_LONGEST_MATCH = 2000

_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "bash": (".sh", ".bash", ".zsh"),
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu"),
    "csharp": (".cs",),
    "css": (".css",),
    "elixir": (".ex", ".exs"),
    "go": (".go",),
    "haskell": (".hs",),
    "html": (".html", ".htm"),
    "java": (".java",),
    "javascript": (".js", ".jsx", ".cjs", ".mjs"),
    "json": (".json",),
    "kotlin": (".kt", ".kts"),
    "lua": (".lua",),
    "php": (".php",),
    "python": (".py", ".pyi"),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala", ".sc"),
    "swift": (".swift",),
    "tsx": (".tsx",),
    "typescript": (".ts", ".cts", ".mts"),
    "yaml": (".yml", ".yaml"),
}
_BY_ENDING = {ending: name for name, endings in _LANGUAGES.items() for ending in endings}

# $NAME, $$$NAME, and $$$ without one.
_VARIABLE = re.compile(r"\$\$\$([A-Z_][A-Z0-9_]*)?|\$([A-Z_][A-Z0-9_]*)")
_CAUSE = re.compile(r"^\s*\d+: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """
    A file of code.

    Attributes:
        path: absolute, without links.
        data: its content.
        text: the same as text.
        encoding: by which it is.
        language: one of ast-grep's.
    """

    path: str
    data: bytes
    text: str
    encoding: texts.Encoding
    language: str


def ast_search(
    pattern: str,
    path: str = ".",
    glob: str | None = None,
    language: str | None = None,
    limit: int = 200,
) -> ToolResult:
    """Find code by its structure."""
    search = Search(pattern, language)
    with workspace.opened(path) as there:
        return listing(
            _rows(search, there, glob),
            key="matches",
            limit=limit,
            none="Nothing found.",
            narrow="Give a folder, a glob, or a more exact pattern.",
        )


def _rows(search: Search, there: workspace.Opened, glob: str | None) -> Iterator[Row]:
    for source, nodes in search.found(there, glob):
        path = workspace.shown(source.path)
        for node in nodes:
            begin, end = node.range().start, node.range().end
            code = node.text()
            code = code if len(code) <= _LONGEST_MATCH else f"{code[:_LONGEST_MATCH]} ..."
            numbered = enumerate(texts.lines_of(code), begin.line + 1)
            facts = {
                "path": path,
                "line": begin.line + 1,
                "column": begin.column + 1,
                "end_line": end.line + 1,
                "text": code,
            }
            yield "\n".join(f"{path}:{number}: {line}" for number, line in numbered), facts


def ast_rewrite(
    pattern: str,
    rewrite: str,
    path: str = ".",
    *,
    glob: str | None = None,
    language: str | None = None,
    dry_run: bool = False,
) -> ToolResult:
    """Rewrite code by its structure: all files or, where one cannot be written, none."""
    _check_names(pattern, rewrite)
    search = Search(pattern, language)
    with workspace.opened(path) as there:
        found = list(search.found(there, glob))
    changes = [Change.of(source, nodes, rewrite) for source, nodes in found]
    changes = [change for change in changes if change.edits]
    if not dry_run:
        _write(changes)
    return _report(changes, dry_run=dry_run)


def _check_names(pattern: str, rewrite: str) -> None:
    known = {match[0] for match in _VARIABLE.finditer(pattern)}
    for match in _VARIABLE.finditer(rewrite):
        if match[0] not in known:
            msg = f"The rewrite uses {match[0]}, which the pattern does not have."
            raise ToolError(msg)


def _report(changes: list[Change], *, dry_run: bool) -> ToolResult:
    # once as text, and once as structure
    room = (current_call().limit - FRAME) // 2
    files = [
        {"path": workspace.shown(change.source.path), "replacements": len(change.edits)}
        for change in changes
    ]
    places = sum(len(change.edits) for change in changes)
    diff = "".join(change.diff() for change in changes)
    kept_files = files if json_size(files) <= room // 2 else []
    kept = head(diff, room - json_size(kept_files))
    note = ""
    if kept != diff or kept_files != files:
        note = "[Cut: an answer holds no more. Give a folder or a glob; git_diff shows files.]"
    done = "Would rewrite" if dry_run else "Rewrote"
    sentence = f"{done} {places} in {len(files)} files." if places else "Nothing found."
    return answer(
        f"{sentence}\n{kept}".rstrip("\n"),
        note,
        files=kept_files,
        diff=kept,
        dry_run=dry_run,
        truncated=bool(note),
    )


# Looking


class Search:
    """
    A pattern, and the languages in which it is looked for.

    Args:
        pattern: of ast-grep.
        language: the only one, or None for that of each file.

    Raises:
        ToolError: ast-grep is missing, the language is unknown or the pattern too long.
    """

    def __init__(self, pattern: str, language: str | None) -> None:
        self._root = _ast_grep().SgRoot
        if language is not None and language.lower() not in _LANGUAGES:
            msg = f'ast-grep knows no language "{language}".{nearest(language, _LANGUAGES)}'
            raise ToolError(msg)
        if len(pattern) > LONGEST_PATTERN:
            msg = f"The pattern has {len(pattern)} characters; at most {LONGEST_PATTERN} may be."
            raise ToolError(msg)
        self._pattern = pattern
        self._language = language.lower() if language else None
        # by language
        self._refused: dict[str, str] = {}
        self._looked_at: set[str] = set()

    def found(
        self, there: workspace.Opened, glob: str | None
    ) -> Iterator[tuple[Source, list[Any]]]:
        """
        The nodes that match, by file.

        Raises:
            ToolError: no language takes the pattern, or it finds nothing and is itself no code.
        """
        some = False
        for source in self._sources(there, glob):
            if source.language in self._refused:
                continue
            nodes = self._nodes(source)
            if nodes:
                some = True
                yield source, nodes
        if not some:
            self._explain()

    def _nodes(self, source: Source) -> list[Any]:
        try:
            found = self._root(source.text, source.language).root().find_all(pattern=self._pattern)
        except Exception as error:
            said = str(error).partition("Stack backtrace")[0].replace("µ", "$")
            causes = _CAUSE.findall(said) or [said]
            self._refused[source.language] = causes[-1].strip()
            return []
        self._looked_at.add(source.language)
        return list(found)

    def _explain(self) -> None:
        """Say why nothing was found, where it is the pattern's fault."""
        if self._refused and not self._looked_at:
            language, why = next(iter(self._refused.items()))
            msg = f"ast-grep does not take the pattern as {language}: {why}"
            raise ToolError(msg)
        if self._looked_at and not any(map(self._is_complete, self._looked_at)):
            languages = " or ".join(sorted(self._looked_at))
            msg = f"Nothing found; and the pattern is no complete piece of {languages}."
            raise ToolError(msg)

    def _is_complete(self, language: str) -> bool:
        alone = self._root(self._pattern.replace("$", "_"), language).root()
        return alone.find(kind="ERROR") is None

    def _sources(self, there: workspace.Opened, glob: str | None) -> Iterator[Source]:
        if not there.is_folder:
            yield self._source(there)
            return
        progress = Progress()
        for number, entry in enumerate(walk.walk(there, hidden=False)):
            progress(number, None, f"files looked at, now {entry.name}")
            language = _BY_ENDING.get(os.path.splitext(entry.name)[1].lower())
            if entry.kind != walk.FILE or entry.size > LARGEST_SOURCE or not language:
                continue
            if self._language not in (None, language):
                continue
            if glob is not None and not walk.matches(entry.name, glob):
                continue
            try:
                with workspace.opened(os.path.join(there.path, entry.name)) as file:
                    yield self._source(file)
            except ToolError:  # no text, or gone: the others are still there
                continue

    def _source(self, file: workspace.Opened) -> Source:
        where = workspace.shown(file.path)
        language = self._language or _BY_ENDING.get(os.path.splitext(file.path)[1].lower())
        if language is None:
            msg = f"What language is {where}? Give it as language, such as python."
            raise ToolError(msg)
        data = file.read()
        if len(data) > LARGEST_SOURCE:
            msg = f"{where} is too large to be taken for code."
            raise ToolError(msg)
        content, encoding = texts.decode(data, where)
        return Source(file.path, data, content, encoding, language)


def _ast_grep() -> Any:
    try:
        import ast_grep_py
    except ImportError:
        msg = (
            "Searching by structure needs ast-grep in the worker's Python: run "
            "%pip install ast-grep-py there, and try again."
        )
        raise ToolError(msg) from None
    return ast_grep_py


# Rewriting


@dataclass(frozen=True)
class Change:
    """
    What is to become of a file.

    Attributes:
        source: the file.
        edits: in order, without overlap.
    """

    source: Source
    edits: list[texts.Edit]

    @classmethod
    def of(cls, source: Source, nodes: list[Any], rewrite: str) -> Change:
        """Rewrite matches; one within another stays as it is."""
        template = texts.with_line_end(rewrite, texts.line_end(source.text) or "\n")
        edits: list[texts.Edit] = []
        for node in nodes:
            start, end = node.range().start.index, node.range().end.index
            if edits and start < edits[-1].end:
                continue
            new = _expanded(template, node, source.text)
            if new != source.text[start:end]:
                edits.append(texts.Edit(start, end, new))
        return cls(source, edits)

    def data(self) -> bytes:
        """
        The file's new content.

        Raises:
            ToolError: the encoding is not one that gives back what it took.
        """
        source = self.source
        if source.encoding.encode(source.text) != source.data:
            msg = f"{workspace.shown(source.path)} would change unasked as {source.encoding.name}."
            raise ToolError(msg)
        return source.encoding.encode(texts.apply(source.text, self.edits))

    def diff(self) -> str:
        """The difference, as ``diff -u`` has it."""
        return texts.unified_diff(workspace.shown(self.source.path), self.source.text, self.edits)


def _expanded(template: str, node: Any, code: str) -> str:
    """The new code of a match: indented as the match is, and what it takes over likewise."""
    indentation = _indentation(code, node.range().start.index)
    pieces, done = [], 0
    for variable in _VARIABLE.finditer(template):
        inner = indentation + _indentation(template, variable.start())
        literal = template[done : variable.start()].replace("\n", "\n" + indentation)
        pieces += [literal, _taken_over(variable, node, code, inner)]
        done = variable.end()
    return "".join([*pieces, template[done:].replace("\n", "\n" + indentation)])


def _taken_over(variable: re.Match[str], node: Any, code: str, indentation: str) -> str:
    if variable[2]:
        match = node.get_match(variable[2])
        nodes = [match] if match else []
    else:
        nodes = node.get_multiple_matches(variable[1] or "")
    if not nodes:
        return ""
    start, end = nodes[0].range().start.index, nodes[-1].range().end.index
    before = _indentation(code, start)
    first, *others = code[start:end].split("\n")
    moved = [
        indentation + line[len(before) :] if line.startswith(before) and line.strip() else line
        for line in others
    ]
    return "\n".join([first, *moved])


def _indentation(code: str, index: int) -> str:
    """The blanks before the first word of the line in which the index is."""
    begin = code.rfind("\n", 0, index) + 1
    line = code[begin:index]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _write(changes: list[Change]) -> None:
    """Write all files; each is looked at, and its new content made, before the first is written."""
    prepared = [(workspace.target(change.source.path), change) for change in changes]
    ready = [(target, change.data()) for target, change in prepared]
    for target, change in prepared:
        if target.data != change.source.data:
            msg = f"{workspace.shown(target.path)} has just been changed. Nothing was rewritten."
            raise ToolError(msg)
    written: list[str] = []
    for target, data in ready:
        try:
            target.write(data)
        except ToolError as error:
            done = ", ".join(written) or "none"
            msg = f"{error} Rewritten before that: {done}. The others are as they were."
            raise ToolError(msg) from None
        written.append(workspace.shown(target.path))
