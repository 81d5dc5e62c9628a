"""Reciprocal rank fusion, and several retrievers as one."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError
from otpy.retrieval import BM25, Hybrid, Passage, reciprocal_rank_fusion

A, B, C = Passage("a", "a"), Passage("b", "b"), Passage("c", "c")


class Fixed:
    """Finds always the same; `where` is none of its business."""

    def __init__(self, *passages, error=None):
        self.passages, self.error, self.asked = passages, error, []

    async def search(self, query, k=3):
        self.asked.append((query, k))
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.passages[:k]


def test_a_score_is_the_sum_of_reciprocal_ranks():
    fused = reciprocal_rank_fusion([[A, B], [B, C]])
    assert fused == (B, A, C)
    assert [passage.score for passage in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 61, 1 / 62])


def test_of_equals_the_one_in_an_earlier_ranking_comes_first():
    assert reciprocal_rank_fusion([[A], [B]]) == (A, B)
    assert reciprocal_rank_fusion([[B], [A]]) == (B, A)
    assert reciprocal_rank_fusion([[A, B], [B, A]]) == (A, B)


def test_a_ranking_may_count_more():
    assert reciprocal_rank_fusion([[A], [B]], weights=[1, 2]) == (B, A)
    assert reciprocal_rank_fusion([[A], [B]], weights=[0, 0.5])[0].score == 0.5 / 61


def test_a_passage_counts_once_in_a_ranking():
    assert reciprocal_rank_fusion([[A, A, B]])[1].score == 1 / 62


def test_of_nothing_comes_nothing():
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion([[], []]) == ()


rankings = st.lists(
    st.permutations([Passage(name, name) for name in "abcdef"]).map(lambda order: order[:4]), max_size=5
)


@given(rankings, st.randoms())
def test_the_order_of_rankings_changes_no_score(given_rankings, dice):
    shuffled = list(given_rankings)
    dice.shuffle(shuffled)
    one, other = reciprocal_rank_fusion(given_rankings), reciprocal_rank_fusion(shuffled)
    assert {passage.id: passage.score for passage in one} == {passage.id: passage.score for passage in other}
    assert reciprocal_rank_fusion(given_rankings, 2) == one[:2]


def test_every_retriever_is_asked_for_more_than_is_wanted():
    one, other = Fixed(A, B), Fixed(B, C)
    assert asyncio.run(Hybrid([one, other], depth=20).search("q", 2)) == (B, A)
    assert one.asked == other.asked == [("q", 20)]
    asyncio.run(Hybrid([one], depth=20).search("q", 30))
    assert one.asked[-1] == ("q", 30)


def test_a_retriever_that_fails_is_not_passed_over():
    with pytest.raises(RuntimeError, match="scripted"):
        asyncio.run(Hybrid([Fixed(A), Fixed(error=RuntimeError("scripted"))]).search("q"))


def test_a_filter_reaches_every_retriever_or_is_refused():
    index = BM25([Passage("cat", metadata={"n": 1}), Passage("cat cat", metadata={"n": 2})])
    hybrid = Hybrid([index, Hybrid([index])])
    assert [passage.text for passage in asyncio.run(hybrid.search("cat", where={"n": 1}))] == ["cat"]
    with pytest.raises(ConfigError, match="cannot filter, its search has no `where`"):
        asyncio.run(Hybrid([index, Fixed(A)]).search("cat", where={"n": 1}))
    with pytest.raises(ConfigError, match="cannot filter"):
        asyncio.run(Hybrid([Hybrid([Fixed(A)])]).search("cat", where={"n": 1}))


def test_a_hybrid_is_a_value():
    assert Hybrid([BM25(["a"])]) == Hybrid([BM25(["a"])])
    assert hash(Hybrid([BM25(["a"])])) == hash(Hybrid([BM25(["a"])]))


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="give at least one"):
        Hybrid([])
    with pytest.raises(ConfigError, match="is no retriever"):
        Hybrid([3])
    with pytest.raises(ConfigError, match="2 for 1 rankings"):
        Hybrid([BM25()], weights=[1, 2])
    with pytest.raises(ConfigError, match="finite numbers >= 0"):
        Hybrid([BM25()], weights=[-1])
    with pytest.raises(ConfigError, match="constant=-1; allowed: a number >= 0"):
        reciprocal_rank_fusion([[A]], constant=-1)
    with pytest.raises(ConfigError, match="k=0; allowed"):
        reciprocal_rank_fusion([[A]], 0)
