"""A program is a value; calling it works from synchronous and asynchronous code, nested to any depth."""

from __future__ import annotations

import asyncio
import copy
import functools
from typing import Any, ClassVar, Literal

import pytest

from otpy.clients.running import running
from otpy.errors import LMTimeout, ProgramError
from otpy.lm import Usage
from otpy.programs import ChainOfThought, Predict, Program
from otpy.signatures import InputField, OutputField, Prediction, Signature


class Triage(Signature):
    """Classify the query."""

    query: str = InputField()
    intent: Literal["card", "pin"] = OutputField()


class Twice(Program):
    """A plain forward."""

    first: Predict = Predict("question -> query")
    second: Predict = Predict("query -> answer")

    def forward(self, question: str) -> Prediction:
        return self.second(query=self.first(question=question).query)


class Awaited(Program):
    """An asynchronous forward."""

    first: Predict = Predict("question -> query")
    inner: Twice = Twice()

    async def forward(self, question: str) -> Prediction:
        return await self.inner.acall(question=(await self.first.acall(question=question)).query)


class Assigned(Program):
    """Parts as DSPy's users assign them."""

    def __init__(self, hops: int) -> None:
        self.hops = hops
        self._hidden = "kept"
        self.steps = [ChainOfThought("question -> query") for _ in range(hops)]
        self.by_name = {"last": Predict("query -> answer")}

    def forward(self, question: str) -> Prediction:
        for step in self.steps:
            question = step(question=question).query
        assert self._hidden == "kept"
        return self.by_name["last"](query=question)


def everywhere(play: Any, program: Program, **inputs: Any) -> list[Prediction]:
    """Call a program in every way there is."""
    with play.started(play.echo):
        found = [program(**inputs), asyncio.run(program.acall(**inputs))]

    async def main() -> Prediction:
        with play.Scripted(play.echo).here():
            return await program.acall(**inputs)

    return [*found, asyncio.run(main())]


# -- calling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [Twice(), Awaited(), Assigned(3), ChainOfThought("question -> answer")], ids=repr)
def test_a_program_is_called_in_synchronous_and_asynchronous_code_and_from_another_loop(play, program):
    for prediction in everywhere(play, program, question="why"):
        assert prediction.answer == "why"
        assert prediction.usage.requests == len(program.named_predictors())


def test_on_the_applications_own_loop_a_plain_call_says_to_await(play):
    async def main() -> None:
        with play.Scripted(play.echo).here():
            for program in (Predict("question -> answer"), Twice(), Awaited()):
                with pytest.raises(ProgramError, match=r"await program\.acall"):
                    program(question="x")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Twice()("why"), r"by name, as in program\(question=…\)"),
        (Twice(), "missing a required argument: 'question'; it takes question"),
        (lambda: Twice()(question="x", hint="y"), "unexpected keyword argument 'hint'"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(play, call, said):
    with play.started(play.echo) as application, pytest.raises(ProgramError, match=said):
        call()
    assert application.asked == []


class Wrong(Program):
    result: Any = None

    def forward(self) -> Any:
        return self.result


class Forgetful(Program):
    part: Predict = Predict("q -> a")

    def forward(self) -> Any:
        return self.part.acall(q="x")


class Empty(Program):
    part: Predict = Predict("q -> a")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (Wrong(result="x"), r"Wrong\.forward returned str, not a Prediction"),
        (Wrong(), r"Wrong\.forward returned NoneType"),
        (Forgetful(), r"Forgetful\.forward returned a coroutine"),
        (Empty(), "Empty has no forward"),
    ],
)
def test_a_forward_that_returns_no_prediction_is_an_error_that_names_it(play, program, said):
    with play.started(play.echo), pytest.raises(ProgramError, match=said):
        program()


def test_a_composition_costs_what_its_parts_cost_at_any_depth_even_those_whose_answer_is_not_returned(play):
    class Voting(Program):
        voter: Predict = Predict("question -> answer")
        inner: Awaited = Awaited()

        async def forward(self, question: str) -> Prediction:
            votes = await asyncio.gather(*(self.voter.acall(question=question) for _ in range(5)))
            await self.inner.acall(question=question)
            return Prediction(answer=votes[0].answer)

    for prediction in everywhere(play, Voting(), question="why"):
        assert prediction.usage == Usage(80, 16, requests=8)


