"""
The official conformance suite of the Model Context Protocol against the MCP server.

It needs Node and, for the first time, npm's registry; it is kept in the user's cache folder. Its
scenarios call tools, prompts and resources of a server that is made for it; those cannot pass here.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from hive_jupyter import mcp_server
from hive_jupyter.agents import AgentSession

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
OLDEST_NODE = 22
TOKEN = "a-token-of-the-tests"
# What every server has to pass, whatever it offers; by the protocol's version.
SCENARIOS = {
    "2025-11-25": {
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    },
    "2026-07-28": {
        "server-stateless",
        "tools-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "input-required-result-missing-input-response",
        "input-required-result-unsupported-methods",
        "input-required-result-ignore-extra-params",
        "input-required-result-validate-input",
    },
}
# One scenario asks for a tool of the suite's own in the midst of others.
EXEMPT = {
    "sep-2575-server-rejects-undeclared-capability",
    "sep-2575-missing-capability-http-400",
}


@pytest.fixture(scope="module")
def suite():
    """The command that runs the suite."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "hive-jupyter", re.sub(r"\W+", "-", SUITE).strip("-"))
    if not folder.exists():
        install(folder)
    node = folder / "node_modules" / ".bin" / "node"
    script = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    return [str(node) if node.exists() else "node", str(script)]


def install(folder):
    """All of it or nothing: another run may do the same now."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    packages = [SUITE] if has_node() else [SUITE, f"node@{OLDEST_NODE}"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as new:
        installed = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", new, *packages],
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode:
            pytest.skip(f"npm cannot install the suite: {installed.stderr.strip()[-300:]}")
        if not folder.exists():
            shutil.copytree(new, folder, symlinks=True)


def has_node():
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    return bool(said) and int(re.match(r"v(\d+)", said)[1]) >= OLDEST_NODE


@pytest.fixture(scope="module")
def url(hive):
    """A server whose clients' requests get the token on the way: the suite knows of none."""
    guarded = mcp_server.guarded(
        mcp_server.AgentServer(lambda name: AgentSession(hive, name), "").server, TOKEN
    )
    bearer = (b"authorization", f"Bearer {TOKEN}".encode())

    async def app(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], bearer]}
        await guarded(scope, receive, send)

    listener = mcp_server.listen(0)
    hive.serve(lambda _folder: mcp_server.over_http(app, listener))
    return f"http://127.0.0.1:{listener.getsockname()[1]}{mcp_server.PATH}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", SCENARIOS)
def test_the_server_conforms(suite, url, version, tmp_path):
    words = ["server", "--url", url, "--suite", "all", "--spec-version", version]

    ran = subprocess.run(
        [*suite, *words, "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    passed = {}
    for scenario in SCENARIOS[version]:
        (file,) = tmp_path.glob(f"server-{scenario}-{'[0-9]' * 4}-*/checks.json")
        checks = json.loads(file.read_text())
        failures = [
            f"{scenario}: {check['id']}: {check.get('errorMessage')}"
            for check in checks
            if check["status"] == "FAILURE" and check["id"] not in EXEMPT
        ]
        assert [] == failures, ran.stdout[-2000:]
        passed[scenario] = sum(check["status"] == "SUCCESS" for check in checks)
    assert all(passed.values()), passed
