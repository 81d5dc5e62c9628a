"""The pieces in which an answer arrives while it is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from otpy.lm.response import LMResponse

__all__ = ["ReasoningDelta", "StreamEnd", "StreamEvent", "TextDelta", "ToolUseDelta"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Some more text.

    Args:
        text: The text.
        choice: Which answer it belongs to, from 0.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Some more of what the model thinks.

    Args:
        text: The text.
        choice: As in `TextDelta`.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolUseDelta:
    """Some more of the arguments of a tool.

    Args:
        index: Which use of a tool it belongs to, from 0.
        id: Its id.
        name: The tool.
        text: A piece of the JSON text of its arguments; empty in the first one.
        choice: As in `TextDelta`.
    """

    index: int
    id: str
    name: str
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The whole answer; the last event, and there is always one.

    Args:
        response: What a request without a stream would have returned.
    """

    response: LMResponse


StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ToolUseDelta | StreamEnd
