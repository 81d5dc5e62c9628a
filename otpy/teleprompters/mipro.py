"""`MIPROv2`: instructions and demos are chosen together, by Bayesian optimization over grounded proposals.

Source: Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.errors import TeleprompterError
from otpy.evaluate import Metric, check_metric, metric_name
from otpy.teleprompters.arguments import check_integer, check_one_of, check_optional_number, check_truth
from otpy.teleprompters.choices import Choices, check_choices
from otpy.teleprompters.combinations import NOTHING, Parts, Standing, key_of
from otpy.teleprompters.copro import check_advice
from otpy.teleprompters.demo_sets import demo_sets, taught
from otpy.teleprompters.estimate import Writing
from otpy.teleprompters.proposer import BATCHES as LOOKS
from otpy.teleprompters.proposer import SHOWN, GroundedProposer
from otpy.teleprompters.review import kept_to
from otpy.teleprompters.teleprompter import P, Teleprompter, check_structure
from otpy.teleprompters.tpe import STARTUP, Tpe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.demo_sets import DemoSet
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Scores

__all__ = ["AUTO", "MIPROv2", "Parts", "Standing", "trials_for"]

Auto = Literal["light", "medium", "heavy"]
AUTO: Final[Mapping[str, tuple[int, int]]] = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
"""Candidates of each kind, and rows of the valset that are used at most; the numbers are DSPy's."""
REPEATS: Final = 20
"""How often a combination whose score is known may be proposed in a row before it is taken for a trial."""


def trials_for(candidates: int, predictors: int, *, demos: bool, others: int = 0) -> int:
    """Return how many trials an `auto` setting makes; the formula is DSPy's, where there are no other choices.

    Args:
        candidates: Of each kind.
        predictors: Of the program.
        demos: Whether demos are chosen, besides instructions.
        others: Other choices.

    Example:
        >>> from otpy.teleprompters.mipro import trials_for
        >>> trials_for(6, 1, demos=True), trials_for(18, 3, demos=True)
        (10, 50)
    """
    return int(max(2 * (predictors * (1 + demos) + others) * math.log2(candidates), 1.5 * candidates))


