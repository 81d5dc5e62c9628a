"""`Decision`: one of a few values, and how likely the model held each. Pure."""

from __future__ import annotations

import enum
import json
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from pydantic import GetJsonSchemaHandler, PrivateAttr, model_serializer, model_validator

from otpy.errors import SignatureError
from otpy.lm import Part, Text
from otpy.types.kind import Type, fields_of
from otpy.types.values import allowed_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from otpy.lm import TokenLogprob

__all__ = ["ALTERNATIVES", "Decision", "weighed"]

T = TypeVar("T")

ALTERNATIVES: Final = 20
"""How many alternatives a token to ask for: the most that OpenAI and Gemini give."""


class Decision(Type, Generic[T]):
    """One of a few values, and how likely the model held each, where it tells.

    `Decision[Literal["yes", "no"]]` is asked for and written as `Literal["yes", "no"]` is, and equal to its value; an
    enumeration and `bool` will do too. The probabilities are read from those of the tokens (`weighed`).

    Args:
        value: What was decided.
        probabilities: How likely each value was held, summing to 1.
        covered: How much of all probability went to answers that the tokens' alternatives tell apart.

    Example:
        >>> from typing import Literal
        >>> from otpy.types import Decision
        >>> spam = Decision[Literal["yes", "no"]]("no", probabilities={"yes": 0.25, "no": 0.75})
        >>> spam == "no", spam.probability, spam.probabilities["yes"]
        (True, 0.75, 0.25)
        >>> Decision[Literal["yes", "no"]]("no").probabilities is None
        True
    """

    decides: ClassVar[bool] = True

    value: T
    _probabilities: dict[Any, float] | None = PrivateAttr(None)
    _covered: float = PrivateAttr(0.0)

    def __init__(self, value: Any = None, /, **fields: Any) -> None:
        """Check the value, and the probabilities against it; what a model answers brings none along."""
        if "value" in fields:
            self._fill(fields)
            return
        shares, covered = fields.pop("probabilities", None), fields.pop("covered", 1.0)
        self._fill({"value": value, **fields})
        if shares is not None:
            self._probabilities, self._covered = _shares(shares, allowed_values(type(self))), covered

    @property
    def probabilities(self) -> Mapping[Any, float] | None:
        """How likely each value was held, by value; `None` where the model does not tell."""
        return None if self._probabilities is None else MappingProxyType(self._probabilities)

    @property
    def probability(self) -> float | None:
        """How likely the value was held that was decided for."""
        return None if self._probabilities is None else self._probabilities.get(_plain(self.value), 0.0)

    @property
    def covered(self) -> float:
        """How much of all probability the alternatives tell apart, 0 to 1: the smaller, the less the rest is worth."""
        return self._covered

    @property
    def expected(self) -> float | None:
        """The mean of the values, weighed by their probabilities; `None` if they are no numbers."""
        shares = self._probabilities or {}
        numbers = all(isinstance(value, (int, float)) for value in shares)
        return sum(value * share for value, share in shares.items()) if shares and numbers else None

    def parts(self) -> tuple[Part, ...]:
        """Return the value."""
        return (Text(_form(_plain(self.value))),)

    def __eq__(self, other: object) -> bool:
        """Whether the value is the same, in another decision or by itself."""
        return bool(self.value == (cast("Any", other).value if isinstance(other, Decision) else other))

    def __hash__(self) -> int:
        """As the value."""
        return hash(self.value)

    def __str__(self) -> str:
        """Return the value as a text."""
        return _form(_plain(self.value))

    def __repr__(self) -> str:
        """Print the value, and how likely it was."""
        likely = "" if self.probability is None else f", {self.probability:.3f}"
        return f"Decision({self.value!r}{likely})"

    def __reduce__(self) -> Any:
        """Pickle it by what it decides between, because its class has no name of its own."""
        kind = type(self).__pydantic_generic_metadata__["args"]
        return _decision, (kind, self.value, self._probabilities, self._covered)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        fields = fields_of(given)
        return fields if fields is not None and set(fields) == {"value"} else {"value": given}

    @model_serializer
    def _dumped(self) -> Any:
        return self.value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Ask for the value alone."""
        value: JsonSchemaValue = handler.resolve_ref_schema(handler(schema))["properties"]["value"]
        return value

    @classmethod
    def __class_getitem__(cls, kind: Any) -> Any:
        """Return the type of decisions between some values."""
        if not isinstance(kind, TypeVar) and not allowed_values(kind):
            what = getattr(kind, "__name__", kind)
            raise SignatureError(f"Decision[{what}]: decides between values that are listed: a Literal, an Enum, bool")
        return super().__class_getitem__(cast("Any", kind))


def weighed(decision: Decision[T], name: str, text: str, tokens: Sequence[TokenLogprob]) -> Decision[T]:
    """Return a decision with the probabilities that the tokens of an answer tell.

    From the place in the answer where the value stands, the alternatives of each token are followed as far as they tell
    one value from the others; what several values share goes on with the token that was chosen. The shares are then
    made to sum to 1. Values that appear in no alternative have 0.

    Args:
        decision: What was read from the answer.
        name: The output's name.
        text: The answer: JSON, or marked sections, or tags.
        tokens: Its tokens, each with its alternatives.
    """
    offset = "".join(token.token for token in tokens).find(text)
    at = _place(text, name, decision)
    if not tokens or offset < 0 or at is None:
        return decision
    quoted = text.startswith('"', at)
    values = [_plain(value) for value in allowed_values(type(decision))]
    forms = {_form(value, quoted=quoted): value for value in values}
    shares = dict.fromkeys(values, 0.0)
    for form, share in _followed(tuple(forms), tokens, at + offset):
        shares[forms[form]] += share
    covered = sum(shares.values())
    if covered <= 0:
        return decision
    shares = {value: share / covered for value, share in shares.items()}
    return type(decision)(decision.value, probabilities=shares, covered=min(covered, 1.0))


def _decision(kind: tuple[Any, ...], value: Any, probabilities: dict[Any, float] | None, covered: float) -> Any:
    generic: Any = Decision
    return (generic[kind[0]] if kind else generic)(value, probabilities=probabilities, covered=covered)


def _shares(given: Mapping[Any, float], values: tuple[Any, ...]) -> dict[Any, float]:
    shares = {_plain(value): share for value, share in given.items()}
    if set(shares) <= set(values) and math.isclose(sum(shares.values()), 1, abs_tol=1e-6) and min(shares.values()) >= 0:
        return shares
    raise SignatureError(
        f"Decision: probabilities={shares!r:.200}; allowed: shares >= 0 of {', '.join(map(repr, values))} that sum to 1"
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _form(value: Any, *, quoted: bool = False) -> str:
    """A value as it stands in an answer."""
    return value if isinstance(value, str) and not quoted else json.dumps(value, ensure_ascii=False)


def _place(text: str, name: str, decision: Decision[Any]) -> int | None:
    """Where in an answer the value stands behind its field's name; the last such place."""
    value = _plain(decision.value)
    forms = "|".join(re.escape(form) for form in {_form(value, quoted=True), _form(value)})
    before = rf'"{re.escape(name)}"\s*:\s*|\[\[ ## {re.escape(name)} ## \]\]\s*|<{re.escape(name)}>\s*'
    found = list(re.finditer(rf"(?:{before})({forms})", text))
    return found[-1].start(1) if found else None


