"""A circuit breaker that is asked, not wrapped around a call: pybreaker's states behind a small gate.

pybreaker counts the failures and keeps the state. The gate adds what it lacks on an event loop: our clock decides when
a trial is due, exactly one trial is let through however many race, an outcome that began under an older state is no
news, and a cancellation is no vote. Source of the pattern: Nygard, "Release It!", ch. 5.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pybreaker

from otpy.clock import Clock, monotonic
from otpy.errors import CircuitOpen, ConfigError, LMError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker", "BreakerState", "BreakerStatus", "Permit", "counts_as_failure"]

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]

_NAMES: Final = {"closed": "closed", "open": "open", "half-open": "half_open"}


def counts_as_failure(error: BaseException) -> bool:
    """Return whether an error says that the provider is ill.

    It does not if the request was never sent, was cancelled, or is at fault itself (400, 401, context too long); nor if
    the provider is well and only wants less of them (429): that is the limiter's affair.

    Example:
        >>> from otpy.clients.breaker import counts_as_failure
        >>> from otpy.errors import LMAuthError, LMStatusError
        >>> [counts_as_failure(error) for error in (LMStatusError("", status=503), LMStatusError("", status=429))]
        [True, False]
        >>> counts_as_failure(LMAuthError("", status=401))
        False
    """
    return isinstance(error, LMError) and error.retryable and error.status not in {409, 429}


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """How a breaker is.

    Args:
        state: `"closed"`, `"open"` or `"half_open"`.
        failures: Failures in a row, in the closed state.
        until: Seconds until a trial request is let through; 0 unless it is open.
        trial: Whether one is under way.
    """

    state: BreakerState
    failures: int = 0
    until: float = 0.0
    trial: bool = False


class _Failure(Exception):
    """What pybreaker is told when a request failed."""


class Permit:
    """The right to send one request; exactly one of its methods says how it went, later ones are ignored."""

    __slots__ = ("_breaker", "_generation", "_used")

    def __init__(self, breaker: Breaker, generation: int) -> None:
        """Belong to a state of the breaker."""
        self._breaker, self._generation, self._used = breaker, generation, False

    def success(self) -> None:
        """The provider answered."""
        self._tell(self._breaker._succeeded)  # noqa: SLF001 - the two are one

    def failure(self) -> None:
        """The provider failed."""
        self._tell(self._breaker._failed)  # noqa: SLF001 - the two are one

    def neutral(self) -> None:
        """It says nothing about the provider: cancelled, or our own mistake."""
        self._tell(self._breaker._abstained)  # noqa: SLF001 - the two are one

    def ended(self, error: BaseException | None = None) -> None:
        """The request is over; what this says of the provider is for `counts_as_failure` to judge.

        Args:
            error: How it ended, `None` if it was answered.
        """
        if error is None:
            self.success()
        elif counts_as_failure(error):
            self.failure()
        else:
            self.neutral()

    def _tell(self, what: Callable[[], None]) -> None:
        if not self._used:
            self._used = True
            if self._generation == self._breaker._generation:  # noqa: SLF001 - the two are one
                what()


class Breaker:
    """The gate in front of one model of one client.

    Args:
        name: The client, for messages.
        model: The model, for messages.
        fail_max: Failures in a row that open it, at least 1.
        reset_timeout: Seconds from opening to the trial, more than 0.
        clock: Seconds that never run backwards.

    Raises:
        ConfigError: If a number is out of its range.

    Example:
        >>> from otpy.clients.breaker import Breaker
        >>> from otpy.clock import ManualClock
        >>> clock = ManualClock()
        >>> breaker = Breaker("openai", fail_max=1, reset_timeout=30, clock=clock)
        >>> breaker.admit().failure()
        >>> breaker.state
        'open'
        >>> clock.advance(30)
        >>> breaker.admit().success()
        >>> breaker.state
        'closed'
    """

    def __init__(
        self, name: str, model: str = "", *, fail_max: int = 5, reset_timeout: float = 5.0, clock: Clock = monotonic
    ) -> None:
        """Start closed."""
        self.name, self.model = name, model
        self._clock = clock
        self._opened_at = 0.0
        self._generation = 0
        self._trial_out = False
        self._inner = pybreaker.CircuitBreaker(throw_new_error_on_trip=False)
        self.retune(fail_max=fail_max, reset_timeout=reset_timeout)

    def retune(self, *, fail_max: int, reset_timeout: float) -> None:
        """Set both numbers anew; its state, and the failures counted, stay.

        Raises:
            ConfigError: If a number is out of its range; then none is changed.
        """
        if fail_max < 1 or not reset_timeout > 0:
            raise ConfigError(
                f"fail_max={fail_max!r}, reset_timeout={reset_timeout!r}: at least 1 failure, more than 0 seconds"
            )
        self._inner.fail_max, self.reset_timeout = fail_max, reset_timeout

    @property
    def status(self) -> BreakerStatus:
        """How it is, for whoever looks at it from outside."""
        state = self.state
        return BreakerStatus(
            state,
            self._inner.fail_counter if state == "closed" else 0,
            max(self._opened_at + self.reset_timeout - self._clock(), 0.0) if state == "open" else 0.0,
            self._trial_out,
        )

    @property
    def state(self) -> BreakerState:
        """`"closed"`, `"open"` or `"half_open"`."""
        return _NAMES[self._inner.current_state]  # type: ignore[return-value]

    def admit(self) -> Permit:
        """Let a request through.

        Raises:
            CircuitOpen: If it is open, or a trial is under way; `until` says how long to wait.
        """
        state = self.state
        if state == "closed":
            return Permit(self, self._generation)
        if state == "open":
            left = self._opened_at + self.reset_timeout - self._clock()
            if left > 0:
                raise CircuitOpen(self._label, left)
            self._inner.half_open()
            self._changed()
        if self._trial_out:
            raise CircuitOpen(self._label, min(1.0, self.reset_timeout))
        self._trial_out = True
        return Permit(self, self._generation)

    def reset(self) -> None:
        """Close it by hand."""
        self._inner.close()
        self._changed()

    @property
    def _label(self) -> str:
        return f"{self.name} ({self.model})" if self.model else self.name

    def _succeeded(self) -> None:
        before = self.state
        if before == "closed" and not self._inner.fail_counter:
            return  # nothing would change, and it is so nearly always
        self._inner.call(lambda: None)
        if self.state != before:
            self._changed()

    def _failed(self) -> None:
        before = self.state
        with contextlib.suppress(_Failure):
            self._inner.call(_fail)
        if self.state != before:
            self._opened_at = self._clock()
            self._changed()

    def _abstained(self) -> None:
        self._trial_out = False

    def _changed(self) -> None:
        self._generation += 1
        self._trial_out = False
        telemetry.emit("otpy.breaker.change", client=self.name, model=self.model, state=self.state)


def _fail() -> None:
    raise _Failure
