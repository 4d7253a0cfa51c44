"""What else than this Python a worker may run: another Python, an installed kernel, a server."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from traitlets import TraitError

from hive_jupyter.errors import ConfigError
from hive_jupyter.swarm.launch import Kernel
from hive_jupyter.units import nearest


def of_interpreter(python: str) -> Kernel:
    """
    Another Python.

    Args:
        python: its path, or its name on PATH.

    Raises:
        ConfigError: it is no program.
    """
    path = shutil.which(Path(python).expanduser())
    if path is None:
        msg = f"{python!r} is no program that can be run. Give the path of a Python interpreter."
        raise ConfigError(msg)
    return Kernel(interpreter=str(Path(path).absolute()), description=f"python at {path}")


def of_server(command: Sequence[str], environment: Mapping[str, str]) -> Kernel:
    """
    An MCP server.

    Args:
        command: the program, and its arguments.
        environment: in whose PATH it is looked for.

    Raises:
        ConfigError: there is no such program.
    """
    words = checked_command(command)
    if find_program(words[0], environment) is None:
        msg = f'There is no program "{words[0]}" on the PATH. Install it, or give its path.'
        raise ConfigError(msg)
    return Kernel(interpreter="", argv=words, language="", description="MCP server", protocol="mcp")


def of_kernelspec(name: str) -> Kernel:
    """
    An installed kernel.

    Args:
        name: of its kernelspec.

    Raises:
        ConfigError: none of that name is installed, or it is broken.
    """
    specs = KernelSpecManager()
    try:
        spec = specs.get_kernel_spec(name)
    except NoSuchKernel:
        msg = f'No kernelspec "{name}" is installed.{nearest(name, specs.find_kernel_specs())}'
        raise ConfigError(msg) from None
    except (OSError, TypeError, ValueError, TraitError) as error:
        raise _broken(name, specs, str(error)) from None
    if not spec.argv or not all(isinstance(word, str) for word in spec.argv):
        raise _broken(name, specs, "argv is to be a list of words, the program first")
    argv = [word.replace("{resource_dir}", str(spec.resource_dir)) for word in spec.argv]
    if argv[0] in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        argv[0] = sys.executable
    return Kernel(
        interpreter="",
        argv=tuple(argv),
        environment=dict(spec.env),
        interrupt_by_message=spec.interrupt_mode == "message",
        language=spec.language,
        description=f"kernelspec {name} ({spec.display_name})",
    )


def _broken(name: str, specs: KernelSpecManager, reason: str) -> ConfigError:
    file = Path(specs.find_kernel_specs().get(name, name), "kernel.json")
    return ConfigError(f'The kernelspec "{name}" is broken ({file}: {reason}). Install it again.')


def checked_command(command: Sequence[str]) -> tuple[str, ...]:
    """
    Take the command line of a server.

    Raises:
        ConfigError: it can be none.
    """
    words: list[object] = [] if isinstance(command, str) else list(command)
    texts = tuple(word for word in words if isinstance(word, str) and "\0" not in word)
    if not texts or len(texts) < len(words) or not texts[0]:
        msg = (
            f"{command!r} is no command for an MCP server. Write a program and its arguments, each "
            'a word: "npx", "-y", "@modelcontextprotocol/server-filesystem", "."'
        )
        raise ConfigError(msg)
    return texts


def find_program(program: str, environment: Mapping[str, str]) -> str | None:
    """Where a program is: on the PATH of that environment, or beside the host's own Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=os.pathsep.join([environment.get("PATH", ""), beside]))
