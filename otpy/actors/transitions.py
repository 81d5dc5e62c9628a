"""The words of a state machine, and the pure order of its events: what happens next, and what is put off.

Source: `gen_statem(3)`, the types `action`, `transition_option` and `state_enter`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.actors.messages import Reply, Stop
from otpy.actors.reasons import BadReturnValue

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from otpy.actors.caller import Caller

__all__ = ["Action", "Agenda", "CallEvent", "CastEvent", "EnterEvent", "Event", "EventTimeout", "Expired", "InfoEvent",
           "InternalEvent", "KeepState", "NamedTimeout", "NextState", "Plan", "Postpone", "RepeatState", "StateTimeout",
           "TimeoutEvent", "understood"]  # fmt: skip


# -- events ---------------------------------------------------------------------------------------------------------


class Event:
    """What a state machine's callbacks are given.

    Among the actions of a callback's answer an event is the `next_event` of OTP: it is handled next, before anything
    that waits already; several in the order in which they stand.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CallEvent(Event):
    """Somebody waits for an answer: `ref.call(request)`.

    Args:
        request: What was asked.
        caller: Who asks; `caller.reply` answers at any time, `Reply` among the actions answers now.
    """

    request: Any
    caller: Caller


@dataclass(frozen=True, slots=True)
class CastEvent(Event):
    """A message that nobody waits for: `ref.cast(message)`.

    Args:
        message: What was sent.
    """

    message: Any


@dataclass(frozen=True, slots=True)
class InfoEvent(Event):
    """Anything else: `Down`, `ExitMessage`, `send_after`, a bare `ref.send(message)`.

    Args:
        message: What was sent.
    """

    message: Any


@dataclass(frozen=True, slots=True)
class InternalEvent(Event):
    """The machine's word to itself, which nobody outside can send.

    Args:
        content: Anything.
    """

    content: Any = None


@dataclass(frozen=True, slots=True)
class EnterEvent(Event):
    """The state has just been entered; only for machines with `state_enter = True`.

    Args:
        old: The state before; for the first state that state itself.
    """

    old: Any


class TimeoutEvent(Event):
    """The three timeouts: among the actions they are set, and when their time has come they are the event."""

    __slots__ = ()

    seconds: float | None

    @property
    def timer(self) -> object:
        """Which timer it is; a machine has one of each, and setting it again replaces it."""
        return type(self)

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        seconds: object = self.seconds
        if seconds is None:
            return
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(
                f"{type(self).__name__}: seconds={seconds!r}; allowed: a number >= 0, or None to cancel it"
            )


@dataclass(frozen=True, slots=True)
class StateTimeout(TimeoutEvent):
    """The machine has been in its state for so long; a state change cancels it.

    Args:
        seconds: How long. 0 means: when no event waits but those of the mailbox. `None` cancels the timeout.
        content: Anything.

    Raises:
        ValueError: If `seconds` is negative or no number.
    """

    seconds: float | None
    content: Any = None


@dataclass(frozen=True, slots=True)
class EventTimeout(TimeoutEvent):
    """No event came for so long; any event cancels it.

    Args:
        seconds: As in `StateTimeout`.
        content: Anything.

    Raises:
        ValueError: As in `StateTimeout`.
    """

    seconds: float | None
    content: Any = None


@dataclass(frozen=True, slots=True)
class NamedTimeout(TimeoutEvent):
    """A timeout that nothing cancels but `NamedTimeout(name, None)`: the generic timeout of OTP.

    Args:
        name: Tells it from others; hashable.
        seconds: As in `StateTimeout`.
        content: Anything.

    Raises:
        ValueError: As in `StateTimeout`.
    """

    name: Hashable
    seconds: float | None
    content: Any = None

    @property
    def timer(self) -> object:
        """Each name is a timer."""
        return NamedTimeout, self.name


# -- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Postpone:
    """Put the event off: it is handled again after the next change of state, before any newer event."""


Action: TypeAlias = Event | Reply[Any] | Postpone


@dataclass(frozen=True, slots=True, init=False)
class KeepState:
    """Stay in this state; `None`, and an action alone, mean the same.

    Args:
        actions: Done in this order: events and timeouts, `Reply`, `Postpone`.
    """

    actions: tuple[Action, ...]

    def __init__(self, *actions: Action) -> None:
        """Take the actions as they come."""
        object.__setattr__(self, "actions", actions)


@dataclass(frozen=True, slots=True, init=False)
class NextState:
    """Go into a state; if it is equal to this one, nothing changes.

    Args:
        state: Any hashable value.
        actions: As in `KeepState`; timeouts belong to the new state.
    """

    state: Any
    actions: tuple[Action, ...]

    def __init__(self, state: Hashable, *actions: Action) -> None:
        """Take the actions as they come."""
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "actions", actions)


@dataclass(frozen=True, slots=True, init=False)
class RepeatState:
    """Stay in this state, but let it be entered again: a machine with `state_enter` gets an `EnterEvent`.

    Args:
        actions: As in `KeepState`.
    """

    actions: tuple[Action, ...]

    def __init__(self, *actions: Action) -> None:
        """Take the actions as they come."""
        object.__setattr__(self, "actions", actions)


