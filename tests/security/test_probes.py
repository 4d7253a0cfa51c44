"""
Each abuse succeeds in the profile "open", and is stopped where the table says so.

The abuses are in ``probes/``, and beside each stands what is expected of it.
"""

import pytest

from tests.security import table
from tests.security.probe import COLUMNS, OPEN, UNLIMITED
from tests.security.probes import PROBES

CASES = [(name, column) for column in COLUMNS for name in PROBES]
CASES += [(name, UNLIMITED) for name, probe in PROBES.items() if probe.limited]


@pytest.mark.parametrize(
    ("name", "column"), CASES, ids=[f"{name}-{column.replace(' ', '-')}" for name, column in CASES]
)
def test_an_abuse_succeeds_where_the_table_says_so_and_nowhere_else(host, name, column):
    probe = PROBES[name]
    outcome, detail = host.probe(name, column)

    if probe.is_missing(outcome, column):
        pytest.skip(f"nothing here can be abused so: {probe.optional} ({detail})")
    assert (outcome, detail) == (probe.expected(column), detail)


def test_there_are_at_least_so_many_abuses_as_were_promised():
    assert len(PROBES) >= 120


def test_the_page_about_security_shows_what_is_expected():
    assert table.expected() == table.of_page()


@pytest.mark.parametrize("column", [OPEN])
def test_a_module_of_the_project_leaves_a_mark_where_it_runs(host, column):
    """Without this, the probe of shadowed modules would show nothing."""
    said = host.code(
        """
        import os, pathlib, subprocess, sys
        home = pathlib.Path.home()
        subprocess.run([sys.executable, "-c", "import zmq"], cwd=home / "traps", check=True)
        print(sorted({line.split()[0] for line in open(home / "marks")}))
        os.unlink(home / "marks")
        """,
        column,
    )

    assert "['zmq']\n" == said["stdout"], said
