"""The processes that talk to language models, one room a concern; import from the rooms themselves."""

from __future__ import annotations
