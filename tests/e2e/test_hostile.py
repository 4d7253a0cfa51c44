"""A worker that lies, or spoils what is its own, harms nobody else."""

import os
import signal

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import NodeDied, RemoteError
from tests.processes import adopting, family, stopped, wait_gone, wait_until

SEND = (
    "kernel = get_ipython().kernel\n"
    "def send(kind, content):\n"
    "    parent = kernel.get_parent('shell')\n"
    "    kernel.session.send(kernel.iopub_socket, kind, content, parent=parent)\n"
)
FOLDER = (
    "import os\n"
    "from ipykernel.kernelapp import IPKernelApp\n"
    "folder = os.path.dirname(IPKernelApp.instance().ip)\n"
)


@pytest.fixture
def forgiving(runtime):
    with HiveManager(max_failures=1000, sandbox="open") as hive:
        yield hive


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("stream", {}),
        ("stream", {"name": "stdout", "text": 5}),
        ("display_data", {"data": [1]}),
        ("display_data", {"data": {}, "metadata": 3}),
        ("update_display_data", {"data": {}, "transient": 7}),
        ("execute_result", {"data": None}),
        ("error", {"ename": "E", "evalue": "v", "traceback": [1]}),
        ("clear_output", {"wait": "no"}),
    ],
)
def test_a_message_of_the_wrong_shape_ends_its_worker_with_a_clear_cause(forgiving, kind, content):
    with pytest.raises(NodeDied, match=kind) as caught:
        forgiving.delegate(f"{SEND}send({kind!r}, {content!r})\nimport time; time.sleep(60)")

    assert ("protocol", "coder") == (caught.value.cause, caught.value.node)
    assert "2" == forgiving.delegate("1 + 1").value_repr


def test_names_that_are_none_are_not_repeated(forgiving):
    """A reply's metadata is the worker's word."""
    lie = "type(get_ipython().kernel)._variables = lambda self: {}"
    for names in (5, None, ["a\x1b[31m", "b" * 10_000, 7, "fine"]):
        forgiving.delegate(lie.format(repr(names)))
        with pytest.raises(NodeDied) as caught:
            forgiving.delegate("import os; os.abort()")

        assert set(caught.value.lost) <= {"fine"}


@pytest.mark.parametrize(
    "spoil", ["os.mkfifo(log)", "os.symlink('/dev/zero', log)", "os.mkdir(log)"]
)
def test_a_log_that_is_no_file_any_more_is_not_read(forgiving, spoil):
    forgiving.delegate(f"{FOLDER}log = folder + '/log'; os.remove(log); {spoil}")

    assert "" == forgiving.logs()


def test_a_runtime_folder_deeper_than_python_recurses_stops_nobody(forgiving):
    """It stays behind where it cannot be removed; the next worker starts all the same."""
    dig = "os.chdir(folder)\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
    with pytest.raises(NodeDied):
        forgiving.delegate(f"{FOLDER}{dig}os._exit(1)")

    assert "2" == forgiving.delegate("1 + 1").value_repr


def test_a_supervisor_that_was_stopped_after_its_workers_end_does_not_hold_up_a_stop(forgiving):
    worker = psutil.Process(int(forgiving.delegate("import os; os.getpid()").value_repr))
    supervisor = worker.parent()
    stopped(supervisor.pid)
    worker.kill()
    forgiving.stop()

    wait_gone([worker, supervisor])


def test_a_stopped_supervisor_does_not_outlive_a_killed_host(runtime):
    with adopting() as left:
        host = os.fork()
        if host == 0:
            hive = HiveManager(sandbox="open")
            worker = int(hive.delegate("import os; os.getpid()").value_repr)
            os.kill(psutil.Process(worker).ppid(), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(host, 0)

        wait_until(lambda: not left(), 3)


def test_a_storm_of_children_is_swept_in_time(runtime):
    """Each in a session of its own."""
    storm = (
        "import os, time\n"
        "for _ in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid(); time.sleep(1000); os._exit(0)\n"
    )
    before = {process.pid for process in family()}
    with HiveManager(spares=0) as hive:
        hive.delegate(storm)

    wait_until(lambda: not {process.pid for process in family()} - before, 3)


def test_a_run_that_nobody_reads_ends_at_its_deadline(forgiving):
    delegation = forgiving.begin("while True: print('x' * 1_000_000)", timeout=1)

    with pytest.raises(Exception, match="time"):
        delegation._future.result(60)
    assert "2" == forgiving.delegate("1 + 1", timeout=30).value_repr


def test_slow_starts_do_not_close_the_circuit(runtime, monkeypatch):
    """Whoever speaks of a slow start only waits for it."""
    monkeypatch.setattr("hive_jupyter.swarm.life.PROGRESS_AFTER", 0.0)
    with HiveManager(spares=0, max_failures=2, recovery_time=60) as hive:
        for _ in range(2):
            with pytest.raises(NodeDied):
                hive.delegate("import os, time; time.sleep(0.1); os._exit(3)")

        assert "open" == hive.swarm_status()["workers"]["coder"]["circuit"]


def test_an_error_with_a_name_of_a_megabyte_is_shortened(forgiving):
    with pytest.raises(RemoteError) as caught:
        forgiving.delegate("raise type('E' * 2**20, (Exception,), {})('x')")

    assert len(caught.value.ename) <= 100
