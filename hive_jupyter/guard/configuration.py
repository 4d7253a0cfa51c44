"""What the user's configuration of git says; nothing in it is obeyed by reading it."""

from __future__ import annotations

import os
import re

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.git import Git, as_user
from hive_jupyter.guard.programs import run_program
from hive_jupyter.units import visible

# What a private repository takes over of the user's configuration: how content is converted and
# compared. None of it names a program.
_CONVERSION = (
    "core.autocrlf",
    "core.checkroundtripencoding",
    "core.checkstat",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.safecrlf",
    "core.symlinks",
    "core.trustctime",
)


_TRUE = {"true", "yes", "on", "1"}

_IDENT = re.compile(r"(?P<name>[^<>\n]*) <(?P<email>[^<>\n]*)> (?P<date>\d+ [+-]\d{4})")


class Configuration:
    """
    The user's whole configuration; that of the repository is not the user's own.

    git reads it and obeys none of it: no command that does is run here.
    """

    def __init__(self, user: Git) -> None:
        command = (user.program, "config", "--list", "--show-scope", "-z")
        environment = {**as_user(), "GIT_DIR": user.folder}
        code, out, err = run_program(command, user.folder, environment)
        if code:
            said = visible(err.decode("utf-8", "surrogateescape")).strip()
            msg = f"git cannot read its configuration: {said}"
            raise RepositoryError(msg, command=command[1:], stderr=said)
        fields = os.fsdecode(out).split("\0")
        self._values: list[tuple[bool, str, str]] = []
        for scope, entry in zip(fields[::2], fields[1::2], strict=False):
            name, is_set, value = entry.partition("\n")
            # A name alone means true.
            self._values.append((scope in {"system", "global"}, name, value if is_set else "true"))

    def values(self, wanted: str, *, of_user: bool = False) -> list[str]:
        """All values, the one that counts last; ``of_user``: as if the repository said nothing."""
        return [
            value
            for is_own, name, value in self._values
            if name == wanted and (is_own or not of_user)
        ]

    def last(self, wanted: str, *, of_user: bool = False) -> str | None:
        """The value that counts."""
        found = self.values(wanted, of_user=of_user)
        return found[-1] if found else None

    def parts(self, section: str) -> set[str]:
        """The names that a section has subsections for, as in [filter "lfs"]."""
        return {
            name.removeprefix(f"{section}.").rpartition(".")[0]
            for _, name, _ in self._values
            if name.startswith(f"{section}.") and name.count(".") > 1
        }

    def own(self, section: str) -> dict[str, str]:
        """What the user's own configuration has in a section, as in [filter "lfs"], by name."""
        start = f"{section}."
        return {
            name.removeprefix(start): value
            for is_own, name, value in self._values
            if is_own and name.startswith(start) and "." not in name.removeprefix(start)
        }

    def entries(self, *sections: str) -> list[tuple[str, str]]:
        """All of some sections, names in full and values, in their order."""
        return [
            (name, value) for _, name, value in self._values if name.partition(".")[0] in sections
        ]

    def file(self, wanted: str, default: str) -> str:
        """The path of a file of the user's own: attributes, or what to ignore."""
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.join("~", ".config")
        return os.path.expanduser(
            self.last(wanted, of_user=True) or os.path.join(base, "git", default)
        )

    def conversion(self) -> dict[str, str]:
        """How content is converted and compared, for a private repository."""
        found = {name: self.last(name) for name in _CONVERSION}
        # git-lfs reads settings in lines: behind a line break, a value would be one more of them.
        settings = {
            name: value
            for name, value in found.items()
            if value is not None and value.isprintable()
        }
        return {**settings, "core.attributesFile": self.file("core.attributesfile", "attributes")}

    def signing(self) -> dict[str, str] | None:
        """
        Settings to sign with, programs by the user's own word alone; None: not signed.

        A repository can ask for signatures, and name the key; it cannot turn the user's off.
        """
        asked = {self.last("commit.gpgsign"), self.last("commit.gpgsign", of_user=True)}
        if not any(value and value.lower() in _TRUE for value in asked):
            return None
        found = {name: self.last(name) for name in ("gpg.format", "user.signingkey")}
        for name in (
            "gpg.program",
            *(f"gpg.{kind}.program" for kind in ("openpgp", "ssh", "x509")),
        ):
            found[name] = self.last(name, of_user=True)
        found["gpg.ssh.defaultKeyCommand"] = self.last("gpg.ssh.defaultkeycommand", of_user=True)
        return {name: value for name, value in found.items() if value is not None}


def ident(user: Git, variable: str) -> str:
    """Who the user is to git, and the time: "Name <email> seconds zone"."""
    command = (user.program, "-c", "user.useConfigOnly=true", "var", variable)
    environment = {**as_user(), "GIT_DIR": user.folder}
    code, out, err = run_program(command, user.folder, environment)
    if code:
        said = visible(err.decode("utf-8", "surrogateescape")).strip()
        msg = (
            "git does not know who you are. Tell it: git config --global user.name NAME, and git "
            "config --global user.email ADDRESS"
        )
        raise RepositoryError(msg, command=command[1:], stderr=said)
    return out.decode("utf-8", "replace").strip()


def idents(author: str, committer: str) -> dict[str, str]:
    """
    Say who commits and when, as git takes it from its environment.

    Args:
        author: "Name <email> seconds zone".
        committer: likewise.

    Raises:
        RepositoryError: one of them is nobody.
    """
    environment = {}
    for role, said in (("AUTHOR", author), ("COMMITTER", committer)):
        match = _IDENT.fullmatch(said)
        if match is None:
            msg = f"{visible(said, keep='')!r} is nobody: write Name <email> seconds zone."
            raise RepositoryError(msg)
        environment[f"GIT_{role}_NAME"] = match["name"]
        environment[f"GIT_{role}_EMAIL"] = match["email"]
        environment[f"GIT_{role}_DATE"] = f"@{match['date']}"
    return environment
