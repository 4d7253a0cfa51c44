"""The doctor says what confines workers here, proven by workers that try to get out."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from hive_jupyter import HiveManager, manager, nodes
from hive_jupyter.config import TURNED_OFF
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.procfs import read_stat
from hive_jupyter.swarm import confinement, enforcement, system, targets
from hive_jupyter.swarm.report import Report
from hive_jupyter.swarm.targets import Attempt
from hive_jupyter.worker import probes
from tests.hosts import play
from tests.processes import family, titled, wait_gone, wait_until

WITHOUT = Path(__file__).with_name("without.py")
KEPT = {*confinement._CAPABILITIES}
STRICT_ALONE = {
    name for name, each in confinement._CAPABILITIES.items() if each.promised == ("strict",)
}
# What Linux itself may refuse to a worker without a boundary, by the machine and the user.
BY_THE_SYSTEM = {
    "connect by Multipath TCP",
    "set up io_uring",
    "handle page faults (userfaultfd)",
    "enter a user namespace",
    "keep a capability",
    "leave its groups",
    "reserve 256 MB more",
}

DOCTOR = """
import json, sys
from hive_jupyter import HiveManager
with HiveManager(connect_timeout=60, **json.loads(sys.argv[1])) as hive:
    print(json.dumps(hive.doctor().facts()))
"""


def taken_away(*what):
    """The command by which a host runs on a machine that lacks something."""
    return (sys.executable, "-I", "-S", WITHOUT, ",".join(what)) if what else ()


def has_namespaces():
    tried = subprocess.run(
        ["unshare", "--user", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    return tried.returncode == 0


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="no namespaces of our own here")


def examined(*what, **settings):
    """What the doctor of a host says that lacks something."""
    said = play(DOCTOR, json.dumps(settings), before=taken_away(*what))
    return Report.of(json.loads(said))


def states(report, profile):
    return {row.capability: row.state for row in report.rows if row.profile == profile}


def found(report, capability, profile=""):
    (row,) = (r for r in report.rows if (r.capability, r.profile) == (capability, profile))
    return row


def expected(profile, **exceptions):
    """All that a profile promises is kept."""
    allowed = STRICT_ALONE if profile == "workspace" else set()
    usual = {name: "allowed" if name in allowed else "yes" for name in KEPT}
    here = {getattr(targets, name): state for name, state in exceptions.items()}
    return {**usual, **here}


def leftovers():
    """What a doctor of this process has left in the places where it makes things."""
    places = (Path.home(), Path("/tmp"), Path("/dev/shm"))
    return [path for place in places for path in place.glob(f"*hive-doctor-{os.getpid()}-*")]


@pytest.fixture
def doctored(runtime):
    """A hive of a test's own, that ends with nothing left of what its doctor made."""
    with HiveManager(connect_timeout=60) as hive:
        yield hive
    assert [] == leftovers()


# --- what is proven ---


def test_a_worker_without_a_boundary_succeeds_in_all_that_the_doctor_has_it_try(doctored):
    """A probe that cannot fail proves nothing."""

    async def try_out(launch, attempts):
        servers, context = doctored.nodes.fork_servers(), doctored.nodes.sockets()
        return await confinement._throw_away(launch, servers, context, attempts)

    policy = SandboxPolicy("open", memory=confinement.MEMORY, processes=confinement.PROCESSES)
    with confinement.new_targets() as outside:
        launch = confinement._launch(policy, str(outside.project), doctored.config)
        trial = doctored._portal.call(try_out(launch, outside.attempts))
        tried = list(zip(outside.attempts, trial.outcomes, strict=True))
        refused = {each.what for each, outcome in tried if not each.succeeded(outcome)}

    assert [] == [outcome for outcome in trial.outcomes if "failed" in outcome]
    assert {each.of for each, _ in tried} == KEPT - {targets.MORE_PROCESSES}
    assert refused <= BY_THE_SYSTEM


def test_a_worker_without_a_limit_may_have_many_processes(doctored):
    """It is left alone with them."""

    async def try_out(launch, crowd):
        servers, context = doctored.nodes.fork_servers(), doctored.nodes.sockets()
        return await confinement._throw_away(launch, servers, context, [crowd])

    with confinement.new_targets() as outside:
        policy = SandboxPolicy("open", processes=None)
        launch = confinement._launch(policy, str(outside.project), doctored.config)
        trial = doctored._portal.call(try_out(launch, outside.crowd))

        assert [{"value": None}] == trial.outcomes
        assert outside.crowd.succeeded(trial.outcomes[0])


