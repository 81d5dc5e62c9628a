"""Values that stand in marked sections or tags, each by itself: texts as they are, everything else as JSON. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.mending import LooseError, read_loosely
from otpy.adapters.reading import is_text
from otpy.adapters.softening import fitted
from otpy.errors import AdapterParseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["HEADER", "meant", "read_sections", "textual", "written"]

HEADER: Final = re.compile(r"^[ \t]*(?:\*\*|#+ )?\[\[[ \t]*##[ \t]*(\w+)[ \t]*##[ \t]*\]\](?:\*\*)?", re.MULTILINE)
"""The line above a section, as models write it."""

_FENCE: Final = re.compile(r"```[\w+-]*[ \t]*\n(.*?)\n?```", re.DOTALL)


def written(value: Any, *, text: bool) -> str:
    """Return JSON data as its section holds it: a text bare, where `meant` then reads the same.

    Args:
        value: The data.
        text: Whether the section is for a text.

    Example:
        >>> from otpy.adapters.sections import written
        >>> written("5", text=True), written("5", text=False), written([5], text=False)
        ('5', '"5"', '[5]')
    """
    bare = isinstance(value, str) and value == value.strip() and meant(value, text=text) == value
    return str(value) if bare else json.dumps(value, ensure_ascii=False)


def meant(content: str, *, text: bool) -> Any:  # noqa: PLR0911 - one line a form
    """Return the JSON data that a section means: for a text what it says, unless it is in quotes; else JSON if it is.

    Args:
        content: The section's content, without space around it.
        text: Whether it is for a text.

    Example:
        >>> from otpy.adapters.sections import meant
        >>> meant("5", text=True), meant('"5"', text=True), meant("5", text=False), meant("five", text=False)
        ('5', '5', 5, 'five')
    """
    if text:
        if content[:1] != '"':
            return content
        try:
            quoted: Any = json.loads(content)
        except (ValueError, RecursionError):
            return content
        return quoted if isinstance(quoted, str) else content
    if fenced := _FENCE.fullmatch(content):
        content = fenced.group(1).strip()
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    if content[:1] in {"{", "["}:
        try:
            value, end = read_loosely(content)
        except LooseError:
            return content
        return content if content[end:].strip() else value
    return content


def textual(field: FieldSpec) -> bool:
    """Whether the section of an output holds a text, whatever it looks like; of a text that may be absent it does not.

    Args:
        field: The output.
    """
    return is_text(field) and "None" not in field.type.split(" | ")


def read_sections(
    signature: SignatureMeta, values: Mapping[str, Any], sections: Mapping[str, str], answer: str
) -> dict[str, Any]:
    """Return the outputs that sections mean.

    Args:
        signature: The contract.
        values: What each section means, as JSON data.
        sections: What each section says.
        answer: All that the model said, for the error.

    Raises:
        AdapterParseError: If one does not fit its type.
    """
    try:
        return signature.read_outputs(json.dumps(dict(values)), answer=answer)
    except AdapterParseError as error:
        # A text that happens to be JSON, as 5 for `str | None` or `Literal["5"]`: read it as the text it is.
        plain = {name: sections[name] for name in error.missing if name in sections}
        try:
            return fitted(signature, json.dumps({**values, **plain}), answer)
        except AdapterParseError:
            raise error from None
