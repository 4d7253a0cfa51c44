"""A manager whose runs say what a test wants them to say."""

from pathlib import Path

from hive_jupyter.config import HiveConfig
from hive_jupyter.delegation import Result, RunRecord
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.manager import HiveManager
from hive_jupyter.swarm.messages import Message
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import ToolResult


def stream(text, name="stdout"):
    return Message("stream", {"name": name, "text": text})


def result(**fields):
    plain = {"status": "ok", "value_repr": None, "stdout": "", "stderr": "", "outputs": ()}
    return Result(**{**plain, "seconds": 0.1, "worker": "coder", **fields})


def record(code="1 + 1", **fields):
    plain = {"worker": "coder", "started": 0.0, "seconds": 0.1, "status": "ok", "detail": ""}
    return RunRecord(code=code, **{**plain, **fields})


class FakeDelegation:
    """Plays ``script``: messages, and functions that are called when their turn comes."""

    def __init__(self, *script, outcome=None):
        self.result = outcome if isinstance(outcome, Result | ToolResult) else result()
        self.answers = []
        self.interrupts = 0
        self._script = iter(script)
        self._outcome = self.result if outcome is None else outcome

    def __iter__(self):
        for step in self._script:
            if callable(step):
                step()
            else:
                yield step

    def when_over(self, action):
        self.withdraw = action

    def interrupt(self):
        self.interrupts += 1

    def answer(self, text):
        self.answers.append(text)

    def outcome(self):
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class FakeManager:
    """
    Notes what it is asked for.

    ``delegation`` is what it begins; ``replies`` holds what other methods return or raise.
    """

    def __init__(self, config=None):
        self.config = config or HiveConfig()
        self.delegation = FakeDelegation()
        self.begun = []
        self.calls = []
        self.replies = {
            "known_tools": BUILT_IN,
            "list_tools": list(BUILT_IN.values()),
            "tool_problems": (),
            "workers": ["coder", "train"],
            "history": [],
            "logs": "",
        }
        # a ledger that nobody writes to
        self.guard = AuthorizationGuard(Path(__file__).with_name("no ledger"))

    find_tool = HiveManager.find_tool

    def begin(self, code, **options):
        self.begun.append((code, options))
        return self._delegation()

    def begin_tool(self, tool, arguments, **options):
        self.calls.append(("begin_tool", tool, arguments, options))
        return self._delegation()

    def _delegation(self):
        if isinstance(self.delegation, Exception):
            raise self.delegation
        return self.delegation

    def __getattr__(self, name):
        def method(*arguments, **options):
            self.calls.append((name, *arguments, options))
            reply = self.replies.get(name)
            if isinstance(reply, Exception):
                raise reply
            return reply

        return method

    def called(self, name):
        return [rest for called, *rest in self.calls if called == name]
