"""The breaker: the states of the book, and every trap of wrapping pybreaker around a call."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otpy.clients.breaker import Breaker, BreakerStatus
from otpy.clock import ManualClock
from otpy.errors import (
    ActorDown,
    BudgetExceeded,
    CircuitOpen,
    ConfigError,
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    Overloaded,
    RateLimited,
)
from otpy.telemetry import bus


def breaker(**parameters):
    clock = ManualClock()
    return Breaker("openai", clock=clock, **({"fail_max": 3, "reset_timeout": 10.0} | parameters)), clock


def opened(**parameters):
    gate, clock = breaker(**parameters)
    for _ in range(parameters.get("fail_max", 3)):
        gate.admit().failure()
    assert gate.state == "open"
    return gate, clock


# -- the states -------------------------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    gate, _ = breaker()
    for outcome in ("failure", "failure", "success", "failure", "failure"):
        getattr(gate.admit(), outcome)()
    assert gate.state == "closed"
    gate.admit().failure()
    assert gate.state == "open"


def test_an_open_one_admits_nobody_and_says_for_how_long():
    gate, clock = opened()
    clock.advance(4)
    with pytest.raises(CircuitOpen, match="openai") as raised:
        gate.admit()
    assert raised.value.until == 6
    assert raised.value.retryable


def test_our_clock_and_no_other_decides_when_the_trial_is_due():
    gate, clock = opened(reset_timeout=1_000_000.0)
    clock.advance(999_999.9)
    with pytest.raises(CircuitOpen):
        gate.admit()
    clock.advance(0.2)
    gate.admit()
    assert gate.state == "half_open"


def test_a_good_trial_closes_it_and_the_count_begins_anew():
    gate, clock = opened()
    clock.advance(10)
    gate.admit().success()
    for _ in range(2):
        gate.admit().failure()
    assert gate.state == "closed"


def test_a_bad_trial_opens_it_for_as_long_again():
    gate, clock = opened()
    clock.advance(12)
    gate.admit().failure()
    with pytest.raises(CircuitOpen) as raised:
        gate.admit()
    assert raised.value.until == 10


def test_closing_it_by_hand_forgets_the_failures():
    gate, _ = opened()
    gate.reset()
    assert gate.state == "closed"
    for _ in range(2):
        gate.admit().failure()
    assert gate.state == "closed"
    gate.reset()
    for _ in range(2):
        gate.admit().failure()
    assert gate.state == "closed"


@pytest.mark.parametrize("wrong", [{"fail_max": 0}, {"reset_timeout": 0.0}, {"reset_timeout": float("nan")}])
def test_numbers_that_cannot_work_are_refused_and_change_nothing(wrong):
    with pytest.raises(ConfigError, match="at least 1 failure, more than 0 seconds"):
        breaker(**wrong)
    gate, _ = opened()
    with pytest.raises(ConfigError):
        gate.retune(**({"fail_max": 9, "reset_timeout": 9.0} | wrong))
    assert gate.status.until == 10


def test_new_numbers_keep_the_state_and_what_is_counted():
    gate, clock = breaker(fail_max=3)
    for _ in range(2):
        gate.admit().failure()
    gate.retune(fail_max=2, reset_timeout=4.0)
    assert gate.state == "closed"
    gate.admit().failure()
    assert gate.state == "open"
    clock.advance(3)
    gate.retune(fail_max=2, reset_timeout=3.0)
    gate.admit()


def test_its_state_is_there_to_be_seen():
    gate, clock = breaker()
    gate.admit().failure()
    assert gate.status == BreakerStatus("closed", failures=1)
    for _ in range(2):
        gate.admit().failure()
    clock.advance(4)
    assert gate.status == BreakerStatus("open", until=6)
    clock.advance(6)
    trial = gate.admit()
    assert gate.status == BreakerStatus("half_open", trial=True)
    trial.neutral()
    assert gate.status == BreakerStatus("half_open")


def test_the_model_is_named_in_the_message_and_the_event():
    seen = []
    gate = Breaker("default", "gpt-x", fail_max=1, clock=ManualClock())
    with bus.attached("test", lambda _, fields: seen.append(fields), prefix="otpy.breaker."):
        gate.admit().failure()
    assert seen == [{"client": "default", "model": "gpt-x", "state": "open"}]
    with pytest.raises(CircuitOpen, match=r"default \(gpt-x\): circuit open"):
        gate.admit()


# -- who is at fault --------------------------------------------------------------------------------------------------

ILL = [
    LMConnectionError("cut"),
    LMTimeout("late"),
    LMResponseInvalid("HTML", status=200),
    *[LMStatusError("no", status=status) for status in (408, 500, 502, 503, 504, 529)],
]
NOT_ILL = [
    LMAuthError("key", status=401),
    LMRequestInvalid("what", status=400),
    LMContextWindowExceeded("long", status=400),
    LMRefusal("no"),
    LMQuotaExceeded("pay", status=429),
    *[LMStatusError("no", status=status) for status in (404, 409, 413, 429)],
    RateLimited("later", 1.0),
    Overloaded("full"),
    CircuitOpen("openai", 1.0),
    BudgetExceeded("spent"),
    ActorDown("worker", "kill"),
    KeyError("ours"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", ILL, ids=repr)
def test_what_the_provider_cannot_do_opens_it(error):
    gate, _ = breaker(fail_max=2)
    for _ in range(2):
        gate.admit().ended(error)
    assert gate.state == "open"


@pytest.mark.parametrize("error", NOT_ILL, ids=repr)
def test_a_mistake_of_ours_never_opens_it_and_hides_nothing(error):
    gate, clock = breaker(fail_max=2)
    for _ in range(100):
        gate.admit().ended(error)
    assert gate.status == BreakerStatus("closed")
    gate.admit().ended(LMTimeout("late"))
    gate.admit().ended(error)
    gate.admit().ended(LMTimeout("late"))
    assert gate.state == "open"
    clock.advance(10)
    gate.admit().ended(error)
    assert gate.state == "half_open"
    gate.admit().ended(None)
    assert gate.state == "closed"


# -- the traps --------------------------------------------------------------------------------------------------------


def test_exactly_one_of_a_thousand_racing_callers_is_the_trial():
    gate, clock = opened()
    clock.advance(10)
    trial = gate.admit()
    for _ in range(999):
        with pytest.raises(CircuitOpen) as raised:
            gate.admit()
        assert 0 < raised.value.until <= 10
    trial.success()
    assert gate.state == "closed"


def test_a_cancelled_trial_is_no_vote_and_makes_room_for_the_next():
    gate, clock = opened()
    clock.advance(10)
    gate.admit().neutral()
    assert gate.state == "half_open"
    gate.admit().success()
    assert gate.state == "closed"


def test_cancellations_open_nothing_and_hide_no_failure():
    gate, _ = breaker()
    for _ in range(100):
        gate.admit().neutral()
    assert gate.state == "closed"
    for outcome in ("failure", "neutral", "failure", "neutral", "failure"):
        getattr(gate.admit(), outcome)()
    assert gate.state == "open"


def test_a_hundred_calls_that_began_before_it_opened_open_it_once_and_push_nothing_on():
    gate, clock = breaker()
    permits = [gate.admit() for _ in range(100)]
    for permit in permits[:3]:
        permit.failure()
    clock.advance(5)
    for permit in permits[3:]:
        permit.failure()
    clock.advance(5)
    gate.admit()
    assert gate.state == "half_open"


def test_a_late_success_from_before_closes_nothing():
    gate, clock = breaker()
    late = gate.admit()
    for _ in range(3):
        gate.admit().failure()
    late.success()
    assert gate.state == "open"
    clock.advance(10)
    later = gate.admit()
    later.neutral()
    gate.admit().failure()
    later.success()
    assert gate.state == "open"


def test_a_late_failure_of_an_old_trial_does_not_count_against_a_closed_one():
    gate, clock = opened(fail_max=1)
    clock.advance(10)
    trial = gate.admit()
    gate.reset()
    trial.failure()
    assert gate.state == "closed"


@pytest.mark.parametrize("first", ["success", "failure", "neutral"])
def test_only_the_first_word_of_a_permit_counts(first):
    gate, _ = breaker(fail_max=2)
    permit = gate.admit()
    getattr(permit, first)()
    for _ in range(5):
        permit.failure()
        permit.success()
        permit.neutral()
    gate.admit().failure()
    assert gate.state == ("open" if first == "failure" else "closed")


def test_no_lock_is_held_between_a_permit_and_its_outcome():
    gate, _ = breaker()
    permits = [gate.admit() for _ in range(1_000)]
    for permit in reversed(permits):
        permit.success()
    assert gate.state == "closed"


# -- against a model --------------------------------------------------------------------------------------------------


class AgainstTheModel(RuleBasedStateMachine):
    """Any order of admissions, outcomes, pauses and resets, compared with a description in plain numbers."""

    FAIL_MAX, RESET = 3, 10.0

    def __init__(self):
        super().__init__()
        self.gate, self.clock = breaker(fail_max=self.FAIL_MAX, reset_timeout=self.RESET)
        self.state, self.failures, self.until, self.era, self.trial = "closed", 0, 0.0, 0, False
        self.permits = []

    def turn(self, state):
        self.state, self.failures, self.trial = state, 0, False
        self.era += 1
        if state == "open":
            self.until = self.clock() + self.RESET

    @rule()
    def admit(self):
        if self.state == "open" and self.clock() >= self.until:
            self.turn("half_open")
        if self.state == "open" or (self.state == "half_open" and self.trial):
            with pytest.raises(CircuitOpen):
                self.gate.admit()
            return
        self.trial = self.state == "half_open"
        self.permits.append([self.gate.admit(), self.era])

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "neutral"]), keep=st.booleans())
    def end(self, data, outcome, keep):
        permit, era = entry = data.draw(st.sampled_from(self.permits))
        getattr(permit, outcome)()
        if keep:
            entry[1] = None  # a word said twice
        else:
            self.permits.remove(entry)
        if era != self.era:
            return
        if outcome == "neutral":
            self.trial = False
        elif self.state == "half_open":
            self.turn("closed" if outcome == "success" else "open")
        elif outcome == "success":
            self.failures = 0
        else:
            self.failures += 1
            if self.failures == self.FAIL_MAX:
                self.turn("open")

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def reset(self):
        self.gate.reset()
        self.turn("closed")

    @invariant()
    def agree(self):
        assert self.gate.state == self.state


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
