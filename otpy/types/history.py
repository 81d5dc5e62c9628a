"""`History`: the turns of a conversation so far, as an input. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from pydantic import field_serializer, field_validator, model_validator

from otpy.lm import Part, Text
from otpy.types.kind import Type, fields_of

__all__ = ["History"]


class History(Type):
    """The turns of a conversation so far; each holds values of the fields of a signature, by name.

    A program whose signature has an input of this type shows them to the model as turns of its own, before the
    question. A conversation goes on with `adding`, which returns a longer one.

    Args:
        messages: The turns, oldest first: mappings from the names of fields to values.

    Example:
        >>> from otpy.types import History
        >>> history = History([{"question": "Who wrote Faust?", "answer": "Goethe"}])
        >>> len(history.adding(question="When?", answer="1808"))
        2
    """

    messages: tuple[Mapping[str, Any], ...] = ()

    def __init__(self, messages: Any = None, /, **fields: Any) -> None:
        """Take the turns by position or by name."""
        self._fill(fields if messages is None else {"messages": messages})

    def adding(self, turn: Mapping[str, Any] | None = None, /, **values: Any) -> History:
        """Return the history with one more turn.

        Args:
            turn: The values of its fields, such as a `Prediction`.
            values: Further values, such as the inputs.
        """
        return History([*self.messages, {**values, **(turn or {})}])

    def __len__(self) -> int:
        """Count the turns."""
        return len(self.messages)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:  # type: ignore[override]  # turns, not pairs of fields
        """Iterate over the turns."""
        return iter(self.messages)

    def __hash__(self) -> int:
        """By the names in each turn; values may be anything."""
        return hash(tuple(tuple(turn) for turn in self.messages))

    def parts(self) -> tuple[Part, ...]:
        """Return the turns as a text, for who has no turns of their own to show them in."""
        texts = [{name: _text(value) for name, value in turn.items()} for turn in self.messages]
        return (Text("\n\n".join("\n".join(f"{name}: {text}" for name, text in turn.items()) for turn in texts)),)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        fields = fields_of(given)
        turns = fields.get("messages", ()) if fields is not None and set(fields) <= {"messages"} else given
        if isinstance(turns, (str, bytes)) or not isinstance(turns, Sequence):
            raise ValueError(  # noqa: TRY004 - pydantic takes no other
                "the turns are a list of mappings, as in [{'question': '…', 'answer': '…'}]"
            )
        return {"messages": cast("Any", turns)}

    @field_validator("messages", mode="before")
    @classmethod
    def _frozen(cls, turns: Any) -> Any:
        for number, turn in enumerate(turns, 1):
            if not all(isinstance(name, str) for name in fields_of(turn) or [None]):
                raise ValueError(f"turn {number} is {turn!r:.60}; a turn maps the names of fields to values")
        return tuple(turns)

    @field_validator("messages", mode="after")
    @classmethod
    def _kept(cls, turns: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        return tuple(MappingProxyType(dict(turn)) for turn in turns)

    @field_serializer("messages")
    def _dumped(self, turns: tuple[Mapping[str, Any], ...]) -> list[dict[str, Any]]:
        return [dict(turn) for turn in turns]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> History:
        """Return a copy that shares no value with it."""
        return History([copy.deepcopy(dict(turn), memo) for turn in self.messages])

    def __reduce__(self) -> Any:
        """Pickle the turns."""
        return History, ([dict(turn) for turn in self.messages],)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
