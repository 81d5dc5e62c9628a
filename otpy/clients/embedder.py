"""Vectors of many texts through a client: each is asked for once and remembered by itself, some are asked for together.

All that holds for requests holds here: limits, breaker, retries, budget, routes. Only the cache is minded here, since a
text that is known needs no asking whatever stood beside it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from otpy.clients.cache import CacheGet, CachePut
from otpy.clients.cache_store import namespaced
from otpy.clients.embeddings import EmbedRequest, packed, vectors_of
from otpy.errors import ActorDown, ConfigError, LMRequestInvalid, LMResponseInvalid
from otpy.lm import LMResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from otpy.actors import Names
    from otpy.clients.embeddings import Vector
    from otpy.config.settings import Settings

__all__ = ["BATCH", "batches", "embed"]

BATCH: Final = 64
"""Texts in one request."""
LETTERS: Final = 100_000
"""Letters in one request of more than one text: providers bound the tokens of a request, and a local model its time."""


async def embed(  # noqa: PLR0913 - what a request needs
    names: Names,
    settings: Settings,
    client: str,
    texts: Iterable[str],
    ask: Callable[[EmbedRequest], Awaitable[LMResponse]],
    *,
    model: str | None = None,
    dimensions: int | None = None,
    batch: int = BATCH,
) -> list[Vector]:
    """Return a vector for every text, in their order.

    Args:
        names: Where the cache is registered.
        settings: The current settings.
        client: The client's or route's name.
        texts: The texts; equal ones are asked for once.
        ask: Sends a request to the client.
        model: Overrides the client's model.
        dimensions: The length of the vectors, from models that can shorten them; `None` for their own.
        batch: Texts in one request, at most.

    Raises:
        LMRequestInvalid: If an argument is not what it should be.
        ConfigError: If the name is that of a route to different models.
        ClientError: If a request fails; the vectors that came before it are remembered.
    """
    wanted = _checked(texts, dimensions, batch)
    context = _context(settings, client)
    remembered = context is not None and settings.cache.enabled and settings.recording.path is None  # which has it all
    keys = {
        text: namespaced(
            EmbedRequest.of((text,), model=model, dimensions=dimensions).key(*(context or ())), settings.cache.namespace
        )
        for text in dict.fromkeys(wanted)
    }
    known = await _known(names, keys) if remembered else {}

    async def fetch(some: Sequence[str]) -> None:
        request = EmbedRequest.of(some, model=model, dimensions=dimensions)
        answer = await ask(request)
        cache = names.whereis("cache") if remembered else None
        for text, vector in zip(some, vectors_of(answer, len(some)), strict=True):
            known[text] = vector
            if cache is not None:
                cache.cast(CachePut(keys[text], LMResponse(packed((vector,)), answer.model)))

    asked = [
        asyncio.ensure_future(fetch(some)) for some in batches([text for text in keys if text not in known], batch)
    ]
    try:
        await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    lengths = {len(vector) for vector in known.values()}
    if len(lengths) > 1:
        raise LMResponseInvalid(f"vectors of the lengths {sorted(lengths)}: has the server another model than it had?")
    return [known[text] for text in wanted]


def batches(texts: Iterable[str], most: int, letters: int = LETTERS) -> Iterator[list[str]]:
    """Yield the texts in lists that are short enough for one request; what is too long alone is alone.

    Args:
        texts: The texts.
        most: Texts in one list.
        letters: Letters in one list of more than one text.

    Example:
        >>> from otpy.clients.embedder import batches
        >>> list(batches(["a", "b", "c", "long"], 2, letters=3))
        [['a', 'b'], ['c'], ['long']]
    """
    some: list[str] = []
    count = 0
    for text in texts:
        if some and (len(some) == most or count + len(text) > letters):
            yield some
            some, count = [], 0
        some.append(text)
        count += len(text)
    if some:
        yield some


def _checked(texts: Iterable[str], dimensions: int | None, batch: int) -> list[str]:
    if isinstance(texts, str):
        raise LMRequestInvalid(f"texts={texts!r:.100}: give a list of texts")
    wanted = list(texts)
    for at, text in enumerate(wanted):
        if not isinstance(text, str):
            raise LMRequestInvalid(f"texts[{at}]={text!r:.100}: give a text")
    if dimensions is not None and dimensions < 1:
        raise LMRequestInvalid(f"dimensions={dimensions!r}: give at least 1, or None for the model's own")
    if batch < 1:
        raise LMRequestInvalid(f"batch={batch!r}: give at least 1")
    return wanted


def _context(settings: Settings, name: str) -> tuple[str, ...] | None:
    """Return what decides a vector besides its text, for the cache's keys; `None` if it is not to be remembered.

    Raises:
        ConfigError: If the name leads to different models: their vectors cannot be compared.
    """
    route = settings.routes.get(name)
    members = (name,) if route is None else route.members
    clients = [settings.clients[member] for member in members if member in settings.clients]
    if len({client.model_name for client in clients}) > 1:
        models = ", ".join(client.model for client in clients)
        raise ConfigError(f"routes.{name} leads to {models}: vectors of different models cannot be compared; name one")
    if not clients or not all(client.cache for client in clients):
        return None  # a name that nobody has is refused where it is asked
    return clients[0].cache_context[:2]


async def _known(names: Names, keys: dict[str, str]) -> dict[str, Vector]:
    """Look all texts up; the cache makes one query of what comes at once."""
    cache = names.whereis("cache")
    if cache is None:
        return {}
    found = await asyncio.gather(*(cache.call(CacheGet(key), None) for key in keys.values()), return_exceptions=True)
    known: dict[str, Vector] = {}
    for text, answer in zip(keys, found, strict=True):
        if isinstance(answer, LMResponse):
            try:
                (known[text],) = vectors_of(answer, 1)
            except LMResponseInvalid:
                continue  # a damaged entry is asked for anew
        elif isinstance(answer, BaseException) and not isinstance(answer, ActorDown):
            raise answer  # that the cache is being restarted costs the asking, and nothing else
    return known
