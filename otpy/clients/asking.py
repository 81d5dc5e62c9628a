"""How code outside the tree asks a client: by name, from the recording or the cache, and again if a process died."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import NORMAL
from otpy.actors.reasons import said
from otpy.clients.cache import CacheGet, CachePut
from otpy.clients.cache_store import namespaced
from otpy.clients.calls import Ask, Moved
from otpy.clients.embeddings import EmbedRequest
from otpy.clients.labels import current_labels
from otpy.clients.recorder import HeldBack, Record, Replay
from otpy.clients.routed import ask_by
from otpy.clients.taping import current_tape
from otpy.errors import ActorDown, ConfigError, NotRegistered
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from otpy.actors import Names, Ref
    from otpy.clients.routed import Routers
    from otpy.clients.streaming import Sink
    from otpy.config.manager import SettingsBox
    from otpy.config.settings import ClientSettings, Settings
    from otpy.lm import LMRequest, LMResponse

__all__ = ["ask"]

RESENDS: Final = 4
"""How often a request is sent again because the process that had it died; what the model answers doesn't count."""
RESTART_SECONDS: Final = 60.0
"""How long to wait for a client that is being restarted; a local model's server loads its weights in that time."""


def ask(  # noqa: PLR0913 - what a request needs
    names: Names,
    box: SettingsBox,
    client: str,
    request: LMRequest,
    *,
    sink: Sink | None = None,
    routers: Routers | None = None,
) -> Coroutine[Any, Any, LMResponse]:
    """Ask the client of this name: the coroutine returns the model's answer.

    Args:
        names: Where the client is registered.
        box: The current settings.
        client: The client's name in the settings.
        request: What to ask.
        sink: Where the pieces of the answer go, if they are wanted.
        routers: For names that are routes.

    Raises:
        ConfigError: If no such client is configured.
        ClientError: If the request was refused, or the model failed in one of the ways of `LMError`.
        ActorDown: If the process that had the request died, repeatedly.
        RecordingError: If there is a recording, and this cannot be replayed from it (`RecordingDrift`) or recorded.
    """
    tape = current_tape()
    if tape is not None and not isinstance(request, EmbedRequest):
        key = request.key(*_context(box.current, client))
        return tape.answer(key, lambda: _ask_anew(names, box, client, request, sink, routers))
    return _ask_anew(names, box, client, request, sink, routers)


def _ask_anew(  # noqa: PLR0913, PLR0917 - what a request needs
    names: Names, box: SettingsBox, client: str, request: LMRequest, sink: Sink | None, routers: Routers | None
) -> Coroutine[Any, Any, LMResponse]:
    if box.current.recording.path is not None:
        return _ask_recorded(names, box, client, request, sink, routers)
    return _ask_by(names, box, client, request, sink, routers)


async def _ask_recorded(  # noqa: PLR0913, PLR0917 - what a request needs
    names: Names, box: SettingsBox, name: str, request: LMRequest, sink: Sink | None, routers: Routers | None
) -> LMResponse:
    """Answer from the recording, or ask and record: what was asked of a name, whoever behind it answered."""
    settings = box.current
    context, lane = _context(settings, name), current_labels().example or ""
    if settings.recording.mode != "record":
        found: LMResponse | None = await _call_recorder(names, Replay(request, context, lane))
        if telemetry.listening:
            telemetry.emit("otpy.client.recording", client=name, hit=found is not None)
        if found is not None:
            return found
    held = None if sink is None else HeldBack(sink)
    response = await _ask_by(names, box, name, request, held, routers)
    await _call_recorder(names, Record(request, response, context, lane, secrets.token_hex(8)))
    if held is not None:
        held.release()
    return response


def _context(settings: Settings, name: str) -> tuple[str, ...]:
    """Return what, besides a request, decides its answer; not where the server is: it may have moved."""
    route = settings.routes.get(name)
    context = [name]
    for member in (name,) if route is None else route.members:
        client = _configured(settings, member)
        context += client.model, repr(client.effective_temperature), repr(client.effective_max_tokens)
    return tuple(context)


