"""The last requests and what came of them: exactly what was sent and received, in bounded memory. Pure.

Requests hold no keys; what callers put into `extra` might, so it is looked through before it is kept. A provider may
repeat a key in whatever it says, so known keys are starred out of all that is shown.

An exchange has a number, which is all that whoever asked needs to remember of it: see `expected` and `found`.
"""

from __future__ import annotations

import html
import itertools
import re
import secrets
import weakref
from collections import deque
from copy import copy as copy_of
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.labels import ANYBODY, Labels
from otpy.errors import ClientError, ConfigError, OtpyError, shown
from otpy.lm import FrozenJSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from decimal import Decimal

    from otpy.lm import Content, LMRequest, LMResponse, Usage

__all__ = ["Exchange", "History", "expected", "found", "number_of", "over", "scrubbed", "without", "without_secrets"]

HIDDEN: Final = "***"
SHORTEST_KEY: Final = 8
"""Characters of the shortest key that is starred out: `none` and its like, which a local server takes, are words."""
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


def without(value: Any, keys: Iterable[str]) -> Any:
    """Return a value with these keys replaced by stars, wherever in it they stand; the same object if they don't.

    Args:
        value: A text, or anything made of texts: data classes, tuples, lists, dictionaries, errors.
        keys: What nobody may see.

    Example:
        >>> from otpy.clients.history import without
        >>> from otpy.lm import Message
        >>> without((Message("user", "my key is sk-12345678"), 7), ["sk-12345678"])
        (Message(role='user', content='my key is ***'), 7)
    """
    pattern = _pattern(keys)
    return value if pattern is None else _without(value, pattern)


def _pattern(keys: Iterable[str]) -> re.Pattern[str] | None:
    known = sorted(set(keys), key=len, reverse=True)
    return re.compile("|".join(map(_spellings, known))) if known else None


def _spellings(key: str) -> str:
    """Return a pattern for a key however often it was put into JSON, a page or an address, or cut off behind its head.

    An error quotes the beginning of an answer, and that may end within a key.
    """
    chars = [char if char.isalnum() else _SPELT.format(re.escape(char), ord(char), _entity(char)) for char in key]
    found = ["".join(chars)]
    for start in reversed(range(SHORTEST_KEY, len(chars), _NESTED)):
        tail = ""
        for char in reversed(chars[start : start + _NESTED]):
            tail = f"(?:{char}{tail})?"
        found.append("".join(chars[:start]) + tail)
    return "|".join(found)


_NESTED: Final = 50  # groups within groups, of which a pattern has no more than it can be read with
_SPELT: Final = (
    r"\\{{0,8}}(?:{0}|u00{1:02x}|u00{1:02X}|x{1:02x}|%(?:25)*(?:{1:02x}|{1:02X})|&(?:amp;)*(?:#{1};|#x{1:x};{2}))"
)


def _entity(char: str) -> str:
    name = html.escape(char)
    return f"|{name[1:]}" if name != char else ""


def _without(value: Any, keys: re.Pattern[str]) -> Any:  # noqa: PLR0911 - one way for each kind of value
    if isinstance(value, str):
        text = keys.sub(HIDDEN, value)
        return value if text == value else type(value)(text)
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        hidden = keys.sub(HIDDEN, text)
        return value if hidden == text else hidden.encode("latin-1")
    whole: Any = value
    if isinstance(value, (tuple, list, set, frozenset)):
        old: list[Any] = list(whole)
        new = [_without(item, keys) for item in old]
        if all(one is other for one, other in zip(old, new, strict=True)):
            return whole
        return whole._make(new) if hasattr(whole, "_make") else type(whole)(new)
    if isinstance(value, dict):
        items = [(_without(name, keys), _without(inner, keys)) for name, inner in whole.items()]
        same = all(name is a and inner is b for (name, inner), (a, b) in zip(whole.items(), items, strict=True))
        return whole if same else dict(items)
    if isinstance(value, BaseException):
        args, facts = _without(value.args, keys), _without(vars(value), keys)
        if args is value.args and facts == vars(value):
            return value
        copy: BaseException = copy_of(value)
        copy.args = args
        vars(copy).update(facts)
        return copy
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(whole, part.name) for part in fields(whole)}
        news = {name: new for name, part in parts.items() if (new := _without(part, keys)) is not part}
        return replace(whole, **news) if news else whole
    return value


