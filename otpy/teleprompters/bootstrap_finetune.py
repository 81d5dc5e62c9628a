"""`BootstrapFinetune`: what a program, or its teacher, does right is learned into the model's weights.

Source: Soylu et al. 2024, "Fine-Tuning and Prompt Optimization: Two Great Steps that Work Better Together", and the
optimizer of this name in DSPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.clients.running import running
from otpy.errors import TeleprompterError
from otpy.evaluate import Metric, check_metric, metric_name
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.arguments import check_integer, check_optional_number, check_truth, is_number
from otpy.teleprompters.lessons import lessons_of_rows, lessons_of_runs, taught
from otpy.teleprompters.teleprompter import P, Teleprompter, check_structure
from otpy.training.choosing import trainer_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otpy.config.client_settings import ClientSettings
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.lessons import Lesson
    from otpy.teleprompters.run_journal import RunJournal
    from otpy.teleprompters.tried import Tried
    from otpy.training.records import Record
    from otpy.training.trainer import Progress, Trainer

__all__ = ["BootstrapFinetune", "JournalMemory", "client_of", "telling", "with_model"]


class BootstrapFinetune(Teleprompter[P]):
    """Trains the model that a program asks, and returns the program asking the trained one.

    The teacher, by default the program itself, solves the trainset; where the metric is satisfied, the model learns to
    answer the program's own questions so. Without metric and teacher it learns what the rows themselves say. The new
    model is a further client of the running application, called as its model is, `"local/smollm2-135m+<hash>"`;
    another application needs a client of that name. With a metric it is measured as any candidate, and what is returned
    is the better of the two.

    Args:
        metric: Satisfied by a true value, or by one of at least `metric_threshold`; `None` learns everything that the
            teacher says, or without one the rows.
        multitask: Whether all predictors that ask a client share one model that has learned the tasks of all of them;
            else each gets its own.
        exclude_demos: Whether the program is taught, and returned, without its demos.
        rank: Of the adapter, where the model is a local one (8).
        alpha: Its weight is `alpha / rank`, likewise (16).
        learning_rate: The highest; by default the trainer's own (5e-4 for a local model).
        epochs: How often every record is learned; likewise (2).
        batch_size: Records a step; likewise (8).
        max_length: Tokens that a record may have, of a local model (2,048).
        metric_threshold: See `metric`.
        max_errors: Errors of programs and metrics past which the run is given up; each costs its row.
        seed: Decides the adapter's first numbers, the order in which it learns, and what is held out to choose by.
        max_concurrency: Examples under way at once; the result does not depend on it.
        trainer: Trains instead of the one that belongs to the client's model.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
        >>> BootstrapFinetune(otpy.exact_match("answer"), epochs=1)
        BootstrapFinetune(exact_match('answer'), multitask=True, epochs=1, seed=0)
    """

    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric | None = None,
        *,
        multitask: bool = True,
        exclude_demos: bool = True,
        rank: int | None = None,
        alpha: float | None = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        metric_threshold: float | None = None,
        max_errors: int = 10,
        seed: int = 0,
        max_concurrency: int = 8,
        trainer: Trainer | None = None,
    ) -> None:
        """Check the arguments."""
        if metric is not None:
            check_metric(metric)
        check_integer("max_errors", max_errors, 0)
        check_integer("seed", seed, 0)
        check_integer("max_concurrency", max_concurrency, 1)
        _check_training(rank=rank, epochs=epochs, batch_size=batch_size, max_length=max_length)
        _check_training(alpha=alpha, learning_rate=learning_rate)
        for name, flag in (("multitask", multitask), ("exclude_demos", exclude_demos)):
            check_truth(name, flag)
        check_optional_number("metric_threshold", metric_threshold)
        if metric is None and metric_threshold is not None:
            raise TeleprompterError(f"metric_threshold={metric_threshold!r} without a metric; leave it out")
        if trainer is not None and not callable(getattr(trainer, "train", None)):
            raise TeleprompterError(f"trainer={trainer!r:.100}; allowed: a Trainer, or None")
        self.metric, self.metric_threshold = metric, metric_threshold
        self.multitask, self.exclude_demos = multitask, exclude_demos
        self.rank, self.alpha, self.learning_rate = rank, alpha, learning_rate
        self.epochs, self.batch_size, self.max_length = epochs, batch_size, max_length
        self.max_errors, self.max_concurrency, self.seed = max_errors, max_concurrency, seed
        self.trainer = trainer
        self.uses_valset = metric is not None

    def __repr__(self) -> str:
        """Print the metric and what was chosen."""
        metric = "" if self.metric is None else f"{metric_name(self.metric)}, "
        chosen = "".join(f"{name}={value!r}, " for name, value in self._told().items())
        return f"BootstrapFinetune({metric}multitask={self.multitask}, {chosen}seed={self.seed})"

    def params(self) -> dict[str, Any]:
        """Return what it was told, as JSON data."""
        return {**super().params(), "trainer": None if self.trainer is None else type(self.trainer).__name__}

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return as many as a teacher's answers take, unless the rows are learned, and measuring twice."""
        measured = 2 * val * predictors
        return measured + (rows * predictors if self.metric is not None else 0), measured + rows * predictors

    def _told(self) -> dict[str, Any]:
        """What the training is told, besides the seed."""
        names = ("rank", "alpha", "learning_rate", "epochs", "batch_size", "max_length")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Gather what is right, train, and measure."""
        clients = {path: predictor.client for path, predictor in student.named_predictors()}
        trainers = {client: self.trainer or trainer_for(client, client_of(client)) for client in clients.values()}
        plain = taught(student, exclude_demos=self.exclude_demos)
        lessons = await self._lessons(lab, student, plain, trainset, teacher)
        groups = dict.fromkeys(clients[path] if self.multitask else path for path in clients)
        models: dict[str, str] = {}
        for group in groups:
            paths = [path for path, client in clients.items() if group == (client if self.multitask else path)]
            records = [record for path, record in lessons if path in paths]
            if not records:
                raise TeleprompterError(f"there is nothing to learn for {group}: no run that will do has asked it")
            await lab.going.wait()
            models |= dict.fromkeys(paths, await self._model(lab, clients[paths[0]], trainers, records))
        better = plain.map_predictors(lambda path, predictor: predictor.configured(client=models[path]))
        if not valset:
            return better  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - made from the student
        await lab.candidate("finetuned", await lab.evaluate(better, list(enumerate(valset))), models=models)
        best = lab.best
        assert best is not None  # it was just measured
        return best.program  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - likewise

    # -- what is learned -------------------------------------------------------------------------------------------

    async def _lessons(
        self, lab: Lab, student: Program, plain: Program, rows: list[Example], teacher: Program | None
    ) -> list[Lesson]:
        if teacher is None and self.metric is None:
            return lessons_of_rows(plain, rows)
        solver = student if teacher is None else teacher
        check_structure(student, solver)
        where = lab if self.metric is not None else lab.part("teacher", _Anything(self))
        runs = await where.try_all([(solver, at, row) for at, row in enumerate(rows)])
        right = [run for run in runs if run.error is None and self._will_do(run)]
        if not right:
            raise TeleprompterError(self._nothing(runs))
        lessons = lessons_of_runs(plain, right)
        lab.notes.append(f"{len(right)} of {len(rows)} rows were solved, and {len(lessons)} answers learned")
        return lessons

    def _will_do(self, run: Tried) -> bool:
        return bool(run.score) if self.metric_threshold is None else run.score >= self.metric_threshold

    def _nothing(self, runs: Sequence[Tried]) -> str:
        what = "could be run" if self.metric is None else f"satisfied {metric_name(self.metric)}"
        needed = "" if self.metric_threshold is None else f" of at least {self.metric_threshold:g}"
        scores = [run.score for run in runs if run.error is None]
        failed = [run.feedback for run in runs if run.error is not None]
        best = f"the best score was {max(scores):g}" if scores else "no row came as far as the metric"
        last = f"; {len(failed)} failed, the last with {failed[-1]}" if failed else ""
        return (
            f"no row of {len(runs)} {what}{needed}; {best}{last}. A stronger teacher or a lower threshold may help;"
            " without metric and teacher the rows themselves are learned"
        )

    # -- learning --------------------------------------------------------------------------------------------------

    async def _model(self, lab: Lab, client: str, trainers: dict[str, Trainer], records: list[Record]) -> str:
        """Train a client's model, and make a client of what comes out."""
        model = await trainers[client].train(
            records,
            kind="sft",
            params={**self._told(), "seed": self.seed},
            memory=JournalMemory(lab.journal),
            told=telling(lab, client),
        )
        lab.says("")
        lab.notes.append(f"{model} has learned {len(records)} answers; it is a client of that name")
        await with_model(lab, client, model)
        return model


