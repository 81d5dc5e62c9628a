"""`run`: a supervision tree as the whole program, from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from otpy.actors import KILLED, SHUTDOWN, new_event_loop
from otpy.errors import ActorDown, StartFailed
from otpy.supervisors.supervisor import Supervisor
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["run"]

logger = reports("otpy.supervisors")


def run(
    supervisor: Supervisor,
    *,
    signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT),
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop,
) -> signal.Signals | None:
    """Run a tree until a signal ends it, or it ends by itself: the main function of a daemon.

    The first signal stops the children in order, each with its `shutdown` seconds to clean up, and `run` returns. A
    further `SIGTERM` is logged, so that an impatient service manager cuts no cleanup short; a second Ctrl-C kills the
    tree.

    Args:
        supervisor: The tree, not started yet.
        signals: Signals that stop it.
        loop_factory: Makes the event loop: uvloop's, if that is installed.

    Returns:
        The signal that ended it; `None` if it ended by itself (`auto_shutdown`).

    Raises:
        MaxRestartsReached: If the tree gave up.
        StartFailed: If it did not start.
        RuntimeError: In a thread that runs an event loop, or is not the main thread.

    Example:
        >>> import os, signal
        >>> from otpy.actors import GenServer, send_after
        >>> from otpy.supervisors import Supervisor, run
        >>> class Daemon(GenServer):
        ...     trap_exit = True
        ...     def init(self):
        ...         send_after(self.ref, 0.01, "stop me")
        ...     def handle_info(self, message):
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ...     def terminate(self, reason):
        ...         print("cleaned up:", reason)
        >>> run(Supervisor([Daemon.child_spec()])).name
        cleaned up: shutdown
        'SIGTERM'
    """
    if not isinstance(supervisor, Supervisor):
        raise TypeError(f"run({supervisor!r}): allowed is a Supervisor, as in run(Supervisor([Server.child_spec()]))")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_until_told(supervisor, frozenset(signals)))


async def _until_told(supervisor: Supervisor, signals: frozenset[int]) -> signal.Signals | None:
    told: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()

    def tell(number: int) -> None:
        process = supervisor.process
        if not told.done():
            told.set_result(signal.Signals(number))
            logger.info("%s: the tree stops", told.result().name)
            if not process.ready:
                process.exit(SHUTDOWN)  # on its way up: what has started is stopped again
        elif number == signal.SIGINT:
            logger.warning("SIGINT again: the tree is killed")
            process.exit(KILLED)
        else:
            logger.warning("%s again: the tree is stopping already", signal.Signals(number).name)

    try:
        with _handled(signals, tell):
            async with supervisor as tree:
                ended = asyncio.ensure_future(tree.join())
                try:
                    await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ended.cancel()
    except (StartFailed, ActorDown):
        if not told.done():
            raise
    return told.result() if told.done() else None


@contextlib.contextmanager
def _handled(signals: frozenset[int], tell: Callable[[int], None]) -> Generator[None]:
    """Have the signals told to a function on the running loop, and give their old handlers back in the end."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in signals}
    on_loop: list[int] = []
    try:
        for number in signals:
            try:
                loop.add_signal_handler(number, tell, number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda number, _: loop.call_soon_threadsafe(tell, number))
            else:
                on_loop.append(number)
        yield
    finally:
        for number in on_loop:
            loop.remove_signal_handler(number)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
