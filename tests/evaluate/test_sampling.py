"""A split and a sample are drawn by lot: every row once, sizes as said, and the same for a seed everywhere."""

import hashlib
import json
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import otpy
from otpy.errors import DatasetError
from otpy.evaluate.sampling import sample, split

KINDS = st.lists(st.sampled_from("abcde"), min_size=2, max_size=60)


def rows(kinds):
    return [otpy.Example(n=n, kind=kind) for n, kind in enumerate(kinds)]


def numbers(part):
    return [row["n"] for row in part]


@given(KINDS, st.floats(0.01, 0.99), st.integers(0, 2**70), st.sampled_from([None, "kind"]))
def test_a_split_holds_every_row_once_and_is_as_big_as_was_said(kinds, share, seed, stratify):
    devset = rows(kinds)
    assume(0 < round(len(devset) * share) < len(devset))
    first, second = split(devset, share, seed=seed, stratify=stratify)
    assert sorted(numbers([*first, *second])) == list(range(len(devset)))
    assert len(first) == round(len(devset) * share)
    assert (first, second) == split(devset, share, seed=seed, stratify=stratify)


@given(st.integers(3, 200), st.data())
def test_sizes_and_shares_are_kept_in_any_mixture(count, data):
    sizes = data.draw(st.lists(st.integers(1, count // 2), min_size=1, max_size=4))
    assume(sum(sizes) < count)
    parts = split(rows("a" * count), *sizes)
    assert list(map(len, parts)) == [*sizes, count - sum(sizes)]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(count))
    half_and_sizes = [0.5, *data.draw(st.lists(st.integers(1, 3), max_size=2))]
    assume(round(count / 2) + sum(half_and_sizes[1:]) < count)
    assert [len(part) for part in split(rows("a" * count), *half_and_sizes)][1:-1] == half_and_sizes[1:]


@given(st.integers(10, 500))
def test_shares_that_add_up_to_one_leave_no_rest(count):
    parts = split(rows("a" * count), 0.7, 0.1, 0.2)
    assert [abs(len(part) - count * share) < 1 for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True)] == [
        True
    ] * 3


@given(KINDS, st.integers(1, 59), st.integers(0, 5))
def test_a_stratified_part_has_its_share_of_each_value(kinds, size, seed):
    size = 1 + size % (len(kinds) - 1)
    first, second = split(rows(kinds), size, seed=seed, stratify="kind")
    for part in (first, second):
        found = Counter(row.kind for row in part)
        for kind, count in Counter(kinds).items():
            assert abs(found[kind] - Fraction(count * len(part), len(kinds))) < 1


@given(KINDS, st.integers(0, 5), st.sampled_from([None, "kind"]))
def test_the_order_of_a_rows_fields_decides_nothing(kinds, seed, stratify):
    turned = [dict(reversed(row.to_dict().items())) for row in rows(kinds)]
    taken, again = (split(some, 1, seed=seed, stratify=stratify) for some in (rows(kinds), turned))
    assert [numbers(part) for part in taken] == [numbers(part) for part in again]
    assert numbers(sample(turned, 2, seed, stratify)) == numbers(sample(rows(kinds), 2, seed, stratify))


@given(KINDS, st.integers(1, 60), st.integers(0, 5), st.sampled_from([None, "kind"]))
def test_a_sample_is_the_first_part_of_a_split(kinds, n, seed, stratify):
    devset = rows(kinds)
    n = 1 + n % len(devset)
    taken = sample(devset, n, seed, stratify)
    assert len({row.n for row in taken}) == n
    assert taken == sample(iter(devset), n, seed, stratify)
    if n < len(devset):
        assert taken == split(devset, n, seed=seed, stratify=stratify)[0]


def test_a_seed_means_the_same_rows_in_every_version_and_on_every_machine():
    devset = [{"n": n, "kind": "abc"[n * n % 3]} for n in range(1_000)]
    assert numbers(sample(devset, 5, seed=0)) == [402, 993, 40, 186, 583]
    drawn = [
        numbers(part) for stratify in (None, "kind") for part in split(devset, 0.6, 0.3, 0.1, seed=7, stratify=stratify)
    ]
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16] == "ac8050ded28f400f"


def test_another_seed_means_other_rows():
    devset = rows("a" * 100)
    assert len({tuple(numbers(sample(devset, 5, seed))) for seed in range(50)}) == 50


def test_values_that_occur_once_land_in_a_part_by_lot():
    devset = rows(map(str, range(100)))
    parts = [split(devset, 0.8, seed=seed, stratify="kind")[0] for seed in range(20)]
    assert len({frozenset(numbers(part)) for part in parts}) == 20


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((), {}, "no part is named"),
        ((0.01,), {}, r"the parts 0.01 of 10 rows have 0, 10 rows"),
        ((10,), {}, "10, 0 rows"),
        ((8, 3), {}, "the parts 8, 3 take 11 rows, but there are 10; make them smaller"),
        ((0.8, 0.4), {}, "the shares 0.8, 0.4 add up to 1.2; allowed: at most 1"),
        ((0.5, 6), {}, "the parts 0.5, 6 take 11 rows, but there are 10"),
        ((1.0,), {}, "1.0 is no part"),
        ((0,), {}, "0 is no part"),
        ((True,), {}, "True is no part"),
        (("80%",), {}, "'80%' is no part"),
        ((5,), {"seed": -1}, "seed=-1; allowed: an integer from 0"),
        ((5,), {"seed": 0.5}, "seed=0.5"),
        ((5,), {"stratify": "kin"}, "^stratify='kin': row 0 of 10, from 0, has no such field; it has 'n'"),
        ((5,), {"stratify": "tags"}, r"^stratify='tags': row 0 of 10, from 0, has \['x'\], which cannot be grouped"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, named, message):
    devset = [{"n": n, "kind": "a", "tags": ["x"]} for n in range(10)]
    with pytest.raises(DatasetError, match=message):
        split(devset, *arguments, **named)


@pytest.mark.parametrize("stratify", [None, "kind"])
@pytest.mark.parametrize("n", [0, 11, 2.5, True])
def test_a_sample_of_what_is_not_there_is_refused(n, stratify):
    with pytest.raises(DatasetError, match=f"n={n}"):
        sample(rows("a" * 10), n, stratify=stratify)


def test_the_first_row_that_lacks_the_field_is_the_one_that_is_named():
    devset = [{"kind": "a"}, {"kind": "b"}, {"other": "c"}, *({"kind": "a"} for _ in range(7))]
    with pytest.raises(DatasetError, match=r"^stratify='kind': row 2 of 10, from 0, has no such field; it has"):
        split(devset, 0.5, stratify="kind")
