"""The ledger knows whose every request was: by run, program, predictor and example, without being told."""

import asyncio
import contextlib
import threading
from collections import Counter
from contextvars import copy_context

import pytest

import otpy
from otpy.actors import KILL
from otpy.clients.budget import Cap
from otpy.clients.labels import ANYBODY, Labels, current_labels
from otpy.clients.ledger import GetCaps, OpenRun
from otpy.errors import AdapterParseError, BudgetExceeded, ConfigError
from otpy.evaluate import runs
from otpy.teleprompters import Teleprompter
from otpy.testing import FakeProvider, Fault

ROWS = [otpy.Example(question=f"number {n}", answer=str(n % 3)).with_inputs("question") for n in range(24)]
METRIC = otpy.exact_match("answer")
ANSWER = '{"answer": "1", "query": "1"}'


def application(fake, **settings):
    client = {
        "model": "acme/m",
        "base_url": fake.url("openai_chat"),
        "input_price": 1,
        "output_price": 1,
        "retry": {"base": 0.001, "max_attempts": 4},
        "breaker": {"fail_max": 1_000},
    }
    return otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}, **settings})


def requests(sums, *names):
    """Requests by the values of these labels."""
    return {
        tuple(getattr(labels, name) for name in names) if len(names) > 1 else getattr(labels, names[0]): one.requests
        for labels, one in sums.items()
    }


def number_in(request):
    return int(request.prompt.split("number ")[-1].split()[0])


class Search(otpy.Program):
    """One question after the other."""

    rewrite: otpy.Predict = otpy.Predict("question -> query")
    answer: otpy.ChainOfThought = otpy.ChainOfThought("query -> answer")

    async def forward(self, question):
        rewritten = await self.rewrite.acall(question=question)
        return await self.answer.acall(query=rewritten.query)


THINKING = '{"answer": "1", "query": "1", "reasoning": "r"}'


# -- by program and predictor -----------------------------------------------------------------------------------------


def test_a_predictor_alone_is_its_own_program():
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        otpy.Predict("question -> answer")(question="?")
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {("Predict", "self"): 1}
        assert current_labels() is ANYBODY


def test_in_a_composition_the_one_that_is_called_first_counts_and_predictors_go_by_their_path():
    class Twice(otpy.Program):
        first: Search = Search()
        second: Search = Search()

        async def forward(self, question):
            await self.first.acall(question=question)
            return await self.second.acall(question=question)

    with FakeProvider(THINKING) as fake, application(fake) as app:
        Twice()(question="?")
        Search()(question="?")
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {
            ("Twice", "first.rewrite"): 1,
            ("Twice", "first.answer.predict"): 1,
            ("Twice", "second.rewrite"): 1,
            ("Twice", "second.answer.predict"): 1,
            ("Search", "rewrite"): 1,
            ("Search", "answer.predict"): 1,
        }
        assert app.history(1)[0].labels == Labels(program="Search", predictor="answer.predict")


def test_tasks_and_threads_that_a_program_starts_ask_for_it():
    class Wide(otpy.Program):
        parts: list = [otpy.Predict("question -> answer") for _ in range(4)]  # noqa: RUF012 - frozen when it is sealed

        async def forward(self, question):
            ask = [part.acall for part in self.parts]
            await asyncio.gather(ask[0](question=question), ask[0](question="and this?"))
            async with asyncio.TaskGroup() as group:
                group.create_task(ask[1](question=question))
            await asyncio.to_thread(self.parts[2], question=question)
            done = asyncio.Event()
            loop, context = asyncio.get_running_loop(), copy_context()

            def work():
                context.run(self.parts[3], question=question)
                loop.call_soon_threadsafe(done.set)

            threading.Thread(target=work, daemon=True).start()
            await done.wait()
            return await ask[3](question=question)

    with FakeProvider(ANSWER) as fake, application(fake) as app:
        Wide()(question="?")
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {
            ("Wide", "parts[0]"): 2,
            ("Wide", "parts[1]"): 1,
            ("Wide", "parts[2]"): 1,
            ("Wide", "parts[3]"): 2,
        }
        assert current_labels() is ANYBODY


