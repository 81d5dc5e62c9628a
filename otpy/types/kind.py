"""`Type`: a value that a model is shown, or answers with, in another way than as text or JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from otpy.errors import SignatureError

if TYPE_CHECKING:
    from otpy.lm import Part

__all__ = ["Native", "Type", "fields_of"]

Native: TypeAlias = Literal["tool_calls", "reasoning", "citations"]
"""The part of an answer in which a provider gives such a value, beside the text."""


class Type(BaseModel):
    """The base of the types that models know by themselves: images, sounds, files, tool calls.

    Subclasses are frozen values; `parts` says what a model is shown of one.

    Example:
        >>> from otpy.lm import Text
        >>> from otpy.types import Type
        >>> class Celsius(Type):
        ...     degrees: float
        ...
        ...     def parts(self):
        ...         return (Text(f"{self.degrees:.1f} °C"),)
        >>> Celsius(degrees=21).parts()
        (Text(text='21.0 °C'),)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    native: ClassVar[Native | None] = None
    """Where a provider gives such a value as an answer; `None` if it is written in the text."""

    def parts(self) -> tuple[Part, ...]:
        """Return what a model is shown of it."""
        raise NotImplementedError

    def _fill(self, given: Any, context: dict[str, Any] | None = None) -> None:
        """Validate what a constructor was given, as pydantic would; what is wrong is said in our words."""
        try:
            self.__pydantic_validator__.validate_python(given, self_instance=self, context=context)
        except ValidationError as error:
            items = error.errors(include_url=False, include_context=False, include_input=False)
            said = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in items]
            words = "; ".join(said).replace("Value error, ", "")
            raise SignatureError(f"{type(self).__name__}: {words}") from None


def fields_of(given: Any) -> dict[str, Any] | None:
    """Return a mapping as a dictionary of fields; `None` if it is no mapping."""
    return dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else None
