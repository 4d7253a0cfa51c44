"""
The filters that may run while content is frozen: programs that git has files go through.

Which files do is for a repository to say (gitattributes(5)); which programs there are is for the
user alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Collection
from dataclasses import dataclass

from hive_jupyter.guard.configuration import Configuration
from hive_jupyter.guard.git import Git
from hive_jupyter.guard.programs import is_trusted
from hive_jupyter.units import visible

_COMMANDS = ("clean", "process")

# Beyond words and quotes, a command is one that only the shell understands.
_SHELL = frozenset("$`;&|<>(){}[]*?#~!")

# git runs a filter in the work tree, where Python, say, would import files of the project. All that
# a filter is to see is what git gives it to read. Without HOME, which is not the user's (see
# ``git``), programs look up the user's folder in the system.
_START = 'cd "$GIT_DIR" && unset GIT_WORK_TREE HOME && exec'


@dataclass(frozen=True)
class Filters:
    """
    Filters that may run, and those that may not.

    Attributes:
        settings: configuration of a private repository, by which git runs the first.
        refused: why each of the others is not run, by its name.
    """

    settings: dict[str, str]
    refused: dict[str, str]


def choose(user: Git, configuration: Configuration, wanted: Collection[str]) -> Filters:
    """
    Choose among all filters that are configured.

    Args:
        user: git on the user's repository.
        configuration: all of it; the commands count where they are the user's own.
        wanted: names of filters that the user lets run.
    """
    settings = {}
    refused = {}
    for name in configuration.parts("filter"):
        if name not in wanted:
            refused[name] = "the setting commit_filters does not name it"
            continue
        try:
            own = _settings(user, configuration, name)
        except ValueError as error:
            refused[name] = str(error)
        else:
            settings.update({f"filter.{name}.{key}": value for key, value in own.items()})
    return Filters(settings, refused)


def _settings(user: Git, configuration: Configuration, name: str) -> dict[str, str]:
    """
    What is configured for a filter: all but how content comes back, which Hive never asks for.

    Raises:
        ValueError: it may not run; the message says why.
    """
    own = configuration.own(f"filter.{name}")
    commands = {key: own[key] for key in _COMMANDS if own.get(key)}
    if not commands:
        msg = "your own configuration of git (--global) has no command for it"
        raise ValueError(msg)
    rest = {key: value for key, value in own.items() if key not in {*_COMMANDS, "smudge"}}
    checked = {key: _command(user, configuration, text) for key, text in commands.items()}
    # What a filter fails on is not committed as it is.
    return {**rest, **checked, "required": "true"}


def _command(user: Git, configuration: Configuration, text: str) -> str:
    """The same command for the shell that git starts it in, with a program that is looked up."""
    try:
        words = [] if _SHELL.intersection(text) or not text.isprintable() else shlex.split(text)
    except ValueError:  # a quotation without an end
        words = []
    # git puts a quoted path in the place of %f, and it would be none within other quotes.
    if not words or any("%" in word and word != "%f" for word in words):
        msg = f"its command {visible(text)!r} is more than a program and plain words"
        raise ValueError(msg)
    program = _program(user, words[0])
    for word in words[1:]:
        if os.path.isabs(word) and not is_trusted(word, *user.outside):
            msg = f"{visible(word)!r} is where a worker may write"
            raise ValueError(msg)
    if os.path.basename(program) == "git-lfs" and configuration.parts("lfs.extension"):
        msg = "an extension of git-lfs is configured, which is another program"
        raise ValueError(msg)
    return " ".join([_START, *map(shlex.quote, (program, *words[1:]))])


def _program(user: Git, name: str) -> str:
    """A program by its absolute path."""
    found = shutil.which(name, path=user.path) if "/" not in name or os.path.isabs(name) else None
    if found is None or not is_trusted(found, *user.outside):
        msg = (
            f"its program {visible(name)!r} is not found, where folders of the project, the "
            "temporary one and those that anybody may write to do not count"
        )
        raise ValueError(msg)
    if "%" in found or not found.isprintable():
        msg = f"git cannot be told of {visible(found)!r}"
        raise ValueError(msg)
    return found
