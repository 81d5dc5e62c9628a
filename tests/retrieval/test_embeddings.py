"""Passages by their vectors: exact cosines, embedded once and late, with engines and without numpy."""

import asyncio
import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError, DatasetError
from otpy.retrieval import Embeddings, FunctionEmbedder, Passage, embeddings, vectors
from otpy.retrieval.once import Once
from otpy.retrieval.vectors import Vectors


class Letters:
    """A vector of a text: how often it has each letter. It notes what it is asked."""

    name = "letters"

    def __init__(self):
        self.asked = []
        self.error = None

    async def embed(self, texts):
        self.asked.append(list(texts))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [[float(text.count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def search(index, query, k=3, **options):
    return [(passage.text, passage.score) for passage in asyncio.run(index.search(query, k, **options))]


@pytest.fixture(params=["with numpy", "without numpy"])
def engine(request, monkeypatch):
    if request.param == "without numpy":
        monkeypatch.setattr(vectors, "numpy", lambda: None)
    else:
        pytest.importorskip("numpy")


@pytest.mark.usefixtures("engine")
def test_the_closest_come_first_with_their_cosines():
    index = Embeddings(["aab", "abb", "xyz", "ab"], Letters())
    (first, one), (second, two), (third, _) = search(index, "aaab")
    assert (first, second, third) == ("aab", "ab", "abb")
    assert one == pytest.approx(7 / math.sqrt(50), abs=1e-6)
    assert two == pytest.approx(4 / math.sqrt(20), abs=1e-6)


@pytest.mark.usefixtures("engine")
def test_of_equals_the_first_one_comes_first_and_more_than_there_are_is_all():
    index = Embeddings(["ba", "ab", "abab", "zz"], Letters())
    assert [text for text, _ in search(index, "ab", 99)] == ["ba", "ab", "abab", "zz"]
    assert [text for text, _ in search(index, "ab", 2)] == ["ba", "ab"]
    (one, other, third, last) = [score for _, score in search(index, "ab", 4)]
    assert one == other == third
    assert one == pytest.approx(1)
    assert one <= 1
    assert last == 0


@pytest.mark.usefixtures("engine")
def test_a_text_that_means_nothing_is_close_to_nothing():
    index = Embeddings(["!", "ab"], Letters())
    assert search(index, "ab") == [("ab", pytest.approx(1)), ("!", 0)]
    assert search(index, "?") == [("!", 0), ("ab", 0)]


numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@given(st.lists(numbers, min_size=1, max_size=30), numbers, st.integers(1, 5), st.booleans())
def test_numpy_and_plain_python_agree_to_the_last_bit(rows, query, k, some):
    pytest.importorskip("numpy")
    rows = [*rows, *rows[:3]]
    among = list(range(0, len(rows), 2)) if some else None

    def closest():
        return Vectors.of(rows, len(rows), "me").closest(Vectors.of([query], 1, "me"), k, among)

    fast = closest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "numpy", lambda: None)
        assert closest() == fast


def test_nothing_is_embedded_until_it_is_searched_and_then_once():
    embedder = Letters()
    index = Embeddings(["a", "b", "a"], embedder)
    assert embedder.asked == []

    async def many():
        return await asyncio.gather(*(index.search("a", 1) for _ in range(100)))

    answers = asyncio.run(many())
    assert embedder.asked.count(["a", "b"]) == 1
    assert len(embedder.asked) == 101
    assert {answer[0].text for answer in answers} == {"a"}
    asyncio.run(index.search("b"))
    assert embedder.asked.count(["a", "b"]) == 1


def test_only_what_is_new_is_embedded_after_an_addition():
    embedder = Letters()
    index = Embeddings(["a", "b"], embedder)
    asyncio.run(index.embedded())
    larger = index.add(["c", "a"]).add(["d"])
    asyncio.run(larger.embedded())
    assert embedder.asked == [["a", "b"], ["c", "d"]]
    assert [text for text, _ in search(larger, "d", 1)] == ["d"]
    assert len(index) == 2
    assert larger == Embeddings(["a", "b", "c", "d"], Letters())


def test_an_embedder_that_fails_is_asked_again_by_the_next_search():
    embedder = Letters()
    index = Embeddings(["a"], embedder)
    embedder.error = RuntimeError("scripted")

    async def both():
        return await asyncio.gather(index.embedded(), index.embedded(), return_exceptions=True)

    one, other = asyncio.run(both())
    assert one is other is embedder.error
    assert len(embedder.asked) == 1
    embedder.error = None
    assert search(index, "a", 1)[0][0] == "a"


def test_who_waits_takes_over_from_one_who_is_cancelled():
    async def main():
        once, gate, made = Once(), asyncio.Event(), []

        async def make():
            made.append(1)
            await gate.wait()
            return "made"

        first = asyncio.create_task(once.get(make))
        second = asyncio.create_task(once.get(make))
        third = asyncio.create_task(once.get(make))
        while not made:
            await asyncio.sleep(0)
        third.cancel()
        first.cancel()
        while len(made) < 2:
            await asyncio.sleep(0)
        gate.set()
        assert await second == "made"
        assert first.cancelled()
        assert third.cancelled()
        assert await once.get(make) == "made"
        assert len(made) == 2

    asyncio.run(asyncio.wait_for(main(), 10))


def test_an_empty_index_finds_nothing_and_asks_nobody():
    embedder = Letters()
    assert asyncio.run(Embeddings([], embedder).search("a")) == ()
    assert embedder.asked == []


@pytest.mark.parametrize("name", ["exact", "usearch", "faiss"])
def test_a_filter_is_applied_before_the_best_are_taken(name):
    if name != "exact":
        pytest.importorskip("numpy")
        pytest.importorskip(name)
    rows = [Passage("a" * (9 - n) + "b" * n, metadata={"odd": bool(n % 2)}) for n in range(9)]
    index = Embeddings(rows, Letters(), engine=name)
    assert [text.count("b") for text, _ in search(index, "a", 2, where={"odd": True})] == [1, 3]
    assert search(index, "a", where={"odd": None}) == []
    assert [text.count("b") for text, _ in search(index, "a", 1, where=lambda it: it.text.count("b") > 4)] == [5]


def test_the_local_embedder_finds_what_is_said_otherwise():
    import otpy
    from otpy.clients import models
    from otpy.programs.embedder import Embedder

    if not (models.runtime_installed() and models.installed("all-minilm-l6-v2")):
        pytest.skip("no weights: otpy models pull all-minilm-l6-v2")
    index = Embeddings(["The kitten is asleep.", "The bank has failed.", "It rains all day."], Embedder())
    with otpy.start(lm="local/all-minilm-l6-v2", cache=False) as app:
        for query, place in (("a young cat", 0), ("insolvency of a financial institution", 1), ("bad weather", 2)):
            (best,) = app.run(index.search(query, 1))
            assert best == index.passages[place]


def blobs(count, seed):
    dice = random.Random(seed)
    centers = [[dice.gauss(0, 1) for _ in range(32)] for _ in range(50)]
    return [[x + dice.gauss(0, 0.3) for x in dice.choice(centers)] for _ in range(count)]


@pytest.mark.parametrize("name", ["usearch", "faiss"])
def test_an_engine_finds_nearly_what_exact_search_finds(name):
    pytest.importorskip("numpy")
    pytest.importorskip(name)
    rows = {f"text {n}": row for n, row in enumerate(blobs(2_000, 1))}
    rows |= {f"query {n}": row for n, row in enumerate(blobs(30, 1))}
    embedder = FunctionEmbedder(lambda texts: [rows[text] for text in texts], "table")
    corpus = [text for text in rows if text.startswith("text")]
    exact, quick = Embeddings(corpus, embedder), Embeddings(corpus, embedder, engine=name)

    async def both():
        hits = 0
        for query in (text for text in rows if text.startswith("query")):
            right = dict.fromkeys(passage.text for passage in await exact.search(query, 10))
            found = await quick.search(query, 10)
            hits += sum(passage.text in right for passage in found)
            assert found == tuple(sorted(found, key=lambda passage: -passage.score))
        return hits / 300

    assert asyncio.run(both()) > 0.95


@pytest.mark.parametrize("name", ["usearch", "faiss"])
def test_what_is_added_is_found_before_the_graph_is_built_anew(name, monkeypatch):
    pytest.importorskip("numpy")
    pytest.importorskip(name)
    built = []
    monkeypatch.setattr(
        embeddings.engines, "build", lambda *a, real=embeddings.engines.build: built.append(1) or real(*a)
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    index = Embeddings([letter * 3 for letter in letters[:20]], Letters(), engine=name)
    search(index, "a")
    larger = index.add(["yyy", "zzz"])
    assert search(larger, "z", 1)[0][0] == "zzz"
    assert len(built) == 1
    assert search(larger.add([letter * 2 + "q" for letter in letters[:9]]), "aaq", 1)[0][0] == "aaq"
    assert len(built) == 2


def test_a_search_that_takes_long_does_not_hold_the_loop(monkeypatch):
    monkeypatch.setattr(embeddings, "_MUCH", 0)
    monkeypatch.setattr(embeddings, "_MANY", 0)
    assert search(Embeddings(["ab", "b"], Letters()), "b", 1)[0][0] == "b"


def test_an_index_is_a_value():
    index = Embeddings(["a", "b"], Letters())
    assert index == Embeddings(["a", "b"], Letters())
    assert hash(index) == hash(Embeddings(["a", "b"], Letters()))
    assert index != Embeddings(["b", "a"], Letters())
    assert index
    asyncio.run(index.embedded())
    copy = pickle.loads(pickle.dumps(index))
    assert copy == index
    assert search(copy, "b", 1) == search(index, "b", 1)
    assert copy.embedder.asked == [["a", "b"], ["b"]]
    assert repr(index) == "Embeddings(2 passages, 'letters', engine='exact')"


def answering(*answers):
    queue = list(answers)
    return FunctionEmbedder(lambda _: queue.pop(0), "m")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[[1.0]]], "m gave 1 vectors for 2 texts"),
        ([[[1.0], [1.0, 2.0]]], "m gave vectors of 1 and 2 numbers"),
        ([[[1.0], [math.nan]]], "not finite"),
        ([[[1.0], [math.inf]]], "not finite"),
        ([[[], []]], "m gave vectors of 0 and 0 numbers"),
        ([[[1.0], [2.0]], [[1.0, 2.0]]], "m gives vectors of 2 numbers now, and gave some of 1"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(answers, message):
    with pytest.raises(ConfigError, match=message):
        search(Embeddings(["a", "b"], answering(*answers)), "a")


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="embedder=None: give an object with `name`"):
        Embeddings(["a"], None)
    with pytest.raises(ConfigError, match="engine='annoy'; allowed: 'exact', 'usearch', 'faiss'"):
        Embeddings(["a"], Letters(), engine="annoy")
    with pytest.raises(ConfigError, match="k=0; allowed"):
        search(Embeddings(["a"], Letters()), "a", 0)
    with pytest.raises(ConfigError, match="a query is a text, not 7"):
        search(Embeddings(["a"], Letters()), 7)
    with pytest.raises(DatasetError, match="is taken"):
        Embeddings([Passage("a", "x"), Passage("b", "x")], Letters())


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(embeddings.engines.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"engine='faiss' needs faiss-cpu: pip install 'otpy-framework\[faiss\]'"):
        Embeddings(["a"], Letters(), engine="faiss")
    Embeddings(["a"], Letters())


def test_any_function_is_an_embedder_plain_or_async_and_is_given_batches():
    given_texts = []

    def plain(texts):
        given_texts.append(texts)
        return [[1.0] for _ in texts]

    async def later(texts):
        return plain(texts)

    class Model:
        async def __call__(self, texts):
            return plain(texts)

    for function in (plain, later, Model()):
        given_texts.clear()
        embedder = FunctionEmbedder(function, "one", batch=2)
        assert asyncio.run(embedder.embed(["a", "b", "c"])) == [[1.0], [1.0], [1.0]]
        assert given_texts == [["a", "b"], ["c"]]


@pytest.mark.parametrize("arguments", [{"function": 1, "name": "x"}, {"function": len, "name": ""},
                                       {"function": len, "name": "x", "batch": 0}])  # fmt: skip
def test_a_function_embedder_checks_its_arguments(arguments):
    with pytest.raises(ConfigError):
        FunctionEmbedder(**arguments)
