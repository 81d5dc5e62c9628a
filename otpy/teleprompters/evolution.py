"""The search of `GEPA`: a pool of candidates with their lineages, grown by mutations and merges."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import TeleprompterError
from otpy.evaluate import metric_name
from otpy.evaluate.statistics import mean
from otpy.telemetry import bus as telemetry
from otpy.teleprompters import pareto, reflection
from otpy.teleprompters.components import DEMOS, Components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.gepa import GEPA
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.pareto import Merge
    from otpy.teleprompters.tried import Scores

__all__ = ["Evolution"]

MERGE_ROWS: Final = 5
"""Rows that a merge is measured on before all."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A candidate: its texts by component, where they come from, how it did on the valset."""

    program: Program
    texts: dict[str, str]
    parents: tuple[int, ...]
    scores: Scores


@dataclass(frozen=True, slots=True)
class _Draw:
    """One mutation to try: of whom, which components, what it learns from, and what it is tried on."""

    number: int
    parent: int
    names: tuple[str, ...]
    rows: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(slots=True)
class _Pool:
    """All that a search knows, from which the next step follows."""

    members: list[_Member] = field(default_factory=list[_Member])
    turns: list[int] = field(default_factory=list[int])
    """For each member, whose turn it is among its components."""
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


class Evolution:
    """One search, from the student to the end of the budget.

    Args:
        told: The optimizer, for its parameters.
        lab: All that may be done to the world.
        trainset: Examples to reflect on.
        valset: Examples to choose by.
        budget: Rows that may be measured.
    """

    def __init__(
        self, told: GEPA[Any], lab: Lab, trainset: Sequence[Example], valset: Sequence[Example], budget: int
    ) -> None:
        """Know of no candidate."""
        self._told, self._lab, self._budget = told, lab, budget
        self._trainset, self._valset = trainset, list(enumerate(valset))
        self._size = told.minibatch(len(trainset))
        self._pool, self._components = _Pool(), Components(told.evolve, told.max_demos)
        ours = reflection.REWRITE.configured(
            client=told.reflection_lm, temperature=1.0, max_tokens=told.reflection_max_tokens
        )
        self._proposer = told.instruction_proposer or ours

    async def run(self, student: Program) -> None:
        """Mutate and merge, until the budget is used or every row of the valset is perfect.

        Args:
            student: The first candidate.

        Raises:
            TeleprompterError: If the budget does not suffice for a single mutation.
        """
        if not self._size:
            raise TeleprompterError(
                f"evolve={self._told.evolve!r} shows some rows and tries others; give more than one to learn from"
            )
        self._components.check(student, self._trainset)
        step = self._told.tries * self._size + len(self._valset)
        if self._budget < len(self._valset) + step:
            raise TeleprompterError(
                f"a budget of {self._budget} metric calls is too small: the student takes {len(self._valset)} and one"
                f" mutation {step}; give at least {len(self._valset) + step}, or a smaller valset"
            )
        pool = self._pool
        scores = await self._lab.evaluate(student, self._valset)
        pool.calls += len(self._valset)
        texts = self._components.of(student)
        pool.add(_Member(student, texts, (), scores))
        fresh = False
        while max(pool.totals) < self._told.perfect_score:
            left = self._budget - pool.calls
            if fresh and pool.due and left >= MERGE_ROWS + len(self._valset):
                fresh = False
                merge = self._merge_drawn()
                if merge is not None:
                    await self._merge(merge)
                    continue
            if left < step or self._lab.review.pins(pool.draws).keys() == texts.keys():
                break
            fresh = await self._mutations(min(self._told.proposals, left // step))

    # -- mutation --------------------------------------------------------------------------------------------------

    async def _mutations(self, number: int) -> bool:
        """Try several mutations at once; what is accepted joins in the order in which it was drawn."""
        first = self._pool.draws
        draws = [self._draw() for _ in range(number)]
        children = await self._lab.together(self._child(draw, first) for draw in draws)
        fresh = False
        for draw, child in zip(draws, children, strict=True):
            if child is not None and all(child != member.texts for member in self._pool.members):
                await self._join(child, (draw.parent,), changed=list(draw.names))
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
        names = list(pool.members[parent].texts)
        if told.component_selector == "round_robin":
            turn = pool.turns[parent]
            pool.turns[parent] = (turn + 1) % len(names)
            names = [names[turn]]
        batches = -(-len(self._trainset) // self._size)
        order = list(range(len(self._trainset)))
        self._lab.rng("gepa", "epoch", number // batches).shuffle(order)
        rows, others = pareto.apart(order, number % batches, self._size)
        return _Draw(number, parent, tuple(names), tuple(rows), tuple(others))

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

    async def _child(self, draw: _Draw, first: int) -> dict[str, str] | None:
        """Return the texts of a child that does better on its minibatch; `None` if there is none."""
        pool, lab = self._pool, self._lab
        parent = pool.members[draw.parent]
        rows = [(at, self._trainset[at]) for at in draw.rows]
        pool.calls += len(rows)
        before = await lab.evaluate(parent.program, rows)
        if self._told.skip_perfect_score and all(score >= self._told.perfect_score for score in before.values):
            return None
        texts = {**parent.texts, **await self._changed(draw, parent, before, first)}
        if texts == parent.texts:
            return None
        if any(name.endswith(DEMOS) for name in draw.names):  # on the rows it is shown it would know the answers
            rows = [(at, self._trainset[at]) for at in draw.others]
            pool.calls += len(rows)
            before = await lab.evaluate(parent.program, rows)
        pool.calls += len(rows)
        after = await lab.evaluate(self._components.made(parent.program, texts), rows)
        accepted = after.mean > before.mean
        if telemetry.listening:
            facts = {"parent": draw.parent, "paths": draw.names, "before": before.mean, "after": after.mean}
            telemetry.emit("otpy.teleprompter.mutation", number=draw.number, accepted=accepted, **facts)
        return texts if accepted else None

    async def _changed(self, draw: _Draw, parent: _Member, before: Scores, first: int) -> dict[str, str]:
        """Return the new texts of the components drawn, and those that a person has pinned."""
        review = self._lab.review
        pinned = {path: text for path, text in review.pins(first).items() if path in parent.texts}
        paths = [name for name in draw.names if not name.endswith(DEMOS) and name not in pinned]
        written = await self._lab.together(self._written(draw, path, parent, before) for path in paths)
        new = {path: text for path, text in zip(paths, written, strict=True) if text is not None}
        shown: dict[str, str] = {}
        for name in draw.names:
            if name.endswith(DEMOS):
                rng = self._lab.rng("gepa", "demos", draw.number, name)
                shown[name] = self._components.with_shown(
                    parent.program, name.removesuffix(DEMOS), before.rows, self._told.perfect_score, rng
                )
        return {**await review.of(new, parent.texts, first, draw.number), **pinned, **shown}

    async def _written(self, draw: _Draw, path: str, parent: _Member, before: Scores) -> str | None:
        """Let the reflecting model write an instruction from the calls of a predictor."""
        predictor = dict(parent.program.named_predictors())[path]
        told = self._told
        assert told.metric is not None
        records: list[str] = []
        for tried in before.rows:
            calls = reflection.calls_of(tried, path)
            entry = self._lab.rng("gepa", "call", draw.number, path, tried.at).choice(calls) if calls else None
            about = partial(
                reflection.record_of, told.metric, tried, path, predictor, entry=entry,
                format_failures=told.add_format_failure_as_feedback,
            )  # fmt: skip
            record = await self._lab.judge(about)
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
        program = self._components.made(one.program, dict(merge.texts))
        found = await lab.evaluate(program, [self._valset[at] for at in places])
        needed = max(mean([member.scores.rows[at].score for at in places]) for member in (one, other))
        if found.mean >= needed:
            await self._join(dict(merge.texts), (merge.one, merge.other), ancestor=merge.ancestor)

    async def _join(self, texts: dict[str, str], parents: tuple[int, ...], **params: Any) -> None:
        pool, lab = self._pool, self._lab
        program = self._components.made(pool.members[parents[0]].program, texts)
        scores = await lab.evaluate(program, self._valset)
        pool.calls += len(self._valset)
        number = pool.add(_Member(program, texts, parents, scores))
        await lab.candidate(f"candidate-{number}", scores, parents=list(parents), calls=pool.calls, **params)


def _objective(scores: Scores, name: str) -> float:
    return mean([row.subscores.get(name, 0.0) for row in scores.rows])
