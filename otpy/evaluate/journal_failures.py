"""Why rows failed, as JSON data and back; and which failures may pass by themselves. Pure."""

from __future__ import annotations

import functools
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import (
    ActorError,
    ClientError,
    LMContextWindowExceeded,
    LMRefusal,
    LMRequestInvalid,
    NoApplication,
    OtpyError,
    shown,
)
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RecordedFailure", "is_json", "may_pass", "reason_data", "reason_of"]

_ERRORS: Final = sys.modules[OtpyError.__module__]
_FINAL: Final = (LMContextWindowExceeded, LMRefusal, LMRequestInvalid)
_PASSING: Final = (ActorError, NoApplication, ConnectionError, TimeoutError)
_HERE_ONLY: Final = frozenset({"exchanges"})  # numbers in the history of the process that asked
_SCALARS: Final = frozenset({str, float, bool, type(None)})
_DEEPEST: Final = 100
_LARGEST: Final[int] = 10 ** (sys.int_info.str_digits_check_threshold - 1)  # what every Python can write and read


class RecordedFailure(OtpyError):
    """An exception of somebody else's, as a journal remembers it: its class's name and its text.

    It prints as the exception did, and two of them are equal if they print alike. It comes as a subclass of that name,
    so that failures are counted by the same name whether they were read or have just happened.

    Args:
        kind: The exception's class.
        text: What it said.

    Example:
        >>> from otpy.evaluate.journal_failures import RecordedFailure
        >>> RecordedFailure.of("ZeroDivisionError", "division by zero")
        ZeroDivisionError('division by zero')
    """

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        self.kind, self.text = kind, text
        super().__init__(text)

    @staticmethod
    def of(kind: str, text: str) -> RecordedFailure:
        """Make one whose class has the exception's name.

        Args:
            kind: The exception's class.
            text: What it said.
        """
        return _named(kind)(kind, text)

    def __eq__(self, other: object) -> bool:
        """Whether they print alike."""
        return isinstance(other, RecordedFailure) and (other.kind, other.text) == (self.kind, self.text)

    def __hash__(self) -> int:
        """By what is printed."""
        return hash((self.kind, self.text))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle both."""
        return RecordedFailure.of, (self.kind, self.text)


@functools.lru_cache(256)
def _named(kind: str) -> type[RecordedFailure]:
    return type(kind, (RecordedFailure,), {"__doc__": RecordedFailure.__doc__, "__module__": __name__})


def may_pass(reason: Any) -> bool:
    """Whether a row that failed so may well succeed when it is asked again, with nothing changed but the world.

    So it is with deadlines, kills, connections, refusals for now, and whatever is settled outside of the program: a
    key, a budget, a quota. An answer that was got and paid for is final, however wrong it is, and so is an exception in
    the program's or the metric's own code.

    Args:
        reason: The exception, or the exit reason.

    Example:
        >>> from otpy.errors import AdapterParseError, LMTimeout
        >>> from otpy.evaluate.journal_failures import may_pass
        >>> may_pass("timeout"), may_pass(LMTimeout("late")), may_pass(AdapterParseError("Triage", "dunno"))
        (True, True, False)
    """
    if not isinstance(reason, BaseException):
        return True
    return isinstance(reason, _PASSING) or (isinstance(reason, ClientError) and not isinstance(reason, _FINAL))


def reason_data(reason: Any) -> dict[str, Any]:
    """Return an exception or an exit reason as JSON data.

    Args:
        reason: The one or the other; of what is no text or exception, its text remains.
    """
    if not isinstance(reason, BaseException):
        return {"exit": reason if type(reason) is str else shown(reason)}
    kind = type(reason)
    try:
        text = str(reason)
    except Exception as error:  # noqa: BLE001 - an error about an error must not fail
        text = f"(its text raises {type(error).__name__})"
    data: dict[str, Any] = {"kind": kind.__name__, "text": text}
    if getattr(_ERRORS, kind.__name__, None) is kind:
        data["fields"] = {name: _packed(value) for name, value in vars(reason).items() if name not in _HERE_ONLY}
    return data


def reason_of(data: Mapping[str, Any]) -> Any:
    """Return what `reason_data` made such data of: our own errors as they were, others as `RecordedFailure`.

    Args:
        data: The data.

    Raises:
        ValueError: If it is none; `KeyError` or `TypeError` likewise.
    """
    if "exit" in data:
        return str(data["exit"])
    kind, text = str(data["kind"]), str(data["text"])
    cls: Any = getattr(_ERRORS, kind, None)
    if "fields" not in data or not (isinstance(cls, type) and issubclass(cls, OtpyError)):
        return RecordedFailure.of(kind, text)
    fields = {name: _unpacked(word, value) for name, (word, value) in data["fields"].items()}
    rebuild, _ = OtpyError(text).__reduce__()
    return rebuild(cls, text, fields)


def is_json(value: Any, deepest: int = _DEEPEST) -> bool:
    """Whether a value is the same when it has been written as JSON and read again.

    Args:
        value: Any value.
        deepest: How many lists and dictionaries may be within each other.

    Example:
        >>> from otpy.evaluate.journal_failures import is_json
        >>> is_json({"a": [1, None]}), is_json({"a": (1, None)})
        (True, False)
    """
    kind = cast("Any", type(value))
    if kind in _SCALARS:
        return True
    if kind is int:
        return abs(cast("int", value)) < _LARGEST
    if not deepest:
        return False
    if kind is list:
        return all(is_json(item, deepest - 1) for item in cast("list[Any]", value))
    if kind is dict:
        return all(
            type(name) is str and is_json(item, deepest - 1) for name, item in cast("dict[Any, Any]", value).items()
        )
    return False


def _packed(value: Any) -> tuple[str, Any]:
    kind = cast("Any", type(value))
    if is_json(value):
        return "json", value
    if kind is tuple and is_json(list(value)):
        return "tuple", value
    if kind is Usage:
        return "usage", [getattr(value, name) for name in Usage.__slots__]
    if kind is Decimal:
        return "decimal", str(value)
    return "text", shown(value)


def _unpacked(word: str, value: Any) -> Any:
    match word:
        case "tuple":
            return tuple(value)
        case "usage":
            return Usage(*value)
        case "decimal":
            return Decimal(value)
        case _:
            return value
