"""`GEPA`: instructions that evolve by reflection on what happened, along a Pareto front of what each is best at.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", and the package
`gepa`, against which this loop is tested; that one keeps its state in a pickle of its own and waits for each answer, so
the loop here is our own, on the run's journal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from otpy.errors import TeleprompterError
from otpy.evaluate import check_metric, metric_name
from otpy.programs import Predict
from otpy.teleprompters.arguments import check_client, check_integer, check_one_of, check_truth, is_number
from otpy.teleprompters.components import Evolves  # noqa: TC001 - the command line reads the types of arguments
from otpy.teleprompters.estimate import Writing
from otpy.teleprompters.evolution import Evolution
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab

__all__ = ["GEPA"]

AUTO: Final = {"light": 6, "medium": 12, "heavy": 18}
"""How many candidates the presets hope for."""


class GEPA(Teleprompter[P]):
    """Lets a model rewrite instructions from the calls they led to and the metric's feedback, and keeps what helps.

    In turns: a parent is drawn from the Pareto front over the examples of the valset; one of its predictors gets a new
    instruction, written by a model that has read its calls on a minibatch of the trainset; if the sum of scores on the
    minibatch rises, the child is measured on the valset and joins. Now and then two lineages are merged.

    Other than DSPy's: what may be drawn at once runs at once (`proposals`); the budget is never passed, and `auto`
    counts minibatches of the size they have; it ends when every row of the valset is perfect; a metric without feedback
    is told of with the example's labels. A metric has the usual three parameters; one that has `pred_name=None` and
    `pred_trace=None` too is asked for feedback on single calls.

    Demos can evolve too (`evolve`), which helps where the models are too small to write or to follow long instructions:
    a minibatch is then shown to the predictor, and the child is tried on another one.

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
        reflection_max_tokens: Its longest answer; a model that thinks before needs more. An `instruction_proposer` has
            its own.
        skip_perfect_score: Whether a minibatch on which all is perfect is left.
        add_format_failure_as_feedback: Whether answers that could not be read are reflected on too.
        instruction_proposer: A predictor that writes instructions, of the fields
            `instruction, calls -> new_instruction`; ours if `None`.
        component_selector: `"round_robin"`: a component at a time, which is a predictor's instruction or its demos; or
            `"all"`.
        evolve: What evolves: `"instructions"`, as in the paper; `"demos"`, for which no model writes anything; or
            `"both"`.
        max_demos: Demos that a predictor has at most, if they evolve.
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
    proposes = True

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
        reflection_max_tokens: int = 1000,
        skip_perfect_score: bool = True,
        add_format_failure_as_feedback: bool = False,
        instruction_proposer: Predict | None = None,
        component_selector: Literal["round_robin", "all"] = "round_robin",
        evolve: Evolves = "instructions",
        max_demos: int = 16,
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
            ("evolve", evolve, ("instructions", "demos", "both")),
        ):
            check_one_of(name, value, allowed)
        for name, number, least in (
            ("max_full_evals", 1 if max_full_evals is None else max_full_evals, 1),
            ("max_metric_calls", 1 if max_metric_calls is None else max_metric_calls, 1),
            ("reflection_minibatch_size", reflection_minibatch_size, 1),
            ("reflection_max_tokens", reflection_max_tokens, 1),
            ("max_demos", max_demos, 1),
            ("max_merge_invocations", max_merge_invocations, 0),
            ("proposals", proposals, 1),
            ("max_concurrency", max_concurrency, 1),
            ("seed", seed, 0),
        ):
            check_integer(name, number, least)
        for name, score in (("failure_score", failure_score), ("perfect_score", perfect_score)):
            if not is_number(score):
                raise TeleprompterError(f"{name}={score!r}; allowed: a finite number")
        for name, flag in (
            ("skip_perfect_score", skip_perfect_score),
            ("add_format_failure_as_feedback", add_format_failure_as_feedback),
            ("use_merge", use_merge),
        ):
            check_truth(name, flag)
        check_client("reflection_lm", reflection_lm, optional=False)
        _check_proposer(instruction_proposer)
        self.metric = metric
        self.auto, self.max_full_evals, self.max_metric_calls = auto, max_full_evals, max_metric_calls
        self.reflection_minibatch_size, self.reflection_lm = reflection_minibatch_size, reflection_lm
        self.reflection_max_tokens = reflection_max_tokens
        self.candidate_selection_strategy, self.frontier_type = candidate_selection_strategy, frontier_type
        self.skip_perfect_score, self.perfect_score = skip_perfect_score, perfect_score
        self.add_format_failure_as_feedback = add_format_failure_as_feedback
        self.instruction_proposer, self.component_selector = instruction_proposer, component_selector
        self.evolve: Evolves = evolve
        self.max_demos = max_demos
        self.proposes = evolve != "demos"
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

    @property
    def tries(self) -> int:
        """Minibatches that one mutation takes: to learn from, and to be tried on; other ones, if it learns demos."""
        return 2 if self.evolve == "instructions" else 3

    def minibatch(self, learned: int) -> int:
        """Return how many rows a minibatch has; where demos evolve half of all at most: others are left to be tried.

        Args:
            learned: Rows of the trainset.
        """
        return min(self.reflection_minibatch_size, learned if self.evolve == "instructions" else learned // 2)

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
        components = predictors * (2 if self.evolve == "both" else 1)
        tries = math.ceil(max(2 * components * 2 * math.log2(wanted), 1.5 * wanted))
        return chosen + tries * self.tries * self.minibatch(learned) + wanted * chosen

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return as many as if the student were perfect, and as if each minibatch were followed by reflection."""
        measured = self.budget(rows, val, predictors)
        drawn = max(measured - val, 0) // max(self.minibatch(rows), 1)
        written = predictors if self.component_selector == "all" else 1
        written = 0 if self.evolve == "demos" else written
        return val * predictors, measured * predictors + drawn * written

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:
        """Return a request for each component that is rewritten, which shows a minibatch."""
        if self.evolve == "demos":
            return []
        measured = self.budget(rows, val, predictors)
        drawn = max(measured - val, 0) // min(self.reflection_minibatch_size, rows)
        most = drawn * (predictors if self.component_selector == "all" else 1)
        client, longest = self.reflection_lm, self.reflection_max_tokens
        if self.instruction_proposer is not None:
            client, longest = self.instruction_proposer.client, self.instruction_proposer.max_tokens or longest
        return [Writing((0, most), client, longest, self.reflection_minibatch_size)]

    def most_demos(self) -> int:
        """Return how many a predictor may have: more than it has only where demos evolve."""
        return 0 if self.evolve == "instructions" else self.max_demos

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
        evolution = Evolution(self, lab, trainset, valset, budget)
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
