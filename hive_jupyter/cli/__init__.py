"""The command line: ``jupyter hive``."""

from __future__ import annotations

from jupyter_core.application import base_flags

from hive_jupyter.cli.application import App


class HiveApp(App):
    """The command itself; its subcommands do the work."""

    name = "jupyter-hive"
    description = """
    Hive for Jupyter: a second, disposable Python for every notebook.
    """
    flags = App.flags | {
        "generate-config": (
            base_flags["generate-config"][0],
            "Write jupyter_hive_config.py, with all settings to edit.",
        ),
        "y": (base_flags["y"][0], "Overwrite it without asking."),
    }
    usage = "COMMAND [options]"
    # By their names, so that a command costs the import of its own module alone.
    subcommands = {  # noqa: RUF012
        "status": (
            "hive_jupyter.cli.workers.StatusApp",
            "Tell which hives are running, and how their workers are.",
        ),
        "logs": ("hive_jupyter.cli.workers.LogsApp", "Show the last lines that a worker logged."),
        "run": ("hive_jupyter.cli.run.RunApp", "Run code in a worker of a running notebook."),
        "interrupt": (
            "hive_jupyter.cli.workers.InterruptApp",
            "Stop what a worker runs; it stays.",
        ),
        "restart": ("hive_jupyter.cli.workers.RestartApp", "End a worker and start it anew."),
        "mcp": ("hive_jupyter.cli.mcp.McpApp", "Serve the tools of a worker to an AI agent."),
        "requests": (
            "hive_jupyter.cli.requests.RequestsApp",
            "List the commits and calls that wait for your yes.",
        ),
        "approve": ("hive_jupyter.cli.requests.ApproveApp", "Show a request, and say yes to it."),
        "deny": ("hive_jupyter.cli.requests.DenyApp", "Say no to a request."),
        "demo": ("hive_jupyter.cli.demo.DemoApp", "Play the quickstart notebook in this terminal."),
        "doctor": ("hive_jupyter.cli.doctor.DoctorApp", "Tell what Hive can do on this machine."),
    }


def main(argv: list[str] | None = None) -> None:
    """The command ``jupyter-hive``."""
    HiveApp.launch_instance(argv)
