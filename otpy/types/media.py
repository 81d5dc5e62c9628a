"""`Medium`: what images, sounds and files have in common: bytes, or an address where the provider finds them. Pure."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self
from urllib.parse import unquote_to_bytes, urlsplit

from pydantic import GetJsonSchemaHandler, ValidationInfo, model_serializer, model_validator

from otpy.errors import SignatureError
from otpy.lm import Media, Part
from otpy.types.addresses import refused
from otpy.types.kind import Type, fields_of
from otpy.types.magic import ENDINGS, media_type_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["Medium"]

_ALLOWED: Final = "allow_private"


class Medium(Type):
    """An image, a sound or a file: its bytes, or its address.

    Args:
        source: Its bytes; an address (`https://…`); or a `data:` URL with its bytes in it.
        fields: `allow_private=True`, if the address may be one of this machine or of a private network; and what the
            kind of medium knows besides.

    Raises:
        SignatureError: If it is none of these, too large, or not what it has to be; nothing is opened to find out.
    """

    kind: ClassVar[Literal["image", "audio", "file"]]
    max_bytes: ClassVar[int]
    """How large it may be, in bytes; a subclass may say otherwise."""

    data: bytes | None = None
    url: str | None = None
    media_type: str = ""

    def __init__(self, source: object = None, /, **fields: Any) -> None:
        """Check it; pydantic comes through here too, but without a source, so no data gives itself leave."""
        if source is None:
            self._fill(fields)
            return
        allowed = fields.pop(_ALLOWED, False)
        read = self._read(source)
        if read is None:
            raise SignatureError(_no_source(type(self).__name__, source))
        self._fill({**read, **fields}, {_ALLOWED: allowed is True})

    @classmethod
    def from_bytes(cls, data: bytes, **fields: Any) -> Self:
        """Make one of its bytes.

        Args:
            data: The bytes; what they are is told by how they begin.
            fields: As for the class.
        """
        return cls(data, **fields)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], **fields: Any) -> Self:
        """Read a file of this machine; the only way that opens one.

        Args:
            path: The file.
            fields: As for the class.

        Raises:
            SignatureError: If it cannot be read, is too large, or holds something else.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(cls.max_bytes + 1)
        except OSError as error:
            raise SignatureError(f"{cls.__name__}.from_path({str(path)!r}): {error.strerror or error}") from None
        return cls(data, **{**cls._from_name(Path(path).name), **fields})

    @classmethod
    def from_url(cls, url: str, *, allow_private: bool = False, **fields: Any) -> Self:
        """Make one of its address, where the provider fetches it.

        Args:
            url: `https://…`, `http://…` or `data:…`.
            allow_private: Whether it may be an address of this machine or of a private network.
            fields: As for the class.

        Raises:
            SignatureError: If it is no such address, or a private one.
        """
        return cls(url, allow_private=allow_private, **fields)

    def parts(self) -> tuple[Part, ...]:
        """Return the medium as one part of a message."""
        return (Media(self.kind, self.media_type, self.data, self.url),)

    def __repr__(self) -> str:
        """Print it without its bytes."""
        what = f"{len(self.data)} bytes" if self.data is not None else repr(self.url)
        return f"{type(self).__name__}({what}, {self.media_type})"

    __str__ = __repr__

    # -- what pydantic asks ----------------------------------------------------------------------------------------

    @classmethod
    def _read(cls, source: object) -> Mapping[str, Any] | None:
        """Return the fields that a source stands for; `None` if it is no source."""
        match source:
            case bytes():
                return {"data": source}
            case str():
                return {"url": source}
            case _:
                return None

    @classmethod
    def _from_name(cls, name: str) -> dict[str, Any]:  # noqa: ARG003 - files keep it
        """Return the fields that a file's name gives."""
        return {}

    @classmethod
    def _kind_of(cls, data: bytes, declared: str) -> str:
        """Return the MIME type of bytes.

        Raises:
            ValueError: If they are nothing of this kind.
        """
        found = media_type_of(data[:16])
        if not found.startswith(f"{cls.kind}/"):
            what = f"they are {found}" if found else f"they begin with {data[:8]!r}"
            raise ValueError(f"these bytes are no {cls.kind} that is known: {what}{declared and f', not {declared}'}")
        return found

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any, info: ValidationInfo) -> Any:
        """Turn whatever stands for a medium into its fields, opening nothing."""
        whole = fields_of(given) or fields_of(cls._read(given))
        if whole is None:
            raise ValueError(_no_source(cls.__name__, given))
        url: Any = whole.get("url")
        if isinstance(url, str) and url[:5].lower() == "data:":
            whole["media_type"], whole["data"] = _inside(url)
            del whole["url"]
        context: dict[str, Any] = info.context or {}
        return cls._checked(whole, allow_private=context.get(_ALLOWED) is True)

    @classmethod
    def _checked(cls, whole: dict[str, Any], *, allow_private: bool) -> dict[str, Any]:
        data, url, declared = whole.get("data"), whole.get("url"), whole.get("media_type") or ""
        if (data is None) == (url is None):
            raise ValueError("give its bytes as data=, or its address as url=, one of them")
        if data is not None:
            if not isinstance(data, bytes):
                raise ValueError(f"data={data!r:.40} is no bytes; base64 is given as a data: URL")
            if not 0 < len(data) <= cls.max_bytes:
                size = f"more than {cls.max_bytes // 2**20} MiB" if data else "no bytes at all"
                raise ValueError(f"{size}; allowed: 1 to {cls.max_bytes:,} bytes")
            return {**whole, "media_type": cls._kind_of(data, declared)}
        if not isinstance(url, str):
            raise ValueError(f"url={url!r:.40} is no address")  # noqa: TRY004 - pydantic takes no other
        if why := refused(url, allow_private=allow_private):
            hint = f"; a file is read by {cls.__name__}.from_path(…)" if "://" not in url else ""
            hint = hint or ("; allow_private=True lets it through" if "private address" in why else "")
            raise ValueError(why + hint)
        ending = urlsplit(url).path.rpartition(".")[2].lower()
        return {**whole, "media_type": declared or ENDINGS.get(ending, f"{cls.kind}/*")}

    @model_serializer
    def _dumped(self) -> dict[str, Any]:
        """Write it as an address, which holds the bytes if there are bytes, and what is known besides."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in Medium.model_fields}
        dumped = {"url": self.url}
        if self.data is not None:
            dumped["url"] = f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"
        elif self.url is not None:
            dumped["media_type"] = self.media_type
        return {name: value for name, value in {**dumped, **fields}.items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say what a model would have to write: the address."""
        described = "its address, https:// or data:"
        return {
            "type": "object",
            "properties": {"url": {"type": "string", "description": described}},
            "required": ["url"],
            "title": cls.__name__,
        }


def _no_source(name: str, given: object) -> str:
    path = f"; a file is read by {name}.from_path(…)" if isinstance(given, Path) else ""
    return f"{type(given).__name__} is no {name}; allowed: bytes, an https:// address, a data: URL{path}"


def _inside(url: str) -> tuple[str, bytes]:
    """The MIME type and the bytes of a `data:` URL (RFC 2397)."""
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise ValueError("a data: URL without a comma, so without data")
    kind, *attributes = head.split(";")
    data = unquote_to_bytes(body)
    if "base64" in (attribute.strip().lower() for attribute in attributes):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a data: URL whose base64 is broken: {error}") from None
    return kind.strip().lower(), data
