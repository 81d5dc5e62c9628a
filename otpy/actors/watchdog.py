"""A watchdog for the event loop: it reports a callback that blocks everybody: who it is, for how long, and where.

On one loop everybody waits for whoever runs: a `time.sleep`, a long computation or a synchronous request in one
callback stops all processes of the loop. Erlang preempts; asyncio can't, so it has to be seen. What blocks belongs in
a thread (`scheduling = "thread"`, `blocking`).
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from otpy.actors.process import Process
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["Watchdog"]

logger = reports("otpy.actors")


class Watchdog:
    """Watches the running loop from a thread of its own, for the length of a `with` block.

    What it finds is a warning in the log and two events: `otpy.loop.blocked` as soon as the threshold is passed, with
    the process and its stack, and `otpy.loop.freed` when the loop goes on, with the seconds that it took.

    Args:
        threshold: Seconds that a callback may hold the loop, more than 0.

    Raises:
        ValueError: If the threshold is not more than 0.

    Example:
        >>> import asyncio, logging, time
        >>> from otpy.actors import GenServer, Watchdog
        >>> from otpy.telemetry import bus
        >>> class Careless(GenServer):
        ...     def handle_cast(self, seconds):
        ...         time.sleep(seconds)
        >>> async def main():
        ...     with Watchdog(threshold=0.05):
        ...         careless = await Careless.start(name="careless")
        ...         careless.cast(0.3)
        ...         await careless.stop()
        >>> logging.disable(logging.WARNING)
        >>> with bus.attached("example", lambda event, fields: print(event, fields["process"]), "otpy.loop.blocked"):
        ...     asyncio.run(main())
        otpy.loop.blocked Careless 'careless'
        >>> logging.disable(logging.NOTSET)
    """

    def __init__(self, threshold: float = 0.1) -> None:
        """Prepare; entering the block starts it."""
        if not (isinstance(threshold, (int, float)) and math.isfinite(threshold) and threshold > 0):
            raise ValueError(f"threshold={threshold!r}; allowed: seconds > 0")
        self.threshold = float(threshold)
        self._stopped = threading.Event()
        self._beaten = threading.Event()

    def __enter__(self) -> Self:
        """Watch the loop that runs in this thread.

        Raises:
            RuntimeError: If none does.
        """
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="otpy-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._stopped.set()
        self._beaten.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self.threshold / 2):
            self._beaten.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._beaten.set)
            except RuntimeError:
                return  # the loop is closed
            if not self._beaten.wait(self.threshold) and not self._stopped.is_set():
                who = self._report(time.monotonic() - asked)
                self._beaten.wait()
                telemetry.emit("otpy.loop.freed", process=who, seconds=time.monotonic() - asked)

    def _report(self, seconds: float) -> str:
        frame = sys._current_frames().get(self._ident)  # noqa: SLF001 - documented, for debugging
        who, stack = _running(frame), "".join(traceback.format_stack(frame))
        logger.warning("%s has blocked the event loop for %.2f s; everybody waits for it\n%s", who, seconds, stack)
        telemetry.emit("otpy.loop.blocked", process=who, seconds=seconds, stack=stack)
        return who


def _running(frame: FrameType | None) -> str:
    """Find the process whose code is on a stack."""
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Process):
            return str(owner)
        frame = frame.f_back
    return "something that is no process"