@needs_namespaces
def test_where_a_machine_has_it_all_each_profile_keeps_what_it_promises(doctored):
    report = doctored.doctor()

    assert expected("workspace") == states(report, "workspace")
    assert expected("strict") == states(report, "strict")
    for profile in confinement.PROFILES:
        about = found(report, f"sandbox {profile}")
        assert ("yes", "") == (about.state, about.meaning)
        assert about.detail.endswith("seccomp, namespaces")
    assert "a read-only mount" == found(report, targets.GIT, "workspace").by
    assert "namespaces" == found(report, targets.PROCESSES, "strict").by
    assert "seccomp" == found(report, targets.SOCKETS, "workspace").by
    assert "RLIMIT_DATA" == found(report, targets.MORE_MEMORY, "strict").by
    counted = "Hive's count" if os.geteuid() == 0 else "the kernel's count"
    assert counted == found(report, targets.MORE_PROCESSES, "strict").by
    assert not any("could not be tried" in row.detail for row in report.rows)


@pytest.mark.parametrize("settings", [{}, {"start_method": "exec"}], ids=["fork", "exec"])
def test_where_namespaces_are_forbidden_the_rest_holds_and_what_does_not_is_said(settings):
    """As in Docker."""
    report = examined("namespaces", **settings)

    both = {"TEMPORARY": "partly", "PROCESSES": "missing"}
    in_workspace = expected("workspace", **both, BESIDE_GIT="yes", SHARED="missing")
    assert in_workspace == states(report, "workspace")
    assert expected("strict", **both) == states(report, "strict")
    assert "yes" == found(report, "sandbox strict").state
    assert "Without namespaces" in found(report, "sandbox workspace").meaning
    assert "nothing new can be made" in found(report, targets.BESIDE_GIT, "workspace").meaning
    assert found(report, targets.GIT, "workspace").by.startswith("Landlock ABI ")
    assert found(report, targets.SIGNALS, "strict").by.startswith("Landlock ABI ")
    assert f"{targets.PROCESSES} (strict)" in report.missing


@needs_namespaces
@pytest.mark.parametrize("settings", [{}, {"start_method": "exec"}], ids=["fork", "exec"])
def test_without_landlock_files_are_read_and_strict_does_not_start(settings):
    """In namespaces almost all is mounted read-only, so that nothing else is changed."""
    report = examined("landlock", **settings)

    strict = found(report, "sandbox strict")
    assert ("missing", {}) == (strict.state, states(report, "strict"))
    assert "refused: this machine cannot confine files" == strict.detail
    assert "No cell runs with --sandbox strict." == strict.meaning
    about = found(report, "sandbox workspace")
    assert ("partly", "files, TCP ports") == (about.state, about.meaning[-17:-1])
    opened = {"READING": "partly", "PORTS": "partly"}
    assert expected("workspace", **opened) == states(report, "workspace")
    reading = found(report, targets.READING, "workspace")
    assert reading.meaning.startswith("It could read a file in your home folder. ")
    assert "namespaces" == reading.by
    assert "a read-only mount" in found(report, targets.CHANGING, "workspace").by


@needs_namespaces
def test_without_seccomp_sockets_and_system_calls_are_open_and_strict_does_not_start():
    report = examined("seccomp")

    assert {} == states(report, "strict")
    assert found(report, "sandbox strict").detail.endswith("system calls and sockets")
    opened = dict.fromkeys(("PORTS", "SOCKETS", "CALLS"), "partly")
    assert expected("workspace", **opened) == states(report, "workspace")


def test_without_any_of_it_almost_nothing_is_kept_from_a_worker_and_all_that_is_said():
    report = examined("landlock", "namespaces")

    gone = ("READING", "CHANGING", "GIT", "PYTHON", "TEMPORARY", "SHARED", "PROCESSES")
    in_part = {"PORTS": "partly", "SIGNALS": "partly"}
    kept = expected("workspace", **dict.fromkeys(gone, "missing"), **in_part)
    assert kept == states(report, "workspace")
    assert {f"{getattr(targets, name)} (workspace)" for name in gone} <= {*report.missing}
    assert "signal another program" in found(report, targets.SIGNALS, "workspace").meaning


def test_of_namespaces_of_its_own_a_worker_does_not_take_a_process_for_another():
    """Its numbers are others: 1 is not the machine's first process."""
    started = read_stat(os.getpid()).start_ticks

    probes.send_signal(os.getpid(), started, 0)
    for verb in (probes.trace, lambda *process: probes.send_signal(*process, 0)):
        with pytest.raises(ProcessLookupError):
            verb(os.getpid(), started + 1)
        with pytest.raises(ProcessLookupError):
            verb(2**22 + 1, started)


