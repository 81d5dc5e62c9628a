"""How code outside the tree asks a client: by name, through the cache, and again if a process died on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.actors import NORMAL
from otpy.actors.reasons import said
from otpy.clients.budget import current_labels
from otpy.clients.cache import CacheGet, CachePut
from otpy.clients.client import Ask
from otpy.clients.routed import ask_by
from otpy.errors import ActorDown, ConfigError, NotRegistered
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import Names
    from otpy.clients.routed import Routers
    from otpy.clients.streaming import Sink
    from otpy.config.manager import SettingsBox
    from otpy.config.settings import Settings
    from otpy.lm import LMRequest, LMResponse

__all__ = ["ask"]

RESENDS: Final = 4
"""How often a request is sent again because the process that had it died; what the model answers doesn't count."""
RESTART_SECONDS: Final = 60.0
"""How long to wait for a client that is being restarted; a local model's server loads its weights in that time."""


async def ask(  # noqa: PLR0913 - what a request needs
    names: Names,
    box: SettingsBox,
    client: str,
    request: LMRequest,
    *,
    sink: Sink | None = None,
    routers: Routers | None = None,
) -> LMResponse:
    """Ask the client of this name and return the model's answer.

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
    """
    router = None if routers is None else routers.get(box.current, client)
    if router is not None:
        return await ask_by(
            router, request, lambda member: _ask(names, box, member, request, sink, hasty=True), hedging=sink is None
        )
    return await _ask(names, box, client, request, sink, hasty=False)


async def _ask(  # noqa: PLR0913 - what a request needs
    names: Names, box: SettingsBox, client: str, request: LMRequest, sink: Sink | None, *, hasty: bool
) -> LMResponse:
    settings: Settings = box.current
    configured = settings.clients.get(client)
    if configured is None:
        known = ", ".join(map(repr, (*settings.clients, *settings.routes))) or "none"
        raise ConfigError(
            f"no client is called {client!r}; configured: {known}; name a model in otpy.start(lm=...) or otpy.toml"
        )
    key = None
    if settings.cache.enabled and configured.cache:
        key = request.key(*configured.cache_context)
        found = await _cached(names, key)
        if telemetry.listening:
            telemetry.emit("otpy.client.cache", client=client, hit=found is not None)
        if found is not None:
            return found
    response = await _resend(names, client, Ask(request, key, sink, current_labels(), hasty))
    if key is not None and not response.cached:
        cache = names.whereis("cache")
        if cache is not None:
            cache.cast(CachePut(key, response))
    return response


async def _cached(names: Names, key: str) -> LMResponse | None:
    cache = names.whereis("cache")
    if cache is None:
        return None
    try:
        return await cache.call(CacheGet(key), None)
    except ActorDown:
        return None  # it is being restarted; asking the model costs less than waiting for it


async def _resend(names: Names, client: str, message: Ask) -> LMResponse:
    for attempt in range(RESENDS + 1):
        try:
            process = await names.wait_for(("client", client), RESTART_SECONDS)
        except NotRegistered as error:
            why = "the application has stopped" if names.closed else "it was not restarted in time"
            raise ActorDown(f"client {client!r}", why) from error
        try:
            response: Any = await process.call(message, None)
        except ActorDown as down:
            if attempt == RESENDS or said(down.reason, NORMAL) or (message.sink is not None and message.sink.used):
                raise
            if telemetry.listening:
                telemetry.emit("otpy.client.resend", client=client, attempt=attempt + 1, reason=down.reason)
        else:
            return response  # type: ignore[no-any-return]
    raise AssertionError("unreachable")
