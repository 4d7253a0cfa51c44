"""
Every setting of Hive, with its environment name.

A setting is a trait of :class:`HiveConfig`: ``c.HiveConfig.timeout = 30`` in
``ipython_kernel_config.py`` (or ``jupyter_hive_config.py`` for the command line),
``HiveManager(timeout=30)`` in code, or ``HIVE_JUPYTER_TIMEOUT=30`` in the environment. What is said
in code wins over the configuration, the configuration over the environment.
"""

from __future__ import annotations

import math
import os
import re
from ast import literal_eval
from copy import copy
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Float, Int, TraitError, Unicode, validate
from traitlets import List as ListTrait
from traitlets.config import Configurable

from hive_jupyter.errors import ConfigError
from hive_jupyter.policy import OUTPUT_RULES, PROFILES, SandboxPolicy
from hive_jupyter.units import LARGEST_SIZE, LONGEST_DURATION, nearest, parse_duration, parse_size

ENVIRONMENT_PREFIX = "HIVE_JUPYTER_"
TURNED_OFF = f"Workers are turned off ({ENVIRONMENT_PREFIX}DIRECT=0 or HiveConfig.direct)."

# What a worker gets of the host's environment: what programs need to find their files and to speak
# the user's language, and nothing that grants a right (tokens, keys, sockets of agents).
PASSED_VARIABLES = (
    "CONDA_DEFAULT_ENV",
    "CONDA_PREFIX",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "CURL_CA_BUNDLE",
    "HOME",
    "JULIA_NUM_THREADS",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "MKL_NUM_THREADS",
    "MPLBACKEND",
    "MPLCONFIGDIR",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "R_HOME",
    "R_LIBS*",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
    "XDG_*",
)


_VARIABLE = re.compile(r"\w+\*?", re.ASCII)
_FILTER = re.compile(r"[\w.-]+", re.ASCII)
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def checked_worker(name: object) -> str:
    """
    Take a worker's name.

    Raises:
        ConfigError: it can be no such name.
    """
    if not isinstance(name, str) or not _WORKER.fullmatch(name):
        msg = (
            f"{name!r} is no name for a worker. Use letters, digits, '-', '_' and '.', at most "
            "64, a letter or digit first."
        )
        raise ConfigError(msg)
    return name


class Switch(Bool[Any, Any]):
    """True or False; as text also 1 or 0."""

    def from_string(self, s: str) -> Any:
        try:
            return super().from_string(s)
        except ValueError:
            msg = f"{s!r} is neither true nor false. Write 1 or true, or 0 or false."
            raise ConfigError(msg) from None


class Duration(Float[Any, Any]):
    """Seconds; also "30s", "5m". Where None is allowed, it means no limit, as do "none" and 0."""

    def validate(self, obj: Any, value: Any) -> Any:
        if isinstance(value, str):
            value = self.from_string(value)
        if self.allow_none and value in (None, 0, math.inf):
            return None
        seconds = super().validate(obj, value)
        if not 0 <= seconds <= LONGEST_DURATION:
            self.error(obj, value)
        return seconds

    def from_string(self, s: str) -> float | None:
        seconds = parse_duration(s)
        is_zero = seconds is None and s.strip().lower() != "none"
        return 0.0 if is_zero and not self.allow_none else seconds


class Size(Int[Any, Any]):
    """Bytes; also "500M", "2G". Where None is allowed, it means no limit, as do "none" and 0."""

    def validate(self, obj: Any, value: Any) -> Any:
        if isinstance(value, str):
            value = self.from_string(value)
        if self.allow_none and value in (None, 0):
            return None
        size = super().validate(obj, value)
        if not 0 < size <= LARGEST_SIZE:
            self.error(obj, value)
        return size

    def from_string(self, s: str) -> int | None:
        return parse_size(s)


class Count(Int[Any, Any]):
    """How many; where None is allowed, it means no limit, as do "none" and 0."""

    def validate(self, obj: Any, value: Any) -> Any:
        if isinstance(value, str):
            value = self.from_string(value)
        if self.allow_none and value in (None, 0):
            return None
        return super().validate(obj, value)

    def from_string(self, s: str) -> int | None:
        if s.strip().lower() == "none":
            return None
        try:
            return int(s)
        except ValueError:
            msg = f"{s!r} is no number. Write one, or none."
            raise ConfigError(msg) from None


