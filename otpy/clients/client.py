"""`Client`: the process through which every request to one model provider passes. It decides, and never waits.

A request is answered from memory, joins an identical one under way, or is queued. From the queue it goes to a worker as
soon as concurrency, limiter and breaker allow; the worker alone does I/O, answers the callers itself, and is the one
responsible to them meanwhile. So a crash of the client costs no answer that is on its way, and a crash of a worker
costs one request.
"""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import Call, Caller, Cast, Down, FirstLine, GenServer, NoReply, monitor, whereis
from otpy.clients.breaker import Breaker, Permit
from otpy.clients.estimate import Estimator
from otpy.clients.flights import Flight, Flights
from otpy.clients.limiter import Limiter, Reservation
from otpy.clients.retry import RetryBudget, RetryPolicy
from otpy.clients.transport import open_transport
from otpy.clients.worker import Deployment, Job, send
from otpy.config.manager import SettingsBox, SettingsChanged, Subscribe
from otpy.errors import CircuitOpen, ClientError, ConfigError, LMError
from otpy.lm import LMResponse, Usage
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import MonitorRef, Reason
    from otpy.clients.codec import Limits
    from otpy.clients.streaming import Sink
    from otpy.clients.transport import Transport
    from otpy.config.settings import ClientSettings
    from otpy.lm import LMRequest
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["Ask", "Client", "ClientStatus"]

TOO_MANY: Final = 429
"""The status with which providers say that a limit of theirs is reached."""


@dataclass(frozen=True, slots=True)
class Ask(Call[LMResponse]):
    """Ask the model.

    Args:
        request: What to ask.
        key: The request's content hash if its answer may be shared with identical requests, else `None`.
        sink: Where the pieces of the answer go while it is being written, if they are wanted.
    """

    request: LMRequest
    key: str | None = None
    sink: Sink | None = None


