"""`ProgramOfThought` has code written, run in a sandbox and mended, and returns outputs that fit."""

from __future__ import annotations

import json

import pytest

import otpy
from otpy.errors import NoApplication, ProgramError, SignatureError
from otpy.programs.program_of_thought import ProgramOfThought
from otpy.programs.trace import tracing
from otpy.sandboxes import Limits, Monty
from otpy.testing import FakeProvider

pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")


@pytest.fixture
def play():
    """Call a program; the model answers in turn, with outputs as JSON."""

    def play(program, *answers, **inputs):
        left = [json.dumps(answer) for answer in answers]
        with (
            FakeProvider(lambda _: left.pop(0)) as fake,
            otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
            tracing() as trace,
        ):
            prediction = program(**inputs)
        assert left == []
        return prediction, [request.prompt for request in fake.requests], [entry.path for entry in trace]

    return play


def writes(code):
    return {"reasoning": "so", "code": code}


def test_the_inputs_are_variables_and_what_is_submitted_is_the_answer(play):
    program = ProgramOfThought("numbers: list[int] -> total: int, largest: int")
    code = "SUBMIT(total=sum(numbers), largest=max(numbers))"
    prediction, _, paths = play(program, writes(code), numbers=[1, 5, 2])
    assert (prediction.total, prediction.largest) == (8, 5)
    assert prediction.termination_reason == "submit"
    assert prediction.trajectory == [{"code": code, "output": "(submitted)"}]
    assert paths == ["write.predict"]
    assert prediction.usage.requests == 1


def test_outputs_are_converted_to_their_types_and_may_be_given_in_order_or_as_a_dictionary(play):
    program = ProgramOfThought("x: int -> a: float, b: list[str]")
    for call in ("SUBMIT(x, ['y'])", "SUBMIT({'a': x, 'b': ['y']})", "SUBMIT(x, b=['y'])"):
        prediction, *_ = play(program, writes(call), x=1)
        assert (prediction.a, prediction.b) == (1.0, ["y"])


def test_code_that_fails_is_mended_with_its_error(play):
    program = ProgramOfThought("x: int -> answer: int")
    prediction, prompts, paths = play(program, writes("SUBMIT(y)"), writes("SUBMIT(x + 1)"), x=1)
    assert prediction.answer == 2
    assert paths == ["write.predict", "mend.predict"]
    assert "NameError: name 'y' is not defined" in prompts[1]
    assert "SUBMIT(y)" in prompts[1]
    assert len(prediction.trajectory) == 2


def test_outputs_that_do_not_fit_are_told_to_the_code(play):
    program = ProgramOfThought("x: int -> answer: int")
    prediction, prompts, _ = play(program, writes("SUBMIT('many')"), writes("SUBMIT(answer=3)"), x=1)
    assert prediction.answer == 3
    assert "answer" in prompts[1]
    assert "many" in prompts[1]


def test_what_is_only_printed_is_answered_from(play):
    program = ProgramOfThought("x: int -> answer: str")
    answer = {"reasoning": "it is printed", "answer": "four"}
    prediction, prompts, paths = play(program, writes("print(x * 4)"), answer, x=1)
    assert (prediction.answer, prediction.termination_reason) == ("four", "output")
    assert paths == ["write.predict", "answer.predict"]
    assert "code_output: 4" in prompts[1]


def test_after_max_iters_it_answers_from_the_last_failure(play):
    program = ProgramOfThought("x: int -> answer: int", max_iters=2)
    answers = [writes("1 / 0"), writes("1 / 0"), {"reasoning": "no code works", "answer": 0}]
    prediction, _, _ = play(program, *answers, x=1)
    assert (prediction.answer, prediction.termination_reason) == (0, "max_iters")
    assert "ZeroDivisionError" in prediction.trajectory[1]["output"]


def test_code_that_never_ends_is_mended_too(play):
    program = ProgramOfThought("x: int -> answer: int", sandbox=Monty(limits=Limits(seconds=0.2)))
    prediction, prompts, _ = play(program, writes("while True: pass"), writes("SUBMIT(x)"), x=7)
    assert prediction.answer == 7
    assert "TimeoutError" in prompts[1]


def test_it_is_a_value():
    one = ProgramOfThought("x: int -> y: int", temperature=0.5)
    assert one == ProgramOfThought("x: int -> y: int", temperature=0.5)
    assert hash(one) == hash(ProgramOfThought("x: int -> y: int", temperature=0.5))
    assert [path for path, _ in one.named_predictors()] == ["write.predict", "mend.predict", "answer.predict"]
    assert one.with_config(temperature=0.1).write.predict.temperature == 0.1
    with pytest.raises(NoApplication):
        one(x=1)


def test_what_cannot_be_is_refused_when_it_is_made():
    with pytest.raises(ProgramError, match=r"sandbox='subprocess'; allowed: 'monty', 'pyodide', 'bubblewrap'"):
        ProgramOfThought("x -> y", sandbox="subprocess")
    with pytest.raises(ProgramError, match=r"max_iters=0; allowed: an integer >= 1"):
        ProgramOfThought("x -> y", max_iters=0)
    with pytest.raises(SignatureError, match=r"code: ProgramOfThought has a field of this name"):
        ProgramOfThought("x -> code")
