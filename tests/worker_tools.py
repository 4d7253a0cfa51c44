"""A project on disk, and a worker's tools called in this process."""

import os
import subprocess

from hive_jupyter.tools import LARGEST_RESULT, Call, ToolResult
from hive_jupyter.worker.tools import Toolbox, workspace


class Project:
    """
    A folder that is a project, and the tools that are at home there.

    Args:
        root: the folder; made.
        folder: where relative paths begin, from the root on.
    """

    def __init__(self, root, folder="."):
        self.root = root
        self.reports = []
        os.makedirs(root / folder, exist_ok=True)
        workspace.enter(str(root), str(root / folder))
        self._toolbox = Toolbox(())

    def call(self, name, limit=LARGEST_RESULT, /, **arguments):
        """Call a tool; the result is never larger than the limit."""
        call = Call(limit, lambda *report: self.reports.append(report))
        return ToolResult.from_wire(self._toolbox.call_tool(name, arguments, call))

    def ok(self, name, limit=LARGEST_RESULT, /, **arguments):
        """Call a tool that succeeds."""
        result = self.call(name, limit, **arguments)
        assert not result.is_error, str(result)
        return result

    def error(self, name, /, **arguments):
        """Call a tool that fails; what it says."""
        result = self.call(name, **arguments)
        assert result.is_error, str(result)
        return str(result)

    def write(self, name, content):
        """Write a file, text as UTF-8."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def git(self, *arguments):
        """Run git, as a user would."""
        identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True).stdout

    def commit(self):
        """Commit all that there is, in a repository that is made where there is none."""
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=All", "--allow-empty")
