"""What several test files need."""

import atexit
import gc
import shutil
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from hive_jupyter import HiveManager
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.shadows import ShadowFinder
from hive_jupyter.worker.tools import workspace
from tests.dask_clusters import cluster
from tests.repos import ADDRESS, NAME, Repo, at_home
from tests.worker_tools import Project

# Machines are shared: how long an example takes, or is made, says nothing about the code.
settings.register_profile("hive", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hive")

# A shell that starts the tests in the background has them ignore SIGINT, and nohup SIGHUP. What a
# test starts would inherit that, but no handler: it is to be as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_finish():
    """
    What is there before the first test stays, and the garbage collector need not look at it again.

    IPython collects with each shell that ends, which took longer than most tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _data(tmp_path_factory):
    """A ledger of the tests' own: what dies in a test is not to be told of in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _closed():
    """No test file leaves a hive open, which would choose what later ones import."""
    yield
    assert not any(isinstance(finder, ShadowFinder) for finder in sys.meta_path)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A terminal's IPython shell, without a history file."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    main, displayhook, excepthook = sys.modules["__main__"], sys.displayhook, sys.excepthook
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.Completer.use_jedi = False
    shell = InteractiveShell.instance(config=config)
    yield shell
    InteractiveShell.clear_instance()
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"], sys.displayhook, sys.excepthook = main, displayhook, excepthook


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project on disk, with the worker's tools in it; the home folder is another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here = dict(vars(workspace._HERE))
    yield Project(tmp_path / "project")
    vars(workspace._HERE).clear()
    vars(workspace._HERE).update(here)


@pytest.fixture
def tab(shell):
    """What Tab offers at the end of a text."""

    def offered(text):
        with provisionalcompleter():
            return [completion.text for completion in shell.Completer.completions(text, len(text))]

    return offered


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A folder for runtime files, with a short name and nobody else's folders in it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("r")
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def hive(runtime):
    """
    A hive that the tests of a file share, to be quick; a test leaves its worker usable.

    Its patience is that of a machine which stands still for a while. Its workers have no boundary:
    the tests meet them in files and by their pids; those of the boundary have hives of their own.
    """
    options = {"sandbox": "open", "max_output": None}
    with HiveManager(interrupt_grace=30, connect_timeout=60, **options) as hive:
        yield hive


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory):
    """A Dask cluster of separate processes: two workers with nannies, alice and bob."""
    with cluster(tmp_path_factory.mktemp("dask")) as made:
        made.add_worker("alice", "--resources", "GPU=1")
        made.add_worker("bob")
        yield made


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user with a name, and no other configuration than a test's."""
    folder = at_home(tmp_path, monkeypatch)
    (folder / ".gitconfig").write_text(
        f'[user]\n name = {NAME}\n email = {ADDRESS}\n[protocol "file"]\n allow = always\n'
    )
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """What each test's repository is a copy of."""
    made = Repo(tmp_path_factory.mktemp("template") / "repo")
    made("config", "user.name", NAME)
    made("config", "user.email", ADDRESS)
    made.write("a.py", "a = 1\n")
    made.write("sub/b.txt", "b\n" * 10)
    made.commit_all("begin")
    made("config", "--remove-section", "user")
    return made.folder


@pytest.fixture
def repo(home, tmp_path, template):
    """A repository with one commit."""
    shutil.copytree(template, tmp_path / "repo", symlinks=True)
    return Repo.at(tmp_path / "repo")


@pytest.fixture
def guard(home, tmp_path):
    """A guard with a ledger of the test's own."""
    return AuthorizationGuard(tmp_path / "data" / "ledger.sqlite")


@pytest.fixture
def trap(repo, tmp_path):
    """A program that leaves a mark when it runs, and where it is to be put."""
    mark = tmp_path / "it ran"
    script = f'#!/bin/sh\ntouch "{mark}"\ncat\n'
    repo.write("trap.sh", script, 0o755)
    repo("add", "trap.sh")
    repo("commit", "-qm", "trap")
    yield lambda path, mode=0o755: repo.write(path, script, mode)
    assert not mark.exists()
