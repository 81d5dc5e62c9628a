"""Leakage: rows of a devset that the trainset has too, word for word or nearly so.

A score on such rows says how well a program remembers, not how well it generalises.
"""

from __future__ import annotations

import html
import json
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, cast
from zlib import crc32

from otpy.errors import DatasetError
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Leak", "LeakReport", "leaks", "similarity"]

PIECE: Final = 3
"""Letters of a piece: short enough that a typing error in a short question changes few of them."""
SLACK: Final = 1e-9
"""Of comparisons of rounded numbers: rather one pair too many is looked at."""
SHOWN: Final = 10
"""Leaks that a report shows as text; all of them are in `leaks`."""
WIDTH: Final = 80
"""Letters of an input that a report shows."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of the devset that the trainset has too.

    Args:
        dev: Its position in the devset, from 0.
        train: The position in the trainset of a row like it; there may be more.
        similarity: How alike they are, at most 1.
        exact: Whether their inputs are the same, but for case, spacing and how accents are written.
        text: The row's inputs.
        twin: The inputs of the row in the trainset.
    """

    dev: int
    train: int
    similarity: float
    exact: bool
    text: str
    twin: str


@dataclass(frozen=True)
class LeakReport:
    """What `leaks` found; false if that is nothing.

    Args:
        leaks: A leak for each row of the devset that has one, in the devset's order.
        devset: How many rows the devset has.
        trainset: How many rows the trainset has.
        near: From which similarity on rows count as nearly the same.
    """

    leaks: tuple[Leak, ...]
    devset: int
    trainset: int
    near: float

    @property
    def exact(self) -> tuple[Leak, ...]:
        """The rows that are the same."""
        return tuple(leak for leak in self.leaks if leak.exact)

    @property
    def nearly(self) -> tuple[Leak, ...]:
        """The rows that are nearly the same."""
        return tuple(leak for leak in self.leaks if not leak.exact)

    @property
    def rows(self) -> frozenset[int]:
        """The positions in the devset of all rows that leak: leave these out, and nothing leaks."""
        return frozenset(leak.dev for leak in self.leaks)

    def __bool__(self) -> bool:
        """Whether anything leaks."""
        return bool(self.leaks)

    def __str__(self) -> str:
        """Put it in a line, with the first of the rows below."""
        lines = [self._line()]
        for leak in self.leaks[:SHOWN]:
            alike = "=" if leak.exact else f"{leak.similarity:.2f}"
            lines.append(f"  dev {leak.dev} {alike} train {leak.train}: {_short(leak.text)}")
            if not leak.exact:
                lines.append(f"    {_short(leak.twin)}")
        if (more := len(self.leaks) - SHOWN) > 0:
            lines.append(f"  and {more:,} more")
        return "\n".join(lines)

    def _line(self) -> str:
        of = f"{self.devset:,} rows of the devset"
        if not self.leaks:
            return f"none of {of} is among the {self.trainset:,} of the trainset"
        return (
            f"{len(self.leaks):,} of {of} ({len(self.leaks) / self.devset:.1%}) are in the trainset:"
            f" {len(self.exact):,} exactly, {len(self.nearly):,} nearly ({self.near:g} or more alike)"
        )

    def _repr_html_(self) -> str:
        """Show the line and the first rows in a notebook."""
        body = "".join(
            f"<tr><td>{leak.dev}</td><td>{leak.train}</td><td>{'same' if leak.exact else f'{leak.similarity:.2f}'}</td>"
            f"<td>{html.escape(_short(leak.text))}</td><td>{html.escape(_short(leak.twin))}</td></tr>"
            for leak in self.leaks[: 5 * SHOWN]
        )
        head = "<tr><th>dev</th><th>train</th><th>alike</th><th>devset</th><th>trainset</th></tr>"
        return f"<p><b>{html.escape(self._line())}</b></p>" + (f"<table>{head}{body}</table>" if body else "")


