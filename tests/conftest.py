"""What several test files need."""

import atexit
import gc
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from hive_jupyter import HiveManager
from hive_jupyter.worker.tools import workspace
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

    Its patience is that of a machine which stands still for a while.
    """
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive
