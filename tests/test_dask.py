"""Workers on a Dask cluster of separate processes: the same node, elsewhere."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from distributed import Client, Future

import hive_jupyter
from hive_jupyter import (
    ConfigError,
    HiveManager,
    Instructions,
    NodeDied,
    NodeTimeout,
    RemoteError,
    TransferError,
)
from hive_jupyter.swarm.dask import Place, place_of
from tests.dask_clusters import cluster, workers
from tests.hosts import play
from tests.processes import has_ended, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def far(runtime, dask_cluster):
    """A hive whose worker "far" lives on the cluster, without a boundary."""
    with HiveManager(connect_timeout=60, interrupt_grace=30, sandbox="open") as hive:
        hive.delegate("1", worker="far", on=dask_cluster.address)
        yield hive
    wait_until(lambda: not dask_cluster.stations())


@pytest.fixture
def client(dask_cluster):
    with Client(dask_cluster.address, set_as_default=False) as made:
        yield made


def run(hive, code, **options):
    return hive.delegate(code, worker="far", **options)


def begun(hive, code, mark):
    """A run that has come as far as to touch a file."""
    delegation = hive.begin(f"open({str(mark)!r}, 'w').close()\n{code}", worker="far")
    wait_until(mark.exists)
    return delegation


def dies(delegation):
    with pytest.raises(NodeDied) as caught:
        delegation.outcome()
    return caught.value


def station_above(pid):
    above = psutil.Process(pid).parents()
    return next(each for each in above if "hive_jupyter.swarm.station" in each.cmdline())


def station_of(hive):
    """The station of a hive's worker."""
    return station_above(status(hive)["pid"])


def status(hive, name="far"):
    return hive.swarm_status()["workers"][name]


def test_output_comes_while_the_cell_runs(far, tmp_path):
    mark = tmp_path / "seen"
    code = f"""
import os, time
from IPython.display import HTML, display
print("one")
display(HTML("<b>two</b>"))
while not os.path.exists({str(mark)!r}):
    time.sleep(0.01)
3
"""
    delegation = far.begin(code, worker="far", timeout=60)
    said = []
    for message in delegation:
        said.append(message)
        if message.type == "display_data":
            mark.touch()
    result = delegation.outcome()
    assert "one\n" == result.stdout
    assert "3" == result.value_repr
    assert "<b>two</b>" in [
        each.content["data"].get("text/html") for each in said if "data" in each.content
    ]


def test_it_lives_on_the_cluster(far, dask_cluster):
    known = status(far)
    assert station_of(far).pid in {process.pid for process in dask_cluster.stations()}
    assert dask_cluster.address in known["place"]
    assert "lives at" in str(far.swarm_status())
    assert wait_until(lambda: status(far)["memory"]) > 10 * 2**20


def test_interrupt(far, tmp_path):
    run(far, "x = 5")
    delegation = begun(far, "import time; time.sleep(600)", tmp_path / "begun")
    delegation.interrupt()
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()
    assert "KeyboardInterrupt" == caught.value.ename
    assert "5" == run(far, "x").value_repr


def test_timeout(far):
    run(far, "x = 6")
    with pytest.raises(NodeTimeout, match="idle again"):
        run(far, "import time; time.sleep(600)", timeout=0.5)
    assert "6" == run(far, "x").value_repr


def test_tools_and_health(far):
    assert not far.delegate_to_coder("ping", worker="far").is_error
    assert "idle" == far.health("far")


def test_values_go_and_come(far):
    array = np.arange(2_000_000, dtype="float64")
    far.push(array=array, double=lambda value: 2 * value, worker="far")
    run(far, "doubled = double(array)")
    assert np.array_equal(2 * array, far.pull("doubled", worker="far")["doubled"])


def test_the_user_can_be_asked(far):
    delegation = far.begin("input('name? ')", worker="far", allow_stdin=True)
    for message in delegation:
        if message.type == "input_request":
            delegation.answer("hive")
    assert "'hive'" == delegation.outcome().value_repr


def test_widgets_are_not_promised_which_is_said_once(far):
    code = "import ipywidgets\nipywidgets.IntSlider()"
    assert "widgets of" in run(far, code).stderr
    assert "" == run(far, code).stderr


def test_a_crash_is_told(far):
    with pytest.raises(NodeDied, match="SIGSEGV") as caught:
        run(far, "y = 1; import os; os.kill(os.getpid(), 11)")
    assert signal.SIGSEGV == caught.value.signal
    assert "2" == run(far, "1 + 1").value_repr


def test_a_kill_from_outside_is_told(far, tmp_path):
    delegation = begun(far, "import time; time.sleep(600)", tmp_path / "begun")
    os.kill(status(far)["pid"], signal.SIGKILL)
    assert "SIGKILL, which Hive did not send" in str(dies(delegation))


def test_a_killed_dask_worker_is_told_and_replaced(far, client, tmp_path):
    delegation = begun(far, "import time; time.sleep(600)", tmp_path / "begun")
    pid = status(far)["pid"]
    station_of(far).parent().kill()
    death = dies(delegation)
    assert "lost" == death.cause
    assert "the Dask worker" in str(death)
    assert "ended" in str(death)
    wait_until(lambda: has_ended(pid))
    assert "1" == run(far, "1").value_repr
    client.wait_for_workers(2)


def test_a_restart_by_the_nanny_is_told(far, client, tmp_path):
    delegation = begun(far, "import time; time.sleep(600)", tmp_path / "begun")
    place = status(far)["place"]
    address = next(each for each in workers(client) if each in place)
    client.restart_workers([address])
    death = dies(delegation)
    assert "lost" == death.cause
    assert "restart" in str(death)
    assert "1" == run(far, "1").value_repr
    client.wait_for_workers(2)


def test_a_cancelled_place_is_told(far, client, tmp_path):
    delegation = begun(far, "import time; time.sleep(600)", tmp_path / "begun")
    (key,) = wait_until(
        lambda: (
            len(keys := [key for each in client.processing().values() for key in each]) == 1
            and keys
        )
    )
    client.cancel(Future(key, client), force=True)
    assert "was cancelled" in str(dies(delegation))
    assert "1" == run(far, "1").value_repr


def test_who_has_another_key_is_not_heard(far):
    station = far.nodes.by_name["far"]._process._station
    context = zmq.Context()
    for name, port in [("link", station.link), *station.ports.items()]:
        intruder = context.socket(zmq.SUB if name == "iopub_port" else zmq.DEALER)
        intruder.curve_serverkey = station.key.encode()
        intruder.curve_publickey, intruder.curve_secretkey = zmq.curve_keypair()
        monitor = intruder.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        intruder.connect(station.address(port))
        assert monitor.poll(10_000), name
        intruder.disable_monitor()
        monitor.close()
        intruder.close()
    context.term()
    assert "7" == run(far, "7").value_repr


def test_a_worker_that_lives_elsewhere_does_not_move(far):
    with pytest.raises(ConfigError, match=r"lives at .* already"):
        run(far, "1", on="here")
    with pytest.raises(ConfigError, match="lives at"):
        far.begin_push({"a": 1}, worker="far", on="local")


@pytest.mark.parametrize(
    ("on", "reason"),
    [
        ("nobody", '"nobody" is no Dask cluster'),
        ("locl", 'Did you mean "local"'),
        (3, "3 is no Dask client"),
        ("tcp://a:1?worker=b", "workers"),
        ("tcp://a:1?resources=GPU:many", "Write restrictions as in"),
        ("tcp://a:1?resources", "Write restrictions as in"),
    ],
)
def test_what_names_no_cluster_is_told(on, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        place_of(on)


def test_restrictions():
    place = place_of("tcp://host:8786?resources=GPU:1,MEM:2e9&workers=alice,bob")
    assert Place("tcp://host:8786", (("GPU", 1.0), ("MEM", 2e9)), ("alice", "bob")) == place


def test_a_client_is_known_by_its_variable_and_its_name(dask_cluster):
    with Client(dask_cluster.address, name="mine", set_as_default=False) as client:
        assert client is place_of("mine").client
        assert client is place_of("c", {"c": client}).client
        assert client is place_of(client).client
        assert "mine" == str(place_of("c?resources=GPU:1", {"c": client}))


@contextmanager
def hive_of(**settings):
    with HiveManager(**{"connect_timeout": 60, "spares": 0, "sandbox": "open"} | settings) as hive:
        yield hive


def test_dask_places_it_where_it_may_be(runtime, dask_cluster, client):
    names = {address: each["name"] for address, each in workers(client).items()}
    with hive_of() as hive:
        for name, query in [("a", "workers=bob"), ("b", "resources=GPU:1")]:
            hive.delegate("1", worker=name, on=f"{dask_cluster.address}?{query}")
        places = [status(hive, name)["place"] for name in "ab"]
        found = [next(names[each] for each in names if each in place) for place in places]
        assert ["bob", "alice"] == found
        hive.config.connect_timeout = 1.0
        answer = hive.delegate("1", worker="c", on=f"{dask_cluster.address}?resources=GPU:1")
        assert "found no room for it with resources {'GPU': 1.0}" in answer.reason
        assert "2 workers, 8 threads" in answer.reason


def test_a_client_of_the_users_own_stays_open(runtime, dask_cluster, client):
    with hive_of() as hive:
        assert "2" == hive.delegate("1 + 1", worker="far", on=client).value_repr
    assert 3 == client.submit(lambda: 3).result()
    assert "running" == client.status


def test_confinement_applies_there(runtime, dask_cluster):
    with hive_of(sandbox="strict") as hive:
        run(hive, "secret = object()", on=dask_cluster.address)
        with pytest.raises(RemoteError):
            run(hive, "import socket; socket.create_connection(('127.0.0.1', 1))")
        with pytest.raises(RemoteError):
            run(hive, "open('planted', 'w')")
        with pytest.raises(TransferError, match="secret"):
            hive.pull("secret", worker="far")
        process = hive.nodes.by_name["far"]._process
        assert process.confinement["seccomp"]


def test_an_address_that_does_not_answer(runtime):
    with hive_of(connect_timeout=1.0) as hive:
        began = time.monotonic()
        answer = run(hive, "1", on="tcp://127.0.0.1:1")
        assert isinstance(answer, Instructions)
        assert "does not answer" in answer.reason
        assert time.monotonic() - began < 10


def test_a_cluster_without_workers(runtime, tmp_path):
    with cluster(tmp_path) as empty, hive_of(connect_timeout=1.0) as hive:
        assert "has no workers" in run(hive, "1", on=empty.address).reason


def test_the_scheduler_goes(runtime, tmp_path):
    with cluster(tmp_path) as made, hive_of(connect_timeout=20) as hive:
        made.add_worker("alice")
        run(hive, "1", on=made.address)
        pid = status(hive)["pid"]
        delegation = begun(hive, "import time; time.sleep(600)", tmp_path / "begun")
        made.scheduler.kill()
        assert "the Dask scheduler" in str(dies(delegation))
        wait_until(lambda: has_ended(pid))
        hive.config.connect_timeout = 1.0
        assert "does not answer" in run(hive, "1").reason


def _hive_of_another_version(folder, change, file="__init__.py"):
    package = shutil.copytree(Path(hive_jupyter.__file__).parent, folder / "hive_jupyter")
    module = package / file
    module.write_text(change(module.read_text()))
    return str(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace('__version__ = "', '__version__ = "9.'), "is 9."),
        (
            lambda _: "raise ImportError('too old')",
            "cannot be imported on the Dask worker (too old)",
        ),
    ],
)
def test_another_version_is_told(runtime, tmp_path, change, reason):
    path = _hive_of_another_version(tmp_path, change)
    with cluster(tmp_path) as made, hive_of() as hive:
        made.add_worker("old", PYTHONPATH=path)
        answer = run(hive, "1", on=made.address)
        assert reason in answer.reason
        assert "pip install" in answer.reason
        wait_until(lambda: not made.stations())


def test_another_python_is_told_once(runtime, tmp_path):
    path = _hive_of_another_version(
        tmp_path,
        lambda text: text.replace("platform.python_version()", "'3.99.1'"),
        "swarm/station.py",
    )
    with cluster(tmp_path) as made, hive_of() as hive:
        made.add_worker("new", PYTHONPATH=path)
        assert "Python is 3.99.1 on the Dask worker" in run(hive, "1", on=made.address).stderr
        assert "" == run(hive, "1").stderr


def test_a_station_that_stands_still_is_lost(runtime, dask_cluster, tmp_path):
    with hive_of(far_silence=1.5) as hive:
        run(hive, "1", on=dask_cluster.address)
        station = station_of(hive)
        pid = status(hive)["pid"]
        delegation = begun(hive, "import time; time.sleep(600)", tmp_path / "begun")
        station.suspend()
        try:
            assert "nothing was heard of 127.0.0.1" in str(dies(delegation))
        finally:
            station.resume()
        wait_until(lambda: has_ended(pid) and has_ended(station.pid))


_HOST = """
import sys, time
from hive_jupyter import HiveManager
hive = HiveManager(connect_timeout=60, far_silence=1.5, sandbox="open")
hive.delegate("1", worker="far", on=sys.argv[1])
print(hive.swarm_status()["workers"]["far"]["pid"], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_ends_where_its_host_is_silent(runtime, dask_cluster, number):
    with subprocess.Popen(
        [sys.executable, "-c", _HOST, dask_cluster.address], stdout=subprocess.PIPE, text=True
    ) as host:
        try:
            pid = int(host.stdout.readline())
            station = station_above(pid)
            host.send_signal(number)
            wait_until(lambda: has_ended(pid), 20)
            wait_until(lambda: has_ended(station.pid))
        finally:
            host.kill()


@pytest.fixture
def island(tmp_path):
    """A network of its own for one machine, and the address that each end of its cable has."""
    name, number = f"hive{os.getpid()}", os.getpid() % 250 + 1
    here, there = f"10.233.{number}.1", f"10.233.{number}.2"
    cable = f"hv{os.getpid()}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {cable} type veth peer name eth0 netns {name}",
        f"ip addr add {here}/24 dev {cable}",
        f"ip link set {cable} up",
        f"ip -n {name} addr add {there}/24 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            if subprocess.run(command.split(), capture_output=True, check=False).returncode:
                pytest.skip("this machine makes no networks for tests")
        yield name, cable, here, there
    finally:
        subprocess.run(["ip", "link", "del", cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_a_cut_network(runtime, tmp_path, island):
    name, cable, here, there = island
    with cluster(tmp_path, host=here) as made, hive_of(far_silence=2.0) as hive:
        made.add_worker("far", before=["ip", "netns", "exec", name], host=there)
        run(hive, "1", on=made.address)
        pid = status(hive)["pid"]
        delegation = begun(hive, "import time; time.sleep(600)", tmp_path / "begun")
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        death = dies(delegation)
        assert f"nothing was heard of {there}" in str(death)
        wait_until(lambda: has_ended(pid))
        wait_until(lambda: not made.stations())


_LOCAL = """
from hive_jupyter import HiveManager
if __name__ == "__main__":
    with HiveManager(connect_timeout=60, sandbox="open") as hive:
        print(hive.delegate("6 * 7", worker="far", on="local").value_repr)
        print(hive.swarm_status()["workers"]["far"]["place"])
"""


def test_local_starts_a_cluster_that_ends_with_the_hive(runtime, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_LOCAL)
    program = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    assert "42\nlocal (Dask worker" in play(program, options=())


_IN_A_NOTEBOOK = """
from hive_jupyter import HiveManager
if __name__ == "__main__":
    hive = HiveManager(connect_timeout=60, sandbox="open")
    hive.delegate("x = 5", worker="far", on="local")
    code = "import time; print('begun', flush=True); time.sleep(600)"
    run = hive.begin(code, worker="far")
    try:
        for message in run:
            print(message.content["text"], end="", flush=True)
        run.outcome()
    except KeyboardInterrupt:
        run.abandon()  # it may have come between two messages
        print("stopped")
    print(hive.delegate("x", worker="far").value_repr)
    hive.close()
"""


def test_the_stop_button_ends_no_dask_worker_of_local(runtime, tmp_path):
    """It sends SIGINT to the kernel and all processes below it."""
    script = tmp_path / "script.py"
    script.write_text(_IN_A_NOTEBOOK)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as host:
        try:
            assert "begun\n" == host.stdout.readline()
            os.killpg(host.pid, signal.SIGINT)
            assert "stopped\n5\n" == host.stdout.read()
        finally:
            host.kill()


def test_nothing_is_left(runtime, dask_cluster):
    with hive_of() as hive:
        run(hive, "1", on=dask_cluster.address)
        pid, station = status(hive)["pid"], station_of(hive)
        (folder,) = dask_cluster.folder.glob(f"hive/{station.pid}-*")
    wait_until(lambda: has_ended(pid) and has_ended(station.pid))
    assert not folder.exists()