def test_a_synchronous_forward_and_what_is_called_by_turns_are_labelled_too():
    class Inner(otpy.Program):
        ask: otpy.Predict = otpy.Predict("question -> answer")

        def forward(self, question):
            assert current_labels().program == "Outer"
            return self.ask(question=question)

    class Middle(otpy.Program):
        inner: Inner = Inner()

        async def forward(self, question):
            return await self.inner.acall(question=question)

    class Outer(otpy.Program):
        middle: Middle = Middle()

        def forward(self, question):
            return self.middle(question=question)

    with FakeProvider(ANSWER) as fake, application(fake) as app:
        Outer()(question="?")
        app.run(Outer().acall(question="?"))
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {("Outer", "middle.inner.ask"): 2}


def test_what_you_say_yourself_stays():
    with FakeProvider(THINKING) as fake, application(fake) as app:
        with otpy.labels(program="nightly", predictor="all"):
            Search()(question="?")
            assert current_labels() == Labels(program="nightly", predictor="all")
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {("nightly", "all"): 2}


def test_a_predictor_made_on_the_way_is_the_programs_but_none_of_its_parts():
    class Improvised(otpy.Program):
        ask: otpy.Predict = otpy.Predict("question -> answer")

        async def forward(self, question):
            return await self.ask.with_config(temperature=1.0).acall(question=question)

    with FakeProvider(ANSWER) as fake, application(fake) as app:
        Improvised()(question="?")
        assert requests(app.spent("program", "predictor"), "program", "predictor") == {("Improvised", None): 1}


def test_a_call_that_fails_leaves_no_label_behind():
    with FakeProvider("no idea") as fake, application(fake) as app:

        async def main():
            with pytest.raises(AdapterParseError):
                await Search().acall(question="?")
            return current_labels()

        assert app.run(main()) is ANYBODY


# -- by run and example -----------------------------------------------------------------------------------------------


def test_rows_at_the_same_time_have_their_own_numbers():
    words = {n: " ".join(["word"] * (n + 1)) for n in range(24)}

    def script(request):
        if "number" in request.prompt:
            return f'{{"query": "q {words[number_in(request)]}"}}'
        return '{"reasoning": "r", "answer": "1"}'

    with FakeProvider(script) as fake, application(fake) as app:
        result = otpy.Evaluate(ROWS, metric=METRIC)(Search())
        assert result.run.startswith("Evaluate-")
        examples = app.spent("example", run=result.run)
        assert {labels.example: (sums.requests, sums.input_tokens, sums.output_tokens) for labels, sums in
                examples.items()} == {
            str(row.index): (2, row.usage.input_tokens, row.usage.output_tokens) for row in result.rows
        }  # fmt: skip
        assert len({sums.output_tokens for sums in examples.values()}) == 24
        (run,) = app.spent("run", "program").items()
        assert run[0] == Labels(run=result.run, program="Search")
        assert (run[1].input_tokens, run[1].output_tokens) == (fake.counts.input_tokens, fake.counts.output_tokens)
        assert run[1].money == sum(sums.money for sums in examples.values()) > 0
        assert requests(app.spent("predictor", run=result.run), "predictor") == {"rewrite": 24, "answer.predict": 24}
        assert requests(app.spent("run", "example", run=result.run, example="3"), "run", "example") == {
            (result.run, "3"): 2
        }


def test_retries_and_reasks_are_counted_where_they_belong():
    seen = Counter()

    def script(request):
        number = number_in(request)
        seen[number] += 1
        if number == 5 and seen[number] < 3:
            return Fault("status", 503)
        if number == 7 and seen[number] == 1:
            return "no idea"
        return ANSWER

    with FakeProvider(script) as fake, application(fake) as app:
        result = otpy.Evaluate(ROWS, metric=METRIC)(otpy.Predict("question -> answer"))
        sums = {labels.example: one for labels, one in app.spent("example", run=result.run).items()}
        assert (sums["5"].requests, sums["5"].failed, sums["5"].answered) == (3, 2, 1)
        assert (sums["7"].requests, sums["7"].failed) == (2, 0)
        assert {name for name, one in sums.items() if one.requests == 1} == {str(n) for n in range(24)} - {"5", "7"}
        assert sum(one.requests for one in sums.values()) == fake.counts.requests == 27
        assert requests(app.spent("predictor"), "predictor") == {"self": 27}


