"""Interpreters and kernelspecs that cannot run a worker: the user learns why and what helps."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hive_jupyter import ConfigError, HiveManager, Instructions
from hive_jupyter.errors import NodeStartError


@pytest.fixture
def place(monkeypatch):
    """A folder for runtime files and kernelspecs, whose path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="h") as folder:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
        monkeypatch.setenv("JUPYTER_PATH", folder)
        yield Path(folder)


@pytest.fixture
def hive(place):
    with HiveManager() as hive:
        yield hive


def program(place, text, name="program"):
    """An executable script."""
    path = place / name
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def kernelspec(place, name, **spec):
    """Install one."""
    folder = place / "kernels" / name
    folder.mkdir(parents=True)
    whole = {"display_name": name, "language": "test", **spec}
    (folder / "kernel.json").write_text(json.dumps(whole))


def refused(hive, worker):
    """Why the worker cannot run a cell; starting it says the same."""
    shown = hive.delegate("1 + 1", worker=worker)
    assert isinstance(shown, Instructions), shown
    with pytest.raises(NodeStartError) as error:
        hive.start(worker)
    assert error.value.node == worker
    return shown.reason


# --- interpreters ---


def test_an_interpreter_that_cannot_be_run_is_refused_at_once(hive, place):
    plain = place / "plain"
    plain.write_text("#!/bin/sh\n")

    for wrong in (place / "missing", place, plain, "", "no-such-python", "\0", "a/b"):
        with pytest.raises(ConfigError, match="no program that can be run. Give the path"):
            hive.add("other", python=str(wrong))
    assert "other" not in hive.workers()


def test_an_interpreter_without_ipykernel_names_the_command_that_installs_it(hive, place):
    bare = place / "bare"
    subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), "-m", "venv", "--without-pip", bare],
        check=True,
    )
    hive.add("bare", python=str(bare / "bin" / "python"))

    reason = refused(hive, "bare")

    assert f"{bare}/bin/python -m pip install ipykernel" in reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\nexit 3\n", "exited with code 3 instead"),
        ("#!/bin/sh\necho 'I am no Python' >&2\nexit 1\n", "I am no Python"),
        ("#!/bin/sh\nkill -SEGV $$\n", "killed by SIGSEGV instead"),
        ("#!/no/such/interpreter\n", "No such file"),
        ("no program at all", "Exec format error"),
        ("#!/bin/sh\nprintf 'x%.0s' $(seq 100000) >&2\nexit 1", "xxx"),
    ],
    ids=["exits", "speaks", "crashes", "bad-shebang", "no-format", "floods"],
)
def test_a_program_that_is_no_python_is_refused_with_its_own_words(hive, place, text, said):
    hive.add("odd", python=program(place, text))

    reason = refused(hive, "odd")

    assert re.search(said, reason), reason
    assert len(reason) < 1000


def test_an_interpreter_that_hangs_is_given_up(place):
    with HiveManager(connect_timeout=0.5) as hive:
        hive.add("slow", python=program(place, "#!/bin/sh\nexec sleep 600\n"))

        assert "did not answer within 500 ms" in refused(hive, "slow")


def test_an_interpreter_that_vanishes_is_missed_and_found_again(hive, place):
    path = program(place, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    hive.add("moved", python=path)
    os.rename(path, path + "-away")
    assert "No such file" in refused(hive, "moved")

    os.rename(path + "-away", path)

    assert hive.delegate("1 + 1", worker="moved").value_repr == "2"


def test_other_workers_run_beside_one_that_cannot_start(hive, place):
    hive.add("odd", python=program(place, "#!/bin/sh\nexit 3\n"))
    refused(hive, "odd")

    assert hive.delegate("1 + 1").value_repr == "2"
    assert hive.swarm_status()["workers"]["odd"]["last_error"]


# --- kernelspecs ---


def test_an_unknown_kernelspec_names_the_nearest(hive, place):
    kernelspec(place, "julia-1.9", argv=["julia", "{connection_file}"])

    with pytest.raises(ConfigError, match='No kernelspec "julia-1.8".*mean "julia-1.9"'):
        hive.add("j", kernel="julia-1.8")
    for wrong in ("", "a/b", "a b", "../x", "\0"):
        with pytest.raises(ConfigError, match="No kernelspec"):
            hive.add("j", kernel=wrong)


def test_a_kernelspec_without_its_program_names_the_program(hive, place):
    kernelspec(place, "gone", argv=["/no/such/kernel", "{connection_file}"])
    hive.add("gone", kernel="gone")

    assert "/no/such/kernel" in refused(hive, "gone")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"argv": []}', '{"argv": [5]}', '{"argv":["x"],"env":5}'],
)
def test_a_broken_kernelspec_is_refused_with_its_file(hive, place, text):
    folder = place / "kernels" / "broken"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(text)

    with pytest.raises(ConfigError, match=r'kernelspec "broken".*kernel\.json'):
        hive.add("broken", kernel="broken")


def test_a_kernel_that_ends_or_is_mute_is_given_up(hive, place):
    kernelspec(place, "ends", argv=["/bin/sh", "-c", "echo 'no licence' >&2; exit 4"])
    kernelspec(place, "mute", argv=["/bin/sleep", "600"])
    hive.add("ends", kernel="ends")
    assert "no licence" in refused(hive, "ends")

    with HiveManager(connect_timeout=0.5) as impatient:
        impatient.add("mute", kernel="mute")
        assert "did not answer within 500 ms" in refused(impatient, "mute")


def test_a_name_stays_with_what_it_runs(hive, place):
    hive.add("py", python=sys.executable)
    hive.add("py", python=sys.executable)

    with pytest.raises(ConfigError, match='a worker "py" already'):
        hive.add("py", python="/bin/sh")
    with pytest.raises(ConfigError, match="--python PATH, --kernel KERNELSPEC or --mcp"):
        hive.add("both", python=sys.executable, kernel="python3")
    with pytest.raises(ConfigError, match="--python PATH, --kernel KERNELSPEC or --mcp"):
        hive.add("neither")
