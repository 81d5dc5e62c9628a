"""A request as JSON data and as lines of text: what a recording keeps of it, and how two of them are compared. Pure."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.history import without_secrets
from otpy.lm import Media, thawed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otpy.lm import LMRequest, Part

__all__ = ["as_data", "as_lines", "difference", "nearest"]

_DIFF_LINES: Final = 120
_LONG_LINE: Final = 200
_CANDIDATES: Final = 8
_TOLD: Final = frozenset({"messages", "schema", "tools"})


def as_data(request: LMRequest) -> dict[str, Any]:
    """Return a request as JSON data, for people and for `as_lines`; media as their digest and size.

    Args:
        request: What is asked; what looks like a key among its further parameters is starred out.
    """
    request = without_secrets(request)
    data: dict[str, Any] = {
        "messages": [
            [message.role, message.content if isinstance(message.content, str) else [*map(_part, message.content)]]
            for message in request.messages
        ]
    }
    if request.schema is not None:
        data["schema"] = [request.schema.name, request.schema.schema]
    if request.tools:
        data["tools"] = [[tool.name, tool.description, tool.parameters, tool.strict] for tool in request.tools]
    plain = type(request)(())
    for name in type(request).__slots__:
        if name not in _TOLD and (value := getattr(request, name)) != getattr(plain, name):
            data[name] = value
    return data


def _part(part: Part) -> dict[str, Any]:
    data = thawed(part, digest=True)
    if isinstance(part, Media) and part.data is not None:
        data["bytes"] = len(part.data)
    return data


def as_lines(data: dict[str, Any]) -> list[str]:
    """Return the data of a request as lines that can be compared.

    Args:
        data: The `request` of a line of a recording.

    Example:
        >>> from otpy.clients.recorded_lines import as_data, as_lines
        >>> from otpy.lm import LMRequest, Message
        >>> as_lines(as_data(LMRequest((Message("user", "Hi there"),), temperature=0.5)))
        ['temperature: 0.5', '[user]', 'Hi there']
    """
    lines = [f"{name}: {json.dumps(data[name], ensure_ascii=False)}" for name in sorted(data) if name not in _TOLD]
    if "schema" in data:
        lines += [f"schema {data['schema'][0]}:", *_split(_indented(data["schema"][1]))]
    for name, description, parameters, _ in data.get("tools", ()):
        lines += [f"tool {name}:", *_split(description), *_split(_indented(parameters))]
    for role, content in data["messages"]:
        lines.append(f"[{role}]")
        for part in [content] if isinstance(content, str) else content:
            text = part if isinstance(part, str) else part["text"] if part.get("part") == "Text" else json.dumps(part)
            lines += _split(text)
    return lines


def _indented(text: str) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    return text


def _split(text: str) -> Iterator[str]:
    """Split a text into lines, and a long line after its sentences, so that a small change stays small."""
    for line in text.split("\n"):
        yield from [line] if len(line) <= _LONG_LINE else re.split(r"(?<=[.!?;,]) ", line)


def difference(recorded: list[str], asked: list[str]) -> str:
    """Return how one request differs from another, as a unified diff of bounded length; empty if it does not.

    Args:
        recorded: The lines of the one.
        asked: The lines of the other.
    """
    diff = list(difflib.unified_diff(recorded, asked, "recorded", "asked", lineterm=""))
    if len(diff) > _DIFF_LINES:
        diff = [*diff[:_DIFF_LINES], f"… {len(diff) - _DIFF_LINES} more lines"]
    return "\n".join(diff)


def nearest(asked: list[str], recorded: Iterable[tuple[list[str], bool]]) -> list[str] | None:
    """Find the recorded request most like this one: first by lines in common, then closely among the best.

    Args:
        asked: The lines of this one.
        recorded: The lines of the others, each with whether it is still to come: of two alike that one is meant.
    """
    wanted, text = Counter(asked), "\n".join(asked)
    scored: list[tuple[int, bool, list[str]]] = []
    for lines, to_come in recorded:
        common = 2 * (wanted & Counter(lines)).total() - len(lines)
        scored.append((common, to_come, lines))
    scored.sort(key=lambda one: one[:2], reverse=True)

    def close(candidate: tuple[int, bool, list[str]]) -> tuple[float, bool]:
        matcher = difflib.SequenceMatcher(None, "\n".join(candidate[2])[:4_000], text[:4_000], autojunk=False)
        return matcher.quick_ratio(), candidate[1]

    return max(scored[:_CANDIDATES], key=close)[2] if scored else None