def leaks(
    trainset: Iterable[Mapping[str, Any]],
    devset: Iterable[Mapping[str, Any]],
    inputs: Iterable[str] | None = None,
    near: float = 0.9,
) -> LeakReport:
    """Find the rows of a devset that a trainset has too: with the same inputs, or nearly so.

    Inputs are compared without regard to case, spacing and how accents are written. How alike two rows are is the
    Jaccard similarity of the sets of three-letter pieces that their inputs are made of: how many pieces both have, out
    of all that either has. Every row that is alike enough to another is found, none is missed by chance.

    Which rows of the trainset are also in the devset is the same question with the sets exchanged.

    Source: Mitzenmacher, Pagh, Pham 2014, "Efficient Estimation for High Similarities using Odd Sketches"; here a
    sketch only rules pairs out, and what it leaves is compared itself.

    Args:
        trainset: The rows to learn from.
        devset: The rows to measure on.
        inputs: The columns to compare; left out, those marked by `with_inputs`.
        near: From which similarity on rows count as nearly the same, above 0, at most 1.

    Raises:
        DatasetError: If the inputs are not known, or a row lacks one.

    Example:
        >>> from otpy.evaluate.leakage import leaks
        >>> trainset = [{"q": "Where is my new card?"}, {"q": "How do I change my PIN?"}]
        >>> devset = [{"q": "where is my  new card?"}, {"q": "How do I change my PIN"}, {"q": "Why was I charged?"}]
        >>> print(leaks(trainset, devset, inputs=["q"]))
        2 of 3 rows of the devset (66.7%) are in the trainset: 1 exactly, 1 nearly (0.9 or more alike)
          dev 0 = train 0: where is my new card?
          dev 1 0.95 train 1: how do i change my pin
            how do i change my pin?
    """
    if isinstance(cast("Any", near), bool) or not isinstance(cast("Any", near), (int, float)) or not 0 < near <= 1:
        raise DatasetError(f"near={near!r}; allowed: a similarity above 0, at most 1")
    if isinstance(inputs, str):
        raise DatasetError(f"inputs={inputs!r} is one text; a list of columns is meant: [{inputs!r}]")
    names = None if inputs is None else tuple(inputs)
    train, dev = (
        [_text(row, names, number, what) for number, row in enumerate(rows)]
        for rows, what in ((trainset, "trainset"), (devset, "devset"))
    )
    first: dict[str, int] = {}
    for place, text in enumerate(train):
        first.setdefault(text, place)
    twins: dict[str, tuple[int, float] | None] = {}
    strangers = [text for text in dict.fromkeys(dev) if text not in first]
    for text, twin in zip(strangers, _near(strangers, list(first), near), strict=True):
        twins[text] = None if twin is None else (first[twin[0]], twin[1])
    found: list[Leak] = []
    for place, text in enumerate(dev):
        if (same := first.get(text)) is not None:
            found.append(Leak(place, same, 1.0, exact=True, text=text, twin=train[same]))
        elif (alike := twins[text]) is not None:
            found.append(Leak(place, *alike, exact=False, text=text, twin=train[alike[0]]))
    return LeakReport(tuple(found), len(dev), len(train), near)


def similarity(one: str, other: str) -> float:
    """Return how alike two texts are: the Jaccard similarity of the sets of their three-letter pieces.

    Example:
        >>> from otpy.evaluate.leakage import similarity
        >>> similarity("where is my card", "Where is my  card?")
        0.933...
    """
    return _jaccard(_pieces(_normal(one)), _pieces(_normal(other)))


def _jaccard(one: set[str], other: set[str]) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def _text(row: Mapping[str, Any], names: Sequence[str] | None, number: int, what: str) -> str:
    """A row's inputs as one text."""
    if names is None:
        names = row.input_names if isinstance(row, Example) else None
        if names is None:
            raise DatasetError(
                f"the inputs of row {number} are not known; name them: leaks(…, inputs=['question'])", what
            )
    try:
        values = [row[name] for name in names]
    except KeyError as error:
        has = ", ".join(row) or "nothing"
        raise DatasetError(f"row {number} has no column {error.args[0]!r}; it has {has}", what) from None
    # A line each: no normal text has one of its own.
    return "\n".join(_normal(value if isinstance(value, str) else _said(value)) for value in values)


def _short(text: str) -> str:
    line = text.replace("\n", " | ")
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _said(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    except (TypeError, ValueError):
        return str(value)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _pieces(text: str) -> set[str]:
    return {text[start : start + PIECE] for start in range(max(1, len(text) - PIECE + 1))}


class _Bits(dict[str, int]):
    """A bit for each piece, the same in every process."""

    def __init__(self, width: int) -> None:
        """Take the number of bits there are."""
        super().__init__()
        self.width = width

    def __missing__(self, piece: str) -> int:
        """Choose the bit, once for each piece."""
        self[piece] = bit = 1 << (crc32(piece.encode("utf-8", "surrogatepass")) % self.width)
        return bit

    def sketch(self, pieces: Iterable[str]) -> int:
        """Return which bits belong to an odd number of pieces: of sets that differ in n pieces at most n differ."""
        return reduce(int.__xor__, map(self.__getitem__, pieces), 0)


def _near(texts: Sequence[str], others: Sequence[str], near: float) -> Iterator[tuple[str, float] | None]:
    """For each text, one of the others that is alike enough, and how alike they are."""
    # The fewer pieces may differ, the fewer bits tell two texts apart; measured.
    bits = _Bits(1 << (sum(map(len, others)) * (1 if near >= 0.8 else 3) // max(1, len(others))).bit_length())
    known = sorted((len(pieces := _pieces(other)), other, bits.sketch(pieces)) for other in others)
    sizes = [size for size, _, _ in known]
    others = [other for _, other, _ in known]
    sketches = [sketch for _, _, sketch in known]
    for text in texts:
        pieces = _pieces(text)
        first = bisect_left(sizes, near * len(pieces) - SLACK)
        last = bisect_right(sizes, len(pieces) / near + SLACK)
        # One call a step for all others together: this is where the time goes.
        differ = list(map(int.bit_count, map(bits.sketch(pieces).__xor__, sketches[first:last])))
        yield _closest(pieces, differ, others[first:last], near) if differ else None


def _closest(pieces: set[str], differ: Sequence[int], others: Sequence[str], near: float) -> tuple[str, float] | None:
    # By the definition of the similarity, sets that are alike enough have no more than this in one of them only.
    most = (1 - near) / (1 + near) * (len(pieces) + len(_pieces(others[-1]))) + SLACK
    if min(differ) > most:
        return None
    for place in sorted(range(len(differ)), key=differ.__getitem__):
        if differ[place] > most:
            break
        if (alike := _jaccard(pieces, _pieces(others[place]))) >= near:
            return others[place], alike
    return None
