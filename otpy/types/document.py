"""`Document`: a text that an answer may quote. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from otpy.lm import Part, Text
from otpy.types.kind import Type

__all__ = ["Document"]


def _undescribed(schema: dict[str, Any]) -> None:
    """Keep the docstring out of what a model reads."""
    schema.pop("description", None)


class Document(Type):
    """A text with a title, for a model to read and to quote; see `Citations`.

    Args:
        text: All of it.
        title: What it is called.
        context: What the model should know of it and must not quote: its date, where it is from.

    Example:
        >>> from otpy.types import Document
        >>> print(Document("Water boils at 100 degrees.", title="Physics").parts()[0].text)
        <document title="Physics">
        Water boils at 100 degrees.
        </document>
    """

    model_config = ConfigDict(json_schema_extra=_undescribed)

    text: str
    title: str = ""
    context: str = ""

    def __init__(self, text: Any = None, /, **fields: Any) -> None:
        """Take the text by position or by name."""
        self._fill(fields if text is None else {"text": text, **fields})

    def parts(self) -> tuple[Part, ...]:
        """Return the text, with its title and context around it."""
        named = "".join(
            f' {name}="{_quoted(value)}"' for name, value in (("title", self.title), ("context", self.context)) if value
        )
        return (Text(f"<document{named}>\n{self.text}\n</document>"),)


def _quoted(value: str) -> str:
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("\n", " ")
