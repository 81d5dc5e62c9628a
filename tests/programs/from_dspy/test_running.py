"""Rows G, P, R, K, O, L, C, E, B, I and Q of docs/from-dspy.md: settings, streams, files, and all around."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import tomllib

import pytest

import otpy
from otpy.errors import ConfigError, LMAuthError, OtpyError, ProgramError, RateLimited
from otpy.programs.streaming import FieldEnd, FieldText, Status
from otpy.telemetry import bus
from otpy.testing import FakeProvider, Fault, LoopbackLM, Say
from otpy.testing.fake_finetuning import FakeFineTuning

QA = otpy.Predict("question -> answer")


def test_g1_settings_are_checked_whole_and_belong_to_an_application():
    with pytest.raises(ConfigError, match="max_concurrency=0"):
        otpy.start(lm="openai/m", max_concurrency=0)
    assert not {"lm", "adapter", "rm", "trace"} & set(type(otpy.start(settings={"clients": {}}).settings).model_fields)


def test_g2_settings_may_be_changed_from_any_thread_and_programs_find_their_application_by_context(model):
    with model({"answer": "4"}) as (app, fake):
        changing = threading.Thread(target=lambda: app.change(clients__default__temperature=0.25))
        changing.start()
        changing.join()
        QA(question="?")
        asking = threading.Thread(target=lambda: QA(question="from a thread of one's own"))
        asking.start()
        asking.join()
    assert [request.body["temperature"] for request in fake.requests] == [0.25, 0.25]


def test_g3_settings_are_a_toml_file_and_the_environment_and_never_a_pickle(tmp_path, monkeypatch):
    text = '[clients.default]\nmodel = "openai/m"\ntemperature = 0.5\n'
    (tmp_path / "otpy.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTPY_CLIENTS__DEFAULT__TEMPERATURE", "0.75")
    assert otpy.start().settings.clients["default"].temperature == 0.75
    assert tomllib.loads(text)["clients"]["default"]["temperature"] == 0.5


def test_p1_nothing_is_submitted_twice_and_finished_results_survive_any_failure(model):
    program = otpy.Predict("question -> answer", max_reasks=0)
    with model({"answer": "a"}, "junk", {"answer": "c"}) as (_, fake), pytest.raises(otpy.BatchFailed) as raised:
        program.batch([{"question": str(n)} for n in range(3)], max_concurrency=1)
    assert fake.counts.requests == 3
    assert [getattr(result, "answer", "failed") for result in raised.value.results] == ["a", "failed", "c"]


def test_p2_sync_and_async_need_no_conversion_and_a_sync_call_on_the_loop_is_refused(model):
    class Plain(otpy.Program):
        ask: otpy.Predict = QA

        def forward(self, question):
            return self.ask(question=question)

    async def main():
        with pytest.raises(ProgramError, match=r"await program\.acall"):
            QA(question="?")
        return await Plain().acall(question="?")

    with model({"answer": "4"}) as (app, _):
        assert app.run(main()).answer == QA(question="?").answer == "4"


# -- streaming ---------------------------------------------------------------------------------------------------------


def test_r1_every_program_streams_sync_and_async_and_the_prediction_is_last(model):
    async def main():
        return [event async for event in QA.astream(question="?")]

    with model({"answer": "four words are here"}) as (app, _):
        for events in (list(QA.stream(question="?")), app.run(main())):
            assert isinstance(events[-1], otpy.Prediction)
            assert "".join(event.text for event in events if isinstance(event, FieldText)) == "four words are here"


def test_r2_there_is_no_listener_to_use_up_each_call_hears_all_fields_of_all_predictors(model):
    program = otpy.Predict("question -> why, answer", adapter=otpy.XMLAdapter())
    with model("<why>so</why><answer>4</answer>"):
        for _ in range(2):
            events = list(program.stream(question="?"))
            assert [(event.path, event.field) for event in events if isinstance(event, FieldEnd)] == [
                ("self", "why"), ("self", "answer")
            ]  # fmt: skip


def test_r3_status_messages_are_what_the_program_says_and_tools_tell_of_themselves():
    class Told(otpy.Program):
        async def forward(self, n):
            await otpy.status("half way")
            return otpy.Prediction(n=n)

    with otpy.start(settings={"clients": {}}):
        assert list(Told().stream(n=1)) == [Status("half way"), otpy.Prediction(n=1)]


# -- files -------------------------------------------------------------------------------------------------------------


def test_k1_the_file_has_a_version_a_hash_names_types_and_config(tmp_path):
    otpy.Predict("question -> answer: int", temperature=0.5).save(tmp_path / "p.json")
    saved = json.loads((tmp_path / "p.json").read_text())
    state = saved["predictors"]["self"]
    assert isinstance(saved["format"], int)
    assert [field["type"] for field in state["signature"]["fields"]] == ["str", "int"]
    assert state["config"]["temperature"] == 0.5
    (tmp_path / "p.json").write_text(json.dumps(saved).replace("0.5", "0.9"))
    with pytest.raises(ProgramError, match="verify=False"):
        otpy.load_program(tmp_path / "p.json")


def test_k2_no_key_and_no_address_is_in_a_file_only_the_name_of_a_client(tmp_path):
    QA.with_client("judge").save(tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    assert '"client": "judge"' in text
    assert "api_key" not in text
    assert "base_url" not in text


def test_k3_a_state_that_dspy_saved_is_read(tmp_path):
    state = {
        "traces": [], "train": [], "demos": [{"question": "1 + 1?", "answer": "2"}], "lm": None,
        "signature": {"instructions": "Sum.", "fields": [
            {"prefix": "Question:", "description": "the sum"}, {"prefix": "Answer:", "description": "its value"}]},
        "metadata": {"dependency_versions": {"dspy": "3.4.1", "python": "3.11", "cloudpickle": "3.1"}},
    }  # fmt: skip
    (tmp_path / "theirs.json").write_text(json.dumps(state))
    program = otpy.load(QA, tmp_path / "theirs.json")
    assert program.signature.instructions == "Sum."
    assert [dict(demo) for demo in program.demos] == state["demos"]


# -- observability -----------------------------------------------------------------------------------------------------


def test_o1_one_event_bus_has_start_and_end_and_a_listener_that_raises_is_detached_and_reported(model, capsys):
    seen = []

    def listener(event, fields):
        seen.append(event)
        raise ZeroDivisionError

    with model({"answer": "4"}), bus.attached("raises", listener, "otpy.client."):
        QA(question="?")
        QA(question="? again")
    assert len(seen) == 1
    assert "'raises' raised and was detached" in capsys.readouterr().err


def test_o2_retries_cache_hits_and_trials_are_events(model):
    seen = []
    retry = {"retry": {"base": 0.001}}
    rows = [otpy.Example(question="?", answer="4")]
    with (
        model(Fault("status", status=500), {"answer": "4"}, cache=True, **retry),
        bus.attached("seen", lambda event, fields: seen.append((event, fields.get("hit")))),
    ):
        QA(question="?")
        QA(question="?")
        otpy.BootstrapFewShot(otpy.exact_match("answer")).compile(QA, trainset=rows)
    assert ("otpy.client.retry", None) in seen
    assert ("otpy.teleprompter.trial", None) in seen
    assert ("otpy.client.cache", True) in seen


# -- models ------------------------------------------------------------------------------------------------------------


def test_l1_a_model_is_a_client_of_the_application_and_a_program_knows_its_name(model):
    with model({"answer": "4"}, temperature=0.5, max_tokens=9) as (_, fake):
        QA.with_client("default")(question="?")
        with pytest.raises(OtpyError, match="nobody"):
            QA.with_client("nobody")(question="?")
    body = fake.requests[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.5, 9)


def test_l2_a_model_of_ones_own_is_a_server_or_an_engine_not_a_subclass():
    with (
        LoopbackLM(lambda body: {"answer": "mine"}) as server,
        otpy.start(lm="openai/mine", base_url=server.url, api_key="none", cache=False),
    ):
        assert QA(question="?").answer == "mine"
    assert not hasattr(otpy, "BaseLM")


def test_l3_retries_wait_with_jitter_and_honour_retry_after():
    import random

    from otpy.clients.retry import RetryPolicy

    limited = RateLimited("slow down", retry_after=7.0)
    waits = {RetryPolicy().delay(2, limited, random.Random(seed)) for seed in range(9)}
    assert len(waits) == 9
    assert min(waits) >= 7.0


def test_l4_several_answers_are_one_request_where_the_provider_can(model):
    with model({"answer": "4"}) as (_, fake):
        assert len(otpy.Predict("question -> answer", n=4)(question="?").completions) == 4
    assert fake.counts.requests == 1


def test_l5_errors_are_one_family_and_say_whether_they_may_pass(model):
    assert RateLimited("slow down", retry_after=1.0).retryable
    with model(Fault("status", status=401)), pytest.raises(LMAuthError) as raised:
        QA(question="?")
    assert not raised.value.retryable


def test_l6_history_belongs_to_the_application_is_bounded_and_knows_each_prediction(model):
    with model({"answer": "4"}) as (app, _):
        first, second = (QA(question=word) for word in ("one?", "two?"))
        assert len(app.history()) == 2
        assert "one?" in str(otpy.inspect(first))
        assert "one?" not in str(otpy.inspect(second))


def test_l7_money_is_summed_and_capped(model):
    prices = {"input_price": 1, "output_price": 1}
    with model({"answer": "4"}, **prices) as (app, _):
        QA(question="?")
        (sums,) = app.spent().values()
    assert sums.money > 0


def test_l8_usage_is_the_same_however_many_run_at_once(model):
    rows = [{"question": str(n)} for n in range(20)]
    with model({"answer": "4"}) as (app, _):
        totals = [sum(p.usage.total_tokens for p in QA.batch(rows, max_concurrency=many)) for many in (1, 20)]
        (sums,) = app.spent().values()
    assert totals[0] == totals[1] > 0
    assert sums.usage.total_tokens == 2 * totals[0]


def test_l9_requests_and_answers_are_values_one_may_build():
    request = otpy.LMRequest((otpy.Message("user", "hi"),), temperature=0.5)
    assert request == otpy.LMRequest((otpy.Message("user", "hi"),), temperature=0.5)


def test_l10_weights_learn_here_and_at_a_provider():
    provider = FakeFineTuning(stages=("succeeded",))
    with provider.serving() as url, otpy.start(lm="openai/gpt-x", base_url=url, api_key="none"):
        rows = [otpy.Example(question=f"{n} + 1?", answer=str(n + 1)) for n in range(12)]
        assert otpy.BootstrapFinetune().compile(QA, trainset=rows).client.startswith("openai/ft:gpt-x")
    assert otpy.GRPO(otpy.exact_match("answer")).num_train_steps == 100


def test_l11_an_embedder_asks_a_client_and_needs_no_numpy():
    with FakeProvider() as fake, otpy.start(lm="acme/e", base_url=fake.url("embeddings"), cache=False) as app:
        one, again = app.embed(["a cat", "a cat"])
    assert list(one) == list(again)


def test_l12_a_full_client_has_limits_a_breaker_and_routes(model):
    with model(Say('{"answer": "4"}', delay=0.02), max_concurrency=3, requests_per_minute=600) as (app, fake):
        QA.batch([{"question": str(n)} for n in range(9)])
        assert app.client_status()
    assert fake.counts.peak_in_flight == 3


def test_l13_logging_is_structured_and_for_the_length_of_a_block(model):
    from otpy.telemetry import log_events

    out = io.StringIO()
    with log_events(level="debug", json=True, stream=out), model({"answer": "4"}):
        QA(question="?")
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert "otpy.client.request.stop" in events


def test_c1_the_cache_is_the_same_for_sync_and_async_and_its_answers_cannot_be_poisoned(model):
    with model({"answer": "4"}, cache=True) as (app, fake):
        prediction = QA(question="?")
        assert app.run(QA.acall(question="?")) == prediction
    assert fake.counts.requests == 1


def test_e1_a_failed_row_is_a_row_with_its_reason(model):
    rows = [otpy.Example(question=str(n), answer="4").with_inputs("question") for n in range(3)]
    with model({"answer": "4"}, "junk", "junk", {"answer": "4"}):
        result = otpy.Evaluate(rows, metric=otpy.exact_match("answer"), max_concurrency=1)(QA)
    assert [row.kind for row in result.failed] == ["AdapterParseError"]
    assert len(result.scored) == 2


def test_e2_a_metric_unpacks_the_trace_as_there(model):
    seen = []

    def metric(example, prediction, trace=None):
        if trace is not None:
            seen.extend((inputs["question"], said.answer) for predictor, inputs, said in trace)
        return True

    rows = [otpy.Example(question="?", answer="4").with_inputs("question")]
    with model({"answer": "4"}):
        otpy.BootstrapFewShot(metric).compile(QA, trainset=rows)
    assert seen == [("?", "4")]


# -- retrieval, sandboxes, tests ---------------------------------------------------------------------------------------


def test_b1_retrieve_says_which_index(model):
    from otpy.retrieval import BM25

    index = BM25(["A cat sat on a mat.", "Shares fell."])
    with model({"response": "a cat"}):
        assert otpy.Retrieve(index, k=1)(query="cat").passages == ["A cat sat on a mat."]
        assert otpy.RAG(index, k=1)(question="Which cat sat?").response == "a cat"


def test_b2_datasets_are_files_and_generators_not_a_catalogue(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    (row,) = otpy.load_dataset(tmp_path / "rows.jsonl", inputs=["question"])
    assert dict(row.inputs()) == {"question": "2 + 2?"}


def test_i1_an_interpreter_has_limits_of_time_and_memory():
    pytest.importorskip("pydantic_monty", reason="needs the extra `sandbox`")
    from otpy.sandboxes import Limits, Monty

    engine = Monty(limits=Limits(seconds=2, memory=64 * 2**20))
    assert (engine.limits.seconds, engine.limits.memory) == (2, 64 * 2**20)


def test_i2_nothing_that_is_a_plain_subprocess_is_called_a_sandbox():
    from otpy.sandboxes import engine

    with pytest.raises(ProgramError, match="monty"):
        engine("local")


def test_i3_an_engine_is_a_protocol():
    from otpy.sandboxes import Bubblewrap, Pyodide, engine

    for own in (Bubblewrap(), Pyodide()):
        assert engine(own) is own
        assert hash(own) == hash(type(own)())


def test_q1_scripted_models_are_real_servers():
    with (
        FakeProvider(Say('{"answer": "4"}')) as fake,
        otpy.start(lm="acme/m", base_url=fake.url("anthropic"), profile="anthropic", api_key="none", cache=False),
    ):
        assert asyncio.iscoroutinefunction(QA.forward)
        assert QA(question="?").answer == "4"
