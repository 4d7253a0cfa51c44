"""Who is about to open files is told whether there is room for them."""

import resource

from hive_jupyter.swarm.descriptors import lack_of_descriptors
from tests import hosts


def test_with_room_there_is_nothing_to_say():
    assert lack_of_descriptors(1) is None


def test_where_more_are_needed_than_allowed_the_limit_is_named():
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert f"may have {limit} open files (ulimit -n)" in lack_of_descriptors(limit + 1)


def test_a_process_that_cannot_open_anything_is_told_so():
    program = """
import os
from hive_jupyter.swarm.descriptors import lack_of_descriptors
try:
    while True:
        os.dup(1)
except OSError:
    print(lack_of_descriptors(1))
"""
    said = hosts.play(program, before=("sh", "-c", 'ulimit -n 32 && exec "$@"', "sh"))

    assert "may have 32 open files (ulimit -n) and has room for 0 more" in said
