"""What is measured, for whom, and what Hive is to reach."""

from dataclasses import dataclass

HIVE = "hive"
# In the order of the table's columns; "pipe" and "memcpy" are the floors: a plain subprocess, and a
# copy within one process.
PEERS = (
    "jupyter_client",
    "ipyparallel",
    "nbclient",
    "distributed",
    "loky",
    "jupyter_mcp_server",
    "process_pool",
    "pipe",
    "memcpy",
)
CONTESTANTS = (HIVE, *PEERS)

# What one of each unit is, in seconds or bytes.
UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "MiB": 2.0**20}


@dataclass(frozen=True)
class Goal:
    """
    What Hive's median is to be at most.

    Attributes:
        limit: a share of the peer's median; without a peer, a number in the measurement's unit.
        peer: with whom Hive is compared, or None.
    """

    limit: float
    peer: str | None = None


@dataclass(frozen=True)
class Measurement:
    """
    Something that is measured.

    Attributes:
        name: also of the function, in each contestant's module, that measures it once: it takes
            the size and returns samples in seconds or bytes. See ``measured_by``.
        title: for the table; {size} stands for how much work was done.
        unit: for the table; a key of UNITS.
        contestants: who is measured, on the same work.
        goals: all of them are to be met.
        size: how much work one call is: repetitions, prints or processes.
        quick_size: the same for a quick run.
        rounds: how many calls for each contestant, each in a fresh process.
        measured_by: the function's name, where several measurements share it.
    """

    name: str
    title: str
    unit: str
    contestants: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    size: int = 1
    quick_size: int = 1
    rounds: int = 9
    measured_by: str = ""

    @property
    def function(self) -> str:
        return self.measured_by or self.name.replace("-", "_")

    def titled(self, *, quick: bool) -> str:
        size = self.quick_size if quick else self.size
        return self.title.format(size=f"{size:,}".replace(",", " "))


_KERNELS = (HIVE, "jupyter_client")
_ALL = (HIVE, "jupyter_client", "ipyparallel", "nbclient", "distributed", "loky")

_MOVERS = (HIVE, "ipyparallel", "distributed", "process_pool", "memcpy")


def _moves(way: str, what: str, size: int, share: float | None = None) -> Measurement:
    """The moving of an array of so many megabytes; 0: of a frame."""
    return Measurement(
        f"{way}-{what}",
        f"{way} of an array of {{size}} MB" if size else f"{way} of a mixed frame of 1e6 rows",
        "ms",
        _MOVERS,
        () if share is None else (Goal(share, "ipyparallel"),),
        size=size,
        quick_size=min(size, 100),
        rounds=3,
        measured_by=way,
    )


def _maps(what, workers, title, size):
    """The mapping of a function over so many items, in so many workers."""
    return Measurement(
        f"{what}-{workers}",
        f"{title} over {workers} workers",
        "ms",
        (HIVE, "loky", "process_pool", "ipyparallel", "distributed"),
        (Goal(1, "loky"),),
        size=size,
        quick_size=size,
        rounds=3,
    )


