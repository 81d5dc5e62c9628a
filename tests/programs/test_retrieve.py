"""`Retrieve` and `RAG`: values that look into an index, or into one that a process keeps."""

import asyncio
import dataclasses
import pickle

import pytest

from otpy.actors import KILL, Agent, GenServer
from otpy.errors import ActorDown, NotRegistered, ProgramError
from otpy.programs import ChainOfThought, Predict, Program
from otpy.programs.embedder import Embedder
from otpy.programs.retrieve import RAG, Retrieve
from otpy.retrieval import BM25, Embeddings, Hybrid, Passage
from otpy.signatures import Prediction
from otpy.supervisors import Supervisor

CATS = BM25(
    [Passage("A cat sat on a mat.", "cat", {"lang": "en"}), Passage("Eine Katze, a cat.", "katze", {"lang": "de"})]
)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Finds always the same, and cannot filter."""

    texts: tuple[str, ...] = ("one", "two")

    async def search(self, query, k=3):
        return tuple(Passage(text).scored(1.0) for text in self.texts[:k])


def test_a_prediction_has_passages_ids_and_scores():
    found = asyncio.run(Retrieve(CATS, k=1).acall(query="mat"))
    assert found.passages == ["A cat sat on a mat."]
    assert found.ids == ["cat"]
    assert found.scores == [CATS.top("mat")[0].score]


def test_a_filter_goes_with_the_program():
    retrieve = Retrieve(CATS, where={"lang": "de"})
    assert asyncio.run(retrieve.acall(query="cat")).ids == ["katze"]
    assert [passage.metadata["lang"] for passage in asyncio.run(retrieve.find("cat"))] == ["de"]


def test_what_finds_nothing_has_empty_lists():
    assert asyncio.run(Retrieve(CATS).acall(query="fish")) == {"passages": [], "ids": [], "scores": []}


def test_it_is_called_in_synchronous_code_too(play):
    with play.started(play.echo):
        assert Retrieve(CATS, k=1)(query="mat").ids == ["cat"]


def test_a_retriever_is_anything_with_a_search():
    assert asyncio.run(Retrieve(Fixed()).acall(query="x")).passages == ["one", "two"]
    assert asyncio.run(Retrieve(Hybrid([Fixed(), CATS]), k=1).acall(query="x")).passages == ["one"]


def test_it_is_a_value():
    assert Retrieve(CATS) == Retrieve(BM25(CATS.passages))
    assert hash(Retrieve(CATS)) == hash(Retrieve(BM25(CATS.passages)))
    assert Retrieve(CATS) != Retrieve(CATS, k=2)
    assert Retrieve(CATS) != Retrieve(BM25())
    assert Retrieve("wiki") == Retrieve("wiki") != Retrieve("news")
    kept = pickle.loads(pickle.dumps(Retrieve(CATS, where={"lang": "de"})))
    assert asyncio.run(kept.acall(query="cat")).ids == ["katze"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Retrieve(None), "None is no retriever"),
        (lambda: Retrieve(""), "'' is no retriever"),
        (lambda: Retrieve(CATS, k=0), "k=0; allowed: an integer >= 1"),
        (lambda: Retrieve(Fixed(), where={"a": 1}), "cannot filter, its search has no `where`"),
        (lambda: Retrieve(CATS, where=3), "where=3: give metadata"),
    ],
)
def test_arguments_are_checked_when_it_is_made(make, message):
    with pytest.raises(ProgramError, match=message):
        make()


# -- an index that a process keeps -----------------------------------------------------------------------------------


def test_a_process_keeps_an_index_that_grows_while_programs_search_it():
    async def main():
        retrieve = Retrieve("cats")
        async with Supervisor([Agent.child_spec(lambda: BM25(["a cat"]), name="cats", id="cats")]) as tree:
            assert (await retrieve.acall(query="dog")).passages == []
            await tree.child("cats").update(lambda index: index.add(["a dog"]))
            assert (await retrieve.acall(query="dog")).passages == ["a dog"]
            tree.child("cats").exit(KILL)
            while True:  # it is restarted with what it began with
                try:
                    assert (await retrieve.acall(query="cat")).passages == ["a cat"]
                    break
                except (ActorDown, NotRegistered):
                    await asyncio.sleep(0)
        with pytest.raises(NotRegistered, match=r"no process is registered as 'cats'; Retrieve\('cats'\) looks there"):
            await retrieve.acall(query="cat")

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_process_is_found_from_an_application_and_from_another_loop(play):
    class Nested(Program):
        retrieve: Retrieve = Retrieve("cats")

        def forward(self, query):
            return self.retrieve(query=query)

    with play.started(play.echo) as application:
        keeper = application.run(Agent.start(lambda: BM25(["a cat"]), name="cats"))
        assert Retrieve("cats")(query="cat").passages == ["a cat"]
        assert Nested()(query="cat").passages == ["a cat"]
        assert asyncio.run(Retrieve("cats").acall(query="cat")).passages == ["a cat"]
        application.run(stopped(keeper))


async def stopped(keeper):
    await keeper.stop()


def test_a_process_that_keeps_something_else_is_no_retriever():
    async def main():
        async with Supervisor(
            [Agent.child_spec(dict, name="dict", id="one"), GenServer.child_spec(name="none", id="two"),
             Agent.child_spec(Fixed, name="fixed", id="three")]
        ):  # fmt: skip
            with pytest.raises(ProgramError, match=r"\{\} is no retriever"):
                await Retrieve("dict").acall(query="x")
            with pytest.raises(ProgramError, match="the process 'none' keeps no retriever"):
                await Retrieve("none").acall(query="x")
            with pytest.raises(ProgramError, match="cannot filter"):
                await Retrieve("fixed", where={"a": 1}).acall(query="x")

    asyncio.run(asyncio.wait_for(main(), 20))


# -- the application's embedder --------------------------------------------------------------------------------------


def test_an_embedder_asks_a_client_of_the_application_in_batches():
    import otpy
    from otpy.testing import FakeProvider

    index = Embeddings(["a cat", "a dog", "a cow"], Embedder(batch=2))
    with (
        FakeProvider() as fake,
        otpy.start(lm="acme/m", base_url=fake.url("embeddings"), settings={"cache": {"disk": False}}),
    ):
        found = Retrieve(index, k=1)(query="a dog")
        asked = [request.body["input"] for request in fake.requests]
    assert (found.passages, found.scores) == (["a dog"], [pytest.approx(1)])
    assert sorted(asked, key=str) == [["a cat", "a dog"], ["a cow"]]  # the query is known by then


@pytest.mark.parametrize("arguments", [{"client": ""}, {"dimensions": 0}, {"batch": 0}, {"batch": True}])
def test_an_embedder_checks_its_arguments(arguments):
    from otpy.errors import ConfigError

    with pytest.raises(ConfigError, match="allowed"):
        Embedder(**arguments)


def test_an_embedder_is_told_from_others_by_what_it_was_given():
    names = {Embedder().name, Embedder("b").name, Embedder(model="m").name, Embedder(model="m", dimensions=9).name}
    assert len(names) == 4


# -- RAG ---------------------------------------------------------------------------------------------------------------


def said(request):
    return {"response": request.messages[-1].content}


def test_the_answer_comes_from_what_was_found(play):
    with play.started(said):
        answered = RAG(CATS, k=2)(question="cat mat?")
    assert "[1] A cat sat on a mat.\n\n[2] Eine Katze, a cat." in answered.response
    assert "cat mat?" in answered.response
    assert answered.ids == ["cat", "katze"]
    assert answered.passages[0] == "A cat sat on a mat."
    assert len(answered.scores) == 2
    assert answered.usage.requests == 1
    assert len(answered.attempts) == 1


def test_a_list_of_passages_stays_one(play):
    with play.started(play.echo) as application:
        RAG(CATS, "context: list[str], question -> response", k=1)(question="mat")
    assert '["A cat sat on a mat."]' in application.asked[0][1].messages[-1].content.replace("', '", '", "')


def test_any_program_may_answer_and_fields_may_have_other_names(play):
    rag = RAG(Retrieve(CATS, k=1), ChainOfThought("facts, query -> answer"), context="facts", query="query")
    assert rag.input_names == ("query",)
    assert [path for path, _ in rag.named_predictors()] == ["respond.predict"]
    with play.started(play.echo):
        assert rag(query="mat").ids == ["cat"]


def test_parameters_go_to_the_predictor():
    assert RAG(CATS, temperature=0.5).respond.temperature == 0.5
    assert RAG(CATS, k=7).retrieve.k == 7
    assert RAG(CATS, where={"lang": "de"}).retrieve.where == {"lang": "de"}


def test_what_it_finds_cannot_be_given(play):
    with play.started(said), pytest.raises(ProgramError, match="RAG finds 'context' itself"):
        RAG(CATS)(question="cat", context="mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RAG(CATS, "question -> response"), "the signature has no input 'context'; its inputs: question"),
        (lambda: RAG(CATS, "context, q -> response"), "the signature has no input 'question'"),
        (lambda: RAG(CATS, "context: int, question -> a"), "the input 'context' has the type <class 'int'>; allowed"),
        (lambda: RAG(CATS, "context, question -> ids"), "an output is called 'ids', as what is found"),
        (lambda: RAG(Retrieve(CATS), k=2), "k and where are those of the Retrieve"),
        (lambda: RAG(CATS, Predict("context, question -> a"), temperature=1), "temperature: Predict has its own"),
        (lambda: RAG(3), "3 is no retriever"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_is_made(make, message):
    with pytest.raises(ProgramError, match=message):
        make()


def test_a_question_is_a_text(play):
    with play.started(play.echo), pytest.raises(ProgramError, match="RAG searches for 'question', which is None"):
        RAG(CATS)()


def test_it_is_learned_and_saved_like_every_program(tmp_path):
    rag = RAG(CATS)
    better = rag.with_demos([{"context": "[1] a", "question": "b", "response": "c"}])
    better.save(tmp_path / "rag.json")
    assert rag.load(tmp_path / "rag.json") == better != rag


def test_many_at_once_never_mix(play):
    index = BM25([f"fact{n} is here" for n in range(200)])

    async def main():
        with play.Scripted(said).here():
            rag = RAG(index, k=1)
            return await asyncio.gather(*(rag.acall(question=f"fact{n}") for n in range(200)))

    for number, answered in enumerate(asyncio.run(main())):
        assert isinstance(answered, Prediction)
        assert answered.passages == [f"fact{number} is here"]
        assert f"[1] fact{number} is here" in answered.response
