"""`Vectors`: many vectors of one length, and which of them are closest to another. Pure.

Closeness is the cosine. Its rounding errors do not depend on where a vector stands: numpy's product of all of them, in
32-bit floats, says which could be among the closest, and the products of those are then summed exactly (`math.fsum`:
Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic"). So equal vectors always have equal scores, and results
are the same with numpy and without.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any

from otpy.errors import ConfigError
from otpy.retrieval.arrays import best_pairs, kth, numpy, view

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Vectors"]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of length 1, one after the other.

    Args:
        numbers: All their numbers, as 32-bit floats.
        width: Numbers in each.
    """

    numbers: array[float]
    width: int

    @classmethod
    def of(cls, rows: Iterable[Sequence[float]], count: int, whose: str) -> Vectors:
        """Bring vectors to length 1; one that is all zeros stays so, and is close to nothing.

        Args:
            rows: The vectors.
            count: How many there must be.
            whose: Where they come from, for messages.

        Raises:
            ConfigError: If there are more or fewer, or they differ in length, or hold what is no finite number.

        Example:
            >>> from otpy.retrieval.vectors import Vectors
            >>> list(Vectors.of([[3, 4], [0, 2]], 2, "me").numbers)
            [0.6000000238418579, 0.800000011920929, 0.0, 1.0]
        """
        numbers: array[float] = array("f")
        width, seen = 0, 0
        for row in rows:
            found = array("d", row)
            length = math.hypot(*found)
            width = width or len(found)
            if len(found) != width or not found or not math.isfinite(length):
                raise ConfigError(
                    f"{whose} gave vectors of {width} and {len(found)} numbers, or some that are not finite"
                )
            numbers.extend(_divided(found, length or 1.0))
            seen += 1
        if seen != count:
            raise ConfigError(f"{whose} gave {seen} vectors for {count} texts")
        return cls(numbers, width)

    def __len__(self) -> int:
        """Count them."""
        return len(self.numbers) // self.width if self.width else 0

    def joined(self, more: Vectors, whose: str) -> Vectors:
        """Return these and some more.

        Raises:
            ConfigError: If those have another length.
        """
        if not self.width or not more.width:
            return self if self.width else more
        self.check(more, whose)
        return Vectors(self.numbers + more.numbers, self.width)

    def check(self, other: Vectors, whose: str) -> None:
        """Refuse vectors that cannot be compared with these.

        Raises:
            ConfigError: If those have another length.
        """
        if other.width != self.width:
            raise ConfigError(
                f"{whose} gives vectors of {other.width} numbers now, and gave some of {self.width}: two models cannot"
                " be mixed; embed all passages anew"
            )

    def matrix(self) -> Any:
        """Return them as numpy's matrix, without a copy."""
        return view(self.numbers).reshape(-1, self.width)

    def closest(self, query: Vectors, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """Return the places of the vectors that are closest to another one, with their cosines.

        The closest is first, and of equals the first place.

        Args:
            query: A single vector, of the same length.
            k: How many, at most.
            among: The places that are meant; `None` for all.

        Example:
            >>> from otpy.retrieval.vectors import Vectors
            >>> corpus = Vectors.of([[1, 0], [0, 1], [2, 0]], 3, "me")
            >>> corpus.closest(Vectors.of([[3, 0]], 1, "me"), 2)
            [(0, 1.0), (2, 1.0)]
        """
        places: Iterable[int] = range(len(self)) if among is None else among
        if numpy() is not None:
            places = self._near(query, k, among)
        width, numbers, asked = self.width, self.numbers, query.numbers
        sums = ((at, math.fsum(map(mul, numbers[at * width : (at + 1) * width], asked))) for at in places)
        return best_pairs(((at, max(-1.0, min(1.0, cosine))) for at, cosine in sums), k)

    def _near(self, query: Vectors, k: int, among: Sequence[int] | None) -> list[int]:
        """The places that could be among the closest, for all that 32-bit floats can tell."""
        np = numpy()
        places = None if among is None else np.array(among, dtype="intp")
        rows = self.matrix() if places is None else self.matrix()[places]
        rough = np.einsum("ij,j->i", rows, view(query.numbers))  # `@` wakes BLAS's threads, and waits for all of them
        if k < len(rough):
            unsure = 2 * self.width * 2.0**-23  # a sum of so many products of vectors of length 1 is off by half of it
            kept = np.flatnonzero(rough >= kth(rough, k) - unsure)
            places = kept if places is None else places[kept]
        return list(range(len(rough)) if places is None else places.tolist())


def _divided(numbers: array[float], by: float) -> array[float]:
    if numpy() is None:
        return array("f", [number / by for number in numbers])
    return array("f", (view(numbers) / by).astype("f4").tobytes())
