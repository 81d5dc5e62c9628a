"""Rows M of docs/from-dspy.md: programs."""

from __future__ import annotations

import asyncio
import inspect
import json
import time

import pytest
from pydantic import field_validator

import otpy
from otpy import programs
from otpy.errors import AdapterParseError, LMContextWindowExceeded, ProgramError
from otpy.programs.code_act import CodeAct
from otpy.programs.program_of_thought import ProgramOfThought
from otpy.programs.react import ReAct
from otpy.programs.rlm import RLM
from otpy.retrieval import BM25, FunctionEmbedder
from otpy.testing import Fault, Say

QA = otpy.Predict("question -> answer")


class Two(otpy.Program):
    """Two predictors, as DSPy's users compose them: in an `__init__` of their own."""

    def __init__(self):
        self.draft = otpy.Predict("question -> draft")
        self.finish = otpy.ChainOfThought("draft -> answer")

    def forward(self, question):
        return self.finish(draft=self.draft(question=question).draft)


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


def test_m1_a_composition_is_a_value_with_named_predictors_and_changes_are_copies(model):
    program = Two()
    assert [path for path, _ in program.named_predictors()] == ["draft", "finish.predict"]
    other = program.with_client("judge").with_instructions({"draft": "Be brief."})
    assert {predictor.client for _, predictor in other.named_predictors()} == {"judge"}
    assert (program == Two(), hash(program) == hash(Two()), other == program) == (True, True, False)
    with pytest.raises(ProgramError, match="programs do not change"):
        program.draft = QA
    with model({"draft": "d"}, {"reasoning": "r", "answer": "a"}):
        prediction = program(question="?")
        assert (prediction.answer, len(otpy.inspect(prediction))) == ("a", 2)
    assert program.render().splitlines()[0] == "Two"


def test_m2_a_batch_keeps_order_returns_what_failed_and_kills_what_hangs(model):
    def script(request):
        if "3" in request.prompt:
            return "junk"
        return Say('{"answer": "late"}', hold=True) if "4" in request.prompt else '{"answer": "yes"}'

    program = otpy.Predict("question -> answer", max_reasks=0)
    rows = [otpy.Example(question=str(number)).with_inputs("question") for number in range(5)]
    with model(script):
        results = program.batch(rows, timeout=1, return_exceptions=True)
        with pytest.raises(programs.BatchFailed, match="1 of 4 calls failed, the first is 3: AdapterParseError"):
            program.batch(rows[:4])
    assert [getattr(result, "answer", None) for result in results[:3]] == ["yes"] * 3
    assert isinstance(results[3], AdapterParseError)
    assert results[4].reason == "timeout"


def test_m3_loading_returns_a_copy_and_a_failed_load_changes_nothing(tmp_path):
    program, hashed = Two(), Two().content_hash()
    better = program.with_instructions({"draft": "Be brief."})
    better.save(tmp_path / "two.json")
    assert program.load(tmp_path / "two.json") == better
    QA.save(tmp_path / "qa.json")
    with pytest.raises(ProgramError):
        program.load(tmp_path / "qa.json")
    assert program.content_hash() == hashed
    assert list(program.dump_state()["predictors"]) == ["draft", "finish.predict"]


