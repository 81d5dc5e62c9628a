"""`GenStateMachine`: a server whose answer to an event depends on the state it is in.

Source: `gen_statem(3)`. Beneath is a `GenServer`: calls, links, monitors, names, supervision and `sys` are its own.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from otpy.actors import pykka_protocol
from otpy.actors.envelopes import Continue
from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Ignore, NoReply, Stop
from otpy.actors.stepwise import run_steps, taken
from otpy.actors.threads import on_loop_of
from otpy.actors.timers import send_after
from otpy.actors.transitions import (
    Agenda,
    BadTransition,
    CallEvent,
    CastEvent,
    EnterEvent,
    Event,
    Expired,
    InfoEvent,
    KeepState,
    NextState,
    Plan,
    RepeatState,
    understood,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from otpy.actors.caller import Caller
    from otpy.actors.reasons import Reason
    from otpy.actors.server import ServerProcess
    from otpy.actors.stepwise import Steps

__all__ = ["GenStateMachine", "in_state"]

F = TypeVar("F", bound="Callable[..., Any]")
_MARK = "_otpy_in_states"
_OWN = frozenset({"process", "init", "terminate", "_agenda"})
"""Attributes of an instance that are not its user's data."""


def in_state(*states: Hashable) -> Callable[[F], F]:
    """Make a method the state function of one state or more: it gets their events, `handle_event` those of the rest.

    Args:
        states: Values, as `"locked"` or `Light.RED`; a class stands for every state that is one of its instances.

    Raises:
        TypeError: If there is none.
    """
    if not states:
        raise TypeError("in_state() without a state: say which, as in @in_state('locked')")

    def mark(function: F) -> F:
        setattr(function, _MARK, (*states, *getattr(function, _MARK, ())))
        return function

    return mark


@dataclass(frozen=True, slots=True)
class _Begin:
    """The first state is to be entered."""

    plan: Plan


