"""Limits of a worker, applied to a child."""

import resource

import pytest

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker.confine import limits
from tests.children import in_child, users

KINDS = {
    "cpu_time": resource.RLIMIT_CPU,
    "memory": resource.RLIMIT_DATA,
    "file_size": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}


def limited(name, value, most):
    """Apply a limit where the system allows no more than another."""
    resource.setrlimit(KINDS[name], (most, most))
    limits.apply(SandboxPolicy(**{"processes": None, name: value}), own_users=True)
    return resource.getrlimit(KINDS[name])


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("name", KINDS)
def test_a_limit_that_is_lower_already_stays(name, user):
    most = 2**40 if name == "memory" else 200
    assert (most, most) == in_child(limited, name, most + 1, most, user=user)


@pytest.mark.parametrize("value", [200, 199])
def test_a_worker_has_a_second_after_its_processor_time_where_there_is_one(value):
    assert (value, 200) == in_child(limited, "cpu_time", value, 200)
    assert (value, value + 1) == in_child(limited, "cpu_time", value, resource.RLIM_INFINITY)