def test_a_metric_that_asks_a_judge_is_paid_for_by_its_example():
    class Judge(otpy.Program):
        ask: otpy.Predict = otpy.Predict("question -> answer")

        async def forward(self, question):
            return await self.ask.acall(question=question)

    async def judged(example, prediction, trace=None):
        return (await Judge().acall(question="is it right?")).answer == "1"

    def judged_in_a_thread(example, prediction, trace=None):
        return Judge()(question="is it right?").answer == "1"

    with FakeProvider(ANSWER) as fake, application(fake) as app:
        for metric in (judged, judged_in_a_thread):
            result = otpy.Evaluate(ROWS[:3], metric=metric)(otpy.Predict("question -> answer"))
            run = result.run
            assert requests(app.spent("program", run=run), "program") == {"Predict": 3, "Judge": 3}
            assert requests(app.spent("example", run=run), "example") == {"0": 2, "1": 2, "2": 2}


def test_two_evaluations_are_two_runs_and_in_a_run_of_yours_they_are_one():
    evaluate, program = otpy.Evaluate(ROWS[:4], metric=METRIC), otpy.Predict("question -> answer")
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        first, second = evaluate(program), evaluate(program)
        assert requests(app.spent("run"), "run") == {first.run: 4, second.run: 4}
        assert first.run != second.run
        with otpy.labels(run="nightly"):
            evaluate(program)
            assert evaluate(program).run == "nightly"
        assert requests(app.spent("example", run="nightly"), "example") == dict.fromkeys("0123", 2)


def test_a_stream_of_rows_leaves_the_labels_of_whoever_iterates_alone():
    async def main():
        with FakeProvider(ANSWER) as fake:
            async with application(fake) as app:
                evaluate = otpy.Evaluate(ROWS[:4], metric=METRIC)
                async with contextlib.aclosing(evaluate.stream(otpy.Predict("question -> answer"))) as rows:
                    async for _ in rows:
                        assert current_labels() is ANYBODY
                        await otpy.Predict("question -> answer").acall(question="by the way?")
                (sums,) = (await app.aspent(run=None)).values()
                assert sums.requests == 4

    asyncio.run(main())


# -- optimizations ----------------------------------------------------------------------------------------------------


class Measured(Teleprompter):
    """Evaluates twice, each time anew, and asks something itself."""

    def __init__(self, kill=None):
        self.kill = kill

    async def search(self, lab, student, trainset, valset, teacher):
        if self.kill is not None and not lab.memory:
            lab.memory["killed"] = True
            self.kill()
            await asyncio.Event().wait()
        for number in range(2):
            await otpy.Evaluate(trainset, metric=METRIC).acall(student.with_config(rollout=number))
        await otpy.Predict("question -> answer").acall(question="which is better?")
        return student


def test_an_optimization_is_one_run_with_the_evaluations_in_it():
    student = otpy.Predict("question -> answer")
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        Measured().compile(student, trainset=ROWS[:5])
        ((run, count),) = requests(app.spent("run"), "run").items()
        assert run.startswith("Measured-")
        assert count == fake.counts.requests == 11
        assert requests(app.spent("example", run=run), "example") == dict.fromkeys("01234", 2)


def test_bootstrapping_counts_by_the_rows_of_the_trainset():
    teleprompter = otpy.BootstrapFewShot(METRIC, max_bootstrapped_demos=8, max_labeled_demos=0, balanced=False)
    with FakeProvider(THINKING) as fake, application(fake) as app:
        teleprompter.compile(Search(), trainset=ROWS)
        ((run, count),) = requests(app.spent("run"), "run").items()
        assert run.startswith("BootstrapFewShot-")
        assert count == fake.counts.requests
        assert set(requests(app.spent("example", run=run), "example")) <= {str(n) for n in range(24)}
        assert sum(requests(app.spent("example", run=run), "example").values()) == count
        assert requests(app.spent("program"), "program") == {"Search": count}


def test_an_optimization_in_a_run_of_yours_is_a_part_of_it_and_your_labels_reach_its_process():
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        with otpy.labels(run="nightly", program="mine"):
            Measured().compile(otpy.Predict("question -> answer"), trainset=ROWS[:2])
        assert requests(app.spent("run", "program"), "run", "program") == {("nightly", "mine"): 5}


