"""Rows from lists and generators, once or more often, with a bound on failures, as many at a time as are of use."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from contextlib import aclosing
from decimal import Decimal

import pytest

import otpy
from otpy.clients.traffic import Traffic
from otpy.errors import EvaluationAborted, EvaluationError
from otpy.evaluate.room import MOST, Room
from otpy.telemetry import bus
from otpy.testing import FakeProvider, Fault, Say, run_in_virtual_time

METRIC = otpy.exact_match("answer")


class Echo(otpy.Program):
    """Answers without a model; fails on what it is told to fail on."""

    bad: tuple[int, ...] = ()

    def __init__(self, bad=()):
        self.bad = tuple(bad)

    @property
    def input_names(self):
        return ("n",)

    async def forward(self, n):
        if n in self.bad:
            raise RuntimeError(f"no {n}")
        return otpy.Prediction(answer=n)


def rows(count, start=0):
    return [otpy.Example(n=n, answer=n) for n in range(start, start + count)]


def evaluated(devset, program=None, **arguments):
    with otpy.start(settings={"clients": {}}):
        return otpy.Evaluate(devset, metric=arguments.pop("metric", METRIC), **arguments)(program or Echo())


# -- where rows come from ---------------------------------------------------------------------------------------------


def test_a_generator_is_read_as_there_is_room_and_only_failed_rows_are_kept():
    ahead = []

    def source():
        for row in rows(200):
            ahead.append(row)
            yield row

    async def main():
        async with otpy.start(settings={"clients": {}}):
            evaluate = otpy.Evaluate(source(), metric=METRIC, max_concurrency=4)
            async with aclosing(evaluate.stream(Echo())) as stream:
                await anext(stream)
                assert len(ahead) <= 8
            return await otpy.Evaluate(source(), metric=METRIC).acall(Echo(bad=(3, 5)))

    result = asyncio.run(main())
    assert [row.index for row in result.rows] == [3, 5]
    assert result.score == pytest.approx(0.99)
    assert (result.complete, len(result.tally)) == (True, 200)


def test_an_asynchronous_generator_will_do_and_so_will_mappings():
    async def source():
        for n in range(5):
            await asyncio.sleep(0)
            yield {"n": n, "answer": n}

    result = evaluated(source(), keep="all")
    assert [row.index for row in result.rows] == [0, 1, 2, 3, 4]
    assert result.score == 1.0


def test_a_generator_that_raises_ends_it_and_its_error_is_seen():
    def source():
        yield from rows(3)
        raise OSError("the disk has gone")

    with pytest.raises(EvaluationAborted, match="the devset raised OSError: the disk has gone") as caught:
        evaluated(source(), keep="all")
    assert len(caught.value.result.rows) == 3
    assert isinstance(caught.value.__cause__, OSError)


def test_a_bad_row_of_a_generator_ends_it_with_what_is_done():
    with pytest.raises(EvaluationAborted, match="row 2 has no 'n', an input of the program") as caught:
        evaluated(iter([*rows(2), otpy.Example(m=1)]), keep="all")
    assert len(caught.value.result.rows) == 2


@pytest.mark.parametrize("devset", [[], (), iter(())])
def test_no_rows_are_refused(devset):
    with pytest.raises(EvaluationError, match="the devset is empty"):
        evaluated(devset)


@pytest.mark.parametrize("devset", [7, "rows.jsonl", None])
def test_what_holds_no_rows_is_refused(devset):
    with pytest.raises(EvaluationError, match=r"devset=.*allowed: examples"):
        otpy.Evaluate(devset, metric=METRIC)


# -- how often, and how many may fail ---------------------------------------------------------------------------------


def test_each_row_runs_as_often_as_wanted_and_the_score_counts_rows():
    seen = []

    async def sometimes(example, prediction, trace=None):
        seen.append(example.n)
        return seen.count(example.n) == 1

    result = evaluated(rows(4), metric=sometimes, n_runs=3)
    assert [(row.index, row.repeat) for row in result.rows] == [(index, run) for index in range(4) for run in range(3)]
    assert result.score == pytest.approx(1 / 3)
    assert result.complete


def test_failed_rows_can_be_left_out_of_the_score():
    assert evaluated(rows(10), Echo(bad=range(5))).score == 0.5
    assert evaluated(rows(10), Echo(bad=range(5)), on_failure="exclude").score == 1.0


def test_the_first_failure_can_end_it():
    with pytest.raises(EvaluationAborted, match=r"row 2, RuntimeError: no 2, failed \(program\), and on_failure is"):
        evaluated(rows(10), Echo(bad=(2,)), on_failure="raise", max_concurrency=1)


@pytest.mark.parametrize(("most", "stops"), [(4, True), (5, False), (0.04, True), (0.05, False)])
def test_failures_are_bounded_by_number_or_by_share(most, stops):
    program = Echo(bad=range(5))
    if stops:
        with pytest.raises(EvaluationAborted, match=f"5 rows failed, more than max_failures={most}"):
            evaluated(rows(100), program, max_failures=most)
    else:
        assert len(evaluated(rows(100), program, max_failures=most).failed) == 5


def test_a_share_of_rows_nobody_has_counted_is_judged_after_a_hundred():
    with pytest.raises(EvaluationAborted) as caught:
        evaluated(iter(rows(1_000)), Echo(bad=range(0, 1_000, 2)), max_failures=0.2, max_concurrency=1)
    assert len(caught.value.result.tally) in {100, 101}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_failures": 1.5}, "max_failures=1.5; allowed: an integer >= 0, a share between 0 and 1, or None"),
        ({"max_failures": 0.0}, "max_failures=0.0"),
        ({"on_failure": "ignore"}, "on_failure='ignore'; allowed: 'score', 'exclude' or 'raise'"),
        ({"n_runs": 0}, "n_runs=0; allowed: an integer >= 1"),
        ({"keep": "some"}, "keep='some'; allowed: 'all', 'failed' or None"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, said):
    with pytest.raises(EvaluationError, match=said.replace("'", ".")):
        otpy.Evaluate(rows(1), metric=METRIC, **arguments)


# -- what a metric may say --------------------------------------------------------------------------------------------


def test_a_metric_may_give_its_reasons():
    def metric(example, prediction, trace=None):
        return otpy.Score(0.5, "half right", {"form": 1, "sense": 0})

    (row,) = evaluated(rows(1), metric=metric).rows
    assert (row.score, row.feedback, dict(row.score.subscores)) == (0.5, "half right", {"form": 1.0, "sense": 0.0})


# -- what a row took --------------------------------------------------------------------------------------------------


def test_a_row_knows_its_money_and_how_often_it_asked():
    def reply(request):
        return Fault("status", 500) if request.number in {2, 3} else Say('{"answer": "x"}')

    with FakeProvider(reply) as fake:
        client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "input_price": 1, "output_price": 1}
        client["retry"] = {"base": 0.001, "cap": 0.001}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            devset = [otpy.Example(question=str(n), answer="x") for n in range(3)]
            result = otpy.Evaluate(devset, metric=METRIC, max_concurrency=1)(otpy.Predict("question -> answer"))
        counts = fake.counts
    assert [row.attempts for row in result.rows] == [1, 3, 1]
    assert result.money == Decimal(counts.input_tokens + counts.output_tokens) / 1_000_000
    assert all(row.money for row in result.rows)


def test_what_asks_nothing_costs_nothing():
    (row,) = evaluated(rows(1)).rows
    assert (row.money, row.attempts) == (0, 0)


# -- time -------------------------------------------------------------------------------------------------------------


def test_hung_rows_are_killed_at_their_deadline_and_the_others_are_not():
    began, killed = {}, {}

    class Hang(Echo):
        async def forward(self, n):
            clock = asyncio.get_running_loop().time
            began[n] = clock()
            try:
                await asyncio.sleep(60 if n % 10 == 0 else 0.3)
            except asyncio.CancelledError:
                killed[n] = clock()
                raise
            return await super().forward(n)

    async def main():
        async with otpy.start(settings={"clients": {}}):
            return await otpy.Evaluate(rows(200), metric=METRIC, timeout=0.4, max_concurrency=50).acall(Hang())

    result = run_in_virtual_time(main())
    assert [(row.index, row.reason, row.where) for row in result.failed] == [
        (n, "timeout", "task") for n in range(0, 200, 10)
    ]
    assert sorted(killed) == list(range(0, 200, 10))
    assert all(0.4 - 0.01 <= killed[n] - began[n] <= 0.4 + 0.1 for n in killed)
    assert len(result.scored) == 180


def test_a_row_that_blocks_the_loop_costs_time_and_no_other_row(caplog):
    class Blocks(Echo):
        async def forward(self, n):
            if n == 0:
                time.sleep(0.9)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(0.05)
            return await super().forward(n)

    blocked = []
    with bus.attached("test", lambda _, said: blocked.append(said["seconds"]), prefix="otpy.evaluate.blocked"):
        result = evaluated(rows(20), Blocks(), timeout=0.4)
    assert [row.index for row in result.failed] in ([], [0])
    assert blocked
    assert 'isolation="thread"' in caplog.text


def test_each_run_of_a_row_is_another_asking_past_the_cache_and_is_counted_as_it_was():
    with FakeProvider(lambda request: Say('{"answer": "4"}')) as fake:
        settings = {"clients": {"default": {"model": "a/b", "base_url": fake.url("openai_chat"), "api_key": "none"}}}
        with otpy.start(settings=settings):
            evaluate = otpy.Evaluate(
                [otpy.Example(question=f"{n}?", answer="4") for n in range(4)], metric=METRIC, n_runs=3
            )
            result = evaluate(otpy.Predict("question -> answer"))
            assert (fake.counts.requests, result.attempts, result.usage.requests) == (12, 12, 12)
            again = evaluate(otpy.Predict("question -> answer"))
        assert (fake.counts.requests, again.attempts, again.usage.requests) == (12, 0, 0)
        assert again.money == 0


def test_rows_that_share_an_answer_on_its_way_pay_for_it_once():
    with FakeProvider(lambda request: Say('{"answer": "4"}', delay=0.05)) as fake:
        settings = {"clients": {"default": {"model": "a/b", "base_url": fake.url("openai_chat"), "api_key": "none"}}}
        with otpy.start(settings=settings):
            devset = [otpy.Example(question="2 + 2?", answer="4")] * 5
            result = otpy.Evaluate(devset, metric=METRIC)(otpy.Predict("question -> answer"))
        assert (fake.counts.requests, result.attempts, result.usage.requests) == (1, 1, 1)


@pytest.mark.parametrize(
    ("program", "metric", "why"),
    [
        (Echo, METRIC, r"is no program; allowed: a Program, an instance of it, as in Echo\(\)"),
        (len, METRIC, "is no program; allowed: a Program, a class with a forward method"),
        (Echo(), otpy.exact_match("anwser"), r"row 0 has no 'anwser', which exact_match\('anwser'\) compares"),
        (otpy.Predict("n: int -> result"), METRIC, r"the program has no output 'answer', .*; it has result"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_asked(program, metric, why):
    with pytest.raises(EvaluationError, match=why):
        evaluated(rows(3), program, metric=metric)


@pytest.mark.parametrize(
    "arguments", [{"workers": 4}, {"memory": 512}, {"retry_failed": True}, {"display_progress": "yes"}]
)
def test_what_would_be_of_no_use_is_refused(arguments):
    with pytest.raises(EvaluationError, match=rf"{next(iter(arguments))}=.*; allowed: "):
        otpy.Evaluate(rows(3), metric=METRIC, **arguments)


def test_a_share_of_failures_holds_for_short_generators_too():
    with pytest.raises(EvaluationAborted, match=r"2 rows failed, more than max_failures=0\.1: ") as caught:
        evaluated(iter(rows(11)), Echo(bad=(0, 1)), max_failures=0.1)
    assert len(caught.value.result.tally) == 11


def test_the_error_that_ends_it_has_the_rows_own_as_its_cause():
    with pytest.raises(EvaluationAborted) as caught:
        evaluated(rows(3), Echo(bad=(1,)), on_failure="raise")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_used_up_generator_and_a_function_are_told_apart():
    devset = iter(rows(2))
    assert evaluated(devset).score == 1.0
    with pytest.raises(EvaluationError, match="empty; a generator has its rows only once"):
        evaluated(devset)
    with pytest.raises(EvaluationError, match=r"is a function; call it: rows\(\)"):
        evaluated(rows)


def test_whoever_wants_to_hear_how_it_goes_says_so_to_the_evaluation():
    heard = []
    evaluated(rows(30), on_progress=heard.append)
    assert (heard[-1].done, heard[-1].total, heard[-1].score) == (30, 30, 1.0)


# -- how many at a time -----------------------------------------------------------------------------------------------


def test_without_a_number_it_starts_few_and_goes_by_what_gets_through():
    traffic = Traffic()
    room, flow = Room(None, traffic), traffic.flow("default")
    assert room(0) == 64
    flow.in_flight = 64
    assert room(64) == 64
    flow.waiting = 8
    assert room(64) == 0
    flow.waiting, flow.in_flight = 0, 1_000_000
    assert room(0) == MOST


def test_a_provider_that_takes_few_is_not_given_more_rows_than_it_has_use_for():
    with FakeProvider(Say('{"answer": "x"}', delay=0.02)) as fake:
        client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "max_concurrency": 4}
        heard = []
        listening = bus.attached("test", lambda _, said: heard.append(said["rows_in_flight"]), "otpy.evaluate.progress")
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}), listening:
            devset = [otpy.Example(question=str(n), answer="x") for n in range(300)]
            assert otpy.Evaluate(devset, metric=METRIC)(otpy.Predict("question -> answer")).score == 1.0
    assert heard
    assert max(heard) <= 80


def test_it_tells_how_it_goes():
    heard = []
    listening = bus.attached("test", lambda _, said: heard.append(said), prefix="otpy.evaluate.progress")
    with listening:
        evaluated(rows(30), Echo(bad=(1,)))
    last = heard[-1]
    assert (last["done"], last["total"], last["failed"], last["refused"], last["money"]) == (30, 30, 1, 0, 0)
    assert last["score"] == pytest.approx(29 / 30)
    assert last["seconds_left"] == 0


# -- memory -----------------------------------------------------------------------------------------------------------


def test_the_collector_is_as_it_was_when_it_is_over():
    before = gc.get_threshold()
    evaluated(rows(3))
    with pytest.raises(EvaluationAborted):
        evaluated(rows(3), Echo(bad=(0,)), on_failure="raise")
    assert gc.get_threshold() == before


def test_a_long_run_from_a_generator_keeps_nothing_of_its_rows_and_leaves_nothing_to_the_collector():
    made, alive = [], []

    class Kept(otpy.Prediction):
        __slots__ = ("__weakref__",)

    class Watched(Echo):
        async def forward(self, n):
            prediction = Kept(answer=n)
            made.append(weakref.ref(prediction))
            if n % 100 == 0:
                alive.append(sum(known() is not None for known in made))
            return prediction

    async def main():
        async with otpy.start(settings={"clients": {}}):
            source = ({"n": n, "answer": n} for n in range(3_000))
            return await otpy.Evaluate(source, metric=METRIC, max_concurrency=50).acall(Watched())

    gc.disable()
    try:
        result = asyncio.run(main())
    finally:
        gc.enable()
    assert (result.score, len(made), len(alive)) == (1.0, 3_000, 30)
    assert max(alive) <= 100  # under way, and finished but not yet taken


# -- apart from this process ------------------------------------------------------------------------------------------


def test_rows_may_run_in_threads_where_code_that_blocks_holds_up_nobody():
    together = threading.Barrier(16)

    class Blocks(Echo):
        async def forward(self, n):
            together.wait(30)  # until all sixteen are in it
            return await super().forward(n)

    assert evaluated(rows(16), Blocks(), isolation="thread", workers=16).score == 1.0


def test_rows_may_run_in_processes_where_what_ends_one_costs_a_row(tmp_path, monkeypatch):
    (tmp_path / "deadly_rows.py").write_text(
        "import os\nimport otpy\n\n\n"
        "class Deadly(otpy.Program):\n"
        "    async def forward(self, n):\n"
        "        if n == 3:\n            os._exit(7)\n"
        "        if n == 5:\n            os.abort()\n"
        "        return otpy.Prediction(answer=n)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly_rows

    devset = [row.with_inputs("n") for row in rows(12)]
    result = evaluated(devset, deadly_rows.Deadly(), isolation="process", workers=2, timeout=30)
    assert [(row.index, row.kind) for row in result.failed] == [(3, "ProcessCrashed"), (5, "ProcessCrashed")]
    assert result.score == pytest.approx(10 / 12)


@pytest.mark.parametrize("isolation", ["task", "thread", "process"])
@pytest.mark.parametrize("journalled", [False, True])
def test_when_the_application_stops_in_the_middle_what_is_done_is_kept_and_nothing_else_is_a_result(
    tmp_path, monkeypatch, isolation, journalled
):
    (tmp_path / "slow_rows.py").write_text(
        "import asyncio\nimport otpy\n\n\n"
        "class Slow(otpy.Program):\n"
        "    async def forward(self, n):\n"
        "        await asyncio.sleep(0 if n < 5 else 3600)\n"
        "        return otpy.Prediction(answer=n)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "slow_rows", raising=False)
    import slow_rows

    devset = [row.with_inputs("n") for row in rows(300)]
    path, workers = tmp_path / "j" if journalled else None, None if isolation == "task" else 2

    async def main():
        done = []
        async with otpy.start(settings={"clients": {}}) as app:
            evaluate = otpy.Evaluate(devset, metric=METRIC, isolation=isolation, workers=workers, journal=path)
            async with aclosing(evaluate.stream(slow_rows.Slow())) as stream:
                async for row in stream:
                    done.append(row.index)
                    if len(done) == 5:
                        stopping = asyncio.create_task(app.__aexit__(None, None, None))
            await stopping

    with pytest.raises(EvaluationAborted, match=r"the application has stopped: 100\.0 %") as raised:
        asyncio.run(main())
    result = raised.value.result
    assert ([row.index for row in result.rows], result.complete) == ([0, 1, 2, 3, 4], False)
    if path is not None:
        assert len(path.read_bytes().splitlines()) == 6


# -- a journal --------------------------------------------------------------------------------------------------------


def asking(fake, devset, **arguments):
    client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "input_price": 1, "output_price": 2}
    with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
        return otpy.Evaluate(devset, metric=METRIC, **arguments)(otpy.Predict("question -> answer"))


def test_with_a_journal_the_same_call_goes_on_and_asks_nothing_twice(tmp_path):
    devset = [otpy.Example(question=str(n), answer="x") for n in range(30)]
    with FakeProvider(Say('{"answer": "x"}')) as fake:
        with pytest.raises(EvaluationAborted):
            asking(fake, (row if n < 20 else 1 / 0 for n, row in enumerate(devset)), journal=tmp_path / "j", keep="all")
        assert fake.counts.requests == 20
        first = asking(fake, devset, journal=tmp_path / "j")
        assert fake.counts.requests == 30
        again = asking(fake, devset, journal=tmp_path / "j")
        assert fake.counts.requests == 30
    assert again.rows == first.rows
    assert (again.score, again.money, again.complete) == (first.score, first.money, True)


def test_failures_that_may_pass_are_asked_again_and_others_are_not(tmp_path):
    devset = [otpy.Example(question=str(n), answer="x") for n in range(4)]

    def first(request):
        if "question: 1" in request.prompt:
            return Fault("status", 503)
        return Say("no json" if "question: 2" in request.prompt else '{"answer": "x"}')

    with FakeProvider(first) as fake:
        result = asking(fake, devset, journal=tmp_path / "j")
        assert [row.kind for row in result.failed] == ["LMStatusError", "AdapterParseError"]
        fake.script = Say('{"answer": "x"}')
        before = fake.counts.requests
        result = asking(fake, devset, journal=tmp_path / "j")
        assert fake.counts.requests == before + 1
        assert [row.kind for row in result.failed] == ["AdapterParseError"]
        assert asking(fake, devset, journal=tmp_path / "j", retry_failed=True).score == 1.0


def test_a_journal_of_another_program_is_refused_before_anything_is_asked(tmp_path):
    devset = [otpy.Example(question="1", answer="x")]
    with FakeProvider(Say('{"answer": "x"}')) as fake:
        asking(fake, devset, journal=tmp_path / "j")
        client = {"model": "acme/m", "base_url": fake.url("openai_chat")}
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
            other = otpy.Predict("question -> answer: int")
            with pytest.raises(EvaluationError, match="another path"):
                otpy.Evaluate(devset, metric=METRIC, journal=tmp_path / "j")(other)
        assert fake.counts.requests == 1


def test_an_error_whose_text_cannot_be_told_costs_its_row_and_no_other(tmp_path):
    class Huge(Echo):
        async def forward(self, n):
            raise ValueError(10**5000)

    for _ in range(2):
        result = evaluated(rows(3), Huge(), journal=tmp_path / "j")
        assert {row.explanation for row in result.failed} == {"ValueError: (its text raises ValueError)"}


def test_what_is_no_path_of_a_journal_is_refused():
    with pytest.raises(EvaluationError, match="journal=5; allowed: a path, or None"):
        otpy.Evaluate(rows(1), metric=METRIC, journal=5)
