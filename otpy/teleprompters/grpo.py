"""`GRPO`: a program's model learns by reward, which is what the metric makes of the program's predictions.

Source: Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", with
trl's `GRPOTrainer`; the optimizer of this name in DSPy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import AdapterParseError, TeleprompterError
from otpy.evaluate import Metric, check_metric, measure, metric_name
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.arguments import check_integer, check_optional_number, check_truth, is_number
from otpy.teleprompters.bootstrap_finetune import JournalMemory, client_of, telling, with_model
from otpy.teleprompters.lessons import taught
from otpy.teleprompters.rollout import ONCE, AskedAgain, asked_of, ran_with
from otpy.teleprompters.teleprompter import P, Teleprompter
from otpy.training.rewarded import Prompt, RewardTrainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.config.client_settings import ClientSettings
    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.training.rewarded import Completion, Improved

__all__ = ["GRPO"]

COMPARED: Final = 5
"""Steps at the beginning and at the end whose mean rewards are told of."""


class GRPO(Teleprompter[P]):
    """Trains the model that a program asks by trial and reward, and returns the program asking the trained one.

    In each step the model answers some rows several times. Each answer is put into the program as its model's, and the
    metric's score of what the program makes of it is its reward; answers better than the others to the same row become
    more likely. The model is a local one, trained with LoRA in a process of the extra `train`; the metric runs here.
    The new model is a further client of the running application, called as its model is,
    `"local/smollm2-135m+<hash>"`; another application needs a client of that name. It is measured on the valset as any
    candidate, and what is returned is the better of the two.

    The model is trained on what it writes freely. Where answers are held to a schema when the program runs, as a local
    model's are, much of the first reward is for the form alone, and says nothing of the score on the valset.

    The program has one predictor, and asks it once for each example.

    Args:
        metric: The reward. One that raises, or takes longer than `metric_timeout`, costs its answer and no other.
        num_train_steps: Updates of the model.
        num_dspy_examples_per_grpo_step: Rows a step.
        num_rollouts_per_grpo_step: Answers to each row, at least 2, which are compared with each other.
        exclude_demos: Whether the program is trained, and returned, without its demos.
        learning_rate: The highest; it falls to 0.
        rank: Of the adapter.
        alpha: Its weight is `alpha / rank`; by default twice the rank.
        beta: The weight of the divergence from the model it began as; 0 for none.
        temperature: Answers are sampled at; above 0.
        max_tokens: Tokens of an answer.
        failure_score: The reward of an answer with which the program fails.
        format_failure_score: The reward of an answer that cannot be read.
        metric_timeout: Seconds; `None` for any time.
        max_errors: Answers that the metric may leave unjudged, until the run is given up; `None` for any number.
        checkpoint_steps: Steps between two checkpoints, from which a run that was killed goes on.
        max_concurrency: Answers judged at once; the result does not depend on it.
        seed: All chance comes from it.
        trainer: Trains instead of a `RewardTrainer` of the client's model.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.grpo import GRPO
        >>> GRPO(otpy.exact_match("answer"), num_train_steps=40)
        GRPO(exact_match('answer'), num_train_steps=40, seed=0)
    """

    uses_valset = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric,
        *,
        num_train_steps: int = 100,
        num_dspy_examples_per_grpo_step: int = 1,
        num_rollouts_per_grpo_step: int = 8,
        exclude_demos: bool = True,
        learning_rate: float = 1e-4,
        rank: int = 8,
        alpha: float | None = None,
        beta: float = 0.0,
        temperature: float = 1.0,
        max_tokens: int = 64,
        failure_score: float = 0.0,
        format_failure_score: float = -1.0,
        metric_timeout: float | None = 120.0,
        max_errors: int | None = 100,
        checkpoint_steps: int = 5,
        max_concurrency: int = 8,
        seed: int = 0,
        trainer: RewardTrainer | None = None,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        for name, number, least in (
            ("num_train_steps", num_train_steps, 1),
            ("num_dspy_examples_per_grpo_step", num_dspy_examples_per_grpo_step, 1),
            ("num_rollouts_per_grpo_step", num_rollouts_per_grpo_step, 2),
            ("rank", rank, 1),
            ("max_tokens", max_tokens, 1),
            ("max_errors", 0 if max_errors is None else max_errors, 0),
            ("checkpoint_steps", checkpoint_steps, 1),
            ("max_concurrency", max_concurrency, 1),
            ("seed", seed, 0),
        ):
            check_integer(name, number, least)
        positive = {"learning_rate": learning_rate, "temperature": temperature}
        for name, value in positive.items():
            if not is_number(value) or value <= 0:
                raise TeleprompterError(f"{name}={value!r}; allowed: a finite number > 0")
        for name, optional in (("alpha", alpha), ("metric_timeout", metric_timeout)):
            if optional is not None and (not is_number(optional) or optional <= 0):
                raise TeleprompterError(f"{name}={optional!r}; allowed: a finite number > 0, or None")
        if not is_number(beta) or beta < 0:
            raise TeleprompterError(f"beta={beta!r}; allowed: a finite number >= 0")
        for name, score in (("failure_score", failure_score), ("format_failure_score", format_failure_score)):
            if score is None:
                raise TeleprompterError(f"{name}=None; allowed: a finite number")
            check_optional_number(name, score)
        check_truth("exclude_demos", exclude_demos)
        if trainer is not None and not isinstance(trainer, RewardTrainer):
            raise TeleprompterError(f"trainer={trainer!r:.100}; allowed: a RewardTrainer, or None")
        self.metric = metric
        self.num_train_steps, self.exclude_demos = num_train_steps, exclude_demos
        self.num_dspy_examples_per_grpo_step = num_dspy_examples_per_grpo_step
        self.num_rollouts_per_grpo_step = num_rollouts_per_grpo_step
        self.learning_rate, self.rank, self.alpha, self.beta = learning_rate, rank, alpha, beta
        self.temperature, self.max_tokens, self.seed = temperature, max_tokens, seed
        self.failure_score, self.format_failure_score = failure_score, format_failure_score
        self.metric_timeout, self.max_errors = metric_timeout, max_errors
        self.checkpoint_steps, self.max_concurrency = checkpoint_steps, max_concurrency
        self.trainer = trainer

    def __repr__(self) -> str:
        """Print the metric and the steps."""
        return f"GRPO({metric_name(self.metric)}, num_train_steps={self.num_train_steps}, seed={self.seed})"

    def params(self) -> dict[str, Any]:
        """Return what it was told, as JSON data."""
        return {**super().params(), "trainer": None if self.trainer is None else type(self.trainer).__name__}

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:  # noqa: ARG002 - others use them
        """Return what measuring takes, before and after; the training asks no client."""
        return 2 * val * predictors, 2 * val * predictors

    def check(self, student: P) -> None:
        """Refuse programs of several predictors, models that cannot be trained, and a missing extra."""
        _, trainer = self._trainer(student)
        trainer.check()

    async def search(
        self,
        lab: Lab,
        student: P,
        trainset: list[Example],
        valset: list[Example],
        teacher: Program | None,  # noqa: ARG002 - the base's
    ) -> P:
        """Train, and measure."""
        client, trainer = self._trainer(student)
        plain = taught(student, exclude_demos=self.exclude_demos)
        prompts = [await _prompt(plain, at, row) for at, row in enumerate(trainset)]
        improved = await trainer.train(
            prompts,
            _Rewards(self, lab, plain, trainset),
            judged_by={"program": plain.content_hash(), "params": self._judging()},
            params=self._told(),
            memory=JournalMemory(lab.journal),
            told=telling(lab, client),
        )
        lab.says("")
        lab.notes.append(_rise(improved))
        await with_model(lab, client, improved.model)
        better = plain.map_predictors(lambda _, predictor: predictor.configured(client=improved.model))
        scores = await lab.evaluate(better, list(enumerate(valset)))
        await lab.candidate("trained", scores, model=improved.model, rewards=list(improved.curve))
        best = lab.best
        assert best is not None  # it was just measured
        return cast("P", best.program)  # made from the student

    def _trainer(self, student: Program) -> tuple[str, RewardTrainer]:
        predictors = student.named_predictors()
        if len(predictors) > 1:
            names = ", ".join(path for path, _ in predictors)
            raise TeleprompterError(f"the student has {len(predictors)} predictors: {names}; {ONCE}")
        predictor: Predict[Any] = predictors[0][1]
        if predictor.n > 1:
            raise TeleprompterError(f"the student asks for n={predictor.n} answers at once; allowed: 1")
        settings: ClientSettings = client_of(predictor.client)
        if self.trainer is not None:
            return predictor.client, self.trainer
        if not settings.is_local:
            raise TeleprompterError(
                f"client {predictor.client!r} is {settings.model}, which cannot be trained by reward here; those of"
                " 'local/' can"
            )
        return predictor.client, RewardTrainer(settings.model_name)

    def _told(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "alpha": float(2 * self.rank if self.alpha is None else self.alpha),
            "learning_rate": float(self.learning_rate),
            "steps": self.num_train_steps,
            "examples": self.num_dspy_examples_per_grpo_step,
            "rollouts": self.num_rollouts_per_grpo_step,
            "temperature": float(self.temperature),
            "max_tokens": self.max_tokens,
            "beta": float(self.beta),
            "seed": self.seed,
            "checkpoint_steps": self.checkpoint_steps,
        }

    def _judging(self) -> dict[str, Any]:
        """What decides the rewards: a program that is equal, judged otherwise, is another training."""
        names = ("metric", "failure_score", "format_failure_score", "metric_timeout")
        params = self.params()
        return {name: params[name] for name in names}


class _Rewards:
    """What the metric makes of the program with the answers that the model has written."""

    def __init__(self, grpo: GRPO[Any], lab: Lab, program: Program, rows: Sequence[Example]) -> None:
        self._grpo, self._lab, self._rows = grpo, lab, rows
        self._program = program.map_predictors(lambda _, predictor: predictor.configured(max_reasks=0))
        self._known: dict[Completion, float | None] = lab.memory.setdefault("rewards", {})
        self._slots = asyncio.Semaphore(grpo.max_concurrency)
        self._unjudged = 0

    async def __call__(self, completions: Sequence[Completion]) -> list[float | None]:
        """Judge them, in order; equal ones once."""
        await self._lab.going.wait()  # pausing the run pauses the training
        new = [one for one in dict.fromkeys(completions) if one not in self._known]
        self._known.update(zip(new, await self._lab.together(self._judged(one) for one in new), strict=True))
        return [self._known[one] for one in completions]

    async def _judged(self, completion: Completion) -> float | None:
        grpo, example = self._grpo, self._rows[completion.row]
        assert grpo.metric is not None
        metric = grpo.metric
        async with self._slots:
            try:
                prediction = await ran_with(self._program, example, completion.text, cut=completion.cut)
            except AdapterParseError:
                return float(grpo.format_failure_score)
            except AskedAgain:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, it is the answer's
                return float(grpo.failure_score)

            async def measured() -> float:
                async with asyncio.timeout(grpo.metric_timeout):
                    return await measure(metric, example, prediction)

            try:
                return float(await self._lab.through_outages(measured))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer's
                self._left_out(completion, error)
                return None

    def _left_out(self, completion: Completion, error: Exception) -> None:
        if self._lab.journal.problem is not None:
            raise self._lab.journal.problem from error
        words = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeoutError):
            words = f"no score within metric_timeout={self._grpo.metric_timeout:g} s"
        self._unjudged += 1
        if telemetry.listening:
            telemetry.emit("otpy.teleprompter.unjudged", row=completion.row, error=error)
        note = f"answers that the metric failed on were left out, the first with {words}"
        if not any(known.startswith("answers that the metric failed on") for known in self._lab.notes):
            self._lab.notes.append(note)
        if self._grpo.max_errors is not None and self._unjudged > self._grpo.max_errors:
            raise TeleprompterError(f"more errors of the metric than max_errors={self._grpo.max_errors}; the last:"
                                    f" {words}") from error  # fmt: skip


async def _prompt(program: Program, at: int, row: Example) -> Prompt:
    messages = await asked_of(program, row)
    turns: list[dict[str, str]] = []
    for message in messages:
        if not isinstance(message.content, str):
            raise TeleprompterError(
                f"row {at}: {message.content!r:.100}: models are taught texts only, no images, tools or files"
            )
        turns.append({"role": message.role, "content": message.content})
    return Prompt(at, tuple(turns))


def _rise(improved: Improved) -> str:
    curve = improved.curve
    several = min(COMPARED, len(curve))
    first, last = sum(curve[:several]) / several, sum(curve[-several:]) / several
    return (
        f"{improved.model} was trained in {len(curve)} steps: the mean reward of the first {several} was {first:.3g},"
        f" of the last {several} {last:.3g}; it is a client of that name"
    )
