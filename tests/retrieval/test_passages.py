"""Passages and the words they are found by."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError, DatasetError
from otpy.retrieval import BM25, ENGLISH, Embeddings, FunctionEmbedder, Hybrid, Passage, Retriever, Tokenizer


def test_a_passage_without_an_id_is_named_by_its_text():
    assert Passage("a").id == Passage("a", metadata={"n": 1}).id != Passage("b").id
    assert Passage("a", "x").id == "x"


def test_a_score_makes_no_difference_to_what_a_passage_is():
    passage = Passage("a", metadata={"n": [1]})
    assert passage.scored(0.5) == passage
    assert hash(passage.scored(0.5)) == hash(passage)
    assert passage.scored(0.5).score == 0.5
    assert passage.score is None


def test_a_passage_does_not_change():
    given = {"n": 1}
    passage = Passage("a", metadata=given)
    given["n"] = 2
    assert passage.metadata["n"] == 1
    with pytest.raises(TypeError):
        passage.metadata["n"] = 3
    with pytest.raises(AttributeError):
        passage.text = "b"


def test_a_passage_survives_pickle():
    passage = Passage("a", "x", {"n": 1}, 0.5)
    copy = pickle.loads(pickle.dumps(passage))
    assert (copy, copy.score) == (passage, 0.5)


@pytest.mark.parametrize("metadata", [{"at": object()}, {"x": float("nan")}, [1], "x", None])
def test_metadata_is_a_json_object(metadata):
    with pytest.raises(DatasetError, match="the metadata of passage 'x' is no JSON object"):
        Passage("a", "x", metadata)


def test_a_text_is_a_text():
    with pytest.raises(DatasetError, match="a passage is a text with an id that is a text, not 7"):
        Passage(7)


def test_every_index_is_a_retriever():
    embedder = FunctionEmbedder(lambda texts: [[1.0] for _ in texts], "one")
    for retriever in (BM25(), Embeddings([], embedder), Hybrid([BM25()])):
        assert isinstance(retriever, Retriever)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's mat.", ["the", "cat", "s", "mat"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ﬁne ① Ⅷ", ["fine", "1", "viii"]),
        ("re\u0301sume\u0301 r\u00e9sum\u00e9", ["résumé", "résumé"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("東京都 Tokyo", ["東京", "京都", "tokyo"]),
        ("猫", ["猫"]),
        ("日本語abc日", ["日本", "本語", "abc", "日"]),
        ("foo_bar-baz", ["foo", "bar", "baz"]),
        ("été_2024", ["été", "2024"]),
        ("", []),
        ("!?…", []),
    ],
)
def test_the_words_of_a_text(text, words):
    assert Tokenizer()(text) == words


@given(st.text())
def test_case_and_form_make_no_difference_and_words_are_words_again(text):
    tokenizer = Tokenizer()
    words = tokenizer(text)
    assert all(tokenizer(word) == [word] for word in words)


def test_stop_words_are_folded_as_all_words_are():
    assert Tokenizer(frozenset({"THE"}))("The the THE cat") == ["cat"]
    assert "the" in ENGLISH


def test_a_tokenizer_is_a_value():
    assert Tokenizer(frozenset({"A"})) == Tokenizer(frozenset({"a"}))
    with pytest.raises(ConfigError, match="stop_words='the': give a set of words"):
        Tokenizer("the")
    with pytest.raises(ConfigError, match="stemmer='porter': give a function"):
        Tokenizer(stemmer="porter")
