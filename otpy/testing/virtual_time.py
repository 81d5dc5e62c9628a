"""An event loop whose clock jumps to the next timer when there is nothing else to do.

Whole minutes of deadlines, back-off and restart intensity pass in microseconds, always in the same order. Real I/O and
threads do not fit into it: a loop that waits for either while timers are armed would jump past them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")

IDLE_SECONDS = 5.0
"""Real seconds without any event, with no timer armed, after which a virtual loop is taken for deadlocked."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for the next timer, moves the loop's clock to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Poll; with nothing to read, time passes."""
        events = super().select(0)
        if not events and timeout is not None and timeout > 0:
            self.now += timeout
        elif not events and timeout is None:
            events = super().select(IDLE_SECONDS)  # a thread may still wake the loop
            if not events:
                raise TimeoutError("nothing is left to happen: no timer is armed and no callback is ready (a deadlock)")
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that never waits for time.

    Example:
        >>> import asyncio
        >>> from otpy.testing import run_in_virtual_time
        >>> async def main():
        ...     loop = asyncio.get_running_loop()
        ...     before = loop.time()
        ...     await asyncio.sleep(3600)
        ...     return loop.time() - before
        >>> round(run_in_virtual_time(main()))
        3600
    """

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh virtual-time loop.

    Args:
        coroutine: What to run.

    Raises:
        TimeoutError: If nothing is left to happen: no timer, no ready callback, and the coroutine still waits.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
