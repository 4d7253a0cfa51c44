"""What a worker changes in ipykernel and IPython, held against the real things."""

import contextlib
import subprocess
import sys

import pytest
from ipykernel.iostream import OutStream
from ipykernel.zmqshell import ZMQInteractiveShell

from hive_jupyter import RemoteError
from hive_jupyter.worker import compat


def there(hive, code):
    """What an expression is in a worker."""
    return eval(hive.delegate(f"kernel = get_ipython().kernel\n{code}").value_repr)


def test_ipykernel_finds_no_debugger_and_the_user_finds_debugpy(hive):
    assert there(hive, "getattr(kernel, 'debugger', None) is None")
    assert not there(hive, "import sys; 'debugpy' in sys.modules")


def test_debugpy_that_was_loaded_before_is_there_afterwards():
    program = """
import sys, types
sys.modules["debugpy"] = known = types.ModuleType("debugpy")
from hive_jupyter.worker.compat import leave_debugpy_out
leave_debugpy_out()
assert sys.modules["debugpy"] is known
assert "ipykernel.debugger" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_shell_and_kernel_know_each_other(hive):
    assert there(hive, "kernel.shell is get_ipython() and get_ipython().parent is kernel")
    assert there(hive, "get_ipython().profile_dir is kernel.profile_dir")


def test_replies_go_through_the_stream_that_reads_the_shell_socket(hive):
    """ipykernel 7.4 does this itself, and called the attribute otherwise before."""
    sends = "kernel.shell_channel_thread.manager"
    names = ("_shell_socket", "_shell_stream")

    assert there(
        hive, f"[vars({sends})[n] is kernel.shell_stream for n in {names} if n in vars({sends})]"
    ) == [True]


@pytest.mark.parametrize("base", [OutStream, ZMQInteractiveShell])
def test_a_class_is_called_as_the_one_that_it_stands_for(base):
    stand_in = compat.called_as_its_base(type("StandIn", (base,), {}))

    assert str(base) == str(stand_in)
    assert issubclass(stand_in, base)


def test_the_shell_keeps_no_copy_of_what_is_printed(hive):
    """IPython 9 would keep it for ever, in the history manager's outputs."""
    hive.delegate("print('x' * 1000)")
    kept = "getattr(get_ipython().history_manager, 'outputs', {})"

    assert not there(hive, f"any('xxx' in str(outputs) for outputs in {kept}.values())")


@pytest.mark.parametrize(
    "unshown",
    ["raise ValueError('unshown')", "raise KeyboardInterrupt"],
    ids=["failed", "interrupted"],
)
def test_a_value_that_could_not_be_shown_is_the_affair_of_its_own_run(hive, unshown):
    """ipykernel 7.4 lets the next run fail that awaits, or that shows something wrong itself."""
    shown = f"class Unshown:\n    def _repr_html_(self): {unshown}\nUnshown()"
    with contextlib.suppress(RemoteError):
        hive.delegate(shown)

    assert "5" == hive.delegate("import asyncio\nawait asyncio.sleep(0, 5)").value_repr
    with contextlib.suppress(RemoteError):
        hive.delegate(shown)

    assert "6" == hive.delegate("try: 1 / 0\nexcept: get_ipython().showtraceback()\n6").value_repr


def test_a_fork_ends_as_a_program_does():
    """It waits for threads, and what was registered for the end is called."""
    program = """
import atexit, os, threading
from hive_jupyter.worker.compat import finish_as_python_does
if os.fork() == 0:
    atexit.register(print, "exit", flush=True)
    go = threading.Event()
    threading.Thread(target=lambda: (go.wait(), print("thread", flush=True))).start()
    threading.Timer(0.01, go.set).start()
    finish_as_python_does()
    os._exit(0)
os.wait()
"""
    played = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert played.stdout.split() == ["thread", "exit"]


@pytest.mark.parametrize(
    ("command", "is_told"),
    [
        ("%pip install --no-index hive-nothing", True),
        ("!pip3 install --no-such-option", True),
        ("!true pip install fine", False),
        ("!pip --no-such-option", False),
    ],
)
def test_a_worker_that_cannot_install_says_who_can(hive, command, is_told):
    """pip itself names a file system that is read-only."""
    result = hive.delegate(command, worker="confined", sandbox="workspace")

    assert is_told == ("Run %pip in your own kernel" in result.stderr)
