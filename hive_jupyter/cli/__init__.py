"""The command line: ``jupyter hive``."""

from __future__ import annotations

from jupyter_core.application import base_flags

from hive_jupyter.cli.application import _App
from hive_jupyter.cli.demo import DemoApp
from hive_jupyter.cli.doctor import DoctorApp
from hive_jupyter.cli.mcp import McpApp
from hive_jupyter.cli.requests import ApproveApp, DenyApp, RequestsApp
from hive_jupyter.cli.run import RunApp
from hive_jupyter.cli.workers import InterruptApp, LogsApp, RestartApp, StatusApp


class HiveApp(_App):
    """The command itself; its subcommands do the work."""

    name = "jupyter-hive"
    description = """
    Hive for Jupyter: a second, disposable Python for every notebook.
    """
    flags = _App.flags | {
        "generate-config": (
            base_flags["generate-config"][0],
            "Write jupyter_hive_config.py, with all settings to edit.",
        ),
        "y": (base_flags["y"][0], "Overwrite it without asking."),
    }
    usage = "COMMAND [options]"
    subcommands = {  # noqa: RUF012
        "status": (StatusApp, "Tell which hives are running, and how their workers are."),
        "logs": (LogsApp, "Show the last lines that a worker logged."),
        "run": (RunApp, "Run code in a worker of a running notebook."),
        "interrupt": (InterruptApp, "Stop what a worker runs; it stays."),
        "restart": (RestartApp, "End a worker and start it anew."),
        "mcp": (McpApp, "Serve the tools of a worker to an AI agent."),
        "requests": (RequestsApp, "List the commits and calls that wait for your yes."),
        "approve": (ApproveApp, "Show a request, and say yes to it."),
        "deny": (DenyApp, "Say no to a request."),
        "demo": (DemoApp, "Play the quickstart notebook in this terminal."),
        "doctor": (DoctorApp, "Tell what Hive can do on this machine."),
    }


def main(argv: list[str] | None = None) -> None:
    """The command ``jupyter-hive``."""
    HiveApp.launch_instance(argv)
