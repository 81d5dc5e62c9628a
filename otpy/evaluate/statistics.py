"""How sure is a number? Intervals, quantiles and paired tests for scores; pure, and the same every time.

Which method, and why:

* The mean of scores that are all 0 or 1: Wilson's interval. It holds for few rows and near 0 % and 100 %, where the
  textbook's `± 1.96 standard errors` does not (E. B. Wilson, 1927; Brown, Cai and DasGupta, "Interval Estimation for a
  Binomial Proportion", 2001).
* Scores between 0 and 1: Student's t over the scores and two more, one at each end of the range. Twenty perfect scores
  are no proof of perfection; the two keep the interval from closing up, and count for nothing among many rows. It is
  the idea of A. Agresti and B. Caffo ("Simple and Effective Confidence Intervals", 2000), with t for small samples. A
  bootstrap is too narrow for few rows, as it cannot draw what it has not seen.
* Scores of any size: Student's t. Without a spread, as for one row, nothing is known, and the interval has no ends.
* The difference of two programs on the same rows: the same two, over the differences; for scores of 0 and 1 that is
  the interval of D. Bonett and R. Price ("Adjusted Wald Confidence Intervals for a Difference of Binomial Proportions
  Based on Paired Data", 2012), with t.
* Its p-value: McNemar's test where all scores are 0 or 1, exact; else the differences' signs are flipped, in all ways
  for few rows, in random ways for many (R. A. Fisher, 1935; counted as by B. Phipson and G. Smyth, "Permutation
  P-values Should Never Be Zero", 2010). It is another method than the interval's and may disagree with it: of ten
  rows that are all better by 0.01, it is 0.002, and the interval is from -0.26 to 0.27. It decides what is better.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

from otpy.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Paired", "holm", "mcnemar", "mean", "mean_interval", "paired", "quantile", "sign_flip", "student_t"]

EXACT: Final = 28
"""Differences that are not 0 whose signs are flipped in all ways, 2**28 of them."""
RESAMPLES: Final = 9_999
"""Random ways to flip the signs of more differences than that."""
COUNTED: Final = 10_000
"""Rows that differ for which the binomial's tail is counted in whole numbers."""
WORK: Final = 60_000_000
"""Signs that are flipped at most, as long as `LEAST` ways remain: 20,000 rows take about 0.2 s."""
LEAST: Final = 999
DIGITS: Final = 16
"""Binary digits of a difference that are looked at, for random flips."""
UNKNOWN: Final = (-math.inf, math.inf)


def mean(values: Sequence[float]) -> float:
    """Return the mean, right to the last digit.

    Args:
        values: Finite numbers, one at least.

    Raises:
        EvaluationError: If there are none.

    Example:
        >>> from otpy.evaluate.statistics import mean
        >>> mean([0.1] * 10), mean([1e308, 1e308])
        (0.1, 1e+308)
    """
    if not values:
        raise EvaluationError("no numbers, so there is no mean")
    scale = _scale(values)
    return math.fsum(value / scale for value in values) / len(values) * scale


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of an interval that has the true mean in it, this often.

    Each value must be of a row of its own: of a row that was run several times, take the mean first. Runs of one row
    resemble each other, and counted one by one they would make the interval too narrow.

    Args:
        values: Finite numbers, one at least.
        confidence: How often, between 0 and 1.

    Raises:
        EvaluationError: If there are no values, or the confidence is not between 0 and 1.

    Example:
        >>> from otpy.evaluate.statistics import mean_interval
        >>> low, high = mean_interval([1.0] * 392 + [0.0] * 108)
        >>> f"{100 * low:.1f} to {100 * high:.1f}"
        '74.6 to 81.8'
        >>> mean_interval([3.5])
        (-inf, inf)
    """
    _check_share("confidence", confidence)
    middle = mean(values)
    if all(value in {0.0, 1.0} for value in values):
        return _wilson(middle, len(values), NormalDist().inv_cdf((1 + confidence) / 2))
    if min(values) >= 0.0 and max(values) <= 1.0:
        return _bounded(values, 0.0, 1.0, confidence)
    return _student(values, confidence)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return what a share of the values is below, between two of them in proportion.

    It is type 7 of R. Hyndman and Y. Fan ("Sample Quantiles in Statistical Packages", 1996), as of NumPy and R.

    Args:
        ordered: Finite numbers, sorted, one at least.
        q: The share, from 0 to 1.

    Raises:
        EvaluationError: If there are no values, or the share is not from 0 to 1.

    Example:
        >>> from otpy.evaluate.statistics import quantile
        >>> quantile([1.0, 2.0, 3.0, 10.0], 0.5)
        2.5
    """
    if not ordered:
        raise EvaluationError("no numbers, so there is no quantile")
    if not 0 <= q <= 1:
        raise EvaluationError(f"q={q!r}; allowed: a share from 0 to 1, as 0.99")
    place = (len(ordered) - 1) * q
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (place - below) * (high - low)


