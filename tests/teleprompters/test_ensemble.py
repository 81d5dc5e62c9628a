"""An ensemble asks its programs at the same time and makes one answer of theirs."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import ProgramError, TeleprompterError
from otpy.programs import tracing
from otpy.teleprompters.ensemble import Ensemble
from otpy.testing import LoopbackLM


class Says(otpy.Program):
    answer: str

    async def forward(self, question):
        return otpy.Prediction(answer=self.answer)


def answers(*texts):
    return [Says(answer=text) for text in texts]


def test_the_most_frequent_answer_wins():
    program = Ensemble().compile(answers("4", "five", "4."))
    assert asyncio.run(program.acall(question="2 + 2?")).answer == "4"


def test_reduce_fn_gets_the_predictions_in_the_order_of_the_programs():
    def joined(predictions):
        return otpy.Prediction(answer="".join(one.answer for one in predictions))

    program = Ensemble(joined).compile(answers("a", "b", "c"))
    assert asyncio.run(program.acall(question="?")).answer == "abc"


@given(st.integers(1, 5), st.integers(0, 100), st.text())
def test_a_choice_of_some_is_the_same_for_the_same_inputs_and_of_its_size(size, seed, question):
    def joined(predictions):
        return otpy.Prediction(answer="".join(one.answer for one in predictions))

    program = Ensemble(joined, size=size, seed=seed).compile(answers(*"abcde"))
    first, second = (asyncio.run(program.acall(question=question)).answer for _ in range(2))
    assert first == second == "".join(sorted(first))
    assert len(set(first)) == size


def test_its_programs_run_at_the_same_time_and_their_calls_and_costs_are_its_own():
    predict = otpy.Predict("question -> answer")
    program = Ensemble().compile(predict.with_instructions(f"Be {how}.") for how in ("short", "sure", "kind"))
    with LoopbackLM(lambda _: {"answer": "4"}) as server:
        from otpy.testing import Scripted

        server.script = lambda _: Scripted({"answer": "4"}, hold=True)

        async def main():
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none"}
            async with otpy.start(settings={"clients": {"default": client}}):
                with tracing() as trace:
                    asked = asyncio.ensure_future(program.acall(question="2 + 2?"))
                    await asyncio.to_thread(server.wait_for, 3)
                    server.release()
                    return await asked, {entry.path for entry in trace}

        prediction, paths = asyncio.run(main())
    assert prediction.answer == "4"
    assert prediction.usage.requests == 3
    assert paths == {"programs[0]", "programs[1]", "programs[2]"}


def test_a_program_that_fails_is_not_passed_over():
    class Fails(otpy.Program):
        async def forward(self, question):
            raise KeyError("a bug")

    program = Ensemble().compile([*answers("4"), Fails()])
    with pytest.raises(KeyError, match="a bug"):
        asyncio.run(program.acall(question="2 + 2?"))


def test_it_is_a_value_that_can_be_saved_and_loaded(tmp_path):
    predict = otpy.Predict("question -> answer")
    program = Ensemble(size=1).compile([predict, predict.with_instructions("Be sure.")])
    program.save(tmp_path / "program.json")
    assert program.load(tmp_path / "program.json") == program
    assert hash(program) == hash(program.replace())
    assert program != program.replace(seed=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ensemble(size=0), "size=0; allowed: an integer >= 1"),
        (lambda: Ensemble("majority"), "reduce_fn='majority'; allowed: a function"),
        (lambda: Ensemble().compile([]), "0 programs; allowed: at least 1"),
        (lambda: Ensemble(size=3).compile(answers("a")), "1 programs; allowed: at least 3"),
        (lambda: Ensemble().compile(["x"]), "program 0 is 'x'; allowed: a program"),
        (
            lambda: Ensemble().compile([otpy.Predict("a -> b"), otpy.Predict("c -> b")]),
            "program 1 takes c, and the first one a",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(TeleprompterError, match=message):
        make()


class Bank(otpy.Program):
    """A composition of somebody's own."""

    answer: otpy.Predict = otpy.Predict("question -> answer")

    async def forward(self, question):
        return await self.answer.acall(question=question)


class TestSaving:
    def test_it_is_loaded_with_the_classes_of_its_programs_alone(self, tmp_path):
        path = tmp_path / "together.json"
        first, second = Bank(), Bank().with_instructions("Be sure.")
        program = Ensemble(size=1, seed=3).compile([first, second])
        program.save(path)
        assert otpy.load_program(path, classes=[Bank]) == program
        assert otpy.load(Ensemble(size=2).compile([first, first]), path) == program

    def test_a_function_of_ones_own_is_in_no_file_and_that_is_said(self, tmp_path):
        path = tmp_path / "together.json"
        program = Ensemble(lambda predictions: predictions[0]).compile([Bank(), Bank()])
        program.save(path)
        with pytest.raises(ProgramError, match=r"reduce_fn is code .* load\(program, path\)"):
            otpy.load_program(path, classes=[Bank])
        assert otpy.load(program, path) == program

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            ("programs", {"list": []}),
            ("programs", {"value": "x"}),
            ("reduce_fn", {"value": 3}),
            ("size", {"value": 3}),
            ("size", {"value": True}),
            ("seed", {"value": -1}),
        ],
    )
    def test_a_file_that_holds_what_its_constructor_refuses_is_refused(self, tmp_path, part, value):
        path = tmp_path / "together.json"
        Ensemble().compile([Bank(), Bank()]).save(path)
        content = json.loads(path.read_text())
        content["tree"]["parts"][part] = value
        path.write_text(json.dumps(content))
        with pytest.raises(ProgramError, match=f"{part}="):
            otpy.load_program(path, classes=[Bank], verify=False)
