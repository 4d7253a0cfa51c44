"""A policy is checked when it is made."""

import dataclasses

import pytest

from hive_jupyter.errors import ConfigError, SandboxUnavailable
from hive_jupyter.policy import SMALLEST_MEMORY, SandboxPolicy


def test_equal_policies_are_interchangeable():
    """Spares are kept by policy, so it must be a key."""
    assert {SandboxPolicy(memory=2**30): 1}[SandboxPolicy("open", 2**30)] == 1


def test_a_policy_never_changes():
    """A worker's policy is the one that it started with."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SandboxPolicy().memory = 2**30


def test_an_unknown_profile_gets_its_neighbour():
    """A typing error must not mean less of a sandbox."""
    with pytest.raises(ConfigError, match='Did you mean "workspace"'):
        SandboxPolicy("workspce")


def test_strict_refuses_rather_than_pretend():
    """And says what is missing."""
    with pytest.raises(SandboxUnavailable, match="--sandbox open") as caught:
        SandboxPolicy("strict")

    assert ("filesystem", "network") == caught.value.missing


def test_memory_that_no_worker_can_start_in_is_refused():
    """With the least that works."""
    with pytest.raises(ConfigError, match="at least 128 MB"):
        SandboxPolicy(memory=SMALLEST_MEMORY - 1)

    assert SMALLEST_MEMORY == SandboxPolicy(memory=SMALLEST_MEMORY).memory
