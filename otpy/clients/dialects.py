"""The dialects there are, by name; each is loaded when a client first speaks it."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.codec import Codec

__all__ = ["DIALECTS", "codec"]

DIALECTS: Final[Mapping[str, tuple[str, str]]] = {
    "openai_chat": ("otpy.clients.openai_chat", "OpenAIChat"),
    "openai_responses": ("otpy.clients.openai_responses", "OpenAIResponses"),
    "anthropic": ("otpy.clients.anthropic", "AnthropicMessages"),
    "gemini": ("otpy.clients.gemini", "GeminiGenerateContent"),
}


@functools.cache
def codec(dialect: str) -> Codec:
    """Return the codec of a dialect.

    Args:
        dialect: One of `DIALECTS`.

    Example:
        >>> from otpy.clients.dialects import codec
        >>> codec("openai_chat").name
        'openai_chat'
    """
    room, name = DIALECTS[dialect]
    found: Codec = getattr(importlib.import_module(room), name)()
    return found
