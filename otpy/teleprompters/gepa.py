"""`GEPA`: instructions that evolve by reflection on what happened, along a Pareto front of what each is best at.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", and the package
`gepa`, against which this loop is tested; that one keeps its state in a pickle of its own and waits for each answer, so
the loop here is our own, on the run's journal.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.errors import TeleprompterError
from otpy.evaluate import check_metric, metric_name
from otpy.programs import Predict
from otpy.telemetry import bus as telemetry
from otpy.teleprompters import pareto, reflection
from otpy.teleprompters.teleprompter import P, Teleprompter, check_integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab, Scores
    from otpy.teleprompters.pareto import Merge

__all__ = ["GEPA"]

AUTO: Final = {"light": 6, "medium": 12, "heavy": 18}
"""How many candidates the presets hope for."""
MERGE_ROWS: Final = 5
"""Rows that a merge is measured on before all."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A candidate: its texts by predictor, where they come from, how it did on the valset."""

    program: Program
    texts: dict[str, str]
    parents: tuple[int, ...]
    scores: Scores


@dataclass(frozen=True, slots=True)
class _Draw:
    """One mutation to try: of whom, which predictors, on which rows."""

    number: int
    parent: int
    paths: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(slots=True)
class _Pool:
    """All that a search knows, from which the next step follows."""

    members: list[_Member] = field(default_factory=list[_Member])
    turns: list[int] = field(default_factory=list[int])
    """For each member, whose turn it is among its predictors."""
    calls: int = 0
    draws: int = 0
    due: int = 0
    """Merges that are owed: one for each candidate that was accepted."""
    merged: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])
    tested: int = 0

    @property
    def totals(self) -> list[float]:
        return [member.scores.mean for member in self.members]

    def add(self, member: _Member) -> int:
        self.members.append(member)
        self.turns.append(self.turns[member.parents[0]] if member.parents else 0)
        return len(self.members) - 1