class GenStateMachine(GenServer):
    """The behaviour of a state machine; subclass it, and say what each event means in each state.

    A state is any hashable value; the data beside it are the instance's attributes. Events come to the state function
    of the state, a method marked with `@in_state(state)`, or else to `handle_event(event, state)`; either may be plain
    or `async`. What they return says what becomes of the state: `None` or `KeepState(…)`, `NextState(state, …)`,
    `RepeatState(…)`, or `Stop(reason)`, which may have a reply for the call being handled. In the brackets stand
    actions: `Reply(value)` answers the call being handled, `Postpone()` puts the event off until the state has
    changed, an event such as `InternalEvent(…)` is handled next, and `StateTimeout`, `EventTimeout` and `NamedTimeout`
    come back as events when their time has come. An action alone keeps the state. A call can also be answered later:
    keep its `caller`.

    Events are handled in this order: those among the actions, in the order in which they stand; then, after a change
    of state, the postponed ones, oldest first; then timeouts of 0 seconds; then the mailbox.

    Example:
        >>> from dataclasses import dataclass
        >>> from otpy.actors import Call, Cast, Reply
        >>> from otpy.actors.gen_state_machine import GenStateMachine, in_state
        >>> from otpy.actors.transitions import CallEvent, CastEvent, KeepState, NextState, StateTimeout
        >>> from otpy.testing import run_in_virtual_time
        >>> @dataclass(frozen=True, slots=True)
        ... class Press(Cast):
        ...     digit: int
        >>> class IsOpen(Call[bool]):
        ...     pass
        >>> class Door(GenStateMachine):
        ...     def init(self, *code):
        ...         self.code, self.pressed = code, ()
        ...         return "locked"
        ...
        ...     @in_state("locked")
        ...     def locked(self, event):
        ...         match event:
        ...             case CastEvent(Press(digit)):
        ...                 self.pressed = (*self.pressed, digit)[-len(self.code):]
        ...                 if self.pressed == self.code:
        ...                     return NextState("open", StateTimeout(10.0))
        ...             case CallEvent(IsOpen()):
        ...                 return Reply(False)
        ...
        ...     @in_state("open")
        ...     def open(self, event):
        ...         match event:
        ...             case StateTimeout():
        ...                 self.pressed = ()
        ...                 return NextState("locked")
        ...             case CallEvent(IsOpen()):
        ...                 return Reply(True)
        >>> async def main():
        ...     door = await Door.start(1, 2, 3)
        ...     for digit in (9, 1, 2, 3):
        ...         door.cast(Press(digit))
        ...     print(await door.call(IsOpen()))
        ...     await asyncio.sleep(10.1)
        ...     print(await door.call(IsOpen()))
        ...     await door.stop()
        >>> import asyncio
        >>> run_in_virtual_time(main())
        True
        False
    """

    state_enter: ClassVar[bool] = False
    """Whether a state gets an `EnterEvent` when it is entered, before any other event. It may set timeouts, but neither
    change the state nor postpone."""

    _functions: ClassVar[dict[Hashable, str]] = {}
    _agenda: Agenda

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the state functions.

        Raises:
            TypeError: If a state has two, or one is `async` in a machine that wants a thread.
        """
        super().__init_subclass__(**kwargs)
        own: dict[Hashable, str] = {}
        for name, member in vars(cls).items():
            for state in getattr(member, _MARK, ()):
                if state in own:
                    raise TypeError(f"{cls.__name__}: both {own[state]} and {name} are the function of state {state!r}")
                own[state] = name
        cls._functions = {**cls._functions, **own}
        for name in ("handle_event", *cls._functions.values()):
            if cls.scheduling == "thread" and inspect.iscoroutinefunction(getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name} is async, but scheduling='thread' runs it without a loop")

    @property
    def state(self) -> Any:
        """The state it is in; from `init` on."""
        return self._agenda.state

    # -- callbacks -------------------------------------------------------------------------------------------------

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Prepare the data and say which state is the first.

        Returns:
            The state, or `NextState(state, *actions)`; `Ignore()` or `Stop(reason)` as for a `GenServer`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no init to say which state is the first")

    def handle_event(self, event: Event, state: Any) -> Any:
        """Act on an event in a state that has no function of its own.

        Args:
            event: What happened.
            state: The state it is in.

        Returns:
            What becomes of the state, as described for the class.
        """
        known = f", and no function for this state; it has some for {list(self._functions)}" if self._functions else ""
        raise NotImplementedError(f"{type(self).__name__} has no handle_event for {event!r} in {state!r}{known}")

    def terminate(self, reason: Reason, state: Any = None) -> Any:
        """Clean up, in the cases in which a `GenServer` does.

        Args:
            reason: Why it ends.
            state: The state it is in.
        """

    # -- events ----------------------------------------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Make a `CallEvent` of it."""
        if pykka_protocol.is_envelope(request):
            return super().handle_call(request, caller)
        return run_steps(self._handled(CallEvent(request, caller)))

    def handle_cast(self, message: Any) -> Any:
        """Make a `CastEvent` of it."""
        if pykka_protocol.is_envelope(message):
            return super().handle_cast(message)
        return run_steps(self._handled(CastEvent(message)))

    def handle_info(self, message: Any) -> Any:
        """Make an `InfoEvent` of it."""
        return run_steps(self._handled(InfoEvent(message)))

    def handle_continue(self, argument: Any) -> Any:
        """Go on with what comes before the mailbox, or with a timeout."""
        match argument:
            case Event():
                return run_steps(self._handled(argument))
            case Expired():
                timeout = self._agenda.expired(argument)
                return None if timeout is None else run_steps(self._handled(timeout))
            case _Begin(plan):
                return run_steps(self._moved(None, plan, self._agenda.state, entered=True))
            case _:
                return super().handle_continue(argument)

    # -- transitions -----------------------------------------------------------------------------------------------

    def _handled(self, event: Event) -> Steps[NoReply | Stop | Ignore]:
        agenda = self._agenda
        agenda.taken_up()
        name = self._callback(agenda.state)
        result = understood(name, (yield from taken(self._react(name, event))))
        if isinstance(result, Stop):
            return _stopped(name, event, result)
        state = result.state if isinstance(result, NextState) else agenda.state
        self._refuse_unknown(name, state)
        plan = Plan()
        plan.add(name, event, result)
        return (yield from self._moved(event, plan, state, entered=isinstance(result, RepeatState)))

    def _moved(self, event: Event | None, plan: Plan, state: Any, *, entered: bool) -> Steps[NoReply | Stop | Ignore]:
        agenda, old = self._agenda, self._agenda.state
        changed = state != old
        agenda.state = state
        entered = (entered or changed) and self.state_enter
        while entered:
            enter = EnterEvent(old)
            name = self._callback(state)
            result = understood(name, (yield from taken(self._react(name, enter))))
            if isinstance(result, Stop):
                return _stopped(name, enter, result)
            if isinstance(result, NextState) and result.state != state:
                raise BadTransition(name, result, "the answer to an EnterEvent may not change the state")
            plan.add(name, enter, result)
            entered = isinstance(result, RepeatState)
        agenda.carry_out(plan, event, changed=changed)
        return NoReply(then=agenda.next())

    def _refuse_unknown(self, callback: str, state: Any) -> None:
        """Refuse a state that no event could ever be handled in: most often its name is misspelt."""
        if not self._functions or self._callback(state) != "handle_event":
            return
        if type(self).handle_event is GenStateMachine.handle_event:
            why = f"there is no handle_event, and no function for this state, only for {list(self._functions)}"
            raise BadTransition(callback, NextState(state), why)

    def _callback(self, state: Any) -> str:
        if self._functions:
            for key in (state, *type(state).__mro__):
                name = self._functions.get(key)
                if name is not None:
                    return name
        return "handle_event"

    def _react(self, name: str, event: Event) -> Any:
        if name == "handle_event":
            return self.handle_event(event, self._agenda.state)
        return getattr(self, name)(event)

    # -- the beginning and the end -----------------------------------------------------------------------------------

    def callbacks_for(self, process: ServerProcess) -> Any:
        """Return the object whose callbacks it calls: this one, whose `init` and `terminate` know the state."""
        # What a process calls is one with what a class overrides, and these two mean more here than in a GenServer.
        vars(self).update(init=functools.partial(_begun, self), terminate=functools.partial(_ended, self))
        return super().callbacks_for(process)

    def _first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Steps[NoReply | Stop | Ignore]:
        result = yield from taken(type(self).init(self, *args, **kwargs))
        if isinstance(result, Ignore | Stop):
            return result
        if result is None or isinstance(result, KeepState | RepeatState):
            raise BadTransition("init", result, "allowed are a state, NextState(state, …), Ignore and Stop")
        first = understood("init", result if isinstance(result, NextState) else NextState(result))
        assert isinstance(first, NextState)
        self._refuse_unknown("init", first.state)
        plan = Plan()
        plan.add("init", None, first)
        self._agenda = agenda = Agenda(first.state, self._arm)
        on_loop_of(self.process, self.process.when_down, agenda.close)
        return NoReply(then=_Begin(plan) if self.state_enter or first.actions else None)

    def _arm(self, expired: Expired) -> Callable[[], object]:
        assert expired.timeout.seconds is not None
        return send_after(self.ref, expired.timeout.seconds, Continue(expired)).cancel

    # -- looking in ------------------------------------------------------------------------------------------------

    def system_get_state(self) -> Any:
        """Return the state as `sys.get_state` shows it: the pair of the state and a dict of the attributes."""
        return self.state, {name: value for name, value in vars(self).items() if name not in _OWN}

    def system_replace_state(self, state: Any) -> None:
        """Take over what `sys.replace_state` gives, such a pair; that enters nothing and retries nothing."""
        value, data = state
        hash(value)
        data = dict(data)
        own = {name: member for name, member in vars(self).items() if name in _OWN}
        vars(self).clear()
        vars(self).update(data, **own)
        self._agenda.state = value


def _begun(machine: GenStateMachine, *args: Any, **kwargs: Any) -> Any:
    return run_steps(machine._first(args, kwargs))  # noqa: SLF001 - the other half of `launch`


def _ended(machine: GenStateMachine, reason: Reason) -> Any:
    return type(machine).terminate(machine, reason, machine.state)


def _stopped(name: str, event: Event, stop: Stop) -> Stop:
    if stop.replies:
        if not isinstance(event, CallEvent):
            raise BadTransition(name, stop, "only a CallEvent can have a reply; any other time use caller.reply")
        event.caller.reply(stop.reply)
    return Stop(stop.reason)
