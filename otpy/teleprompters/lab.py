"""`Lab`: all that a search may do to the world. What it does is journalled, so it can be done again from the journal.

A search is an `async` function of its arguments and of what the lab answers; it has no clock, no chance but the lab's
and no other way out. So the same search on the same journal takes the same steps, whatever happened in between.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.clients.taping import Took, in_all, metered
from otpy.errors import AdapterParseError, TeleprompterError
from otpy.evaluate import measure
from otpy.evaluate.journal_keys import key_of
from otpy.evaluate.rows import supervisor_of_tasks
from otpy.evaluate.runs import unsaid
from otpy.lm import Usage
from otpy.programs import tracing
from otpy.programs.state import dumped
from otpy.supervisors import Ok
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.outages import contained, is_final, may_pass
from otpy.teleprompters.patience import Patience
from otpy.teleprompters.review import Review
from otpy.teleprompters.tried import Candidate, Scores, Tried, best_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Predict, Program, TraceEntry
    from otpy.signatures import Example, Prediction
    from otpy.teleprompters.run_journal import RunJournal
    from otpy.teleprompters.teleprompter import Teleprompter

__all__ = ["Lab"]

T = TypeVar("T")

ENDED: Final = 5
"""How often an example's task may be ended by something else than the run."""


class Lab:
    """What a search works with.

    Args:
        metric: Measures predictions.
        journal: Keeps what is found out.
        seed: All chance comes from it.
        max_concurrency: Examples and askings under way at once; the result does not depend on it.
        failure_score: What an example counts for on which the program fails.
        max_errors: Errors of programs and metrics, in all, past which the run is given up; `None` never.
        told: Called with every candidate.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        metric: Metric | None,
        journal: RunJournal,
        *,
        seed: int = 0,
        max_concurrency: int = 8,
        failure_score: float = 0.0,
        max_errors: int | None = None,
        told: Callable[[Candidate], object] | None = None,
    ) -> None:
        """Know of no candidate."""
        self.metric, self.journal, self.seed = metric, journal, seed
        self.failure_score = failure_score
        self.candidates: list[Candidate] = []
        self.memory: dict[Any, Any] = {}
        """What a search wants to keep through restarts of its process."""
        self.notes: list[str] = []
        """What whoever gets the outcome is to know."""
        self.so_far: Program | None = None
        """What a search that measures no candidates would return if it had to end now."""
        self.review = Review()
        """Lets through, or has a person look at, what a search proposes as instructions."""
        self.errors = 0
        self.doing = ""
        """What it does that takes long and measures nothing, as training; empty if nothing of the kind."""
        self._width, self._max_errors, self._told = max_concurrency, max_errors, told
        self._tried: dict[tuple[Program, int, bytes], Tried] = {}
        self._patience = Patience(journal, lambda: self.going.wait())  # noqa: PLW0108 - a part has another's
        self._slots = asyncio.Semaphore(max_concurrency)
        self._asks_people = bool(getattr(metric, "asks_people", False))
        self.going = asyncio.Event()
        """Set unless it is paused."""
        self.going.set()
        self._above: Lab | None = None
        self._prefix = ""

    def rng(self, *names: object) -> random.Random:
        """Return a source of chance of its own: the same for the same seed and names, whatever else was drawn.

        Args:
            names: What it is for.
        """
        return random.Random(f"{self.seed}/{'/'.join(map(str, names))}")  # noqa: S311 - seeded choices, no secret

    def part(self, name: str, teleprompter: Teleprompter[Any]) -> Lab:
        """Return a lab for a search inside of this one, with its own metric, seed and best; the journal is the same.

        Its candidates are known here too, as `"name: …"`, if they were measured by the same metric.

        Args:
            name: What they are called, each time the same.
            teleprompter: Whose search it is.
        """
        inner = Lab(
            teleprompter.metric,
            self.journal,
            seed=teleprompter.seed,
            max_concurrency=min(teleprompter.max_concurrency, self._width),
            failure_score=teleprompter.failure_score,
        )
        inner.memory = self.memory.setdefault(("part", name), {})
        inner.going, inner._slots, inner.review = self.going, self._slots, self.review
        self.review.next_part()
        inner.notes, inner._above, inner._prefix = self.notes, self, f"{name}: "
        if inner._counts_alike(self):
            inner._tried = self._tried
        return inner

    def _counts_alike(self, other: Lab) -> bool:
        return self.metric is other.metric and self.failure_score == other.failure_score

    async def together(self, works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things at once, and return what came of them in the order given; one that fails ends the others.

        Args:
            works: What to do.

        Raises:
            Exception: What the first of them raised.
        """
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- asking ----------------------------------------------------------------------------------------------------

    async def ask(self, predictor: Predict, **inputs: Any) -> Prediction:
        """Ask a model for advice, through outages.

        Args:
            predictor: Asks; its `rollout` tells askings of the same thing apart.
            inputs: Its inputs.

        Raises:
            AdapterParseError: If the answer will not do, after all re-asks.
            ClientError: If the model cannot be asked at all.
        """
        prediction: Prediction = await self.through_outages(lambda: self._in_turn(lambda: predictor.acall(**inputs)))
        return prediction

    async def judge(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Have the metric say more, through outages: it may ask a model itself.

        Args:
            work: Asks the metric.

        Raises:
            Exception: What the metric raises for good.
        """

        def contain() -> Awaitable[Any]:
            return contained(work())

        return await self.through_outages(contain if self._asks_people else lambda: self._in_turn(contain))

    async def through_outages(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something that asks models, and again as long as it fails for no fault of its own.

        Args:
            work: What to do.

        Raises:
            Exception: What it raises for good.
        """
        return await self._patience.through(work)

    def never_there(self, error: object) -> bool:
        """Whether nobody is where the model is said to be, and nobody has been in this run: then it is no outage."""
        return self._patience.never_there(error)

    async def _in_turn(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async with self._slots:  # however much is asked and measured together
            return await work()

    def pause(self) -> None:
        """Begin nothing new until `resume`."""
        self.going.clear()

    def resume(self) -> None:
        """Go on."""
        self.going.set()

    # -- measuring -------------------------------------------------------------------------------------------------

    async def try_one(self, program: Program, at: int, example: Example) -> Tried:
        """Run a program on an example and measure it, through outages; never twice for an equal program.

        Args:
            program: The program.
            at: The example's position, which the ledger calls it by.
            example: The example, with its inputs marked.

        Raises:
            ClientError: If no request at all will be answered: a wrong key, an empty purse, no model.
        """
        key = program, at, key_of(example)  # a position is one of several sets
        if key not in self._tried:
            found = await self._tried_in_the_end(program, at, example)
            if key not in self._tried:
                self._tried[key] = found
                self._count(found)
        return self._tried[key]

    async def _tried_in_the_end(self, program: Program, at: int, example: Example) -> Tried:
        last: list[Tried] = []

        async def once() -> Tried:
            last[:] = [await self._try(program, at, example)]
            error = last[0].error
            if error is not None and (is_final(error) or may_pass(error) or self.journal.problem is not None):
                raise error
            return last[0]

        try:
            found: Tried = await self.through_outages(once if self._asks_people else lambda: self._in_turn(once))
        except Exception as error:
            if not may_pass(error):
                raise
            if self.never_there(error):
                raise
            return last[0]  # it fails again and again while others are answered: the example's own fault
        return found

    async def _try(self, program: Program, at: int, example: Example) -> Tried:
        prediction: Prediction | None = None
        calls: tuple[TraceEntry, ...] | None = None
        took: list[Took] = []

        def asked() -> Awaitable[Prediction]:
            return contained(program.acall(**example.inputs()))

        with unsaid(example=at), tracing() as trace:
            try:
                with metered(took):  # what the metric asks is no cost of the program
                    # who waits for a person holds no slot
                    answer: Prediction = await (self._in_turn(asked) if self._asks_people else asked())
                prediction, calls = answer, tuple(trace)  # those of a metric that asks are none of the program's
                assert self.metric is not None
                score = await contained(measure(self.metric, example, answer))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the row's
                spent = getattr(error, "usage", None) or Usage()
                words = f"{type(error).__name__}: {error}"
                made = tuple(trace) if calls is None else calls
                return Tried(at, example, self.failure_score, prediction, words, {}, made, error, spent, *in_all(took))
        feedback, subscores = getattr(score, "feedback", ""), dict(getattr(score, "subscores", {}))
        feedback = "\n".join(part for part in (feedback, *prediction.unmet) if part)
        facts = feedback, subscores, calls, None, prediction.usage
        return Tried(at, example, float(score), prediction, *facts, *in_all(took))

    async def evaluate(self, program: Program, rows: Sequence[tuple[int, Example]]) -> Scores:
        """Measure a program on examples, each in a supervised task; those that are known are not run again.

        Args:
            program: The program.
            rows: Positions and examples.

        Raises:
            TeleprompterError: If more programs and metrics have failed than `max_errors`.
            ClientError: As `try_one`.
        """
        return Scores(program, tuple(await self.try_all([(program, at, example) for at, example in rows])))

    async def try_all(self, trials: Sequence[tuple[Program, int, Example]]) -> list[Tried]:
        """Measure programs on an example each, as `evaluate` does one on several; what came of them, in order.

        Args:
            trials: Programs, positions and examples.

        Raises:
            TeleprompterError: As `evaluate`.
            ClientError: As `try_one`.
        """

        async def one(place: int) -> Tried:
            return await self.try_one(*trials[place])

        found: dict[int, Tried] = {}
        left = list(range(len(trials)))
        ended = Counter[int]()
        while left:
            width = len(left) if self._asks_people else min(self._width, len(left))
            stream = (await supervisor_of_tasks()).async_stream(one, left, max_concurrency=width)
            again: list[int] = []
            async with aclosing(stream) as outcomes:
                async for outcome in outcomes:
                    place = left[outcome.index]
                    if isinstance(outcome, Ok):
                        found[place] = outcome.value
                    elif isinstance(outcome.reason, Exception):
                        raise outcome.reason
                    elif (ended := ended + Counter([place]))[place] < ENDED:
                        again.append(place)  # its task was ended from outside
                    else:
                        why = f"row {trials[place][1]}: its task was ended {ENDED} times, with {outcome.reason!r:.100}"
                        raise TeleprompterError(f"{why}; what is in its program or metric ends what runs it")
            left = again
        return [found[place] for place in range(len(trials))]

    def _count(self, tried: Tried) -> None:
        if tried.error is None or isinstance(tried.error, AdapterParseError):
            return
        self.errors += 1
        if self._max_errors is not None and self.errors > self._max_errors:
            error = TeleprompterError(f"more errors than max_errors={self._max_errors}; the last: {tried.feedback}")
            raise error from tried.error

    def says(self, doing: str) -> None:
        """Say what it does that takes long and measures nothing.

        Args:
            doing: In words; empty when it is over.
        """
        self.doing = doing
        if self._above is not None:
            self._above.says(doing)

    # -- telling ---------------------------------------------------------------------------------------------------

    async def candidate(self, name: str, scores: Scores, **params: Any) -> Candidate:
        """Take in a program that was measured on the examples to choose by, and tell whoever listens.

        Args:
            name: What the search calls it, each time the same.
            scores: How it did.
            params: What distinguishes it, as JSON data.
        """
        program = scores.program
        made = Candidate(name, program, scores, params)
        if (known := self.named(name)) is not None:  # told again after a restart, it keeps its place
            self.candidates[self.candidates.index(known)] = made
        else:
            self.candidates.append(made)
        state = program.content_hash(), dumped(program)
        data = {"program": state[0], "score": made.score, "rows": len(scores.rows), "params": params}
        if self._above is not None and self._counts_alike(self._above):
            await self._above.candidate(f"{self._prefix}{name}", scores, **params)
            return made
        at = [row.at for row in scores.rows]
        details = {**data, "at": at, "scores": scores.values, "failed": scores.failed}
        await self.journal.tell(f"{self._prefix}{name}", details, state)
        if self._told is not None:
            self._told(made)
        if telemetry.listening:
            telemetry.emit("otpy.teleprompter.candidate", name=name, score=made.score, program=state[0], params=params)
        return made

    def named(self, name: str) -> Candidate | None:
        """Return the candidate of a name, if there is one."""
        return next((one for one in self.candidates if one.name == name), None)

    def score_of(self, name: str) -> float:
        """Return a candidate's score, such as that of the `"student"`.

        Args:
            name: What it was called.
        """
        return next(one.score for one in self.candidates if one.name == name)

    @property
    def best(self) -> Candidate | None:
        """The best candidate so far, the first of equals."""
        return best_of(self.candidates)