# -- numbers ----------------------------------------------------------------------------------------------------------

_numbers: Final = itertools.count(secrets.randbits(52))  # at random: what was kept by another process is not found here
_expected: Final[dict[int, int]] = {}
_histories: Final[list[weakref.ref[History]]] = []


def expected(request: LMRequest) -> int:
    """Return the number that the exchange of a request will have, until it is `over`.

    Args:
        request: What is about to be asked; told by identity, and to be kept alive meanwhile.
    """
    number = _expected[id(request)] = next(_numbers)
    return number


def over(request: LMRequest) -> None:
    """Expect no exchange of this request any more; it may never have been expected.

    Args:
        request: What was asked.
    """
    _expected.pop(id(request), None)


def number_of(request: LMRequest) -> int:
    """Return the number for a request's exchange: the one that is expected, or a new one.

    Args:
        request: What was asked.
    """
    number = _expected.get(id(request))
    return next(_numbers) if number is None else number


def found(numbers: Iterable[int]) -> list[Exchange]:
    """Return the exchanges of these numbers, as far as any history in this process still has them, oldest first.

    Args:
        numbers: As returned by `expected`.
    """
    wanted = frozenset(numbers)
    histories = [history for one in tuple(_histories) if (history := one()) is not None]
    return [exchange for history in histories for exchange in history.numbered(wanted)]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it.

    Args:
        request: What was asked.
        response: What was answered; `None` if it failed.
        error: Why it failed; `None` if it was answered.
        client: Who answered, or failed to.
        model: The model.
        began: When.
        seconds: How long it took.
        money: What it cost, in dollars; `None` if that is not known.
        cached: Whether the answer was remembered: nothing was sent, and nothing paid.
        attempts: How often it was sent.
        labels: Whose it was.
        route: The route it was asked over, if it was one.
        number: Which one it is, among all in this process.
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
    route: str = ""
    number: int = field(default_factory=lambda: next(_numbers), compare=False, repr=False)

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
        self._keys: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        _histories.append(weakref.ref(self, _histories.remove))

    def __len__(self) -> int:
        """Count what is kept."""
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        """Go through what is kept, oldest first, without keys."""
        return iter([self._shown(exchange) for exchange, _ in self._exchanges.copy()])

    def hide(self, *keys: str) -> None:
        """Star these keys out of all that is looked at from now on, whatever anybody wrote.

        Args:
            keys: The keys; those of fewer than 8 characters are words.
        """
        self._keys.update(key for key in keys if len(key) >= SHORTEST_KEY)
        self._pattern = None

    def _shown(self, exchange: Exchange) -> Exchange:
        pattern = self._pattern = self._pattern or _pattern(self._keys)
        shown: Exchange = exchange if pattern is None else _without(exchange, pattern)
        return shown

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
        kept = [exchange for exchange, _ in self._exchanges.copy()]
        wanted = kept if n is None else kept[len(kept) - min(n, len(kept)) :]
        return [self._shown(exchange) for exchange in wanted]

    def numbered(self, numbers: frozenset[int]) -> list[Exchange]:
        """Return the exchanges of these numbers that are kept, oldest first.

        Args:
            numbers: The numbers.
        """
        wanted = [exchange for exchange, _ in self._exchanges.copy() if exchange.number in numbers]
        return [self._shown(exchange) for exchange in wanted]

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
    count = 1_000 if request.schema is None else 1_000 + len(request.schema.schema)
    for message in request.messages:
        content = message.content
        count += len(content) if isinstance(content, str) else _said(content)
    for tool in request.tools:
        count += len(tool.description) + len(tool.parameters)
    if response is not None:
        count += len(response.text)
        if response.parts or response.logprobs or response.others:
            count += sum(len(one.text) + _said(one.parts) + 100 * len(one.logprobs) for one in response.choices)
    return count


def _said(content: Content) -> int:
    if isinstance(content, str):
        return len(content)
    count = 0
    for part in content:
        values: list[Any] = [getattr(part, name) for name in type(part).__slots__]
        count += sum(len(value) for value in values if isinstance(value, (str, bytes)))
    return count
