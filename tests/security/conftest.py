"""Hosts to attack."""

import pytest

from tests.security.hosts import AttackedHosts


@pytest.fixture(scope="session")
def attacked():
    hosts = AttackedHosts()
    yield hosts
    hosts.close()


@pytest.fixture
def host(attacked, column):
    """The host for the test's column of the table."""
    host = attacked.of(column)
    why_not = host.why_not(column)
    if why_not:
        pytest.skip(why_not)
    return host
