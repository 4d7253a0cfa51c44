"""
What Binder makes of this checkout, without Docker: ``python -m tests.binder``.

As in the image that repo2docker builds, the checkout is the home folder of a plain user, who may
have no namespaces. The packages of requirements.txt go into a fresh environment, postBuild runs,
JupyterLab opens what the badge leads to, and all notebooks keep their promises.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.binder.files import ROOT, START, python_version
from tests.processes import wait_until
from tests.security.like_docker import refuse_namespaces

_FIRST_USER, _USERS = 61000, 4000
# seconds
_PATIENCE = 600
_KEPT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_NOT_ENFORCED = "Without namespaces, which containers forbid"


class Failed(Exception):
    """A step did not do what it has to."""


class Image:
    """
    What stands for an image of Binder's.

    Args:
        folder: for all of it; the user gets to own it.
    """

    def __init__(self, folder):
        self._folder = folder
        self.home = folder / "home"
        self._user = os.getuid() or _FIRST_USER + os.getpid() % _USERS
        path = [f"{folder}/venv/bin", "/usr/local/bin", "/usr/bin", "/bin"]
        self._environment = {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join(path),
            "TMPDIR": str(folder / "tmp"),
            "USER": "jovyan",
        }
        (folder / "tmp").mkdir()
        _copy_checkout(self.home)
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self._user, self._user, follow_symlinks=False)

    def run(self, *command, cwd="."):
        """What a command says that the user runs, below the checkout."""
        done = subprocess.run(
            command,
            **self._as_user(cwd),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            msg = f"{' '.join(map(str, command))} failed:\n{done.stdout}"
            raise Failed(msg)
        return done.stdout

    def make_environment(self):
        self.run(self._python(), "-m", "venv", self._folder / "venv")

    @contextlib.contextmanager
    def lab(self):
        """JupyterLab's server; yields its address."""
        options = ("--no-browser", "--ServerApp.port=0", "--IdentityProvider.token=")
        with (self._folder / "log").open("wb") as log:
            server = subprocess.Popen(
                ("jupyter", "lab", *options), **self._as_user("."), stdout=log, stderr=log
            )
        facts = self.home / f".local/share/jupyter/runtime/jpserver-{server.pid}.json"
        try:
            address = wait_until(lambda: _answering(facts) or server.poll() is not None, 60)
            if address is True:
                raise Failed((self._folder / "log").read_text())
            yield address
        finally:
            server.terminate()
            server.wait()

    def _as_user(self, cwd):
        rights = {"user": self._user, "group": self._user, "extra_groups": []}
        return {
            **(rights if os.getuid() == 0 else {}),
            "cwd": self.home / cwd,
            "env": self._environment,
            "preexec_fn": refuse_namespaces,
        }

    def _python(self):
        """A Python of Binder's version that the user may run; root's may lie in root's home."""
        name = f"python{python_version()}"
        for folder in dict.fromkeys([*os.get_exec_path(), "/usr/local/bin", "/usr/bin"]):
            with contextlib.suppress(OSError, Failed):
                self.run(f"{folder}/{name}", "-c", "import ensurepip, venv")
                return f"{folder}/{name}"
        msg = f"No {name} that every user may run. On Debian and Ubuntu: apt install {name}-venv"
        raise Failed(msg)


def _copy_checkout(home):
    """What git would clone, as it is now."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / name)


def _answering(facts):
    """The address of the server of which a file tells, once it answers there."""
    with contextlib.suppress(OSError, ValueError):
        address = json.loads(facts.read_text())["url"]
        urllib.request.urlopen(f"{address}api", timeout=60).close()
        return address
    return None


def _open_start(image):
    with image.lab() as address:
        for path in (START, START.replace("lab/tree", "api/contents")):
            urllib.request.urlopen(address + path, timeout=60).close()


def _ask_doctor(image):
    said = image.run("jupyter", "hive", "doctor")
    if _NOT_ENFORCED not in said:
        msg = f'The doctor does not say "{_NOT_ENFORCED}":\n{said}'
        raise Failed(msg)


def _steps(image):
    """What is done, in order, by its title."""
    yield "An environment", image.make_environment
    requirements = ("--no-cache-dir", "--quiet", "-r", "binder/requirements.txt")
    yield "requirements.txt", lambda: image.run("pip", "install", *requirements)
    yield "postBuild", lambda: image.run("binder/postBuild")
    yield "All that is needed is pinned", lambda: image.run("pip", "check")
    yield "JupyterLab opens the quickstart", lambda: _open_start(image)
    yield "The doctor says what is not enforced", lambda: _ask_doctor(image)
    for notebook in sorted(image.home.glob("notebooks/*.ipynb")):
        command = ("python", "tests/binder/played.py", notebook.name, str(image.home))
        yield notebook.name, lambda command=command: image.run(*command)


def main():
    """Return the exit code."""
    with tempfile.TemporaryDirectory(prefix="binder-") as folder:
        for title, step in _steps(Image(Path(folder))):
            begun = time.monotonic()
            try:
                step()
            except Failed as failure:
                print(f"FAILED  {title}: {failure}")
                return 1
            print(f"{time.monotonic() - begun:5.1f} s  {title}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
