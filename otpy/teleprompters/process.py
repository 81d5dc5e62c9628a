"""The process that does an optimization's work: started, restarted and forgotten by the application's supervisor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import NORMAL, Call, GenServer, NoReply, Restart, Stop, is_abnormal
from otpy.clients.running import running
from otpy.errors import ActorDown, NotRegistered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.actors import Caller, ChildSpec, Names
    from otpy.supervisors import DynamicSupervisorRef

__all__ = ["Run", "run"]

RESTART_SECONDS: Final = 5.0
"""How long to wait for a process that is being restarted."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


class _Ask(Call[_Outcome]):
    """Ask a run for what came of it; answered when that is known."""


class Run(GenServer):
    """One optimization. Killed, it is restarted and goes on from its journal.

    Args (of `child_spec`):
        work: What to do. What it raises is its outcome: done again it would be raised again.
    """

    def init(self, work: Callable[[], Awaitable[Any]]) -> NoReply:
        """Begin as soon as the start has returned."""
        self.outcome = _Outcome()
        return NoReply(then=work)

    async def handle_continue(self, argument: Any) -> None:
        """Do the work."""
        try:
            self.outcome = _Outcome(await argument())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever asked
            self.outcome = _Outcome(error=error)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Hand the outcome over, and end."""
        if isinstance(request, _Ask):
            return Stop(NORMAL, reply=self.outcome)
        return super().handle_call(request, caller)


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
    spec = Run.child_spec(work, id=name, name=name, restart=Restart.TRANSIENT)
    outcome = None
    while outcome is None:
        try:
            supervisor = cast("DynamicSupervisorRef", await names.wait_for("teleprompters", RESTART_SECONDS))
        except NotRegistered as error:
            raise ActorDown("the optimization", "its application has stopped") from error
        try:
            outcome = await _outcome(names, supervisor, spec)
        finally:
            left = names.whereis(name)
            if left is not None and supervisor.is_alive():
                await supervisor.terminate_child(left)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


async def _outcome(names: Names, supervisor: DynamicSupervisorRef, spec: ChildSpec) -> _Outcome | None:
    """Wait for a run through its restarts; `None` if its supervisor has died, and the run with it."""
    try:
        process = await supervisor.start_child(spec)
        while True:
            stopped: ActorDown | None = None
            try:
                if process is not None:
                    return await process.call(_Ask(), None)
            except ActorDown as down:
                stopped = None if is_abnormal(down.reason) else down
            if stopped is not None:
                await supervisor.settled()  # it answers: so it was not its own end that stopped the run
                return _Outcome(error=stopped)
            if not supervisor.is_alive():
                return None
            try:
                process = await names.wait_for(spec.id, RESTART_SECONDS)
            except NotRegistered:
                process = None  # not yet
    except ActorDown:
        return None
