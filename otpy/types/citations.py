"""`Citations`: what an answer quotes of its documents, as a field. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_serializer, model_validator

from otpy.errors import SignatureError
from otpy.lm import Part, Text
from otpy.types.kind import Native, Type, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from otpy.types.document import Document

__all__ = ["Citation", "Citations"]


class Citation(BaseModel):
    """One quotation.

    Args:
        cited_text: What is quoted, word for word.
        document_title: The document's title.
        document_index: Which of the documents it is, from 0.
        start: Where the quotation begins in the document, in characters from 0.
        end: Where it ends, behind the last character.
        supported_text: The piece of the answer that it supports, where the provider tells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cited_text: str
    document_title: str | None = None
    document_index: int | None = None
    start: int | None = None
    end: int | None = None
    supported_text: str | None = None


class Citations(Type):
    """What an answer quotes: as the provider marks it, or as the model was asked to write it.

    A model that writes quotations itself may invent them: `located` finds each in its document, or refuses it.

    Args:
        citations: The quotations.

    Example:
        >>> from otpy.types import Citations, Document
        >>> quotes = Citations([{"cited_text": "boils at 100 degrees", "document_title": "Physics"}])
        >>> found = quotes.located([Document("Water boils at 100 degrees.", title="Physics")])
        >>> found[0].document_index, found[0].start, found[0].end
        (0, 6, 26)
    """

    native: ClassVar[Native | None] = "citations"

    citations: tuple[Citation, ...] = ()

    def __init__(self, citations: Any = None, /, **fields: Any) -> None:
        """Take the quotations by position or by name."""
        self._fill(fields if citations is None else {"citations": citations})

    def __len__(self) -> int:
        """Count the quotations."""
        return len(self.citations)

    def __getitem__(self, index: int) -> Citation:
        """Return a quotation."""
        return self.citations[index]

    def __iter__(self) -> Iterator[Citation]:  # type: ignore[override]  # a sequence, not pairs of fields
        """Iterate over the quotations."""
        return iter(self.citations)

    def located(self, documents: Sequence[Document]) -> Citations:
        """Return the quotations with the places at which they stand in the documents.

        Args:
            documents: What was quoted, in the order in which the model was shown it.

        Raises:
            SignatureError: If one stands in none of them, or not in the one that it names.
        """
        return Citations([_located(citation, documents) for citation in self.citations])

    def parts(self) -> tuple[Part, ...]:
        """Return the quotations, one a line."""
        lines = (f'"{one.cited_text}"{f" ({one.document_title})" if one.document_title else ""}' for one in self)
        return (Text("\n".join(lines)),)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        return fields_of(given) or {"citations": given}

    @model_serializer
    def _dumped(self) -> list[dict[str, Any]]:
        return [citation.model_dump(exclude_none=True) for citation in self.citations]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Ask a model for words and titles only: it cannot count characters."""
        quoted = {"type": "string", "description": "a passage of a document, word for word"}
        title = {"type": "string", "description": "the title of that document"}
        item = {
            "type": "object",
            "properties": {"cited_text": quoted, "document_title": title},
            "required": ["cited_text", "document_title"],
        }
        return {"type": "array", "items": item}


def _located(citation: Citation, documents: Sequence[Document]) -> Citation:
    for index, document in enumerate(documents):
        named = citation.document_title in {None, "", document.title}
        start = document.text.find(citation.cited_text) if named else -1
        if start >= 0:
            place = {"document_title": document.title, "document_index": index}
            return citation.model_copy(update={**place, "start": start, "end": start + len(citation.cited_text)})
    titles = ", ".join(repr(document.title) for document in documents) or "none"
    raise SignatureError(
        f"{citation.cited_text!r:.80} does not stand in the document {citation.document_title!r}; documents: {titles}"
    )
