"""jupyter-mcp-server, with a Jupyter server of its own to run code in."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.mcp_client import execute_through

_PATIENCE = 60


def mcp_execute(size):
    with _jupyter_server() as (url, token):
        arguments = ("start", "--transport", "stdio", "--jupyterlab", "false")
        where = ("--jupyter-url", url, "--jupyter-token", token)
        return execute_through("jupyter-mcp-server", (*arguments, *where), "execute_code", size)


@contextmanager
def _jupyter_server():
    """A Jupyter server on a free port; its URL and its token."""
    token, runtime = secrets.token_hex(16), os.path.abspath("jupyter")
    options = (
        *(
            "--no-browser",
            "--allow-root",
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={os.getcwd()}",
        ),
        f"--IdentityProvider.token={token}",
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", *options],
        env={**os.environ, "JUPYTER_RUNTIME_DIR": runtime},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _url(Path(runtime, f"jpserver-{server.pid}.json")), token
    finally:
        server.terminate()
        server.wait()


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _url(file):
    """Where it serves, as soon as it does."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, json.JSONDecodeError, ConnectionRefusedError):
            port = json.loads(file.read_text())["port"]
            with socket.create_connection(("127.0.0.1", port)):
                return f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    raise AssertionError("the Jupyter server did not start")