class Paired(NamedTuple):
    """What two programs' scores on the same rows say about their difference.

    The p-value asks whether these rows differ by chance, the interval how far apart the programs may be on all rows.

    Args:
        difference: The mean of the differences.
        low: The lower end of its interval.
        high: The upper end.
        p_value: How often chance alone makes a difference as large as this, or larger.
        test: What has found that.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str


def paired(ones: Sequence[float], others: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Paired:
    """Compare two programs' scores on the same rows.

    Args:
        ones: The scores of one, a row each.
        others: Those of the other, in the same order.
        confidence: Of the interval.
        seed: Decides how signs are flipped, where not all ways are.

    Raises:
        EvaluationError: If there are no scores, not as many of one as of the other, or no float for a difference.

    Example:
        >>> from otpy.evaluate.statistics import paired
        >>> found = paired([1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1, 0])
        >>> found.difference, found.p_value, found.test
        (0.75, 0.03125, 'exact McNemar test')
    """
    _check_share("confidence", confidence)
    if len(ones) != len(others):
        raise EvaluationError(f"{len(ones)} scores of one and {len(others)} of the other; a row has one of each")
    differences = [one - other for one, other in zip(ones, others, strict=True)]
    if not all(map(math.isfinite, differences)):
        raise EvaluationError("two scores are so far apart that no float can hold their difference")
    middle = mean(differences)
    scores = {*ones, *others}
    within = min(scores) >= 0.0 and max(scores) <= 1.0
    low, high = _bounded(differences, -1.0, 1.0, confidence) if within else _student(differences, confidence)
    if scores <= {0.0, 1.0}:
        p_value = mcnemar(differences.count(1.0), differences.count(-1.0))
        return Paired(middle, low, high, p_value, "exact McNemar test")
    exact = sum(1 for difference in differences if difference) <= EXACT
    test = f"{'exact ' if exact else ''}sign-flip permutation test"
    return Paired(middle, low, high, sign_flip(differences, seed=seed), test)


def mcnemar(wins: int, losses: int) -> float:
    """Return the p-value of McNemar's exact test: a fair coin would fall as unevenly as this, or more.

    Args:
        wins: Rows that only one program has right.
        losses: Rows that only the other has.

    Example:
        >>> from otpy.evaluate.statistics import mcnemar
        >>> mcnemar(5, 0), mcnemar(3, 3)
        (0.0625, 1.0)
    """
    fewer, more = sorted((wins, losses))
    if fewer == more:
        return 1.0
    count = fewer + more
    if count > COUNTED:
        return min(1.0, 2 * _beta(0.5, more, fewer + 1))  # the binomial's tail up to `fewer`, to 9 digits
    ways = tail = 1
    for place in range(fewer):
        ways = ways * (count - place) // (place + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << count))


def sign_flip(differences: Sequence[float], *, resamples: int | None = None, seed: int = 0) -> float:
    """Return the p-value of a paired permutation test: if both were alike, each sign could as well be the other.

    Up to 28 differences that are not 0, all flips are counted. Of more, random ones are, and what was seen as one of
    them, so that the p-value is never 0 and the test keeps its level.

    Args:
        differences: Of a row each.
        resamples: Random flips; by default 9,999, or fewer for more than 6,000 rows.
        seed: Decides them.

    Example:
        >>> from otpy.evaluate.statistics import sign_flip
        >>> sign_flip([0.5, 0.25, 0.75, 0.1, 0.2])  # all are better: two of 32 flips are as uneven
        0.0625
    """
    changed = [difference for difference in differences if difference]
    if len(changed) <= EXACT and resamples is None:
        return _all_flips(_whole(changed, 40))
    if resamples is None:
        resamples = max(LEAST, min(RESAMPLES, WORK // len(changed)))
    return _random_flips(_whole(changed, DIGITS), resamples, random.Random(seed))  # noqa: S311 - seeded, no secret


def holm(p_values: Iterable[float]) -> list[float]:
    """Return p-values corrected for how many there are: of twenty comparisons one is below 0.05 by chance.

    The method is S. Holm's ("A Simple Sequentially Rejective Multiple Test Procedure", 1979).

    Args:
        p_values: Of the comparisons, in any order.

    Example:
        >>> from otpy.evaluate.statistics import holm
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    given = list(p_values)
    corrected, least = [0.0] * len(given), 0.0
    for rank, place in enumerate(sorted(range(len(given)), key=given.__getitem__)):
        least = max(least, min(1.0, (len(given) - rank) * given[place]))
        corrected[place] = least
    return corrected