def _followed(forms: tuple[str, ...], tokens: Sequence[TokenLogprob], at: int) -> Iterator[tuple[str, float]]:
    """What share of probability each form is told to have, token by token."""
    written, reached, begin = "", 1.0, 0
    for token in tokens:
        start, begin = begin, begin + len(token.token)
        if begin <= at:
            continue
        head = token.token[: max(0, at - start)]
        for alternative, logprob in token.top:
            if alternative != token.token and alternative.startswith(head):
                meant = _meant(forms, written + alternative[len(head) :])
                if len(meant) == 1:
                    yield meant[0], reached * math.exp(logprob)
        written += token.token[len(head) :]
        reached *= math.exp(token.logprob)
        if len(_meant(forms, written)) <= 1:
            break
    if ended := _ended(forms, written) or _meant(forms, written):
        yield ended[0], reached


def _meant(forms: tuple[str, ...], written: str) -> list[str]:
    """The forms that a beginning may become, or has become."""
    return [form for form in forms if form.startswith(written) and form != written] + _ended(forms, written)


def _ended(forms: tuple[str, ...], written: str) -> list[str]:
    """The form that stands whole at a beginning; the longest, if one begins as another does."""
    whole = [form for form in forms if written.startswith(form) and not _word(written[len(form) : len(form) + 1])]
    return [max(whole, key=len)] if whole else []


def _word(character: str) -> bool:
    return character.isalnum() or character == "_"
