"""The last requests and what came of them: exactly what was sent and received, in bounded memory. Pure.

Requests hold no keys; what callers put into `extra` might, so it is looked through before it is kept.
"""

from __future__ import annotations

from collections import deque
from copy import copy as copy_of
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.budget import ANYBODY, Labels
from otpy.errors import ClientError, ConfigError, OtpyError, shown
from otpy.lm import FrozenJSON

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from decimal import Decimal

    from otpy.lm import Content, LMRequest, LMResponse, Usage

__all__ = ["Exchange", "History", "scrubbed", "without_secrets"]

HIDDEN: Final = "***"
_SECRET_PARTS: Final = (
    "apikey", "apitoken", "accesskey", "accesstoken", "authtoken", "authorization", "bearer", "cookie", "credential",
    "idtoken", "passphrase", "passwd", "password", "privatekey", "refreshtoken", "secret", "sessiontoken", "signingkey",
    "subscriptionkey",
)  # fmt: skip
_SECRET_NAMES: Final = frozenset({"auth", "jwt", "key", "pat", "pwd", "token"})
_SECRET_BEGINNINGS: Final = (
    "AIza", "AKIA", "Basic ", "Bearer ", "basic ", "bearer ", "eyJ", "ghp_", "github_pat_", "gsk_", "hf_", "sk-",
    "xoxb-",
)  # fmt: skip


def scrubbed(value: Any) -> Any:
    """Return JSON data with whatever looks like a key or a password in it replaced by stars.

    Args:
        value: The data.

    Example:
        >>> from otpy.clients.history import scrubbed
        >>> scrubbed({"top_k": 5, "headers": {"X-Api-Key": "abc"}, "max_tokens": 9, "list": ["Bearer abc"]})
        {'top_k': 5, 'headers': {'X-Api-Key': '***'}, 'max_tokens': 9, 'list': ['***']}
    """
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: HIDDEN if _secret(name) and inner is not None else scrubbed(inner) for name, inner in items}
    if isinstance(value, list):
        return [scrubbed(inner) for inner in cast("Sequence[Any]", value)]
    return HIDDEN if isinstance(value, str) and value.startswith(_SECRET_BEGINNINGS) else value


def _secret(name: str) -> bool:
    plain = "".join(filter(str.isalnum, name.lower()))
    return plain in _SECRET_NAMES or any(word in plain for word in _SECRET_PARTS)


def without_secrets(request: LMRequest) -> LMRequest:
    """Return a request whose `extra` can be shown.

    Args:
        request: What is asked.
    """
    if request.extra == "{}":
        return request
    try:
        shown = FrozenJSON.of(scrubbed(request.extra.value))
    except ValueError:
        shown = FrozenJSON.of({"extra": HIDDEN})
    return request if shown == request.extra else replace(request, extra=shown)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it.

    Args:
        request: What was asked.
        response: What was answered; `None` if it failed.
        error: Why it failed; `None` if it was answered.
        client: Whom it was asked of.
        model: The model.
        began: When.
        seconds: How long it took.
        money: What it cost, in dollars; `None` if that is not known.
        cached: Whether the answer was remembered: nothing was sent, and nothing paid.
        attempts: How often it was sent.
        labels: Whose it was.
    """

    request: LMRequest
    response: LMResponse | None = None
    error: BaseException | None = None
    client: str = ""
    model: str = ""
    began: datetime | None = None
    seconds: float | None = None
    money: Decimal | None = None
    cached: bool = False
    attempts: int = 1
    labels: Labels = ANYBODY

    @property
    def usage(self) -> Usage | None:
        """Tokens, if it was answered."""
        return None if self.response is None else self.response.usage


class History:
    """The last exchanges, oldest first.

    Args:
        limit: How many are kept; 0 for none.
        max_bytes: How much text and media are kept, about; past it the oldest go first. The latest always stays.

    Raises:
        ConfigError: If one of them is negative.

    Example:
        >>> from otpy.clients.history import Exchange, History
        >>> from otpy.lm import LMRequest, LMResponse, Message
        >>> history = History(100)
        >>> history.add(Exchange(LMRequest((Message("user", "2 + 2?"),)), LMResponse("4"), client="default", model="m"))
        >>> [exchange.response.text for exchange in history.last(5)]
        ['4']
    """

    def __init__(self, limit: int = 1_000, *, max_bytes: int = 64_000_000) -> None:
        """Start empty."""
        if limit < 0 or max_bytes < 0:
            raise ConfigError(f"a history of limit={limit!r}, max_bytes={max_bytes!r}; allowed: 0 or more")
        self.limit, self.max_bytes = limit, max_bytes
        self._exchanges: deque[tuple[Exchange, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Count what is kept."""
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """Go through what is kept, oldest first."""
        return iter([exchange for exchange, _ in self._exchanges.copy()])

    def add(self, exchange: Exchange) -> None:
        """Keep one more, without secrets and without what an error drags along.

        Args:
            exchange: What happened.
        """
        if not self.limit:
            return
        request, error = without_secrets(exchange.request), exchange.error
        if request is not exchange.request:
            exchange = replace(exchange, request=request)
        if error is not None and error.__traceback__ is not None:
            exchange = replace(exchange, error=_detached(error))
        size = _size(exchange)
        self._exchanges.append((exchange, size))
        self._bytes += size
        while len(self._exchanges) > self.limit or (self._bytes > self.max_bytes and len(self._exchanges) > 1):
            self._bytes -= self._exchanges.popleft()[1]

    def last(self, n: int | None = None) -> list[Exchange]:
        """Return the last `n` exchanges, oldest first; all without `n`.

        Args:
            n: How many at most.

        Raises:
            ValueError: If `n` is negative.
        """
        if n is not None and n < 0:
            raise ValueError(f"n={n!r}; allowed: 0 or more, or None for all")
        kept = list(self)
        return kept if n is None else kept[len(kept) - min(n, len(kept)) :]

    def clear(self) -> None:
        """Forget everything."""
        self._exchanges.clear()
        self._bytes = 0


def _detached(error: BaseException) -> BaseException:
    """Copy an error without its traceback, whose frames would keep everything alive that they have seen."""
    if not isinstance(error, OtpyError):
        return ClientError(shown(error))
    copy: BaseException = copy_of(error)
    return copy


def _size(exchange: Exchange) -> int:
    request, response = exchange.request, exchange.response
    count = 1_000 + sum(_said(message.content) for message in request.messages)
    count += sum(len(tool.description) + len(tool.parameters) for tool in request.tools)
    count += 0 if request.schema is None else len(request.schema.schema)
    for choice in () if response is None else response.choices:
        count += len(choice.text) + _said(choice.parts) + 100 * len(choice.logprobs)
    return count


def _said(content: Content) -> int:
    if isinstance(content, str):
        return len(content)
    count = 0
    for part in content:
        values: list[Any] = [getattr(part, name) for name in type(part).__slots__]
        count += sum(len(value) for value in values if isinstance(value, (str, bytes)))
    return count