# -- intervals --------------------------------------------------------------------------------------------------------


def _wilson(share: float, count: int, z: float) -> tuple[float, float]:
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    middle, whole = share + z * z / (2 * count), 1 + z * z / count
    low = 0.0 if share == 0.0 else (middle - spread) / whole
    return low, 1.0 if share == 1.0 else (middle + spread) / whole


def _bounded(values: Sequence[float], least: float, most: float, confidence: float) -> tuple[float, float]:
    """Student's t, over one more value at each end of the range."""
    if len(values) == 1:
        return least, most
    more = [*values, least, most]
    middle = mean(more)
    variance = math.fsum((value - middle) ** 2 for value in more) / len(more)
    half = student_t((1 + confidence) / 2, len(values) - 1) * math.sqrt(variance / len(more))
    return max(least, middle - half), min(most, middle + half)


def _student(values: Sequence[float], confidence: float) -> tuple[float, float]:
    count = len(values)
    scale = _scale(values)
    middle = math.fsum(value / scale for value in values) / count
    squares = math.fsum((value / scale - middle) ** 2 for value in values)
    if count == 1 or min(values) == max(values):
        return UNKNOWN
    half = student_t((1 + confidence) / 2, count - 1) * math.sqrt(squares / (count - 1) / count)
    return (middle - half) * scale, (middle + half) * scale


def _scale(values: Sequence[float]) -> float:
    """A power of two that makes the largest about 1, so that no square is too large or too small for a float."""
    largest = max(map(abs, values))
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def student_t(q: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        q: The share below it, from 0.5 to less than 1.
        freedom: Degrees of freedom, more than 0.

    Example:
        >>> from otpy.evaluate.statistics import student_t
        >>> round(student_t(0.975, 9), 4)
        2.2622
    """
    low, high = 0.0, 1.0
    while _beyond(high, freedom) > 1 - q:
        low, high = high, 2 * high
    for _ in range(200):  # it halves the way until floats are next to each other: 60 times or fewer
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (middle, high) if _beyond(middle, freedom) > 1 - q else (low, middle)
    return high


def _beyond(t: float, freedom: float) -> float:
    square = t * t
    if square < freedom:  # else a small t would be lost beside the freedom
        return 0.5 - _beta(square / (freedom + square), 0.5, freedom / 2) / 2
    return _beta(freedom / (freedom + square), freedom / 2, 0.5) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function, by its continued fraction (NIST's handbook, 8.17.22) and Lentz."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction is quick below only
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    found = d
    for m in range(1, 100_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * found


# -- permutations -----------------------------------------------------------------------------------------------------


def _whole(values: Sequence[float], digits: int) -> list[int]:
    """Values as whole numbers of this many binary digits: sums of them are exact, whatever their order."""
    scale = _scale(values) if values else 1.0
    return [round(math.ldexp(value / scale, digits - 1)) for value in values]


def _all_flips(values: Sequence[int]) -> float:
    """Count all flips, as pairs of those of one half and those of the other."""
    half = len(values) // 2
    ones, others = _sums(values[:half]), sorted(_sums(values[half:]))
    seen = abs(sum(values)) - len(values)  # sums that differ by no more than was rounded off are the same
    if seen <= 0:
        return 1.0
    count = sum(len(others) - bisect_left(others, seen - one) + bisect_right(others, -seen - one) for one in ones)
    return count / (1 << len(values))


def _sums(values: Sequence[int]) -> list[int]:
    sums = [0]
    for value in values:
        sums = [total + value for total in sums] + [total - value for total in sums]
    return sums


def _random_flips(values: Sequence[int], resamples: int, random: random.Random) -> float:
    """Count some flips, all values at once: a random integer has a bit for each, and says whose sign is kept.

    What is kept is summed digit by digit, by counting the bits that the integer shares with that digit of all values.
    """
    sizes = [abs(value) for value in values]
    different = Counter(sizes)
    if len(different) <= DIGITS:
        planes = [(size, _mask(size == other for other in sizes)) for size in different if size]
    else:
        binary = "".join(format(size, f"0{DIGITS}b") for size in sizes)
        planes = [(1 << DIGITS - 1 - place, int(binary[place::DIGITS], 2)) for place in range(DIGITS)]
    whole, seen = sum(sizes), abs(sum(values))
    count = 1
    for _ in range(resamples):
        kept = random.getrandbits(len(sizes) or 1)
        count += abs(2 * sum([weight * (kept & mask).bit_count() for weight, mask in planes]) - whole) >= seen
    return count / (resamples + 1)


def _mask(bits: Iterable[bool]) -> int:
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise EvaluationError(f"{name}={value!r}; allowed: a share between 0 and 1, as 0.95")
