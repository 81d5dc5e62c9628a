"""Which asking of the same thing this is: a number that follows the context, added to every predictor's `rollout`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["APART", "SEVERAL", "beyond", "go_beyond"]

APART: Final = 1 << 20
"""What runs over a devset are apart, so that programs that count rollouts themselves do not meet."""
SEVERAL: Final = 1 << 40
"""What several answers to one question are apart, for the same reason."""
_beyond: ContextVar[int] = ContextVar("otpy_rollouts", default=0)
beyond: Final = _beyond.get
"""Return what is added here."""
go_beyond: Final = _beyond.set
"""Set what is added in the calling code, and in the tasks, threads and processes it starts."""
