"""What a run will take is told before it begins; what it took lies in that range."""

import asyncio
import itertools
from decimal import Decimal

import pytest

import otpy
from otpy.errors import TeleprompterError
from otpy.teleprompters import Teleprompter
from otpy.teleprompters.outcome import outcome_of
from otpy.testing import FakeProvider, LoopbackLM, Say

ROWS = [otpy.Example(number=n, parity="odd" if n % 2 else "even") for n in range(20)]
METRIC = otpy.exact_match("parity")
STUDENT = otpy.Predict("number: int -> parity: Literal['even', 'odd']")
BOOTSTRAP = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=4, max_labeled_demos=8, max_rounds=2)


class Two(otpy.Program):
    """Two predictors, the second of which is asked what the first has made."""

    first: otpy.Predict = otpy.Predict("number: int -> half: float")
    second: otpy.Predict = otpy.Predict("half: float -> parity")

    async def forward(self, number):
        return await self.second.acall(half=(await self.first.acall(number=number)).half)


class Chooser(Teleprompter[otpy.Predict]):
    """Says nothing of its requests."""

    uses_valset = True
    metric = METRIC


def test_bootstrapping_makes_as_many_requests_as_it_wants_demos_or_as_it_has_tries():
    assert BOOTSTRAP.estimate(STUDENT, trainset=ROWS).requests == (4, 40)
    assert BOOTSTRAP.estimate(Two(), trainset=ROWS).requests == (8, 80)
    assert BOOTSTRAP.estimate(STUDENT, trainset=ROWS[:3]).requests == (3, 6)
    labeled = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=0)
    assert labeled.estimate(STUDENT, trainset=ROWS).requests == (0, 0)


def test_demos_that_stand_as_they_are_cost_nothing():
    found = otpy.LabeledFewShot(4).estimate(STUDENT, trainset=ROWS)
    assert (found.requests, found.tokens) == ((0, 0), (0, 0))


@pytest.mark.parametrize(("valset", "least"), [(None, 10), (ROWS[:7], 7)])
def test_an_optimizer_without_a_formula_measures_the_student_at_least(valset, least):
    found = Chooser().estimate(STUDENT, trainset=ROWS, valset=valset)
    assert found.requests == (least, None)
    assert found.tokens[1] is None
    assert "or more" in str(found)


def test_longer_prompts_take_more_tokens():
    short = BOOTSTRAP.estimate(STUDENT, trainset=ROWS)
    long = BOOTSTRAP.estimate(STUDENT.with_instructions("Think. " * 400), trainset=ROWS)
    assert all(more - less >= 600 * count for more, less, count in zip(long.tokens, short.tokens, (4, 40), strict=True))


def test_without_an_application_or_a_price_there_is_no_sum_of_money():
    assert BOOTSTRAP.estimate(STUDENT, trainset=ROWS).money is None


def test_an_empty_trainset_is_refused():
    with pytest.raises(TeleprompterError, match="the trainset is empty"):
        BOOTSTRAP.estimate(STUDENT, trainset=[])


def test_what_a_run_takes_lies_in_its_estimate_and_nothing_was_asked_for_it():
    def script(request):
        number = int(request.body["messages"][-1]["content"].split()[-1])
        return Say('{"parity": "odd"}', delay=number * 0)

    async def main():
        with FakeProvider(script) as fake:
            client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "api_key": "none"}
            prices = {"input_price": 2, "output_price": 10}
            async with otpy.start(settings={"clients": {"default": client | prices}, "cache": {"enabled": False}}):
                found = BOOTSTRAP.estimate(STUDENT, trainset=ROWS)
                assert fake.counts.requests == 0
                better = await BOOTSTRAP.acompile(STUDENT, trainset=ROWS)
                return found, outcome_of(better)

    found, outcome = asyncio.run(main())
    assert found.requests[0] <= outcome.requests <= found.requests[1]
    assert outcome.tokens <= found.tokens[1]
    low, high = found.money
    assert 0 < low < high
    assert low <= Decimal(found.tokens[1]) * 10 / 1_000_000


WORDS = [otpy.Example(word=f"{first}{n}", kind=first) for n in range(4, 10) for first in "abcd"]
KIND = otpy.exact_match("kind")
WRITERS = [
    otpy.GEPA(KIND, max_metric_calls=100, reflection_lm="large"),
    otpy.SIMBA(KIND, bsize=6, max_steps=2, max_demos=0, prompt_client="large"),
    otpy.COPRO(KIND, breadth=3, depth=2, prompt_client="large"),
    otpy.MIPROv2(KIND, prompt_client="large", minibatch_size=6),
    otpy.InferRules(KIND, prompt_client="large", num_candidates=3),
    otpy.BetterTogether(KIND, strategy="p", p=otpy.COPRO(KIND, breadth=3, depth=2, prompt_client="large")),
]


@pytest.mark.parametrize("optimizer", WRITERS, ids=lambda one: type(one).__name__)
def test_what_writes_instructions_is_taken_at_the_price_of_its_own_client_and_with_its_longest_answer(optimizer):
    asked = itertools.count()

    def script(body):
        text = f"{len(str(body))} " + "better " * 200
        if body["model"] == "large":
            fields = "new_instruction", "instruction", "observations", "summary", "description", "reasoning"
            return {"advice": {"self": text}, "rules": [text], **dict.fromkeys(fields, text)}
        word = body["messages"][-1]["content"].split()[-1]
        return {"kind": word[0] if next(asked) % 3 else "?"}

    async def main():
        with LoopbackLM(script) as server:
            client = {"base_url": server.url, "api_key": "none"}
            small = {**client, "model": "openai/small", "input_price": 0.1, "output_price": 0.1}
            large = {**client, "model": "openai/large", "input_price": 50.0, "output_price": 50.0}
            settings = {"clients": {"default": small, "large": large}, "cache": {"enabled": False}}
            async with otpy.start(settings=settings):
                student = otpy.Predict("word -> kind")
                sets = {"trainset": WORDS[:12], "valset": WORDS[12:]}
                return optimizer.estimate(student, **sets), await optimizer.start(student, **sets).result()

    found, outcome = asyncio.run(main())
    assert found.requests[0] <= outcome.requests <= found.requests[1]
    assert outcome.tokens <= found.tokens[1]
    assert Decimal("0.05") < outcome.money <= found.money[1]


@pytest.mark.parametrize(
    ("demos", "none"),
    [
        (otpy.GEPA(METRIC, max_metric_calls=100, evolve="demos"), otpy.GEPA(METRIC, max_metric_calls=100)),
        (otpy.SIMBA(METRIC, max_demos=8), otpy.SIMBA(METRIC, max_demos=0)),
    ],
)
def test_demos_that_a_program_gains_are_read_with_every_question(demos, none):
    rows = [otpy.Example(number=n, note="long " * 500, parity="odd") for n in range(20)]
    student = otpy.Predict("number: int, note -> parity")
    longer, shorter = (one.estimate(student, trainset=rows) for one in (demos, none))
    assert longer.tokens[1] - shorter.tokens[1] > 3 * 500 * (longer.requests[1] - 20)
