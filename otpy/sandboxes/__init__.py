"""Sandboxes: where the code that a model has written is run, which may do no harm."""

from __future__ import annotations

from otpy.sandboxes.bubblewrap import Bubblewrap
from otpy.sandboxes.engine import Engine, Limits, Outcome, SandboxError, SandboxLost, SandboxNotAvailable
from otpy.sandboxes.engines import ENGINES, engine
from otpy.sandboxes.monty import Monty
from otpy.sandboxes.pool import Desk, desk_of, pool
from otpy.sandboxes.pyodide import Pyodide
from otpy.sandboxes.sandbox import Leave, Sandbox

__all__ = [
    "ENGINES",
    "Bubblewrap",
    "Desk",
    "Engine",
    "Leave",
    "Limits",
    "Monty",
    "Outcome",
    "Pyodide",
    "Sandbox",
    "SandboxError",
    "SandboxLost",
    "SandboxNotAvailable",
    "desk_of",
    "engine",
    "pool",
]
