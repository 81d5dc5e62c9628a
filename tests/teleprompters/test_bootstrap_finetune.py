"""BootstrapFinetune: what is right is learned, once; the trained model is a client, measured like any candidate.

The trainers here train nothing; their models are names that a scripted server answers differently.
"""

import asyncio

import pytest

import otpy
from otpy.errors import ConfigError, TeleprompterError
from otpy.teleprompters.better_together import BetterTogether
from otpy.teleprompters.bootstrap_finetune import BootstrapFinetune
from otpy.teleprompters.outcome import outcome_of
from otpy.testing import LoopbackLM
from otpy.training import Progress, hash_of
from tests.teleprompters.planted import METRIC, RIGHT, STUDENT, TRAIN, VAL, compiled, resumed, word, wrong


class Trainer:
    """Makes a name of what it is given, and remembers it."""

    def __init__(self, quality="tuned"):
        self.quality, self.given, self.trained = quality, [], 0

    async def train(self, records, *, kind, params, memory, told):
        self.given.append((list(records), kind, dict(params)))
        known = memory.get("model")
        if known is None:
            self.trained += 1
            told(Progress("training", 1, 2, {"loss": 0.5}))
            known = f"openai/{self.quality}-{hash_of(records)[:6]}"
            await memory.put("model", known)
        return known


def script(body):
    """A model that knows the trainset's fruit; one that was tuned knows everything, a spoilt one nothing."""
    asked = word(body)
    knows = RIGHT[asked] == "fruit" and asked in {row.word for row in TRAIN}
    knows = {"tuned": True, "spoilt": False}.get(body["model"].split("-")[0], knows)
    return {"kind": RIGHT[asked] if knows else wrong(RIGHT[asked])}


def finetune(metric=METRIC, **arguments):
    return BootstrapFinetune(metric, **{"trainer": Trainer(), "max_concurrency": 4, **arguments})


def test_the_trained_model_is_measured_and_what_was_right_is_what_it_has_learned():
    optimizer = finetune(epochs=3, rank=4)
    program, server = compiled(optimizer, script)
    outcome = outcome_of(program)
    ((records, kind, params),) = optimizer.trainer.given
    assert outcome.score == 1.0
    assert outcome.student.score == 0.0
    assert program.client == f"openai/tuned-{hash_of(records)[:6]}"
    assert (kind, params) == ("sft", {"rank": 4, "epochs": 3, "seed": 0})
    fruit = [row for row in TRAIN if row.kind == "fruit"]
    assert [record.completion for record in records] == ['{"kind": "fruit"}'] * len(fruit)
    assert [record.messages for record in records] == [STUDENT.messages(word=row.word) for row in fruit]
    assert len(server.requests) == 2 * len(VAL) + len(TRAIN)
    assert any("has learned 7 answers" in note for note in outcome.notes)


def test_what_is_learned_are_the_very_messages_that_the_trained_model_is_sent():
    optimizer = finetune()
    _, server = compiled(optimizer, script, valset=TRAIN)
    sent = [body["messages"] for body in server.requests if body["model"].startswith("tuned")]
    order = [row.word for row in TRAIN]
    sent.sort(key=lambda messages: order.index(messages[-1]["content"].removeprefix("word: ")))
    assert [record.turns for record in optimizer.trainer.given[0][0]] == sent[:7]


def test_without_a_metric_the_rows_are_learned_and_nothing_is_asked():
    optimizer = finetune(None)
    program, server = compiled(optimizer, script)
    assert server.requests == []
    assert [record.completion for record in optimizer.trainer.given[0][0]] == [
        f'{{"kind": "{row.kind}"}}' for row in TRAIN
    ]
    assert program.client.startswith("openai/tuned-")
    assert outcome_of(program).score is None


def test_the_student_stays_as_it_was_and_demos_go_unless_they_are_to_stay():
    student = STUDENT.replace_demos(TRAIN[:2])
    bare, with_demos = finetune(None), finetune(None, exclude_demos=False)
    program, _ = compiled(bare, script, student=student)
    kept, _ = compiled(with_demos, script, student=student)
    assert (len(student.demos), student.client) == (2, "default")
    assert (len(program.demos), len(kept.demos)) == (0, 2)
    assert len(bare.trainer.given[0][0][0].messages) == 2
    assert len(with_demos.trainer.given[0][0][0].messages) == 6


