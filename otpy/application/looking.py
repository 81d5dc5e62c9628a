"""What may be asked of a running application: how its clients are, what was said, what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from otpy.clients.book import Sums
from otpy.clients.cache import CacheStats, ClearCache
from otpy.clients.calls import ClientStatus, ResetBreaker
from otpy.clients.history import found
from otpy.clients.history_view import HistoryView
from otpy.clients.labels import Labels
from otpy.clients.ledger import GetCaps, GetSums
from otpy.clients.running import running
from otpy.errors import AdapterParseError, ConfigError, ProgramError
from otpy.evaluate.row import Failed, Scored
from otpy.programs.trace import KEPT
from otpy.signatures import Prediction
from otpy.signatures.example import exchanges_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otpy.clients.book import Book
    from otpy.clients.budget import CapState
    from otpy.clients.history import History
    from otpy.config.settings import Settings

__all__ = ["Looking", "inspect"]

T = TypeVar("T")


class Looking:
    """The half of an application that only looks."""

    _history: History

    @property
    def book(self) -> Book:
        """What was asked and what it took."""
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        raise NotImplementedError

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it."""
        raise NotImplementedError

    async def _call(self, name: object, request: Any) -> Any:
        raise NotImplementedError

    async def _here(self, function: Callable[[], T]) -> T:
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
        """Return a client's counters and states: requests, in flight, waiting, breakers, concurrency, limits.

        Args:
            client: Its name; of a route the states of its members, by name.

        Raises:
            ConfigError: If there is none of this name, or a strict replay is going on, which asks nobody.
        """
        return self.run(self.aclient_status(client))

    async def aclient_status(self, client: str = "default") -> dict[str, Any]:
        """Return a client's counters, as `client_status` does, in async code."""
        route = self.settings.routes.get(client)
        if route is not None:
            return {member: await self.aclient_status(member) for member in route.members}
        return await self._call(self._named(client), ClientStatus())  # type: ignore[no-any-return]

    def _named(self, client: str) -> tuple[str, str]:
        """Return the name of a client's process."""
        settings = self.settings
        if client not in settings.clients:
            known = ", ".join(map(repr, settings.clients)) or "none"
            route = settings.routes.get(client)
            hint = "" if route is None else f"; it is a route over {', '.join(route.members)}"
            raise ConfigError(f"no client is called {client!r}; configured: {known}{hint}")
        if settings.recording.path is not None and settings.recording.mode == "replay":
            raise ConfigError(f"client {client!r} is not running: in a strict replay nobody is asked")
        return ("client", client)

    def reset_breaker(self, client: str = "default", model: str | None = None) -> None:
        """Close a client's circuit by hand: the provider is known to be well again.

        Args:
            client: Which client.
            model: Which of its models; `None` for the one of its settings.
        """
        self.run(self.areset_breaker(client, model))

    async def areset_breaker(self, client: str = "default", model: str | None = None) -> None:
        """Close a client's circuit by hand, in async code."""
        await self._call(self._named(client), ResetBreaker(model))

    def spent(self, *by: str, **where: str) -> dict[Labels, Sums]:
        """Return what was asked and what it took: tokens, and money as far as prices are known.

        Args:
            by: Names of labels to split it by: `"client"`, `"model"`, `"run"`, `"program"`, `"predictor"`, `"example"`.
                Examples are kept by run alone, and only those of the latest runs: `app.spent("example", run="…")`.
            where: Labels that it must have.

        Raises:
            ConfigError: If there is no such label, or these examples are not kept.

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
        names = {*by, *where}
        if wrong := sorted(names - set(Labels._fields)):
            raise ConfigError(f"no label {', '.join(map(repr, wrong))}; there are {', '.join(Labels._fields)}")
        if "example" not in names:
            return await self._call("ledger", GetSums(by, tuple(where.items())))  # type: ignore[no-any-return]
        run = where.get("run")
        if run is None or names - {"run", "example"}:
            raise ConfigError('examples are kept by run alone: ask app.spent("example", run="…")')
        return await self._here(lambda: self._examples(by, run, where.get("example")))

    def _examples(self, by: tuple[str, ...], run: str, only: str | None) -> dict[Labels, Sums]:
        kept = self.book.examples(run)
        if not kept and self.book.total(run=run).requests:
            raise ConfigError(
                f"no examples of the run {run!r} are kept: those of evaluations and optimizations are, until later ones"
                " need the room; its sums stay"
            )
        grouped: dict[Labels, Sums] = {}
        for example, sums in kept.items():
            if only in {None, example}:
                whole = Labels(run=run, example=example)
                group = Labels(**{name: getattr(whole, name) for name in by})
                grouped.setdefault(group, Sums()).add(sums)
        return grouped

    async def acaps(self) -> list[CapState]:
        """Return how the caps stand: spent, set aside for requests in flight, refused."""
        return await self._call("ledger", GetCaps())  # type: ignore[no-any-return]

    def cache_stats(self) -> dict[str, Any]:
        """Return the cache's counts and sizes."""
        return self.run(self.acache_stats())

    async def acache_stats(self) -> dict[str, Any]:
        """Return the cache's counts and sizes, in async code."""
        return await self._cache(CacheStats())  # type: ignore[no-any-return]

    def clear_cache(self, namespace: str | None = None) -> int:
        """Forget remembered answers, in memory and on disk; returns how many there were.

        Args:
            namespace: Only those of this one; `None` for all that are in the file.

        Example:
            >>> import otpy
            >>> from otpy.testing import FakeProvider
            >>> with FakeProvider('{"answer": "4"}') as fake:
            ...     settings = {"cache": {"disk": False}}
            ...     with otpy.start(lm="acme/m", base_url=fake.url("openai_chat"), settings=settings) as app:
            ...         _ = otpy.Predict("question -> answer")(question="2 + 2?")
            ...         print(app.clear_cache("another"), app.clear_cache(), app.cache_stats()["in_memory"])
            0 1 0
        """
        return self.run(self.aclear_cache(namespace))

    async def aclear_cache(self, namespace: str | None = None) -> int:
        """Forget remembered answers, as `clear_cache` does, in async code."""
        return await self._cache(ClearCache(namespace))  # type: ignore[no-any-return]

    async def _cache(self, request: Any) -> Any:
        if not self.settings.cache.enabled:
            raise ConfigError("the cache is off (cache.enabled=False), so there is nothing to count or clear")
        return await self._call("cache", request)


