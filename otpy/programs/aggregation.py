"""`majority`: the answer that most of several give."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import ProgramError
from otpy.signatures import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["default_normalize", "majority"]


_AROUND: Final = " \"'`*_“”«»„()[]{}\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
_BEHIND: Final = _AROUND + ".,;:!?。、"


def default_normalize(value: Any) -> Any:
    """Return what a value counts as in a vote: a text without case, quotes around it and the point behind it.

    A text of nothing else counts as `None`; other values count as they are.

    Args:
        value: The value of a field.

    Example:
        >>> from otpy.programs.aggregation import default_normalize
        >>> default_normalize(" **Forty-two**. "), default_normalize("C++"), default_normalize("…")
        ('forty-two', 'c++', None)
    """
    if not isinstance(value, str):
        return value
    text = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return text.lstrip(_AROUND).rstrip(_BEHIND) or None


def majority(
    candidates: Any,
    normalize: Callable[[Any], Any] | None = default_normalize,
    field: str | None = None,
    *,
    ignore: Iterable[Any] = (),
) -> Prediction:
    """Return the first of those predictions that give the most frequent value of a field.

    Of values given equally often, the one that was given first wins.

    Args:
        candidates: Predictions or other mappings, or a `Prediction` that has some in its `completions`: a list, or a
            mapping from fields to lists.
        normalize: What a value counts as; `None` to count it as it is.
        field: The field that is voted on; the last one of the first candidate if `None`, which is the answer where
            reasoning comes first.
        ignore: Values, as normalized, that are no vote, such as `{None, "i don't know"}`. If all are, they all count.

    Raises:
        ProgramError: If there is no candidate, or one has no such field.

    Example:
        >>> from otpy.programs.aggregation import majority
        >>> majority([{"answer": "4"}, {"answer": "Five"}, {"answer": "five."}]).answer
        'Five'
        >>> majority([{"answer": None}, {"answer": None}, {"answer": "4"}], ignore={None}).answer
        '4'
    """
    rows = _rows(candidates)
    if not rows:
        raise ProgramError("majority() of nothing; give at least one prediction")
    voted = list(rows[0])[-1:] if field is None else [field]
    if not voted:
        raise ProgramError("majority(): the first prediction has no fields")
    (name,) = voted
    for number, row in enumerate(rows, 1):
        if name not in row:
            raise ProgramError(f"majority(): prediction {number} has no field {name!r}; it has {', '.join(row)}")
    counted = [row[name] if normalize is None else normalize(row[name]) for row in rows]
    ignored = list(ignore)
    votes = [value for value in counted if value not in ignored] or counted
    winner = max(votes, key=_tally(votes))  # `max` takes the first of equals
    row = rows[counted.index(winner)]
    return row if isinstance(row, Prediction) else Prediction(row)


def _tally(votes: Sequence[Any]) -> Callable[[Any], int]:
    try:
        counts: dict[Any, int] = {}
        for value in votes:
            counts[value] = counts.get(value, 0) + 1
    except TypeError:  # lists and other values that cannot be hashed are compared one by one
        return votes.count
    return counts.__getitem__


def _rows(candidates: Any) -> list[Mapping[str, Any]]:
    completions = getattr(candidates, "completions", None)
    given = candidates if completions is None else completions
    if isinstance(given, Mapping):
        columns = cast("Mapping[str, Any]", given)
        if not all(isinstance(column, (list, tuple)) for column in columns.values()):
            return [columns]  # a single prediction
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ProgramError(f"majority(): the fields have different numbers of values: {lengths}")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ProgramError(f"majority() takes predictions, not {candidates!r:.80}")
    rows: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for row in rows:
        if not isinstance(row, Mapping):
            raise ProgramError(f"majority() takes predictions, and one is {row!r:.80}")
    return rows
