"""Further ways to call a program: on many examples at once, and as a stream."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otpy.clients.running import running
from otpy.errors import NoApplication
from otpy.programs.streaming import streamed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping

    from otpy.programs.streaming import StreamedEvent
    from otpy.signatures import Prediction

__all__ = ["Ways"]

_DSPY: Final = {
    "set_lm": "`program.with_client(name)` returns a copy that asks another client",
    "predictors": "`program.named_predictors()` has them with their paths",
    "candidate_programs": "`otpy.outcome_of(program).candidates`",
    "detailed_results": "`otpy.outcome_of(program)`",
    "inspect_history": "`otpy.inspect(prediction)`, or `app.history()`",
}


class Ways:
    """What every program can do, as it can be called."""

    __slots__ = ()

    if TYPE_CHECKING:
        acall: Callable[..., Coroutine[Any, Any, Prediction]]
    else:  # a checker is to know what is not there

        def __getattr__(self, name: str) -> NoReturn:
            """Say of what DSPy's programs have where it is here."""
            hint = f"; {_DSPY[name]}" if name in _DSPY else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def batch(self, examples: Iterable[Any], **how: Any) -> list[Any]:
        """Run it on many examples at the same time and wait, in synchronous code.

        Args:
            examples: Examples, of which the marked inputs are taken, or mappings.
            how: As for `otpy.programs.Parallel`: `max_concurrency`, `timeout`, `return_exceptions`.

        Returns:
            The predictions, in the order of the examples.

        Raises:
            BatchFailed: If a call has failed, with all results in it.
        """
        results: list[Any] = self._parallel(how)([(self, example) for example in examples])
        return results

    async def abatch(self, examples: Iterable[Any], **how: Any) -> list[Any]:
        """Run it on many examples at the same time, in asynchronous code; as `batch`."""
        results: list[Any] = await self._parallel(how).acall([(self, example) for example in examples])
        return results

    @staticmethod
    def _parallel(how: Mapping[str, Any]) -> Any:
        from otpy.programs.parallel import Parallel  # noqa: PLC0415 - it is about programs

        return Parallel(**how)

    def astream(self, **inputs: Any) -> AsyncGenerator[StreamedEvent, None]:
        """Run it and yield what happens while it does; the last is the `Prediction`.

        Leaving early cancels the call, and closes its connections; `contextlib.aclosing` does so at once.

        Args:
            inputs: The inputs.

        Raises:
            ProgramError: As for a plain call; so for all other errors, behind the events that there were.
        """
        return streamed(lambda: self.acall(**inputs))  # itself, as a loop that ends closes all generators at once

    def stream(self, **inputs: Any) -> Iterator[StreamedEvent]:
        """Run it and yield what happens while it does, in synchronous code; as `astream`."""
        application, events = running(), self.astream(**inputs)
        try:
            while True:
                try:
                    event: StreamedEvent = application.run(_next(events))
                except StopAsyncIteration:
                    return
                yield event
        finally:
            with suppress(NoApplication):  # it has stopped, and the stream with it
                application.run(events.aclose())


async def _next(events: AsyncGenerator[StreamedEvent, None]) -> StreamedEvent:
    return await anext(events)
