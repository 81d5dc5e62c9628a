"""`SIMBA`: where a program sometimes does well and sometimes badly, it learns from the difference.

Source: the optimizer of this name in DSPy, "Stochastic Introspective Mini-Batch Ascent".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import TeleprompterError
from otpy.evaluate import check_metric, metric_name
from otpy.evaluate.statistics import mean
from otpy.teleprompters import reflection
from otpy.teleprompters.arguments import check_client, check_integer, is_number
from otpy.teleprompters.estimate import Writing
from otpy.teleprompters.pareto import minibatch
from otpy.teleprompters.review import instructions_of, kept_to
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Tried

__all__ = ["SIMBA", "dropped", "gap", "leading", "percentile", "softmax_draw"]

EXPLORING: Final = 1.0
"""The temperature of trajectories after the first: the same question at 0 has the same answer."""


class SIMBA(Teleprompter[P]):
    """Runs programs several times on a minibatch, and gives them demos and rules from where the runs differ the most.

    In each step every row of a minibatch is tried by several programs of the pool, drawn by their scores. Rows are
    ordered by how far the best and the worst try are apart; for each of the first a program of the pool gets a demo
    (the calls of the best try) or a rule (advice of a model that has compared the best with the worst), and sheds a few
    demos by chance. The new programs are measured on the minibatch and join the pool.

    Other than DSPy's: the best of each step is measured on the valset at once, so there is a best so far at any time,
    and not some of them at the end on the trainset; the student counts in the pool with its score there; a row whose
    tries differ is learned from however well the others did, and one whose tries are all equal makes no rule; the
    first try is the program's own, without a temperature; what a step needs is asked at once.

    Args:
        metric: Measures predictions; the `feedback` of a `Score` is told to the model that advises.
        bsize: Rows of a minibatch; all of the trainset, if it has fewer.
        num_candidates: Tries of each row, and about as many new programs a step.
        max_steps: Steps.
        max_demos: Demos a predictor has at most, of those it gains; with 0 only rules are made.
        prompt_client: The name of the client that advises.
        prompt_max_tokens: Its longest answer; a model that thinks before needs more.
        demo_input_field_maxlen: Characters of an input's text in a demo.
        temperature_for_sampling: How little the score decides who tries a row; greater than 0.
        temperature_for_candidates: How little it decides who is changed; greater than 0.
        failure_score: What a row counts for on which the program fails.
        max_concurrency: Examples under way at once; the result does not depend on it.
        seed: All chance comes from it.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.
    """

    uses_valset = True
    proposes = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters
        self,
        metric: Metric,
        *,
        bsize: int = 32,
        num_candidates: int = 6,
        max_steps: int = 8,
        max_demos: int = 4,
        prompt_client: str = "default",
        prompt_max_tokens: int = 1000,
        demo_input_field_maxlen: int = 100_000,
        temperature_for_sampling: float = 0.2,
        temperature_for_candidates: float = 0.2,
        failure_score: float = 0.0,
        max_concurrency: int = 8,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        for name, value, least in (
            ("bsize", bsize, 1),
            ("num_candidates", num_candidates, 2),
            ("max_steps", max_steps, 1),
            ("max_demos", max_demos, 0),
            ("demo_input_field_maxlen", demo_input_field_maxlen, 1),
            ("max_concurrency", max_concurrency, 1),
            ("prompt_max_tokens", prompt_max_tokens, 1),
            ("seed", seed, 0),
        ):
            check_integer(name, value, least)
        for name, number in (
            ("temperature_for_sampling", temperature_for_sampling),
            ("temperature_for_candidates", temperature_for_candidates),
        ):
            if not (is_number(number) and number > 0):
                raise TeleprompterError(f"{name}={number!r}; allowed: a number > 0")
        if not is_number(failure_score):
            raise TeleprompterError(f"failure_score={failure_score!r}; allowed: a finite number")
        check_client("prompt_client", prompt_client, optional=False)
        self.metric, self.bsize, self.num_candidates = metric, bsize, num_candidates
        self.max_steps, self.max_demos, self.prompt_client = max_steps, max_demos, prompt_client
        self.prompt_max_tokens = prompt_max_tokens
        self.demo_input_field_maxlen = demo_input_field_maxlen
        self.temperature_for_sampling = temperature_for_sampling
        self.temperature_for_candidates = temperature_for_candidates
        self.failure_score, self.max_concurrency, self.seed = failure_score, max_concurrency, seed

    def __repr__(self) -> str:
        """Print the metric and the sizes."""
        sizes = f"bsize={self.bsize}, num_candidates={self.num_candidates}, max_steps={self.max_steps}"
        return f"SIMBA({metric_name(self.metric)}, {sizes}, seed={self.seed})"

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return as many as if no step had anything to teach, and as if every change were a rule that is new."""
        size, tries, steps = min(self.bsize, rows), self.num_candidates, self.max_steps
        least = val + size + steps * (tries - 1) * size  # in later steps the first tries may be known
        fresh = (tries + 1) * size + val  # a row more than `num_candidates` may be learned from
        most = val + steps * (tries * size + fresh)
        return least * predictors, most * predictors + steps * (tries + 1)

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:  # noqa: ARG002 - the base's
        """Return a request for each rule, which shows the program's steps in two tries of a row."""
        most = self.max_steps * (self.num_candidates + 1)
        return [Writing((0, most), self.prompt_client, self.prompt_max_tokens, 2 * predictors, predictors)]

    async def search(
        self,
        lab: Lab,
        student: P,
        trainset: list[Example],
        valset: list[Example],
        teacher: Program | None,  # noqa: ARG002 - the base's
    ) -> P:
        """Step by step."""
        if self.bsize > len(trainset):
            lab.notes.append(
                f"bsize={self.bsize}: the trainset has {len(trainset)} rows, and a minibatch is all of them"
            )
        ascent = _Ascent(self, lab, trainset, list(enumerate(valset)))
        await ascent.run(student)
        assert lab.best is not None
        best: P = lab.best.program  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - a copy of it
        return best


