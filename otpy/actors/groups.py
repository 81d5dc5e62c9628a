"""`Groups`: named groups of processes, which anybody may send to, and watch come and go.

Source: Erlang's `pg`, on one node; the names are its.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors.entries import Table, at_home, running_or, sent
from otpy.actors.gen_server import GenServer
from otpy.actors.process import Process
from otpy.actors.ref import Ref
from otpy.actors.threads import on_loop_of
from otpy.errors import ActorDown

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["Answers", "GroupMonitor", "Groups", "GroupsRef", "Joined", "Left"]


class GroupMonitor:
    """A subscription to a group, told from all others by identity."""

    __slots__ = ("group", "number", "subscriber")

    def __init__(self, group: object, subscriber: Process) -> None:
        """Keep who watches what."""
        self.group, self.subscriber = group, subscriber
        self.number = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """A process has joined a group: `{Ref, join, Group, Pids}` in Erlang.

    Args:
        monitor: What `monitor` returned.
        group: Which group.
        process: Who; a process that joins several times is in as many messages.
    """

    monitor: GroupMonitor
    group: Any
    process: Ref[Any]


@dataclass(frozen=True, slots=True)
class Left:
    """A process has left a group, or is dead: `{Ref, leave, Group, Pids}` in Erlang.

    Args:
        monitor: What `monitor` returned.
        group: Which group.
        process: Who; one that dies after it has joined several times is in as many messages.
    """

    monitor: GroupMonitor
    group: Any
    process: Ref[Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the members of a group answered to a call.

    Args:
        replies: The answers.
        failed: `ActorDown`, `CallTimeout` or whatever else came in place of an answer.
    """

    replies: dict[Ref[Any], Any]
    failed: dict[Ref[Any], BaseException]


class _Memberships(Table):
    """The members of all groups, and who watches them."""

    def __init__(self, owner: Process) -> None:
        """Start empty."""
        super().__init__(owner, unique=False)
        self.monitors: dict[object, dict[GroupMonitor, None]] = {}

    def added(self, process: Process, key: object) -> None:
        """Tell the subscribers."""
        self._tell(Joined, key, process)

    def removed(self, process: Process, key: object, count: int) -> None:
        """Tell the subscribers, once for every time the process had joined."""
        for _ in range(count):
            self._tell(Left, key, process)

    def _tell(self, kind: type[Joined | Left], group: object, process: Process) -> None:
        for monitor in tuple(self.monitors.get(group, ())):
            sent(monitor.subscriber.ref, kind(monitor, group, process.ref))

    def watch(self, monitor: GroupMonitor) -> None:
        """Tell a subscriber from now on; only on its loop."""
        with self.lock:
            self._check(monitor.subscriber)
            self.monitors.setdefault(monitor.group, {})[monitor] = None
            monitor.number = monitor.subscriber.when_down(lambda _: self._forget(monitor))

    def unwatch(self, monitor: GroupMonitor) -> bool:
        """Tell a subscriber no more; `False` if it was told no more already."""
        with self.lock:
            known = monitor in self.monitors.get(monitor.group, ())
            self._forget(monitor)
        monitor.subscriber.across(Process.forget, monitor.number)
        return known

    def _forget(self, monitor: GroupMonitor) -> None:
        with self.lock:
            monitors = self.monitors.get(monitor.group, {})
            monitors.pop(monitor, None)
            if not monitors:
                self.monitors.pop(monitor.group, None)

    def end(self, _: Process) -> None:
        """Forget all: the owner is dead."""
        self.close(lambda _: None)
        for monitor in [monitor for monitors in self.monitors.values() for monitor in monitors]:
            self.unwatch(monitor)