class MIPROv2(Teleprompter[P]):
    """Proposes instructions and sets of demos, then tries combinations of them as the scores so far suggest.

    Demos are what a teacher solves of the trainset; instructions are written by a model that is told what the data are
    like, what the program does, and some demos. A trial measures one combination on a mini-batch of the valset; every
    few trials, and at the end, the one that looks best is measured on all of it. The best of those so measured wins,
    the student among them.

    Other than DSPy's optimizer of this name: all parameters are here, none at `compile`; the seed may be 0, and is;
    mini-batches are used whenever the valset has more rows than one; a combination whose score is known is not tried
    again; an outage is waited for and is no score; the summary of a dataset is asked for batch by batch at once.

    Args:
        metric: Measures predictions.
        auto: How much to do: `"light"`, `"medium"`, `"heavy"`; or `None`, with `num_candidates` and `num_trials`.
        num_candidates: Instructions for each predictor and sets of demos, those that are there included; at least 2.
        num_trials: Combinations to try, at least 1.
        prompt_client: The name of the client that writes instructions; each predictor's own if `None`. DSPy has
            `prompt_model`.
        max_bootstrapped_demos: The most demos in a set that a teacher solved; with 0, labels alone.
        max_labeled_demos: The most demos in a set; with both 0, instructions alone are chosen.
        metric_threshold: The score from which an example counts as solved; any but 0 if `None`.
        init_temperature: At which instructions are written.
        prompt_max_tokens: Longest answer of the model that is asked for them; one that thinks before needs more.
        minibatch: Whether trials are on mini-batches.
        minibatch_size: Rows in one.
        minibatch_full_eval_steps: Trials from one measurement on all rows to the next.
        program_aware: Whether proposals are told what the program does.
        data_aware: Whether they are told what the data are like.
        view_data_batch_size: Examples looked at together for that.
        tip_aware: Whether they are told to write in different styles.
        fewshot_aware: Whether they are told some demos.
        parallel_trials: Trials proposed together and run at once; the result depends on it, not on
            `max_concurrency`.
        choose: What else may be chosen, by the names of parameters: `{"temperature": [0.0, 0.7]}`; see `Choices`.
        seed: All chance comes from it.
        max_concurrency: Examples under way at once; the result does not depend on it.

    Raises:
        TeleprompterError: If an argument is out of range, or two of them contradict each other.
        EvaluationError: If the metric cannot be one.

    Example:
        >>> from otpy.evaluate import exact_match
        >>> from otpy.teleprompters.mipro import MIPROv2
        >>> MIPROv2(exact_match("answer"))
        MIPROv2(exact_match('answer'), auto='light', seed=0)
    """

    uses_valset = True
    proposes = True
    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters
        self,
        metric: Metric,
        *,
        auto: Auto | None = "light",
        num_candidates: int | None = None,
        num_trials: int | None = None,
        prompt_client: str | None = None,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 4,
        metric_threshold: float | None = None,
        init_temperature: float = 1.0,
        prompt_max_tokens: int = 1000,
        minibatch: bool = True,
        minibatch_size: int = 35,
        minibatch_full_eval_steps: int = 5,
        program_aware: bool = True,
        data_aware: bool = True,
        view_data_batch_size: int = 10,
        tip_aware: bool = True,
        fewshot_aware: bool = True,
        parallel_trials: int = 2,
        choose: Mapping[str, Iterable[Any]] | None = None,
        seed: int = 0,
        max_concurrency: int = 8,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        _check_amount(auto, num_candidates, num_trials)
        for name, value, least in (
            ("max_bootstrapped_demos", max_bootstrapped_demos, 0),
            ("max_labeled_demos", max_labeled_demos, 0),
            ("prompt_max_tokens", prompt_max_tokens, 1),
            ("minibatch_size", minibatch_size, 1),
            ("minibatch_full_eval_steps", minibatch_full_eval_steps, 1),
            ("view_data_batch_size", view_data_batch_size, 1),
            ("parallel_trials", parallel_trials, 1),
            ("seed", seed, 0),
            ("max_concurrency", max_concurrency, 1),
        ):
            check_integer(name, value, least)
        for name, flag in (
            ("minibatch", minibatch),
            ("program_aware", program_aware),
            ("data_aware", data_aware),
            ("tip_aware", tip_aware),
            ("fewshot_aware", fewshot_aware),
        ):
            check_truth(name, flag)
        check_advice(prompt_client, init_temperature)
        check_optional_number("metric_threshold", metric_threshold)
        self.metric, self.auto, self.num_candidates, self.num_trials = metric, auto, num_candidates, num_trials
        self.prompt_client, self.init_temperature = prompt_client, init_temperature
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.metric_threshold, self.prompt_max_tokens = metric_threshold, prompt_max_tokens
        self.minibatch, self.minibatch_size = minibatch, minibatch_size
        self.minibatch_full_eval_steps = minibatch_full_eval_steps
        self.program_aware, self.data_aware = program_aware, data_aware
        self.view_data_batch_size, self.tip_aware, self.fewshot_aware = view_data_batch_size, tip_aware, fewshot_aware
        self.parallel_trials, self.seed, self.max_concurrency = parallel_trials, seed, max_concurrency
        self.choose = None if choose is None else Choices(choose, max(max_bootstrapped_demos, max_labeled_demos))
        self.valset_limit = None if auto is None else AUTO[auto][1]

    def __repr__(self) -> str:
        """Print the metric, how much it does, and the seed."""
        amount = f"num_candidates={self.num_candidates}, num_trials={self.num_trials}"
        amount = amount if self.auto is None else f"auto={self.auto!r}"
        return f"MIPROv2({metric_name(self.metric)}, {amount}, seed={self.seed})"

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return what proposals take, and as many as if all were alike, and as if no two trials were."""
        candidates = AUTO[self.auto][0] if self.auto is not None else self.num_candidates or 0
        sets = candidates - 1 if self.max_bootstrapped_demos else 0
        bootstraps = sets > bool(self.max_labeled_demos)  # the first set is of labels alone, if there are some
        solved = min(self.max_bootstrapped_demos, rows) * bootstraps
        looks = min(-(-rows // self.view_data_batch_size), LOOKS) * self.data_aware
        least = (val + solved) * predictors + looks + (candidates - 1) * predictors
        demos = bool(self.max_bootstrapped_demos or self.max_labeled_demos)
        others = 0 if self.choose is None else len(self.choose.sizes)
        trials = self.num_trials or trials_for(candidates, predictors, demos=demos, others=others)
        batches = self.minibatch and val > self.minibatch_size
        rows_tried = trials * (self.minibatch_size if batches else val)
        in_full = (trials // self.minibatch_full_eval_steps + 1) * val if batches else 0
        further = (looks > 1) + self.program_aware
        return least, least + further + (bootstraps * (rows - solved) + rows_tried + in_full) * predictors

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:  # noqa: ARG002 - the base's
        """Return a request for each look at the data and each instruction, and those that sum up and describe."""
        candidates = AUTO[self.auto][0] if self.auto is not None else self.num_candidates or 0
        looks = min(-(-rows // self.view_data_batch_size), LOOKS) * self.data_aware
        told, further = (candidates - 1) * predictors, (looks > 1) + self.program_aware
        how = self.prompt_client, self.prompt_max_tokens
        return [
            Writing((looks, looks), *how, self.view_data_batch_size, 0),
            Writing((0, further), *how, 0, max(looks, predictors)),
            Writing((told, told), *how, SHOWN, 3),
        ]

    def check(self, student: P) -> None:
        """Refuse choices that the student cannot have."""
        check_choices(self.choose, student)

    def variants(self, student: P) -> list[Program]:
        """Return the student, and as it is with each choice."""
        return [student] if self.choose is None else self.choose.variants(student)

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Draw demos, propose instructions, try combinations."""
        teacher = student if teacher is None else teacher
        check_structure(student, teacher)
        candidates = AUTO[self.auto][0] if self.auto is not None else self.num_candidates or 0
        sets = await self._demo_sets(lab, student, teacher, trainset, candidates - 1)
        proposer = GroundedProposer(
            client=self.prompt_client,
            temperature=self.init_temperature,
            max_tokens=self.prompt_max_tokens,
            data_aware=self.data_aware,
            program_aware=self.program_aware,
            fewshot_aware=self.fewshot_aware,
            tip_aware=self.tip_aware,
            batch=self.view_data_batch_size,
        )
        instructions = await proposer.propose(lab, student, trainset, sets, candidates)
        if short := [path for path, texts in instructions.items() if len(texts) < candidates]:
            lab.notes.append(f"fewer than {candidates} different instructions were proposed for {', '.join(short)}")
        instructions = await lab.review.choices(instructions)
        choices = NOTHING if self.choose is None else self.choose
        parts = Parts(kept_to(student, lab.review.pins()), instructions, sets, choices)
        trials = trials_for(candidates, len(instructions), demos=bool(sets), others=len(choices.sizes))
        await self._tried(lab, parts, trials if self.num_trials is None else self.num_trials, valset)
        assert lab.best is not None
        best: P = lab.best.program  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - a copy of it
        return best

    async def _demo_sets(
        self, lab: Lab, student: Program, teacher: Program, trainset: list[Example], count: int
    ) -> list[DemoSet]:
        sets = await demo_sets(
            lab,
            student,
            taught(teacher, trainset, self.max_labeled_demos, self.seed) if self.max_bootstrapped_demos else teacher,
            trainset,
            count=count,
            bootstrapped=self.max_bootstrapped_demos,
            labeled=self.max_labeled_demos,
            threshold=self.metric_threshold,
            width=self.max_concurrency,
        )
        if not sets and (self.max_bootstrapped_demos or self.max_labeled_demos):
            lab.notes.append("there are no demos: no example was solved, and none fits a predictor as it stands")
        return sets

    async def _tried(self, lab: Lab, parts: Parts, trials: int, valset: list[Example]) -> None:
        """Try combinations: on mini-batches, and the best of them on all rows."""
        rows = list(enumerate(valset))
        batches = self.minibatch and len(rows) > self.minibatch_size
        standing = Standing()
        study = Tpe(parts.choices, seed=self.seed, startup=min(STARTUP, max(trials // 3, 1)))

        async def measured(number: int, choice: Mapping[str, int]) -> Scores:
            some = lab.rng("minibatch", number).sample(rows, self.minibatch_size) if batches else rows
            return await lab.evaluate(parts.program(choice), some)

        async def in_full(choice: Mapping[str, int], name: str) -> None:
            scores = await lab.evaluate(parts.program(choice), rows)
            standing.whole[key_of(choice)] = scores.mean
            study.learn(choice, scores.mean)
            await lab.candidate(name, scores, **parts.told(choice))

        await in_full(dict.fromkeys(parts.choices, 0), "pinned" if lab.review.pins() else "student")
        done = 0
        while done < trials and len(standing.whole) < parts.combinations:
            asked = [_asked(study, standing) for _ in range(min(self.parallel_trials, trials - done))]
            found = await lab.together(measured(done + at, choice) for at, (_, choice) in enumerate(asked))
            for at, ((number, choice), scores) in enumerate(zip(asked, found, strict=True), done + 1):
                study.tell(number, scores.mean)
                standing.take(choice, scores.mean, whole=not batches)
                await lab.candidate(f"trial {at}", scores, **parts.told(choice))
            before, done = done, done + len(asked)
            due = before // self.minibatch_full_eval_steps < done // self.minibatch_full_eval_steps or done >= trials
            if batches and due and (promising := standing.promising()) is not None:
                await in_full(promising, f"after trial {done}")


def _asked(study: Tpe, standing: Standing) -> tuple[int, dict[str, int]]:
    """Ask for a combination, and again if its score is known already."""
    number, choice = study.ask()
    for _ in range(REPEATS):
        if key_of(choice) not in standing.whole:
            break
        study.tell(number, standing.whole[key_of(choice)])
        number, choice = study.ask()
    return number, choice


def _check_amount(auto: object, num_candidates: object, num_trials: object) -> None:
    check_one_of("auto", auto, (*AUTO, None))
    if auto is None and (num_candidates is None or num_trials is None):
        raise TeleprompterError("auto=None: then say num_candidates and num_trials")
    if auto is not None and (num_candidates is not None or num_trials is not None):
        raise TeleprompterError(f"auto={auto!r} decides num_candidates and num_trials; leave them out, or auto=None")
    if auto is None:
        check_integer("num_candidates", num_candidates, 2)
        check_integer("num_trials", num_trials, 1)