class WorkerName(Unicode[str, str]):
    """What a worker can be called."""

    def validate(self, obj: Any, value: Any) -> Any:
        return checked_worker(super().validate(obj, value))


class Names(ListTrait[str]):
    """Names of one kind; as text, with commas or blanks between them: "a, b"."""

    def validate(self, obj: Any, value: Any) -> Any:
        names = super().validate(obj, value)
        if not all(map(self.is_name, names or ())):
            self.error(obj, value)
        return names

    def is_name(self, name: str) -> bool:
        """Whether something can be called so."""
        raise NotImplementedError

    def from_string(self, s: str) -> list[str]:
        return re.split(r"[,\s]+", s.strip(", \t\n")) if s.strip(", \t\n") else []


class VariableNames(Names):
    """Names of environment variables, * at the end for all that begin so."""

    def is_name(self, name: str) -> bool:
        return _VARIABLE.fullmatch(name) is not None


class ModuleNames(Names):
    """Names of importable modules."""

    def is_name(self, name: str) -> bool:
        return all(part.isidentifier() for part in name.split("."))


class FilterNames(Names):
    """Names of filters, as git's configuration has them."""

    def is_name(self, name: str) -> bool:
        return _FILTER.fullmatch(name) is not None


class Rule(Enum[Any]):
    """A rule for outputs; None, and "none" as text: by the profile."""

    def from_string(self, s: str) -> Any:
        word = s.strip().lower()
        rules = OUTPUT_RULES.values()
        if word == "none":
            return None
        if word not in rules:
            msg = f"{s!r} is no rule. Write {', '.join(rules)}, or none.{nearest(word, rules)}"
            raise ConfigError(msg)
        return word


class Paths(ListTrait[str]):
    """Files and folders, with colons between them as text: "/data:~/models"."""

    def validate(self, obj: Any, value: Any) -> Any:
        paths = [str(Path(path).expanduser()) for path in super().validate(obj, value) or ()]
        if not all(Path(path).is_absolute() and "\0" not in path for path in paths):
            msg = f"{self.name}: each path has to be a whole one, such as /data or ~/models."
            raise ConfigError(msg)
        return [os.path.normpath(path) for path in paths]

    def from_string(self, s: str) -> list[str]:
        return [path for path in s.split(os.pathsep) if path]


class Ports(ListTrait[int]):
    """TCP ports; as text, with commas or blanks between them: "443, 5432"."""

    def from_string(self, s: str) -> list[int]:
        try:
            return [int(word) for word in re.split(r"[,\s]+", s.strip(", \t\n")) if word]
        except ValueError:
            msg = f"{s!r} are no ports. Write numbers: 443, 5432."
            raise ConfigError(msg) from None


class Entries(Dict):
    """A dict; as text: as Python writes it, like the tag ``example``, or "A=1" for one entry."""

    def from_string(self, s: str) -> Any:
        try:
            # traitlets warns of the braces, as its command line has another way
            return literal_eval(s) if s.lstrip().startswith("{") else super().from_string(s)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, TraitError):
            msg = f"{s!r} is no dict. Write {self.metadata['example']}."
            raise ConfigError(msg) from None


