"""What a hive does without a worker."""

import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import ConfigError


@pytest.fixture
def hive():
    """A hive that answers with instructions."""
    with HiveManager(direct=False) as hive:
        yield hive


def remembered(hive):
    return [run.code for run in hive.history()]


def test_the_history_holds_as_many_runs_as_are_wanted_now(hive):
    """And the latest of them."""
    hive.config.history_size = 3
    for number in range(5):
        hive.delegate(str(number))
    assert remembered(hive) == ["2", "3", "4"]

    hive.config.history_size = 2
    assert remembered(hive) == ["3", "4"]

    hive.config.history_size = 4
    hive.delegate("5")
    hive.delegate("6")
    assert remembered(hive) == ["3", "4", "5", "6"]


@pytest.mark.parametrize("lines", [0, -1])
def test_less_than_one_line_of_a_log_is_refused(hive, lines):
    with pytest.raises(ConfigError, match=f"{lines} is no number of lines"):
        hive.logs(lines=lines)

    assert "" == hive.logs(lines=1)