def test_m4_a_whole_program_is_json_and_names_no_class_that_was_not_allowed(tmp_path):
    Two().save(tmp_path / "two.json")
    assert json.loads((tmp_path / "two.json").read_text())["format"] >= 2
    assert otpy.load_program(tmp_path / "two.json", classes=[Two]) == Two()
    with pytest.raises(ProgramError, match=r"classes=\[Two\]"):
        otpy.load_program(tmp_path / "two.json")
    (tmp_path / "program.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ProgramError, match="a pickle"):
        otpy.load_program(tmp_path / "program.pkl")


def test_m4_a_program_whose_answers_are_checked_by_code_does_not_come_back_unchecked(tmp_path):
    class Polite(otpy.Signature):
        """Ask."""

        text: str = otpy.InputField()
        request: str = otpy.OutputField()

        @field_validator("request")
        @classmethod
        def polite(cls, request):
            assert "please" in request
            return request

    must = otpy.Assert(lambda request: len(request) < 9, field="request")
    for program, what in (
        (otpy.ChainOfThought(Polite), "predict has validators"),
        (otpy.Predict("text -> request", constraints=[must]), "the predictor has constraints"),
    ):
        program.save(tmp_path / "p.json")
        with pytest.raises(ProgramError, match=what):
            otpy.load_program(tmp_path / "p.json")
        assert program.load(tmp_path / "p.json") == program


def test_m5_parameters_are_checked_where_the_predictor_is_made_and_inputs_where_it_is_called(model):
    program = otpy.Predict("question -> answer", temperature=0.5, max_tokens=20, n=2, stop="END")
    assert program.with_config(temperature=0.0).temperature == 0.0
    with pytest.raises(ProgramError, match="temperature=-1"):
        otpy.Predict("question -> answer", temperature=-1)
    with pytest.raises(ProgramError, match="takes its inputs by name"):
        program("what?")
    with model({"answer": "4"}) as (_, fake):
        with pytest.raises(otpy.errors.SignatureError, match="'query'"):
            program(query="what?")
        with otpy.tracing() as trace:
            program(question="what?")
    assert [entry.path for entry in trace] == ["self"]
    body = fake.requests[0].body
    assert (body["temperature"], body["n"], body["stop"]) == (0.5, 2, ["END"])


def test_m6_chain_of_thought_reasons_first_and_takes_the_providers_own_thoughts_where_it_shows_them(model):
    with model({"reasoning": "two and two", "answer": "4"}):
        assert otpy.ChainOfThought("question -> answer")(question="2 + 2?").reasoning == "two and two"
    native = otpy.ChainOfThought("question -> answer", adapter=otpy.JSONAdapter(native_reasoning=True))
    with model(Say('{"answer": "4"}', reasoning="hm, two and two"), profile="vllm") as (_, fake):
        assert native(question="2 + 2?").reasoning == "hm, two and two"
    assert "reasoning" not in json.dumps(fake.requests[0].body["response_format"])


def test_m7_react_feeds_errors_back_and_leaves_out_the_oldest_steps_when_the_context_is_full(model):
    def broken(city: str) -> str:
        """Fail."""
        raise OSError(f"no route to {city}")

    calls = {"thought": "t", "tool_calls": {"tool_calls": [{"name": "broken", "args": {"city": "Bonn"}}]}}
    end = {"thought": "t", "tool_calls": {"tool_calls": [{"name": "submit", "args": {"answer": "rain"}}]}}
    full = Fault("status", status=400, message="maximum context length is 10 tokens")
    agent = ReAct("question -> answer", [broken], native=False)
    with model(calls, calls, full, end) as (_, fake):
        found = agent(question="weather?")
    assert (found.answer, found.termination_reason) == ("rain", "submit")
    assert "no route to Bonn" in fake.requests[1].prompt
    assert len(found.trajectory) == 3
    with model(full), pytest.raises(LMContextWindowExceeded):
        agent(question="weather?")


def test_m8_native_tool_calls_of_a_step_run_at_the_same_time_and_the_end_has_a_reason(model):
    both = asyncio.Event()

    async def first(city: str) -> str:
        """Wait for the second."""
        await asyncio.wait_for(both.wait(), 10)
        return city

    async def second(city: str) -> str:
        """Release the first."""
        both.set()
        return city

    use = Say("", tools=(("first", {"city": "Bonn"}), ("second", {"city": "Ulm"})))
    agent = ReAct("question -> answer", [first, second], native=True, max_iters=1)
    with model(use, {"answer": "both"}):
        found = agent(question="?")
    assert (found.answer, found.termination_reason) == ("both", "max_iters")
    assert [call["result"] for call in found.trajectory[0]["calls"]] == ["Bonn", "Ulm"]


def test_m9_program_of_thought_mends_its_code(model):
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    wrong, right = ({"reasoning": "r", "code": code} for code in ("SUBMIT(mean=nope)", "SUBMIT(mean=sum(n) / 3)"))
    with model(wrong, right):
        found = ProgramOfThought("n: list[int] -> mean: float")(n=[1, 2, 6])
    assert (found.mean, found.termination_reason) == (3.0, "submit")


def test_m10_code_act_calls_any_tool_also_an_async_closure_since_tools_run_on_our_side(model):
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    asked = []

    async def look(city: str) -> str:
        """Tell the weather."""
        asked.append(city)
        return "rain"

    act = {"reasoning": "r", "code": "print(look('Bonn'))", "finished": True}
    with model(act, {"reasoning": "r", "answer": "rain"}):
        found = CodeAct("question -> answer", [look])(question="?")
    assert (found.answer, asked, found.termination_reason) == ("rain", ["Bonn"], "finished")


def test_m11_rlm_has_a_budget_of_calls_and_keeps_the_text_out_of_the_prompt(model):
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    code = "a = llm_query_batched(['x', 'y'])\ntry:\n    llm_query('z')\nexcept Exception as e:\n    SUBMIT(key=str(a))"

    def script(request):
        asks = request.body["messages"][0]["role"] == "user"
        return "read" if asks else json.dumps({"reasoning": "r", "code": code})

    with model(script) as (_, fake):
        found = RLM("book -> key", max_llm_calls=2)(book="secret " * 10_000)
    assert found.key == "['read', 'read']"
    assert all(len(request.prompt) < 10_000 for request in fake.requests)


def test_m12_there_is_no_flex_and_no_program_has_learnable_source():
    assert not hasattr(otpy, "Flex")
    assert "source" not in Two().dump_state()


def test_m13_best_of_n_asks_past_the_cache_and_raises_if_all_fail(model):
    def length(inputs, prediction):
        return -len(prediction.answer)

    best = otpy.BestOfN(QA, n=3, reward_fn=length, threshold=-2)
    with model({"answer": "long"}, {"answer": "no"}, cache=True) as (_, fake):
        assert best(question="?").answer == "no"
    assert fake.counts.requests == 2
    with model("junk"), pytest.raises(AdapterParseError):
        best(question="?")


def test_m14_refine_advises_each_predictor_whatever_its_adapter(model):
    def short(inputs, prediction):
        return otpy.Score(float(len(prediction.answer) < 3), "too long")

    program = otpy.Predict("question -> answer", adapter=otpy.TwoStepAdapter(client="default"))
    refine = otpy.Refine(program, n=2, reward_fn=short, threshold=1)
    advice = {"advice": {"self": "Say yes or no."}}
    with model("I would say so", {"answer": "I would"}, advice, "no", {"answer": "no"}) as (_, fake):
        assert refine(question="?").answer == "no"
    assert "Say yes or no." in fake.requests[3].prompt


def test_m15_multi_chain_comparison_makes_its_chains_itself_or_takes_them(model):
    compare = otpy.MultiChainComparison("question -> answer", m=2)
    with model({"reasoning": "r", "answer": "4"}) as (_, fake):
        assert compare(question="2 + 2?").answer == "4"
        assert fake.counts.requests == 3
        assert compare(question="2 + 2?", completions=[{"answer": "4"}, {"answer": "5"}]).answer == "4"
    assert "Student 2: answer: 5" in fake.requests[-1].prompt


def test_m16_majority_votes_and_an_empty_answer_counts_unless_told_otherwise():
    votes = [{"answer": answer} for answer in ("Four.", None, "four", None, None)]
    assert otpy.majority(votes).answer is None
    assert otpy.majority(votes, ignore={None}).answer == "Four."


def test_m17_knn_finds_the_nearest_examples_without_numpy_or_with():
    rows = [otpy.Example(word=word).with_inputs("word") for word in ("banana", "kiwi")]
    embedder = FunctionEmbedder(lambda texts: [[text.count("a"), text.count("i")] for text in texts], name="vowels")
    assert [row.word for row in asyncio.run(otpy.KNN(1, rows, embedder).acall(word="ananas"))] == ["banana"]


def test_m18_parallel_runs_pairs_each_in_a_supervised_task_and_one_that_hangs_costs_itself():
    class Slow(otpy.Program):
        async def forward(self, seconds):
            await asyncio.sleep(seconds)
            return otpy.Prediction(seconds=seconds)

    begun = time.monotonic()
    with otpy.start(settings={"clients": {}}):
        pairs = [(Slow(), {"seconds": seconds}) for seconds in (0, 60, 0)]
        results = otpy.Parallel(timeout=1.0, return_exceptions=True)(pairs)
    assert [getattr(result, "seconds", "killed") for result in results] == [0, "killed", 0]
    assert time.monotonic() - begun < 10


def test_m19_there_is_no_retry_and_no_avatar_and_every_public_name_works():
    assert not {"Retry", "Avatar", "AvatarOptimizer"} & set(dir(otpy))
    assert all(getattr(otpy, name) is not None for name in otpy.__all__)


def test_m20_every_program_is_async_and_streams_and_batches():
    made = [
        QA, otpy.ChainOfThought("a -> b"), ReAct("a -> b", [weather]), ProgramOfThought("a -> b"),
        CodeAct("a -> b", [weather]), RLM("a -> b"), otpy.MultiChainComparison("a -> b"),
        otpy.BestOfN(QA, reward_fn=len), otpy.Refine(QA, reward_fn=len, threshold=1),
        otpy.Retrieve(BM25(["a"])), otpy.RAG(BM25(["a"])), otpy.Ensemble().compile([QA]),
    ]  # fmt: skip
    ours = {cls for cls in all_of(otpy.Program) if cls.__module__.startswith("otpy.programs.")}
    assert {type(program) for program in made} | {type(made[2].react)} >= ours
    for program in made:
        assert inspect.iscoroutinefunction(type(program).forward), program
        assert all(callable(getattr(program, way)) for way in ("acall", "astream", "stream", "batch", "abatch"))
    for other in (otpy.Parallel, otpy.KNN, otpy.Evaluate, otpy.BootstrapFewShot, otpy.LabeledFewShot):
        assert hasattr(other, "acall") or hasattr(other, "acompile"), other


def all_of(cls):
    return {below for sub in cls.__subclasses__() for below in (sub, *all_of(sub))}
