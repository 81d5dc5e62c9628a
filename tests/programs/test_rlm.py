"""`RLM` reads what is too long for a prompt with code, and has models read pieces of it."""

from __future__ import annotations

import json
import threading

import pytest

import otpy
from otpy.errors import LMError, ProgramError, SignatureError
from otpy.programs.rlm import RLM
from otpy.testing import FakeProvider, Fault, Say

pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")

BOOK = "\n".join(f"line {number}: nothing of note" for number in range(20_000)) + "\nline 20000: the key is 4711"


@pytest.fixture
def play():
    """Call a program; steps are answered in turn, prompts of `llm_query` by `reads`."""

    def play(program, *answers, reads=None, **inputs):
        left = list(answers)
        asked: list[str] = []

        def script(request):
            messages = request.body["messages"]
            if messages[0]["role"] == "system":
                answer = left.pop(0)
                return answer if isinstance(answer, Fault) else json.dumps(answer)
            asked.append(messages[-1]["content"])
            return reads(asked[-1]) if reads else "read"

        with (
            FakeProvider(script) as fake,
            otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
        ):
            prediction = program(**inputs)
        assert left == []
        prompts = [request.prompt for request in fake.requests if request.body["messages"][0]["role"] == "system"]
        return prediction, prompts, asked

    return play


def steps(*codes):
    return [{"reasoning": f"step {number}", "code": code} for number, code in enumerate(codes, 1)]


def test_a_long_context_is_a_variable_and_never_in_a_prompt(play):
    assert len(BOOK) > 500_000
    program = RLM("book, question -> key: int")
    prediction, prompts, asked = play(
        program,
        *steps(
            "lines = book.split('\\n')\nprint(len(lines))",
            "found = [line for line in lines if 'key' in line]\nprint(llm_query('What is the key? ' + found[0]))",
            "SUBMIT(key=found[0].split()[-1])",
        ),
        reads=lambda prompt: "4711, it says",
        book=BOOK,
        question="What is the key?",
    )
    assert (prediction.key, prediction.termination_reason) == (4711, "submit")
    assert asked == ["What is the key? line 20000: the key is 4711"]
    assert max(map(len, prompts)) < 5_000
    assert f"book: str of {len(BOOK):,} characters, begins: 'line 0: nothing" in prompts[0]
    assert [step["output"] for step in prediction.trajectory] == ["20001", "4711, it says", "(submitted)"]
    assert prediction.trajectory[0]["reasoning"] == "step 1"
    assert "2 of 20" in prompts[1]
    assert prediction.usage.requests == 4


def test_several_prompts_are_read_at_the_same_time_and_never_more_than_allowed(play):
    lock, now, most = threading.Lock(), 0, 0

    def reads(prompt):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return Say(prompt.upper(), delay=0.01)

    program = RLM("text -> answer: list[str]", max_parallel=3)
    code = "SUBMIT(answer=llm_query_batched([text + str(n) for n in range(12)]))"
    prediction, _, asked = play(program, *steps(code), reads=reads, text="a")
    assert prediction.answer == [f"A{number}" for number in range(12)]
    assert len(asked) == 12
    assert most <= 3


def test_the_budget_of_prompts_is_one_call_s_and_the_code_is_told_when_it_is_used_up(play):
    program = RLM("text -> answer", max_llm_calls=3, max_iters=3)
    codes = ("print(llm_query_batched(['a', 'b']))", "llm_query_batched(['c', 'd'])", "SUBMIT(llm_query('e'))")
    for _ in range(2):
        prediction, prompts, asked = play(program, *steps(*codes), text="x")
        assert sorted(asked) == ["a", "b", "e"]
        assert "2 prompts, but 1 of 3 are left" in prompts[2]
        assert prediction.answer == "read"


def test_outputs_that_do_not_fit_are_told_to_the_code_which_may_try_again(play):
    program = RLM("text -> answer: int")
    prediction, prompts, _ = play(program, *steps("SUBMIT(answer='many')", "SUBMIT(2)"), text="x")
    assert prediction.answer == 2
    assert "valid integer" in prompts[1]


def test_code_may_catch_what_submit_says_but_not_that_it_ends(play):
    code = "try:\n    SUBMIT(answer='x')\nexcept Exception as error:\n    SUBMIT(answer=3)\nprint('never')"
    prediction, *_ = play(RLM("text -> answer: int"), *steps(code), text="x")
    assert prediction.answer == 3
    assert prediction.trajectory[0]["output"] == "(submitted)"


