"""What a client goes by when it sends, waits, tries again or gives up: its state machines, side by side. Pure.

The client process asks them before a request and tells them how it ended; none of them waits for anything.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.breaker import Breaker, Permit, counts_as_failure
from otpy.clients.concurrency import Concurrency
from otpy.clients.estimate import Estimator, letters_in
from otpy.clients.limiter import Limiter, Reservation
from otpy.clients.retry import RetryBudget, RetryPolicy
from otpy.errors import CircuitOpen, ClientError, LMError
from otpy.lm import LMResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.codec import Limits
    from otpy.clients.shared_limits import Granted
    from otpy.clock import Clock
    from otpy.config.settings import ClientSettings
    from otpy.lm import LMRequest

__all__ = ["TOO_MANY", "Admission", "Policies"]

MOST: Final = 100_000
"""Requests in flight where nothing bounds them."""
OVERLOADED: Final = frozenset({429, 503, 529})
"""Statuses with which providers say that they have too much to do."""
TOO_MANY: Final = 429
"""The one that means a limit of ours."""
SIGN_OF_A_LIMIT: Final = 0.5
"""The share of the latest answers that are refusals from which on there is taken to be a limit."""
WEIGHT: Final = 0.05
"""What the latest answer counts in that share."""


@dataclass(slots=True)
class Admission:
    """The right to send one request.

    Args:
        permit: The breaker's.
        reservation: The limiter's.
        sent: When, in seconds of the client's clock.
        letters: How many letters it has.
    """

    permit: Permit
    reservation: Reservation
    sent: float
    letters: int

    def take_back(self) -> None:
        """It was not sent after all."""
        self.permit.neutral()
        self.reservation.release()


class Policies:
    """The breakers, the limiter, the bound on concurrency and the retries of one client.

    Args:
        client: Its name, for messages.
        settings: Its settings.
        clock: Seconds that never run backwards.
    """

    def __init__(self, client: str, settings: ClientSettings, clock: Clock) -> None:
        """Start with everything closed, empty and unknown."""
        self.client, self._clock = client, clock
        self.limiter = Limiter(shared=settings.limits_storage is not None, clock=clock)
        self.shared: Mapping[str, Any] | None = None  # of the limits, if they are shared
        self.retries = RetryBudget(clock=clock)
        self.estimator = Estimator()
        self.breakers: dict[str, Breaker] = {}
        self.last_failure: LMError | None = None
        self._share_refused = 0.0
        self._learning = False
        self._rng = random.Random()  # noqa: S311 - jitter is no secret
        most = settings.in_flight or MOST
        self.concurrency = Concurrency(most, initial=most, tolerance=settings.latency_tolerance, clock=clock)
        self.retune(settings)

    def retune(self, settings: ClientSettings) -> None:
        """Take over new settings; what has been counted and learned stays."""
        self.settings = settings
        self.limiter.retune(settings.requests_per_minute, **settings.tokens_per_minute_by_kind)
        most = settings.in_flight or MOST
        self.concurrency.retune(most, minimum=min(settings.min_concurrency, most))
        self.concurrency.tolerance = settings.latency_tolerance
        self.retry = RetryPolicy(**settings.retry.model_dump(exclude={"share", "floor"}))
        self.retries.retune(share=settings.retry.share, floor=settings.retry.floor)
        for breaker in self.breakers.values():
            breaker.retune(**settings.breaker.model_dump())

    def breaker(self, model: str | None) -> Breaker:
        """Return the breaker of a model; `None` is the client's own."""
        name = model or self.settings.model_name
        found = self.breakers.get(name)
        if found is None:
            found = Breaker(self.client, name, **self.settings.breaker.model_dump(), clock=self._clock)
            self.breakers[name] = found
        return found

    # -- before a request ------------------------------------------------------------------------------------------

    def admit(self, request: LMRequest) -> Admission | float:
        """Let a request through, or return the seconds until the limiter would.

        Raises:
            CircuitOpen: If its model's breaker is open, or has its trial out.
        """
        breaker = self.breaker(request.model)
        try:
            permit = breaker.admit()
        except CircuitOpen as error:
            raise CircuitOpen(error.client, error.until, self.last_failure) from None
        letters = letters_in(request)
        reserved = self.limiter.reserve(*self.estimator(request, letters))
        if isinstance(reserved, Reservation):
            return Admission(permit, reserved, self._clock(), letters)
        permit.neutral()
        return reserved

    # -- after it --------------------------------------------------------------------------------------------------

    def ended(
        self, admission: Admission, request: LMRequest, outcome: object, limits: Limits | None, in_flight: int
    ) -> None:
        """Hear how a request ended.

        Args:
            admission: Its right to be sent.
            request: What was asked.
            outcome: An `LMResponse`, an `LMError`, or `None` if it was killed.
            limits: What the answer's headers say of the provider's limits.
            in_flight: How many requests were in flight, this one included.
        """
        if limits is not None:
            self._heard(limits)
        self._share_refused *= 1.0 - WEIGHT
        seconds = self._clock() - admission.sent
        if isinstance(outcome, LMResponse):
            admission.reservation.settle(outcome.usage)
            admission.permit.success()
            self.estimator.learn(request, outcome.usage, admission.letters)
            tokens = outcome.usage.output_tokens or outcome.usage.input_tokens  # of embeddings nothing is written
            self.concurrency.succeeded(seconds / max(tokens, 1), in_flight=in_flight)
        elif isinstance(outcome, LMError):
            if outcome.status == TOO_MANY and outcome.retryable:
                self._refused(admission.reservation, limits)
            else:
                admission.reservation.settle(Usage())
            if outcome.status in OVERLOADED and outcome.retryable:
                self.concurrency.dropped(seconds)
            if counts_as_failure(outcome):
                self.last_failure = outcome
            admission.permit.ended(outcome)
        else:
            admission.reservation.settle(Usage())
            admission.permit.neutral()

    def _refused(self, reservation: Reservation, limits: Limits | None) -> None:
        """Learn of a limit that nobody has told of; a few refusals among many answers are no sign of one."""
        self._share_refused += WEIGHT
        windows = () if limits is None else (limits.requests, limits.tokens, limits.input_tokens, limits.output_tokens)
        told = any(window.remaining == 0 for window in windows)
        if not told and (self._learning or self._share_refused > SIGN_OF_A_LIMIT):
            self._learning = True
            reservation.refused()
        else:
            reservation.release()

    def _heard(self, limits: Limits) -> None:
        """Take over what the provider says of its limits; who is asked to wait for too long fails, and holds nobody."""
        if limits.retry_after is not None and limits.retry_after > self.retry.max_wait:
            limits = replace(limits, retry_after=None)
        self.limiter.heard(limits)

    def granted(self, granted: Granted) -> None:
        """Hear what there is of a budget that several machines share."""
        self.shared = granted.shared
        self.limiter.granted(granted.taken, granted.waits)

    def delay(self, attempt: int, error: ClientError, *, streamed: bool, told: bool | None) -> float | None:
        """Return the seconds until the next attempt, or `None` for none.

        Args:
            attempt: How many there have been, from 1.
            error: How the last one ended.
            streamed: Whether the caller has had a piece of the answer.
            told: What the provider says of trying again.
        """
        asked = getattr(error, "retry_after", None)
        if error.retryable and asked is not None and asked <= self.retry.max_wait:
            self.limiter.pause(asked)
        return self.retry.delay(attempt, error, self._rng, streamed=streamed, should_retry=told, budget=self.retries)

    # -- looking in ------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return how everything stands, as plain data."""
        return {
            "breaker": self.breaker(None).state,
            "breakers": {model: breaker.state for model, breaker in self.breakers.items()},
            "concurrency": self.concurrency.limit,
            "limits": self.limiter.report(),
            "paused": self.limiter.paused,
            "shared": None if self.shared is None else dict(self.shared),
        }
