"""ReAct: what becomes of every way in which a model can use tools, and tools can go wrong."""

import asyncio
import contextlib
import contextvars
import json
import threading
from typing import Annotated

import pytest
from pydantic import AfterValidator

import otpy
from otpy.errors import ClientError, LMContextWindowExceeded, ProgramError, SignatureError
from otpy.programs import Predict, tracing
from otpy.programs.react import ReAct
from otpy.programs.tool_use import use_tools
from otpy.testing import FakeProvider, Fault, Say, run_in_virtual_time
from otpy.types.tool import Tool, ToolCall, ToolCalls


def price(item: str) -> str:
    """Look up a price."""
    return f"{item}: 3 euros"


async def double(number: int) -> int:
    """Double it."""
    return 2 * number


def use(*calls):
    return Say("", tools=tuple(calls))


def submit(**outputs):
    return ("submit", outputs)


def scripted(*answers):
    """Answers by how many results of steps a conversation holds already."""

    def script(request):
        done = sum(message["role"] == "assistant" for message in request.body["messages"])
        return answers[min(done, len(answers) - 1)]

    return script


@contextlib.asynccontextmanager
async def started(fake):
    async with otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False) as app:
        yield app


def asked(script, agent, **inputs):
    """Run an agent against a script; returns the prediction and what the provider was sent."""
    sent = []

    def noting(request):
        sent.append(json.loads(json.dumps(request.body)))
        return script(request)

    async def main(fake):
        async with started(fake):
            return await agent.acall(**(inputs or {"question": "?"}))

    with FakeProvider(noting) as fake:
        return asyncio.run(main(fake)), sent


def results(prediction):
    return [call["result"] for step in prediction.trajectory for call in step["calls"]]


# -- the ordinary course ---------------------------------------------------------------------------------------------


