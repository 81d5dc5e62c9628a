"""A circuit breaker that is asked, not wrapped around a call: pybreaker's states behind a small gate.

pybreaker counts the failures and keeps the state. The gate adds what it lacks on an event loop: our clock decides when
a trial is due, exactly one trial is let through however many race, an outcome that began under an older state is no
news, and a cancellation is no vote. Source of the pattern: Nygard, "Release It!", ch. 5.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pybreaker

from otpy.clock import Clock, monotonic
from otpy.errors import CircuitOpen
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker", "BreakerState", "Permit"]

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]

_NAMES: Final = {"closed": "closed", "open": "open", "half-open": "half_open"}


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

    def _tell(self, what: Callable[[], None]) -> None:
        if not self._used:
            self._used = True
            if self._generation == self._breaker._generation:  # noqa: SLF001 - the two are one
                what()


class Breaker:
    """The gate in front of one provider.

    Args:
        name: For messages.
        fail_max: Failures in a row that open it.
        reset_timeout: Seconds from opening to the trial.
        clock: Seconds that never run backwards.

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

    def __init__(self, name: str, *, fail_max: int = 5, reset_timeout: float = 5.0, clock: Clock = monotonic) -> None:
        """Start closed."""
        self.name, self.reset_timeout = name, reset_timeout
        self._clock = clock
        self._opened_at = 0.0
        self._generation = 0
        self._trial_out = False
        self._inner = pybreaker.CircuitBreaker(
            fail_max=fail_max, reset_timeout=reset_timeout, throw_new_error_on_trip=False
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
        if self.state == "open":
            left = self._opened_at + self.reset_timeout - self._clock()
            if left > 0:
                raise CircuitOpen(self.name, left)
            self._inner.half_open()
            self._changed()
        if self.state == "half_open":
            if self._trial_out:
                raise CircuitOpen(self.name, min(1.0, self.reset_timeout))
            self._trial_out = True
        return Permit(self, self._generation)

    def reset(self) -> None:
        """Close it by hand."""
        self._inner.close()
        self._changed()

    def _succeeded(self) -> None:
        before = self.state
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
        telemetry.emit("otpy.breaker.change", client=self.name, state=self.state)


def _fail() -> None:
    raise _Failure