async def _call_recorder(names: Names, message: Replay | Record) -> Any:
    """Ask the recorder, and the one that follows it if it dies: nothing may go past it."""
    for attempt in range(RESENDS + 1):
        process = await _there(names, "recorder", "the recorder")
        try:
            return await process.call(message, None)
        except ActorDown as down:
            if attempt == RESENDS or said(down.reason, NORMAL):
                raise
    raise AssertionError("unreachable")


def _ask_by(  # noqa: PLR0913, PLR0917 - what a request needs
    names: Names, box: SettingsBox, client: str, request: LMRequest, sink: Sink | None, routers: Routers | None
) -> Coroutine[Any, Any, LMResponse]:
    router = None if routers is None else routers.get(box.current, client)
    if router is not None:
        return ask_by(router, request, lambda member: _ask(names, box, member, request, sink, hasty=True), sink=sink)
    return _ask(names, box, client, request, sink, hasty=False)


def _configured(settings: Settings, client: str) -> ClientSettings:
    configured = settings.clients.get(client)
    if configured is None:
        known = ", ".join(map(repr, (*settings.clients, *settings.routes))) or "none"
        how = "name a model in otpy.start(lm=...) or otpy.toml"
        if "/" in client:  # what was trained is called as its model
            clients = {"clients": {client: {"model": client}}}
            how = f"it is called as a model is, so: otpy.start(settings={clients!r})"
        raise ConfigError(f"no client is called {client!r}; configured: {known}; {how}")
    return configured


async def _ask(  # noqa: PLR0913 - what a request needs
    names: Names, box: SettingsBox, client: str, request: LMRequest, sink: Sink | None, *, hasty: bool
) -> LMResponse:
    while True:
        with contextlib.suppress(Moved):  # the client's model was changed while the request waited
            return await _ask_once(names, box, client, request, sink, hasty=hasty)


async def _ask_once(  # noqa: PLR0913 - what a request needs
    names: Names, box: SettingsBox, client: str, request: LMRequest, sink: Sink | None, *, hasty: bool
) -> LMResponse:
    settings: Settings = box.current
    configured = _configured(settings, client)
    key = None
    if settings.cache.enabled and configured.cache and not isinstance(request, EmbedRequest):  # see `embedder`
        key = namespaced(request.key(*configured.cache_context), settings.cache.namespace)
        found = await _cached(names, key)
        if telemetry.listening:
            telemetry.emit("otpy.client.cache", client=client, hit=found is not None)
        if found is not None:
            return found
    message = Ask(request, key, sink, current_labels(), hasty, () if key is None else configured.cache_context)
    process = names.whereis(("client", client))
    if process is None:
        response: Any = await _resend(names, client, message, None)
    else:  # nearly always
        try:
            response = await process.call(message, None)
        except ActorDown as down:
            response = await _resend(names, client, message, down)
    if key is not None and not response.cached:
        cache = names.whereis("cache")
        if cache is not None:
            cache.cast(CachePut(key, response))
    return response  # type: ignore[no-any-return]


async def _cached(names: Names, key: str) -> LMResponse | None:
    cache = names.whereis("cache")
    if cache is None:
        return None
    try:
        return await cache.call(CacheGet(key), None)
    except ActorDown:
        return None  # it is being restarted; asking the model costs less than waiting for it


async def _resend(names: Names, client: str, message: Ask, down: ActorDown | None) -> LMResponse:
    """Ask the process of this name, after one that may have died with the request."""
    for attempt in range(RESENDS + 1):
        if down is not None:
            if attempt == RESENDS or said(down.reason, NORMAL) or (message.sink is not None and message.sink.used):
                raise down
            if telemetry.listening:
                telemetry.emit("otpy.client.resend", client=client, attempt=attempt + 1, reason=down.reason)
        process = await _there(names, ("client", client), f"client {client!r}")
        try:
            response: Any = await process.call(message, None)
        except ActorDown as again:
            down = again
        else:
            return response  # type: ignore[no-any-return]
    assert down is not None
    raise down


async def _there(names: Names, name: object, called: str) -> Ref[Any]:
    """Return a process of the tree, waiting while it is being restarted."""
    try:
        return await names.wait_for(name, RESTART_SECONDS)
    except NotRegistered as error:
        why = "the application has stopped" if names.closed else "it was not restarted in time"
        raise ActorDown(called, why) from error
