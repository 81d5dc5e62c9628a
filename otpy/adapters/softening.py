"""Values that are not quite of their type but can mean only one thing: another case, other quotes, a comma in 1,234.

Only spelling is forgiven. What would have to be guessed is not: a unit that is dropped (`"5 %"`), a comma that may be
a decimal mark (`"1,234"` for a number that need not be whole), the nearest label. Then the model is asked again.
"""

from __future__ import annotations

import enum
import json
import re
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args, get_origin

from otpy.adapters.mending import LooseError, read_loosely
from otpy.errors import AdapterParseError
from otpy.signatures.fields import allowed_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.signatures import SignatureMeta

__all__ = ["fitted", "softened"]

_INTEGER: Final = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")
_NUMBER: Final = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,})")
_BETWEEN: Final = re.compile(r"[\s_-]+")
_AROUND: Final = "\"'`*“”„‘’«»() \t\r\n"  # noqa: RUF001 - as models write


def fitted(signature: SignatureMeta, written: str, answer: str) -> dict[str, Any]:
    """Return the outputs in a JSON object, with spelling forgiven where they do not fit as they are.

    Args:
        signature: The contract.
        written: The object, as text.
        answer: All that the model said, for the error.

    Raises:
        AdapterParseError: If an output is missing or invalid; it speaks of what the model said.

    Example:
        >>> from otpy.adapters.softening import fitted
        >>> from otpy.signatures import Signature
        >>> triage = Signature("query -> intent: Literal['lost_card', 'pin'], amount: int")
        >>> fitted(triage, '{"intent": "Lost card.", "amount": "1,250"}', "")
        {'intent': 'lost_card', 'amount': 1250}
    """
    try:
        return signature.read_outputs(written, answer=answer)
    except AdapterParseError as error:
        data = json.loads(written)
        soft: dict[str, Any] = dict(data)
        for name in error.missing:
            if name in data and name in signature.output_fields:
                soft[name] = softened(signature.output_fields[name].annotation, data[name])
        if soft == data:
            raise
        try:
            return signature.read_outputs(json.dumps(soft), answer=answer)
        except AdapterParseError:
            raise error from None


def softened(annotation: Any, value: Any) -> Any:  # noqa: PLR0911 - one line a kind of type
    """Return a value in the spelling of its type, or as it is.

    Args:
        annotation: The type.
        value: JSON data.

    Example:
        >>> from otpy.adapters.softening import softened
        >>> softened(int, "1,234"), softened(float, "1,234"), softened(list[str], '["a"]')
        (1234, '1,234', ['a'])
    """
    kind, args = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return softened(args[0], value)
    if not isinstance(value, str):
        return _each(args[0], value) if args and kind in {list, set, tuple, frozenset} else value
    if allowed_values(annotation):
        return _label(annotation, value)
    if kind in {typing.Union, types.UnionType}:
        others = [arg for arg in args if arg is not type(None)]
        return softened(others[0], value) if len(others) == 1 else value
    plain = value.strip(_AROUND)
    if kind is int and _INTEGER.fullmatch(plain):
        return int(plain.replace(",", ""))
    if kind is float and _NUMBER.fullmatch(plain):
        return float(plain.replace(",", ""))
    return value if kind is str else _structure(value)


def _each(annotation: Any, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    items: list[Any] = cast("Any", value)
    return [softened(annotation, item) for item in items]


def _label(annotation: Any, value: str) -> Any:
    """The one allowed value that is spelled alike."""
    found: list[Any] = []
    for spelling, label in _spellings(annotation).items():
        if _folded(spelling) == _folded(value) and label not in found:
            found.append(label)
    return found[0] if len(found) == 1 else value


def _spellings(annotation: Any) -> Mapping[str, Any]:
    words: dict[str, Any] = {"yes": True, "no": False, "true": True, "false": False} if annotation is bool else {}
    words |= {label: label for label in allowed_values(annotation) if isinstance(label, str)}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        words = {**{member.name: member.value for member in annotation}, **words}
    return words


def _folded(text: str) -> str:
    return _BETWEEN.sub(" ", text.strip(_AROUND).rstrip(".!").strip(_AROUND)).casefold()


def _structure(value: str) -> Any:
    """A list or an object that was put into quotes once more."""
    if value.lstrip()[:1] not in {"{", "["}:
        return value
    try:
        read, end = read_loosely(value)
    except LooseError:
        return value
    return read if not value[end:].strip() else value
