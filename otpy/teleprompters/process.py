"""The process that does an optimization's work: started, restarted and forgotten by the application's supervisor."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import NORMAL, Call, GenServer, NoReply, Restart, Stop, is_abnormal
from otpy.clients.running import running
from otpy.errors import ActorDown, NotRegistered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.actors import Caller
    from otpy.supervisors import DynamicSupervisorRef

__all__ = ["Run", "run"]

RESTART_SECONDS: Final = 5.0
"""How long to wait for a process that is being restarted."""
_numbers = itertools.count(1)


class _Outcome(Call[Any]):
    """Ask a run for what came of it; answered when that is known."""


class Run(GenServer):
    """One optimization. Killed, it is restarted and goes on from its journal.

    Args (of `child_spec`):
        work: What to do. What it raises is its outcome: done again it would be raised again.
    """

    def init(self, work: Callable[[], Awaitable[Any]]) -> NoReply:
        """Begin as soon as the start has returned."""
        return NoReply(then=work)

    async def handle_continue(self, argument: Any) -> None:
        """Do the work."""
        self.result: Any = None
        self.error: Exception | None = None
        try:
            self.result = await argument()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever asked
            self.error = error

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Hand the outcome over, and end."""
        if not isinstance(request, _Outcome):
            return super().handle_call(request, caller)
        if self.error is None:
            return Stop(NORMAL, reply=self.result)
        caller.fail(self.error)
        return Stop(NORMAL)


async def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Do some work in a process under the application's `teleprompters`, and return what it returns.

    Through restarts of that process and of its supervisor; cancelling this ends it.

    Args:
        work: Called in the process; again after a restart.

    Raises:
        ActorDown: If the process was stopped from outside, or the application was.
        Exception: Whatever the work raises.
    """
    names = running().names
    name = ("teleprompter", next(_numbers))
    spec = Run.child_spec(work, name=name, restart=Restart.TRANSIENT)
    while True:
        try:
            supervisor = cast("DynamicSupervisorRef", await names.wait_for("teleprompters", RESTART_SECONDS))
        except NotRegistered as error:
            raise ActorDown("the optimization", "its application has stopped") from error
        await supervisor.start_child(spec)
        try:
            while supervisor.is_alive():
                try:
                    process = await names.wait_for(name, RESTART_SECONDS)
                    return await process.call(_Outcome(), None)
                except NotRegistered:
                    continue  # its supervisor has died, or takes long to restart it
                except ActorDown as down:
                    if not is_abnormal(down.reason):
                        raise
        finally:
            left = names.whereis(name)
            if left is not None and supervisor.is_alive():
                await supervisor.terminate_child(left)
