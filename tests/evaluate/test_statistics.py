"""Numbers come with how sure they are: checked against scipy, by counting, and by how often they are wrong."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from otpy.errors import EvaluationError
from otpy.evaluate import statistics
from otpy.evaluate.statistics import (
    holm,
    mcnemar,
    mean,
    mean_interval,
    paired,
    quantile,
    sign_flip,
    student_t,
)

FINITE = st.floats(-1e300, 1e300, allow_subnormal=False)
SHARES = st.floats(0, 1)
SMALL = st.lists(st.sampled_from([-1.0, -0.75, -1 / 3, 0.0, 0.1, 0.2, 0.3, 1.0]), min_size=1, max_size=9)


# -- against scipy ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.data())
def test_the_interval_of_a_share_is_scipys_wilson(count, data):
    stats = pytest.importorskip("scipy.stats")
    right = data.draw(st.integers(0, count))
    wanted = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    found = mean_interval([1.0] * right + [0.0] * (count - right))
    assert found == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=50), SHARES)
def test_the_interval_of_numbers_of_any_size_is_scipys_student_t(values, confidence):
    stats = pytest.importorskip("scipy.stats")
    assume(0.01 < confidence < 0.999)
    assume(max(values) - min(values) > 1e-3)
    assume(not all(0 <= value <= 1 for value in values))
    wanted = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert mean_interval(values, confidence) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-6)


@given(st.floats(0.5, 0.9999), st.one_of(st.integers(1, 100_000), st.floats(1, 50)))
def test_quantiles_of_students_t_are_scipys(q, freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student_t(q, freedom) == pytest.approx(stats.t.ppf(q, freedom), rel=1e-7, abs=1e-7)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), SHARES)
def test_quantiles_are_numpys(values, q):
    numpy = pytest.importorskip("numpy")
    assert quantile(sorted(values), q) == pytest.approx(numpy.quantile(values, q), rel=1e-9, abs=1e-6)


@given(st.integers(0, 30_000), st.integers(0, 30_000))
@settings(max_examples=50)
def test_mcnemars_test_is_scipys_binomial_test_of_the_rows_that_differ(wins, losses):
    stats = pytest.importorskip("scipy.stats")
    assume(wins + losses)
    wanted = stats.binomtest(wins, wins + losses).pvalue
    assert mcnemar(wins, losses) == pytest.approx(wanted, rel=1e-7, abs=1e-300)


@given(SMALL)
@settings(max_examples=40, deadline=None)
def test_flipping_signs_is_scipys_permutation_test(differences):
    stats = pytest.importorskip("scipy.stats")
    assume(len(differences) > 1)
    wanted = stats.permutation_test(
        (differences,), sum, permutation_type="samples", n_resamples=math.inf, vectorized=False, alternative="two-sided"
    ).pvalue
    assert sign_flip(differences) == pytest.approx(min(1.0, wanted))


# -- against counting -------------------------------------------------------------------------------------------------


@given(SMALL)
def test_for_few_rows_all_flips_are_counted(differences):
    seen = abs(math.fsum(differences))
    flips = [
        abs(math.fsum(sign * difference for sign, difference in zip(signs, differences, strict=True))) >= seen - 1e-9
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(differences) == sum(flips) / len(flips)


def test_random_flips_come_close_to_all_flips_and_are_never_zero():
    noise = random.Random(3)
    differences = [noise.gauss(0.3, 1) for _ in range(24)]
    assert sign_flip(differences, resamples=20_000) == pytest.approx(sign_flip(differences), abs=0.01)
    few = [noise.choice([-0.5, 0.25, 0.5, 1.0]) for _ in range(24)]
    assert sign_flip(few, resamples=20_000) == pytest.approx(sign_flip(few), abs=0.01)
    assert sign_flip([1.0 + n / 1000 for n in range(500)]) == 1 / 10_000


@given(st.lists(SHARES, min_size=2, max_size=60), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_same_scores_say_the_same_every_time_and_the_other_way_round(ones, seed):
    others = list(reversed(ones))
    found, again, turned = paired(ones, others, seed=seed), paired(ones, others, seed=seed), paired(others, ones)
    assert found == again
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-found.difference, -found.high, -found.low))
    assert 0 < found.p_value <= 1


@given(st.lists(SHARES, min_size=1, max_size=12))
def test_holms_correction_never_makes_a_comparison_surer_and_keeps_their_order(p_values):
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    ranked = sorted(zip(p_values, corrected, strict=True))
    assert [q for _, q in ranked] == sorted(corrected)
    assert min(corrected) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


# -- what must hold ---------------------------------------------------------------------------------------------------


@given(st.one_of(st.lists(SHARES, min_size=1, max_size=40), st.lists(FINITE, min_size=1, max_size=40)))
def test_the_mean_is_inside_of_its_interval_which_stays_where_scores_can_be(values):
    low, high = mean_interval(values)
    middle = mean(values)
    slack = 1e-12 * max(map(abs, values))
    assert low - slack <= middle <= high + slack
    if all(0 <= value <= 1 for value in values):
        assert 0 <= low < high <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_booleans_are_scores(values):
    assert mean_interval(values) == mean_interval([float(value) for value in values])


def test_one_row_says_little_and_none_says_nothing():
    assert mean_interval([1.0]) == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert mean_interval([0.5]) == (0.0, 1.0)
    assert mean_interval([7.0]) == (-math.inf, math.inf)
    for nothing in (mean, mean_interval):
        with pytest.raises(EvaluationError, match="no numbers"):
            nothing([])
    with pytest.raises(EvaluationError, match="no numbers"):
        quantile([], 0.5)
    with pytest.raises(EvaluationError, match="no numbers"):
        paired([], [])


def test_rows_that_are_all_alike_are_no_certainty():
    low, high = mean_interval([0.5] * 20)
    assert (low, high) == pytest.approx((0.4327, 0.5673), abs=1e-4)
    low, high = paired([0.5] * 20, [0.5] * 20)[1:3]
    assert low < 0 < high
    assert mean_interval([3.0] * 20) == (-math.inf, math.inf)


def test_the_largest_and_the_smallest_floats_are_scores_too():
    low, high = mean_interval([1e308, -1e308, 5e307])
    assert low < 1e307 < high
    low, high = mean_interval([1e-300, 3e-300, -2e-300])
    assert low < 1e-300 < high < 1e-298
    with pytest.raises(EvaluationError, match="so far apart"):
        paired([1.7e308], [-1.7e308])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantile([1.0], 99), "q=99; allowed: a share from 0 to 1"),
        (lambda: quantile([1.0], math.nan), "q=nan"),
        (lambda: mean_interval([1.0], 95), "confidence=95; allowed: a share between 0 and 1"),
        (lambda: paired([1.0], [1.0, 0.0]), "1 scores of one and 2 of the other"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()


# -- how often they are wrong -----------------------------------------------------------------------------------------


def graded(noise, ability):
    """A score as f1 gives it: often 1, sometimes 0, else between."""
    drawn = noise.random()
    return 1.0 if drawn < ability else 0.0 if drawn < ability + 0.15 else noise.betavariate(2, 2)


KINDS = {
    "right or wrong": lambda noise, ability: float(noise.random() < ability),
    "graded": graded,
    "three runs": lambda noise, ability: sum(noise.random() < ability for _ in range(3)) / 3,
    "without bounds": lambda noise, ability: noise.gauss(10 * ability, 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [8, 25])
def test_a_program_against_itself_is_not_significant_more_often_than_its_level(kind, rows):
    noise, times = random.Random(f"{kind} {rows}"), 400
    small = 0
    for _ in range(times):
        abilities = [noise.betavariate(2, 1) for _ in range(rows)]  # hard rows and easy ones, the same for both
        ones, others = ([KINDS[kind](noise, ability) for ability in abilities] for _ in range(2))
        small += paired(ones, others).p_value <= 0.05
    assert small <= times * 0.05 + 3 * math.sqrt(times * 0.05 * 0.95)


def test_random_flips_keep_the_level_too():
    noise, times = random.Random(5), 400
    small = sum(
        sign_flip([noise.gauss(0, 1) for _ in range(60)], resamples=199, seed=seed) <= 0.05 for seed in range(times)
    )
    assert small <= times * 0.05 + 3 * math.sqrt(times * 0.05 * 0.95)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [5, 20, 100])
def test_intervals_hold_the_truth_as_often_as_they_say(kind, rows):
    noise, times = random.Random(f"{kind} {rows}"), 300
    truth = {"graded": 0.6 + 0.25 * 0.5, "without bounds": 6.0}.get(kind, 0.6)
    held = 0
    for _ in range(times):
        low, high = mean_interval([KINDS[kind](noise, 0.6) for _ in range(rows)])
        held += low <= truth <= high
    assert held >= times * 0.95 - 3 * math.sqrt(times * 0.05 * 0.95)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [5, 20, 100])
def test_intervals_of_a_difference_hold_it_as_often_as_they_say(kind, rows, monkeypatch):
    monkeypatch.setattr(statistics, "LEAST", 9)  # the p-value is not looked at
    monkeypatch.setattr(statistics, "WORK", 9)
    noise, times = random.Random(f"{kind} {rows}"), 200
    truth = {"graded": 0.5 * 0.2, "without bounds": 2.0}.get(kind, 0.2)
    held = 0
    for _ in range(times):
        ones, others = ([KINDS[kind](noise, ability) for _ in range(rows)] for ability in (0.7, 0.5))
        _, low, high, _, _ = paired(ones, others)
        held += low <= truth <= high
    assert held >= times * 0.95 - 3 * math.sqrt(times * 0.05 * 0.95)


def test_twenty_thousand_rows_take_no_time():
    noise = random.Random(1)
    ones, others = ([noise.random() for _ in range(20_000)] for _ in range(2))
    began = time.process_time()
    mean_interval(ones)
    paired(ones, others)
    assert time.process_time() - began < 1.0  # 0.2 s on an idle machine
