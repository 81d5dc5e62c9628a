"""What may be asked of a running application: how its clients are, what was said, what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from otpy.clients.cache import CacheStats
from otpy.clients.client import ClientStatus, ResetBreaker
from otpy.clients.history_view import HistoryView
from otpy.clients.ledger import GetCaps, GetSums, Sums

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from otpy.clients.budget import CapState, Labels
    from otpy.clients.history import History

__all__ = ["Looking"]

T = TypeVar("T")


class Looking:
    """The half of an application that only looks."""

    _history: History

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it."""
        raise NotImplementedError

    async def _call(self, name: object, request: Any) -> Any:
        raise NotImplementedError

    def history(self, n: int | None = None) -> HistoryView:
        """Return the last requests and their answers, oldest first: printed as text, shown as a page in a notebook.

        Args:
            n: How many; `None` for all that are kept (`history` in the settings says how many those are).

        Example:
            >>> import otpy
            >>> from otpy.testing import FakeProvider
            >>> with FakeProvider("Paris") as fake:
            ...     with otpy.start(lm="acme/m", base_url=fake.url("openai_chat"), cache=False) as app:
            ...         request = otpy.LMRequest((otpy.Message("user", "The capital of France?"),))
            ...         _ = app.run(app.ask("default", request))
            ...         print(app.history(1)[0].request.messages[0].content, app.history(1)[0].response.text)
            The capital of France? Paris
        """
        return HistoryView(self._history.last(n))

    def client_status(self, client: str = "default") -> dict[str, Any]:
        """Return a client's counters and states: requests, in flight, waiting, breakers, concurrency, limits."""
        return self.run(self.aclient_status(client))

    async def aclient_status(self, client: str = "default") -> dict[str, Any]:
        """Return a client's counters, as `client_status` does, in async code."""
        return await self._call(("client", client), ClientStatus())  # type: ignore[no-any-return]

    def reset_breaker(self, client: str = "default", model: str | None = None) -> None:
        """Close a client's circuit by hand: the provider is known to be well again.

        Args:
            client: Which client.
            model: Which of its models; `None` for the one of its settings.
        """
        self.run(self.areset_breaker(client, model))

    async def areset_breaker(self, client: str = "default", model: str | None = None) -> None:
        """Close a client's circuit by hand, in async code."""
        await self._call(("client", client), ResetBreaker(model))

    def spent(self, *by: str, **where: str) -> dict[Labels, Sums]:
        """Return what was asked and what it took: tokens, and money as far as prices are known.

        Args:
            by: Names of labels to split it by: `"client"`, `"model"`, `"run"`, `"program"`, `"predictor"`, `"example"`.
            where: Labels that it must have.

        Example:
            >>> import otpy
            >>> from otpy.testing import FakeProvider
            >>> with FakeProvider('{"answer": "4"}') as fake:
            ...     with otpy.start(lm="acme/fake", base_url=fake.url("openai_chat"), cache=False) as app:
            ...         _ = otpy.Predict("question -> answer")(question="2 + 2?")
            ...         for labels, sums in app.spent("client").items():
            ...             print(labels.client, sums.requests, sums.answered, sums.output_tokens)
            default 1 1 2
        """
        return self.run(self.aspent(*by, **where))

    async def aspent(self, *by: str, **where: str) -> dict[Labels, Sums]:
        """Return what was asked and what it took, in async code."""
        return await self._call("ledger", GetSums(by, tuple(where.items())))  # type: ignore[no-any-return]

    async def acaps(self) -> list[CapState]:
        """Return how the caps stand: spent, set aside for requests in flight, refused."""
        return await self._call("ledger", GetCaps())  # type: ignore[no-any-return]

    def cache_stats(self) -> dict[str, Any]:
        """Return the cache's counts and sizes."""
        return self.run(self.acache_stats())

    async def acache_stats(self) -> dict[str, Any]:
        """Return the cache's counts and sizes, in async code."""
        return await self._call("cache", CacheStats())  # type: ignore[no-any-return]
