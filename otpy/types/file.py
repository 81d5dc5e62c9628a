"""`File`: a document as a field, as it is: a PDF, a table, a text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from otpy.lm import Media, Part
from otpy.types.magic import ENDINGS, media_type_of
from otpy.types.media import Medium

__all__ = ["File"]


class File(Medium):
    """A file: its bytes, its address, or the name by which the provider keeps it.

    Args:
        source: Its bytes, an address, or a `data:` URL.
        fields: `allow_private=True`, if the address may be one of this machine or of a private network;
            `name`, what the model is told it is called; `media_type`, where neither bytes nor name tell;
            `file_id`, a file that was uploaded to the provider before.

    Raises:
        SignatureError: If it is none of these; no file and no address is opened to find out.

    Example:
        >>> from otpy.types import File
        >>> File(b"%PDF-1.7 ...", name="terms.pdf")
        File(12 bytes, application/pdf, name='terms.pdf')
        >>> File.from_file_id("file-abc123").parts()
        (Media('file', 'application/octet-stream', file-abc123),)
    """

    kind: ClassVar[Literal["image", "audio", "file"]] = "file"
    max_bytes: ClassVar[int] = 50 * 2**20

    name: str | None = None
    file_id: str | None = None

    if TYPE_CHECKING:

        def __init__(  # noqa: D107 - as its base does, for the checkers
            self, source: bytes | str | None = ..., /, *, allow_private: bool = ..., media_type: str = ...,
            name: str | None = ..., file_id: str | None = ...,
        ) -> None: ...  # fmt: skip

    @classmethod
    def from_file_id(cls, file_id: str, **fields: Any) -> Self:
        """Name a file that the provider keeps.

        Args:
            file_id: The provider's name for it, without a colon.
            fields: As for the class.

        Raises:
            SignatureError: If it is no such name.
        """
        return cls(file_id=file_id, **fields)

    def parts(self) -> tuple[Part, ...]:
        """Return the file as one part of a message."""
        return (Media(self.kind, self.media_type, self.data, self.url or self.file_id, name=self.name),)

    def __repr__(self) -> str:
        """Print it without its bytes."""
        what = f"{len(self.data)} bytes" if self.data is not None else repr(self.url or self.file_id)
        name = "" if self.name is None else f", name={self.name!r}"
        return f"File({what}, {self.media_type}{name})"

    __str__ = __repr__

    @classmethod
    def _from_name(cls, name: str) -> dict[str, Any]:
        return {"name": name, "media_type": ENDINGS.get(name.rpartition(".")[2].lower(), "")}

    @classmethod
    def _checked(cls, whole: dict[str, Any], *, allow_private: bool) -> dict[str, Any]:
        named = whole.get("file_id")
        if named is not None:
            if whole.get("data") is not None or whole.get("url") is not None:
                raise ValueError("give its bytes as data=, its address as url=, or a file_id=, one of them")
            if not isinstance(named, str) or not named or ":" in named:
                raise ValueError(f"file_id={named!r:.40}; allowed: a provider's name for a file, without a colon")
            return {**whole, "media_type": whole.get("media_type") or "application/octet-stream"}
        if not whole.get("media_type") and isinstance(whole.get("name"), str):
            whole = {**whole, **{key: kind for key, kind in cls._from_name(whole["name"]).items() if key != "name"}}
        return super()._checked(whole, allow_private=allow_private)

    @classmethod
    def _kind_of(cls, data: bytes, declared: str) -> str:
        """Return what the bytes show, else what was said; a text needs neither."""
        found = media_type_of(data[:16])
        if declared and (not found or found == "application/zip"):  # what Word and Excel write is a zip file inside
            return declared
        if found:
            return found
        try:
            data.decode()
        except UnicodeDecodeError:
            return "application/octet-stream"
        return "text/plain"
