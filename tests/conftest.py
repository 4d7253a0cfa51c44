"""What several test files need."""

import atexit
import sys

import pytest
from hypothesis import settings
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

# Machines are shared: how long one example takes says nothing about the code.
settings.register_profile("hive", deadline=None)
settings.load_profile("hive")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A terminal's IPython shell, without a history file."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    main, displayhook, excepthook = sys.modules["__main__"], sys.displayhook, sys.excepthook
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.Completer.use_jedi = False
    shell = InteractiveShell(config=config)
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"], sys.displayhook, sys.excepthook = main, displayhook, excepthook


@pytest.fixture
def tab(shell):
    """What Tab offers at the end of a text."""

    def offered(text):
        with provisionalcompleter():
            return [completion.text for completion in shell.Completer.completions(text, len(text))]

    return offered
