"""Between a signature and a model: how a question is put into messages, and an answer read. Pure."""

from __future__ import annotations

from otpy.adapters.adapter import Adapter, repair
from otpy.adapters.chat_adapter import ChatAdapter
from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.wording import as_text

__all__ = ["ADAPTERS", "Adapter", "ChatAdapter", "JSONAdapter", "as_text", "repair"]

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (JSONAdapter(), ChatAdapter())}
"""The adapters by the names that saved programs use."""