def test_what_goes_wrong_in_a_probe_does_not_count_as_a_refusal(monkeypatch, capsys):
    monkeypatch.setattr(probes, "read", lambda _path: 1 / 0)
    probes.tell(json.dumps([["read", "/etc/passwd"], ["look_up", "/"], ["look_up", "/nowhere"]]))
    outcomes = json.loads(capsys.readouterr().out)

    assert [{"failed": "ZeroDivisionError('division by zero')"}, {"value": None}] == outcomes[:2]
    assert {"error": "ENOENT"} == outcomes[2]
    trial = confinement._Trial({}, outcomes[:1])
    attempt = Attempt(targets.READING, "read it", ("read", ""), lambda _: False)
    rows = {row.capability: row for row in confinement._judged("strict", [attempt], trial)}
    assert "missing" == rows[targets.READING].state
    assert "ZeroDivisionError" in rows[targets.READING].detail
    assert ("missing", "there was no place to try it") == (
        rows[targets.SHARED].state,
        rows[targets.SHARED].detail,
    )


@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_who_has_no_home_has_no_file_there_to_be_read(monkeypatch, home):
    """And a project in the temporary folder."""
    monkeypatch.setenv("HOME", home)
    with confinement.new_targets() as outside:
        assert outside.project.parent == Path(targets.tempfile.gettempdir()).resolve()
        reading = [each.what for each in outside.attempts if each.of == targets.READING]
        assert ["read a file in /tmp"] == reading
        assert {each.of for each in outside.attempts} == KEPT - {targets.MORE_PROCESSES}
    assert [] == leftovers()


# --- what it leaves alone ---


def test_no_other_worker_is_touched_and_nothing_tells_of_the_doctors(doctored):
    doctored.delegate("kept = 1")

    def spares():
        return [process.pid for server in doctored.nodes.servers for _, process in server._spares]

    def seen():
        workers = doctored.swarm_status()["workers"]
        told = {name: (each["pid"], each["calls"]) for name, each in workers.items()}
        folders = {path.name for path in doctored.nodes.runtime.path.iterdir()}
        return told, doctored.history(), spares(), folders, {each.pid for each in family()}

    wait_until(spares)
    before = seen()
    doctored.doctor()
    # what it started is reaped a moment after it is gone
    wait_until(lambda: before == seen())

    assert "1" == doctored.delegate("kept").value_repr


def test_cells_run_meanwhile(doctored, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(nodes, "examine", lambda _: go.wait(60) and [])
    with ThreadPoolExecutor(1) as others:
        report = others.submit(doctored.doctor)
        assert "2" == doctored.delegate("1 + 1").value_repr
        assert not report.done()
        go.set()
        assert report.result(60).rows


def test_ctrl_c_ends_it_and_leaves_nothing(doctored, monkeypatch):
    before, go = family(), threading.Event()

    def press(_folder):
        os.kill(os.getpid(), signal.SIGINT)
        go.wait(60)
        return []

    monkeypatch.setattr(nodes, "examine", press)
    with pytest.raises(KeyboardInterrupt):
        doctored.doctor()
    go.set()

    def left():
        return [process for process in family() if process not in before]

    wait_until(lambda: not titled(left(), "hive: supervisor"))


def test_closing_the_hive_ends_it(runtime, monkeypatch):
    before = family()
    begun, go = threading.Event(), threading.Event()

    def begin(_folder=None):
        begun.set()
        go.wait(60)
        return []

    monkeypatch.setattr(nodes, "examine", begin)
    hive = HiveManager(connect_timeout=60)
    with ThreadPoolExecutor(1) as others:
        report = others.submit(hive.doctor)
        begun.wait(60)
        started = [process for process in family() if process not in before]
        hive.close()
        wait_gone(started)
        go.set()
        assert "missing" == found(report.result(60), "sandbox strict").state


# --- where it cannot be tried ---


def untried(report, reason):
    """All that Hive needs was looked at, and of the profiles there is nothing but the reason."""
    assert "yes" == found(report, "fork").state
    for profile in confinement.PROFILES:
        about = found(report, f"sandbox {profile}")
        assert "missing" == about.state
        assert reason in about.detail
        assert "Nothing is proven" in about.meaning
        assert {} == states(report, profile)
    assert {"sandbox workspace", "sandbox strict"} <= {*report.missing}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "its worker ended"),
        ("1 / 0", "its worker did not say what came of it"),
        ("import time; time.sleep(1000)", "its worker was not done within 1.5 s"),
    ],
    ids=["ends", "fails", "hangs"],
)
def test_a_worker_that_does_not_finish_is_reported(doctored, monkeypatch, code, reason):
    if "sleep" in code:
        monkeypatch.setattr(confinement, "_PATIENCE", 0.5)
        doctored.config.connect_timeout = 1
    monkeypatch.setattr(confinement, "_CODE", code)

    before = family()

    untried(doctored.doctor(), reason)

    left = [process for process in family() if process not in before]
    assert [] == titled(left, "hive: supervisor")


