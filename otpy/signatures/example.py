"""`Example` and `Prediction`: rows of data, immutable, by attribute or by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.errors import SignatureError
from otpy.lm import Usage

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Example", "Prediction", "among", "came_of", "exchanges_of", "retold"]

E = TypeVar("E", bound="Example")


class Example(Mapping[str, Any]):
    """One row: named values, some of which are a program's inputs.

    Args:
        base: A mapping to start from.
        fields: Further values; they win.

    Example:
        >>> from otpy.signatures import Example
        >>> row = Example(question="2 + 2?", answer="4").with_inputs("question")
        >>> row.answer, dict(row.inputs())
        ('4', {'question': '2 + 2?'})
    """

    __slots__ = ("_fields", "_inputs")

    _fields: dict[str, Any]
    _inputs: tuple[str, ...] | None

    def __init__(self, base: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Keep the values."""
        inputs = base.input_names if isinstance(base, Example) else None
        object.__setattr__(self, "_fields", {**(base or {}), **fields})
        object.__setattr__(self, "_inputs", inputs)

    def with_inputs(self, *names: str) -> Self:
        """Return a copy in which these fields are the inputs.

        Raises:
            SignatureError: If a field does not exist.
        """
        for name in names:
            if name not in self._fields:
                raise SignatureError(f"no field {name!r} to be an input; this example has {', '.join(self._fields)}")
        copy = self.copy()
        object.__setattr__(copy, "_inputs", tuple(names))
        return copy

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names given to `with_inputs`, or `None`."""
        return self._inputs

    def inputs(self) -> Example:
        """Return the inputs.

        Raises:
            SignatureError: If `with_inputs` was never called.
        """
        if self._inputs is None:
            raise SignatureError(f"{self!r:.200}: its inputs are not known; call .with_inputs('…') on it")
        return Example({name: self._fields[name] for name in self._inputs})

    def labels(self) -> Example:
        """Return everything but the inputs.

        Raises:
            SignatureError: If `with_inputs` was never called.
        """
        inputs = self.inputs()
        return Example({name: value for name, value in self._fields.items() if name not in inputs})

    def without(self, *names: str) -> Example:
        """Return a copy without these fields."""
        kept = Example({name: value for name, value in self._fields.items() if name not in names})
        if self._inputs is not None:
            object.__setattr__(kept, "_inputs", tuple(name for name in self._inputs if name not in names))
        return kept

    def copy(self, **changes: Any) -> Self:
        """Return a copy, with some values changed or added."""
        slots = {slot: getattr(self, slot) for slot in _slots(type(self))}
        return _restore(type(self), {**slots, "_fields": {**self._fields, **changes}})

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a new dictionary."""
        return dict(self._fields)

    def __getitem__(self, name: str) -> Any:
        """Return a value by name."""
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._fields)

    def __len__(self) -> int:
        """Count the values."""
        return len(self._fields)

    def __getattr__(self, name: str) -> Any:
        """Return a value by attribute."""
        if not name.startswith("_"):
            try:
                return self._fields[name]
            except KeyError:
                pass
            known = ", ".join(self._fields) or "no fields"
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {known}")
        raise AttributeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: examples do not change."""
        raise AttributeError(f"examples do not change; .copy({name}={value!r}) returns a changed one")

    def __delattr__(self, name: str) -> None:
        """Refuse: examples do not change."""
        raise AttributeError(f"examples do not change; .without({name!r}) returns one without it")

    def __eq__(self, other: object) -> bool:
        """Whether the values are the same."""
        if isinstance(other, Example):
            return self._fields == other._fields
        return self._fields == other if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        """By content, if the values can be hashed; else by names."""
        try:
            return hash(frozenset(self._fields.items()))
        except TypeError:
            return hash(frozenset(self._fields))

    def _repr_html_(self) -> str:
        """Show the values as a table in a notebook."""
        import html  # noqa: PLC0415 - only notebooks need it

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for name, value in self.items()
        )
        return f"<table>{rows}</table>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values and which of them are inputs."""
        return _restore, (type(self), {slot: getattr(self, slot) for slot in _slots(type(self))})

    def __repr__(self) -> str:
        """Print the values."""
        values = ", ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"{type(self).__name__}({values})"


