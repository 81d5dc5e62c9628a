"""What tests of supervised programs need: time that is held, and models that answer by script."""

from __future__ import annotations

from otpy.testing.loopback import LoopbackLM, Scripted
from otpy.testing.virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = ["LoopbackLM", "Scripted", "VirtualTimeLoop", "run_in_virtual_time"]
