"""`KNNFewShot`: each question is shown the demos that are most like it.

Source: Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", and the optimizer of this name in DSPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.clients.running import running
from otpy.errors import LMRequestInvalid, NoApplication, TeleprompterError
from otpy.evaluate import metric_name, prepared
from otpy.programs import Embedder, Program
from otpy.programs.abilities import lacks
from otpy.programs.best_of_n import tried
from otpy.programs.demos import dumped_demo, read_demo
from otpy.programs.knn import KNN
from otpy.programs.trace import recorded
from otpy.signatures import Example
from otpy.teleprompters.arguments import check_integer
from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.demos import fits, shows
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.teleprompter import Teleprompter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.evaluate import Metric
    from otpy.programs import Predict
    from otpy.retrieval import EmbedderProtocol
    from otpy.signatures import Prediction
    from otpy.teleprompters.lab import Lab

__all__ = ["KNNFewShot", "NearestDemos"]


ANOTHER: Final = (
    "KNNFewShot compares texts by their vectors, which take a client whose model makes some, as"
    " local/all-minilm-l6-v2: KNNFewShot(k, embedder=otpy.Embedder(client='its name'))"
)


class NearestDemos(Program):
    """A program whose predictors are shown, at each call, the demos of the examples that are closest to its inputs.

    Nothing is embedded when it is made; the first call embeds the examples, once. The closest example comes last, next
    to the question; demos that the program has of its own come before.

    Args:
        program: The program.
        k: How many examples are shown, at most.
        shots: The examples as JSON data: each has `inputs`, as texts, and `demos`, by the predictor's path.
        embedder: What makes vectors of texts. A file does not hold it: a program that is loaded keeps its own.
    """

    program: Program
    k: int
    shots: tuple[Mapping[str, Any], ...]
    embedder: EmbedderProtocol

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs: the program's."""
        return self.program.input_names

    async def forward(self, **inputs: Any) -> Prediction:
        """Look for examples, and ask with their demos."""
        numbers = await self._nearest(inputs)
        demos = self._demos()

        def with_demos(path: str, predictor: Predict) -> Predict:
            near = [demos[at, path] for at in reversed(numbers) if (at, path) in demos]
            return predictor.replace_demos([*predictor.demos, *near])

        prediction, trace = await tried(self.program, self.program.map_predictors(with_demos), inputs)
        recorded(trace)
        return prediction

    async def _nearest(self, inputs: Mapping[str, Any]) -> list[int]:
        if "knn" not in self._memo:
            examples = [Example(shot["inputs"]).with_inputs(*shot["inputs"]) for shot in self.shots]
            self._memo["numbers"] = {id(example): at for at, example in enumerate(examples)}
            self._memo["knn"] = KNN(self.k, examples, self.embedder)
        try:
            found = await self._memo["knn"].acall(**inputs)
        except LMRequestInvalid as error:
            error.add_note(ANOTHER)
            raise
        return [self._memo["numbers"][id(example)] for example in found]

    def _demos(self) -> dict[tuple[int, str], Any]:
        if "demos" not in self._memo:
            predictors = dict(self.program.named_predictors())
            self._memo["demos"] = {
                (at, path): read_demo(predictors[path].signature, demo)
                for at, shot in enumerate(self.shots)
                for path, demo in shot["demos"].items()
            }
        demos: dict[tuple[int, str], Any] = self._memo["demos"]
        return demos


