"""`KNN`: the examples that are most like a question."""

import asyncio

import pytest

from otpy.errors import ConfigError, ProgramError
from otpy.programs.knn import KNN
from otpy.retrieval import FunctionEmbedder
from otpy.signatures import Example


def vowels(asked=None):
    def embed(texts):
        if asked is not None:
            asked.append(list(texts))
        return [[float(text.count(vowel)) for vowel in "aeiou"] for text in texts]

    return FunctionEmbedder(embed, "vowels")


def fruits():
    words = {"banana": "yellow", "kiwi": "green", "plum": "blue", "ananas": "brown"}
    return [Example(q=word, a=colour).with_inputs("q") for word, colour in words.items()]


def test_the_nearest_examples_come_first_and_of_equals_the_earlier():
    found = asyncio.run(KNN(2, fruits(), vowels()).acall(q="aaa"))
    assert [example.a for example in found] == ["yellow", "brown"]
    assert found[0].input_names == ("q",)


def test_the_trainset_is_embedded_once_when_it_is_first_needed_and_by_its_inputs_alone():
    asked = []
    knn = KNN(1, fruits(), vowels(asked))
    assert asked == []

    async def main():
        await asyncio.gather(*(knn.acall(q="i") for _ in range(50)))

    asyncio.run(main())
    assert asked.count(["q: banana", "q: kiwi", "q: plum", "q: ananas"]) == 1
    assert asked.count(["q: i"]) == 50


def test_several_inputs_are_one_text():
    asked = []
    example = Example(a=1, b="x", c="y").with_inputs("a", "b")
    asyncio.run(KNN(1, [example], vowels(asked)).acall(a=2, b="z"))
    assert asked == [["a: 1 | b: x"], ["a: 2 | b: z"]]


def test_equal_examples_are_all_kept():
    twins = [*fruits()[:1], *fruits()[:1]]
    assert len(asyncio.run(KNN(5, twins, vowels()).acall(q="a"))) == 2


def test_more_are_wanted_than_there_are_and_there_may_be_none():
    assert len(asyncio.run(KNN(99, fruits(), vowels()).acall(q="a"))) == 4
    assert asyncio.run(KNN(1, [], vowels()).acall(q="a")) == []


def test_it_is_called_in_synchronous_code_too(play):
    with play.started(play.echo):
        (nearest,) = KNN(1, fruits(), vowels())(q="oooiii")
    assert nearest.q == "kiwi"


def test_what_it_finds_are_demos(play):
    from otpy.programs import Predict

    predict = Predict("q -> a")
    demos = asyncio.run(KNN(2, fruits(), vowels()).acall(q="banane"))
    assert [demo.q for demo in predict.with_demos(demos).demos] == ["banana", "ananas"]


def test_without_numpy_it_finds_the_same(monkeypatch):
    from otpy.retrieval import vectors

    found = asyncio.run(KNN(3, fruits(), vowels()).acall(q="ui"))
    monkeypatch.setattr(vectors, "numpy", lambda: None)
    assert asyncio.run(KNN(3, fruits(), vowels()).acall(q="ui")) == found


def test_it_is_a_value():
    assert KNN(1, fruits(), vowels()) == KNN(1, fruits(), vowels())
    assert hash(KNN(1, fruits(), vowels())) == hash(KNN(1, fruits(), vowels()))
    assert KNN(1, fruits(), vowels()) != KNN(2, fruits(), vowels())
    assert repr(KNN(1, fruits())) == "KNN(1, 4 examples, 'default')"


def test_arguments_are_checked():
    with pytest.raises(ProgramError, match="k=0; allowed: an integer >= 1"):
        KNN(0, fruits())
    with pytest.raises(ProgramError, match="example 1 does not say what its inputs are"):
        KNN(1, [Example(q="a")])
    with pytest.raises(ConfigError, match="embedder=3"):
        KNN(1, fruits(), 3)
