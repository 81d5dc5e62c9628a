"""`TextType`: types that are a text and more: code, thoughts. They are written as the text they are. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import GetJsonSchemaHandler, model_serializer, model_validator

from otpy.lm import Part, Text
from otpy.types.kind import Type, fields_of

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["TextType"]


class TextType(Type):
    """The base of types with one field, a text; as JSON they are that text.

    Args:
        text: The text.
        fields: The text by the field's name.
    """

    def __init__(self, text: object = None, /, **fields: Any) -> None:
        """Take the text by position or by name."""
        self._fill(fields if text is None else text)

    @classmethod
    def read_text(cls, text: str) -> str:
        """Return what is kept of a text that is given."""
        return text

    @classmethod
    def form(cls) -> str:
        """Return what the model is told of such a text; nothing if there is nothing to tell."""
        return ""

    def __str__(self) -> str:
        """Return the text."""
        return str(getattr(self, next(iter(type(self).model_fields))))

    def __repr__(self) -> str:
        """Print the text."""
        return f"{type(self).__name__}({str(self)!r})"

    def parts(self) -> tuple[Part, ...]:
        """Return the text."""
        return (Text(str(self)),)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        name = next(iter(cls.model_fields))
        fields = fields_of(given)
        text = fields[name] if fields is not None and set(fields) == {name} else given
        if not isinstance(text, str):
            raise ValueError(  # noqa: TRY004 - pydantic takes no other
                f"a text is wanted, not {type(given).__name__}"
            )
        return {name: cls.read_text(text)}

    @model_serializer
    def _dumped(self) -> str:
        return str(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say that it is a text."""
        return {"type": "string", **({"description": cls.form()} if cls.form() else {})}
