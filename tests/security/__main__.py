"""
Run all probes here and now, and print where they succeed: ``python -m tests.security``.

With ``--write`` nothing is run: the table of ``docs/security.md`` is made anew.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from tests.security import table
from tests.security.hosts import AttackedHosts
from tests.security.probe import (
    ABSENT,
    COLUMNS,
    NAMESPACES,
    PLAIN,
    REFUSED,
    SUCCEEDED,
    tier_of,
)
from tests.security.probes import PROBES

_HEADS = ("open", "workspace", "w. plain", "strict", "s. plain")
_WIDTH = 9
_WORDS = {SUCCEEDED: "POSSIBLE", REFUSED: "stopped", ABSENT: "-"}


def main():
    """Return the exit code: 1 where something is not as the table of the page says."""
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    if parser.parse_args().write:
        table.write()
        return 0
    with ThreadPoolExecutor(2) as both:
        found = {}
        for part in both.map(_run, (NAMESPACES, PLAIN)):
            found |= part
    wrong = _print(found)
    print("\nplain: where user namespaces are refused, as in Docker.")
    print("-: this machine cannot do that, or is not asked to.")
    for name, column, detail in wrong:
        print(f"Not as docs/security.md says: {name} in {column} ({detail})")
    return int(bool(wrong))


def _run(tier):
    """What came of all probes in the columns of a tier."""
    hosts = AttackedHosts()
    columns = [column for column in COLUMNS if tier_of(column) == tier]
    found = {}
    for column in columns:
        host = hosts.of(column)
        why_not = host.why_not(column)
        if why_not:
            print(f"{column}: {why_not}", file=sys.stderr)
        else:
            found |= {(name, column): host.probe(name, column) for name in PROBES}
    hosts.close()
    return found


def _print(found):
    """Print the table; give what is not as expected."""
    wrong = []
    for topic, probes in groupby(PROBES.items(), lambda item: item[1].topic):
        print(f"\n{topic}\n{'':60}  {''.join(f'{head:{_WIDTH}}' for head in _HEADS)}")
        for name, probe in probes:
            line = ""
            for column in COLUMNS:
                outcome, detail = found.get((name, column), (ABSENT, ""))
                if probe.is_missing(outcome, column):
                    outcome = ABSENT
                if outcome not in {ABSENT, probe.expected(column)}:
                    wrong.append((name, column, detail))
                line += f"{_WORDS.get(outcome, outcome):{_WIDTH}}"
            print(f"{probe.title:60.60}  {line}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
