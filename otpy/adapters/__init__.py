"""Between a signature and a model: how a question is put into messages, and an answer read. Pure."""

from __future__ import annotations

from otpy.adapters.adapter import Adapter, repair
from otpy.adapters.baml_adapter import BAMLAdapter
from otpy.adapters.chat_adapter import ChatAdapter
from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.native import NativeFields, answered, native_fields
from otpy.adapters.reading import FieldDelta, FieldDone, FieldEvent, Reader, Withdrawn
from otpy.adapters.saved import ADAPTERS, adapter_of, state_of
from otpy.adapters.template_adapter import TemplateAdapter
from otpy.adapters.turns import asked, conversation
from otpy.adapters.two_step_adapter import TwoStepAdapter
from otpy.adapters.wording import as_text
from otpy.adapters.words import ENGLISH, GERMAN, LANGUAGES, Words
from otpy.adapters.xml_adapter import XMLAdapter

__all__ = ["ADAPTERS", "ENGLISH", "GERMAN", "LANGUAGES", "Adapter", "BAMLAdapter", "ChatAdapter", "FieldDelta",
           "FieldDone", "FieldEvent", "JSONAdapter", "NativeFields", "Reader", "TemplateAdapter", "TwoStepAdapter",
           "Withdrawn", "Words", "XMLAdapter", "adapter_of", "answered", "as_text", "asked", "conversation",
           "native_fields", "repair", "state_of"]  # fmt: skip
