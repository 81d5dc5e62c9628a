"""Fronts lose nothing, and merges take what each lineage has changed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from otpy.teleprompters.pareto import ancestors, drawn, fronts, merges, minibatch, subsample, undominated

SCORES = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=6)
)


def totals(columns):
    return [sum(column[at] for column in columns) for at in range(len(columns[0]))]


@given(SCORES)
def test_every_front_keeps_somebody_and_nobody_that_stays_is_needed_nowhere(columns):
    found = fronts(columns)
    kept = undominated(found, totals(columns))
    staying = {one for front in kept for one in front}
    for before, after in zip(found, kept, strict=True):
        assert after
        assert set(after) == set(before) & staying
    for one in staying:
        assert any(front == (one,) for front in kept)
    assert undominated(kept, totals(columns)) == kept


@given(SCORES, st.integers(0, 99))
def test_whoever_is_drawn_is_needed(columns, seed):
    found = fronts(columns)
    one = drawn(found, totals(columns), random.Random(seed))
    assert any(one in front for front in undominated(found, totals(columns)))


@given(st.permutations(range(7)), st.integers(1, 9))
def test_the_minibatches_of_an_epoch_have_every_position(order, size):
    count = -(-len(order) // min(size, len(order)))
    batches = [minibatch(order, number, size) for number in range(count)]
    assert all(len(set(batch)) == len(batch) == min(size, 7) for batch in batches)
    assert {at for batch in batches for at in batch} == set(order)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12), st.integers(1, 8))
def test_a_subsample_has_its_size_and_those_who_differ(pairs, size):
    mine, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    chosen = subsample(mine, theirs, size, random.Random(0))
    assert len(set(chosen)) == len(chosen) == min(size, len(pairs))
    if size >= 3:
        for better, worse in ((mine, theirs), (theirs, mine)):
            there = [at for at in range(len(pairs)) if better[at] > worse[at]]
            assert not there or any(at in there for at in chosen)


OLD = {"a": "1", "b": "1", "c": "1"}


def test_of_two_that_both_changed_a_part_the_better_ones_is_taken():
    texts = [OLD, OLD | {"a": "2", "c": "2"}, OLD | {"b": "3", "c": "3"}]
    (merge,) = merges({1, 2}, [(), (0,), (0,)], texts, [0, 1, 2])
    assert dict(merge.texts) == {"a": "2", "b": "3", "c": "3"}
    assert (merge.one, merge.other, merge.ancestor) == (1, 2, 0)


def test_a_candidate_is_not_merged_with_its_own_line():
    texts = [OLD, OLD | {"a": "2"}, OLD | {"a": "2", "b": "2"}]
    assert ancestors([(), (0,), (1,)], 2) == {0, 1}
    assert merges({1, 2}, [(), (0,), (1,)], texts, [0, 1, 2]) == []


def test_nothing_is_merged_that_is_there_already_or_fell_behind_or_changed_the_same_part():
    parents = [(), (0,), (0,)]
    apart = [OLD, OLD | {"a": "2"}, OLD | {"b": "2"}]
    assert len(merges({1, 2}, parents, apart, [1, 1, 1])) == 1
    assert merges({1, 2}, [*parents, (1, 2)], [*apart, OLD | {"a": "2", "b": "2"}], [1, 1, 1, 0]) == []
    assert merges({1, 2}, parents, apart, [1, 0, 1]) == []
    assert merges({1, 2}, parents, [OLD, OLD | {"a": "2"}, OLD | {"a": "3"}], [0, 1, 1]) == []
