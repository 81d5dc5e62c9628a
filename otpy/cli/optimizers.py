"""Which optimizers the command line knows, and how `--set name=value` becomes an argument of one."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from otpy.cli.targets import refused

if TYPE_CHECKING:
    from otpy.evaluate import Metric
    from otpy.teleprompters import Teleprompter

__all__ = ["COMMAND_NAMES", "by_class", "made", "names", "parameters"]

_KNOWN: Final = {
    "labeled": ("labeled_few_shot", "LabeledFewShot"),
    "bootstrap": ("bootstrap_few_shot", "BootstrapFewShot"),
    "random-search": ("random_search", "BootstrapFewShotWithRandomSearch"),
    "optuna": ("optuna_search", "BootstrapFewShotWithOptuna"),
    "knn": ("knn_few_shot", "KNNFewShot"),
    "copro": ("copro", "COPRO"),
    "mipro": ("mipro", "MIPROv2"),
    "simba": ("simba", "SIMBA"),
    "gepa": ("gepa", "GEPA"),
    "infer-rules": ("infer_rules", "InferRules"),
    "finetune": ("bootstrap_finetune", "BootstrapFinetune"),
    "grpo": ("grpo", "GRPO"),
}
_ROOMS: Final = "otpy.teleprompters"
COMMAND_NAMES: Final = {name: kind for kind, (_, name) in _KNOWN.items()}
"""What an optimizer is called on the command line, by its class's name."""
_ELSEWHERE: Final = {
    "metric": "--metric",
    "seed": "--seed",
    "max_concurrency": "--max-concurrency",
    "display_progress": "a terminal shows it",
}
_REQUIRED: Final[dict[str, dict[str, Any]]] = {"gepa": {"auto": "light"}}
"""What has no default in Python, because there it is to be thought about, and has one here."""
_INSTEAD: Final = {"gepa": ("auto", "max_full_evals", "max_metric_calls")}
_WORDS: Final = {**vars(typing), "Mapping": Mapping, "Sequence": Sequence, "Any": Any}
_PARAMETER: Final = re.compile(r"(?P<name>[A-Za-z_][\w-]*)=(?P<value>.*)", re.DOTALL)


def names() -> list[str]:
    """Return the names that `--optimizer` may say: those of the optimizers that are installed."""
    return [name for name, (room, _) in _KNOWN.items() if importlib.util.find_spec(f"{_ROOMS}.{room}") is not None]


def by_class(name: str) -> str:
    """Return what an optimizer is called on the command line, where it is called by its class, in whatever letters.

    Args:
        name: The class's name; any other is returned as it is.

    Example:
        >>> from otpy.cli.optimizers import by_class
        >>> by_class("miprov2"), by_class("gepa"), by_class("magic")
        ('mipro', 'gepa', 'magic')
    """
    return {kind.lower(): known for kind, known in COMMAND_NAMES.items()}.get(name.lower(), name)