class HiveConfig(Configurable):
    """
    The settings; see the module's docstring for the places where they can be set.

    One with the tag ``at_start`` is read when the hive starts, and has no effect later.
    """

    direct = Switch(True, help="False: start no worker, give instructions only.").tag(config=True)
    worker = WorkerName("coder", help="The worker's name where none is given.").tag(config=True)
    timeout = Duration(
        None, allow_none=True, help="Time for a run (seconds, or 30s, 5m); None: no limit."
    ).tag(config=True)
    memory = Size(
        None,
        allow_none=True,
        help="Memory of a worker with all its descendants (bytes, or 2G); None: no limit.",
    ).tag(config=True)
    sandbox = Enum(PROFILES, "workspace", help="The sandbox profile where none is given.").tag(
        config=True
    )
    agent_sandbox = Enum(
        PROFILES, "strict", help="The sandbox profile of workers that serve agents alone."
    ).tag(config=True)
    readable_paths = Paths(
        Unicode(), help="Further files and folders that confined workers may read: /data:~/models"
    ).tag(config=True)
    writable_paths = Paths(
        Unicode(), help="Further files and folders that confined workers may write."
    ).tag(config=True)
    connect_ports = Ports(
        Int(min=1, max=65535),
        [443],
        help="TCP ports that workers of the profile workspace may connect to: 443, 5432",
    ).tag(config=True)
    cpu_time = Duration(
        None,
        allow_none=True,
        help="Processor time for each process of a worker; None: no limit.",
    ).tag(config=True)
    processes = Count(
        1000,
        min=32,
        allow_none=True,
        help="Processes of a worker at once, threads included; None: no limit.",
    ).tag(config=True)
    open_files = Count(
        None,
        min=64,
        allow_none=True,
        help="Open files of each process of a worker; None: as your own kernel.",
    ).tag(config=True)
    file_size = Size(
        None, allow_none=True, help="The largest file that a worker may write; None: no limit."
    ).tag(config=True)
    outputs = Rule(
        tuple(OUTPUT_RULES.values()),
        None,
        allow_none=True,
        help="What is shown of what a worker says: trusted, framed or inert; None: by the profile.",
    ).tag(config=True)
    connect_timeout = Duration(10.0, help="Time for a worker to start and answer.").tag(config=True)
    interrupt_grace = Duration(
        2.0, help="Time between SIGINT and SIGKILL for a run that is to stop."
    ).tag(config=True)
    warm_up = Switch(True, help="Start the zygote in the background at %load_ext.").tag(
        config=True, at_start=True
    )
    spares = Int(1, min=0, help="Workers forked ahead once a first cell was delegated.").tag(
        config=True
    )
    max_workers = Int(
        256, min=1, help="Workers that this hive has at once, those of pools included."
    ).tag(config=True)
    memory_budget = Size(
        None,
        allow_none=True,
        help="Memory of all workers together: a pool starts no more of them than that holds. "
        "None: no limit.",
    ).tag(config=True)
    pool_idle_timeout = Duration(
        60.0, help="Time after which a pool's worker that has nothing to do is ended."
    ).tag(config=True)
    cull_idle_timeout = Duration(
        0.0,
        help="Time after which a named worker that has nothing to do is ended, with its "
        "variables; 0: never.",
    ).tag(config=True)
    start_method = Enum(
        ("fork", "exec"),
        "fork",
        help="fork: from a warm zygote. exec: a new interpreter for each worker (slower).",
    ).tag(config=True, at_start=True)
    transport = Enum(
        ("auto", "ipc", "tcp"),
        "auto",
        help="ipc: unix sockets. tcp: loopback with CurveZMQ. auto: ipc where a path is short "
        "enough for a socket.",
    ).tag(config=True, at_start=True)
    environment = Entries(
        key_trait=Unicode(), value_trait=Unicode(), help="Variables that every worker gets."
    ).tag(config=True, example='{"A": "1"}')
    pass_environment = VariableNames(
        Unicode(), help="Names of further variables that workers get from the host: A, B_*"
    ).tag(config=True)
    far_silence = Duration(
        30.0,
        min=1.0,
        help="Time without a sign of life after which a worker on a cluster, or its host, is lost.",
    ).tag(config=True)
    max_failures = Int(
        3, min=1, help="Failures of a worker in a row that open its circuit breaker."
    ).tag(config=True)
    recovery_time = Duration(30.0, help="Time that an open circuit breaker rests.").tag(config=True)
    workers = Entries(
        help='Workers known by name: {"r": {"kernel": "ir"}, "old": {"python": "/path/python"}, '
        '"git": {"mcp": ["mcp-server-git"]}}.'
    ).tag(config=True, at_start=True, example='{"r": {"kernel": "ir"}}')
    tool_modules = ModuleNames(
        Unicode(), help="Modules with tools of your own, that workers import: mytools, pkg.tools"
    ).tag(config=True)
    shadowing_modules = ModuleNames(
        Unicode(),
        ["test", "tests"],
        help="Modules that the project may have in the place of installed ones: test, utils",
    ).tag(config=True)
    agent_tools = Entries(
        key_trait=Unicode(),
        value_trait=Enum(("auto", "ask", "deny")),
        help='What agents may call: {"execute": "deny"}; "*" stands for all that is not named.',
    ).tag(config=True, example='{"execute": "deny"}')
    max_output = Size(
        10 * 2**20,
        allow_none=True,
        help="Output that is shown of a cell; the rest goes to a file that the cell names. None: "
        "no limit.",
    ).tag(config=True)
    max_cell_bytes = Size(128 * 2**20, help="The longest code that is sent to a worker.").tag(
        config=True
    )
    max_transfer = Size(
        4 * 2**30,
        allow_none=True,
        help="The most that one push or pull moves; None: no limit.",
    ).tag(config=True)
    approval_expiry = Duration(
        300.0, min=1.0, help="Time within which the approval of a commit must be used."
    ).tag(config=True, at_start=True)
    commit_filters = FilterNames(
        Unicode(),
        ["lfs"],
        help="Filters of your own git configuration that may run when a commit is asked for: "
        "lfs, nbstripout",
    ).tag(config=True)
    commit_hooks = Switch(
        False,
        help="Your git hooks for commits run when one is asked for, confined, over a copy of what "
        "is to be committed.",
    ).tag(config=True)
    hook_timeout = Duration(
        60.0, min=1.0, help="Time for the hooks of one commit, all together."
    ).tag(config=True)
    history_size = Int(1000, min=1, help="Runs that %hive history remembers.").tag(config=True)

    def __init__(self, **settings: Any) -> None:
        names = self.class_trait_names(config=True)
        for name in set(settings) - {"config", "parent"}:
            if name not in names:
                msg = f'Hive has no setting "{name}".{nearest(name, names)}'
                raise ConfigError(msg)
        parent = settings.get("parent")
        config = settings.get("config") or (parent.config if parent is not None else {})
        configured = set(config.get("HiveConfig", {}))
        environment = {
            name: value
            for name, value in self._from_environment().items()
            if name not in configured
        }
        try:
            super().__init__(**{**environment, **settings})
        except TraitError as error:
            raise ConfigError(str(error)) from None

    def change(self, **values: Any) -> None:
        """
        Set settings: all, or none where one of them cannot be set.

        Raises:
            ConfigError: a value is wrong, or no worker can have that policy.
        """
        changed = copy(self)
        try:
            for name, value in values.items():
                setattr(changed, name, value)
        except TraitError as error:
            raise ConfigError(str(error)) from None
        if "memory" in values:
            changed.policy()
        for name in values:
            setattr(self, name, getattr(changed, name))

    def policy(self, profile: str | None = None, memory: int | None = None) -> SandboxPolicy:
        """
        The policy of a worker with these settings.

        Args:
            profile: of the sandbox; None: as configured.
            memory: bytes, 0 for no limit; None: as configured.

        Raises:
            ConfigError: there is no such policy.
        """
        return SandboxPolicy(
            profile=self.sandbox if profile is None else profile,
            memory=self.memory if memory is None else memory or None,
            readable=tuple(self.readable_paths),
            writable=tuple(self.writable_paths),
            connect=tuple(sorted(self.connect_ports)),
            cpu_time=None if self.cpu_time is None else math.ceil(self.cpu_time),
            processes=self.processes,
            open_files=self.open_files,
            file_size=self.file_size,
            outputs=self.outputs,
        )

    @validate("environment")
    def _check_environment(self, proposal: Any) -> Any:
        for name, text in proposal.value.items():
            if not name or "=" in name or "\0" in name + text:
                msg = (
                    f"environment: {name!r} cannot be set to {text!r}. A variable's name is not "
                    'empty and holds no "="; neither it nor its value holds a NUL character.'
                )
                raise ConfigError(msg)
        return proposal.value

    @classmethod
    def _from_environment(cls) -> dict[str, Any]:
        found = {}
        for name, trait in cls.class_traits(config=True).items():
            text = os.environ.get(ENVIRONMENT_PREFIX + name.upper())
            if not text:
                continue
            try:
                found[name] = trait.from_string(text)
            except (TraitError, ValueError) as error:
                msg = f"{ENVIRONMENT_PREFIX}{name.upper()}={text!r}: {error}"
                raise ConfigError(msg) from None
        return found