class GEPA(Teleprompter[P]):
    """Lets a model rewrite instructions from the calls they led to and the metric's feedback, and keeps what helps.

    In turns: a parent is drawn from the Pareto front over the examples of the valset; one of its predictors gets a new
    instruction, written by a model that has read its calls on a minibatch of the trainset; if the sum of scores on the
    minibatch rises, the child is measured on the valset and joins. Now and then two lineages are merged.

    Other than DSPy's: what may be drawn at once runs at once (`proposals`); the budget is never passed, and `auto`
    counts minibatches of the size they have; it ends when every row of the valset is perfect; a metric without feedback
    is told of with the example's labels. A metric has the usual three parameters; one that has `pred_name=None` and
    `pred_trace=None` too is asked for feedback on single calls.

    Args:
        metric: Measures predictions; a `Score` with `feedback` teaches the most, one with `subscores` has several
            objectives.
        auto: How much to try: `"light"`, `"medium"` or `"heavy"`. Exactly one of this and the next two is given.
        max_full_evals: The budget in passes over trainset and valset.
        max_metric_calls: The budget in measured rows, the student's on the valset included; rows that are known already
            count too, but cost nothing.
        reflection_minibatch_size: Rows to reflect on.
        candidate_selection_strategy: `"pareto"`, or `"current_best"`.
        frontier_type: What is to be best at: each example (`"instance"`), each subscore (`"objective"`), or both
            (`"hybrid"`).
        reflection_lm: The name of the client that writes instructions.
        skip_perfect_score: Whether a minibatch on which all is perfect is left.
        add_format_failure_as_feedback: Whether answers that could not be read are reflected on too.
        instruction_proposer: A predictor that writes instructions, of the fields
            `instruction, calls -> new_instruction`; ours if `None`.
        component_selector: `"round_robin"`: a predictor at a time; or `"all"`.
        use_merge: Whether to merge lineages.
        max_merge_invocations: Merges that may be tried.
        proposals: Mutations that are drawn from one front and tried at once.
        failure_score: What a row counts for on which the program fails.
        perfect_score: The score that cannot be bettered.
        max_concurrency: Examples under way at once; the result does not depend on it.
        seed: All chance comes from it.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.
    """

    uses_valset = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric,
        *,
        auto: Literal["light", "medium", "heavy"] | None = None,
        max_full_evals: int | None = None,
        max_metric_calls: int | None = None,
        reflection_minibatch_size: int = 3,
        candidate_selection_strategy: Literal["pareto", "current_best"] = "pareto",
        frontier_type: Literal["instance", "objective", "hybrid"] = "instance",
        reflection_lm: str = "default",
        skip_perfect_score: bool = True,
        add_format_failure_as_feedback: bool = False,
        instruction_proposer: Predict | None = None,
        component_selector: Literal["round_robin", "all"] = "round_robin",
        use_merge: bool = True,
        max_merge_invocations: int = 5,
        proposals: int = 1,
        failure_score: float = 0.0,
        perfect_score: float = 1.0,
        max_concurrency: int = 8,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        budgets = {"auto": auto, "max_full_evals": max_full_evals, "max_metric_calls": max_metric_calls}
        given = [f"{name}={value!r}" for name, value in budgets.items() if value is not None]
        if len(given) != 1:
            raise TeleprompterError(
                f"{', '.join(given) or 'no budget'}; give exactly one of auto='light', max_full_evals and"
                " max_metric_calls"
            )
        for name, value, allowed in (
            ("auto", auto, (*AUTO, None)),
            ("candidate_selection_strategy", candidate_selection_strategy, ("pareto", "current_best")),
            ("frontier_type", frontier_type, ("instance", "objective", "hybrid")),
            ("component_selector", component_selector, ("round_robin", "all")),
        ):
            if value not in allowed:
                raise TeleprompterError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
        for name, number, least in (
            ("max_full_evals", 1 if max_full_evals is None else max_full_evals, 1),
            ("max_metric_calls", 1 if max_metric_calls is None else max_metric_calls, 1),
            ("reflection_minibatch_size", reflection_minibatch_size, 1),
            ("max_merge_invocations", max_merge_invocations, 0),
            ("proposals", proposals, 1),
            ("max_concurrency", max_concurrency, 1),
            ("seed", seed, 0),
        ):
            check_integer(name, number, least)
        for name, score in (("failure_score", failure_score), ("perfect_score", perfect_score)):
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
                raise TeleprompterError(f"{name}={score!r}; allowed: a finite number")
        _check_proposer(instruction_proposer)
        self.metric = metric
        self.auto, self.max_full_evals, self.max_metric_calls = auto, max_full_evals, max_metric_calls
        self.reflection_minibatch_size, self.reflection_lm = reflection_minibatch_size, reflection_lm
        self.candidate_selection_strategy, self.frontier_type = candidate_selection_strategy, frontier_type
        self.skip_perfect_score, self.perfect_score = skip_perfect_score, perfect_score
        self.add_format_failure_as_feedback = add_format_failure_as_feedback
        self.instruction_proposer, self.component_selector = instruction_proposer, component_selector
        self.use_merge, self.max_merge_invocations, self.proposals = use_merge, max_merge_invocations, proposals
        self.failure_score, self.max_concurrency, self.seed = failure_score, max_concurrency, seed

    def __repr__(self) -> str:
        """Print the metric and the budget."""
        budget = next(
            f"{name}={value!r}"
            for name in ("auto", "max_full_evals", "max_metric_calls")
            if (value := getattr(self, name)) is not None
        )
        return f"GEPA({metric_name(self.metric)}, {budget}, seed={self.seed})"

    def budget(self, learned: int, chosen: int, predictors: int) -> int:
        """Return how many rows may be measured.

        Args:
            learned: Rows of the trainset.
            chosen: Rows of the valset.
            predictors: Predictors of the student.
        """
        if self.max_metric_calls is not None:
            return self.max_metric_calls
        if self.max_full_evals is not None:
            return self.max_full_evals * (learned + chosen)
        wanted = AUTO[self.auto or "light"]
        tries = math.ceil(max(2 * predictors * 2 * math.log2(wanted), 1.5 * wanted))
        return chosen + tries * 2 * min(self.reflection_minibatch_size, learned) + wanted * chosen

    async def search(
        self,
        lab: Lab,
        student: P,
        trainset: list[Example],
        valset: list[Example],
        teacher: Program | None,  # noqa: ARG002 - the base's
    ) -> P:
        """Mutate and merge, until the budget is used."""
        budget = self.budget(len(trainset), len(valset), len(student.named_predictors()))
        evolution = _Evolution(self, lab, trainset, valset, budget)
        await evolution.run(student)
        assert lab.best is not None
        best: P = lab.best.program  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - a copy of it
        return best