class GroupsRef(Ref[Any]):
    """A reference to a process that keeps groups; reading needs no message, so it works from any thread.

    All functions raise `ActorDown` if that process is dead. They are `join_group` and `leave_group` here because
    `join` waits for the end of a process.
    """

    __slots__ = ()

    def join_group(self, group: object, process: Ref[Any] | None = None) -> Awaitable[None]:
        """Make a process, by default the running one, a member of a group; it is one when this returns.

        It may join several times, and then has to leave as often. Only if the process lives on another event loop
        does the answer, an awaitable, have to be awaited.

        Args:
            group: Anything hashable; a group is there as long as it has members.
            process: Who.

        Raises:
            ActorDown: If the process is dead.
            RuntimeError: Outside of a process, if none is given.
        """
        who, table = running_or(process, "join_group()"), self._table
        return at_home(who, lambda: table.add(who, group))

    def leave_group(self, group: object, process: Ref[Any] | None = None) -> bool:
        """Undo one `join_group` of a process, by default the running one; `False` if it is no member."""
        return self._table.remove(running_or(process, "leave_group()"), group, 1) > 0

    @property
    def _table(self) -> _Memberships:
        process: Any = self.process
        actor = process.actor  # which goes with the process, maybe in another thread
        if actor is None:
            raise ActorDown(process, process.exit_reason)
        return actor.table  # type: ignore[no-any-return]

    def members(self, group: object) -> list[Ref[Any]]:
        """Return the live members, each as often as it has joined, in the order they did."""
        return [entry.process for entry in self._table.of(group)]

    def which_groups(self) -> list[Any]:
        """Return all groups that have members."""
        return self._table.keys()

    def monitor(self, group: object, subscriber: Ref[Any] | None = None) -> tuple[GroupMonitor, list[Ref[Any]]]:
        """Have every `Joined` and `Left` of a group sent to a process (to `handle_info`), by default the running one.

        Args:
            group: Which group; it need not have members yet.
            subscriber: Who hears; until its death, or `demonitor`.

        Returns:
            The subscription, and the members at this moment: who joins or leaves later is in a message, who did so
            before is not.

        Raises:
            ActorDown: If the subscriber is dead.
            RuntimeError: Outside of a process, if none is given; if it lives on another event loop than this code.
        """
        table, monitor = self._table, GroupMonitor(group, running_or(subscriber, "monitor()"))

        def watch() -> list[Ref[Any]]:
            with table.lock:
                table.watch(monitor)
                return [entry.process for entry in table.of(group)]

        return monitor, on_loop_of(monitor.subscriber, watch)

    def demonitor(self, monitor: GroupMonitor) -> bool:
        """Take a subscription back; `False` if it was taken back already."""
        return self._table.unwatch(monitor)

    def broadcast(self, group: object, message: object) -> int:
        """Send a message to every member (to `handle_info`), once however often it has joined.

        Returns:
            To how many; a bounded mailbox that was full and refused it is not counted.
        """
        return sum(sent(member, message) for member in dict.fromkeys(self.members(group)))

    async def call_all(self, group: object, request: object, timeout: float | None = 5.0) -> Answers:  # noqa: ASYNC109
        """Call every member, all at the same time: `multi_call` in Erlang.

        Args:
            group: Which group.
            request: As in `Ref.call`.
            timeout: Seconds to wait for each; `None` waits for ever.
        """
        members = list(dict.fromkeys(self.members(group)))
        results = await asyncio.gather(*(member.call(request, timeout) for member in members), return_exceptions=True)
        pairs = list(zip(members, results, strict=True))
        return Answers(
            {member: result for member, result in pairs if not isinstance(result, BaseException)},
            {member: result for member, result in pairs if isinstance(result, BaseException)},
        )


class Groups(GenServer):
    """Named groups of processes: a scope, in the words of `pg`.

    A member leaves when it dies, before anybody who monitors it hears of that. Nothing survives the `Groups` process
    itself: killed and started again by its supervisor it has no groups, and, as in `pg`, its members live on without
    a word. Who has to be a member again is linked to it, monitors it, or comes after it under `rest_for_one`.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer
        >>> from otpy.actors.groups import Groups
        >>> class Listener(GenServer):
        ...     def handle_info(self, message):
        ...         print("heard", message)
        >>> async def main():
        ...     groups = await Groups.start()
        ...     first, second = await Listener.start(), await Listener.start()
        ...     for listener in (first, second):
        ...         await groups.join_group("news", listener)
        ...     print(groups.broadcast("news", "rain"))
        ...     await first.stop()
        ...     print(groups.members("news") == [second])
        ...     await second.stop()
        ...     print(groups.which_groups())
        >>> asyncio.run(main())
        2
        heard rain
        heard rain
        True
        []
    """

    ref_class = GroupsRef

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> GroupsRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> GroupsRef: ...  # noqa: D102

    def init(self) -> None:
        """Start without groups."""
        self.table = _Memberships(self.process)
        self.process.when_down(self.table.end)

    def format_status(self, state: Any) -> Any:  # noqa: ARG002 - it is the table, which says little
        """Say what reports show: the members of each group."""
        return {group: [entry.process for entry in self.table.of(group)] for group in self.table.keys()}  # noqa: SIM118
