"""`CodeAct` acts by code that calls tools of the host, step by step."""

from __future__ import annotations

import json

import pytest

import otpy
from otpy.errors import LMAuthError, ProgramError
from otpy.programs import Predict
from otpy.programs.code_act import CodeAct
from otpy.testing import FakeProvider, Fault
from otpy.types.tool import Tool

pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")


@pytest.fixture
def play():
    """Call a program; the model answers in turn, with outputs as JSON."""

    def play(program, *answers, **inputs):
        left = [answer if isinstance(answer, Fault) else json.dumps(answer) for answer in answers]
        with (
            FakeProvider(lambda _: left.pop(0)) as fake,
            otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
        ):
            prediction = program(**inputs)
        assert left == []
        return prediction, [request.prompt for request in fake.requests]

    return play


def acts(code, *, finished=False):
    return {"code": code, "finished": finished}


def extracts(answer):
    return {"reasoning": "seen", "answer": answer}


def price(item: str, amount: int = 1) -> float:
    """Tell a price.

    Args:
        item: What.
    """
    return {"tea": 2.5, "milk": 1.0}[item] * amount


async def stock(item: str) -> dict[str, int]:
    """Tell what is there."""
    return {item: 3}


def test_code_calls_tools_by_position_and_by_name_and_its_variables_stay(play):
    program = CodeAct("question -> answer: float", [price, stock])
    prediction, prompts = play(
        program,
        acts("p = price('tea', amount=2)\nprint(p, stock('tea'))"),
        acts("print(p + price('milk'))", finished=True),
        extracts(6.0),
        question="tea for two, and milk?",
    )
    assert (prediction.answer, prediction.termination_reason) == (6.0, "finished")
    assert [step["output"] for step in prediction.trajectory] == ["5.0 {'tea': 3}", "6.0"]
    assert "price(item: string, amount: integer = 1): Tell a price." in prompts[0]
    assert "5.0 {'tea': 3}" in prompts[1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("price('coffee')", "RuntimeError: KeyError: 'coffee'"),
        ("price()", "'item' is missing"),
        ("price('tea', 1, 2)", "price takes item, amount"),
        ("price('tea', 'x')", "input should be a valid integer"),
        ("undefined()", "NameError: name 'undefined' is not defined"),
        ("1 +", "SyntaxError"),
    ],
)
def test_what_goes_wrong_in_the_code_is_told_to_the_model(code, said, play):
    _, prompts = play(CodeAct("question -> answer", [price], max_iters=1), acts(code), extracts("?"), question="x")
    assert said in prompts[1]


def test_a_tool_that_hangs_is_given_up_at_its_deadline(play):
    async def hang() -> str:
        import asyncio

        await asyncio.Event().wait()
        return ""

    program = CodeAct("question -> answer", [hang], max_iters=1, tool_timeout=0.05)
    _, prompts = play(program, acts("hang()"), extracts("?"), question="x")
    assert "hang did not answer within 0.05 s" in prompts[1]


def test_a_program_is_a_tool(play):
    translate = Tool(Predict("text -> french"), name="translate")
    prediction, _ = play(
        CodeAct("question -> answer", [translate]),
        acts("print(translate('hello')['french'])", finished=True),
        {"french": "bonjour"},
        extracts("bonjour"),
        question="x",
    )
    assert prediction.trajectory[0]["output"] == "bonjour"
    assert prediction.usage.requests == 3


def test_that_a_model_cannot_be_asked_is_no_news_for_the_code(play):
    program = CodeAct("question -> answer", [Tool(Predict("text -> french"), name="translate")])
    code = "try:\n    translate('x')\nexcept Exception:\n    print('never')"
    with pytest.raises(LMAuthError):
        play(program, acts(code), Fault(status=401), question="x")


def test_it_ends_after_max_iters_and_when_its_answers_cannot_be_read(play):
    program = CodeAct("question -> answer", [price], max_iters=2)
    prediction, _ = play(program, acts("1"), acts("2"), extracts("3"), question="x")
    assert (prediction.answer, prediction.termination_reason, len(prediction.trajectory)) == ("3", "max_iters", 2)
    prediction, _ = play(program, {"no": 1}, {"no": 1}, extracts("3"), question="x")
    assert (prediction.answer, prediction.termination_reason, prediction.trajectory) == ("3", "invalid", [])


def test_finished_code_that_fails_has_not_finished(play):
    program = CodeAct("question -> answer", [price])
    answers = [acts("1 / 0", finished=True), acts("print(1)", finished=True), extracts("1")]
    assert len(play(program, *answers, question="x")[0].trajectory) == 2


def test_tools_that_code_could_not_call_are_refused():
    with pytest.raises(ProgramError, match=r"cannot call a tool 'get-price'"):
        CodeAct("question -> answer", [Tool(price, name="get-price")])
    with pytest.raises(ProgramError, match="only a description"):
        CodeAct("question -> answer", [Tool(name="price")])
    with pytest.raises(ProgramError, match="tool_timeout=0"):
        CodeAct("question -> answer", [price], tool_timeout=0)


def test_calls_at_the_same_time_have_sessions_of_their_own():
    import asyncio

    program = CodeAct("number: int -> answer: int", [price])

    def script(request):
        number = request.prompt.rpartition("number: ")[2].split()[0]
        if '"answer"' in request.prompt:
            return json.dumps({"reasoning": "", "answer": number})
        return json.dumps(acts(f"assert number == {number}\nx = number", finished=True))

    async def main():
        with FakeProvider(script) as fake:
            async with otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False):
                return await asyncio.gather(*(program.acall(number=number) for number in range(100)))

    predictions = asyncio.run(main())
    assert [prediction.answer for prediction in predictions] == list(range(100))
    assert all(prediction.termination_reason == "finished" for prediction in predictions)
