"""GRPO: rewards are what the metric makes of the program; what goes wrong costs an answer, not the run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

import otpy
from otpy.errors import ModelNotAvailable, TeleprompterError
from otpy.teleprompters.grpo import GRPO
from otpy.teleprompters.outcome import outcome_of
from otpy.teleprompters.rollout import AskedAgain, asked_of, ran_with
from otpy.testing import FakeProvider, Say
from otpy.training.rewarded import Improved, RewardTrainer

PROGRAM = Path(__file__).parents[1] / "training" / "fake_grpo.py"
SIGNATURE = "number: int -> parity: Literal['even', 'odd']"
ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(8)]
EVEN, ODD, NONSENSE = '{"parity": "even"}', '{"parity": "odd"}', "who knows"


class Scripted(RewardTrainer):
    """The real trainer around a scripted program; its model is one of the fake provider."""

    def __init__(self):
        super().__init__("local/smollm2-135m", program=lambda folder: [sys.executable, str(PROGRAM), str(folder)])

    async def train(self, *args, **options):
        improved = await super().train(*args, **options)
        return Improved("acme/trained", improved.curve)


def answered(request):
    """The model that was trained is right, the other says even."""
    numbers = re.findall(r"\d+", request.body["messages"][-1]["content"])
    number = int(numbers[-1]) if numbers else 0
    right = ODD if number % 2 and request.body["model"] == "trained" else EVEN
    return Say(right)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache" / "training").mkdir(parents=True)
    return tmp_path / "cache" / "training"


@pytest.fixture
def app(folder):
    with FakeProvider(answered) as fake:
        client = {"model": "acme/base", "base_url": fake.url("openai_chat"), "api_key": "none"}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as running:
            yield running


def script(folder, *texts, **more):
    (folder / "script.json").write_text(json.dumps({"texts": texts, **more}))


def rewards(folder):
    return [json.loads(line) for line in (folder / "rewards.jsonl").read_text().splitlines()]


def grpo(metric=None, **options):
    options = {"num_train_steps": 3, "num_rollouts_per_grpo_step": 4, "trainer": Scripted(), **options}
    return GRPO(metric or otpy.exact_match("parity"), **options)


def trained(optimizer, student=None, **options):
    student = otpy.Predict(SIGNATURE) if student is None else student
    return optimizer.compile(student, trainset=ROWS, valset=ROWS, **options)


def test_answers_are_rewarded_with_what_the_metric_makes_of_them(app, folder):
    script(folder, EVEN, ODD, NONSENSE)
    better = trained(grpo())
    assert better.client == "acme/trained"
    outcome = outcome_of(better)
    assert (outcome.student.score, outcome.score) == (0.5, 1.0)
    (curve,) = [one.params["rewards"] for one in outcome.candidates if one.name == "trained"]
    assert len(curve) == 3
    assert any("mean reward of the first 3 was" in note for note in outcome.notes)
    for _, found in rewards(folder):
        assert set(found) == {0.0, 1.0, -1.0}
    assert "acme/trained" in app.settings.clients


def test_the_prompts_are_what_the_program_sends_without_its_demos(app, folder):
    script(folder, EVEN)
    student = otpy.Predict(SIGNATURE, demos=[ROWS[0]])
    trained(grpo(), student)
    (lines,) = [path.read_text() for path in folder.glob("*/prompts.jsonl")]
    prompt = json.loads(lines.splitlines()[0])["messages"]
    said = otpy.Predict(SIGNATURE).messages(number=0)
    assert prompt == [{"role": message.role, "content": message.content} for message in said]


class Doubled(otpy.Program):
    """One predictor, with code of its own around it."""

    tell: otpy.Predict = otpy.Predict(SIGNATURE)

    async def forward(self, number):
        said = await self.tell.acall(number=number + 1)
        return otpy.Prediction(parity={"odd": "even", "even": "odd"}[said.parity])


def test_the_program_s_own_code_stands_between_the_answer_and_the_reward(app, folder):
    script(folder, EVEN, ODD)
    seen = []

    def metric(example, prediction, trace=None):
        seen.append((example.number, prediction.parity))
        return float(prediction.parity == example.parity)

    trained(grpo(metric, num_train_steps=1), Doubled())
    row = json.loads(next(folder.glob("*/prompts.jsonl")).read_text().splitlines()[1])
    assert row["messages"][-1]["content"].endswith("2")
    found = rewards(folder)[0][1]
    assert sorted(found) == [0.0, 0.0, 1.0, 1.0]


def test_a_metric_that_raises_costs_its_answer_and_no_other(app, folder):
    script(folder, EVEN, ODD)

    def metric(example, prediction, trace=None):
        if prediction.parity == "odd" and "base" not in app.settings.clients.get("acme/trained", {"": ""}):
            raise RuntimeError("no judge")
        return 1.0

    better = trained(grpo(metric, max_errors=None))
    assert all(found.count(None) == 2 and found.count(1.0) == 2 for _, found in rewards(folder))
    assert any("left out, the first with RuntimeError: no judge" in note for note in outcome_of(better).notes)


def test_a_metric_that_hangs_costs_its_answer_and_no_other(app, folder):
    script(folder, EVEN, ODD)
    training = [True]

    async def metric(example, prediction, trace=None):
        if prediction.parity == "odd" and training[0]:
            await asyncio.sleep(3600)
        return 1.0

    optimizer = grpo(metric, metric_timeout=0.05, num_train_steps=1)
    trainer = optimizer.trainer.train

    async def train(*args, **options):
        improved = await trainer(*args, **options)
        training[0] = False
        return improved

    optimizer.trainer.train = train
    trained(optimizer)
    assert sorted(rewards(folder)[0][1], key=str) == [1.0, 1.0, None, None]


def test_a_metric_that_always_fails_ends_the_run(app, folder):
    script(folder, *(json.dumps({"parity": "even", "why": n}) for n in range(9)))

    def metric(example, prediction, trace=None):
        return 0.5 if example.number == 0 else "no number"

    with pytest.raises(TeleprompterError, match=r"more errors of the metric than max_errors=2; the last: Eval"):
        GRPO(metric, num_train_steps=9, trainer=Scripted(), max_errors=2).compile(
            otpy.Predict(SIGNATURE), trainset=ROWS[1:], valset=ROWS[:1]
        )


def test_a_program_that_is_killed_goes_on_and_equal_answers_are_judged_once(app, folder):
    script(folder, EVEN, ODD, die_at=[2, 3])
    judged = []

    async def metric(example, prediction, trace=None):
        judged.append((example.number, prediction.parity))
        return float(example.parity == prediction.parity)

    metric.quick = True
    better = trained(grpo(metric))
    assert outcome_of(better).score == 1.0
    assert [step for step, _ in rewards(folder)] == [1, 2, 3]
    training = judged[len(ROWS) : -len(ROWS)]
    assert len(training) == len(set(training)) == 6


def test_the_same_call_again_trains_nothing(app, folder, tmp_path):
    script(folder, EVEN, ODD)
    first = trained(grpo(), journal=tmp_path / "journal.db")
    asked = len(rewards(folder))
    script(folder, EVEN, error="it would be trained again")
    again = trained(grpo(), journal=tmp_path / "journal.db")
    assert again.content_hash() == first.content_hash()
    assert len(rewards(folder)) == asked


def test_another_run_trains_anew_as_its_metric_may_judge_otherwise(app, folder):
    script(folder, EVEN, ODD)

    def judged(by):
        def metric(example, prediction, trace=None):
            return by

        trained(grpo(metric, num_train_steps=1))
        return rewards(folder)[-1][1]

    assert judged(1.0) == [1.0] * 4
    assert judged(0.25) == [0.25] * 4


def test_a_training_that_fails_says_why(app, folder):
    script(folder, EVEN, error="OSError: [Errno 28] No space left on device")
    with pytest.raises(TeleprompterError, match=r"the training has failed: OSError.*No space left"):
        trained(grpo())


def test_cancelling_it_ends_the_program(app, folder):
    script(folder, EVEN, hang_at=2)

    async def main():
        run = grpo().start(otpy.Predict(SIGNATURE), trainset=ROWS, valset=ROWS)
        while not (folder / "rewards.jsonl").exists() or "training" not in run.status().doing:
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.result()
        assert not await app.teleprompters.which_children()

    app.run(asyncio.wait_for(main(), 30))


def test_stopping_it_returns_the_student(app, folder):
    script(folder, EVEN, hang_at=2)

    async def main():
        run = grpo().start(otpy.Predict(SIGNATURE), trainset=ROWS, valset=ROWS)
        while not (folder / "rewards.jsonl").exists():
            await asyncio.sleep(0.01)
        run.stop()
        return await run.result()

    outcome = app.run(asyncio.wait_for(main(), 30))
    assert (outcome.stopped, outcome.program.client) == ("stopped", "default")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_train_steps": 0}, "num_train_steps=0; allowed: an integer >= 1"),
        ({"num_rollouts_per_grpo_step": 1}, "num_rollouts_per_grpo_step=1; allowed: an integer >= 2"),
        ({"learning_rate": 0}, "learning_rate=0; allowed: a finite number > 0"),
        ({"alpha": 0}, "alpha=0; allowed: a finite number > 0, or None"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"metric_timeout": -1}, "metric_timeout=-1"),
        ({"beta": -0.1}, "beta=-0.1; allowed: a finite number >= 0"),
        ({"format_failure_score": None}, "format_failure_score=None"),
        ({"failure_score": "bad"}, "failure_score='bad'"),
        ({"exclude_demos": 1}, "exclude_demos=1"),
        ({"trainer": "trl"}, "trainer='trl'"),
        ({"max_errors": -1}, "max_errors=-1"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(options, words):
    with pytest.raises(TeleprompterError, match=words):
        GRPO(otpy.exact_match("parity"), **options)


class Two(otpy.Program):
    first: otpy.Predict = otpy.Predict("number: int -> half: int")
    second: otpy.Predict = otpy.Predict("half: int -> parity")

    async def forward(self, number):
        return await self.second.acall(half=(await self.first.acall(number=number)).half)


class Twice(otpy.Program):
    tell: otpy.Predict = otpy.Predict(SIGNATURE)

    async def forward(self, number):
        await self.tell.acall(number=number)
        return await self.tell.acall(number=number + 2)


def test_what_cannot_be_trained_so_is_an_error_that_says_what_can(app, folder):
    script(folder, EVEN)
    with pytest.raises(TeleprompterError, match="2 predictors: first, second; programs that ask one predictor, once"):
        trained(grpo(), Two())
    with pytest.raises(TeleprompterError, match="n=2 answers at once; allowed: 1"):
        trained(grpo(), otpy.Predict(SIGNATURE, n=2))
    with pytest.raises(TeleprompterError, match="acme/base, which cannot be trained by reward here; those of 'local/'"):
        trained(grpo(trainer=None))
    assert sum(sums.requests for sums in app.spent().values()) == 0
    with pytest.raises(TeleprompterError, match="asked a second time for one example; programs that ask one"):
        trained(grpo(), Twice())  # which is seen when it runs


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelNotAvailable, match=r"needs the extra 'train'.*pip install"):
        RewardTrainer("local/smollm2-135m").check()


def test_what_is_asked_is_found_out_without_asking(app):
    async def main():
        asked = await asked_of(Doubled(), ROWS[3].with_inputs("number"))
        assert asked[-1].content == "number: 4"
        with pytest.raises(TeleprompterError, match="fails before it asks anything"):
            await asked_of(Doubled(), otpy.Example(number="x").with_inputs("number"))
        said = await ran_with(Doubled(), ROWS[3].with_inputs("number"), EVEN)
        assert said.parity == "odd"
        with pytest.raises(AskedAgain):
            await ran_with(Twice(), ROWS[3].with_inputs("number"), EVEN)

    app.run(main())