@dataclass(frozen=True, slots=True)
class _Change:
    """What one row could teach a program."""

    number: int
    source: Program
    rule: bool
    tries: Sequence[Tried]


class _Ascent:
    """One search."""

    def __init__(
        self, told: SIMBA[Any], lab: Lab, trainset: Sequence[Example], valset: list[tuple[int, Example]]
    ) -> None:
        self._told, self._lab, self._trainset, self._valset = told, lab, trainset, valset
        self._size = min(told.bsize, len(trainset))
        self._pool: list[Program] = []
        self._scores: list[float] = []

    async def run(self, student: Program) -> None:
        lab = self._lab
        self._add(student, (await lab.evaluate(student, self._valset)).mean)
        for step in range(self._told.max_steps):
            rows = self._minibatch(step)
            fresh = await self._new(step, await self._tries(step, rows))
            if not fresh:
                continue
            trials = [(program, at, example) for program in fresh for at, example in rows]
            found = await lab.try_all(trials)
            scores = [mean([tried.score for tried in part]) for part in _parts(found, len(rows))]
            for program, score in zip(fresh, scores, strict=True):
                self._add(program, score)
            best = fresh[max(range(len(fresh)), key=scores.__getitem__)]
            measured = await lab.evaluate(best, self._valset)
            await lab.candidate(f"step-{step}", measured, minibatch=scores)

    def _add(self, program: Program, score: float) -> None:
        self._pool.append(program)
        self._scores.append(score)

    def _minibatch(self, step: int) -> list[tuple[int, Example]]:
        batches = max(len(self._trainset) // self._size, 1)
        order = list(range(len(self._trainset)))
        self._lab.rng("simba", "epoch", step // batches).shuffle(order)
        return [(at, self._trainset[at]) for at in minibatch(order, step % batches, self._size)]

    async def _tries(self, step: int, rows: list[tuple[int, Example]]) -> list[list[Tried]]:
        """Let programs of the pool try every row; the rows come back with their tries, the best first."""
        told, rng = self._told, self._lab.rng("simba", "tries", step)
        first = leading(self._scores, told.num_candidates)
        scores = [self._scores[at] for at in first]
        trials: list[tuple[Program, int, Example]] = []
        for turn in range(told.num_candidates):
            for at, example in rows:
                program = self._pool[first[softmax_draw(scores, told.temperature_for_sampling, rng)]]
                number = step * told.num_candidates + turn
                trials.append((_exploring(program, number) if turn else program, at, example))
        turns = _parts(await self._lab.try_all(trials), len(rows))
        tries = [sorted(row, key=lambda tried: -tried.score) for row in zip(*turns, strict=True)]
        return sorted(tries, key=lambda row: gap([tried.score for tried in row]), reverse=True)

    async def _new(self, step: int, tries: list[list[Tried]]) -> list[Program]:
        """Return programs that have learned from the rows with the widest gaps."""
        told = self._told
        low = percentile([tried.score for row in tries for tried in row], 0.1)
        changes: list[_Change] = []
        for number, row in enumerate(tries):
            rng = self._lab.rng("simba", "change", step, number)
            first = leading(self._scores, told.num_candidates)
            chosen = softmax_draw([self._scores[at] for at in first], told.temperature_for_candidates, rng)
            source = self._shed(self._pool[first[chosen]], rng)
            rule = told.max_demos == 0 or rng.random() < 0.5
            good, bad = row[0].score, row[-1].score
            if good > bad or (good > low and not rule):
                changes.append(_Change(step * len(tries) + number, source, rule, row))
            if len(changes) > told.num_candidates:
                break
        made = await self._lab.together(self._ruled(one, step) if one.rule else self._shown(one) for one in changes)
        pinned = self._lab.review.pins(step)
        made = [None if program is None else kept_to(program, pinned) for program in made]
        fresh: list[Program] = []
        for program in made:
            if program is not None and program not in fresh and program not in self._pool:
                fresh.append(program)
        return fresh

    def _shed(self, program: Program, rng: random.Random) -> Program:
        """Take a few demos away, the same places from every predictor."""
        most = max(len(predictor.demos) for _, predictor in program.named_predictors())
        away = dropped(most, self._told.max_demos, rng)
        if not away:
            return program
        kept = {
            path: [demo for place, demo in enumerate(predictor.demos) if place not in away]
            for path, predictor in program.named_predictors()
        }
        return program.with_demos(kept)

    async def _shown(self, change: _Change) -> Program | None:
        """Give every predictor its call in the best try as a demo."""
        best, source = change.tries[0], change.source
        calls = {path: reflection.calls_of(best, path) for path, _ in source.named_predictors()}
        demos = {
            path: [*predictor.demos, self._demo(calls[path][-1])]
            for path, predictor in source.named_predictors()
            if calls[path]
        }
        return source.with_demos(demos) if demos else None

    def _demo(self, entry: Any) -> dict[str, Any]:
        longest = self._told.demo_input_field_maxlen
        inputs = {name: value[:longest] if isinstance(value, str) else value for name, value in entry.inputs.items()}
        return {**inputs, **reflection.outputs_of(entry)}

    async def _ruled(self, change: _Change, step: int) -> Program | None:
        """Add to instructions what a model advises that has compared the best try with the worst."""
        best, worst, source = change.tries[0], change.tries[-1], change.source
        told = self._told
        asking = reflection.ADVISE.configured(
            client=told.prompt_client, temperature=1.0, max_tokens=told.prompt_max_tokens, rollout=change.number
        )
        answer = await reflection.asked_for(
            self._lab,
            asking,
            modules=reflection.modules(source),
            example=reflection.listed({**best.example.inputs(), **reflection.labels(best)}),
            worse=reflection.trajectory(worst),
            better=reflection.trajectory(best),
        )
        new = {} if answer is None else reflection.advised(source, answer.advice)
        new = await self._lab.review.of(new, instructions_of(source), step, change.number)
        return source.with_instructions(new) if new else None


def _exploring(program: Program, number: int) -> Program:
    def changed(_: str, predictor: Predict) -> Predict:
        return predictor.configured(rollout=predictor.rollout + number, temperature=EXPLORING)

    return program.map_predictors(changed)


def _parts(found: Sequence[Tried], size: int) -> list[Sequence[Tried]]:
    return [found[at : at + size] for at in range(0, len(found), size)]


# -- choices, pure -----------------------------------------------------------------------------------------------------


def leading(scores: Sequence[float], count: int) -> list[int]:
    """Return the positions of the best, the first one among them in any case.

    Args:
        scores: The scores; the first is the student's.
        count: How many.

    Example:
        >>> from otpy.teleprompters.simba import leading
        >>> leading([0.1, 0.5, 0.9, 0.7], 2)
        [2, 0]
    """
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:count]
    return order if 0 in order else [*order[:-1], 0]


def softmax_draw(scores: Sequence[float], temperature: float, rng: random.Random) -> int:
    """Return a position by chance, the likelier the higher its score: in proportion to `exp(score / temperature)`.

    Args:
        scores: The scores.
        temperature: How little they decide.
        rng: The chance.

    Example:
        >>> import random
        >>> from otpy.teleprompters.simba import softmax_draw
        >>> softmax_draw([0, 1], 0.01, random.Random(0))
        1
    """
    most = max(scores)
    return rng.choices(range(len(scores)), [math.exp((score - most) / temperature) for score in scores])[0]


def gap(scores: Sequence[float]) -> tuple[float, float, float]:
    """Return how much there is to learn from a row: the best less the worst, the best, the best less the mean.

    Args:
        scores: Of its tries.
    """
    return max(scores) - min(scores), max(scores), max(scores) - mean(list(scores))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of values is not above, between two neighbours in proportion.

    Args:
        values: At least one.
        share: From 0 to 1.

    Example:
        >>> from otpy.teleprompters.simba import percentile
        >>> percentile([3, 1, 2], 0.5), percentile([0, 10], 0.1)
        (2.0, 1.0)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = ordered[math.floor(place)]
    return low + (ordered[math.ceil(place)] - low) * (place - math.floor(place))


def dropped(demos: int, max_demos: int, rng: random.Random) -> frozenset[int]:
    """Return the places of demos to take away: as many as a Poisson draw says, at least one if there are enough.

    Args:
        demos: How many there are.
        max_demos: How many are enough; the rate is their ratio, with 3 in its place if it is 0.
        rng: The chance.
    """
    room = max_demos or 3
    least = int(demos >= room) + max(demos - room, 0)
    count, product, floor = 0, rng.random(), math.exp(-demos / room)
    while product > floor:  # Knuth 1969: how many uniform factors until the product is small
        count, product = count + 1, product * rng.random()
    return frozenset(rng.sample(range(demos), min(max(count, least), demos)))