def inspect(what: Prediction | Scored | Failed | AdapterParseError | None = None, /) -> HistoryView:
    """Return the exact messages that led to a prediction: printed as text, shown as a page in a notebook.

    All of them: of every predictor that was called, and of every time it asked again. They are those that the
    application's history still has; if some are forgotten, it says so. Keys are never shown.

    Args:
        what: A prediction; a row of an evaluation, failed or not; or the error of an answer that did not fulfil its
            signature. Without it, the last exchange of the running application.

    Raises:
        ProgramError: If it is something else.
        NoApplication: If nothing is given and no application is running.

    Example:
        >>> import otpy
        >>> from otpy.testing import FakeProvider
        >>> with FakeProvider('{"answer": "Paris"}') as fake:
        ...     with otpy.start(lm="acme/m", base_url=fake.url("openai_chat"), cache=False):
        ...         prediction = otpy.Predict("question -> answer")(question="The capital of France?")
        ...         print(otpy.inspect(prediction)[0].response.text)
        {"answer": "Paris"}
    """
    if what is None:
        application: Any = running()
        return application.history(1)  # type: ignore[no-any-return]
    numbers = _numbers(what)
    there = found(numbers)
    return HistoryView(there, note=_missing(len(numbers), len(there)))


def _numbers(what: object) -> tuple[int, ...]:
    match what:
        case Prediction():
            return exchanges_of(what)
        case Scored():
            return exchanges_of(what.prediction)
        case Failed():
            return what.exchanges
        case AdapterParseError():
            return getattr(what, "exchanges", ())
        case _:
            raise ProgramError(
                f"inspect({type(what).__name__}): give a prediction, a row of an evaluation, or an AdapterParseError"
            )


def _missing(wanted: int, there: int) -> str:
    """Say what cannot be shown, and why."""
    if not wanted:
        return "(no exchange is known to have led to this: nothing was asked, or it was copied or loaded)"
    notes: list[str] = []
    if there < wanted:
        what = "the exchange" if wanted == 1 else f"{wanted - there:,} of the {wanted:,} exchanges"
        notes.append(
            f"{what} that led to this can no longer be shown: a history is bounded, and goes with its application;"
            " settings={'history': 100_000} keeps more"
        )
    if wanted >= KEPT:
        notes.append(f"of a call only the last {KEPT:,} exchanges are remembered")
    return f"({'; '.join(notes)})" if notes else ""