async def test_who_gives_up_waiting_for_a_worker_does_not_keep_it_from_being_ready():
    loop = asyncio.get_running_loop()
    process = SimpleNamespace(ready=loop.create_future(), exited=loop.create_future())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await confinement._or_ended(process.ready, process)

    process.ready.set_result({})


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("place", "name", "without", "reason"),
    [
        (targets.tempfile, "mkdtemp", full, "No space left on device"),
        (targets.subprocess, "Popen", full, "No space left on device"),
        (confinement, "lack_of_descriptors", lambda _: "too few files", "too few files"),
        (system, "HAS_WORKERS", False, "not on this system"),
    ],
    ids=["folders", "program", "descriptors", "system"],
)
def test_what_keeps_workers_from_being_tried_is_reported(
    doctored, monkeypatch, place, name, without, reason
):
    # what Hive needs is examined with the real ones
    needs = enforcement.examine()
    for module in (manager, nodes):
        monkeypatch.setattr(module, "examine", lambda _=None: needs)
    monkeypatch.setattr(place, name, without)

    untried(doctored.doctor(), reason)


def test_a_program_that_says_nothing_is_no_target(doctored, monkeypatch):
    monkeypatch.setattr(targets, "_OTHER_PROGRAM", "")

    untried(doctored.doctor(), f"{sys.executable} could not be started")


def test_where_workers_are_turned_off_none_is_started_for_the_doctor(runtime):
    with HiveManager(direct=False) as hive:
        before = family()
        untried(hive.doctor(), TURNED_OFF)
        assert before == family()


def test_a_closed_hive_says_so(runtime):
    hive = HiveManager()
    hive.close()

    untried(hive.doctor(), "This hive is closed.")


# --- what users meet where something is missing ---

DELEGATE = """
import json, sys
from hive_jupyter import HiveManager, SandboxUnavailable
with HiveManager(connect_timeout=60, **json.loads(sys.argv[1])) as hive:
"""
REFUSED = f"""{DELEGATE}
    for _ in range(hive.config.max_failures + 1):
        try:
            hive.delegate("1", worker="w", sandbox="strict")
        except SandboxUnavailable as refusal:
            told = [refusal.missing, str(refusal), hive.swarm_status()["workers"]["w"]["circuit"]]
    print(json.dumps([*told, hive.delegate("1 + 1", worker="w", sandbox="workspace").value_repr]))
"""
ONCE = f"""{DELEGATE}
    hive.list_tools()
    told = [hive.delegate("1", worker=name).stderr for name in ("coder", "coder", "other")]
    hive.restart("coder")
    told.append(hive.delegate("1").stderr)
    hive.doctor()
    print(json.dumps(told))
"""


@pytest.mark.parametrize("settings", [{}, {"start_method": "exec"}], ids=["fork", "exec"])
@pytest.mark.parametrize(
    ("lacks", "missing"),
    [
        (["landlock", "namespaces"], ["files", "signals"]),
        (["seccomp"], ["system calls and sockets"]),
    ],
)
def test_strict_is_refused_where_it_cannot_hold_and_says_what_to_do(lacks, missing, settings):
    """A refusal is no failure of the worker's: no circuit opens, and another profile runs."""
    said = play(REFUSED, json.dumps(settings), before=taken_away(*lacks))
    told, message, circuit, value = json.loads(said)

    assert (missing, "closed", "2") == (told, circuit, value)
    assert message == (
        "The sandbox strict cannot be had on this machine, which cannot confine "
        f"{', '.join(missing)}; `%hive doctor` tells more. --sandbox workspace enforces what there "
        "is, and says what is missing."
    )


@pytest.mark.parametrize("settings", [{}, {"start_method": "exec"}], ids=["fork", "exec"])
def test_workspace_runs_and_says_once_what_is_missing(settings):
    first, *later = json.loads(play(ONCE, json.dumps(settings), before=taken_away("landlock")))

    assert ["", "", ""] == later
    assert first.startswith(
        "The sandbox workspace is not whole here: this machine cannot confine files, TCP ports"
    )
    assert first.endswith("%hive doctor tells more.\n")


def test_the_doctor_does_not_use_up_what_is_said_once():
    said = play(
        ONCE.replace("hive.list_tools()", "hive.doctor()"), "{}", before=taken_away("landlock")
    )

    assert "is not whole here" in json.loads(said)[0]


@needs_namespaces
def test_where_nothing_is_missing_nothing_is_said():
    assert ["", "", "", ""] == json.loads(play(ONCE, "{}"))
