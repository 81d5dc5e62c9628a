"""What a message is made of: text, media, tool use, reasoning. Pure values, the same for every provider.

A message is most often one text, and then just a `str`; parts are for everything else.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.lm.frozen import FrozenJSON

__all__ = ["Content", "Media", "Part", "Reasoning", "Text", "ToolResult", "ToolUse", "part_of", "text_of", "thawed"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text.

    Args:
        text: The text.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Media:
    r"""An image, a sound or a file.

    Args:
        kind: `"image"`, `"audio"` or `"file"`.
        media_type: Its MIME type, as in `"image/png"` or `"application/pdf"`.
        data: Its bytes; or
        url: where the provider finds it: an address, or a file id of the provider's own.
        name: A file's name.
        detail: How closely to look at an image (`"low"`, `"high"`, `"auto"`), where the provider knows that.

    Raises:
        ValueError: If there is neither data nor an address, or both.

    Example:
        >>> from otpy.lm import Media
        >>> Media("image", "image/png", b"\x89PNG...").base64[:8]
        'iVBORy4u'
    """

    kind: Literal["image", "audio", "file"]
    media_type: str
    data: bytes | None = None
    url: str | None = None
    name: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        if self.kind not in {"image", "audio", "file"}:
            raise ValueError(f"kind={self.kind!r}; allowed: 'image', 'audio', 'file'")
        if (self.data is None) == (self.url is None):
            raise ValueError(f"{self.kind}: give its bytes as data=, or its address as url=, one of them")
        if self.data is not None and not isinstance(cast("Any", self.data), bytes):
            raise ValueError(f"{self.kind}: data={self.data!r:.50} is no bytes; read a file with Path(…).read_bytes()")

    def __repr__(self) -> str:
        """Print it without its bytes."""
        what = self.url if self.data is None else f"{len(self.data)} bytes"
        return f"Media({self.kind!r}, {self.media_type!r}, {what})"

    @property
    def base64(self) -> str:
        """Its bytes as base64; empty if it has only an address."""
        return base64.b64encode(self.data or b"").decode("ascii")

    @property
    def data_url(self) -> str:
        """Its address: where it is, or a `data:` URL with its bytes."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.base64}"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model wants a tool to be used.

    Args:
        id: Names this use; the result refers to it.
        name: The tool.
        input: Its arguments, a JSON object.
        signature: What the provider wants to have back with it, if it does (Gemini's thought signature).
    """

    id: str
    name: str
    input: FrozenJSON
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of the use of a tool; part of a user's message.

    Args:
        id: Of the use.
        name: The tool.
        content: What it returned, as text.
        is_error: Whether it failed.
    """

    id: str
    name: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought before it answered, as far as the provider shows it.

    Args:
        text: The thought, or its summary; empty if it is hidden.
        signature: What the provider wants to have back with it in the next turn, as it stands.
        id: The provider's name for it, if it has one.
    """

    text: str
    signature: str | None = None
    id: str | None = None


Part: TypeAlias = Text | Media | ToolUse | ToolResult | Reasoning
Content: TypeAlias = str | tuple[Part, ...]

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Text, Media, ToolUse, ToolResult, Reasoning)}


def text_of(content: Content | Iterable[Part]) -> str:
    """Return the text of a message, without its other parts.

    Example:
        >>> from otpy.lm import Reasoning, Text, text_of
        >>> text_of((Reasoning("hm"), Text("Par"), Text("is"))), text_of("Paris")
        ('Paris', 'Paris')
    """
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, Text))


def thawed(part: Part, *, digest: bool = False) -> dict[str, Any]:
    """Return a part as JSON-able data, for a cache key, a record or a page.

    Args:
        part: The part.
        digest: Put the digest of its bytes in place of the bytes.
    """
    fields: dict[str, Any] = {"part": type(part).__name__}
    for name in type(part).__slots__:
        value = getattr(part, name)
        if isinstance(value, bytes):
            value = hashlib.blake2b(value, digest_size=20).hexdigest() if digest else base64.b64encode(value).decode()
        if value is not None and value is not False:
            fields[name] = value
    return fields


def part_of(data: Mapping[str, Any]) -> Part:
    """Return the part that `thawed` made such data of.

    Raises:
        ValueError: If it is none.
    """
    from otpy.lm.frozen import FrozenJSON  # noqa: PLC0415 - only here

    fields = dict(data)
    kind = _KINDS.get(fields.pop("part", ""))
    if kind is None:
        raise ValueError(f"{data.get('part')!r} is no part of a message; allowed: {', '.join(_KINDS)}")
    if "data" in fields:
        fields["data"] = base64.b64decode(fields["data"])
    if "input" in fields:
        fields["input"] = FrozenJSON(fields["input"])
    part: Part = kind(**fields)
    return part
