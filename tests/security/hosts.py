"""The hosts that are attacked, seen from the tests: one process for each tier."""

import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests.security.as_user import UNAVAILABLE
from tests.security.probe import (
    LANDLOCK,
    OPEN,
    PLAIN,
    STRICT,
    UNLIMITED,
    USER_NAMESPACES,
    WORKSPACE,
    tier_of,
)

_LAUNCHER = Path(__file__).with_name("as_user.py")
# Seconds for a host to close its hive.
_CLOSING = 30


class AttackedHost:
    """
    A host in a world of its own, as another user.

    Args:
        tier: NAMESPACES, or PLAIN where these are refused as in Docker.
    """

    def __init__(self, tier):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", _LAUNCHER, tier, "tests.security.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        first = self._process.stdout.readline()
        self._lacks = []
        self._unavailable = ""
        if not first.startswith("{") and self._process.wait(_CLOSING) == UNAVAILABLE:
            self._unavailable = first.strip()
        else:
            self._lacks = self._decoded(first)["lacks"]
        assert self._unavailable or tier != PLAIN or USER_NAMESPACES in self._lacks

    def why_not(self, column):
        """Why a column cannot be tried here; "" where it can."""
        needed = {
            OPEN: (),
            UNLIMITED: (),
            WORKSPACE: (LANDLOCK, USER_NAMESPACES),
            STRICT: (LANDLOCK, USER_NAMESPACES),
        }.get(column, (LANDLOCK,))
        lacks = [f"this machine has no {name}" for name in needed if name in self._lacks]
        return self._unavailable or ", ".join(lacks)

    def probe(self, name, column):
        """Run a probe; gives "succeeded", "refused" or "broken", and what there is to say."""
        return self._ask("probe", name, column)

    def code(self, code, profile):
        """Run a cell in a worker; gives what it said, see ``Host.code``."""
        return self._ask("code", textwrap.dedent(code), profile)

    def _ask(self, *request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._decoded(self._process.stdout.readline())

    def _decoded(self, line):
        if not line:
            self._errors.seek(0)
            raise RuntimeError("the host ended:\n" + self._errors.read()[-4000:])
        return json.loads(line)

    def close(self):
        """Have it end, with all that runs in its world."""
        self._process.stdin.close()
        try:
            self._process.wait(_CLOSING)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._errors.close()


class AttackedHosts:
    """Those of both tiers, each started when it is first needed."""

    def __init__(self):
        self._hosts = {}

    def of(self, column):
        """The host for a column of the table."""
        tier = tier_of(column)
        if tier not in self._hosts:
            self._hosts[tier] = AttackedHost(tier)
        return self._hosts[tier]

    def close(self):
        for host in self._hosts.values():
            host.close()
