"""
The door of zygote and supervisor.

::

    python -I .../worker/__main__.py zygote|supervisor FD PID [PATH ...]

``FD`` is a unix socket to the host, ``PID`` the host's, each ``PATH`` a folder that installed
packages may be imported from besides the interpreter's own. The package is brought along by its
place on disk, so that any interpreter that has ipykernel can run a worker, whether Hive is
installed there or not, and whichever version.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _bring_package() -> None:
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        msg = f"{folder} does not hold Hive's package"
        raise ImportError(msg)
    package = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Run what the command line names."""
    role, descriptor, host = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path += [entry for entry in sys.argv[4:] if entry not in sys.path]
    if "hive_jupyter" not in sys.modules:
        _bring_package()
    if role == "zygote":
        from hive_jupyter.worker import zygote

        zygote.main(descriptor, host)
    else:
        from hive_jupyter.worker import supervisor

        supervisor.main_of_program(descriptor, supervisor.watch_host(host))


if __name__ == "__main__":
    main()
