"""What goes wrong between a program and a model."""

from __future__ import annotations

from typing import Any

from otpy.errors.family import OtpyError

__all__ = [
    "BudgetExceeded",
    "CircuitOpen",
    "ClientError",
    "LMAuthError",
    "LMConnectionError",
    "LMContextWindowExceeded",
    "LMError",
    "LMQuotaExceeded",
    "LMRefusal",
    "LMRequestInvalid",
    "LMResponseInvalid",
    "LMStatusError",
    "LMTimeout",
    "ModelNotAvailable",
    "Overloaded",
    "RateLimited",
]


# -- clients --------------------------------------------------------------------------------------------------------


class ClientError(OtpyError):
    """A request to a model that was not answered."""


class Overloaded(ClientError):
    """The client refuses more work now; the request was not sent."""

    retryable = True


class RateLimited(ClientError):
    """The provider, or our own limiter on its behalf, says: later.

    Args:
        message: What happened.
        retry_after: Seconds to wait, if known.
    """

    retryable = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Keep how long to wait."""
        self.retry_after = retry_after
        super().__init__(message)


class CircuitOpen(ClientError):
    """The breaker is open: the provider failed often enough that asking is pointless for now.

    Args:
        client: The client and model.
        until: Seconds until a trial request is let through.
        last: The failure that opened it, if it is known.
    """

    retryable = True

    def __init__(self, client: str, until: float, last: BaseException | None = None) -> None:
        """Keep the client and the time left."""
        self.client, self.until, self.last = client, until, last
        why = "" if last is None else f", the last: {last}"
        super().__init__(
            f"{client}: circuit open after repeated failures{why}; a trial is let through in {until:.1f} s"
        )


class BudgetExceeded(ClientError):
    """The request was not sent because a hard cap would have been passed.

    Args:
        message: Which cap, and what to do next.
        cap: The cap.
        limit: How much it allows: dollars, tokens or requests.
        spent: How much of it is spent.
        reserved: How much is set aside for requests in flight.
        asked: How much this request might take; `None` if its price is not known.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self, message: str, *, cap: Any = None, limit: Any = 0, spent: Any = 0, reserved: Any = 0, asked: Any = 0
    ) -> None:
        """Keep the cap and how it stands."""
        self.cap, self.limit, self.spent, self.reserved, self.asked = cap, limit, spent, reserved, asked
        super().__init__(message)

    @property
    def may_fit_later(self) -> bool:
        """Whether it might be let through once the requests in flight have given back what they do not need."""
        return self.asked is not None and self.reserved > 0 and self.spent + self.asked <= self.limit


class ModelNotAvailable(ClientError):
    """A local model, or the software that runs it, is not installed; the message holds the command that installs it."""


class LMError(ClientError):
    """A request reached, or tried to reach, a language model and failed.

    Args:
        message: What happened and what to do next.
        client: Client name.
        model: Model name.
        status: HTTP status, if there was one.
        retry_after: Seconds the provider asks us to wait, if it does.
        body: The beginning of the provider's answer, never the request's headers.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        message: str,
        *,
        client: str = "",
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        body: str = "",
    ) -> None:
        """Keep where it failed and what the provider said."""
        self.client, self.model, self.status = client, model, status
        self.retry_after, self.body = retry_after, body
        super().__init__(message)


class LMAuthError(LMError):
    """The provider refuses the key (401, 403), or there is none."""


class LMConnectionError(LMError):
    """No connection, or it broke before the answer was whole."""

    retryable = True


class LMTimeout(LMError):
    """The provider did not answer in time."""

    retryable = True


class LMStatusError(LMError):
    """An HTTP status other than success that no narrower class describes."""

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the status is one that passes by itself (408, 409, 429, 5xx)."""
        return self.status is not None and (self.status in {408, 409, 429} or self.status >= 500)


class LMRequestInvalid(LMError):
    """The request cannot be said in the provider's dialect, or the provider refuses it as it is (400, 422)."""


class LMContextWindowExceeded(LMError):
    """The prompt is longer than the model can read; fewer or shorter demos help."""


class LMQuotaExceeded(LMStatusError):
    """The account's quota or credit is used up (429 or 402): waiting does not help."""

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """No: somebody has to pay first."""
        return False


class LMRefusal(LMError):
    """The model, or a filter of the provider, refuses to answer this."""


class LMResponseInvalid(LMError):
    """The provider answered with something its dialect does not allow (HTML, half a body, no choices)."""

    retryable = True