def test_an_optimization_that_is_killed_goes_on_under_its_name():
    async def main():
        with FakeProvider(ANSWER) as fake:
            async with application(fake) as app:

                def kill():
                    loop = asyncio.get_running_loop()
                    loop.call_soon(lambda: loop.create_task(killed()))

                async def killed():
                    (child,) = await app.teleprompters.which_children()
                    child.ref.exit(KILL)

                await Measured(kill).acompile(otpy.Predict("question -> answer"), trainset=ROWS[:3])
                ((run, count),) = requests(await app.aspent("run"), "run").items()
                assert (run[:9], count) == ("Measured-", 7)

    asyncio.run(asyncio.wait_for(main(), 20))


# -- for months -------------------------------------------------------------------------------------------------------


def test_the_examples_of_old_runs_go_and_their_sums_stay(monkeypatch):
    monkeypatch.setattr(runs, "LEAST", 1)
    monkeypatch.setattr(runs.Runs.__init__, "__defaults__", (10,))
    evaluate, program = otpy.Evaluate(ROWS[:4], metric=METRIC), otpy.Predict("question -> answer")
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        names = [evaluate(program).run for _ in range(12)]
        assert set(app.book._examples) == set(names[-3:])
        assert requests(app.spent("example", run=names[-1]), "example") == dict.fromkeys("0123", 1)
        with pytest.raises(ConfigError, match=f"no examples of the run '{names[0]}' are kept"):
            app.spent("example", run=names[0])
        assert requests(app.spent("run"), "run") == dict.fromkeys(names, 4)


def test_a_run_with_a_cap_is_left_to_whoever_has_put_it(monkeypatch):
    monkeypatch.setattr(runs, "LEAST", 1)
    monkeypatch.setattr(runs.Runs.__init__, "__defaults__", (4,))
    evaluate, program = otpy.Evaluate(ROWS[:4], metric=METRIC), otpy.Predict("question -> answer")
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        app.run(app._call("ledger", OpenRun("capped", (Cap("requests", 100),))))
        with otpy.labels(run="capped"):
            evaluate(program)
        for _ in range(5):
            evaluate(program)
        (state,) = app.run(app._call("ledger", GetCaps()))
        assert state.spent == 4
        assert "capped" in app.book._examples


def test_runs_that_several_are_at_stay_open_until_the_last_is_done():
    known = runs.Runs(kept=0)
    known.begin("shared")
    known.begin("shared")
    known.end("shared", 1_000)
    known.begin("later")
    known.end("later", 1_000)
    assert known.outdated() == []
    known.end("shared", 1_000)
    assert known.outdated() == ["later"]
    assert known.outdated() == []


def test_an_evaluation_goes_on_when_the_ledger_is_killed():
    with FakeProvider(ANSWER) as fake, application(fake) as app:

        async def main():
            app.names.whereis("ledger").exit(KILL)
            return await otpy.Evaluate(ROWS[:4], metric=METRIC).acall(otpy.Predict("question -> answer"))

        result = app.run(main())
        assert requests(app.spent("example", run=result.run), "example") == dict.fromkeys("0123", 1)


# -- questions that have no answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "where", "said"),
    [
        (("colour",), {}, "no label 'colour'; there are client, model, run"),
        (("run",), {"colour": "red"}, "no label 'colour'"),
        (("example",), {}, "examples are kept by run alone"),
        (("example", "predictor"), {"run": "r"}, "examples are kept by run alone"),
    ],
)
def test_a_question_that_the_ledger_cannot_answer_is_refused_and_harms_nobody(by, where, said):
    with FakeProvider(ANSWER) as fake, application(fake) as app:
        with pytest.raises(ConfigError, match=said):
            app.spent(*by, **where)
        assert app.book.restarts == 1
        assert app.spent("example", run="never") == {}


def test_a_cap_on_money_without_prices_says_where_they_are_set_and_there_they_count():
    with FakeProvider(ANSWER) as fake:
        where = {"lm": "acme/m", "base_url": fake.url("openai_chat"), "cache": False, "max_tokens": 10}
        capped = {"budget": {"money": 1}}
        with otpy.start(**where, settings=capped), pytest.raises(BudgetExceeded, match=r"input_price.*otpy\.start"):
            otpy.Predict("question -> answer")(question="number 1")
        assert fake.requests == ()
        with otpy.start(**where, settings=capped, input_price=1, output_price="2.5") as app:
            otpy.Predict("question -> answer")(question="number 1")
            (sums,) = app.spent().values()
            assert sums.money > 0
