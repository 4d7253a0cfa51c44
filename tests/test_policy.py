"""A policy is checked when it is made."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.errors import ConfigError
from hive_jupyter.policy import PROFILES, SMALLEST_MEMORY, SandboxPolicy


def test_equal_policies_are_interchangeable():
    """Spares are kept by policy, so it must be a key."""
    assert {SandboxPolicy(memory=2**30): 1}[SandboxPolicy("workspace", 2**30)] == 1


def test_a_policy_never_changes():
    """A worker's policy is the one that it started with."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SandboxPolicy().memory = 2**30


def test_an_unknown_profile_gets_its_neighbour():
    """A typing error must not mean less of a sandbox."""
    with pytest.raises(ConfigError, match='Did you mean "workspace"'):
        SandboxPolicy("workspce")


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"outputs": "frame"}, 'Did you mean "framed"'),
        ({"readable": ("data",)}, "no absolute path"),
        ({"writable": ("../x",)}, "no absolute path"),
        ({"connect": (0,)}, "1 to 65535"),
        ({"connect": (65536,)}, "1 to 65535"),
        ({"processes": 31}, "at least 32"),
        ({"open_files": 63}, "at least 64"),
        ({"cpu_time": 0}, "at least 1"),
        ({"file_size": 0}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, advice):
    """With what would."""
    with pytest.raises(ConfigError, match=advice):
        SandboxPolicy(**wrong)


def test_the_profile_says_what_is_shown_unless_somebody_does():
    """Of what a worker says."""
    rules = [SandboxPolicy(profile).output_rule for profile in PROFILES]

    assert ["trusted", "framed", "inert"] == rules
    assert "inert" == SandboxPolicy("open", outputs="inert").output_rule


@given(
    st.builds(
        SandboxPolicy,
        profile=st.sampled_from(PROFILES),
        memory=st.none() | st.integers(SMALLEST_MEMORY, 2**60),
        readable=st.lists(st.text().map("/{}".format)).map(tuple),
        connect=st.lists(st.integers(1, 65535)).map(tuple),
        processes=st.none() | st.integers(32, 10**6),
        outputs=st.none() | st.sampled_from(["trusted", "framed", "inert"]),
    )
)
def test_a_policy_arrives_whole(policy):
    """On its way to the worker, as JSON."""
    assert policy == SandboxPolicy.of(json.loads(json.dumps(policy.facts())))


def test_memory_that_no_worker_can_start_in_is_refused():
    """With the least that works."""
    with pytest.raises(ConfigError, match="at least 160 MB"):
        SandboxPolicy(memory=SMALLEST_MEMORY - 1)

    assert SMALLEST_MEMORY == SandboxPolicy(memory=SMALLEST_MEMORY).memory
