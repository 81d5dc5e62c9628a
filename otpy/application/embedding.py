"""What an application does with texts besides answering them: it turns them into vectors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.clients.embedder import BATCH, embed

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from otpy.actors import Names
    from otpy.clients.embeddings import Vector
    from otpy.config.manager import SettingsBox
    from otpy.lm import LMRequest, LMResponse

__all__ = ["Embedding"]

T = TypeVar("T")


class Embedding:
    """The part of an application that embeds."""

    _box: SettingsBox
    _names: Names
    _loop: asyncio.AbstractEventLoop | None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it."""
        raise NotImplementedError

    async def ask(self, client: str, request: LMRequest) -> LMResponse:
        """Send a request through the client process of this name."""
        raise NotImplementedError

    def embed(
        self,
        texts: Iterable[str],
        *,
        client: str = "default",
        model: str | None = None,
        dimensions: int | None = None,
        batch: int = BATCH,
    ) -> list[Vector]:
        """Return a vector for every text, in their order: texts that mean the like have vectors that are close.

        Args:
            texts: The texts; equal ones are asked for once, known ones not at all.
            client: Which client, or a route whose clients all have the same model.
            model: Overrides the client's model.
            dimensions: The length of the vectors, from models that can shorten them; `None` for their own.
            batch: Texts in one request, at most; fewer where they are long.

        Returns:
            Arrays of 32-bit floats (`array.array("f")`), which `numpy.asarray` takes without a copy.

        Raises:
            ClientError: As for any request; `LMRequestInvalid` if the client's provider has no embeddings.

        Example:
            >>> import otpy
            >>> from otpy.testing import FakeProvider
            >>> with FakeProvider() as fake:
            ...     with otpy.start(lm="acme/m", base_url=fake.url("embeddings"), cache=False) as app:
            ...         first, second, again = app.embed(["hello", "goodbye", "hello"])
            >>> len(first), first == again, first == second
            (8, True, False)
        """
        return self.run(self.aembed(texts, client=client, model=model, dimensions=dimensions, batch=batch))

    async def aembed(
        self,
        texts: Iterable[str],
        *,
        client: str = "default",
        model: str | None = None,
        dimensions: int | None = None,
        batch: int = BATCH,
    ) -> list[Vector]:
        """Return a vector for every text, as `embed` does, in async code and on any event loop.

        Cancelling it closes the connections to the provider.
        """
        question = embed(
            self._names,
            self._box.current,
            client,
            texts,
            lambda request: self.ask(client, request),
            model=model,
            dimensions=dimensions,
            batch=batch,
        )
        if self._loop is None or asyncio.get_running_loop() is self._loop:
            return await question
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._loop))