def _class(name: str) -> type[Teleprompter[Any]]:
    if name not in (known := names()):
        raise refused("--optimizer", f"unknown optimizer {name!r}; known: {', '.join(known)}")
    room, kind = _KNOWN[name]
    found: type[Teleprompter[Any]] = getattr(importlib.import_module(f"{_ROOMS}.{room}"), kind)
    return found


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of an optimizer that `--set` may give, with their types.

    Args:
        name: Of the optimizer, on the command line.

    Raises:
        typer.BadParameter: If there is none of that name.

    Example:
        >>> from otpy.cli.optimizers import parameters
        >>> parameters("labeled")["balanced"]
        <class 'bool'>
    """
    cls = _class(name)
    room = vars(importlib.import_module(cls.__module__))
    found: dict[str, Any] = {}
    for parameter in list(inspect.signature(cls).parameters.values()):
        if parameter.name in _ELSEWHERE or parameter.kind is parameter.VAR_KEYWORD:
            continue
        try:
            kind = eval(str(parameter.annotation), {**_WORDS, **room})  # noqa: S307 - our own annotations
        except NameError:
            continue  # it takes an object of code, as an embedder, which no text is
        if _is_data(kind):
            found[parameter.name] = kind
    return found


def _is_data(kind: Any) -> bool:
    if (inner := typing.get_args(kind)) and typing.get_origin(kind) is not typing.Literal:
        return all(_is_data(one) for one in inner if one is not Ellipsis)
    return kind in {int, float, str, bool, type(None), Any, object} or typing.get_origin(kind) is typing.Literal


def _read(name: str, text: str, kind: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if text.lower() in {"none", "null"} and type(None) in typing.get_args(kind):
        return None
    reading = TypeAdapter[Any](kind)
    for read in (reading.validate_strings, reading.validate_json):
        try:
            return read(text)
        except ValidationError:
            continue
    raise refused("--set", f"{name}={text!r}; allowed: {_said(kind)}")


def _said(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    if kind in plain:
        return plain[kind]
    inner = typing.get_args(kind)
    if type(None) in inner:
        return ", or ".join(_said(one) for one in inner)
    return f"JSON, as {kind}".replace("typing.", "")


def _options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    allowed = parameters(name)
    found: dict[str, Any] = {}
    for text in settings:
        if (match := _PARAMETER.fullmatch(text)) is None:
            raise refused("--set", f"{text!r}; write it as name=value, as in {next(iter(allowed))}=…")
        given = match["name"].replace("-", "_")
        if given in _ELSEWHERE:
            raise refused("--set", f"{given} is told otherwise: {_ELSEWHERE[given]}")
        if given not in allowed:
            raise refused("--set", f"{name} has no {given!r} to be set; allowed: {', '.join(allowed)}")
        if given in found:
            raise refused("--set", f"{given} is given twice")
        found[given] = _read(given, match["value"], allowed[given])
    return found


def _demos(name: str, most: int) -> dict[str, int]:
    """What `--max-demos` means to an optimizer."""
    there = parameters(name)
    if {"max_bootstrapped_demos", "max_labeled_demos"} <= there.keys():
        return {"max_bootstrapped_demos": max(1, most // 4), "max_labeled_demos": most}
    for parameter in ("max_demos", "k"):
        if parameter in there:
            return {parameter: most}
    raise refused("--max-demos", f"{name} gives no demos; leave it out")


def made(
    name: str,
    metric: Metric,
    settings: Sequence[str],
    *,
    seed: int,
    max_demos: int | None = None,
    max_concurrency: int | None = None,
) -> Teleprompter[Any]:
    """Return the optimizer that was asked for.

    Args:
        name: What it is called on the command line.
        metric: What it goes by.
        settings: Parameters of it, each as `"name=value"`.
        seed: Decides every choice.
        max_demos: Demos a predictor gets, at most; `None` for the optimizer's own.
        max_concurrency: Rows in flight; the same.

    Raises:
        typer.BadParameter: If there is no such optimizer or parameter, or a value is none of its type.
        TeleprompterError: If the optimizer refuses a value.

    Example:
        >>> from otpy.cli.optimizers import made
        >>> from otpy.evaluate import exact_match
        >>> made("random-search", exact_match("answer"), ["num_candidate_programs=4"], seed=1).num_candidate_programs
        4
    """
    cls = _class(name)
    given = _options(name, settings)
    takes = inspect.signature(cls).parameters
    options: dict[str, Any] = {"seed": seed, "metric": metric, "max_concurrency": max_concurrency}
    options = {option: value for option, value in options.items() if option in takes and value is not None}
    if max_demos is not None:
        demos = _demos(name, max_demos)
        if twice := sorted(demos.keys() & given.keys()):
            raise refused("--set", f"{twice[0]} is what --max-demos says; give one of them")
        options.update(demos)
    if not any(parameter in given for parameter in _INSTEAD.get(name, ())):
        options.update(_REQUIRED.get(name, {}))
    return cls(**options, **given)
