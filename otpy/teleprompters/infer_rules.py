"""`InferRules`: a model says in rules what solved examples have in common, and instructions are given the rules.

Source: the optimizer of this name in DSPy, where it follows on `BootstrapFewShot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.errors import AdapterParseError, LMContextWindowExceeded, TeleprompterError
from otpy.evaluate import metric_name
from otpy.programs import Predict
from otpy.signatures import InputField, OutputField, Signature
from otpy.teleprompters.arguments import check_client, check_integer
from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.demos import fits, is_demo_of
from otpy.teleprompters.estimate import Writing
from otpy.teleprompters.random_search import in_batches
from otpy.teleprompters.review import instructions_of
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Scores

__all__ = ["InduceRules", "InferRules"]

TEMPERATURE = 1.0
"""Rules are asked for several times, and should differ."""
LONGEST = 1000
"""Tokens that a set of rules is taken to have at most; nothing limits it."""


class InduceRules(Signature):
    """Say by which rules the outputs of the solved examples follow from their inputs.

    Each rule is one sentence that somebody who has not seen the examples can act on. It tells cases apart that are
    easily confused, and does not name single examples.
    """

    task: str = InputField(desc="what the examples are of")
    examples: str = InputField(desc="solved examples")
    most: int = InputField(desc="how many rules there may be")
    rules: list[str] = OutputField(desc="the rules, the most useful first")


class InferRules(Teleprompter[P]):
    """Bootstraps demos, lets a model write rules from examples, and keeps the rules that score best on the valset.

    Each of `num_candidates` programs has, for every predictor, rules that were written from its demos and from the
    examples that have its fields, in an order of their own. What is too long for the model is halved until it is not.
    The program without rules is a candidate too.

    Args:
        metric: Satisfied by a true value, or by one of at least `metric_threshold`; its mean is compared.
        metric_threshold: See `metric`.
        num_candidates: How often rules are written, at least 1.
        num_rules: Rules a predictor, at most, at least 1.
        prompt_client: The client that writes rules; the predictor's own if `None`.
        max_bootstrapped_demos: Demos a predictor from the teacher's calls, at least 0.
        max_labeled_demos: Demos a predictor in all, at least 0.
        max_rounds: Tries an example gets.
        max_errors: Errors that are tolerated while bootstrapping.
        max_concurrency: Examples under way at once; the result does not depend on it.
        balanced: Whether labels take turns.
        seed: Decides the orders.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.infer_rules import InferRules
        >>> InferRules(otpy.exact_match("answer"), num_rules=5)
        InferRules(exact_match('answer'), num_candidates=10, num_rules=5, seed=0)
    """

    uses_valset = True
    proposes = True
    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric,
        *,
        metric_threshold: float | None = None,
        num_candidates: int = 10,
        num_rules: int = 10,
        prompt_client: str | None = None,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        max_errors: int = 10,
        max_concurrency: int = 8,
        balanced: bool = True,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_integer("num_candidates", num_candidates, 1)
        check_integer("num_rules", num_rules, 1)
        check_client("prompt_client", prompt_client)
        self.metric, self.metric_threshold = metric, metric_threshold
        self.num_candidates, self.num_rules, self.prompt_client = num_candidates, num_rules, prompt_client
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.max_rounds, self.max_errors = max_rounds, max_errors
        self.max_concurrency, self.balanced, self.seed = max_concurrency, balanced, seed
        self._bootstrap()  # checks the rest

    def __repr__(self) -> str:
        """Print the metric, and the numbers of candidates and rules."""
        return (
            f"InferRules({metric_name(self.metric)}, num_candidates={self.num_candidates},"
            f" num_rules={self.num_rules}, seed={self.seed})"
        )

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return those of the bootstrap and the writing of rules, and as if all rules were alike, and no two were.

        Asking again for rules with fewer examples, as all were too long, comes on top.
        """
        low, high = self._bootstrap().requests(rows, val, predictors)
        asked = self.num_candidates * (predictors if self.max_bootstrapped_demos else 1)
        least = low + asked + 3 * val * predictors  # the student, what was bootstrapped, and one set of rules
        return least, high + self.num_candidates * predictors + (2 + self.num_candidates) * val * predictors

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:  # noqa: ARG002 - the base's
        """Return a request for each set of rules, which shows the examples."""
        least = self.num_candidates * (predictors if self.max_bootstrapped_demos else 1)
        return [Writing((least, least + self.num_candidates * predictors), self.prompt_client, LONGEST, rows)]

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Bootstrap; then write rules and measure what they are worth."""
        rows = list(enumerate(valset))
        base = await self._bootstrap().search(lab, student, trainset, [], teacher)
        scores = await lab.evaluate(base, rows)
        await lab.candidate("bootstrapped", scores)
        best, top = (base, scores.mean) if scores.mean > lab.score_of("student") else (student, lab.score_of("student"))
        written = 0

        async def measured(number: int) -> tuple[P, Mapping[str, Any], Scores] | None:
            rules = await self._rules(lab, base, trainset, number)
            program = base.map_predictors(lambda path, one: _ruled(one, rules.get(path, ())))
            now = instructions_of(base)
            new = {path: text for path, text in instructions_of(program).items() if text != now[path]}
            let = await lab.review.of(new, now, 0, number)
            if let != new:
                program = base.with_instructions(let) if let else base
            return (program, rules, await lab.evaluate(program, rows)) if let else None

        for batch in in_batches(range(self.num_candidates), max(1, self.max_concurrency // len(rows))):
            found = await lab.together(measured(number) for number in batch)
            for number, one in zip(batch, found, strict=True):
                if one is None:
                    continue
                written += 1
                program, rules, scores = one
                await lab.candidate(f"rules {number}", scores, rules=rules)
                if scores.mean > top:
                    best, top = program, scores.mean
        if not written and not lab.review.vetoed:
            raise TeleprompterError(
                f"no rules were written in {self.num_candidates} askings: no predictor has examples, or the model's"
                " answers were no lists of texts; another prompt_client may help"
            )
        return best

    async def _rules(self, lab: Lab, base: Program, trainset: list[Example], number: int) -> dict[str, list[str]]:
        predictors = base.named_predictors()
        written = await lab.together(
            self._rules_of(lab, predictor, _examples_of(predictor, trainset, lab.rng("rules", number, path)), number)
            for path, predictor in predictors
        )
        return {path: rules for (path, _), rules in zip(predictors, written, strict=True)}

    async def _rules_of(self, lab: Lab, predictor: Predict, examples: list[str], number: int) -> list[str]:
        client = predictor.client if self.prompt_client is None else self.prompt_client
        writer = Predict(InduceRules, client=client, temperature=TEMPERATURE, rollout=number)
        while examples:
            try:
                answer: Any = await lab.ask(
                    writer, task=predictor.signature.instructions, examples="\n\n".join(examples), most=self.num_rules
                )
            except LMContextWindowExceeded:
                examples = examples[: len(examples) // 2]
            except AdapterParseError:
                return []
            else:
                return [rule.strip() for rule in answer.rules if rule.strip()][: self.num_rules]
        return []

    def _bootstrap(self) -> BootstrapFewShot[P]:
        assert self.metric is not None
        return BootstrapFewShot(
            self.metric,
            metric_threshold=self.metric_threshold,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            max_errors=self.max_errors,
            max_concurrency=self.max_concurrency,
            balanced=self.balanced,
            seed=self.seed,
        )


def _examples_of(predictor: Predict, trainset: Iterable[Example], rng: Any) -> list[str]:
    """A predictor's demos, and the examples besides that have its fields, as texts in an order of their own."""
    demos = predictor.demos
    rest = [row for row in trainset if fits(predictor, row) and not any(is_demo_of(demo, row) for demo in demos)]
    texts = [
        "\n".join(f"{name}: {row[name]}" for name in predictor.signature.fields if name in row)
        for row in (*demos, *rest)
    ]
    rng.shuffle(texts)
    return texts


def _ruled(predictor: Predict, rules: Iterable[str]) -> Predict:
    lines = [f"- {rule}" for rule in rules]
    if not lines:
        return predictor
    text = "\n".join([predictor.signature.instructions, "", "Follow these rules:", *lines])
    return predictor.replace(signature=predictor.signature.with_instructions(text))
