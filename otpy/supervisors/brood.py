"""Children without ids, known by their processes, each restarted on its own.

What `DynamicSupervisor` and the strategy `simple_one_for_one` have in common. Source: `supervisor.erl` (OTP 26) and
Elixir's `dynamic_supervisor.ex`.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.actors import BRUTAL_KILL, KILL, SHUTDOWN, Cast, ChildType, ExitMessage, Process, Restart, Stop, is_abnormal
from otpy.actors.teardown import going_down
from otpy.supervisors.child import (
    begin_child,
    begin_to_shut_down,
    ended_in_time,
    report_failed_start,
    report_giving_up,
    report_left,
    report_restart,
    shut_down,
    start_child,
)
from otpy.supervisors.requests import ChildInfo, Counts
from otpy.supervisors.strategy import must_restart

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from otpy.actors import GenServer, Reason
    from otpy.errors import MaxRestartsReached
    from otpy.supervisors.child import Child
    from otpy.supervisors.intensity import Intensity
    from otpy.supervisors.strategy import Strategy

__all__ = ["Brood", "TryAgain"]

Answer: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class TryAgain(Cast):
    """A message to oneself: the restart of the child that was this process failed and is due again."""

    process: Process


class Brood:
    """The children of one supervisor, by process, in start order.

    A child whose restart failed is still known by the process that died, as in OTP, until a restart succeeds.

    Args:
        owner: The supervisor.
        strategy: What the log calls it.
        intensity: The supervisor's restart intensity.
    """

    def __init__(self, owner: GenServer, strategy: Strategy, intensity: Intensity) -> None:
        """Start without children."""
        self.owner = owner
        self.strategy = strategy
        self.intensity = intensity
        self.gave_up: MaxRestartsReached | None = None
        self._children: dict[Process, Child] = {}

    @property
    def children(self) -> list[Child]:
        """The children in start order."""
        return list(self._children.values())

    def __len__(self) -> int:
        """Count the children, with those that are restarting."""
        return len(self._children)

    def infos(self) -> list[ChildInfo]:
        """Say what `which_children` says."""
        return [ChildInfo(None, c.ref, c.state, c.spec.type, c.restarts) for c in self._children.values()]

    def counts(self) -> Counts:
        """Say what `count_children` says; a child is active as long as the supervisor has not heard of its end."""
        children = self._children.values()
        supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
        active = sum(not child.restarting for child in children)
        return Counts(len(children), active, supervisors, len(children) - supervisors)

    def start(self, child: Child) -> Answer:
        """Start a child and know it from then on, unless it failed or ignored; a coroutine if that takes time."""
        reason = begin_child(child)
        return self._starting(child, reason) if inspect.iscoroutine(reason) else self._started(child, reason)

    async def _starting(self, child: Child, beginning: Coroutine[Any, Any, Reason | None]) -> Answer:
        return self._started(child, await beginning)

    def _started(self, child: Child, reason: Reason | None) -> Answer:
        if reason is not None:
            return ("failed", child.spec.id, reason)
        if child.ref is not None:
            if child.spec.restart is Restart.TEMPORARY:
                child.start = child.spec.start  # never called again: its arguments need not stay in memory
            self._children[child.ref.process] = child
        return ("ok", child.ref)

    def terminate(self, process: Process) -> bool | Coroutine[Any, Any, bool]:
        """Stop a child and forget it; `False` if there is none of this process; a coroutine if that takes time."""
        child = self._children.pop(process, None)
        if child is None:
            return False
        left = begin_to_shut_down(self.owner.process, child)
        return True if left is None else self._terminating(left, child)

    async def _terminating(self, process: Process, child: Child) -> bool:
        await ended_in_time(self.owner.process, process, child.spec.shutdown)
        return True

    async def ended(self, message: object) -> Stop | None:
        """Act on the end of a child."""
        if not isinstance(message, ExitMessage) or message.process is None:
            return None
        process = message.process.process
        child = self._children.get(process)
        if child is None or child.restarting:
            return None
        if must_restart(child.spec.restart, abnormal=is_abnormal(message.reason)):
            return await self._restart(process, child, message.reason)
        report_left(self.owner.process, child, message.reason)
        del self._children[process]
        return self.gone(child)

    def gone(self, child: Child) -> Stop | None:  # noqa: ARG002 - for those who care which
        """Say whether the supervisor ends, now that a child is gone for good."""
        return None

    async def again(self, message: TryAgain) -> Stop | None:
        """Try a failed restart again, unless somebody has terminated the child since."""
        child = self._children.get(message.process)
        if child is None or not child.restarting:
            return None
        return await self._restart(message.process, child, "the last restart failed")

    async def _restart(self, process: Process, child: Child, reason: Reason) -> Stop | None:
        supervisor = self.owner.process
        if going_down(supervisor):
            return Stop(SHUTDOWN)
        if not self.intensity.add(supervisor.loop.time()):
            del self._children[process]
            self.gave_up = report_giving_up(supervisor, child, self.intensity, reason)
            return Stop(SHUTDOWN)
        report_restart(supervisor, child, self.strategy, reason)
        failure = await start_child(child)
        if failure is not None:
            report_failed_start(supervisor, child, failure)
            child.restarting = True
            self.owner.ref.cast(TryAgain(process))
            return None
        del self._children[process]
        if child.ref is not None:
            self._children[child.ref.process] = child
        return None

    async def stop(self) -> None:
        """Stop all children at the same time, each within its own deadline."""
        children, self._children = self.children, {}
        for child in children:
            if child.ref is not None and child.spec.shutdown == BRUTAL_KILL:
                child.ref.process.signal(self.owner.process, KILL)
        await asyncio.gather(*(shut_down(self.owner.process, child) for child in children))