class Prediction(Example):
    """What a program returned: the outputs, what they cost, and how they came about.

    Args:
        base: A mapping of outputs.
        usage: Tokens and requests of the call, all attempts together.
        attempts: Every answer of the model, verbatim; more than one if it had to be asked again.
        unmet: What it should be and is not, in the words of the program's `Suggest`s.
        fields: Further outputs.

    Example:
        >>> from otpy.signatures import Prediction
        >>> prediction = Prediction(answer="4")
        >>> prediction.answer, prediction["answer"], prediction.usage.total_tokens
        ('4', '4', 0)
    """

    __slots__ = ("_exchanges", "_others", "attempts", "unmet", "usage")

    _exchanges: tuple[int, ...]
    _others: tuple[Prediction, ...]
    usage: Usage
    attempts: tuple[str, ...]
    unmet: tuple[str, ...]

    def __init__(
        self,
        base: Mapping[str, Any] | None = None,
        /,
        *,
        usage: Usage | None = None,
        attempts: tuple[str, ...] = (),
        unmet: tuple[str, ...] = (),
        **fields: Any,
    ) -> None:
        """Keep the outputs."""
        super().__init__(base, **fields)
        keep = object.__setattr__
        keep(self, "usage", Usage() if usage is None else usage)
        keep(self, "attempts", attempts)
        keep(self, "unmet", unmet)
        keep(self, "_exchanges", ())
        keep(self, "_others", ())

    @property
    def completions(self) -> tuple[Prediction, ...]:
        """All answers that will do, if the program asked for several; this one is the first of them."""
        return (self, *self._others)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all but what only this process's histories know."""
        restore, (kind, slots) = super().__reduce__()
        return restore, (kind, {slot: value for slot, value in slots.items() if slot != "_exchanges"})


def came_of(prediction: Prediction, exchanges: tuple[int, ...]) -> Prediction:
    """Note which exchanges led to a prediction that is just being made; its value is the same with them or without.

    Args:
        prediction: The prediction.
        exchanges: The numbers of the exchanges in the application's history.
    """
    object.__setattr__(prediction, "_exchanges", exchanges)
    return prediction


def among(predictions: Sequence[Prediction]) -> Prediction:
    """Return the first of several answers to one question, which knows the others.

    Args:
        predictions: The answers, at least one, just made.
    """
    first, *others = predictions
    object.__setattr__(first, "_others", tuple(others))
    return first


def retold(prediction: Prediction, usage: Usage, exchanges: tuple[int, ...]) -> Prediction:
    """Return a prediction with what the whole of a program has cost, in the place of what its last step has.

    Args:
        prediction: Of the last step.
        usage: Tokens and requests of all steps.
        exchanges: Their exchanges.
    """
    copy = Prediction(prediction, usage=usage, attempts=prediction.attempts, unmet=prediction.unmet)
    object.__setattr__(copy, "_others", prediction.completions[1:])
    return came_of(copy, exchanges)


def exchanges_of(prediction: Prediction) -> tuple[int, ...]:
    """Return the numbers of the exchanges that led to a prediction; none if it was not asked for in this process.

    Args:
        prediction: The prediction.
    """
    return prediction._exchanges  # noqa: SLF001 - no public name: it might be that of an output


def _slots(cls: type) -> list[str]:
    return [slot for base in cls.__mro__ for slot in getattr(base, "__slots__", ())]


def _restore(cls: type[E], slots: dict[str, Any]) -> E:
    example = object.__new__(cls)
    if issubclass(cls, Prediction):
        for slot, nothing in (("_exchanges", ()), ("_others", ()), ("unmet", ())):
            object.__setattr__(example, slot, nothing)
    for slot, value in slots.items():
        object.__setattr__(example, slot, value)
    return example
