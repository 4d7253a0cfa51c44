"""What the files in ``binder/`` say."""

from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "binder"

# Where a visitor begins, below the server's address.
START = "lab/tree/notebooks/01_quickstart.ipynb"


def python_version():
    """The version of Python, such as 3.11."""
    return (FOLDER / "runtime.txt").read_text().strip().removeprefix("python-")


def pins():
    """The packages with their exact versions."""
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]
