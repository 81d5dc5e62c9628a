"""BM25: the formula, the order, and that an index is a value; with numpy and without."""

import asyncio
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError, DatasetError
from otpy.retrieval import BM25, ENGLISH, Passage, Tokenizer, bm25

texts = st.lists(st.text("abc ", max_size=30), max_size=12)
queries = st.text("abcd ", max_size=12)


def by_the_book(passages, query, k1, b):
    """Every passage's score, written down as in the paper."""
    documents = [passage.text.split() for passage in passages]
    total = sum(map(len, documents))
    scores = []
    for document in documents:
        score = 0.0
        for word in query.split():
            having = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            tf = document.count(word)
            if tf:
                score += idf * tf / (tf + k1 * (1 - b + b * len(document) * len(documents) / total))
        scores.append(score)
    return scores


def found(passages):
    return [(passage.id, passage.score) for passage in passages]


@pytest.fixture(params=["with numpy", "without numpy"])
def engine(request, monkeypatch):
    if request.param == "without numpy":
        monkeypatch.setattr(bm25, "numpy", lambda: None)
    else:
        pytest.importorskip("numpy")
        monkeypatch.setattr(bm25, "_FEW", -1)


@given(texts, queries, st.floats(0, 3), st.floats(0, 1))
def test_a_score_is_that_of_the_formula_and_ties_go_to_the_first(documents, query, k1, b):
    index = BM25(documents, k1=k1, b=b)
    expected = by_the_book(index.passages, query, k1, b)
    got = index.top(query, k=100)
    assert len(got) == sum(score > 0 for score in expected)
    places = {passage.id: place for place, passage in enumerate(index.passages)}
    for passage in got:
        assert passage.score == pytest.approx(expected[places[passage.id]])
    order = [(-passage.score, places[passage.id]) for passage in got]
    assert order == sorted(order)


@given(texts, queries, st.integers(1, 5))
def test_numpy_and_plain_python_agree_to_the_last_bit(documents, query, k):
    pytest.importorskip("numpy")
    index = BM25(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "_FEW", -1)
        fast = found(index.top(query, k))
        patch.setattr(bm25, "numpy", lambda: None)
        assert found(index.top(query, k)) == fast


def test_they_agree_on_a_large_index_too():
    pytest.importorskip("numpy")
    words = ["red", "green", "blue", "cyan", "pink", "grey"]
    index = BM25([f"{words[n % 6]} {words[n % 5]} {words[n % 4] * (n % 3)} {n % 97}" for n in range(5_000)])
    for query in ("red green", "blue 5 cyan", "grey grey pink 96", "green"):
        fast = found(index.top(query, 7))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bm25, "numpy", lambda: None)
            assert found(index.top(query, 7)) == fast
            assert len(fast) == 7


@given(texts, texts, queries)
def test_adding_is_the_same_as_indexing_all_at_once(first, second, query):
    smaller, whole = BM25(first), BM25([*first, *second])
    before = found(smaller.top(query, 50))
    larger = smaller.add(second)
    assert larger == whole
    assert found(larger.top(query, 50)) == found(whole.top(query, 50))
    assert found(smaller.top(query, 50)) == before


@pytest.mark.usefixtures("engine")
def test_more_are_wanted_than_there_are():
    assert len(BM25(["a cat", "a dog"]).top("a", k=99)) == 2


@pytest.mark.usefixtures("engine")
def test_passages_that_share_no_word_are_not_found():
    assert BM25(["a cat", "a dog"]).top("fish") == ()
    assert BM25(["a cat"]).top("") == ()


@pytest.mark.usefixtures("engine")
def test_an_empty_index_finds_nothing():
    assert BM25().top("cat") == ()
    assert BM25(["", "…"]).top("cat") == ()
    assert len(BM25()) == 0
    assert BM25()


@pytest.mark.usefixtures("engine")
def test_a_filter_is_applied_before_the_best_are_taken():
    index = BM25([Passage("cat " * (10 - n), metadata={"lang": "de" if n % 2 else "en", "n": n}) for n in range(10)])
    (best,) = index.top("cat", 1, where={"lang": "de"})
    assert best.metadata["n"] == 1
    assert [passage.metadata["n"] for passage in index.top("cat", 9, where=lambda it: it.metadata["n"] > 6)] == [
        7,
        8,
        9,
    ]
    assert index.top("cat", where={"lang": "fr"}) == ()
    assert index.top("cat", where={"author": None}) == ()


def test_equal_texts_are_one_passage():
    index = BM25(["a cat", "a dog", "a cat"])
    assert len(index) == 2
    assert index.add(["a dog"]) == index


def test_an_id_names_one_passage_only():
    with pytest.raises(DatasetError, match="row 2: the id 'x' is taken by another passage: 'a cat'"):
        BM25([Passage("a cat", "x"), Passage("a dog", "x")])
    with pytest.raises(DatasetError, match="is taken"):
        BM25([Passage("a cat", "x")]).add([Passage("a cat", "x", {"page": 1})])
    assert len(BM25([Passage("a cat", "x"), Passage("a cat", "y")])) == 2


def test_common_words_can_be_left_out_and_forms_joined():
    tokenizer = Tokenizer(ENGLISH, stemmer=lambda word: word.rstrip("s"))
    assert [passage.text for passage in BM25(["the cat", "the dog"], tokenizer=tokenizer).top("the cats")] == [
        "the cat"
    ]


def test_a_search_that_takes_long_does_not_hold_the_loop(monkeypatch):
    monkeypatch.setattr(bm25, "_LONG", -1)
    index, threads = BM25(["a cat", "a dog"]), []
    monkeypatch.setattr(asyncio, "to_thread", record(asyncio.to_thread, threads))
    assert [passage.text for passage in asyncio.run(index.search("cat"))] == ["a cat"]
    assert len(threads) == 1


def record(function, calls):
    def recorded(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return recorded


def test_an_index_is_a_value():
    one, same, other = BM25(["a", "b"]), BM25(["a", "b"]), BM25(["b", "a"])
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != BM25(["a", "b"], k1=2)
    assert pickle.loads(pickle.dumps(one)).top("a") == one.top("a")
    assert repr(one) == "BM25(2 passages)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": -1}, "k1=-1; allowed: a number >= 0"),
        ({"k1": math.inf}, "k1=inf"),
        ({"k1": math.nan}, "k1=nan"),
        ({"k1": True}, "k1=True"),
        ({"b": 1.5}, "b=1.5; allowed: a number from 0 to 1"),
        ({"b": "x"}, "b='x'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.").replace("(", r"\(")):
        BM25(["a"], **arguments)


@pytest.mark.parametrize("k", [0, -1, True, 1.5, "3", None])
def test_k_is_an_integer_of_at_least_one(k):
    with pytest.raises(ConfigError, match="allowed: an integer >= 1"):
        BM25(["a"]).top("a", k)


def test_a_query_is_a_text_and_a_filter_a_filter():
    with pytest.raises(ConfigError, match="a query is a text, not 7"):
        BM25(["a"]).top(7)
    with pytest.raises(ConfigError, match="a query is a text"):
        asyncio.run(BM25(["a"]).search(None))
    with pytest.raises(ConfigError, match="where=3: give metadata"):
        BM25(["a"]).top("a", where=3)


def test_what_is_no_passage_is_refused():
    with pytest.raises(DatasetError, match="row 2: a passage is a text or a Passage, not 7"):
        BM25(["a", 7])
    with pytest.raises(DatasetError, match="give a list of passages, not 'a cat' alone"):
        BM25("a cat")