@dataclass(frozen=True, slots=True)
class ClientStatus(Call[dict[str, Any]]):
    """Ask a client how it is: breaker state, requests in flight and waiting, totals."""


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
        cache: Where answers are remembered, if they are.
    """

    trap_exit = True

    async def init(self, client: str, box: SettingsBox, memory: Any = None) -> None:
        """Open the transport; a local model's server is up already, since it comes first in this client's subtree."""
        self.client, self.box, self.memory = client, box, memory
        self.settings: ClientSettings = box.current.clients[client]
        self.rng = random.Random()  # noqa: S311 - jitter is no secret
        self.flights = Flights()
        self.estimator = Estimator()
        self.waiting: deque[Flight] = deque()
        self.flying: dict[MonitorRef, Flight] = {}
        self.totals = {"requests": 0, "answered": 0, "failed": 0, "retries": 0}
        self.pump_at: float | None = None
        self.last_failure: LMError | None = None
        self.retired: list[Transport] = []
        await self._connect()
        self._set_policies(None)
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
        self.deployment = Deployment.of(self.client, settings, base_url)
        self.transport = open_transport(base_url)

    def _set_policies(self, before: ClientSettings | None) -> None:
        """Make the policies whose settings are new; the others keep what they have counted."""
        settings, clock = self.settings, self.process.loop.time
        if before is None or before.breaker != settings.breaker:
            breaker = settings.breaker
            self.breaker = Breaker(
                self.client, fail_max=breaker.fail_max, reset_timeout=breaker.reset_timeout, clock=clock
            )
        if before is None:
            self.limiter = Limiter(clock=clock)
        self.limiter.retune(settings.requests_per_minute, **settings.tokens_per_minute_by_kind)
        self.retry = RetryPolicy(**settings.retry.model_dump(exclude={"share", "floor"}))
        if before is None:
            self.retries = RetryBudget(clock=clock)
        self.retries.retune(share=settings.retry.share, floor=settings.retry.floor)

    # -- requests --------------------------------------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Take a request in."""
        match request:
            case Ask(asked, key, sink):
                return self._ask(asked, key, sink, caller)
            case ClientStatus():
                return {
                    **self.totals,
                    "in_flight": len(self.flying),
                    "waiting": len(self.waiting),
                    "breaker": self.breaker.state,
                }
            case _:
                return super().handle_call(request, caller)

    def _ask(self, asked: LMRequest, key: str | None, sink: Sink | None, caller: Caller) -> Any:
        if key is not None:
            known = None if self.memory is None else self.memory.memory_get(key)
            if known is not None:
                return known
        flight, leads = self.flights.join(None if sink is not None else key, asked, caller, sink)
        caller.when_gone(lambda: self.ref.cast(_Gone(flight)))
        if leads:
            self.totals["requests"] += 1
            self.waiting.append(flight)
            self._pump()
        elif flight.worker is not None:
            caller.delegate(flight.worker)
        return NoReply()

    def _pump(self) -> None:
        limit = self.settings.in_flight
        while self.waiting and (limit is None or len(self.flying) < limit):
            if not self.waiting[0].wanted:
                self.flights.land(self.waiting.popleft())
                continue
            try:
                permit = self.breaker.admit()
            except CircuitOpen as error:
                if self.breaker.state == "half_open":
                    return  # a trial is under way; its end pumps again
                self._failed(self.waiting.popleft(), CircuitOpen(error.client, error.until, self.last_failure))
                continue
            reserved = self.limiter.reserve(*self.estimator(self.waiting[0].request))
            if not isinstance(reserved, Reservation):
                permit.neutral()
                self._pump_in(reserved)
                return
            self._launch(self.waiting.popleft(), permit, reserved)

    def _pump_in(self, seconds: float) -> None:
        now = self.process.loop.time()
        if self.pump_at is None or self.pump_at <= now:
            self.pump_at = now + seconds
            self.process.loop.call_later(seconds, self.ref.cast, _Pump())

    def _launch(self, flight: Flight, permit: Permit, reserved: Reservation) -> None:
        workers = whereis(("workers", self.client))
        if workers is None:  # they have just died, and this process is about to be restarted after them
            permit.neutral()
            reserved.release()
            return
        flight.attempt += 1
        if flight.attempt == 1:
            self.retries.request()
        flight.outcome = flight.limits = None
        flight.permit, flight.reservation = permit, reserved
        job = Job(self.ref, self.deployment, self.transport, flight)
        flight.worker = cast("TaskSupervisorRef", workers).async_nolink(send, job).ref
        self.flying[monitor(flight.worker)] = flight
        for caller in flight.callers:
            caller.delegate(flight.worker)

    # -- outcomes --------------------------------------------------------------------------------------------------

    def handle_info(self, message: Any) -> None:
        """A worker has ended: see what came of its request."""
        if not isinstance(message, Down) or (flight := self.flying.pop(message.monitor, None)) is None:
            return
        permit, reserved, flight.worker = flight.permit, flight.reservation, None
        outcome = flight.outcome
        if flight.limits is not None:
            self._heard(flight.limits)
        if isinstance(outcome, LMError) and outcome.status == TOO_MANY and outcome.retryable:
            reserved.refused()
        else:
            reserved.settle(outcome.usage if isinstance(outcome, LMResponse) else Usage())
        if outcome is None:  # it was killed, or crashed: its callers have been told so already
            permit.neutral()
            self.flights.land(flight)
        elif isinstance(outcome, LMError):
            if outcome.retryable:
                self.last_failure = outcome
                permit.failure()
            else:
                permit.neutral()
            self._failed(flight, outcome)
        else:
            permit.success()
            if isinstance(outcome, LMResponse):
                self.estimator.learn(flight.request, outcome.usage)
            self.totals["answered"] += 1
            self.flights.land(flight)
        self._pump()

    def _heard(self, limits: Limits) -> None:
        """Take over what the provider says of its limits; who is asked to wait for too long fails, and holds nobody."""
        if limits.retry_after is not None and limits.retry_after > self.retry.max_wait:
            limits = replace(limits, retry_after=None)
        self.limiter.heard(limits)

    def _failed(self, flight: Flight, error: ClientError) -> None:
        delay = None
        if flight.wanted:
            streamed = flight.sink is not None and flight.sink.used
            told = None if flight.limits is None else flight.limits.should_retry
            delay = self.retry.delay(
                max(flight.attempt, 1), error, self.rng, streamed=streamed, should_retry=told, budget=self.retries
            )
        if isinstance(error, CircuitOpen):
            flight.attempt += 1
        asked = getattr(error, "retry_after", None)
        if error.retryable and asked is not None and asked <= self.retry.max_wait:
            self.limiter.pause(asked)
        if delay is None:
            self.totals["failed"] += 1
            for caller in self.flights.land(flight):
                caller.fail(error)
            return
        self.totals["retries"] += 1
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
            case _Gone(flight):
                if not flight.wanted:
                    self.flights.land(flight)
                    if flight.worker is not None:
                        flight.worker.exit("kill")
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
        self._set_policies(before)
        if (before.url, before.model) == (settings.url, settings.model):
            self.deployment = Deployment.of(self.client, settings, self.deployment.base_url)
        else:
            self.retired.append(self.transport)
            await self._connect()
        self._pump()

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Close the connections, except under workers that are still at it; theirs go with the last of them."""
        if not self.flying:
            for transport in (*self.retired, self.transport):
                await transport.aclose()

    def status(self) -> str:
        """Say what is going on, for the printed tree."""
        breaker = "" if self.breaker.state == "closed" else f", circuit {self.breaker.state}"
        return f"{len(self.flying)} in flight, {len(self.waiting)} waiting{breaker}"
