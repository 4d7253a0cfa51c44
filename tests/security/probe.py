"""
What a probe is: an abuse as a small function, and where it is expected to succeed.

The source of the function runs in a worker, behind ``abuse.py``. It *succeeds* where it returns,
and is *refused* where it raises an OSError, a MemoryError or ``Refused``, or its worker is killed.
Where returning proves nothing, ``@harm(probe_function)`` marks a second function that looks, in
the host, for the harm that was done; then that alone counts.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

# The columns of the table: profile, and whether there are namespaces.
OPEN = "open"
WORKSPACE, WORKSPACE_PLAIN = "workspace", "workspace plain"
STRICT, STRICT_PLAIN = "strict", "strict plain"
COLUMNS = (OPEN, WORKSPACE, WORKSPACE_PLAIN, STRICT, STRICT_PLAIN)
# No column: "open" without limits, in which what limits stop is shown to succeed.
UNLIMITED = "unlimited"

IN_OPEN = (OPEN,)
IN_WORKSPACE = (OPEN, WORKSPACE, WORKSPACE_PLAIN)
WITHOUT_NAMESPACES = (OPEN, WORKSPACE_PLAIN, STRICT_PLAIN)
EVERYWHERE = COLUMNS
NOWHERE = ()

# How a probe ends.
SUCCEEDED, REFUSED, ABSENT, BROKEN = "succeeded", "refused", "absent", "broken"

# What a machine may lack.
LANDLOCK, USER_NAMESPACES = "a Landlock of ABI 6", "user namespaces"

# The tiers of a machine: it has user namespaces, or refuses them as Docker does.
NAMESPACES, PLAIN = "namespaces", "plain"


def tier_of(column):
    """The tier that a column of the table is about."""
    return PLAIN if column.endswith(PLAIN) else NAMESPACES


# Every probe by its name, in the order of the table.
PROBES = {}


@dataclass
class Probe:
    """
    One abuse.

    Attributes:
        title: what it does, as the table says it.
        topic: under which it stands.
        function: does it; its source is all that counts.
        possible: the columns in which it succeeds.
        why: the reason, where it is stopped in "open" too, or succeeds in another column.
        optional: what the machine may lack, so that it is refused in "open" already.
        fresh: it needs a worker of its own, because it may break or leave something.
        limited: that worker has limits; in "open" without them the probe succeeds.
        folder: of the project that it runs in.
        holes: columns in which it succeeds, and should not: to be mended.
        harm: says, of a ``World``, whether harm was done.
        patience: seconds until it is there.
    """

    title: str
    topic: str
    function: Callable[[], object]
    possible: tuple[str, ...] = IN_OPEN
    why: str = ""
    optional: str = ""
    fresh: bool = False
    limited: bool = False
    folder: str = "project"
    holes: tuple[str, ...] = ()
    harm: Callable[..., bool] | None = None
    patience: float = 0.0

    def __post_init__(self):
        self.fresh |= self.limited
        assert self.name not in PROBES, self.name
        assert self.why or self.possible == IN_OPEN, f"{self.name}: say why"

    @property
    def name(self):
        return self.function.__name__

    def expected(self, column):
        """How it is expected to end."""
        return SUCCEEDED if column in {*self.possible, *self.holes, UNLIMITED} else REFUSED

    def is_missing(self, outcome, column):
        """Whether an outcome means that this machine has nothing to be abused so."""
        return outcome == ABSENT or (outcome == REFUSED and column == OPEN and bool(self.optional))

    @property
    def source(self):
        """The function without its decorator, behind the modules that its file imports."""
        modules = filter(inspect.ismodule, vars(inspect.getmodule(self.function)).values())
        source = inspect.getsource(self.function)
        function = source[source.index("\ndef ") + 1 :]
        return "".join(f"import {module.__name__}\n" for module in modules) + function


def topic(name):
    """A decorator for the probes of one topic; its arguments are those of ``Probe``."""

    def probe(title, **expectations):
        def keep(function):
            PROBES[function.__name__] = Probe(title, name, function, **expectations)
            return function

        return keep

    return probe


def harm(function, *, patience=0.0):
    """A decorator: what it marks looks for the harm that the probe ``function`` has done."""

    def keep(look):
        probe = PROBES[function.__name__]
        probe.harm, probe.patience = look, patience
        return look

    return keep
