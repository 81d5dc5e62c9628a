"""What a type checker knows about otpy's public names: checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from otpy.clock import Clock, ManualClock, monotonic
from otpy.errors import AdapterParseError, EvaluationAborted, LMError, OtpyError, RateLimited
from otpy.lm import FrozenJSON, LMRequest, LMResponse, Message, Role, Usage


def clocks() -> None:
    """A clock is anything that returns seconds."""
    clock: Clock = ManualClock()
    assert_type(clock(), float)
    other: Clock = monotonic
    assert_type(other(), float)


def words(request: LMRequest, response: LMResponse, message: Message) -> None:
    """Requests and answers are typed values."""
    assert_type(message.role, Role)
    assert_type(request.messages, tuple[Message, ...])
    assert_type(request.key(), str)
    assert_type(request.temperature, float | None)
    assert_type(response.usage + Usage(), Usage)
    assert_type(response.usage.total_tokens, int)
    assert_type(FrozenJSON.of({}).value, Any)


def errors(error: OtpyError) -> None:
    """Each error carries its fields."""
    assert_type(error.retryable, bool)
    if isinstance(error, RateLimited):
        assert_type(error.retry_after, float | None)
    if isinstance(error, LMError):
        assert_type(error.status, int | None)
    if isinstance(error, AdapterParseError):
        assert_type(error.missing, tuple[str, ...])
    if isinstance(error, EvaluationAborted):
        assert_type(error.result, Any)