def _check_proposer(proposer: object) -> None:
    if proposer is None:
        return
    wanted = ["instruction", "calls", "new_instruction"]
    if not isinstance(proposer, Predict) or list(proposer.signature.fields) != wanted:
        raise TeleprompterError(
            f"instruction_proposer={proposer!r}; allowed: a Predict of 'instruction, calls -> new_instruction', or None"
        )


class _Evolution:
    """One search."""

    def __init__(
        self, told: GEPA[Any], lab: Lab, trainset: Sequence[Example], valset: Sequence[Example], budget: int
    ) -> None:
        self._told, self._lab, self._budget = told, lab, budget
        self._trainset, self._valset = trainset, list(enumerate(valset))
        self._size = min(told.reflection_minibatch_size, len(trainset))
        self._pool = _Pool()
        ours = reflection.REWRITE.configured(client=told.reflection_lm, temperature=1.0)
        self._proposer = told.instruction_proposer or ours

    async def run(self, student: Program) -> None:
        step = 2 * self._size + len(self._valset)
        if self._budget < len(self._valset) + step:
            raise TeleprompterError(
                f"a budget of {self._budget} metric calls is too small: the student takes {len(self._valset)} and one"
                f" mutation {step}; give at least {len(self._valset) + step}, or a smaller valset"
            )
        pool = self._pool
        scores = await self._lab.evaluate(student, self._valset)
        pool.calls += len(self._valset)
        pool.add(_Member(student, _texts(student), (), scores))
        fresh = False
        while max(pool.totals) < self._told.perfect_score:
            left = self._budget - pool.calls
            if fresh and pool.due and left >= MERGE_ROWS + len(self._valset):
                fresh = False
                merge = self._merge_drawn()
                if merge is not None:
                    await self._merge(merge)
                    continue
            if left < step:
                break
            fresh = await self._mutations(min(self._told.proposals, left // step))

    # -- mutation --------------------------------------------------------------------------------------------------

    async def _mutations(self, number: int) -> bool:
        """Try several mutations at once; what is accepted joins in the order in which it was drawn."""
        draws = [self._draw() for _ in range(number)]
        children = await asyncio.gather(*(self._child(draw) for draw in draws))
        fresh = False
        for draw, child in zip(draws, children, strict=True):
            if child is not None and all(child != member.texts for member in self._pool.members):
                await self._join(child, (draw.parent,), changed=list(draw.paths))
                fresh = True
                told = self._told
                if told.use_merge and self._pool.tested + self._pool.due < told.max_merge_invocations:
                    self._pool.due += 1
        return fresh

    def _draw(self) -> _Draw:
        pool, told = self._pool, self._told
        number = pool.draws
        pool.draws += 1
        parent = max(range(len(pool.members)), key=pool.totals.__getitem__)
        if told.candidate_selection_strategy == "pareto":
            parent = pareto.drawn(self._fronts(), pool.totals, self._lab.rng("gepa", "parent", number))
        paths = list(pool.members[parent].texts)
        if told.component_selector == "round_robin":
            turn = pool.turns[parent]
            pool.turns[parent] = (turn + 1) % len(paths)
            paths = [paths[turn]]
        batches = -(-len(self._trainset) // self._size)
        order = list(range(len(self._trainset)))
        self._lab.rng("gepa", "epoch", number // batches).shuffle(order)
        return _Draw(number, parent, tuple(paths), tuple(pareto.minibatch(order, number % batches, self._size)))

    def _fronts(self) -> list[tuple[int, ...]]:
        members = self._pool.members
        columns: list[list[float]] = []
        if self._told.frontier_type != "objective":
            columns += [[member.scores.rows[at].score for member in members] for at, _ in self._valset]
        if self._told.frontier_type != "instance":
            names = dict.fromkeys(name for member in members for row in member.scores.rows for name in row.subscores)
            if not names:
                raise TeleprompterError(
                    f"frontier_type={self._told.frontier_type!r}, and {metric_name(self._told.metric)} returns no"
                    " subscores; let it return Score(value, feedback, {name: part, ...})"
                )
            columns += [[_objective(member.scores, name) for member in members] for name in names]
        return pareto.fronts(columns)

    async def _child(self, draw: _Draw) -> dict[str, str] | None:
        """Return the texts of a child that does better on its minibatch; `None` if there is none."""
        pool, lab = self._pool, self._lab
        parent = pool.members[draw.parent]
        rows = [(at, self._trainset[at]) for at in draw.rows]
        pool.calls += len(rows)
        before = await lab.evaluate(parent.program, rows)
        if self._told.skip_perfect_score and all(score >= self._told.perfect_score for score in before.values):
            return None
        written = await asyncio.gather(*(self._written(draw, path, parent, before) for path in draw.paths))
        new = {path: text for path, text in zip(draw.paths, written, strict=True) if text is not None}
        texts = {**parent.texts, **new}
        if texts == parent.texts:
            return None
        pool.calls += len(rows)
        after = await lab.evaluate(_rewritten(parent.program, texts), rows)
        accepted = math.fsum(after.values) > math.fsum(before.values)
        if telemetry.listening:
            facts = {"parent": draw.parent, "paths": draw.paths, "before": before.mean, "after": after.mean}
            telemetry.emit("otpy.teleprompter.mutation", number=draw.number, accepted=accepted, **facts)
        return texts if accepted else None

    async def _written(self, draw: _Draw, path: str, parent: _Member, before: Scores) -> str | None:
        """Let the reflecting model write an instruction from the calls of a predictor."""
        predictor = dict(parent.program.named_predictors())[path]
        told = self._told
        assert told.metric is not None
        records: list[str] = []
        for tried in before.rows:
            calls = reflection.calls_of(tried, path)
            entry = self._lab.rng("gepa", "call", draw.number, path, tried.at).choice(calls) if calls else None
            record = await reflection.record_of(
                told.metric, tried, path, predictor, entry=entry, format_failures=told.add_format_failure_as_feedback
            )
            records += [record] if record is not None else []
        if not records:
            return None
        asking = self._proposer.configured(rollout=self._proposer.rollout + draw.number)
        calls_told = reflection.in_one(records)
        answer = await reflection.asked_for(self._lab, asking, instruction=parent.texts[path], calls=calls_told)
        return None if answer is None else str(answer.new_instruction).strip() or None

    # -- merging ---------------------------------------------------------------------------------------------------

    def _merge_drawn(self) -> Merge | None:
        pool = self._pool
        needed = {one for front in pareto.undominated(self._fronts(), pool.totals) for one in front}
        parents = [member.parents for member in pool.members]
        found = [
            merge
            for merge in pareto.merges(needed, parents, [member.texts for member in pool.members], pool.totals)
            if (merge.one, merge.other, merge.ancestor) not in pool.merged
        ]
        return self._lab.rng("gepa", "merge", pool.tested).choice(found) if found else None

    async def _merge(self, merge: Merge) -> None:
        """Measure a merge on a few rows, and if it is as good as the better of the two there, on all."""
        pool, lab = self._pool, self._lab
        one, other = pool.members[merge.one], pool.members[merge.other]
        rng = lab.rng("gepa", "rows", pool.tested)
        pool.tested, pool.due = pool.tested + 1, pool.due - 1
        pool.merged.add((merge.one, merge.other, merge.ancestor))
        places = pareto.subsample(one.scores.values, other.scores.values, MERGE_ROWS, rng)
        pool.calls += len(places)
        program = _rewritten(one.program, dict(merge.texts))
        found = await lab.evaluate(program, [self._valset[at] for at in places])
        needed = max(math.fsum(member.scores.rows[at].score for at in places) for member in (one, other))
        if math.fsum(found.values) >= needed:
            await self._join(dict(merge.texts), (merge.one, merge.other), ancestor=merge.ancestor)

    async def _join(self, texts: dict[str, str], parents: tuple[int, ...], **params: Any) -> None:
        pool, lab = self._pool, self._lab
        program = _rewritten(pool.members[parents[0]].program, texts)
        scores = await lab.evaluate(program, self._valset)
        pool.calls += len(self._valset)
        number = pool.add(_Member(program, texts, parents, scores))
        await lab.candidate(f"candidate-{number}", scores, parents=list(parents), calls=pool.calls, **params)


def _texts(program: Program) -> dict[str, str]:
    return {path: predictor.signature.instructions for path, predictor in program.named_predictors()}


def _rewritten(program: Program, texts: dict[str, str]) -> Program:
    """Change what differs, so that an equal program stays equal."""
    old = _texts(program)
    return program.with_instructions({path: text for path, text in texts.items() if old[path] != text})


def _objective(scores: Scores, name: str) -> float:
    return math.fsum(row.subscores.get(name, 0.0) for row in scores.rows) / len(scores.rows)
