"""`BestOfN`: run a program several times and keep what is best."""

from __future__ import annotations

import inspect
import math
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from otpy.errors import ProgramError
from otpy.programs.program import Program
from otpy.programs.trace import attempting, recorded
from otpy.programs.worker import in_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from otpy.programs.predict import Predict
    from otpy.programs.trace import Trace
    from otpy.signatures import Prediction

__all__ = ["BestOfN", "NoReward", "Reward", "rewarded", "tried"]

Reward: TypeAlias = "Callable[[Mapping[str, Any], Prediction], float | Awaitable[float]]"
"""`(inputs, prediction) -> number`, plain or `async`; a `Score` with feedback will do."""


class BestOfN(Program):
    """Runs a program up to `n` times and returns the first prediction that is good enough, or else the best.

    The first attempt is the program as it is. Every further one is another asking of the same thing: the predictors'
    `rollout` gets it past the cache, and their temperature is raised, as without chance it would be the same answer.
    An attempt that fails is counted, whether the program raises or the reward function does; only if all fail, or more
    than `fail_count`, the error is raised. A reward that is no number is raised at once: no attempt would mend it.

    Args:
        program: The program.
        n: How often, at least 1.
        reward_fn: `(inputs, prediction) -> number`, plain or `async`; more is better.
        threshold: What is good enough; `None` runs all attempts.
        fail_count: How many attempts may fail; by default all but one.
        temperature: Of further attempts; `None` leaves it, for models that refuse one.

    Raises:
        ProgramError: If an argument cannot be used.

    Example:
        >>> from otpy.programs import BestOfN, Predict
        >>> def short(inputs, prediction):
        ...     return -len(prediction.answer)
        >>> BestOfN(Predict("question -> answer"), n=3, reward_fn=short).n
        3
    """

    program: Program
    n: int
    reward_fn: Reward
    threshold: float | None
    fail_count: int
    temperature: float | None

    def __init__(  # noqa: PLR0913 - each is a parameter of the search
        self,
        program: Program,
        n: int = 3,
        *,
        reward_fn: Reward,
        threshold: float | None = None,
        fail_count: int | None = None,
        temperature: float | None = 1.0,
    ) -> None:
        """Check everything."""
        checked(program, n, reward_fn, threshold, fail_count)
        self.program, self.n, self.reward_fn = program, n, reward_fn
        self.threshold = None if threshold is None else float(threshold)
        self.fail_count = n - 1 if fail_count is None else fail_count
        self.temperature = temperature

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs: the program's."""
        return self.program.input_names

    async def forward(self, **inputs: Any) -> Prediction:
        """Try, and keep what is best."""
        best: tuple[float, Prediction, Trace] | None = None
        failures = 0
        for number in range(self.n):
            try:
                prediction, trace = await tried(self.program, tuned(self.program, number, self.temperature), inputs)
                reward = float(await rewarded(self.reward_fn, inputs, prediction))
            except NoReward:
                raise
            except Exception:
                failures += 1
                if failures > self.fail_count:
                    raise
                continue
            if best is None or reward > best[0]:
                best = reward, prediction, trace
            if self.threshold is not None and reward >= self.threshold:
                break
        assert best is not None  # at most n - 1 have failed
        recorded(best[2])
        return best[1]


class NoReward(ProgramError):
    """A reward function has returned what is no number."""


def checked(program: Any, n: Any, reward_fn: Any, threshold: Any, fail_count: Any) -> None:
    """Refuse what `BestOfN` and `Refine` cannot use.

    Raises:
        ProgramError: With the argument and what is allowed.
    """
    for name, value, ok, allowed in (
        ("program", program, isinstance(program, Program), "a program"),
        ("n", n, isinstance(n, int) and not isinstance(n, bool) and n >= 1, "an integer >= 1"),
        ("reward_fn", reward_fn, callable(reward_fn), "a function (inputs, prediction) -> number"),
        ("threshold", threshold, threshold is None or (_number(threshold)), "a number, or None"),
        (
            "fail_count",
            fail_count,
            fail_count is None or (isinstance(fail_count, int) and 0 <= fail_count < max(n, 1)),
            "an integer from 0 to n - 1, or None",
        ),
    ):
        if not ok:
            raise ProgramError(f"{name}={value!r}; allowed: {allowed}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def tuned(program: Program, number: int, temperature: float | None) -> Program:
    """Return the program for an attempt: as it is for the first one, another rollout for every further one.

    Args:
        program: The program.
        number: Which attempt, from 0.
        temperature: Of a further attempt; `None` leaves it.
    """
    if not number:
        return program

    def another(_: str, predictor: Predict) -> Predict:
        chance: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        return predictor.configured(rollout=predictor.rollout + number, **chance)

    return program.map_predictors(another)


async def tried(part: Program, copy: Program, inputs: Mapping[str, Any]) -> tuple[Prediction, Trace]:
    """Run a copy in the place of a part of the program; returns its prediction and its trace.

    Args:
        part: The part.
        copy: The copy.
        inputs: The inputs.
    """
    with attempting(part, copy) as trace:
        return await copy.acall(**inputs), trace


async def rewarded(reward_fn: Reward, inputs: Mapping[str, Any], prediction: Prediction) -> float:
    """Return what a reward function makes of a prediction; a plain one runs in a worker thread.

    Args:
        reward_fn: The function.
        inputs: What the program was given.
        prediction: What it returned.

    Raises:
        NoReward: If it returns no number.
        Exception: Whatever it raises.
    """
    function: Any = reward_fn
    if inspect.iscoroutinefunction(function):
        reward = await function(inputs, prediction)
    else:
        reward = await in_worker(lambda: function(inputs, prediction))
        if inspect.isawaitable(reward):
            reward = await reward
    try:
        number = float(reward)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        name = getattr(function, "__name__", repr(function))
        raise NoReward(f"{name} returned {_cut(reward)}; allowed: a number, a bool or a Score")
    return cast("float", reward)


def _cut(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except ValueError:  # an integer of too many digits
        return f"a {type(value).__name__} that is too large"
