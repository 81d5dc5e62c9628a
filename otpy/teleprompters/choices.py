"""What a search may choose besides instructions and demos: the model, how it is asked, how much it is shown."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters import state_of
from otpy.clients.running import running
from otpy.errors import NoApplication, OtpyError, TeleprompterError
from otpy.programs import Predict, Program
from otpy.programs.parts import mapped, programs_in

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["Choices", "check_choices"]

NAMES: Final = ("adapter", "client", "k", "reasoning", "temperature")
"""What may be chosen: parameters of `Predict`, and how many demos are shown or passages looked for."""


class Choices:
    """Parameters of a program, and the values that a search may give them; what the program has is one of them always.

    Args:
        choose: Values by parameter. `"temperature"` is that of every predictor, the same for all;
            `"answer.predict.temperature"` that of the predictor with this path. There are `client` (the name of a
            model's client), `temperature`, `reasoning` (how hard to think, in the provider's words), `adapter`, and
            `k`: the demos that are shown at most, or, with the path of a `Retrieve`, the passages it looks for.
        most_demos: How many demos a predictor can have.

    Raises:
        TeleprompterError: If there is no such parameter, or a value is not one of its.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.teleprompters.choices import Choices
        >>> choices = Choices({"client": ["small", "large"], "temperature": [0.0, 0.7]}, most_demos=4)
        >>> choices.sizes
        {'choose client': 3, 'choose temperature': 3}
        >>> choices.applied(Predict("question -> answer"), {"choose client": 2, "choose temperature": 0}).client
        'large'
    """

    def __init__(self, choose: Mapping[str, Iterable[Any]] | None = None, most_demos: int = 0) -> None:
        """Check what can be checked without a program."""
        given: Any = {} if choose is None else choose
        if not hasattr(given, "items"):
            raise TeleprompterError(
                f"choose={given!r:.100}; allowed: values by parameter, as {{'temperature': [0.0, 0.7]}}"
            )
        self._values: dict[str, tuple[Any, ...]] = {
            str(key): _checked(key, values, most_demos) for key, values in given.items()
        }

    def __bool__(self) -> bool:
        """Whether there is anything to choose."""
        return bool(self._values)

    def __repr__(self) -> str:
        """Print it so that whatever differs prints differently: a journal is of the same choices only."""
        told = {key: [_plain(value) for value in values] for key, values in self._values.items()}
        return f"Choices({json.dumps(told, sort_keys=True)})"

    @property
    def sizes(self) -> dict[str, int]:
        """How many alternatives each choice has; 0 is what the program has."""
        return {f"choose {key}": len(values) + 1 for key, values in self._values.items()}

    def check(self, student: Program, clients: Collection[str] | None) -> None:
        """Refuse choices that a program cannot have.

        Args:
            student: The program.
            clients: The names that may be asked; `None` if nobody knows.

        Raises:
            TeleprompterError: With the choice, the value and what is allowed.
        """
        predictors = [path for path, _ in student.named_predictors()]
        for key, values in self._values.items():
            path, _, name = key.rpartition(".")
            parts = {
                at for at, part in _parts(student, "") if name == "k" and isinstance(getattr(part, "k", None), int)
            }
            if path and path not in predictors and path not in parts:
                there = ", ".join([*predictors, *sorted(parts)])
                raise TeleprompterError(f"choose[{key!r}]: the program has no {path!r}; there are {there}")
            for at, value in enumerate(values, 1):
                if name == "client" and clients is not None and value not in clients:
                    names = ", ".join(sorted(clients)) or "none"
                    raise TeleprompterError(f"choose[{key!r}]: no client is called {value!r}; there are {names}")
                try:
                    self.applied(student, {f"choose {key}": at})
                except OtpyError as error:
                    raise TeleprompterError(f"choose[{key!r}]: {_plain(value)!r}: {error}") from error

    def variants(self, student: Program) -> list[Program]:
        """Return the program as it is, and with each value alone: what they take differs.

        Args:
            student: The program.
        """
        each = [{key: at} for key, size in self.sizes.items() for at in range(1, size)]
        return [student, *(self.applied(student, choice) for choice in each)]

    def drawn(self, rng: random.Random, count: int) -> list[dict[str, int]]:
        """Return combinations of alternatives by chance, none of them again before all have been there.

        Args:
            rng: The chance.
            count: How many.

        Example:
            >>> import random
            >>> from otpy.teleprompters.choices import Choices
            >>> drawn = Choices({"temperature": [0.5]}).drawn(random.Random(0), 4)
            >>> [one["choose temperature"] for one in drawn]
            [1, 0, 1, 0]
        """
        every = math.prod(self.sizes.values())
        numbers = rng.sample(range(every), min(every, count))
        found: list[dict[str, int]] = []
        for at in range(count):
            left, choice = numbers[at % len(numbers)], dict[str, int]()
            for name, size in self.sizes.items():
                left, choice[name] = divmod(left, size)
            found.append(choice)
        return found

    def told(self, choice: Mapping[str, int]) -> dict[str, Any]:
        """Return a choice as JSON data: values where numbers stand for them, without what the program has anyway.

        Args:
            choice: Alternatives by the names of `sizes`, and others, which stay as they are.
        """
        others = {name: at for name, at in choice.items() if name not in self.sizes}
        return {**others, **{f"choose {key}": _plain(value) for key, value in self._chosen(choice)}}

    def applied(self, program: Any, choice: Mapping[str, int]) -> Any:
        """Return a program with what was chosen.

        Args:
            program: The program.
            choice: Alternatives by the names of `sizes`, others among them.
        """
        chosen = sorted(self._chosen(choice), key=lambda one: one[0].count("."))  # what is said of one comes last
        for key, value in chosen:
            path, _, name = key.rpartition(".")
            predictors = [at for at, _ in program.named_predictors() if not path or at == path]
            if not predictors:
                program = _with_part(program, path, value)
                continue
            program = _changed(program, predictors, name, value)
        return program

    def _chosen(self, choice: Mapping[str, int]) -> list[tuple[str, Any]]:
        return [
            (key, values[at - 1]) for key, values in self._values.items() if (at := choice.get(f"choose {key}", 0)) > 0
        ]


def check_choices(choices: Choices | None, student: Program) -> None:
    """Refuse choices that a program cannot have in the application that runs.

    Args:
        choices: The choices, if there are some.
        student: The program.

    Raises:
        TeleprompterError: As `Choices.check`.
    """
    if choices is None:
        return
    try:
        settings = running().settings
    except NoApplication:  # for an estimate there need be none
        choices.check(student, None)
    else:
        choices.check(student, {**settings.clients, **settings.routes})


def _changed(program: Program, paths: Collection[str], name: str, value: Any) -> Program:
    return program.map_predictors(lambda at, old: _with(old, name, value) if at in paths else old)


def _with(predictor: Predict, name: str, value: Any) -> Predict:
    if name == "k":
        return predictor if len(predictor.demos) <= value else predictor.replace_demos(predictor.demos[:value])
    return predictor.configured(**{name: value})


def _parts(program: Program, before: str) -> Iterator[tuple[str, Program]]:
    """All programs inside of one, at any depth."""
    for attribute, value in vars(program).items():
        for path, part in programs_in(value, f"{before}{attribute}", Program):
            yield path, part
            yield from _parts(part, f"{path}.")


def _with_part(program: Program, path: str, k: int) -> Program:
    """Give `k` to the program inside of one."""

    def changed(at: str, part: Program) -> Program:
        if at == path:
            rebuilt: Any = type(part)
            return rebuilt(**{**vars(part), "k": k}) if _own(part) else part.replace(k=k)
        return _with_part(part, path[len(at) + 1 :], k) if path.startswith(f"{at}.") else part

    content = {name: mapped(value, name, Program, changed) for name, value in vars(program).items()}
    return program.replace(**content)


def _own(part: Program) -> bool:
    """Whether it is a `Retrieve`, whose constructor checks its values."""
    return set(vars(part)) == {"retriever", "k", "where"}


def _checked(key: Any, values: Any, most_demos: int) -> tuple[Any, ...]:
    name = key.rpartition(".")[2] if isinstance(key, str) else None
    if name not in NAMES:
        raise TeleprompterError(
            f"choose[{key!r}]: no such parameter; allowed: {', '.join(NAMES)}, alone or after a predictor's path"
        )
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TeleprompterError(f"choose[{key!r}]={values!r:.100}; allowed: a list of values")
    several: tuple[Any, ...] = tuple(values)
    if not several:
        raise TeleprompterError(f"choose[{key!r}] is empty; give at least one value, or leave it out")
    for value in several:
        _check_value(key, name, value, most_demos)
    ordered = sorted(json.dumps(_plain(value)) for value in several)
    if twice := next((one for one, other in pairwise(ordered) if one == other), None):
        raise TeleprompterError(f"choose[{key!r}] has {twice} twice")
    return several


def _check_value(key: str, name: str, value: Any, most_demos: int) -> None:
    if name == "k":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TeleprompterError(f"choose[{key!r}]: {value!r}; allowed: integers >= 0")
        if key == "k" and value > most_demos:
            raise TeleprompterError(
                f"choose['k']: {value}, and a predictor has at most {most_demos} demos; allow for more, or ask for less"
            )
        return
    try:
        Predict("question -> answer").configured(**{name: value})
    except OtpyError as error:
        raise TeleprompterError(f"choose[{key!r}]: {error}") from error


def _plain(value: Any) -> Any:
    """A value as JSON data."""
    return value if isinstance(value, (str, int, float, type(None))) else state_of(value)
