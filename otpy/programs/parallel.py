"""`Parallel`: many calls of programs at the same time, each in a supervised task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.clients.running import running
from otpy.errors import OtpyError, ProgramError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.programs.program import Program
    from otpy.signatures import Example, Prediction

__all__ = ["BatchFailed", "CallEnded", "Parallel"]

MOST = 1_000
"""Calls at the same time, unless told otherwise."""
Inputs: TypeAlias = "Example | Mapping[str, Any]"


class BatchFailed(ProgramError):
    """Some calls of a batch have failed; the others are in it.

    Args:
        results: What became of each call, in their order: a prediction, or the exception.
    """

    def __init__(self, results: Sequence[Prediction | Exception]) -> None:
        """Keep them all."""
        self.results = list(results)
        failed = [(index, result) for index, result in enumerate(results) if isinstance(result, Exception)]
        index, first = failed[0]
        super().__init__(
            f"{len(failed)} of {len(results)} calls failed, the first is {index}: {type(first).__name__}: {first};"
            " all are in .results, and return_exceptions=True returns them"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the results."""
        return type(self), (self.results,)


class CallEnded(OtpyError):
    """A call of a batch was ended from outside, or its time was up.

    Args:
        reason: `"timeout"`, `"killed"`, or another exit reason.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        self.reason = reason
        super().__init__(f"the call was ended: {reason}")


@dataclass(frozen=True)
class Parallel:
    """Calls programs with inputs, many at the same time; a value.

    Each call is a task under the application's supervisor: one that fails or hangs costs itself. For scores, journals
    and statistics there is `Evaluate`.

    Args:
        max_concurrency: Calls at the same time, at least 1.
        timeout: Seconds that each may take; then its task is killed.
        return_exceptions: Return exceptions in the place of predictions, instead of raising `BatchFailed`.

    Raises:
        ProgramError: If an argument cannot be used.

    Example:
        >>> import otpy
        >>> class Twice(otpy.Program):
        ...     async def forward(self, n):
        ...         return otpy.Prediction(n=2 * n)
        >>> with otpy.start(settings={"clients": {}}):
        ...     results = otpy.Parallel()([(Twice(), {"n": 1}), (Twice(), {"n": 2})])
        >>> [result.n for result in results]
        [2, 4]
    """

    max_concurrency: int = MOST
    timeout: float | None = None
    return_exceptions: bool = False

    def __post_init__(self) -> None:
        """Check everything."""
        many: Any = self.max_concurrency
        seconds: Any = self.timeout
        if not isinstance(many, int) or isinstance(many, bool) or many < 1:
            raise ProgramError(f"max_concurrency={many!r}; allowed: an integer >= 1")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0):
            raise ProgramError(f"timeout={seconds!r}; allowed: seconds > 0, or None")

    def __call__(self, pairs: Iterable[tuple[Program, Inputs]]) -> list[Any]:
        """Call them all and wait, in synchronous code.

        Args:
            pairs: Programs, each with its inputs: an example, of which the marked inputs are taken, or a mapping.

        Returns:
            The predictions, in the order of the calls.

        Raises:
            BatchFailed: If a call has failed, and exceptions are not returned.
            ProgramError: If a pair is none.
            NoApplication: If no application is running.
        """
        return running().run(self.acall(pairs))

    async def acall(self, pairs: Iterable[tuple[Program, Inputs]]) -> list[Any]:
        """Call them all, in asynchronous code on the application's loop; arguments and errors as for a plain call."""
        application = running()
        if not application.on_loop():
            raise ProgramError(
                "the application runs on another event loop: here, `await asyncio.to_thread(parallel, pairs)`"
            )
        calls = [_call(number, pair) for number, pair in enumerate(pairs)]
        results: list[Prediction | Exception] = []
        if calls:
            stream = application.tasks.async_stream(
                _run,
                calls,
                max_concurrency=min(self.max_concurrency, len(calls)),
                timeout=self.timeout,
                on_timeout="kill_task",
            )
            async for outcome in stream:
                ended: Any = outcome
                results.append(ended.value if hasattr(ended, "value") else _as_exception(ended.reason))
        if not self.return_exceptions and any(isinstance(result, Exception) for result in results):
            raise BatchFailed(results)
        return results


async def _run(call: tuple[Program, dict[str, Any]]) -> Prediction:
    program, inputs = call
    return await program.acall(**inputs)


def _call(number: int, pair: object) -> tuple[Program, dict[str, Any]]:
    given: Any = pair
    if not isinstance(pair, tuple) or len(given) != 2:
        raise ProgramError(f"call {number} is {pair!r:.100}; allowed: (program, inputs)")
    program, inputs = given
    if not hasattr(program, "acall"):
        raise ProgramError(f"call {number}: {program!r:.100} is no program")
    return program, inputs_of(program, inputs, number)


def inputs_of(program: Program, inputs: Any, number: int) -> dict[str, Any]:
    """Return the inputs that a program is called with: those that are marked, or that it takes.

    Args:
        program: The program.
        inputs: An example or a mapping.
        number: Which call it is, for the message.

    Raises:
        ProgramError: If it is neither.
    """
    if not hasattr(inputs, "keys"):
        raise ProgramError(f"call {number}: inputs {inputs!r:.100}; allowed: an Example or a mapping")
    if getattr(inputs, "input_names", None) is not None:
        return dict(inputs.inputs())
    names = program.input_names
    return {name: inputs[name] for name in inputs if names is None or name in names}


def _as_exception(reason: Any) -> Exception:
    return reason if isinstance(reason, Exception) else CallEnded(str(reason))