def nested(depth: int) -> Program:
    """Plain and asynchronous programs by turns."""

    class Plain(Program):
        def __init__(self, inner: Program) -> None:
            self.inner = inner

        def forward(self, question: str) -> Prediction:
            return self.inner(question=question)

    class Async(Program):
        def __init__(self, inner: Program) -> None:
            self.inner = inner

        async def forward(self, question: str) -> Prediction:
            return await self.inner.acall(question=question)

    program: Program = Predict("question -> answer")
    for level in range(depth):
        program = (Plain, Async)[level % 2](program)
    return program


def test_plain_programs_take_one_worker_thread_however_deep_they_are_nested(play):
    class Plain(Program):
        def __init__(self, inner: Program) -> None:
            self.inner = inner

        def forward(self, question: str) -> Prediction:
            return self.inner(question=question)

    async def main() -> Any:
        with play.Scripted(play.echo, threads=1).here() as application:
            program = functools.reduce(lambda inner, _: Plain(inner), range(20), Predict("question -> answer"))
            return (await asyncio.wait_for(program.acall(question="x"), 20)).answer, application.used

    answer, used = asyncio.run(main())
    assert answer == "x"
    assert len(used) == 1


def test_plain_and_asynchronous_programs_nested_by_turns_never_wait_for_each_others_threads(play):
    async def main() -> list[str]:
        with play.Scripted(play.echo, threads=2).here():
            calls = [nested(9).acall(question=str(number)) for number in range(8)]
            return [one.answer for one in await asyncio.wait_for(asyncio.gather(*calls), 20)]

    assert asyncio.run(main()) == [str(number) for number in range(8)]


def test_what_a_plain_program_raises_in_its_thread_is_the_callers(play):
    with play.started(lambda _: LMTimeout("late")):
        for program in (nested(1), nested(2), nested(3)):
            with pytest.raises(LMTimeout):
                program(question="x")
            with pytest.raises(LMTimeout):
                asyncio.run(program.acall(question="x"))


def test_a_thousand_concurrent_calls_of_two_applications_never_mix(play):
    async def caller(application: Any, program: Program, number: int) -> tuple[str, str]:
        with application.activated():
            assert running() is application
            return (await program.acall(question=str(number))).answer, f"{application.name}{number}"

    def answer(name: str, request: Any) -> dict[str, str]:
        return {"reasoning": name, "answer": name + request.messages[-1].content.removeprefix("question: ")}

    async def main(program: Program) -> list[tuple[str, str]]:
        from otpy.clients.running import entered

        applications = [play.Scripted(functools.partial(answer, name), name=name) for name in "AB"]
        for application in applications:
            application.activated = functools.partial(entered, application)
        return await asyncio.gather(*(caller(applications[number % 2], program, number) for number in range(1000)))

    for program in (Predict("question -> answer"), ChainOfThought("question -> answer")):
        assert all(got == wanted for got, wanted in asyncio.run(main(program)))


# -- a value -----------------------------------------------------------------------------------------------------------


def test_a_program_does_not_change():
    program = Twice()
    for change in (
        lambda: setattr(program, "first", None),
        lambda: setattr(program, "new", 1),
        lambda: delattr(program, "first"),
    ):
        with pytest.raises(ProgramError, match="programs do not change"):
            change()
    with pytest.raises(ProgramError, match=r"Predict\.demos: .*with_demos"):
        program.first.demos = ()


def test_lists_and_dictionaries_are_frozen_when_construction_is_over():
    program = Assigned(2)
    assert isinstance(program.steps, tuple)
    with pytest.raises(TypeError):
        program.by_name["last"] = None


@pytest.mark.parametrize("made", [Twice, Awaited, lambda: Assigned(2), lambda: ChainOfThought(Triage)])
def test_programs_of_equal_content_are_equal_and_hash_equal_and_copy(made):
    one, two = made(), made()
    assert one is not two
    assert one == two == copy.copy(one)
    assert hash(one) == hash(two)
    assert one.content_hash() == two.content_hash()
    assert one.with_client("other") != two
    assert one.with_client("other").with_client("default") == two


def test_parts_are_given_by_name_or_have_a_default():
    class Parts(Program):
        KNOWN: ClassVar[int] = 3
        k: int
        part: Predict = Predict("q -> a")
        loose = Predict("q -> b")

        def forward(self, q: str) -> Prediction:
            return self.part(q=q)

    assert Parts(k=2).k == 2
    assert [path for path, _ in Parts(k=2).named_predictors()] == ["part", "loose"]
    assert Parts(k=2, part=Predict("q -> a", client="x")).part.client == "x"
    with pytest.raises(ProgramError, match="Parts needs k=…"):
        Parts()
    with pytest.raises(ProgramError, match="Parts has no part 'K'; its parts: k, part, loose"):
        Parts(k=2, K=3)


