"""What else than this Python a worker may run."""

import json
import os
import sys
from pathlib import Path

import pytest

from hive_jupyter.errors import ConfigError
from hive_jupyter.swarm import kernels
from hive_jupyter.swarm.kernels import checked_command, find_program


def test_another_python_is_found_by_path_and_by_name(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))

    assert kernels.of_interpreter(sys.executable).interpreter == sys.executable
    assert os.path.samefile(kernels.of_interpreter("python3").interpreter, sys.executable)


@pytest.mark.parametrize("python", ["/nowhere/python", __file__, ""])
def test_what_is_no_program_is_no_python(python):
    with pytest.raises(ConfigError, match="is no program that can be run"):
        kernels.of_interpreter(python)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a kernelspec."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def install(**spec):
        folder = tmp_path / "kernels" / "mine"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps({"display_name": "Mine", **spec}))
        return folder

    return install


def test_an_installed_kernel_is_taken_as_its_spec_says(install):
    folder = install(
        argv=["python", "{resource_dir}/run.py", "{connection_file}"],
        language="R",
        env={"A": "1"},
        interrupt_mode="message",
    )
    kernel = kernels.of_kernelspec("mine")

    assert kernel.argv == (sys.executable, f"{folder}/run.py", "{connection_file}")
    assert (kernel.language, kernel.environment) == ("R", {"A": "1"})
    assert kernel.interrupt_by_message


@pytest.mark.parametrize("argv", [[], [1]])
def test_a_broken_kernelspec_is_named(install, argv):
    folder = install(argv=argv, language="R")

    with pytest.raises(ConfigError, match=f"is broken .{folder}"):
        kernels.of_kernelspec("mine")


def test_a_kernel_that_is_not_installed_is_told_with_the_nearest(install):
    install(argv=["r"], language="R")

    with pytest.raises(ConfigError, match='No kernelspec "mime" is installed. Did you mean "mine"'):
        kernels.of_kernelspec("mime")


def test_a_server_is_a_program_that_is_there():
    environment = {"PATH": "/bin"}

    assert kernels.of_server(["sh", "-c", "x"], environment).argv == ("sh", "-c", "x")
    with pytest.raises(ConfigError, match='There is no program "nosuch"'):
        kernels.of_server(["nosuch"], environment)


@pytest.mark.parametrize("command", ["npx server", (), ("",), ("npx", 1), ("a\0",), (None,)])
def test_what_cannot_be_a_command_is_refused(command):
    with pytest.raises(ConfigError, match="each a word"):
        checked_command(command)


def test_a_program_is_also_found_beside_the_hosts_python(tmp_path):
    assert find_program("python3", {"PATH": str(tmp_path)}).startswith(
        str(Path(sys.executable).parent)
    )
    assert find_program("sh", {"PATH": "/bin"}).endswith("/sh")
