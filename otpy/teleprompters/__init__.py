"""Optimizers: programs in, better programs out. Each is a pure search, run by a supervised process."""

from __future__ import annotations

from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.teleprompter import Teleprompter

__all__ = ["BootstrapFewShot", "LabeledFewShot", "Teleprompter"]
