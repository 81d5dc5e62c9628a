"""Every row of an evaluation has its fate, and none takes another along."""

import asyncio
import math
import signal
import threading

import pytest

import otpy
from otpy.actors import KILL
from otpy.errors import (
    AdapterParseError,
    EvaluationAborted,
    EvaluationError,
    LMAuthError,
    LMConnectionError,
    NoApplication,
    ProgramError,
    SignatureError,
)
from otpy.supervisors import TIMEOUT
from otpy.testing import LoopbackLM, Scripted

ROWS = [otpy.Example(question=str(n), answer=str(n % 3)).with_inputs("question") for n in range(30)]
PROGRAM = otpy.Predict("question -> answer", max_reasks=0)
METRIC = otpy.exact_match("answer")


def question(body):
    return body["messages"][-1]["content"].removeprefix("question: ")


def app(server, **client):
    retry = {"max_attempts": 2, "base": 0.001}
    return otpy.start(
        settings={
            "clients": {
                "default": {"model": "openai/x", "base_url": server.url, "api_key": "none", "retry": retry} | client
            },
            "cache": {"enabled": False},
        }
    )


def right(body):
    return {"answer": str(int(question(body)) % 3)}


def evaluate(script=right, program=PROGRAM, rows=ROWS, metric=METRIC, **arguments):
    with LoopbackLM(script) as server, app(server):
        return otpy.Evaluate(rows, metric=metric, **arguments)(program)


def test_the_score_is_the_plain_mean_over_all_rows_in_their_order():
    result = evaluate(lambda body: {"answer": "0"})
    assert result.score == pytest.approx(1 / 3)
    assert [row.index for row in result.rows] == list(range(30))
    assert [row.example for row in result.rows] == ROWS
    assert str(result).startswith("33.3 % (10 of 30; 95 %: 19.2 to 51.2), 0 failed")
    assert result.usage.requests == 30


def test_async_code_awaits_acall():
    async def main():
        with LoopbackLM(right) as server:
            async with app(server):
                return await otpy.Evaluate(ROWS, metric=METRIC).acall(PROGRAM)

    assert asyncio.run(main()).score == 1.0


def only_row_7_failed(result, error, where):
    (failed,) = result.failed
    assert (failed.index, failed.where) == (7, where)
    assert failed.reason == error or isinstance(failed.reason, error)
    assert result.score == pytest.approx(29 / 30)
    assert "1 ×" in result.summary()  # noqa: RUF001 - a multiplication sign


class TestOneRowFails:
    """Law 3: it ends as Failed with its reason, and the other 29 are scored."""

    def test_its_metric_raises(self):
        def metric(example, prediction, trace=None):
            return 1 / (example.question != "7")

        only_row_7_failed(evaluate(metric=metric), ZeroDivisionError, "metric")

    @pytest.mark.parametrize("value", [math.nan, math.inf, "good", None])
    def test_its_metric_returns_no_number(self, value):
        def metric(example, prediction, trace=None):
            return value if example.question == "7" else 1

        only_row_7_failed(evaluate(metric=metric), EvaluationError, "metric")

    def test_its_program_raises(self):
        class Picky(otpy.Program):
            predict: otpy.Predict = PROGRAM

            async def forward(self, question):
                if question == "7":
                    raise KeyError("no sevens")
                return await self.predict.acall(question=question)

        only_row_7_failed(evaluate(program=Picky()), KeyError, "program")

    def test_a_plain_forward_raises_in_its_thread(self):
        class Picky(otpy.Program):
            predict: otpy.Predict = PROGRAM

            def forward(self, question):
                if question == "7":
                    raise SystemExit(3)
                return self.predict(question=question)

        only_row_7_failed(evaluate(program=Picky()), SystemExit, "task")

    def test_the_answer_is_not_json(self):
        result = evaluate(lambda body: "I think it is one" if question(body) == "7" else right(body))
        only_row_7_failed(result, AdapterParseError, "program")
        assert "I think it is one" in str(result.failed[0].reason)

    def test_the_provider_refuses_the_key(self):
        result = evaluate(lambda body: Scripted("no", status=401) if question(body) == "7" else right(body))
        only_row_7_failed(result, LMAuthError, "program")

    def test_the_connection_breaks_every_time(self):
        result = evaluate(lambda body: Scripted(drop=True) if question(body) == "7" else right(body))
        only_row_7_failed(result, LMConnectionError, "program")

    def test_it_hangs_past_its_deadline(self):
        result = evaluate(
            lambda body: Scripted(hold=True) if question(body) == "7" else right(body), timeout=2.0, max_concurrency=30
        )
        only_row_7_failed(result, TIMEOUT, "task")

    def test_its_task_is_killed(self):
        with (
            LoopbackLM(lambda body: Scripted(hold=True) if question(body) == "7" else right(body)) as server,
            app(server) as running,
        ):

            def kill():
                server.wait_for(30)
                tasks = running.tasks.process.actor.tasks
                while len(tasks) != 1:
                    pass
                next(iter(tasks)).ref.exit(KILL)

            thread = threading.Thread(target=kill)
            thread.start()
            result = otpy.Evaluate(ROWS, metric=METRIC)(PROGRAM)
            thread.join()
        only_row_7_failed(result, "killed", "task")