def test_tools_are_used_until_the_outputs_are_submitted():
    script = scripted(
        Say("Look it up.", tools=(("price", {"item": "tea"}),)),
        use(("double", {"number": 3})),
        use(submit(answer=6)),
    )
    found, sent = asked(script, ReAct("question -> answer: int", [price, double]))
    assert (found.answer, found.termination_reason) == (6, "submit")
    assert found.trajectory == [
        {"thought": "Look it up.",
         "calls": [{"name": "price", "args": {"item": "tea"}, "result": "tea: 3 euros", "is_error": False}]},
        {"thought": "", "calls": [{"name": "double", "args": {"number": 3}, "result": "6", "is_error": False}]},
        {"thought": "", "calls": [{"name": "submit", "args": {"answer": 6}, "result": "accepted", "is_error": False}]},
    ]  # fmt: skip
    assert json.loads(json.dumps(found.trajectory)) == found.trajectory
    assert found.usage.requests == 3
    assert [tool["function"]["name"] for tool in sent[0]["tools"]] == ["price", "double", "submit"]
    last = sent[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert last[2]["tool_calls"][0]["id"] == last[3]["tool_call_id"]
    assert last[:4] == sent[1]["messages"]  # so that the beginning can be cached


def test_calls_of_one_step_run_at_the_same_time_and_their_results_keep_the_order():
    meeting = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        await meeting.wait()
        return name

    script = scripted(use(*(("meet", {"name": name}) for name in "abc")), use(submit(answer="met")))
    found, _ = asked(script, ReAct("question -> answer", [meet]))
    assert results(found) == ["a", "b", "c", "accepted"]


def test_plain_tools_run_in_threads_so_that_they_may_block():
    meeting = threading.Barrier(2, timeout=30)

    def block() -> bool:
        meeting.wait()
        return threading.current_thread() is not threading.main_thread()

    script = scripted(use(("block", {}), ("block", {})), use(submit(answer="met")))
    found, _ = asked(script, ReAct("question -> answer", [block]))
    assert results(found)[:2] == ["true", "true"]


def test_the_context_of_the_caller_reaches_tools_of_both_kinds():
    user = contextvars.ContextVar("user", default="nobody")

    def plain() -> str:
        return user.get()

    async def waiting() -> str:
        return user.get()

    async def main():
        async with otpy.start(lm="openai/none", api_key="none", cache=False):
            user.set("ada")
            calls = ToolCalls(tool_calls=[ToolCall(name="plain"), ToolCall(name="waiting")])
            return [result.content for result in (await use_tools([plain, waiting], calls)).tool_results]

    assert asyncio.run(main()) == ["ada", "ada"]


def test_a_program_is_a_tool():
    translate = Predict("text, language: str -> translation")

    def script(request):
        if "tools" not in request.body:
            return json.dumps({"translation": "thé"})
        return scripted(use(("translate", {"text": "tea", "language": "French"})), use(submit(answer="thé")))(request)

    agent = ReAct("question -> answer", [Tool(translate, name="translate")])
    found, sent = asked(script, agent)
    assert results(found)[0] == '{"translation":"thé"}'
    assert sent[0]["tools"][0]["function"]["parameters"]["required"] == ["text", "language"]


def test_a_synchronous_caller_gets_the_same():
    with (
        FakeProvider(scripted(use(("price", {"item": "tea"})), use(submit(answer="3")))) as fake,
        otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
    ):
        assert ReAct("question -> answer", [price])(question="?").answer == "3"


def test_a_loop_of_its_own_will_do_too():
    async def elsewhere(agent, user):
        user.set("ada")
        return await agent.acall(question="?")

    user = contextvars.ContextVar("user", default="nobody")

    async def who() -> str:
        return user.get()

    with (
        FakeProvider(scripted(use(("who", {})), use(submit(answer="3")))) as fake,
        otpy.start(lm="openai/fake", base_url=fake.url("openai_chat"), api_key="none", cache=False),
    ):
        assert results(asyncio.run(elsewhere(ReAct("question -> answer", [who]), user)))[0] == "ada"


# -- what goes wrong with a tool is told to the model ----------------------------------------------------------------


def broken(x: int) -> int:
    def inner():
        raise LookupError("nothing there")

    return inner()


class Rude(Exception):
    def __str__(self):
        raise RuntimeError("no words")


async def rude() -> None:
    raise Rude


def leaves() -> None:
    raise SystemExit(3)


async def cancels() -> None:
    raise asyncio.CancelledError


def unwritable() -> object:
    return object()


def many() -> str:
    return "x" * 1_048_576


TOOLS = [price, broken, rude, leaves, cancels, unwritable, many]


@pytest.mark.parametrize(
    ("call", "result", "is_error"),
    [
        (("price", {"thing": "tea"}), "price: 'item' is missing; 'thing' is unexpected; the arguments are item", True),
        (("broken", {"x": "one"}), "broken: 'x': input should be a valid integer", True),
        (("cost", {}), "no tool is called 'cost'; there are price, broken, rude", True),
        (("broken", {"x": 1}), "broken failed: LookupError: nothing there\n  in broken, line", True),
        (("rude", {}), "rude failed: ", True),
        (("leaves", {}), "leaves failed: ", True),
        (("cancels", {}), "cancels ", True),
        (("unwritable", {}), '"<object object at', False),
        (("submit", {"answer": "many"}), "submit: 'answer': input should be a valid integer", True),
        (("submit", {}), "submit: 'answer' is missing", True),
    ],
)
def test_whatever_goes_wrong_is_told_and_the_model_goes_on(call, result, is_error):
    found, sent = asked(scripted(use(call), use(submit(answer=1))), ReAct("question -> answer: int", TOOLS))
    first = found.trajectory[0]["calls"][0]
    assert first["result"].startswith(result)
    assert len(first["result"]) < 1_500
    assert first["is_error"] is is_error
    assert sent[1]["messages"][-1]["content"].endswith(first["result"])
    assert (found.answer, found.termination_reason) == (1, "submit")


def test_frames_of_the_tool_are_shown_and_none_of_ours():
    found, _ = asked(
        scripted(use(("broken", {"x": 1})), use(submit(answer=1))), ReAct("question -> answer: int", TOOLS)
    )
    assert "in inner, line" in results(found)[0]
    assert "in_worker" not in results(found)[0]


def test_a_megabyte_is_cut_with_a_note():
    agent = ReAct("question -> answer: int", TOOLS, max_result_chars=1_000)
    found, sent = asked(scripted(use(("many", {})), use(submit(answer=1))), agent)
    assert results(found)[0] == "x" * 1_000 + "… (cut: the first 1,000 of 1,048,576 characters)"
    assert len(json.dumps(sent[1])) < 5_000


def test_a_tool_that_hangs_is_killed_at_its_deadline_and_its_neighbours_are_not():
    ended, over = [], []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("hang")
            raise

    async def stubborn() -> None:
        while not over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def main():
        async with otpy.start(lm="openai/none", api_key="none", cache=False) as app:
            names = ("hang", "double", "stubborn", "hang")
            calls = ToolCalls(tool_calls=[ToolCall(name=n, args={"number": 4} if n == "double" else {}) for n in names])
            before = asyncio.get_running_loop().time()
            found = await use_tools([hang, double, stubborn], calls, timeout=60.0)
            over.append(True)
            return found, asyncio.get_running_loop().time() - before, app.tasks.children()

    found, seconds, left = run_in_virtual_time(main())
    assert [result.content for result in found.tool_results] == [
        "hang took more than 60 s and was ended", "8",
        "stubborn took more than 60 s and was ended", "hang took more than 60 s and was ended",
    ]  # fmt: skip
    assert seconds == pytest.approx(60.0, abs=0.1)
    assert ended == ["hang", "hang"]
    assert left == []


def test_a_plain_tool_that_hangs_is_left_behind_in_its_thread():
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(30)

    script = scripted(use(("hang", {})), use(submit(answer=1)))
    found, _ = asked(script, ReAct("question -> answer: int", [hang], tool_timeout=0.05))
    let_go.set()
    assert results(found)[0] == "hang took more than 0.05 s and was ended"


def test_cancelling_the_agent_cancels_its_tools():
    async def main(fake):
        began, ended = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with started(fake) as app:
            task = asyncio.ensure_future(ReAct("question -> answer", [hang]).acall(question="?"))
            await began.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.wait_for(ended.wait(), 10)
            return task.cancelled(), app.tasks.children()

    with FakeProvider(scripted(use(("hang", {})))) as fake:
        assert asyncio.run(main(fake)) == (True, [])


def test_a_killed_supervisor_of_tasks_costs_the_calls_that_ran_and_no_more():
    async def main(fake):
        began = asyncio.Event()

        async def hang() -> None:
            began.set()
            await asyncio.Event().wait()

        async with started(fake) as app:
            task = asyncio.ensure_future(ReAct("question -> answer", [hang, double]).acall(question="?"))
            await began.wait()
            app.tasks.exit("kill")
            return await task

    answers = use(("hang", {})), use(("double", {"number": 2})), use(submit(answer="4"))
    with FakeProvider(scripted(*answers)) as fake:
        found = asyncio.run(main(fake))
    assert results(found) == ["hang was ended: 'killed'", "4", "accepted"]


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_a_loop_that_never_submits_is_asked_for_the_outputs_at_its_limit():
    def script(request):
        if "tools" in request.body:
            return use(("price", {"item": "tea"}))
        return json.dumps({"answer": "3"})

    found, sent = asked(script, ReAct("question -> answer", [price], max_iters=3))
    assert (found.answer, found.termination_reason, len(found.trajectory)) == ("3", "max_iters", 3)
    assert len(sent) == 4
    assert sent[-1]["response_format"]["json_schema"]["schema"]["required"] == ["answer"]
    assert sent[-1]["messages"][-1]["content"].count('price(item="tea") -> tea: 3 euros') == 3


def test_a_model_that_only_talks_is_told_to_use_a_tool():
    found, sent = asked(scripted("Hm, three.", use(submit(answer=3))), ReAct("question -> answer: int", [price]))
    assert found.trajectory[0] == {"thought": "Hm, three.", "calls": []}
    assert sent[1]["messages"][-1]["content"].startswith("No tool was used.")
    assert found.answer == 3


def test_what_is_used_beside_a_submit_is_run_too():
    bought = []

    def buy(item: str) -> None:
        bought.append(item)

    found, _ = asked(scripted(use(submit(answer="done"), ("buy", {"item": "tea"}))), ReAct("question -> answer", [buy]))
    assert (bought, results(found)) == (["tea"], ["accepted", "null"])


def test_more_calls_than_allowed_in_one_step_are_not_run():
    many = use(*(("double", {"number": n}) for n in range(4)))
    found, _ = asked(scripted(many, use(submit(answer=1))), ReAct("question -> answer: int", [double], max_calls=2))
    assert results(found)[:4] == ["0", "2", *["not run: at most 2 tools may be used in one step"] * 2]


OVERFLOW = Fault(status=400, message="This model's maximum context length is 100 tokens")


def test_what_is_too_long_loses_its_oldest_steps():
    def script(request):
        done = sum(message["role"] == "assistant" for message in request.body["messages"])
        if done > 1:
            return OVERFLOW
        return use(submit(answer=1)) if done and len(told) > 4 else use(("double", {"number": len(told)}))

    told = []

    def noting(request):
        told.append(request.number)
        return script(request)

    found, _ = asked(noting, ReAct("question -> answer: int", [double]))
    assert found.termination_reason == "submit"
    assert len(found.trajectory) > 2  # all of it is kept for the caller


def test_what_is_too_long_without_any_step_is_an_error():
    with pytest.raises(LMContextWindowExceeded):
        asked(lambda _: OVERFLOW, ReAct("question -> answer", [price]))


def test_a_provider_that_fails_is_an_error_of_the_call():
    with pytest.raises(ClientError):
        asked(lambda _: Fault(status=401), ReAct("question -> answer", [price]))


# -- without native tools --------------------------------------------------------------------------------------------


def written(thought, *calls):
    return json.dumps({"thought": thought, "tool_calls": {"tool_calls": [{"name": n, "args": a} for n, a in calls]}})


def by_turn(*answers):
    left = iter(answers)
    return lambda _: next(left)


def test_calls_can_be_written_as_text_held_to_the_tools_schemas():
    script = by_turn(written("Look.", ("price", {"item": "tea"})), written("Done.", submit(answer=3)))
    found, sent = asked(script, ReAct("question -> answer: int", [price], native=False))
    assert (found.answer, found.termination_reason) == (3, "submit")
    schema = sent[0]["response_format"]["json_schema"]["schema"]["properties"]["tool_calls"]
    names = [call["properties"]["name"]["enum"] for call in schema["properties"]["tool_calls"]["items"]["anyOf"]]
    assert names == [["price"], ["submit"]]
    assert "tools" not in sent[0]
    assert 'thought: Look.\nprice(item="tea") -> tea: 3 euros' in sent[1]["messages"][-1]["content"]


def test_text_that_is_no_call_ends_in_the_outputs():
    script = by_turn("tea!", "three!", json.dumps({"answer": 3}))
    found, sent = asked(script, ReAct("question -> answer: int", [price], native=False))
    assert (found.answer, found.termination_reason, len(sent)) == (3, "invalid", 3)


def test_the_profile_says_whether_a_client_has_tools():
    async def main(fake):
        url = fake.url("openai_chat")
        async with otpy.start(lm="openai/fake", base_url=url, api_key="none", cache=False, profile="llama_cpp"):
            return await ReAct("question -> answer: int", [price]).acall(question="?")

    with FakeProvider(by_turn(written("Done.", submit(answer=3)))) as fake:
        assert asyncio.run(main(fake)).answer == 3


# -- approval --------------------------------------------------------------------------------------------------------


def test_calls_can_be_refused_with_and_without_a_reason():
    ran, seen = [], []

    def pay(euros: int) -> None:
        ran.append(euros)

    async def approve(call):
        seen.append(str(call))
        return {1: True, 2: False, 3: "too much"}[call.args["euros"]]

    script = scripted(use(*(("pay", {"euros": n}) for n in (1, 2, 3))), use(submit(answer="paid")))
    found, _ = asked(script, ReAct("question -> answer", [pay], approve=approve))
    assert (ran, seen) == ([1], ["pay(euros=1)", "pay(euros=2)", "pay(euros=3)"])
    assert results(found)[1:3] == ["this use of the tool was refused", "this use of the tool was refused: too much"]


# -- a value ---------------------------------------------------------------------------------------------------------


class Ask(otpy.Signature):
    """Answer."""

    question: str = otpy.InputField()
    answer: str = otpy.OutputField()


def test_it_is_a_value():
    agent = ReAct(Ask, [price, double])
    assert agent == ReAct(Ask, [price, double])
    assert agent != ReAct(Ask, [price])
    assert hash(agent) == hash(ReAct(Ask, [price, double]))
    assert agent.input_names == ("question",)
    assert agent.render().splitlines()[0] == "ReAct  question: str -> answer: str  tools: price, double"


def test_optimizers_see_its_predictors_and_can_change_them(tmp_path):
    agent = ReAct("question -> answer", [price])
    demo = {
        "question": "q", "trajectory": "(nothing yet)", "thought": "Look.",
        "tool_calls": ToolCalls(tool_calls=[ToolCall(name="price", args={"item": "tea"})]),
    }  # fmt: skip
    changed = agent.with_demos({"react": [demo]}).with_instructions({"react": "Be quick."})
    changed.save(tmp_path / "agent.json")
    loaded = agent.load(tmp_path / "agent.json")
    assert loaded == changed
    assert type(loaded.react) is type(agent.react)
    for native in (True, False):
        script = scripted(use(submit(answer="3"))) if native else by_turn(written("Done.", submit(answer="3")))
        found, sent = asked(script, loaded.replace(native=native))
        assert found.answer == "3"
        said = json.dumps(sent[0]["messages"])
        assert "Be quick." in said
        assert "Look." in said
        assert "tea" in said


def test_every_step_is_traced_at_its_predictors_path():
    def script(request):
        return use(("price", {"item": "tea"})) if "tools" in request.body else json.dumps({"answer": "3"})

    with tracing() as trace:
        asked(script, ReAct("question -> answer", [price], max_iters=2))
    assert [entry.path for entry in trace] == ["react", "react", "extract"]
    demo = {**trace[1].inputs, **trace[1].prediction}
    assert 'price(item="tea") -> tea: 3 euros' in demo["trajectory"]
    assert ReAct("question -> answer", [price]).with_demos({"react": [demo]}).react.demos


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ReAct("question -> thought", [price]), SignatureError, "thought: ReAct has a field of this name"),
        (lambda: ReAct("trajectory -> answer", [price]), SignatureError, "trajectory: ReAct has"),
        (lambda: ReAct("question -> answer", [price, price]), ProgramError, "two tools are called 'price'"),
        (lambda: ReAct("question -> answer", [Tool(price, name="submit")]), ProgramError, "a tool is called 'submit'"),
        (lambda: ReAct("question -> answer", [price], max_iters=0), ProgramError, "max_iters=0"),
        (lambda: ReAct("question -> answer", [price], max_calls=True), ProgramError, "max_calls=True"),
        (lambda: ReAct("question -> answer", [price], tool_timeout=0), ProgramError, "tool_timeout=0"),
        (lambda: ReAct("question -> answer", [price], max_result_chars=1), ProgramError, "max_result_chars=1"),
        (lambda: ReAct("question -> answer", [price], native="yes"), ProgramError, "native='yes'"),
        (lambda: ReAct("question -> answer", [price], approve=True), ProgramError, "approve=True"),
        (lambda: ReAct("question -> answer", [price], colour="red"), ProgramError, "colour"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


# -- many at once ----------------------------------------------------------------------------------------------------


def test_a_thousand_agents_at_once_do_not_mix():
    def script(request):
        messages = request.body["messages"]
        number = int(messages[1]["content"].removeprefix("question: "))
        if len(messages) == 2:
            return use(("double", {"number": number}), ("price", {"item": str(number)}))
        return use(submit(answer=int(messages[3]["content"]) + 1))

    async def main(fake):
        async with started(fake):
            agent = ReAct("question: int -> answer: int", [double, price])
            return await asyncio.gather(*(agent.acall(question=n) for n in range(1_000)))

    with FakeProvider(script) as fake:
        found = asyncio.run(main(fake))
    assert [one.answer for one in found] == [2 * n + 1 for n in range(1_000)]
    assert all(results(one)[1] == f"{n}: 3 euros" for n, one in enumerate(found))


@pytest.mark.local_model
def test_two_tools_on_the_local_model():
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    try:
        import react_two_tools
    finally:
        sys.path.pop(0)
    with otpy.start(lm="local/smollm2-135m"):
        for question, tool, answer in (
            ("What does a tea cost?", "price", "3 euros"),
            ("When does the library open?", "opens", "11 o'clock"),
        ):
            found = react_two_tools.agent(question=question)
            assert (found.answer, found.termination_reason) == (answer, "submit")
            assert [call["name"] for step in found.trajectory for call in step["calls"]] == [tool, "submit"]


@pytest.mark.parametrize("error", [KeyError("Atlantis"), SystemExit(3), RecursionError("too deep")])
def test_a_validator_of_a_parameter_may_raise_anything_and_harms_nobody_else(error):
    def known(city):
        raise error

    def look(city: Annotated[str, AfterValidator(known)]) -> str:
        return city

    script = scripted(use(("price", {"item": "tea"}), ("look", {"city": "Atlantis"})), use(submit(answer="x")))
    found, _ = asked(script, ReAct("question -> answer", [price, look]))
    fine, refused, *_ = results(found)
    assert fine == "tea: 3 euros"
    assert refused.startswith(f"look failed: {type(error).__name__}: {error}")