def _check_training(**given: Any) -> None:
    for name, value in given.items():
        if value is None:
            continue
        if name not in {"alpha", "learning_rate"}:
            check_integer(name, value, 1)
        elif not (is_number(value) and value > 0):
            raise TeleprompterError(f"{name}={value!r}; allowed: a number > 0, or None")


def client_of(name: str) -> ClientSettings:
    """Return the settings of a client that is one model.

    Args:
        name: The client's name.

    Raises:
        TeleprompterError: If it is a route, or there is none.
    """
    settings = running().settings
    if name in settings.clients:
        return settings.clients[name]
    what = "is a route to several models" if name in settings.routes else "is not configured"
    raise TeleprompterError(
        f"client {name!r} {what}; one model can be trained, of a client: {', '.join(settings.clients)}"
    )


async def with_model(lab: Lab, client: str, model: str) -> None:
    """Make a client of a model that has learned, called as the model; its other settings are those of the client.

    Args:
        lab: Gets a note of what cannot be taken over.
        client: Whose model it was.
        model: The new model.

    Raises:
        ConfigError: If there is a client of that name with other settings.
        ModelNotAvailable: If it cannot be served here.
    """
    before = client_of(client)
    if before.budget.caps:
        lab.notes.append(f"the caps of client {client!r} are not those of {model!r}")
    kept = {name: getattr(before, name) for name in before.model_fields_set - {"budget"}}
    if model not in running().settings.clients:
        await running().aadd_client(model, **{**kept, "model": model})