class BadTransition(BadReturnValue):
    """A callback of a state machine returned something that its contract does not know."""

    def __init__(self, callback: str, value: object, why: str) -> None:
        """Keep the callback and the value."""
        super().__init__(callback, value)
        self.args = (f"{callback} returned {value!r}: {why}",)

    def __str__(self) -> str:
        """Print what is wrong."""
        return str(self.args[0])


def understood(callback: str, result: Any) -> KeepState | NextState | RepeatState | Stop:
    """Give what a callback returned its full form.

    Args:
        callback: The callback's name, for the error.
        result: What it returned.

    Raises:
        BadReturnValue: If that is nothing a state machine knows.
    """
    if result is None:
        return KeepState()
    if isinstance(result, Event | Reply | Postpone):
        return KeepState(result)  # pyright: ignore[reportUnknownArgumentType] - a reply of anything
    if not isinstance(result, KeepState | NextState | RepeatState | Stop):
        allowed = "allowed are None, an action, KeepState, NextState, RepeatState and Stop"
        raise BadTransition(callback, result, f"{allowed}; a call is answered by Reply(value)")
    if isinstance(result, NextState):
        try:
            hash(result.state)
        except TypeError as error:
            raise BadTransition(callback, result, f"a state is hashable ({error})") from None
    return result


class Plan:
    """What the callbacks of one transition asked for, until it is carried out."""

    __slots__ = ("events", "postpone", "timeouts")

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self.events: list[Event] = []
        self.timeouts: list[TimeoutEvent] = []
        self.postpone = False

    def add(self, callback: str, event: Event | None, result: KeepState | NextState | RepeatState) -> None:
        """Take up actions; replies go out at once.

        Args:
            callback: The callback's name, for the error.
            event: What it was given; `None` for `init`.
            result: What it returned.

        Raises:
            BadReturnValue: If there is an action that is none, or is not allowed here.
        """
        may_plan = event is not None and not isinstance(event, EnterEvent)
        for action in result.actions:
            if isinstance(action, Reply):
                if not isinstance(event, CallEvent):
                    raise BadTransition(callback, result, "Reply answers a CallEvent; any other time use caller.reply")
                if action.timeout is not None or action.then is not None:
                    raise BadTransition(callback, result, "a state machine's Reply has neither timeout nor then")
                event.caller.reply(action.value)
            elif isinstance(action, TimeoutEvent):
                self.timeouts.append(action)
            elif isinstance(action, Postpone) and may_plan:
                self.postpone = True
            elif isinstance(action, Event) and not isinstance(action, EnterEvent) and (may_plan or event is None):
                self.events.append(action)
            else:
                where = "init" if event is None else f"the answer to {type(event).__name__}"
                raise BadTransition(callback, result, f"{action!r} is no action for {where}")


# -- order ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Expired:
    """The time of one timer is up; told from all others, replaced ones too, by identity."""

    timeout: TimeoutEvent


class Agenda:
    """The state of a machine, and what it has to do before it looks into its mailbox again.

    Events among the actions come first, then those that were postponed, oldest first, then timeouts of 0 seconds.

    Args:
        state: The first state.
        arm: Has an `Expired` delivered later, and returns what takes it back.
    """

    __slots__ = ("_arm", "_due", "_running", "postponed", "queue", "state")

    def __init__(self, state: Hashable, arm: Callable[[Expired], Callable[[], object]]) -> None:
        """Begin with nothing to do."""
        self.state: Any = state
        self.queue: deque[Event] = deque()
        self.postponed: list[Event] = []
        self._arm = arm
        self._running: dict[object, tuple[Expired, Callable[[], object]]] = {}
        self._due: dict[object, TimeoutEvent] = {}

    def next(self) -> Event | None:
        """Return the event to handle before the mailbox, and no longer keep it."""
        if self.queue:
            return self.queue.popleft()
        return self._due.pop(next(iter(self._due))) if self._due else None

    def expired(self, expired: Expired) -> TimeoutEvent | None:
        """Return the timeout whose time is up, unless it was cancelled or replaced while it lay in the mailbox."""
        timer = expired.timeout.timer
        running = self._running.get(timer)
        if running is None or running[0] is not expired:
            return None
        del self._running[timer]
        return expired.timeout

    def taken_up(self) -> None:
        """Note that an event is handled: no event timeout survives that."""
        if self._running or self._due:
            self._cancel(EventTimeout)

    def carry_out(self, plan: Plan, event: Event | None, *, changed: bool) -> None:
        """End a transition.

        Args:
            plan: What its callbacks asked for.
            event: What it began with; `None` for the first.
            changed: Whether the state is another one now.
        """
        if plan.postpone and event is not None:
            self.postponed.append(event)
        if changed:
            self.queue.extendleft(reversed(self.postponed))
            self.postponed.clear()
            self._cancel(StateTimeout)
        self.queue.extendleft(reversed(plan.events))
        for timeout in plan.timeouts:
            self._cancel(timeout.timer)
            if timeout.seconds == 0:
                self._due[timeout.timer] = timeout
            elif timeout.seconds is not None:
                expired = Expired(timeout)
                self._running[timeout.timer] = expired, self._arm(expired)

    def close(self, _: object = None) -> None:
        """Take back every timer."""
        for timer in list(self._running):
            self._cancel(timer)

    def _cancel(self, timer: object) -> None:
        self._due.pop(timer, None)
        running = self._running.pop(timer, None)
        if running is not None:
            running[1]()