class KNNFewShot(Teleprompter[Program]):
    """Makes a program that is shown, at each call, the demos of the `k` examples whose inputs are most like its own.

    What is alike is found by vectors of texts (`embedder`), which a chat model does not make: give the application a
    client that does, as one with the model `local/all-minilm-l6-v2`.

    A teacher solves every example of the trainset once, when the program is made; where the metric is satisfied, the
    calls of its predictors are the example's demos, and elsewhere the example as it stands, if its fields allow that.
    (DSPy's optimizer of this name bootstraps anew at each call of the program.) That takes one run of the teacher per
    example and round. Without a metric nothing is asked, and all examples stand as they are.

    Args:
        k: Examples shown, at least 1.
        metric: Satisfied by a true value, or by one of at least `metric_threshold`.
        embedder: What makes vectors of texts; the application's default client by default.
        metric_threshold: See `metric`.
        max_labeled_demos: Demos that a teacher is given which has none.
        max_rounds: Tries an example gets.
        max_errors: Errors that are tolerated.
        max_concurrency: Examples under way at once; the result does not depend on it.
        seed: Decides the teacher's demos.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.knn_few_shot import KNNFewShot
        >>> KNNFewShot(4, metric=otpy.exact_match("answer"))
        KNNFewShot(4, metric=exact_match('answer'), embedder='default')
    """

    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        k: int = 4,
        *,
        metric: Metric | None = None,
        embedder: EmbedderProtocol | None = None,
        metric_threshold: float | None = None,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        max_errors: int = 10,
        max_concurrency: int = 8,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_integer("k", k, 1)
        check_integer("seed", seed, 0)
        self.k, self.metric, self.metric_threshold = k, metric, metric_threshold
        self.embedder: EmbedderProtocol = Embedder() if embedder is None else embedder
        if not hasattr(self.embedder, "embed"):
            raise TeleprompterError(f"embedder={embedder!r}; allowed: an embedder, such as Embedder(), or None")
        self.max_labeled_demos, self.max_rounds, self.max_errors = max_labeled_demos, max_rounds, max_errors
        self.max_concurrency, self.seed = max_concurrency, seed
        self._bootstrap(_satisfied if metric is None else metric, 1)  # checks the rest

    def __repr__(self) -> str:
        """Print `k`, the metric and the embedder."""
        metric = None if self.metric is None else metric_name(self.metric)
        return f"KNNFewShot({self.k}, metric={metric}, embedder={self.embedder.name!r})"

    def params(self) -> dict[str, Any]:
        """Return what it was told; of the embedder its name."""
        return {**super().params(), "embedder": self.embedder.name}

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:  # noqa: ARG002 - the base's
        """Return as many as if every example were solved at once, and as if none were; nothing without a metric."""
        return (rows * predictors, rows * self.max_rounds * predictors) if self.metric is not None else (0, 0)

    def check(self, student: Program) -> None:  # noqa: ARG002 - the base's
        """Refuse a client of which it is known that it makes no vectors.

        Raises:
            TeleprompterError: With what to do.
        """
        if not isinstance(self.embedder, Embedder):
            return
        client = self.embedder.client
        try:
            settings = running().settings
            route = settings.routes.get(client)
            members = [settings.clients.get(name) for name in ((client,) if route is None else route.members)]
            known = all(member is not None for member in members)
            chat = any(
                member is not None and member.is_local and member.effective_profile != "llama_cpp_embedder"
                for member in members
            )
            if known and not chat and not lacks(client, "embeddings"):
                return
        except NoApplication:  # for an estimate there need be none
            return
        what = "makes no vectors" if known else f"is none of the clients {', '.join(settings.clients) or '(none)'}"
        raise TeleprompterError(f"embedder: the client {client!r} {what}. {ANOTHER}")

    async def search(
        self,
        lab: Lab,
        student: Program,
        trainset: list[Example],
        valset: list[Example],  # noqa: ARG002 - the base's
        teacher: Program | None,
    ) -> NearestDemos:
        """Have every example solved, once."""
        rows = prepared(trainset, student)
        solved: dict[int, Any] = {}
        if self.metric is None:
            LabeledFewShot[Program](1).choose(student, rows)  # refuses examples that fit nowhere
        else:
            bootstrap = self._bootstrap(self.metric, len(rows))
            search = await bootstrap.bootstrapped(lab, student, rows, teacher)
            bootstrap.check_found(search)
            solved = {outcome.trial.at: outcome for outcome in search.best()}
        stands = shows if self.metric is None else fits
        shots: list[dict[str, Any]] = []
        for at, row in enumerate(rows):
            demos: dict[str, Any] = {}
            for path, predictor in student.named_predictors():
                demo = solved[at].demo(path) if at in solved else row if stands(predictor, row) else None
                if demo is not None:
                    (checked,) = predictor.replace_demos([demo]).demos
                    demos[path] = dumped_demo(predictor.signature, checked)
            if demos:
                shots.append({"inputs": {name: str(value) for name, value in row.inputs().items()}, "demos": demos})
        bare = student.map_predictors(lambda _, predictor: predictor.replace_demos(()))
        return NearestDemos(program=bare, k=self.k, shots=tuple(shots), embedder=self.embedder)

    def _bootstrap(self, metric: Metric, wanted: int) -> BootstrapFewShot[Program]:
        return BootstrapFewShot(
            metric,
            metric_threshold=self.metric_threshold,
            max_bootstrapped_demos=wanted,
            max_labeled_demos=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            max_errors=self.max_errors,
            max_concurrency=self.max_concurrency,
            seed=self.seed,
        )


def _satisfied(example: Example, prediction: Prediction, trace: object = None) -> bool:  # noqa: ARG001 - a metric's
    return True
