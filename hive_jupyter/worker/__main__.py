"""
The door of zygote, supervisors and exec'd workers.

::

    python -I -S .../worker/__main__.py zygote|supervisor|portable|worker FD PID [PATH ...]

Only from folders that no confined worker may write anything is imported here: a ``.pth`` file may
name a project's (an editable install), and what runs here has the user's rights. So these files are
passed over, and read by each worker behind its boundary.

``FD`` is a unix socket to the host, ``PID`` the host's; of an exec'd worker a pipe from its
supervisor, and the supervisor's. Each ``PATH`` is a folder that installed packages may be imported
from besides the interpreter's own. The package is brought along by its place on disk, so that any
interpreter that has ipykernel can run a worker, whether Hive is installed there or not, and
whichever version.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys


def _find_packages(library: list[str]) -> None:
    """Do what Python does at its start, but for ``.pth`` files."""
    read_path_file = site.addpackage
    site.addpackage = lambda *_: None
    site.main()
    site.addpackage = read_path_file
    sys.path += [entry for entry in library if entry not in sys.path]


def _bring_package() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    spec = importlib.util.spec_from_file_location(
        os.path.basename(folder), f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        msg = f"{folder} does not hold Hive's package"
        raise ImportError(msg)
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Run what the command line names."""
    role, descriptor, host = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _find_packages(sys.argv[4:])
    if "hive_jupyter" not in sys.modules:
        _bring_package()
    if role == "zygote":
        from hive_jupyter.worker import zygote

        zygote.main(descriptor, host)
    elif role in {"portable", "worker"}:
        from hive_jupyter.worker import portable

        if role == "worker":
            portable.main_of_worker(descriptor)
        portable.main(descriptor, host)
    else:
        from hive_jupyter.worker import supervisor

        supervisor.main_of_program(descriptor, supervisor.watch_host(host))


if __name__ == "__main__":
    main()