@pytest.mark.parametrize("width", [1, 3, 20])
def test_what_is_learned_does_not_depend_on_how_many_are_under_way_at_once(width):
    optimizer = finetune(max_concurrency=width)
    compiled(optimizer, script)
    first = finetune()
    compiled(first, script)
    assert optimizer.trainer.given == first.trainer.given


def test_a_model_that_has_become_worse_is_not_chosen():
    program, _ = compiled(finetune(trainer=Trainer("spoilt")), script, valset=TRAIN)
    assert program.client == "default"
    assert [one.name for one in outcome_of(program).candidates] == ["student", "finetuned"]


def test_cut_in_the_middle_it_goes_on_and_trains_once(tmp_path):
    trainers = [Trainer(), Trainer()]
    made = iter([trainers[0], trainers[1], trainers[1]])
    whole, again, sent = resumed(lambda: finetune(trainer=next(made)), script, tmp_path / "run.db", 1)
    assert again.content_hash() == whole.content_hash()
    assert max(sent.values()) == 1
    assert (trainers[1].trained, len(trainers[1].given)) == (1, 2)


def test_a_teacher_solves_the_rows_in_the_students_place():
    teacher = STUDENT.replace(client="expert")
    optimizer = finetune(None)

    def asked(body):
        return {"kind": RIGHT[word(body)]} if body["model"] == "expert" else script(body)

    with LoopbackLM(asked) as server:
        client = {"base_url": server.url, "api_key": "none"}
        clients = {name: {"model": f"openai/{name}", **client} for name in ("default", "expert")}
        with otpy.start(settings={"clients": clients, "cache": {"enabled": False}}):
            program = optimizer.compile(STUDENT, trainset=TRAIN, teacher=teacher)
    assert {body["model"] for body in server.requests} == {"expert"}
    assert len(optimizer.trainer.given[0][0]) == len(TRAIN)
    assert program.client.startswith("openai/tuned-")


class Two(otpy.Program):
    """Sorts in two steps."""

    def __init__(self):
        self.first = otpy.Predict("word -> hint")
        self.second = otpy.Predict("word, hint -> kind: Literal['fruit', 'tool']")

    async def forward(self, word):
        hint = await self.first.acall(word=word)
        return await self.second.acall(word=word, hint=hint.hint)


def two_steps(body):
    system = body["messages"][0]["content"]
    if "`kind`" not in system:
        return {"hint": "grows"}
    return script(body)


@pytest.mark.parametrize(("multitask", "models"), [(True, 1), (False, 2)])
def test_predictors_share_a_model_or_have_their_own(multitask, models):
    class Forgetful(Trainer):
        async def train(self, records, **others):
            return await super().train(records, **{**others, "memory": JournalOfNothing()})

    optimizer = finetune(trainer=Forgetful(), multitask=multitask)
    program, _ = compiled(optimizer, two_steps, student=Two())
    assert len({predictor.client for _, predictor in program.named_predictors()}) == models
    assert sorted(len(records) for records, *_ in optimizer.trainer.given) == ([14] if multitask else [7, 7])
    assert outcome_of(program).score == 1.0


class JournalOfNothing:
    def get(self, name):
        return None

    async def put(self, name, value):
        pass


def test_it_is_a_step_of_a_chain():
    chain = BetterTogether(METRIC, strategy="w", w=finetune(None), max_concurrency=4)
    program, _ = compiled(chain, script)
    assert program.client.startswith("openai/tuned-")
    assert outcome_of(program).score == 1.0


def test_another_application_says_how_to_have_the_model():
    program, _ = compiled(finetune(None), script)
    with (
        LoopbackLM(script) as server,
        otpy.start(lm="openai/x", base_url=server.url, api_key="none", cache=False),
        pytest.raises(ConfigError) as caught,
    ):
        program(word="pear")
    how = {"clients": {program.client: {"model": program.client}}}
    assert f"otpy.start(settings={how!r})" in str(caught.value)
    with LoopbackLM(script) as server:
        how["clients"][program.client] |= {"base_url": server.url, "api_key": "none"}
        with otpy.start(settings=how):
            assert program(word="kiwi").kind == "fruit"


