"""`Refine`: run a program again with advice on what went wrong.

Source: the feedback loop of Madaan et al. 2023, "Self-Refine"; the form of the advice, for each predictor its own, is
DSPy's.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from otpy.adapters import as_text
from otpy.errors import AdapterParseError
from otpy.programs.best_of_n import NoReward, Reward, checked, rewarded, tried, tuned
from otpy.programs.predict import Predict
from otpy.programs.program import Program
from otpy.programs.trace import recorded
from otpy.signatures import InputField, OutputField, Signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs.trace import Trace
    from otpy.signatures import Prediction

__all__ = ["Refine"]

LONGEST = 2_000
"""Characters of a value that the adviser is shown."""


class Advise(Signature):
    """Say what each module of a program should do differently, given how an attempt went and how it was judged.

    Blame only those modules that are at fault; give the others no advice. Advice is one or two concrete sentences that
    would also help with similar inputs; do not give the answer away.
    """

    modules: str = InputField(desc="the program's modules: name, task and fields")
    given: str = InputField(desc="what the program was given")
    trajectory: str = InputField(desc="what each module was given and returned")
    judgement: str = InputField(desc="how the result was judged")
    advice: dict[str, str] = OutputField(desc="for each module at fault its name and the advice")


class Refine(Program):
    """Runs a program up to `n` times, each time with advice on the last attempt, until it is good enough.

    After an attempt that is not, a model is shown what each predictor did and how the result was judged (the reward,
    and the feedback of a `Score`), and its advice is added to the predictors' instructions for the next attempt. What
    is best is returned. An attempt fails where the program raises, or the reward function; a reward that is no number
    is raised at once.

    Args:
        program: The program.
        n: How many attempts, at least 1.
        reward_fn: `(inputs, prediction) -> number`, plain or `async`; a `Score` may bring feedback.
        threshold: What is good enough.
        fail_count: How many attempts may fail; by default all but one.
        temperature: Of further attempts; `None` leaves it, for models that refuse one.
        client: The client that gives advice; the program's first predictor's by default.

    Raises:
        ProgramError: If an argument cannot be used.

    Example:
        >>> from otpy.programs import Predict, Refine
        >>> def one_word(inputs, prediction):
        ...     return float(" " not in prediction.answer)
        >>> refine = Refine(Predict("question -> answer"), reward_fn=one_word, threshold=1)
        >>> [path for path, _ in refine.named_predictors()]
        ['program', 'adviser']
    """

    program: Program
    adviser: Predict
    n: int
    reward_fn: Reward
    threshold: float
    fail_count: int
    temperature: float | None

    def __init__(  # noqa: PLR0913 - each is a parameter of the search
        self,
        program: Program,
        n: int = 3,
        *,
        reward_fn: Reward,
        threshold: float,
        fail_count: int | None = None,
        temperature: float | None = 1.0,
        client: str | None = None,
    ) -> None:
        """Check everything."""
        checked(program, n, reward_fn, threshold, fail_count)
        if client is None:
            client = next((predictor.client for _, predictor in program.named_predictors()), "default")
        self.program, self.n, self.reward_fn, self.threshold = program, n, reward_fn, float(threshold)
        self.fail_count = n - 1 if fail_count is None else fail_count
        self.temperature = temperature
        self.adviser = Predict(Advise, client=client)

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs: the program's."""
        return self.program.input_names

    async def forward(self, **inputs: Any) -> Prediction:
        """Try, take advice, try again."""
        best: tuple[float, Prediction, Trace] | None = None
        advice: Mapping[str, str] = {}
        failures = 0
        for number in range(self.n):
            attempt = _advised(tuned(self.program, number, self.temperature), advice)
            trace: Trace = []
            try:
                prediction, trace = await tried(self.program, attempt, inputs)
                reward = await rewarded(self.reward_fn, inputs, prediction)
            except NoReward:
                raise
            except Exception as error:
                failures += 1
                if failures > self.fail_count:
                    raise
                judgement = f"it failed: {type(error).__name__}: {error}"
            else:
                if best is None or float(reward) > best[0]:
                    best = float(reward), prediction, trace
                if float(reward) >= self.threshold:
                    break
                judgement = self._judgement(reward)
            if number < self.n - 1:
                advice = await self._advice(inputs, trace, judgement)
        assert best is not None  # at most n - 1 have failed
        recorded(best[2])
        return best[1]

    def _judgement(self, reward: float) -> str:
        words = f"{float(reward):g}, where {self.threshold:g} is wanted"
        feedback = getattr(reward, "feedback", "")
        what = inspect.getdoc(self.reward_fn)
        return ". ".join(part for part in (words, feedback, f"What is judged: {what}" if what else "") if part)

    async def _advice(self, inputs: Mapping[str, Any], trace: Trace, judgement: str) -> Mapping[str, str]:
        """What the adviser says, for predictors that there are; nothing if it says nothing of use."""
        places = {id(predictor): path for path, predictor in self.program.named_predictors()}
        modules = [
            f"{path}: {predictor.signature.instructions} ({predictor.signature.signature})"
            for path, predictor in self.program.named_predictors()
        ]
        steps = [
            f"{places.get(id(entry.predictor), entry.path)}: {_shown(entry.inputs)} -> {_shown(entry.prediction)}"
            for entry in trace
        ]
        try:
            said = await self.adviser.acall(
                modules="\n".join(modules),
                given=_shown(inputs),
                trajectory="\n".join(steps) or "(nothing was returned)",
                judgement=judgement,
            )
        except AdapterParseError:  # without advice the next attempt is one by chance
            return {}
        return {path: text for path, text in said.advice.items() if path in places.values() and text.strip()}


def _advised(program: Program, advice: Mapping[str, str]) -> Program:
    def with_hint(path: str, predictor: Predict) -> Predict:
        if path not in advice:
            return predictor
        instructions = f"{predictor.signature.instructions}\n\nAdvice from an earlier attempt: {advice[path]}"
        return predictor.replace(signature=predictor.signature.with_instructions(instructions))

    return program.map_predictors(with_hint) if advice else program


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_cut(as_text(_plain(value)))}" for name, value in values.items())


def _plain(value: Any) -> Any:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
