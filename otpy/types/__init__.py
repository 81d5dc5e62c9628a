"""Types of fields that models know by themselves: images, tools, conversations, thoughts. Pure."""

from __future__ import annotations

from otpy.types.audio import Audio
from otpy.types.citations import Citation, Citations
from otpy.types.code import Code
from otpy.types.decision import Decision
from otpy.types.document import Document
from otpy.types.file import File
from otpy.types.history import History
from otpy.types.image import Image
from otpy.types.kind import Native, Type
from otpy.types.reasoning import Reasoning
from otpy.types.tool import Tool, ToolCall, ToolCalls, ToolResult, ToolResults

__all__ = [
    "Audio",
    "Citation",
    "Citations",
    "Code",
    "Decision",
    "Document",
    "File",
    "History",
    "Image",
    "Native",
    "Reasoning",
    "Tool",
    "ToolCall",
    "ToolCalls",
    "ToolResult",
    "ToolResults",
    "Type",
]