class Slow(Trainer):
    """Does not come to an end, the first time."""

    def __init__(self):
        super().__init__()
        self.begun = asyncio.Event()
        self.ended = 0

    async def train(self, records, *, told, **others):
        if not self.given:
            self.given.append(None)
            told(Progress("training", 3, 8, {"loss": 0.25}))
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1
        return await super().train(records, told=told, **others)


async def while_training(act):
    optimizer = finetune(trainer=Slow())
    with LoopbackLM(script) as server:
        settings = {"clients": {"default": {"model": "openai/x", "base_url": server.url, "api_key": "none"}}}
        async with otpy.start(settings={**settings, "cache": {"enabled": False}}) as app:
            run = optimizer.start(STUDENT, trainset=TRAIN, valset=VAL)
            await optimizer.trainer.begun.wait()
            result = await act(app, run)
    assert optimizer.trainer.ended == 1
    return result


def test_a_run_says_that_it_is_training_and_stopped_then_returns_the_best_so_far():
    async def stopped(_, run):
        assert run.status().doing == "default: training 3 of 8, loss 0.25"
        run.stop()
        return await run.result()

    outcome = asyncio.run(while_training(stopped))
    assert (outcome.stopped, outcome.program.client) == ("stopped", "default")


def test_a_run_that_is_cancelled_ends_the_training():
    async def cancelled(_, run):
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.result()

    asyncio.run(while_training(cancelled))


def test_a_run_whose_process_is_killed_goes_on_and_trains():
    async def killed(app, run):
        (process,) = [ref for name, ref in app.names.items() if isinstance(name, tuple) and name[0] == "teleprompter"]
        process.exit("kill")
        return await run.result()

    outcome = asyncio.run(while_training(killed))
    assert (outcome.stopped, outcome.score) == ("done", 1.0)


def test_at_its_cap_the_best_so_far_is_returned_and_nothing_is_trained():
    optimizer = finetune()
    program, server = compiled(optimizer, script, max_requests=len(VAL) + 3)
    assert outcome_of(program).stopped == "budget"
    assert len(server.requests) == len(VAL) + 3
    assert (program.client, optimizer.trainer.given) == ("default", [])


def test_no_row_that_will_do_is_an_error():
    with pytest.raises(TeleprompterError, match=r"no row of 14 satisfied exact_match\('kind'\) of at least 2"):
        compiled(finetune(metric_threshold=2), script)


def test_rows_that_lack_an_output_cannot_be_learned():
    rows = [otpy.Example(word=row.word) for row in TRAIN]
    with pytest.raises(TeleprompterError, match="no row of the trainset has all the fields of self: word, kind"):
        compiled(finetune(None), script, trainset=rows)


def test_a_teacher_of_another_structure_is_refused():
    with pytest.raises(TeleprompterError, match="student and teacher differ"):
        compiled(finetune(), script, teacher=otpy.Predict("word -> colour"))


def test_a_provider_whose_models_nobody_trains_is_refused_before_anything_is_asked():
    with (
        LoopbackLM(script) as server,
        otpy.start(lm="acme/x", base_url=server.url, api_key="none", cache=False),
        pytest.raises(TeleprompterError, match="client 'default' is acme/x; models of 'local/' are trained here"),
    ):
        BootstrapFinetune().compile(STUDENT, trainset=TRAIN)
    assert server.requests == []


def test_a_route_is_no_model_that_can_be_trained():
    client = {"model": "openai/x", "base_url": "http://127.0.0.1:9", "api_key": "none"}
    settings = {"clients": {"one": client, "two": client}, "routes": {"default": {"chain": ["one", "two"]}}}
    with otpy.start(settings=settings), pytest.raises(TeleprompterError, match="'default' is a route"):
        BootstrapFinetune().compile(STUDENT, trainset=TRAIN)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rank": 0}, "rank=0; allowed: an integer >= 1"),
        ({"epochs": 1.5}, "epochs=1.5; allowed: an integer >= 1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"max_length": -1}, "max_length=-1"),
        ({"learning_rate": 0}, "learning_rate=0; allowed: a number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"alpha": "much"}, "alpha='much'"),
        ({"seed": -1}, "seed=-1"),
        ({"multitask": 1}, "multitask=1; allowed: True or False"),
        ({"metric_threshold": 0.5}, "metric_threshold=0.5 without a metric"),
        ({"trainer": 3}, "trainer=3; allowed: a Trainer"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments, error):
    with pytest.raises(TeleprompterError, match=error):
        BootstrapFinetune(**arguments)
