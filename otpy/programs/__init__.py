"""Programs: stateless values that ask client processes."""

from __future__ import annotations

from otpy.programs.chain_of_thought import ChainOfThought
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.saving import load, load_file, save
from otpy.programs.trace import Trace, TraceEntry, tracing

__all__ = ["ChainOfThought", "Predict", "Program", "Trace", "TraceEntry", "load", "load_file", "save", "tracing"]