def telling(lab: Lab, client: str) -> Callable[[Progress], None]:
    """Return what tells whoever listens how far a training is.

    Args:
        lab: Says it in the run's status.
        client: Whose model is trained.
    """

    def told(progress: Progress) -> None:
        far = "" if progress.steps is None else f" {progress.step} of {progress.steps}"
        figures = "".join(f", {name} {value:.3g}" for name, value in progress.figures.items())
        lab.says(f"{client}: {progress.what}{far}{figures}")
        if telemetry.listening:
            telemetry.emit(
                "otpy.teleprompter.training",
                client=client,
                what=progress.what,
                step=progress.step,
                steps=progress.steps,
                **progress.figures,
            )

    return told


class JournalMemory:
    """What a training is to remember, in the journal of the run.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: RunJournal) -> None:
        """Know the journal."""
        self._journal = journal

    def get(self, name: str) -> Any:
        """Return what was put, `None` if nothing was."""
        return self._journal.about(f"training/{name}")

    async def put(self, name: str, value: Any) -> None:
        """Keep a fact; when this returns, it is on disk."""
        await self._journal.note(f"training/{name}", value)


class _Anything(Teleprompter[Any]):
    """Runs what has no metric: whatever is answered will do."""

    def __init__(self, outer: BootstrapFinetune[Any]) -> None:
        self.metric, self.seed, self.max_concurrency = _anything, outer.seed, outer.max_concurrency


def _anything(example: Any, prediction: Any, trace: Any = None) -> float:  # noqa: ARG001 - a metric
    return 1.0
