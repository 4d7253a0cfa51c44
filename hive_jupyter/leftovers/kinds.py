"""
The files from which a user's tools take what they run.

Listed is what a tool acts on although the user asked for something else: opened the folder, changed
to it, asked git for the status, pushed. What the user runs by name (a script, ``make``) is not.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import cache

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """
    Files from which one tool, or several of a kind, take what they run.

    Attributes:
        tool: which.
        when: it does.
        patterns: names, with * and ?, in any folder; "folder/" for all that is below such a folder,
            "folder/name" for one file in it. Letters' case does not count, as on some disks.
    """

    tool: str
    when: str
    patterns: tuple[str, ...] = ()


REPOSITORY = Kind("git", "at any command below that folder")
LAYOUT = Kind("git", "at any command in that repository")

KINDS = (
    Kind(
        "git, git-lfs",
        "when they look at the files below",
        (".gitattributes", ".gitmodules", ".lfsconfig"),
    ),
    Kind(
        "Mercurial, Jujutsu", "at any command", (".hg/hgrc", ".hg/hgrc-*", ".jj/repo/config.toml")
    ),
    Kind(
        "pre-commit, husky, lefthook, lint-staged and others that hook into git",
        "at the next commit",
        (
            ".pre-commit-config.yaml",
            ".husky/",
            ".githooks/",
            "lefthook*.y*ml",
            ".lefthook*.y*ml",
            ".lintstagedrc*",
            "lint-staged.config.*",
        ),
    ),
    Kind(
        "the pipelines of GitHub, GitLab and others",
        "after the next push, with the project's secrets",
        (
            ".github/workflows/",
            ".github/actions/",
            ".forgejo/workflows/",
            ".gitea/workflows/",
            ".gitlab-ci.yml",
            ".circleci/",
            ".buildkite/",
            ".travis.yml",
            ".drone.yml",
            ".woodpecker*.y*ml",
            "azure-pipelines.yml",
            "bitbucket-pipelines.yml",
            "Jenkinsfile",
        ),
    ),
    Kind(
        "direnv, mise, autoenv",
        "when a shell enters the folder",
        (".envrc", ".autoenv*", "mise.toml", ".mise.toml", "mise.*.toml", ".mise.*.toml", ".mise/"),
    ),
    Kind(
        "tools that take variables from it (Visual Studio Code, Flask, pipenv)",
        "when they start a program",
        (".env",),
    ),
    Kind(
        "Visual Studio Code and editors made from it",
        "when they open the folder",
        (".vscode/", "*.code-workspace", ".devcontainer/", ".devcontainer.json"),
    ),
    Kind("editors of JetBrains", "when they open the folder", (".idea/",)),
    Kind("Helix, Zed", "when they open a file", (".helix/", ".zed/")),
    Kind(
        "Vim, Neovim",
        "when they start in that folder",
        (".vimrc", "_vimrc", ".exrc", "_exrc", ".nvimrc", ".nvim.lua", ".lvimrc"),
    ),
    Kind("Emacs", "when it opens a file", (".dir-locals.el", ".dir-locals-2.el")),
    Kind(
        "coding agents",
        "when they start in the folder, or read a file there",
        (
            "AGENTS.md",
            "CLAUDE.md",
            "CLAUDE.local.md",
            "GEMINI.md",
            ".claude/",
            ".codex/",
            ".gemini/",
            ".cursor/",
            ".cursorrules",
            ".windsurf/",
            ".windsurfrules",
            ".clinerules",
            ".clinerules/",
            ".continue/",
            ".opencode/",
            "opencode.json*",
            ".kiro/",
            ".roo/",
            ".junie/",
            ".aider.conf.yml",
            ".mcp.json",
            "mcp.json",
            ".github/copilot-instructions.md",
            ".github/instructions/",
            ".github/agents/",
        ),
    ),
    Kind(
        "Python",
        "when it starts with that folder on its path",
        (
            "sitecustomize.py",
            "usercustomize.py",
            "*.pth",
            "hive_jupyter.py",
            "hive_jupyter/__init__.py",
        ),
    ),
    Kind(
        "Python packages that have plug-ins",
        "when they look for them, with that folder on the path",
        ("entry_points.txt",),
    ),
    Kind(
        "tools that choose a Python (editors, uv, pyenv)",
        "when they look for one",
        ("pyvenv.cfg", ".python-version", ".python-versions"),
    ),
    Kind("pytest, and editors that list tests", "when they look for tests", ("conftest.py",)),
    Kind(
        "linters and formatters, in editors too",
        "when they look at a file",
        (
            ".pylintrc*",
            "pylintrc*",
            "mypy.ini",
            ".mypy.ini",
            ".flake8",
            ".eslintrc*",
            "eslint.config.*",
            ".prettierrc*",
            "prettier.config.*",
            ".stylelintrc*",
            ".rubocop.yml",
            ".ropeproject/",
        ),
    ),
    Kind(
        "Jupyter and IPython (older ones, from the folder in which they start)",
        "when they start",
        (
            "jupyter_*config.py",
            "jupyter_*config.json",
            "ipython_*config.py",
            "ipython_*config.json",
            ".jupyter/",
            ".ipython/",
        ),
    ),
    Kind(
        "R, Octave",
        "when they start in that folder",
        (".Rprofile", ".Renviron", ".RData", ".octaverc"),
    ),
    Kind(
        "npm, yarn, pnpm, bun, pip, uv",
        "at any command",
        (
            ".npmrc",
            ".yarnrc*",
            ".yarn/releases/",
            ".yarn/plugins/",
            ".pnpmfile.*",
            "bunfig.toml",
            "pip.conf",
            ".pypirc",
            "uv.toml",
        ),
    ),
    Kind(
        "cargo, Bazel, Maven, Bundler",
        "at any command",
        (
            ".cargo/config",
            ".cargo/config.toml",
            "rust-toolchain",
            "rust-toolchain.toml",
            ".bazelrc",
            ".mvn/",
            ".bundle/",
        ),
    ),
    Kind("gdb, lldb", "when they start in that folder", (".gdbinit", ".lldbinit")),
)


def kind_of_file(folder: Parts, name: str) -> Kind | None:
    """
    What a file is by its name, or None where no tool is known that acts on it.

    Args:
        folder: the parts of its folder's path.
        name: of the file, or of a link in the place of a folder.
    """
    index, name = _index(), name.casefold()
    found = index.wild.fullmatch(name)
    similar = index.similar[found.lastgroup or ""] if found else []
    candidates = index.files.get(name, []) + index.folders.get(name, []) + similar
    return _first(_folded(folder), candidates) if candidates else None


def kind_of_folder(folder: Parts) -> Kind | None:
    """What all that is in a folder is, by the folder's path; None where that says nothing."""
    found = _index().folders.get(folder[-1].casefold())
    return _first(_folded(folder[:-1]), found) if found else None


