"""A request by a route: whom to ask, whom next, and who is asked as well. `routing` decides, here it is done."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.estimate import LETTERS_PER_TOKEN, letters_in
from otpy.clients.routes import Chain, Cheapest, Hedged, Needs, Offer, Split
from otpy.clients.routing import Router
from otpy.errors import LMRefusal
from otpy.lm import Media

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.clients.routes import Route
    from otpy.clients.streaming import Sink
    from otpy.config.settings import RouteSettings, Settings
    from otpy.lm import LMRequest, LMResponse

__all__ = ["Routers", "ask_by", "last_asked", "needs_of"]

REFUSALS: Final = frozenset({"refusal", "content_filter"})
"""Answers after which somebody else may be asked."""
last_asked: Final[ContextVar[str | None]] = ContextVar("otpy_last_asked", default=None)
"""The client whose answer, or error, the last `ask_by` of this task returned or raised; `None` if nobody was asked."""


class Routers:
    """The routers of an application, made as they are needed and kept as long as their settings stay."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[str, tuple[object, Router]] = {}

    def get(self, settings: Settings, name: str) -> Router | None:
        """Return the router of a route; `None` if it is none.

        Args:
            settings: The current settings.
            name: What the route is called.
        """
        wanted = settings.routes.get(name)
        if wanted is None:
            return None
        terms = (wanted, tuple(settings.clients.items()) if wanted.cheapest else ())
        known = self._known.get(name)
        if known is None or known[0] != terms:
            known = self._known[name] = (terms, Router(_route(wanted, settings)))
        return known[1]


def _route(wanted: RouteSettings, settings: Settings) -> Route:
    if wanted.chain is not None:
        return Chain(wanted.chain)
    if wanted.split is not None:
        return Split(wanted.split)
    if wanted.hedged is not None:
        return Hedged(*wanted.hedged)
    offers: list[Offer] = []
    for name in wanted.cheapest or ():
        client = settings.clients[name]
        prices = (client.input_price, client.output_price)
        read, written = (None if price is None else float(price) / 1e6 for price in prices)
        offers.append(Offer(name, read, written, frozenset(client.capabilities), client.context))
    return Cheapest(tuple(offers))


def needs_of(request: LMRequest) -> Needs:
    """Return what a request needs of a client, as far as it shows.

    Args:
        request: What is asked.

    Example:
        >>> from otpy.clients.routed import needs_of
        >>> from otpy.lm import LMRequest, Media, Message
        >>> seen = LMRequest((Message("user", (Media("image", "image/png", b"..."),)),), max_tokens=10)
        >>> needs_of(seen).capabilities, needs_of(seen).output_tokens
        (frozenset({'image'}), 10)
    """
    kinds = {
        part.kind
        for message in request.messages
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, Media)
    }
    capabilities = {*kinds, *(("tools",) if request.tools else ()), *(("logprobs",) if request.logprobs else ())}
    read = round(letters_in(request) / LETTERS_PER_TOKEN)
    return Needs(frozenset(capabilities), read, (request.max_tokens or 0) * request.n)


async def ask_by(  # noqa: C901 - the course of one request
    router: Router, request: LMRequest, ask: Callable[[str], Awaitable[LMResponse]], *, sink: Sink | None = None
) -> LMResponse:
    """Ask the clients of a route until one answers; `last_asked` then says which one it was.

    Args:
        router: The route's.
        request: What is asked.
        ask: Asks one client.
        sink: Where the pieces of the answer go, if they are wanted: then no second client is asked while the first is
            at it, and nobody else once there has been a piece.

    Raises:
        Exception: The last error, if nobody answers.
    """
    last_asked.set(None)
    plan = router.plan(needs_of(request))
    flying: dict[asyncio.Future[LMResponse], tuple[str, float]] = {}
    hedging, refused = sink is None, None
    now = asyncio.get_running_loop().time

    def send(client: str) -> None:
        flying[asyncio.ensure_future(ask(client))] = client, now()

    send(plan.first())
    try:
        while True:
            patience = plan.hedge_after() if hedging and len(flying) == 1 else None
            done, _ = await asyncio.wait(flying, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                extra = plan.hedge()
                hedging = False  # once is enough
                if extra is not None:
                    send(extra)
                continue
            for task in done:
                client, began = flying.pop(task)
                last_asked.set(client)
                error: Any = task.exception()
                if error is None:
                    plan.observe(now() - began, client)
                    for loser, since in flying.values():
                        plan.observe(now() - since, loser)
                    refused = task.result()
                    if refused.finish_reason not in REFUSALS:
                        return refused
                    error = LMRefusal(f"{client!r} refuses: {refused.text:.200}")
                following = None if sink is not None and sink.used else plan.after(error)
                if following is not None:
                    send(following)
                elif not flying:
                    if refused is not None:
                        return refused
                    raise error
    finally:
        for task in flying:
            task.cancel()
