"""`Type`: a value that a model is shown, or answers with, in another way than as text or JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from otpy.lm import Part

__all__ = ["Native", "Type"]

Native: TypeAlias = Literal["tool_calls", "reasoning", "citations"]
"""The part of an answer in which a provider gives such a value, beside the text."""


class Type(BaseModel):
    """The base of the types that models know by themselves: images, sounds, files, tool calls.

    Subclasses are frozen values; `parts` says what a model is shown of one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    native: ClassVar[Native | None] = None
    """Where a provider gives such a value as an answer; `None` if it is written in the text."""

    def parts(self) -> tuple[Part, ...]:
        """Return what a model is shown of it."""
        raise NotImplementedError
