"""The circuit breaker does what its picture says, whatever comes in whatever order."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hive_jupyter.config import HiveConfig
from hive_jupyter.swarm.breaker import CircuitBreaker

MAX_FAILURES = 3
RECOVERY_TIME = 30


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = 1000

    def __call__(self):
        return self.now


def make(clock, settings=None):
    return CircuitBreaker(settings or make_settings(), clock)


def make_settings():
    return HiveConfig(max_failures=MAX_FAILURES, recovery_time=RECOVERY_TIME)


def opened(clock, settings=None):
    breaker = make(clock, settings)
    for _ in range(MAX_FAILURES):
        breaker.failure()
    return breaker


def test_three_failures_in_a_row_open_it():
    """And it says when it is worth trying again."""
    clock = Clock()
    breaker = make(clock)

    breaker.failure()
    breaker.failure()
    assert ("closed", True) == (breaker.state, breaker.allow())
    breaker.failure()

    assert ("open", False) == (breaker.state, breaker.allow())
    assert RECOVERY_TIME == breaker.retry_in
    clock.now += 10
    assert RECOVERY_TIME - 10 == breaker.retry_in


def test_a_success_in_between_starts_the_count_anew():
    """Only failures in a row count."""
    breaker = make(Clock())

    for _ in range(10):
        breaker.failure()
        breaker.failure()
        breaker.success()

    assert ("closed", 0) == (breaker.state, breaker.failures)


def test_half_open_lets_exactly_one_through_until_its_outcome_is_told():
    """However many ask."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += RECOVERY_TIME

    assert "half-open" == breaker.state
    assert [True, False, False] == [breaker.allow() for _ in range(3)]
    clock.now += 1000
    assert not breaker.allow()


def test_a_trial_that_succeeds_closes_it():
    """All is forgotten."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += RECOVERY_TIME
    breaker.allow()

    breaker.success()

    assert ("closed", 0, 0.0, True) == (
        breaker.state,
        breaker.failures,
        breaker.retry_in,
        breaker.allow(),
    )


def test_a_trial_that_fails_opens_it_for_the_whole_time_again():
    """One failure is enough then."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += RECOVERY_TIME + 5
    breaker.allow()

    breaker.failure()

    assert ("open", RECOVERY_TIME) == (breaker.state, breaker.retry_in)


def test_a_trial_that_is_withdrawn_lets_the_next_one_try():
    """A user who cancels a start must not lock the circuit for ever."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += RECOVERY_TIME
    breaker.allow()

    breaker.withdraw()

    assert [True, False] == [breaker.allow() for _ in range(2)]


def test_a_latecomer_does_not_prolong_the_rest():
    """Runs that began before it opened may still fail after."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 20

    breaker.failure()

    assert RECOVERY_TIME - 20 == breaker.retry_in


def test_it_shows_itself():
    """In a log line or a debugger."""
    assert "<CircuitBreaker open, 3 failures in a row>" == repr(opened(Clock()))


@pytest.mark.parametrize("failures", [1, 2])
def test_the_number_of_failures_is_a_setting(failures):
    """One is allowed."""
    breaker = make(Clock(), HiveConfig(max_failures=failures))
    for _ in range(failures):
        breaker.failure()

    assert "open" == breaker.state


def test_a_setting_takes_effect_at_once():
    """Also on a circuit that is open."""
    clock, settings = Clock(), make_settings()
    breaker = opened(clock, settings)

    settings.recovery_time = 5
    assert 5 == breaker.retry_in
    settings.recovery_time = 0
    assert ("half-open", True) == (breaker.state, breaker.allow())

    breaker.success()
    settings.max_failures = 1
    breaker.failure()
    assert "half-open" == breaker.state


def test_a_longer_rest_does_not_make_a_trial_that_fails_the_last_one():
    """The circuit is open again when the trial, which it let through, tells its end."""
    clock, settings = Clock(), make_settings()
    breaker = opened(clock, settings)
    clock.now += RECOVERY_TIME
    breaker.allow()

    settings.recovery_time = 2 * RECOVERY_TIME
    breaker.failure()

    assert 2 * RECOVERY_TIME == breaker.retry_in
    clock.now += 2 * RECOVERY_TIME
    assert breaker.allow()


class BreakerMachine(RuleBasedStateMachine):
    """Beside the breaker runs a model that keeps the state as a word."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.settings = make_settings()
        self.breaker = make(self.clock, self.settings)
        self.state = "closed"
        self.failures = 0
        self.opened_at = 0
        self.trial = False

    def left(self):
        return self.opened_at + self.settings.recovery_time - self.clock.now

    def settle(self):
        if self.state != "closed":
            self.state = "open" if self.left() > 0 else "half-open"

    @rule(failures=st.integers(1, 5), seconds=st.integers(0, 60))
    def somebody_sets_it_otherwise(self, failures, seconds):
        self.settings.max_failures = failures
        self.settings.recovery_time = seconds
        self.settle()

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds):
        self.clock.now += seconds
        self.settle()

    @rule()
    def somebody_asks(self):
        expected = self.state == "closed" or (self.state == "half-open" and not self.trial)
        assert expected == self.breaker.allow()
        self.trial = self.trial or self.state == "half-open"

    @rule()
    def one_succeeds(self):
        self.breaker.success()
        self.state, self.failures, self.trial = "closed", 0, False

    @rule()
    def one_fails(self):
        self.breaker.failure()
        self.failures += 1
        is_one_too_many = self.failures >= self.settings.max_failures
        if self.trial or self.state == "half-open" or (self.state == "closed" and is_one_too_many):
            self.state, self.opened_at, self.trial = "open", self.clock.now, False
            self.settle()

    @precondition(lambda self: self.trial)
    @rule()
    def one_gives_up(self):
        self.breaker.withdraw()
        self.trial = False

    @invariant()
    def both_agree(self):
        assert (self.state, self.failures) == (self.breaker.state, self.breaker.failures)

    @invariant()
    def the_wait_is_told(self):
        assert (self.left() if self.state == "open" else 0) == self.breaker.retry_in


TestBreaker = BreakerMachine.TestCase
