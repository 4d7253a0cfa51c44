"""What the user meets in IPython: ``%load_ext hive_jupyter`` and what it brings."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hive_jupyter import attach
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError
from hive_jupyter.manager import HiveManager
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.background import Background
from hive_jupyter.notebook.comms import FrontEndComms
from hive_jupyter.notebook.completion import HiveCompleter
from hive_jupyter.notebook.magics import REFUSALS, HiveMagics
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.tools import ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Configurable

_extensions: WeakKeyDictionary[InteractiveShell, _Extension] = WeakKeyDictionary()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and warm up; what is loaded already stays as it is."""
    if shell in _extensions:
        return
    extension = _Extension(shell)
    extension.load()
    _extensions[shell] = extension


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove what was registered and end the workers, with what they run."""
    extension = _extensions.pop(shell, None)
    if extension is not None:
        extension.unload()


class _Extension:
    """What is registered in one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._magics: list[tuple[str, str, Callable[..., Any]]] = []
        self._manager: HiveManager | None = None
        self._matchers: list[Callable[..., Any]] = []
        self._configurables: list[Configurable] = []
        self._comms: FrontEndComms | None = None
        self._background: Background | None = None

    def load(self) -> None:
        if WORKER_VARIABLE in os.environ:
            self._register(REFUSALS)
            return
        try:
            manager = HiveManager(HiveConfig(parent=self._shell))
        except ConfigError as error:
            compat.render_briefly(error)
            raise
        self._manager = manager
        kernel = compat.kernel_of(self._shell)
        if kernel is not None:
            self._comms = FrontEndComms(kernel, manager.pass_on)
        magics = HiveMagics(self._shell, manager, self._comms)
        self._background = magics.background
        self._register(magics.magics)
        completer = HiveCompleter(magics)
        self._matchers.append(completer.match)
        compat.add_matcher(self._shell, self._matchers[0])
        if kernel is not None:
            compat.ask_first(kernel, completer.inspect)
        # IPython appends every Magics itself.
        self._configurables += [magics, manager.config]
        compat.add_configurable(self._shell, manager.config)
        compat.add_display(self._shell, ToolResult, magics.show_result)
        if manager.config.warm_up:
            manager.warm_up()
        attach.serve(manager, _title(self._shell))

    def unload(self) -> None:
        for kind, name, function in self._magics:
            if compat.find_magic(self._shell, kind, name) == function:
                compat.remove_magic(self._shell, kind, name)
        for matcher in self._matchers:
            compat.remove_matcher(self._shell, matcher)
        if (kernel := compat.kernel_of(self._shell)) is not None:
            compat.ask_no_more(kernel)
        for configurable in self._configurables:
            compat.remove_configurable(self._shell, configurable)
        if self._manager is not None:
            compat.remove_display(self._shell, ToolResult)
            self._manager.close()
        if self._comms is not None:
            self._comms.close()
        if self._background is not None:
            self._background.close()

    def _register(self, tables: Mapping[str, Mapping[str, Callable[..., Any]]]) -> None:
        for kind, table in tables.items():
            for name, function in table.items():
                if compat.find_magic(self._shell, kind, name) is None:
                    compat.add_magic(self._shell, kind, name, function)
                    self._magics.append((kind, name, function))
                else:
                    sign = "%" if kind == "line" else "%%"
                    msg = f"{sign}{name} is somebody else's magic already; Hive leaves it alone."
                    warnings.warn(msg, stacklevel=4)


def _title(shell: InteractiveShell) -> str:
    """What runs the shell, as a person knows it: jupyter_server says which notebook it is."""
    notebook = os.environ.get("JPY_SESSION_NAME")
    kernel = compat.kernel_of(shell)
    if kernel is None:
        return "IPython in a terminal" if sys.stdin.isatty() else "IPython"
    if notebook:
        return notebook
    return f"kernel {Path(compat.connection_file_of(kernel)).name}".strip()
