"""`check` finds what will not work in a program before any model is asked, and says what it could not look at."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Literal

import pydantic
import pytest

from otpy.adapters import ChatAdapter
from otpy.config import Settings
from otpy.errors import ProgramError
from otpy.programs import ChainOfThought, Predict, Program
from otpy.programs.checking import Checked, check
from otpy.programs.dry_run import Finding


class Good(Program):
    rewrite: Predict = Predict("question -> query")
    answer: ChainOfThought = ChainOfThought("query, context: list[str] -> answer")

    async def forward(self, question: str) -> Any:
        query = (await self.rewrite.acall(question=question)).query
        return await self.answer.acall(query=query, context=[query.upper(), f"on {question}"])


def composed(body: Any, **parts: Any) -> Program:
    made = type("Composed", (Program,), {"forward": body, "__module__": __name__})

    def start(self: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, part)

    made.__init__ = start  # type: ignore[misc]
    return made()


def found(program: Program, **options: Any) -> list[tuple[str, str]]:
    return [(finding.path, finding.kind) for finding in check(program, **options).findings]


def test_a_program_that_works_has_no_findings_and_no_notes():
    checked = check(Good(), outputs=["reasoning", "answer"])
    assert checked == Checked((), (), 1)
    assert checked
    assert str(checked) == "nothing found"
    checked.raise_for_findings()


def test_an_output_that_nobody_produces_is_found_where_it_is_read():
    async def forward(self, question):
        return await self.answer.acall(query=(await self.rewrite.acall(question=question)).qurey)

    checked = check(composed(forward, rewrite=Predict("question -> query, why"), answer=Predict("query -> answer")))
    text = "no 'qurey' is produced here, and forward reads it; it produces query, why"
    assert checked.findings == (Finding("rewrite", "output missing", text, "qurey"),)
    assert not checked
    assert str(checked).startswith(f"rewrite: {text}\nnote: never asked on the paths that were tried: answer")
    with pytest.raises(ProgramError, match="qurey"):
        checked.raise_for_findings()


def test_an_output_read_by_key_is_found_too_and_one_that_may_be_absent_is_not():
    async def by_key(self, a):
        return (await self.one.acall(a=a))["c"]

    async def careful(self, a):
        made = await self.one.acall(a=a)
        assert getattr(made, "c", None) is None
        assert made.get("c") is None
        assert "c" not in made
        return made

    assert found(composed(by_key, one=Predict("a -> b"))) == [("one", "output missing")]
    assert found(composed(careful, one=Predict("a -> b"))) == []


def test_an_output_that_is_wanted_of_the_whole_is_found_missing():
    assert found(Good(), outputs=["answer", "confidence"]) == [("program", "output missing")]
    assert found(Predict("a -> b"), outputs=["c"]) == [("program", "output missing")]


def test_an_input_that_nobody_fills_and_one_that_is_none_are_both_found():
    async def forward(self, a):
        return await self.two.acall(x=(await self.one.acall(a=a)).b)

    checked = check(composed(forward, one=Predict("a -> b"), two=Predict("y: int -> z")))
    assert [str(finding) for finding in checked.findings] == [
        "two: nobody fills 'y'; the inputs are y: int",
        "two: 'x' is given, and is no input; the inputs are y: int",
    ]


class Passage(pydantic.BaseModel):
    title: str
    score: float


@pytest.mark.parametrize(
    ("output", "input_", "kinds"),
    [
        ("x", "x", []),
        ("x: int", "x: int", []),
        ("x: int", "x: float", []),
        ("x: bool", "x: int", []),
        ("x: list[str]", "x: list[str]", []),
        ("x: Passage", "x: Passage", []),
        ("x: list[Passage]", "x: tuple[Passage, ...]", []),
        ("x: int | None", "x: int | None", []),
        ("x: date", "x: date", []),
        ("x: Any", "x: int", []),
        ("x: dict[str, int]", "x: dict[str, Any]", []),
        ("x", "x: int", ["type"]),
        ("x: int", "x", ["type"]),
        ("x", "x: list[str]", ["type"]),
        ("x: list[str]", "x", ["type"]),
        ("x: list[str]", "x: list[int]", ["type"]),
        ("x: Passage", "x", ["type"]),
        ("x", "x: Passage", ["type"]),
        ("x", "x: Literal['a', 'b']", ["type"]),
        ("x: Literal['a', 'c']", "x: Literal['a', 'b']", ["type"]),
        ("x: int | None", "x: int", ["type"]),
        ("x: bool", "x: list[bool]", ["type"]),
    ],
)
def test_a_type_that_cannot_flow_is_found(output, input_, kinds):
    from otpy.signatures import Signature

    async def forward(self, a):
        return await self.two.acall(x=(await self.one.acall(a=a)).x)

    one = Predict(Signature(f"a -> {output}", types={"Passage": Passage}))
    two = Predict(Signature(f"{input_} -> z", types={"Passage": Passage}))
    assert [kind for _, kind in found(composed(forward, one=one, two=two))] == kinds


def test_a_constraint_that_another_value_may_fulfil_is_no_finding():
    from otpy.signatures import InputField, OutputField, Signature

    class Short(Signature):
        """Do it."""

        x: str = InputField(max_length=3, pattern="[a-z]+")
        n: int = InputField(ge=100)
        z: str = OutputField()

    async def forward(self, a: str):
        made = await self.one.acall(a=a)
        return await self.two.acall(x=made.x, n=made.n)

    assert found(composed(forward, one=Predict("a -> x, n: int"), two=Predict(Short))) == []


def test_every_value_of_a_choice_is_taken_once_so_that_every_branch_is_seen():
    async def forward(self, query):
        kind = (await self.route.acall(query=query)).kind
        if kind == "card":
            return await self.card.acall(query=query)
        if kind == "pin":
            return await self.pin.acall(text=query)
        return await self.other.acall(query=query)

    program = composed(
        forward,
        route=Predict("query -> kind: Literal['card', 'pin', 'rate']"),
        card=Predict("query -> answer"),
        pin=Predict("query -> answer"),
        other=Predict("query -> reply"),
    )
    checked = check(program, outputs=["answer"])
    assert checked.runs == 3
    assert [(finding.path, finding.kind) for finding in checked.findings] == [
        ("pin", "input missing"),
        ("pin", "input unknown"),
        ("program", "output missing"),
    ]
    assert checked.notes == ()


def test_what_was_never_reached_and_choices_left_out_are_said():
    async def forward(self, query):
        made = await self.route.acall(query=query)
        return await self.rare.acall(query=query) if made.kind == "k11" else made

    kinds = ", ".join(f"'k{number}'" for number in range(12))
    program = composed(forward, route=Predict(f"query -> kind: Literal[{kinds}]"), rare=Predict("query -> kind"))
    checked = check(program)
    assert checked.runs == 8
    assert checked.notes == (
        "route.kind has more than 8 values; 8 of them were tried",
        "never asked on the paths that were tried: rare",
    )


def test_a_plain_forward_is_run_as_well_and_so_are_compositions_in_compositions():
    class Outer(Program):
        inner: Good = Good()
        last: Predict = Predict("answer: int -> done")

        def forward(self, question):
            return self.last(answer=self.inner(question=question).answer)

    checked = check(Outer())
    given = "last: 'answer' is int and is given '<inner.answer.answer>'"
    assert str(checked) == f"{given}: input should be a valid integer, unable to parse string as an integer"


def test_steps_in_lists_and_dictionaries_are_reached_by_their_paths():
    async def forward(self, a):
        for step in self.steps:
            a = (await step.acall(a=a)).a1
        return await self.named["last one"].acall(b=a)

    program = composed(forward, steps=[Predict("a -> a1"), Predict("b -> a1")], named={"last one": Predict("b -> c")})
    assert found(program) == [("steps[1]", "input missing"), ("steps[1]", "input unknown")]


def test_predictors_asked_at_the_same_time_are_checked():
    async def forward(self, a):
        made = await asyncio.gather(*(self.one.acall(a=a) for _ in range(5)), self.one.acall(b=a))
        return made[0]

    assert found(composed(forward, one=Predict("a -> b"))) == [("one", "input missing"), ("one", "input unknown")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("async def forward(self, a): return (await self.one.acall(a=a)).b", "not a Prediction"),
        ("async def forward(self, a): return self.one(a=a)", "called synchronously in an async forward"),
        ("async def forward(self, a): return await self.one.acall(a)", "takes its inputs by name"),
        ("async def forward(self, a): return await self.inner.acall(b=a)", "missing a required argument"),
    ],
)
def test_a_forward_that_is_refused_whatever_a_model_says_is_found(body, said):
    scope: dict[str, Any] = {}
    exec(body, scope)
    inner = composed(Good.forward, rewrite=Predict("question -> query"), answer=Predict("query -> answer"))
    checked = check(composed(scope["forward"], one=Predict("a -> b"), inner=inner))
    assert [finding.kind for finding in checked.findings] == ["forward"]
    assert said in checked.findings[0].text


def test_code_that_cannot_go_on_with_made_up_values_is_a_note_with_its_line():
    async def forward(self, a):
        return await self.two.acall(n=int((await self.one.acall(a=a)).b))

    checked = check(composed(forward, one=Predict("a -> b"), two=Predict("n: int -> c")))
    assert checked.findings == ()
    assert "ValueError" in checked.notes[0]
    assert "test_checking.py, line" in checked.notes[0]
    assert checked.notes[1] == "never asked on the paths that were tried: two"


def test_a_loop_that_never_ends_is_stopped():
    async def forward(self, a):
        while (await self.one.acall(a=a)).b != "done":
            pass

    checked = check(composed(forward, one=Predict("a -> b")))
    assert checked.notes == ("forward has called its predictors 1000 times and was stopped",)


def test_a_forward_that_hangs_is_left(monkeypatch):
    monkeypatch.setattr("otpy.programs.dry_run._SECONDS", 0.05)
    release = threading.Event()

    def forward(self, a):
        release.wait(20)
        return self.one(a=a)

    before = time.monotonic()
    checked = check(composed(forward, one=Predict("a -> b")))
    release.set()
    assert time.monotonic() - before < 10
    assert "was not done after 0.05 s" in checked.notes[0]


def test_no_model_is_asked_even_when_an_application_is_running(play):
    stray = Predict("a -> b")

    async def forward(self, a):
        await self.one.acall(a=a)
        return await stray.acall(a=a)

    with play.started(play.echo) as application:
        checked = check(composed(forward, one=Predict("a -> b")))
        assert application.asked == []
    assert "no part of the program" in checked.notes[0]


def test_it_can_be_called_on_a_running_loop():
    async def main() -> Checked:
        return check(Good())

    assert asyncio.run(main())


def test_the_inputs_are_made_from_annotations_or_taken_from_an_example():
    async def typed(self, n: int, words: list[str], mode: Literal["a"] = "a"):
        assert mode == "a"
        return await self.one.acall(n=n, word=words[0])

    async def untyped(self, n):
        return await self.one.acall(n=n, word=n)

    async def anything(self, **inputs):
        return await self.one.acall(**inputs)

    parts = {"one": Predict("n: int, word -> b")}
    assert found(composed(typed, **parts)) == []
    assert found(composed(untyped, **parts)) == []
    assert found(composed(untyped, **parts), example={"n": "five"}) == [("one", "type")]
    assert "takes **inputs" in check(composed(anything, **parts)).notes[0]
    assert check(composed(anything, **parts), example={"n": 1, "word": "w"}) == Checked((), (), 1)


# -- models ---------------------------------------------------------------------------------------------------------


def test_a_parameter_that_the_chosen_model_refuses_is_found_at_each_predictor():
    program = Good().with_config(temperature=0.5)
    assert found(program, profile="openai") == []
    checked = check(program, profile="openai_reasoning")
    assert [(finding.path, finding.kind) for finding in checked.findings] == [
        ("rewrite", "model"), ("answer.predict", "model")
    ]  # fmt: skip
    assert "temperature=0.5: the profile 'openai_reasoning' has no way to say this" in str(checked)


def test_a_schema_that_a_server_cannot_hold_to_is_dropped_as_the_client_does():
    assert found(Predict("a -> b"), profile="llama_cpp_messages") == []
    assert found(Predict("a -> b", adapter=ChatAdapter()), profile="llama_cpp_messages") == []


def test_pictures_and_tools_that_a_model_does_not_take_are_found():
    from otpy.adapters import JSONAdapter
    from otpy.signatures import Signature
    from otpy.types import Audio, Image, Tool, ToolCalls

    look = Predict(Signature("pictures: list[Image], sound: Audio | None -> b", types={"Image": Image, "Audio": Audio}))
    assert found(look, profile="openai") == []
    assert "Media('audio'" in str(check(look, profile="llama_cpp_responses"))
    types = {"Tool": Tool, "ToolCalls": ToolCalls}
    native = JSONAdapter(native_tools=True)
    act = Predict(Signature("a, tools: list[Tool] -> calls: ToolCalls", types=types), adapter=native)
    assert found(act, profile="openai") == []


def test_settings_say_what_each_client_is():
    settings = Settings.load(None, {}, {
        "clients": {"default": {"model": "openai/x"}, "thinker": {"model": "openai/y", "profile": "openai_reasoning"}},
        "routes": {"both": {"chain": ["default", "thinker"]}},
    })  # fmt: skip
    one = Predict("a -> b", temperature=0.5)
    assert found(one, settings=settings) == []
    assert found(one.with_client("thinker"), settings=settings) == [("self", "model")]
    assert found(one.with_client("both"), settings=settings) == [("self", "model")]
    missing = check(one.with_client("smal"), settings=settings)
    assert str(missing) == "self: no client is called 'smal'; there are default, thinker, both"


def test_what_it_is_asked_for_is_checked():
    with pytest.raises(ProgramError, match="profile='gpt'; allowed: generic"):
        check(Predict("a -> b"), profile="gpt")
    with pytest.raises(ProgramError, match="give one of them"):
        check(Predict("a -> b"), profile="generic", settings=Settings())
