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


def test_a_runtime_folder_that_gets_no_descriptor_says_so_and_is_not_left(tmp_path):
    """At each number of free descriptors, up to that which it needs."""
    program = """
import os, sys
from pathlib import Path
from hive_jupyter import HiveError
from hive_jupyter.swarm.runtime import RuntimeFolder
base, files = Path(sys.argv[1]), []
RuntimeFolder.create(base).remove()
try:
    while True:
        files.append(os.dup(1))
except OSError:
    pass
while True:
    try:
        folder = RuntimeFolder.create(base)
    except HiveError as error:
        print(error)
    else:
        break
    finally:
        for file in files[:10]: os.close(file)
        print(*os.listdir(base))
        for file in files[:10]: os.dup2(1, file)
    os.close(files.pop())
folder.remove()
"""
    few = ("sh", "-c", 'ulimit -n 32 && exec "$@"', "sh")
    said = hosts.play(program, str(tmp_path), before=few)

    *failed, made = said.splitlines()
    assert len(failed) == 4
    assert all("may have 32 open files (ulimit -n)" in line for line in failed[::2])
    assert failed[1::2] == ["", ""]
    assert made
