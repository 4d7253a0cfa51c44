"""All probes, a file for each topic; the order is that of the table."""

from tests.security.probe import PROBES

from tests.security.probes import files  # isort: skip
from tests.security.probes import repository  # isort: skip
from tests.security.probes import interpreter  # isort: skip
from tests.security.probes import network  # isort: skip
from tests.security.probes import sockets  # isort: skip
from tests.security.probes import processes  # isort: skip
from tests.security.probes import limits  # isort: skip
from tests.security.probes import inherited  # isort: skip
from tests.security.probes import kernel  # isort: skip
from tests.security.probes import host  # isort: skip

__all__ = [
    "PROBES",
    "files",
    "host",
    "inherited",
    "interpreter",
    "kernel",
    "limits",
    "network",
    "processes",
    "repository",
    "sockets",
]
