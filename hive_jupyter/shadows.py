"""
Keeps files of a project from being imported in the place of installed modules.

A kernel looks for modules in the notebook's folder before it looks where packages are installed,
and a worker may write to that folder: a ``tqdm.py`` left there would run in the user's kernel, with
the user's rights, as soon as some package imports tqdm. ``ShadowFinder`` stands before Python's own
finder of modules and takes the installed module instead.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from hive_jupyter.project import project_root
from hive_jupyter.units import visible

log = logging.getLogger(__name__)


class ShadowFinder:
    """
    A finder for ``sys.meta_path``, of top-level modules alone.

    It acts where a name would be found in a folder that a worker may write to (below the root of
    the working folder's project, or of one that was seen before) although an installed module has
    that name, too. Whatever goes wrong in it, the import goes its usual way.

    Args:
        allowed: gives the names that may be found in the project all the same.
        writable: gives further folders that workers may write to.
        tell: is called once for each name, with what was passed over and what to do about it.

    Attributes:
        told: what was told until now.
    """

    def __init__(
        self,
        allowed: Callable[[], Collection[str]],
        writable: Callable[[], Iterable[str]],
        tell: Callable[[str], object],
    ) -> None:
        self.told: list[str] = []
        self._allowed = allowed
        self._writable = writable
        self._tell = tell
        self._names: set[str] = set()
        self._roots: set[str] = set()
        self._library = _library()
        self._places: _Places | None = None

    def install(self) -> None:
        """Stand before Python's own finder from now on."""
        _stand_before_pythons(self)

    def remove(self) -> None:
        """Do so no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find the installed module that a file of a project shadows.

        Args:
            name: of the module.
            path: of the package that it belongs to; None for a top-level module.
            target: the module, where it is loaded again.

        Returns:
            None where nothing is shadowed.

        Raises:
            ModuleNotFoundError: a file of a project has a name of the standard library that there
                is not on this machine.
        """
        if path is not None:
            return None
        try:
            return self._instead(name, target)
        except _AbsentError:
            raise
        except Exception:
            log.debug("the import of %s goes its usual way", name, exc_info=True)
            return None

    def _instead(self, name: str, target: ModuleType | None) -> ModuleSpec | None:
        places = self._current_places()
        # almost always the end of it
        if not places.writable or PathFinder.find_spec(name, places.writable) is None:
            return None
        found = PathFinder.find_spec(name, None, target)
        if found is None or name in self._allowed() or _is_loaded_from(target, found):
            return None
        if not all(map(places.may_write, _homes(found))):
            return self._with_installed_first(found, places)
        installed = self._installed(name, places, target)
        if installed is not None and not _is_same(found, installed):
            self._say_once(name, found, f"takes the installed module, {_home(installed) or name},")
        # the library itself tries to import what only other systems have
        if installed is None and name in sys.stdlib_module_names:
            self._say_once(name, found, "finds nothing, as on any machine of this kind,")
            msg = f"No module named {name!r}"
            raise _AbsentError(msg, name=name)
        return installed

    def _installed(
        self, name: str, places: _Places, target: ModuleType | None
    ) -> ModuleSpec | None:
        """What is found where no worker may write: on the path, or by finders of other packages."""
        spec = PathFinder.find_spec(name, places.installed, target)
        for finder in sys.meta_path:
            if spec is None and finder is not PathFinder and not isinstance(finder, ShadowFinder):
                spec = finder.find_spec(name, None, target)
        # an editable install may lead into the project again
        return None if spec is None or any(map(places.may_write, _homes(spec))) else spec

    def _with_installed_first(self, found: ModuleSpec, places: _Places) -> ModuleSpec | None:
        """
        Have a namespace package look into installed folders first.

        Its folders may be anywhere on the path, and what is in them can shadow each other.

        Returns:
            None where it does so anyway, and for other modules.
        """
        portions = found.submodule_search_locations
        if found.loader is not None or portions is None:
            return None
        ordered = sorted(portions, key=places.may_write)
        if ordered == [*portions]:
            return None

        # it looks for its folders again whenever sys.path changes
        def again(name: str, path: Sequence[str]) -> ModuleSpec | None:
            spec = PathFinder.find_spec(name, path)
            return spec and (self._with_installed_first(spec, self._current_places()) or spec)

        kind: Callable[..., list[str]] = type(portions)
        found.submodule_search_locations = kind(found.name, ordered, again)
        return found

    def _say_once(self, name: str, found: ModuleSpec, happens: str) -> None:
        if name in self._names:
            return
        self._names.add(name)
        text = (
            f"Hive: import {name} {visible(happens)} and not {visible(_home(found))}, which a "
            "worker may have written. Rename the latter; or, if it is meant to take the other's "
            f"place, add {name} to HiveConfig.shadowing_modules and restart the kernel."
        )
        self.told.append(text)
        # who cannot be told is protected all the same
        with contextlib.suppress(Exception):
            self._tell(text)

    def _current_places(self) -> _Places:
        # whatever the type of the list's entries should be, users put other things in
        entries: list[object] = list(sys.path)
        state = (entries, _working_folder(), [*self._writable()])
        if self._places is None or self._places.state != state:
            if here := state[1]:
                self._roots.add(project_root(here, os.path.expanduser("~")))
            self._places = _Places(state, self._roots, self._library)
        return self._places


def _stand_before_pythons(finder: ShadowFinder | _InstalledFinder) -> None:
    """Have a finder asked before Python's own."""
    path_finder: object = PathFinder
    finders: list[object] = list(sys.meta_path)
    sys.meta_path.insert(
        finders.index(path_finder) if path_finder in finders else len(finders), finder
    )


# Of a thread: it imports only what is installed.
_RESTRICTED: ContextVar[bool] = ContextVar("_RESTRICTED", default=False)


@contextlib.contextmanager
def installed_only(writable: Iterable[str]) -> Iterator[None]:
    """
    While entered, this thread imports nothing from where a worker may write.

    For imports that a worker can bring about, whatever is installed: the libraries of its values,
    and what those try to import themselves.

    Args:
        writable: folders that workers may write to, besides the working folder's project.
    """
    finder = _InstalledFinder([*writable])
    _stand_before_pythons(finder)
    token = _RESTRICTED.set(True)
    try:
        yield
    finally:
        _RESTRICTED.reset(token)
        sys.meta_path.remove(finder)


class _InstalledFinder:
    """A finder for ``sys.meta_path``; for other threads it finds nothing."""

    def __init__(self, writable: list[str]) -> None:
        self._writable = writable

    # most values import nothing, and to look at all places takes a millisecond
    @functools.cached_property
    def _places(self) -> _Places:
        here = _working_folder()
        roots = [project_root(here, os.path.expanduser("~"))] if here else []
        entries: list[object] = list(sys.path)
        return _Places((entries, here, self._writable), roots, _library())

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find an installed module.

        Raises:
            ModuleNotFoundError: there is none, whatever a project may have.
        """
        if not _RESTRICTED.get() or path is not None:
            return None
        spec = PathFinder.find_spec(name, self._places.installed, target)
        if spec is None or any(map(self._places.may_write, _homes(spec))):
            msg = f"No module named {name!r} is installed"
            raise _AbsentError(msg, name=name)
        return spec


class _AbsentError(ModuleNotFoundError):
    """There is no such module."""


class _Places:
    """
    Where a worker may write.

    Args:
        state: of the process, for which this holds: ``sys.path``, the working folder or "", and
            further folders that workers may write to.
        roots: of projects.
        library: folders in which modules are installed; no worker writes there, even below a root.

    Attributes:
        writable: entries of ``sys.path`` in which a worker may write.
        installed: the other ones.
    """

    def __init__(
        self, state: tuple[list[object], str, list[str]], roots: Iterable[str], library: set[str]
    ) -> None:
        self.state = state
        entries, here, writable = state
        self._roots = _all_names([*roots, *writable])
        self._library = library
        self.writable: list[str] = []
        self.installed: list[str] = []
        for entry in entries:
            # Python passes over what can be no path
            if isinstance(entry, str) and "\0" not in entry and (here or os.path.isabs(entry)):
                kind = self.writable if self.may_write(entry) else self.installed
                kind.append(entry)

    def may_write(self, place: str) -> bool:
        """Whether a worker may write to a file or folder, or to what it leads to."""
        return any(
            _innermost(name, self._roots) > _innermost(name, self._library)
            for name in _all_names([place])
        )


def _innermost(place: str, folders: Iterable[str]) -> int:
    """The length of the longest of these folders in which a place is; -1: it is in none."""
    lengths = (len(folder) for folder in folders if f"{place}/".startswith(f"{folder}/"))
    return max(lengths, default=-1)


def _all_names(places: Iterable[str]) -> set[str]:
    """What places are called, and what they lead to; "" is the root folder."""
    both = (os.path.abspath, os.path.realpath)
    return {name(place).rstrip("/") for place in places for name in both}


def _library() -> set[str]:
    """Where modules are installed for this interpreter."""
    prefixes = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    paths = sysconfig.get_paths()
    kinds = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    return _all_names([*prefixes, *kinds, *site.getsitepackages(), site.getusersitepackages()])


def _working_folder() -> str:
    """Absolute; "" where it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _homes(spec: ModuleSpec) -> list[str]:
    """The file that a module is in, or the folders of a namespace package."""
    if spec.has_location and spec.origin:
        return [spec.origin]
    return [*(spec.submodule_search_locations or ())]


def _home(spec: ModuleSpec) -> str:
    return ", ".join(_homes(spec))


def _is_same(one: ModuleSpec, other: ModuleSpec) -> bool:
    """Whether one leads to the other."""
    return os.path.realpath(_home(one)) == os.path.realpath(_home(other))


def _is_loaded_from(module: ModuleType | None, found: ModuleSpec) -> bool:
    """Whether a module that is to be loaded again was loaded from there."""
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.origin is not None and spec.origin == found.origin
