"""
Hive's own tools, as data: what each is called, takes and does; and how people call them.

``worker/tools/`` holds the functions. Those of ``execute`` and ``request_commit`` are the host's:
it runs code as it runs a cell, and a worker must not commit.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping
from itertools import islice
from typing import Any

from hive_jupyter.errors import ConfigError
from hive_jupyter.tools import Tool

# Of an argument, in what people are shown, in characters.
_SHOWN = 200
_MOST_ARGUMENTS = 50


def _argument(kind: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": description, **more}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return _argument("string", description, **more)


def _flag(description: str) -> dict[str, Any]:
    return _argument("boolean", description, default=False)


def _count(description: str, default: int | None = None) -> dict[str, Any]:
    more = {} if default is None else {"default": default}
    return _argument("integer", description, minimum=1, **more)


def _schema(required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


_PATH = "Path below the project's folder; relative ones begin at the worker's working folder."
_FOLDER = _text(f"Where to look: a folder or a file. {_PATH}", default=".")
_GLOB = _text(
    "Only files whose path below that folder matches this pattern: *.py, src/**/*.{md,rst}."
)
_LANGUAGE = _text(
    "Language of the pattern, such as python or rust; by default that of each file's name."
)
_STRUCTURE = (
    "Code that stands for itself, with $NAME for one piece of syntax and $$$NAME for several: "
    "print($$$ARGS)."
)

BUILT_IN: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "ping",
            "Answer at once: proves that the worker is there and idle.",
            _schema(),
            read_only=True,
        ),
        Tool(
            "read_file",
            "Read a text file of up to 64 MB, or some of its lines. The answer's digest lets "
            "save_file and edit_file refuse to change what somebody else has changed since.",
            _schema(
                ("path",),
                path=_text(_PATH),
                start_line=_count("First line to read, from 1 on."),
                end_line=_count("Last line to read."),
                encoding=_text("Of the file; by default what its beginning says, else UTF-8."),
            ),
            read_only=True,
        ),
        Tool(
            "list_files",
            "List files and folders. What .gitignore names is left out.",
            _schema(
                path=_FOLDER,
                glob=_GLOB,
                depth=_count("How many folders deep; 1: the folder itself. By default all."),
                hidden=_flag("Also what begins with a dot, and what .gitignore names."),
                limit=_count("At most so many.", 1000),
            ),
            read_only=True,
        ),
        Tool(
            "search_files",
            "Find lines that hold a text or match a regular expression. What .gitignore names, "
            "hidden, binary and very large files are left out.",
            _schema(
                ("pattern",),
                pattern=_text("What to look for."),
                path=_FOLDER,
                glob=_GLOB,
                regex=_flag("The pattern is a regular expression, of ripgrep's or Python's kind."),
                ignore_case=_flag("Upper and lower case are the same."),
                hidden=_flag("Also what begins with a dot, and what .gitignore names."),
                limit=_count("At most so many lines.", 200),
            ),
            read_only=True,
        ),
        Tool(
            "save_file",
            "Write a whole text file, at once or not at all; makes folders that are missing and "
            "keeps the mode and line endings of a file that is there.",
            _schema(
                ("path", "content"),
                path=_text(_PATH),
                content=_text("The whole text."),
                digest=_text(
                    "Of the file as it was read; it is not overwritten if it has changed since. "
                    "'new': only if there is no such file."
                ),
                encoding=_text("By default that of the file that is there, else UTF-8."),
            ),
            idempotent=True,
        ),
        Tool(
            "edit_file",
            "Replace a text in a file by another one. The old text has to be there exactly as "
            "often as expected, else nothing is changed.",
            _schema(
                ("path", "old_text", "new_text"),
                path=_text(_PATH),
                old_text=_text("What is to be replaced, with its spaces; several lines may be."),
                new_text=_text("What takes its place."),
                count=_count("How often the old text is expected; each is replaced.", 1),
                digest=_text("Of the file as it was read; nothing is changed if it has changed."),
            ),
        ),
        Tool(
            "ast_search",
            "Find code by its structure, whatever its layout (ast-grep patterns).",
            _schema(
                ("pattern",),
                pattern=_text(_STRUCTURE),
                path=_FOLDER,
                glob=_GLOB,
                language=_LANGUAGE,
                limit=_count("At most so many matches.", 200),
            ),
            read_only=True,
        ),
        Tool(
            "ast_rewrite",
            "Rewrite code by its structure (ast-grep patterns); answers with the diff.",
            _schema(
                ("pattern", "rewrite"),
                pattern=_text(_STRUCTURE),
                rewrite=_text("The new code, with the names of the pattern: log($$$ARGS)."),
                path=_FOLDER,
                glob=_GLOB,
                language=_LANGUAGE,
                dry_run=_flag("Show the diff and change nothing."),
            ),
        ),
        Tool(
            "execute",
            "Run Python code in the worker, which keeps its variables; answers with what it "
            "printed, displayed and raised.",
            _schema(("code",), code=_text("The code, as in a notebook's cell.")),
        ),
        Tool(
            "reset",
            "Forget all variables of the worker.",
            _schema(),
            idempotent=True,
        ),
        Tool(
            "variables",
            "The worker's variables, with their types, sizes and short texts.",
            _schema(
                name=_text("Only those whose name matches this pattern, such as df*."),
                limit=_count("At most so many.", 200),
            ),
            read_only=True,
        ),
        Tool(
            "git_status",
            "What git status says: the branch, and files that are changed, staged or new.",
            _schema(path=_FOLDER),
            read_only=True,
        ),
        Tool(
            "git_diff",
            "What has changed since the last commit, or since another one. Files that git does "
            "not know yet are in git_status.",
            _schema(
                path=_FOLDER,
                staged=_flag("Only what is staged."),
                commit=_text("Compare with this commit or branch."),
            ),
            read_only=True,
        ),
        Tool(
            "request_commit",
            "Ask the human for a commit. Nothing is committed before the human has seen the diff "
            "and said yes; commit_status tells what became of it.",
            _schema(
                ("message",),
                message=_text("The commit's message."),
                paths=_argument(
                    "array",
                    "Files and folders to commit; by default what is staged, or, with nothing "
                    "staged, what has changed.",
                    items={"type": "string"},
                ),
                supersedes=_text("The id of your waiting request in whose place this one comes."),
            ),
            destructive=False,
        ),
    )
}

SHORT_NAMES = {"read": "read_file", "search": "search_files", "write": "save_file"}


def full_name(word: str) -> str:
    """The tool that a word means: ``read`` is ``read_file``."""
    return SHORT_NAMES.get(word, word)


def read_details(tool: Tool, details: str) -> dict[str, Any]:
    """
    Read the arguments behind a tool's name.

    Args:
        tool: that is called.
        details: a JSON object; or ``key=value`` words with shell quoting; or the one obvious
            argument as it stands. Words that are no ``key=value`` are that argument, too.

    Raises:
        ConfigError: they make no sense.
    """
    text = details.strip()
    if tool.obvious == "code" and not text.startswith(("code=", '{"code"')):
        return {"code": text} if text else {}
    if text.startswith("{"):
        return _json(tool, text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        msg = f"{text!r}: {error}. Write key=value words, with quotes around spaces."
        raise ConfigError(msg) from None
    named, others = _sorted_out(tool, words)
    if not others:
        return named
    if tool.obvious is None or tool.obvious in named:
        expected = ", ".join(tool.arguments) or "none"
        msg = f"{others[0]!r} is no argument of {tool.name}. Write key=value; it takes: {expected}."
        raise ConfigError(msg)
    # several words that are one argument as a whole keep their quotes and spaces
    whole = text if not named and len(words) > 1 else " ".join(others)
    return {tool.obvious: _converted(whole, tool.arguments[tool.obvious]), **named}


def _json(tool: Tool, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"The details of {tool.name} begin like JSON and are none: {error}."
        raise ConfigError(msg) from None
    assert isinstance(value, dict)
    return value


def _sorted_out(tool: Tool, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Which words are ``key=value``, and which are something else."""
    named: dict[str, Any] = {}
    others: list[str] = []
    for word in words:
        name, is_named, value = word.partition("=")
        if is_named and name in tool.arguments:
            named[name] = _converted(value, tool.arguments[name])
        elif is_named and name.isidentifier() and _is_meant_as_name(tool, name):
            named[name] = value  # the worker answers that there is no such argument
        else:
            others.append(word)
    return named, others


def _is_meant_as_name(tool: Tool, word: str) -> bool:
    return tool.obvious is None or bool(difflib.get_close_matches(word, tool.arguments))


def spelled_out(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as a person would type it, long values shortened; code stands as it is."""
    if set(arguments) == {"code"} and isinstance(arguments["code"], str):
        return f"{name} {arguments['code']}"
    words = [name] if name else []
    for key, value in islice(arguments.items(), _MOST_ARGUMENTS):
        text = value if isinstance(value, str) else json.dumps(value, default=repr)
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
        words.append(f"{key[:_SHOWN]}={shlex.quote(text)}")
    return " ".join([*words, "..."] if len(arguments) > _MOST_ARGUMENTS else words)


def _converted(text: str, schema: object) -> Any:
    """The value that a word means; what does not fit is left for the check of the arguments."""
    kinds = schema.get("type", "string") if isinstance(schema, Mapping) else "string"
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "string" in kinds:
        return text
    if "array" in kinds and not text.lstrip().startswith("["):
        return [part for part in text.split(",") if part]
    lower = text.lower()
    if "boolean" in kinds and lower in ("true", "false", "yes", "no", "1", "0"):
        return lower in ("true", "yes", "1")
    try:
        return json.loads(text)
    except ValueError:
        return text