def test_a_subclass_has_the_parts_of_its_base():
    class More(Twice):
        third: Predict = Predict("query -> answer")

    assert [path for path, _ in More().named_predictors()] == ["first", "second", "third"]


def test_predictors_have_paths():
    class Outer(Program):
        a: Twice = Twice()
        b: Assigned = Assigned(1)
        c: ChainOfThought = ChainOfThought("q -> a")

    paths = [path for path, _ in Outer().named_predictors()]
    assert paths == ["a.first", "a.second", "b.steps[0].predict", "b.by_name['last']", "c.predict"]
    assert [path for path, _ in Predict(Triage).named_predictors()] == ["self"]
    assert Twice().input_names == ("question",)
    assert ChainOfThought(Triage).input_names == ("query",)


def test_one_predictor_in_two_places_becomes_two():
    class Both(Program):
        a: ChainOfThought = ChainOfThought("q -> a")
        b: ChainOfThought = ChainOfThought("q -> a")

    shared = ChainOfThought("q -> a")
    program = Both(a=shared, b=shared)
    paths = [program.path_of(predictor) for _, predictor in program.named_predictors()]
    assert paths == ["a.predict", "b.predict"]
    assert program.path_of(Predict("q -> a")) is None
    changed = program.with_instructions({"a.predict": "Other."})
    assert changed.b == program.b
    assert changed.a.predict.signature.instructions == "Other."


# -- changed copies ----------------------------------------------------------------------------------------------------


def test_demos_and_instructions_are_given_by_path():
    program = Twice().with_demos({"first": [{"question": "a", "query": "b"}]}).with_instructions({"second": "Do."})
    assert len(program.first.demos) == 1
    assert program.second.demos == ()
    assert program.second.signature.instructions == "Do."
    assert (
        program.with_demos({"first": []}).with_instructions({"second": Twice().second.signature.instructions})
        == Twice()
    )


def test_a_program_of_one_predictor_needs_no_path():
    program = (
        ChainOfThought(Triage).with_demos([{"query": "a", "reasoning": "b", "intent": "pin"}]).with_instructions("Do.")
    )
    assert len(program.predict.demos) == 1
    assert program.predict.signature.instructions == "Do."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Twice().with_demos([]), "Twice has 2 predictors (first, second)"),
        (lambda: Twice().with_instructions("x"), "Twice has 2 predictors (first, second)"),
        (lambda: Twice().with_demos({"third": []}), "no predictor 'third'; its predictors: first, second"),
        (lambda: Wrong().with_demos([]), "Wrong has 0 predictors (none)"),
        (lambda: Twice().replace(third=1), "Twice has no 'third'; it has first, second"),
        (lambda: Twice().with_client(""), "client=''"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change, said):
    with pytest.raises(ProgramError) as raised:
        change()
    assert said in str(raised.value)


def test_a_changed_copy_keeps_everything_else(play):
    program = Assigned(2).with_config(temperature=0.5)
    assert program.hops == 2
    assert {predictor.temperature for _, predictor in program.named_predictors()} == {0.5}
    with play.started(play.echo):
        assert program(question="why").answer == "why"


def test_a_chain_of_thought_reasons_first_and_has_a_signature_of_its_own():
    program = ChainOfThought(Triage, temperature=0.3)
    assert list(program.signature.output_fields) == ["reasoning", "intent"]
    assert program.signature.instructions == Triage.instructions
    assert program.predict.temperature == 0.3
    with pytest.raises(Exception, match="'reasoning' appears twice"):
        ChainOfThought("q -> reasoning")


def test_a_program_is_drawn_as_a_tree():
    class Outer(Program):
        steps: Assigned = Assigned(1)
        triage: Predict = Predict(Triage, demos=[{"query": "a", "intent": "pin"}])

    assert Outer().render() == (
        "Outer\n"
        "├─ steps  Assigned\n"
        "│  ├─ steps[0]  ChainOfThought\n"
        "│  │  └─ predict  Predict  question: str -> reasoning: str, query: str\n"
        "│  └─ by_name['last']  Predict  query: str -> answer: str\n"
        "└─ triage  Predict  query: str -> intent: Literal['card', 'pin']  1 demos"
    )