def _folded(parts: Parts) -> Parts:
    return tuple(part.casefold() for part in parts)


def _first(folder: Parts, candidates: list[tuple[Parts, Kind]]) -> Kind | None:
    for parents, kind in candidates:
        if not parents or folder[-len(parents) :] == parents:
            return kind
    return None


class _Index:
    """
    The patterns by their last part.

    Attributes:
        files: what the name of a file says: in which folders that is so, and the kind.
        folders: the same for the names of folders.
        wild: finds names by patterns with a *, each of which is a group.
        similar: what these say, by the group.
    """

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.files: dict[str, list[tuple[Parts, Kind]]] = {}
        self.folders: dict[str, list[tuple[Parts, Kind]]] = {}
        self.similar: dict[str, list[tuple[Parts, Kind]]] = {}
        groups: dict[str, str] = {}
        for kind in kinds:
            for pattern in kind.patterns:
                *parents, name = _folded(tuple(pattern.rstrip("/").split("/")))
                table = self.folders if pattern.endswith("/") else self.files
                if "*" in name:
                    table, name = self.similar, groups.setdefault(name, f"pattern{len(groups)}")
                table.setdefault(name, []).append((tuple(parents), kind))
                # a link in the place of a folder on the way
                for depth, parent in enumerate(parents):
                    self.files.setdefault(parent, []).append((tuple(parents[:depth]), kind))
        named = (f"(?P<{group}>{fnmatch.translate(name)})" for name, group in groups.items())
        self.wild = re.compile("|".join(named))


@cache
def _index() -> _Index:
    """Of all kinds; most processes that load Hive have no use for it."""
    return _Index(KINDS)
