"""`Client`: the process through which every request to one model provider passes. It decides, and never waits.

A request is answered from memory, joins an identical one under way, or is queued. From the queue it goes to a worker as
soon as concurrency, limiter and breaker allow; the worker alone does I/O, answers the callers itself, and is the one
responsible to them meanwhile. So a crash of the client costs no answer that is on its way, and a crash of a worker
costs one request.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import Caller, Cast, Down, FirstLine, GenServer, NoReply, monitor, whereis
from otpy.clients import prices
from otpy.clients.book import Book
from otpy.clients.calls import Ask, ClientStatus, Moved, ResetBreaker
from otpy.clients.charging import LONGEST_ANSWER, Tariff
from otpy.clients.flights import Flight, Flights
from otpy.clients.litellm_engine import open_for
from otpy.clients.policies import TOO_MANY, Admission, Policies
from otpy.clients.shared_limits import Granted, Take
from otpy.clients.traffic import Traffic
from otpy.clients.worker import Deployment, Job, send
from otpy.config.manager import SettingsBox, SettingsChanged, Subscribe
from otpy.errors import BudgetExceeded, CircuitOpen, ClientError, ConfigError, LMError
from otpy.lm import LMResponse
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import MonitorRef, Reason
    from otpy.clients.transport import Transport
    from otpy.config.settings import ClientSettings
    from otpy.lm import LMRequest
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["Client"]


BUDGET_SECONDS: Final = 0.02
"""How long to wait before it is looked again whether a request fits under a cap."""


@dataclass(frozen=True, slots=True)
class _Pump(Cast):
    """Look at the queue again."""


@dataclass(frozen=True, slots=True)
class _Again(Cast):
    """A request that failed is due for its next attempt."""

    flight: Flight


@dataclass(frozen=True, slots=True)
class _Gone(Cast):
    """A caller has given up."""

    flight: Flight


class Client(GenServer):
    """One provider's client.

    Args (of `child_spec`):
        client: Its name in the settings.
        box: Where the settings are.
        memory: Where answers are remembered, if they are.
        book: Where what it costs is written down.
        traffic: Where what goes through is written down.
    """

    trap_exit = True

    async def init(
        self,
        client: str,
        box: SettingsBox,
        memory: Any = None,
        book: Book | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """Open the transport; a local model's server is up already, since it comes first in this client's subtree."""
        self.client, self.box, self.memory = client, box, memory
        self.book = Book() if book is None else book
        self.flow = (Traffic() if traffic is None else traffic).flow(client)
        self.flow.waiting = self.flow.in_flight = 0
        self.settings: ClientSettings = box.current.clients[client]
        self.flights = Flights()
        self.waiting: deque[Flight] = deque()
        self.flying: dict[MonitorRef, Flight] = {}
        self.totals = {"requests": 0, "answered": 0, "failed": 0, "retries": 0}
        self.left = 0  # of those in `waiting` that have given up, about
        self.pump_at: float | None = None
        self.retired: list[Transport] = []
        self.closing: set[asyncio.Task[None]] = set()
        await self._connect()
        self.policies = Policies(client, self.settings, self.process.loop.time)
        self.tariff = Tariff(client, self.settings, self.book)
        if self.tariff.rates is None:
            await asyncio.to_thread(prices.load)  # some tenths of a second, once
        manager = whereis("config")
        if manager is not None:
            await manager.call(Subscribe(self.ref))

    async def _connect(self) -> None:
        settings = self.settings
        base_url = settings.url
        if settings.is_local:
            server = whereis(("server", self.client))
            if server is None:
                raise ConfigError(f"client {self.client!r}: the server of {settings.model} is not running")
            base_url = json.loads(await server.call(FirstLine()))["url"]
        assert base_url is not None, "settings without an address are refused when they are made"
        self.deployment = Deployment.of(self.client, settings, base_url, self.box.key_of(settings))
        self.transport = await open_for(settings.provider, base_url)

    # -- requests --------------------------------------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Take a request in."""
        match request:
            case Ask():
                return self._ask(request, caller)
            case ResetBreaker(model):
                self.policies.breaker(model).reset()
                self._pump()
                return None
            case ClientStatus():
                return {
                    **self.totals,
                    "in_flight": len(self.flying),
                    "waiting": sum(flight.wanted for flight in self.waiting),
                    **self.policies.status(),
                }
            case _:
                return super().handle_call(request, caller)

    def _ask(self, ask: Ask, caller: Caller) -> Any:
        key, sink = ask.key, ask.sink
        if key is not None:
            known = None if self.memory is None else self.memory.memory_get(key)
            if known is not None:
                return known
        flight, leads = self.flights.join(None if sink is not None else key, ask.request, caller, sink)
        caller.when_gone(lambda: self.ref.cast(_Gone(flight)))
        if leads:
            flight.labels, flight.hasty, flight.context = ask.labels, ask.hasty, ask.context
            self.totals["requests"] += 1
            self.waiting.append(flight)
            self._pump()
        elif isinstance(flight.outcome, LMResponse):
            return flight.outcome  # its worker has answered, and is about to end
        elif flight.worker is not None and flight.outcome is None:
            caller.delegate(flight.worker)
        return NoReply()

    def _pump(self) -> None:
        parked: list[Flight] = []
        while self.waiting and len(self.flying) < self.policies.concurrency.limit:
            flight = self.waiting.popleft()
            if not flight.wanted:
                self.flights.land(flight)
                continue
            try:
                admitted = self.policies.admit(flight.request)
            except CircuitOpen as error:
                if self.policies.breaker(flight.request.model).state == "half_open" and not flight.hasty:
                    parked.append(flight)  # a trial is under way; its end pumps again
                    if len(self.policies.breakers) == 1:
                        break  # nobody behind it asks another model
                else:
                    self._failed(flight, error)
                continue
            if isinstance(admitted, Admission):
                if not self._afforded(flight, admitted):
                    break
                continue
            self.waiting.appendleft(flight)
            self._pump_in(admitted)
            break
        self.waiting.extendleft(reversed(parked))
        self.flow.waiting, self.flow.in_flight = len(self.waiting), len(self.flying)
        limiter = self.policies.limiter
        if limiter.shared and (fetching := whereis(("limits", self.client))) and (wanted := limiter.wanted()):
            fetching.cast(Take(wanted))

    def _filled(self, request: LMRequest) -> LMRequest:
        """Add what the client adds; under a cap also a bound on the answer, without which none could be kept."""
        return self.deployment.filled(request, LONGEST_ANSWER if self.book.budget.kinds else None)

    def _afforded(self, flight: Flight, admission: Admission) -> bool:
        """Launch a request, or refuse it if it would pass a cap; `False` if it waits.

        It waits if it may fit when those in flight have been settled, at less than was set aside for them.
        """
        if flight.key is not None and flight.context != self.settings.cache_context:
            admission.take_back()
            for caller in self.flights.land(flight):
                caller.fail(Moved())
            return True
        try:
            flight.filled = self._filled(flight.request)
            flight.charge = self.tariff.admit(flight.filled, flight.labels)
        except BudgetExceeded as error:
            admission.take_back()
            if error.may_fit_later:
                self.book.budget.waits(error)
                self.waiting.appendleft(flight)
                self._pump_in(BUDGET_SECONDS)
                return False
            self._refused(flight, error)
        else:
            self._launch(flight, admission)
        return True

    def _refused(self, flight: Flight, error: BudgetExceeded) -> None:
        self.totals["failed"] += 1
        if telemetry.listening:
            telemetry.emit("otpy.budget.exceeded", client=self.client, labels=flight.labels, error=error)
        for caller in self.flights.land(flight):
            caller.fail(error)

    def _pump_in(self, seconds: float) -> None:
        now = self.process.loop.time()
        if self.pump_at is None or not now < self.pump_at <= now + seconds:
            self.pump_at = now + seconds
            self.process.loop.call_later(seconds, self.ref.cast, _Pump())

    def _launch(self, flight: Flight, admission: Admission) -> None:
        workers = whereis(("workers", self.client))
        if workers is None:  # they have just died, and this process is about to be restarted after them
            admission.take_back()
            flight.charge.take_back()
            return
        flight.attempt += 1
        flight.outcome = flight.limits = None
        flight.admission, flight.transport = admission, self.transport
        job = Job(self.ref, self.deployment, self.transport, flight)
        flight.worker = cast("TaskSupervisorRef", workers).async_nolink(send, job).ref
        self.flying[monitor(flight.worker)] = flight
        for caller in flight.callers:
            caller.delegate(flight.worker)

    def _left(self) -> None:
        """Somebody who waited has given up: they are cleared away when they are half of the queue."""
        self.left += 1
        if 2 * self.left > len(self.waiting):
            self.left = 0
            self.waiting = deque(flight for flight in self.waiting if flight.wanted)

    # -- outcomes --------------------------------------------------------------------------------------------------

    def handle_info(self, message: Any) -> None:
        """A worker has ended: see what came of its request."""
        if not isinstance(message, Down) or (flight := self.flying.pop(message.monitor, None)) is None:
            return
        flight.worker, outcome = None, flight.outcome
        if flight.attempt == 1:
            self.policies.retries.request()  # now, and not when it was sent: answers may take longer than it looks back
        self.policies.ended(flight.admission, flight.request, outcome, flight.limits, len(self.flying) + 1)
        if outcome is None:
            flight.charge.lost()
        if self.retired:
            self._close_retired()
        if isinstance(outcome, LMError):
            self.flow.refused += outcome.status == TOO_MANY
            self._failed(flight, outcome)
        else:  # answered; or killed or crashed, and its callers have been told so already
            self.totals["answered"] += outcome is not None
            self.flights.land(flight)
        self._pump()

    def _close_retired(self) -> None:
        """Close the connections to former addresses that nobody uses any more."""
        used = {id(flight.transport) for flight in self.flying.values()}
        for transport in [transport for transport in self.retired if id(transport) not in used]:
            self.retired.remove(transport)
            closing = self.process.loop.create_task(transport.aclose())
            self.closing.add(closing)
            closing.add_done_callback(self.closing.discard)

    def _failed(self, flight: Flight, error: ClientError) -> None:
        delay = None
        if flight.wanted and not (flight.hasty and isinstance(error, CircuitOpen)):
            streamed = flight.sink is not None and flight.sink.used
            told = None if flight.limits is None else flight.limits.should_retry
            delay = self.policies.delay(max(flight.attempt, 1), error, streamed=streamed, told=told)
        if isinstance(error, CircuitOpen):
            flight.attempt += 1
        if delay is None:
            self.totals["failed"] += 1
            for caller in self.flights.land(flight):
                caller.fail(error)
            return
        self.totals["retries"] += not isinstance(error, CircuitOpen)  # that is a wait, nothing was sent
        if telemetry.listening:
            telemetry.emit(
                "otpy.client.retry",
                client=self.client,
                model=self.deployment.model,
                attempt=flight.attempt,
                delay=delay,
                error=error,
            )
        self.process.loop.call_later(delay, self.ref.cast, _Again(flight))

    def handle_cast(self, message: Any) -> Any:
        """Timers, callers that gave up, and changed settings."""
        match message:
            case _Pump():
                self.pump_at = None
                self._pump()
            case _Again(flight):
                self.waiting.append(flight)
                self._pump()
            case Granted():
                self.policies.granted(message)
                self._pump()
            case _Gone(flight):
                if not flight.wanted:
                    self.flights.land(flight)
                    if flight.worker is not None:
                        flight.worker.exit("kill")
                    else:
                        self._left()
            case SettingsChanged(settings):
                return self._changed(settings.clients.get(self.client))
            case _:
                return super().handle_cast(message)
        return None

    async def _changed(self, settings: ClientSettings | None) -> None:
        """Take over new settings; requests under way end under the old ones."""
        if settings is None or settings == self.settings:
            return
        before, self.settings = self.settings, settings
        self.policies.retune(settings)
        self.tariff = Tariff(self.client, settings, self.book)
        if (before.url, before.model) == (settings.url, settings.model):
            self.deployment = Deployment.of(self.client, settings, self.deployment.base_url, self.box.key_of(settings))
        else:
            self.retired.append(self.transport)
            await self._connect()
            self._close_retired()
        self._pump()

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Close the connections, except under workers that are still at it; theirs go with the last of them."""
        if not self.flying:
            for transport in (*self.retired, self.transport):
                await transport.aclose()

    def status(self) -> str:
        """Say what is going on, for the printed tree."""
        circuits = "".join(
            f", circuit {breaker.state} ({model})"
            for model, breaker in self.policies.breakers.items()
            if breaker.state != "closed"
        )
        waiting = sum(flight.wanted for flight in self.waiting)
        return f"{len(self.flying)} in flight, {waiting} waiting{circuits}"
