"""Under which conditions is measured, and compiling first."""

import os
import platform
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from tests.bench.rounds import ROOT

_PACKAGES = (
    "hive-jupyter",
    "ipykernel",
    "ipython",
    "jupyter-client",
    "pyzmq",
    "ipyparallel",
    "nbclient",
    "distributed",
    "loky",
    "jupyter-mcp-server",
    "mcp",
)


def compile_first():
    """
    Compile all that will be imported.

    Where no bytecode lies beside a module and none may be written, each start compiles its imports
    anew: three times as slow, and 25 MiB more for each kernel. A file that does not compile is
    somebody's template.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    command = [sys.executable, "-m", "compileall", "-q", "-q", "-j", "0"]
    subprocess.run(
        [*command, *folders, ROOT / "hive_jupyter", ROOT / "tests"],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )


def conditions():
    """What a reader has to know of the machine, now."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "bytecode": "compiled first",
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None