MEASUREMENTS = (
    Measurement(
        "cold-start",
        "cold start to first result (Hive: zygote warm, no spare)",
        "ms",
        _ALL,
        (Goal(1 / 10, "jupyter_client"), Goal(1, "loky")),
    ),
    Measurement(
        "spare-start",
        "the same with a warm spare",
        "ms",
        _KERNELS,
        (Goal(1 / 40, "jupyter_client"),),
        size=5,
        quick_size=2,
    ),
    Measurement(
        "first-delegate",
        "first `%%delegate`, right after `%load_ext`",
        "ms",
        _KERNELS,
        (Goal(0.9, "jupyter_client"),),
    ),
    Measurement(
        "warm-magic",
        "warm no-op cell, inside the magic (`%%delegate`, `%%px`)",
        "ms",
        (HIVE, "ipyparallel"),
        (Goal(1 / 2, "ipyparallel"),),
        size=250,
        quick_size=100,
        rounds=5,
    ),
    Measurement(
        "warm-call",
        "warm no-op, called from a script",
        "ms",
        _ALL,
        size=250,
        quick_size=100,
        rounds=5,
    ),
    Measurement(
        "mcp-execute",
        "`1+1`, asked for by an agent's MCP client over stdio",
        "ms",
        (HIVE, "jupyter_mcp_server"),
        (Goal(1 / 10, "jupyter_mcp_server"),),
        size=30,
        quick_size=5,
        rounds=3,
    ),
    Measurement(
        "recovery",
        "SIGKILL in a cell to the next good result",
        "ms",
        _ALL,
        (Goal(1 / 3, "loky"),),
        rounds=5,
    ),
    Measurement(
        "recovery-without-spare",
        "the same without a spare (`spares=0`)",
        "ms",
        (HIVE, "loky"),
        rounds=5,
    ),
    Measurement(
        "confined-start",
        "what the boundary adds to a fresh start (`workspace`, beside `open`)",
        "ms",
        (HIVE,),
        (Goal(18),),
        size=20,
        quick_size=5,
        rounds=5,
    ),
    Measurement(
        "confined-start-without-namespaces",
        "the same where a container forbids namespaces",
        "ms",
        (HIVE,),
        (Goal(10),),
        size=20,
        quick_size=5,
        rounds=5,
    ),
    Measurement(
        "confined-spare",
        "what it adds to a start with a warm spare",
        "ms",
        (HIVE,),
        (Goal(1),),
        size=10,
        quick_size=3,
        rounds=5,
    ),
    Measurement(
        "confined-call",
        "what it adds to a warm no-op (5 % of 2.4 ms)",
        "ms",
        (HIVE,),
        (Goal(0.12),),
        size=250,
        quick_size=50,
        rounds=5,
    ),
    Measurement(
        "confined-prints",
        "what checking its output adds to {size} tiny prints",
        "s",
        (HIVE,),
        size=1_000_000,
        quick_size=200_000,
        rounds=3,
    ),
    Measurement(
        "lines",
        "{size} lines of 100 characters",
        "s",
        (HIVE, "jupyter_client", "ipyparallel", "pipe"),
        (Goal(1 / 2, "jupyter_client"),),
        size=1_000_000,
        quick_size=200_000,
        rounds=3,
    ),
    Measurement(
        "prints",
        "{size} tiny prints",
        "s",
        (HIVE, "jupyter_client", "ipyparallel", "pipe"),
        (Goal(1, "jupyter_client"),),
        size=1_000_000,
        quick_size=200_000,
        rounds=3,
    ),
    Measurement(
        "cell-prints",
        "the same in a notebook's cell, seen by the front-end",
        "s",
        _KERNELS,
        (Goal(1, "jupyter_client"),),
        size=1_000_000,
        quick_size=200_000,
        rounds=3,
    ),
    Measurement(
        "print-cost",
        "what one tiny `print` costs the code that prints",
        "µs",
        _KERNELS,
        (Goal(1, "jupyter_client"),),
        size=200_000,
        quick_size=100_000,
        rounds=5,
    ),
    Measurement(
        "idle-memory",
        "memory of one more idle worker, its helper included",
        "MiB",
        (HIVE, "jupyter_client", "ipyparallel", "distributed", "loky"),
        (Goal(1 / 2, "jupyter_client"),),
        size=20,
        quick_size=5,
        rounds=1,
    ),
    Measurement(
        "flood-unread",
        "host's growth while a worker prints {size} such lines and nobody reads",
        "MiB",
        _KERNELS,
        size=1_000_000,
        quick_size=200_000,
        rounds=2,
    ),
    Measurement(
        "flood-slow",
        "the same with a reader that takes 50 messages a second",
        "MiB",
        _KERNELS,
        size=1_000_000,
        quick_size=200_000,
        rounds=2,
    ),
    Measurement(
        "load",
        "`%load_ext hive_jupyter`; `import ipyparallel`",
        "ms",
        (HIVE, "ipyparallel"),
        (Goal(100),),
    ),
    _moves("push", "1mb", 1),
    _moves("pull", "1mb", 1),
    _moves("push", "100mb", 100, 1 / 3),
    _moves("pull", "100mb", 100, 1 / 3),
    _moves("push", "1gb", 1000, 1 / 3),
    _moves("pull", "1gb", 1000, 1 / 3),
    _moves("push", "frame", 0, 1 / 5),
    _moves("pull", "frame", 0, 1 / 5),
    _maps("noops", 2, "{size} calls that do nothing", 2000),
    _maps("noops", 8, "{size} calls that do nothing", 2000),
    _maps("naps", 2, "{size} calls of 5 ms", 200),
    _maps("naps", 8, "{size} calls of 5 ms", 200),
    Measurement(
        "crowd-memory",
        "memory of {size} idle workers; of 130 plain kernels for 200, in proportion",
        "MiB",
        (HIVE, "jupyter_client"),
        (Goal(1, "jupyter_client"),),
        size=200,
        quick_size=20,
        rounds=1,
    ),
    Measurement(
        "cluster-noops",
        "{size} calls that do nothing, on a Dask cluster of 2 workers",
        "ms",
        (HIVE, "distributed"),
        (Goal(1, "distributed"),),
        size=2000,
        quick_size=2000,
        rounds=3,
    ),
    Measurement("import-package", "`import hive_jupyter`", "ms", (HIVE,), rounds=5),
)

BY_NAME = {measurement.name: measurement for measurement in MEASUREMENTS}