def test_the_outputs_are_extracted_if_nothing_was_submitted(play):
    program = RLM("text -> answer: int", max_iters=2)
    prediction, prompts, _ = play(program, *steps("print(1)", "print(2)"), {"answer": 12}, text="x")
    assert (prediction.answer, prediction.termination_reason) == (12, "max_iters")
    assert "Nothing was submitted" in prompts[2]
    assert "print(2)" in prompts[2]


def test_answers_that_cannot_be_read_end_it_with_what_there_is(play):
    prediction, *_ = play(RLM("text -> answer: int"), {"no": 1}, {"no": 2}, {"answer": 0}, text="x")
    assert (prediction.answer, prediction.termination_reason) == (0, "invalid")


def test_of_a_long_output_the_model_is_shown_both_ends(play):
    program = RLM("text -> answer: int", max_output_chars=1_000)
    _, prompts, _ = play(program, *steps("print('a' * 5_000 + 'END')", "SUBMIT(1)"), text="x")
    assert "characters left out" in prompts[1]
    assert "aEND" in prompts[1]
    assert len(prompts[1]) < 5_000


def test_a_session_that_is_lost_costs_its_variables_and_not_the_inputs(play):
    program = RLM("text -> answer: str")
    codes = ("y = 1\nx = 'x' * 10**12", "print(y)", "SUBMIT(text)")
    prediction, prompts, _ = play(program, *steps(*codes), text="here still")
    assert prediction.answer == "here still"
    assert "MemoryError" in prompts[1]
    assert "variables other than the inputs are gone" in prompts[1]
    assert "NameError: name 'y' is not defined" in prompts[2]


def test_that_models_cannot_be_asked_fails_the_call_and_not_the_code(play):
    code = "try:\n    llm_query('x')\nexcept Exception:\n    pass"
    with pytest.raises(LMError, match="401"):
        play(RLM("text -> answer"), *steps(code), reads=lambda _: Fault(status=401), text="x")
    with pytest.raises(LMError, match="401"):
        play(
            RLM("text -> answer"), *steps("llm_query_batched(['a', 'b'])"), reads=lambda _: Fault(status=401), text="x"
        )


def test_tools_and_another_client_for_the_prompts():
    def page(number: int) -> str:
        """Fetch a page."""
        return f"page {number}"

    answers = [json.dumps(step) for step in steps("SUBMIT(llm_query(page(3)))")]
    with (
        FakeProvider(lambda _: answers.pop(0)) as root,
        FakeProvider(lambda request: f"small read {request.prompt}") as small,
        otpy.start(
            lm="openai/big",
            base_url=root.url("openai_chat"),
            api_key="none",
            cache=False,
            settings={
                "clients": {"small": {"model": "openai/small", "base_url": small.url("openai_chat"), "api_key": "none"}}
            },
        ),
    ):
        prediction = RLM("text -> answer", tools=[page], sub_client="small")(text="x")
    assert prediction.answer == "small read page 3"
    assert (root.counts.requests, small.counts.requests) == (1, 1)


def test_an_rlm_may_use_another_one_as_a_tool_though_there_is_but_one_session(play):
    from otpy.sandboxes import Monty
    from otpy.types.tool import Tool

    engine = Monty(sessions=1)
    inner = Tool(RLM("text -> answer", sandbox=engine), name="inner")
    outer = RLM("text -> answer", tools=[inner], sandbox=engine)
    prediction, *_ = play(outer, *steps("SUBMIT(inner(text)['answer'])", "SUBMIT(text + '!')"), text="x")
    assert prediction.answer == "x!"


def test_what_cannot_be_is_refused_when_it_is_made():
    for name, value in (("max_iters", 0), ("max_llm_calls", -1), ("max_output_chars", 5), ("max_parallel", 0)):
        with pytest.raises(ProgramError, match=f"RLM: {name}={value}"):
            RLM("text -> answer", **{name: value})
    with pytest.raises(SignatureError, match=r"llm_query: RLM has a field of this name"):
        RLM("llm_query -> answer")
    with pytest.raises(ProgramError, match="sub_client=3"):
        RLM("text -> answer", sub_client=3)


def test_it_is_a_value_whose_predictors_can_be_changed():
    program = RLM("text -> answer", max_iters=3)
    assert program == RLM("text -> answer", max_iters=3) != RLM("text -> answer", max_iters=4)
    assert [path for path, _ in program.named_predictors()] == ["act", "extract"]
    changed = program.with_instructions({"act": "Other words."})
    assert changed.act.signature.instructions == "Other words."
