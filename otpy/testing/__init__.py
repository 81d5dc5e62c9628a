"""What tests of supervised programs need: time that is held, and models that answer by script."""

from __future__ import annotations

from otpy.testing.fake_finetuning import FakeFineTuning, Trouble
from otpy.testing.fake_provider import Counts, FakeProvider
from otpy.testing.fake_script import Fault, HiddenLimits, Say, Sometimes
from otpy.testing.loopback import LoopbackLM, Scripted
from otpy.testing.virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = [
    "Counts",
    "FakeFineTuning",
    "FakeProvider",
    "Fault",
    "HiddenLimits",
    "LoopbackLM",
    "Say",
    "Scripted",
    "Sometimes",
    "Trouble",
    "VirtualTimeLoop",
    "run_in_virtual_time",
]