def test_an_answer_that_does_not_fit_is_asked_again_with_what_was_wrong():
    def script(body):
        return {"answer": 7} if len(body["messages"]) == 2 else {"answer": "0"}

    result = evaluate(script, program=otpy.Predict("question -> answer", max_reasks=1))
    assert result.failed == ()
    attempts = result.scored[0].prediction.attempts
    assert attempts == ('{"answer": 7}', '{"answer": "0"}')
    assert result.usage.requests == 60


def test_failed_rows_count_as_the_failure_score():
    result = evaluate(lambda _: Scripted("no", status=400), failure_score=0.25)
    assert (result.score, len(result.failed)) == (0.25, 30)
    assert len(result.failures) == 30


def test_too_many_failures_stop_it_and_what_is_done_is_in_the_error():
    with pytest.raises(EvaluationAborted, match="max_failures=2") as caught:
        evaluate(lambda body: Scripted("no", status=400) if int(question(body)) % 2 else right(body),
                 max_failures=2, max_concurrency=1)  # fmt: skip
    result = caught.value.result
    assert (len(result.failed), len(result.scored), result.complete) == (3, 3, False)


def test_ctrl_c_keeps_what_is_done():
    with (
        LoopbackLM(lambda body: Scripted(hold=True) if int(question(body)) > 9 else right(body)) as server,
        app(server) as running,
    ):
        main = threading.get_ident()

        def interrupt():
            server.wait_for(30)
            while running.client_status()["answered"] < 10:
                pass
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(EvaluationAborted, match="stopped after 10 of 30 rows") as caught:
            otpy.Evaluate(ROWS, metric=METRIC)(PROGRAM)
        thread.join()
        assert not running.tasks.process.actor.tasks
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert len(caught.value.result.scored) == 10


def test_no_more_rows_at_the_same_time_than_allowed():
    with LoopbackLM(lambda body: Scripted(right(body), delay=0.005)) as server, app(server):
        otpy.Evaluate(ROWS, metric=METRIC, max_concurrency=4)(PROGRAM)
        assert server.peak_in_flight <= 4


def test_metrics_may_be_asynchronous_and_return_numbers():
    async def metric(example, prediction, trace=None):
        await asyncio.sleep(0)
        return 0.5

    assert evaluate(metric=metric).score == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": []}, "devset is empty"),
        ({"rows": ["text"]}, "row 0 of the devset is 'text'"),
        ({"metric": "exact"}, "metric='exact'"),
        ({"metric": lambda example: 1}, "cannot be called with"),
        ({"max_concurrency": 0}, "max_concurrency=0; allowed: an integer >= 1"),
        ({"max_concurrency": True}, "max_concurrency=True"),
        ({"timeout": 0}, "timeout=0; allowed: seconds > 0"),
        ({"max_failures": -1}, "max_failures=-1"),
        ({"failure_score": "bad"}, "failure_score='bad'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(**arguments)


def test_rows_without_the_programs_inputs_are_refused_before_anything_is_asked():
    with pytest.raises(EvaluationError, match="row 0 has no 'question'"):
        evaluate(rows=[{"query": "x", "answer": "y"}])


def test_rows_without_marked_inputs_take_the_programs():
    assert evaluate(rows=[row.to_dict() for row in ROWS]).score == 1.0


def test_without_an_application_the_error_says_how_to_start_one():
    with pytest.raises(NoApplication, match=r"otpy\.start"):
        otpy.Evaluate(ROWS, metric=METRIC)(PROGRAM)


def test_on_the_loop_itself_the_error_says_what_to_await():
    async def main():
        with LoopbackLM(right) as server:
            async with app(server):
                PROGRAM(question="1")

    with pytest.raises(ProgramError, match="acall"):
        asyncio.run(main())


def test_a_wrong_input_is_a_signature_error():
    with LoopbackLM(right) as server, app(server), pytest.raises(SignatureError, match="'query' is unexpected"):
        PROGRAM(query="1")


def test_a_thousand_rows_at_once():
    rows = [otpy.Example(question=str(n), answer=str(n % 3)) for n in range(1000)]
    with LoopbackLM(lambda body: Scripted(right(body), delay=0.3)) as server, app(server):
        result = otpy.Evaluate(rows, metric=METRIC, max_concurrency=1000)(PROGRAM)
        assert server.peak_in_flight > 500
    assert result.score == 1.0
