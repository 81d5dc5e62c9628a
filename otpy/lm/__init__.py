"""The shared words between programs, adapters and clients: a request to a language model and its answer.

Pure data: frozen, hashable, JSON-able. No process, no network, no provider's dialect.
"""

from __future__ import annotations

from otpy.lm.events import ReasoningDelta, StreamEnd, StreamEvent, TextDelta, ToolUseDelta
from otpy.lm.frozen import FrozenJSON
from otpy.lm.parts import Content, Media, Part, Reasoning, Text, ToolResult, ToolUse, part_of, text_of, thawed
from otpy.lm.request import LMRequest, Message, OutputSchema, Role, Tool, ToolChoice
from otpy.lm.response import Choice, LMResponse, TokenLogprob, Usage
from otpy.lm.stored import answer_of, stored

__all__ = ["Choice", "Content", "FrozenJSON", "LMRequest", "LMResponse", "Media", "Message", "OutputSchema",
           "Part", "Reasoning", "ReasoningDelta", "Role", "StreamEnd", "StreamEvent", "Text", "TextDelta",
           "TokenLogprob", "Tool", "ToolChoice", "ToolResult", "ToolUse", "ToolUseDelta", "Usage",
           "answer_of", "part_of", "stored", "text_of", "thawed"]  # fmt: skip
