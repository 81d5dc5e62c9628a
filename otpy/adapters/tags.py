"""Values as nested elements: an object has an element a key, a list an `<item>` each, all else is a text or JSON. Pure.

This is XML for models, not for machines: they forget to escape `&` and `<`, so only an element's own end ends it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.adapters.sections import meant, written

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LITERAL", "OPENED", "begins_tag", "content_of", "end_of", "read_tags", "tag_of", "unescaped", "write_tags"]

LITERAL: Final = "<![CDATA["
"""What a text begins with in which nothing is a tag, up to `]]>`."""

OPENED: Final = re.compile(r"<([^\W\d][\w.-]*)(?:\s[^<>]*?)?(/?)>")
"""A start tag, or an empty element."""

_NAME: Final = re.compile(r"[^\W\d][\w.-]*")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*)\]\]>", re.DOTALL)
_ENTITY: Final = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
_MARKS: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


def write_tags(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the content of an element.

    Args:
        value: JSON data.
        schema: Its JSON schema.
        definitions: What references in it mean.

    Example:
        >>> from otpy.adapters.tags import write_tags
        >>> write_tags(["a < b"], {"type": "array", "items": {"type": "string"}}, {})
        '<item>a &lt; b</item>'
    """
    schema = _structure(schema, definitions)
    if isinstance(value, dict) and _named(schema):
        parts: dict[str, Any] = cast("Any", value)
        kinds = schema["properties"]
        if parts.keys() <= kinds.keys():
            inner = (f"<{key}>{write_tags(part, kinds[key], definitions)}</{key}>" for key, part in parts.items())
            return "".join(inner)
    if isinstance(value, list) and schema.get("type") == "array" and "items" in schema:
        items: list[Any] = cast("Any", value)
        return "".join(f"<item>{write_tags(item, schema['items'], definitions)}</item>" for item in items)
    text = written(value, text=_textual(schema))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def read_tags(content: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """Return the JSON data that the content of an element means.

    Args:
        content: The content.
        schema: Its JSON schema.
        definitions: What references in it mean.

    Example:
        >>> from otpy.adapters.tags import read_tags
        >>> person = {"properties": {"name": {"type": "string"}, "born": {"type": "integer"}}}
        >>> read_tags("<name>Ada & co</name> <born>1815</born>", person, {})
        {'name': 'Ada & co', 'born': 1815}
    """
    schema = _structure(schema, definitions)
    listed = schema.get("type") == "array" and "items" in schema
    content = content.strip()
    if listed and not content:
        return []
    if (listed or _named(schema)) and content[:1] == "<" and (parts := _elements(content)) is not None:
        if listed:
            return [read_tags(part, schema["items"], definitions) for _, part in parts]
        kinds = schema["properties"]
        if len({name for name, _ in parts}) == len(parts):
            return {name: read_tags(part, kinds.get(name, {}), definitions) for name, part in parts}
    return meant(content_of(content), text=_textual(schema))


def content_of(content: str) -> str:
    """Return the text of an element that holds text alone.

    Args:
        content: As it stands between the tags.

    Example:
        >>> from otpy.adapters.tags import content_of
        >>> content_of(" a &lt; b &c ")
        'a < b &c'
    """
    content = content.strip()
    if literal := _CDATA.fullmatch(content):
        return literal.group(1).strip()
    return unescaped(content)


def unescaped(text: str) -> str:
    """Return a text with its entities decoded; an unknown one stays as it stands.

    Args:
        text: The text.
    """
    return _ENTITY.sub(_character, text)


def end_of(text: str, name: str, at: int, *, nested: bool) -> re.Match[str] | None:
    """Return the end tag of an element.

    Args:
        text: Where it stands.
        name: The element's name.
        at: Where its content begins.
        nested: Whether elements of the same name may stand in it.
    """
    literal = re.compile(r"\s*<!\[CDATA\[").match(text, at)
    if literal is not None:
        end = text.find("]]>", literal.end())
        if end < 0:
            return None
        at = end
    depth = 1
    for tag in tag_of(name).finditer(text, at):
        if tag.group(1):
            depth -= 1
        elif nested and not tag.group(2):
            depth += 1
        if not depth:
            return tag
    return None


def tag_of(name: str) -> re.Pattern[str]:
    """Return what a tag of an element looks like, whether it begins or ends it.

    Args:
        name: The element's name.
    """
    return re.compile(rf"<(/?){re.escape(name)}(?:\s[^<>]*?)?(/?)>")


def begins_tag(text: str, name: str) -> bool:
    """Return whether a text that begins with its only `<`, and is no tag, may become one of an element.

    Args:
        text: The text.
        name: The element's name.

    Example:
        >>> from otpy.adapters.tags import begins_tag
        >>> begins_tag("</ans", "answer"), begins_tag("< 3", "answer"), begins_tag("</answers", "answer")
        (True, False, False)
    """
    inner = text[1:].removeprefix("/")
    rest = inner.removeprefix(name)
    return name.startswith(inner) or (inner.startswith(name) and (rest in {"", "/"} or rest[0].isspace()))


def _elements(content: str) -> list[tuple[str, str]] | None:
    """The elements of which a content consists, or nothing if it holds something else as well."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(content):
        opened = OPENED.match(content, at)
        if opened is None:
            return None
        at = opened.end()
        inner = ""
        if not opened.group(2):
            end = end_of(content, opened.group(1), at, nested=True)
            if end is None:
                return None
            inner, at = content[at : end.start()], end.end()
        found.append((opened.group(1), inner))
        at += len(content[at:]) - len(content[at:].lstrip())
    return found


def _structure(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without references."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _named(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("properties")) and all(_NAME.fullmatch(key) for key in schema["properties"])


def _textual(schema: Mapping[str, Any]) -> bool:
    labels = schema.get("enum")
    return schema.get("type") == "string" if labels is None else all(isinstance(label, str) for label in labels)


def _character(found: re.Match[str]) -> str:
    name, decimal, digits = found.groups()
    number = int(decimal) if decimal else int(digits, 16) if digits else ord(_MARKS[name])
    valid = number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF
    return chr(number) if valid else found.group()
