"""A program of KNNFewShot is shown what is most like its question, and solved its examples once."""

import pytest

import otpy
from otpy.errors import LMRequestInvalid, TeleprompterError
from otpy.retrieval import FunctionEmbedder
from otpy.teleprompters.knn_few_shot import KNNFewShot
from otpy.testing import FakeProvider, Fault, LoopbackLM
from tests.teleprompters.planted import METRIC, RIGHT, STUDENT, TRAIN, Sort, bodies, compiled, shown, word

LETTERS = FunctionEmbedder(
    lambda texts: [[text.count(c) for c in "abcdefghijklmnoprstuvwx"] for text in texts], name="a"
)


def right(body):
    return {"kind": RIGHT[word(body)]}


def nearest(k=3, **arguments):
    return KNNFewShot(k, embedder=LETTERS, **{"metric": METRIC, **arguments})


def asked(program, script, *words):
    with LoopbackLM(script) as server:
        client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            return [program(word=one) for one in words], server


def test_every_example_is_solved_once_and_calls_of_the_program_ask_nothing_more():
    program, server = compiled(nearest(), right)
    assert len(server.requests) == len(TRAIN)
    predictions, server = asked(program, right, "grape", "spade")
    assert [one.kind for one in predictions] == ["fruit", "tool"]
    assert len(server.requests) == 2


def test_the_demos_are_those_of_the_closest_examples_and_the_closest_comes_last():
    program, _ = compiled(nearest(), right)
    _, server = asked(program, right, "plane", "pear")
    first, second = (shown(body) for body in server.requests)
    assert len(first) == len(second) == 3
    assert first[-1] == "plane"
    assert second[-1] == "pear"


def test_an_example_that_was_not_solved_stands_as_it_is_where_it_fits():
    program, _ = compiled(nearest(), lambda body: {"kind": "fruit"})
    assert len(program.shots) == len(TRAIN)
    assert all(shot["demos"]["self"]["kind"] == RIGHT[shot["inputs"]["word"]] for shot in program.shots)
    chain = otpy.ChainOfThought(Sort)
    reasoned, _ = compiled(nearest(), lambda body: {"reasoning": "so", "kind": "fruit"}, student=chain)
    assert len(reasoned.shots) == len(TRAIN) / 2
    assert all(shot["demos"]["predict"]["reasoning"] == "so" for shot in reasoned.shots)


def test_without_a_metric_nothing_is_asked():
    program, server = compiled(nearest(metric=None), right)
    assert server.requests == []
    assert len(program.shots) == len(TRAIN)
    chain, _ = compiled(nearest(metric=None), right, student=otpy.ChainOfThought(Sort))
    assert [sorted(shot["demos"]["predict"]) for shot in chain.shots] == [["kind", "word"]] * len(TRAIN)
    with pytest.raises(TeleprompterError, match=r"no example has the inputs.*KNNFewShot\(k, metric=…\)"):
        compiled(nearest(metric=None), right, student=otpy.Predict("word -> colour"))


@pytest.mark.parametrize("model", ["anthropic/x", "local/smollm2-135m"])
def test_a_client_that_makes_no_vectors_is_refused_before_anything_is_asked(model):
    with otpy.start(lm=model, cache=False, api_key=None if model.startswith("local") else "none"):
        with pytest.raises(TeleprompterError, match=r"'default' makes no vectors.*all-minilm-l6-v2"):
            KNNFewShot(2).compile(STUDENT, trainset=TRAIN)
        with pytest.raises(TeleprompterError, match="'other' is none of the clients default"):
            KNNFewShot(2, embedder=otpy.Embedder(client="other")).compile(STUDENT, trainset=TRAIN)


def test_a_server_that_makes_no_vectors_is_told_apart_at_the_first_call():
    with FakeProvider(lambda _: Fault(status=501)) as fake:
        url = fake.url("embeddings")
        with otpy.start(lm="acme/m", base_url=url, api_key="none", cache=False):
            program = KNNFewShot(2).compile(STUDENT, trainset=TRAIN)
            with pytest.raises(LMRequestInvalid) as caught:
                program(word="fig")
    assert "all-minilm-l6-v2" in caught.value.__notes__[0]


@pytest.mark.parametrize("width", [1, 3, 20])
def test_the_result_does_not_depend_on_how_many_are_under_way(width):
    one, _ = compiled(nearest(max_concurrency=width), right)
    other, _ = compiled(nearest(), right)
    assert one.content_hash() == other.content_hash()


def test_other_examples_are_another_program():
    one, _ = compiled(nearest(), right)
    other, _ = compiled(nearest(), right, trainset=TRAIN[1:])
    assert one.content_hash() != other.content_hash()


def test_a_run_that_was_cut_goes_on_to_the_identical_program(tmp_path):
    whole, _ = compiled(nearest(), right)
    stopped, first = compiled(nearest(), right, max_requests=5, journal=tmp_path / "run")
    assert stopped == STUDENT
    again, second = compiled(nearest(), right, journal=tmp_path / "run")
    assert again.content_hash() == whole.content_hash()
    assert len(first.requests) == 5
    assert max(bodies(first, second).values()) == 1


def test_its_predictors_are_traced_by_their_place_so_it_can_be_optimized_further():
    program, _ = compiled(nearest(), right)
    further, _ = compiled(otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=2, max_labeled_demos=0), right, program)
    assert len(further.program.demos) == 2
    assert further.shots == program.shots


def test_it_can_be_saved_and_loaded(tmp_path):
    program, _ = compiled(nearest(), right)
    program.save(tmp_path / "program.json")
    loaded = program.replace(shots=()).load(tmp_path / "program.json")
    assert loaded.content_hash() == program.content_hash()
    assert asked(loaded, right, "plane")[0][0].kind == "tool"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0; allowed: an integer >= 1"),
        ({"max_rounds": 0}, "max_rounds=0; allowed: an integer >= 1"),
        ({"seed": -1}, "seed=-1; allowed: an integer >= 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(arguments, message):
    with pytest.raises(TeleprompterError, match=message):
        nearest(**arguments)


def test_an_embedder_that_is_none_is_refused():
    with pytest.raises(TeleprompterError, match="embedder='e5'; allowed: an embedder"):
        KNNFewShot(embedder="e5")
