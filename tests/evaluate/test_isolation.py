"""Rows in worker processes: whatever a row does to its process costs that row, and nothing is left behind."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pydantic
import pytest

import otpy
from otpy.actors import KILL
from otpy.clients.labels import labels
from otpy.errors import ActorDown, AdapterParseError, EvaluationError, LMAuthError, NoApplication, OtpyError
from otpy.evaluate import parcels
from otpy.evaluate.isolation import Isolated, ProcessCrashed
from otpy.evaluate.row import Failed, Scored
from otpy.evaluate.runs import opened
from otpy.evaluate.threaded import InThreads
from otpy.testing import LoopbackLM, Scripted

ROOT = Path(__file__).resolve().parents[2]
RISKY = """
import asyncio, ctypes, os, signal, sys, threading, time
from otpy.errors import SignatureError
from otpy.programs import Predict, Program
from otpy.signatures import Prediction

class Picky(Exception):
    def __init__(self, one, two):
        super().__init__("only one of them")

def settle(pid):
    if pid != os.getpid():
        raise SystemExit("I cannot live there")

class Homesick:
    def __reduce__(self):
        return settle, (os.getpid(),)

def endless():
    held = []
    while True:
        held.append(bytearray(1 << 24))

def refuse():
    raise ValueError("no")

def picky():
    raise Picky(1, 2)

def reasoned():
    raise SignatureError("bad piece", "a -> b", 3)

async def linger():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def stop():
    sys.exit(4)

async def task_exits():
    await asyncio.create_task(stop())

def leave(coroutine):
    kept.append(asyncio.get_running_loop().create_task(coroutine))

kept = []
ACTS = {
    "exit": lambda: os._exit(3),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sys.exit": lambda: sys.exit("enough"),
    "memory": endless,
    "refuse": refuse,
    "picky": picky,
    "reasoned": reasoned,
    "spin": lambda: [None for _ in iter(int, 1)],
    "print": lambda: print("said by the row"),
    "flood": lambda: [print("x" * 999) for _ in range(2000)],
    "read": lambda: sys.stdin.read(),
    "leave": lambda: leave(asyncio.sleep(3600)),
    "stubborn": lambda: leave(linger()),
    "task exits": lambda: leave(task_exits()),
    "reach": lambda: __import__("otpy").clients.running.running().tasks,
}

class Risky(Program):
    async def forward(self, act):
        did = ACTS[act]() if act in ACTS else None
        if act == "task exits":
            await asyncio.sleep(3600)
        if act == "lock":
            did = threading.Lock()
        if act == "homesick":
            did = Homesick()
        return Prediction(act=act, pid=os.getpid(), did=did if act in ("read", "lock", "homesick") else None)

class Plain(Program):
    def forward(self, act):
        return Prediction(act=act, thread=threading.current_thread().name)

class Blocking(Program):
    async def forward(self, act):
        (held if act == "held" else gate).wait(10)
        return Prediction(act=act)

gate, held = threading.Barrier(3), threading.Event()
same = lambda example, prediction, trace=None: example.act == prediction.act

def risky_metric(example, prediction, trace=None):
    ACTS[example.then]()
    return True

class Twice(Program):
    ask: Predict = Predict("question -> answer", max_reasks=0)
    async def forward(self, question):
        first, second = await asyncio.gather(self.ask.acall(question=question), self.ask.acall(question=question + "!"))
        return Prediction(answer=first.answer + second.answer)

async def asking_metric(example, prediction, trace=None):
    return (await Predict("question -> answer").acall(question="metric")).answer == "a"
"""


class Unreadable(str):
    """What can be pickled, and does not come out of it."""

    __slots__ = ()

    def __reduce__(self):
        return int, ("zz",)


@pytest.fixture(scope="module")
def risky(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield module(patch, tmp_path_factory.mktemp("risky"), "risky_rows", RISKY)


def module(patch, directory, name, text):
    (directory / f"{name}.py").write_text(text)
    patch.syspath_prepend(directory)
    made = importlib.import_module(name)
    patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, name, made)
    return made


def started(url="http://127.0.0.1:9/v1", **settings):
    return otpy.start(lm="openai/x", base_url=url, api_key="none", cache=False, **settings)


def acting(*acts):
    return [otpy.Example(act=act).with_inputs("act") for act in acts]


def evaluated(program, metric, rows, workers=1, *, timeout=30.0, memory=None):
    async def main():
        async with started(), Isolated(program, metric, workers, memory) as pool:
            return await asyncio.gather(*(pool.evaluate(index, row, timeout) for index, row in enumerate(rows)))

    return asyncio.run(main())


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=20):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


# -- what a row may do ------------------------------------------------------------------------------------------------


def test_rows_are_evaluated_elsewhere_one_after_the_other_in_each_process(risky):
    rows = evaluated(risky.Risky(), risky.same, acting(*map(str, range(20))), workers=2)
    assert [row.score for row in rows] == [1.0] * 20
    assert [row.prediction.act for row in rows] == [str(n) for n in range(20)]
    assert [row.index for row in rows] == list(range(20))
    pids = {row.prediction.pid for row in rows}
    assert os.getpid() not in pids
    assert len(pids) <= 2
    assert gone(pids, 0)


FATES = {
    "exit": ("ProcessCrashed", "exit status 3"),
    "abort": ("ProcessCrashed", "signal 6 (SIGABRT) in forward ("),
    "segfault": ("ProcessCrashed", "signal 11 (SIGSEGV) in string_at ("),
    "kill": ("ProcessCrashed", "signal 9 (SIGKILL)"),
    "task exits": ("ProcessCrashed", "exit status 1"),
    "memory": ("MemoryError", "more than the 400 MiB of a worker process"),
    "sys.exit": ("SystemExit", "enough"),
    "refuse": ("ValueError", "no"),
    "picky": ("EvaluationError", "Picky: only one of them (the Picky itself cannot be sent between processes"),
    "lock": ("EvaluationError", "cannot pickle '_thread.lock' object"),
    "homesick": ("SystemExit", "I cannot live there"),
    "reach": ("NoApplication", "not within reach of a row that runs in a worker process"),
}


@pytest.fixture(scope="module")
def fates(risky):
    acts = [act for fate in FATES for act in (fate, f"after {fate}")]
    return dict(zip(acts, evaluated(risky.Risky(), risky.same, acting(*acts), memory=400), strict=True))


@pytest.mark.parametrize("act", FATES)
def test_a_row_costs_itself_and_says_why(fates, act):
    kind, said = FATES[act]
    assert isinstance(fates[act], Failed)
    assert (fates[act].kind, fates[act].where) == (kind, "program")
    assert said in str(fates[act].reason)
    assert fates[f"after {act}"].score == 1.0


def test_of_a_thousand_rows_those_that_crash_cost_one_each(risky):
    bad = {100: "exit", 101: "abort", 400: "memory", 700: "exit", 850: "memory", 999: "abort"}
    rows = evaluated(risky.Risky(), risky.same, acting(*(bad.get(n, "fine") for n in range(1000))), 2, memory=300)
    assert {row.index: row.example.act for row in rows if isinstance(row, Failed)} == bad
    assert sum(isinstance(row, Scored) for row in rows) == 994


def test_a_metric_that_crashes_costs_its_row_too(risky):
    acts = ["exit", "refuse", "memory", "print"]
    rows = [otpy.Example(act="x", then=act).with_inputs("act") for act in acts]
    *failed, scored = evaluated(risky.Risky(), risky.risky_metric, rows, memory=400)
    assert [(row.kind, row.where) for row in failed] == [
        ("ProcessCrashed", "metric"),
        ("ValueError", "metric"),
        ("MemoryError", "metric"),
    ]
    assert scored.score == 1.0


def test_an_error_keeps_its_class_its_fields_and_its_traceback(risky):
    plain, ours = evaluated(risky.Risky(), risky.same, acting("refuse", "reasoned"))
    assert 'raise ValueError("no")' in "".join(plain.reason.__notes__)
    assert (type(ours.reason), ours.reason.column) == (otpy.errors.SignatureError, 3)


def test_a_row_past_its_deadline_is_killed_with_its_process(risky):
    async def main():
        async with started(), Isolated(risky.Risky(), risky.same, workers=1) as pool:
            before = await pool.evaluate(0, *acting("x"))
            began = time.perf_counter()
            late = await pool.evaluate(1, *acting("spin"), timeout=0.2)
            seconds = time.perf_counter() - began
            after = await pool.evaluate(2, *acting("x"))
            return before, late, seconds, after

    before, late, seconds, after = asyncio.run(main())
    assert (late.reason, late.where) == ("timeout", "task")
    assert 0.2 <= late.seconds <= seconds
    assert gone([before.prediction.pid])
    assert before.prediction.pid != after.prediction.pid


def test_waiting_for_a_process_is_not_part_of_a_rows_time(risky):
    rows = evaluated(risky.Risky(), risky.same, acting("spin", "x", "spin", "x"), timeout=1.0)
    assert [getattr(row, "reason", None) for row in rows] == ["timeout", None, "timeout", None]


def test_cancelling_a_row_kills_its_process_and_frees_the_place(risky):
    async def main():
        async with started(), Isolated(risky.Risky(), risky.same, workers=1) as pool:
            first = await pool.evaluate(0, *acting("x"))
            spinning = asyncio.create_task(pool.evaluate(1, *acting("spin")))
            waiting = [asyncio.create_task(pool.evaluate(n, *acting("x"))) for n in range(2, 12)]
            await asyncio.sleep(0)
            for task in (*waiting[::2], spinning):
                task.cancel()
            rows = await asyncio.gather(*waiting[1::2])
            await asyncio.gather(spinning, *waiting, return_exceptions=True)
            return first.prediction.pid, rows

    pid, rows = asyncio.run(main())
    assert [row.score for row in rows] == [1.0] * 5
    assert gone([pid])


def test_what_a_row_prints_goes_to_standard_error_and_a_flood_of_it_holds_up_nobody(risky, capsys):
    rows = evaluated(risky.Risky(), risky.same, acting("print", "flood", "x"))
    assert [row.score for row in rows] == [1.0] * 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("said by the row\n")
    assert printed.err.count("x" * 999) == 2000


def test_a_row_that_reads_its_input_sees_the_end_of_it(risky):
    (row,) = evaluated(risky.Risky(), risky.same, acting("read"))
    assert row.prediction.did == ""


def test_tasks_that_a_row_leaves_behind_end_with_it_or_with_their_process(risky):
    first, left, stubborn, after = evaluated(risky.Risky(), risky.same, acting("x", "leave", "stubborn", "x"))
    assert [row.score for row in (first, left, stubborn, after)] == [1.0] * 4
    assert first.prediction.pid == left.prediction.pid == stubborn.prediction.pid != after.prediction.pid


# -- what goes there and comes back -----------------------------------------------------------------------------------


def test_signatures_from_strings_and_the_metrics_we_make_travel(risky):
    with LoopbackLM(lambda _: {"answer": "Yes."}) as server:

        async def main():
            program = otpy.Predict("question -> answer", demos=[{"question": "a", "answer": "b"}])
            row = otpy.Example(question="q", answer="yes").with_inputs("question")
            async with started(server.url), Isolated(program, otpy.exact_match("answer", normalize=True), 1) as pool:
                return await pool.evaluate(0, row)

        row = asyncio.run(main())
    assert (row.score, row.prediction.answer) == (1.0, "Yes.")


def test_a_plain_program_runs_in_a_thread_of_the_worker(risky):
    (row,) = evaluated(risky.Plain(), risky.same, acting("x"))
    assert row.prediction.thread.startswith("otpy-program")


@pytest.mark.parametrize("what", ["program", "metric", "row"])
def test_what_cannot_be_pickled_is_named_with_the_next_step(risky, what):
    class Local(otpy.Program):
        async def forward(self, act):
            raise AssertionError

    lock = threading.Lock()

    def metric(example, prediction, trace=None):
        return lock is None

    program, measure, row = risky.Risky(), risky.same, otpy.Example(act=lock).with_inputs("act")
    if what == "row":
        (failed,) = evaluated(program, measure, [row])
        assert "row 0 cannot be sent between processes" in str(failed.reason)
        return
    chosen = {"program": (Local(), measure), "metric": (program, metric)}[what]
    named = {"program": "the program Local", "metric": "the metric metric"}[what]
    with pytest.raises(EvaluationError, match=f"{named} cannot be sent between processes: .*; define its classes at"):
        evaluated(*chosen, [])


def test_a_program_whose_module_a_worker_cannot_import_is_refused_with_its_error(tmp_path, monkeypatch):
    program = module(monkeypatch, tmp_path, "risky_gone", RISKY).Risky()
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(
        EvaluationError, match="cannot read the program or the metric: ModuleNotFoundError: No module named"
    ) as raised:
        evaluated(program, otpy.exact_match("act"), [])
    assert 'has to be importable there, and to come out of a pickle; or take isolation="task"' in str(raised.value)
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_a_program_that_does_not_come_out_of_its_pickle_is_refused_with_the_next_step(risky):
    with pytest.raises(EvaluationError, match="cannot read the program or the metric: ValueError: invalid literal"):
        evaluated(otpy.Predict("a -> b").with_client(Unreadable("default")), otpy.exact_match("b"), [])


def test_a_program_that_does_not_fit_into_the_memory_is_refused(tmp_path, monkeypatch):
    grows = f"{RISKY}\nif os.getpid() != {os.getpid()}: endless()\n"
    program = module(monkeypatch, tmp_path, "risky_large", grows).Risky()
    with pytest.raises(EvaluationError, match="the program does not fit into memory=300 MiB"):
        evaluated(program, otpy.exact_match("act"), [], memory=300)


def test_workers_that_never_start_are_given_up(risky, monkeypatch):
    monkeypatch.setattr("otpy.evaluate.keeper._BOOT", "raise SystemExit('not today')")
    monkeypatch.setattr("otpy.evaluate.keeper.FIRST_DELAY", 0.001)
    with pytest.raises(EvaluationError, match="no worker process starts; the last one: exit status 1: not today"):
        evaluated(risky.Risky(), risky.same, [], workers=2)


@pytest.mark.parametrize(
    "given", [{"workers": 0}, {"workers": True}, {"memory": 5}, {"memory": "1 GB"}, {"memory": float("nan")}]
)
def test_what_cannot_be_is_refused_at_once(given):
    with pytest.raises(EvaluationError, match=r"allowed: "):
        Isolated(otpy.Predict("a -> b"), otpy.exact_match("b"), **given)


def test_a_system_without_posix_is_told_what_to_take_instead(monkeypatch):
    async def main():
        async with Isolated(otpy.Predict("a -> b"), otpy.exact_match("b")):
            raise AssertionError

    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(EvaluationError, match='isolation="task"'):
        asyncio.run(main())


def test_without_an_application_there_are_no_workers(risky):
    async def main():
        async with Isolated(risky.Risky(), risky.same):
            raise AssertionError

    with pytest.raises(NoApplication):
        asyncio.run(main())


# -- models -----------------------------------------------------------------------------------------------------------


def test_questions_go_through_the_application_and_are_counted_for_the_row(risky):
    with LoopbackLM(lambda _: {"answer": "a"}) as server:

        async def main():
            rows = [otpy.Example(question=str(n), answer="aa").with_inputs("question") for n in range(3)]
            async with (
                started(server.url) as app,
                opened("r", 3),
                Isolated(risky.Twice(), risky.asking_metric, 2) as pool,
            ):

                async def row(index):
                    with labels(run="r", example=index):
                        return await pool.evaluate(index, rows[index])

                done = await asyncio.gather(*map(row, range(3)))
                by_row = {said.example: sums.requests for said, sums in (await app.aspent("example", run="r")).items()}
                by_predictor = {
                    said[2:5]: sums.requests for said, sums in (await app.aspent("run", "program", "predictor")).items()
                }
                shown = otpy.inspect(done[0])
                return done, by_row, by_predictor, [exchange.labels.example for exchange in shown]

        done, by_row, by_predictor, shown = asyncio.run(main())
    assert [row.score for row in done] == [1.0] * 3
    assert [row.usage.requests for row in done] == [2] * 3
    assert done[0].prediction.usage == done[0].usage
    assert by_row == {"0": 3, "1": 3, "2": 3}
    assert by_predictor == {("r", "Twice", "ask"): 6, ("r", "Predict", "self"): 3}
    assert shown == ["0", "0"]


def test_errors_of_a_model_arrive_in_the_program_as_what_they_are(risky):
    with LoopbackLM(lambda body: Scripted("no", status=401) if "locked" in str(body) else "no idea") as server:

        async def main():
            rows = [otpy.Example(question=text, answer="aa").with_inputs("question") for text in ("locked", "other")]
            program = otpy.Predict("question -> answer", max_reasks=1)
            async with started(server.url), Isolated(program, otpy.exact_match("answer"), 1) as pool:
                done = [await pool.evaluate(index, row) for index, row in enumerate(rows)]
                return done, len(list(otpy.inspect(done[1].reason)))

        (refused, unread), shown = asyncio.run(main())
    assert isinstance(refused.reason, LMAuthError)
    assert refused.reason.status == 401
    assert isinstance(unread.reason, AdapterParseError)
    assert unread.reason.attempts == ("no idea", "no idea")
    assert unread.usage.requests == 2
    assert len(unread.exchanges) == shown == 2


def test_a_killed_row_asks_nobody_any_more(risky):
    with LoopbackLM(lambda _: Scripted("a", hold=True)) as server:

        async def main():
            async with started(server.url), Isolated(risky.Twice(), risky.same, 1) as pool:
                asking = asyncio.create_task(pool.evaluate(0, otpy.Example(question="q").with_inputs("question")))
                await asyncio.to_thread(server.wait_for, 2)
                asking.cancel()
                await asyncio.wait([asking])
                deadline = time.monotonic() + 10
                while server.disconnected < 2 and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                return server.disconnected

        assert asyncio.run(main()) == 2


# -- supervision ------------------------------------------------------------------------------------------------------


def test_a_killed_keeper_costs_its_row_and_is_restarted(risky):
    async def main():
        async with started() as app, Isolated(risky.Risky(), risky.same, workers=1) as pool:
            (first,) = pool._ready
            spinning = asyncio.create_task(pool.evaluate(0, *acting("spin")))
            await asyncio.sleep(0)
            first.exit(KILL)
            failed, after = await spinning, await pool.evaluate(1, *acting("x"))
            assert "isolation" in app.render()
            return failed, after

    failed, after = asyncio.run(main())
    assert isinstance(failed.reason, ProcessCrashed)
    assert after.score == 1.0


def test_a_process_that_dies_between_two_rows_costs_none(risky):
    async def main():
        async with started(), Isolated(risky.Risky(), risky.same, workers=1) as pool:
            before = await pool.evaluate(0, *acting("x"))
            os.kill(before.prediction.pid, signal.SIGKILL)
            gone([before.prediction.pid])  # nobody here has heard of it yet
            return before, await pool.evaluate(1, *acting("x"))

    before, after = asyncio.run(main())
    assert not isinstance(before, Failed), before
    assert not isinstance(after, Failed), after
    assert (before.score, after.score) == (1.0, 1.0)
    assert before.prediction.pid != after.prediction.pid


def test_when_the_application_stops_whoever_waits_is_told(risky):
    async def main():
        app = started()
        await app.__aenter__()
        async with Isolated(risky.Risky(), risky.same, workers=1) as pool:
            rows = [asyncio.create_task(pool.evaluate(n, *acting(act))) for n, act in enumerate(["spin", "x", "x"])]
            await asyncio.sleep(0)
            await app.__aexit__(None, None, None)
            return await asyncio.gather(*rows, return_exceptions=True)

    assert [type(end) for end in asyncio.run(main())] == [NoApplication] * 3


def restarted(risky, end, *acts):
    """Evaluate rows while a supervisor of the pool is ended; returns their fates, and the pool's end."""

    async def main():
        async with started() as app, Isolated(risky.Risky(), risky.same, workers=2) as pool:
            rows = [asyncio.create_task(pool.evaluate(n, *acting(act), timeout=60)) for n, act in enumerate(acts)]
            await rows[0]
            before = pool._tree
            end(app, pool)
            await before.join()
            return await asyncio.gather(*rows, return_exceptions=True)

    return asyncio.run(main())


ROWS = [str(n) for n in range(300)]


@pytest.mark.parametrize("which", ["isolation", "tree"])
def test_when_its_supervisor_is_killed_the_pool_starts_anew_and_only_rows_in_flight_are_lost(risky, which):
    ends = restarted(risky, lambda app, pool: (pool._place if which == "isolation" else pool._tree).exit(KILL), *ROWS)
    lost = [end for end in ends if isinstance(end, Failed)]
    assert len(lost) <= 2
    assert all(isinstance(end.reason, ProcessCrashed) for end in lost)
    assert sum(isinstance(end, Scored) for end in ends) == len(ROWS) - len(lost)


def test_when_its_supervisor_is_stopped_and_restarted_rows_in_flight_are_asked_again(risky):
    ends = restarted(risky, lambda app, pool: pool._place.process.stop_request("shutdown"), *ROWS)
    assert [end.score for end in ends] == [1.0] * len(ROWS)


@pytest.mark.parametrize("name", ["config", "tasks", "teleprompters"])
def test_what_happens_to_other_parts_of_the_application_costs_no_row(risky, name):
    async def main():
        async with started() as app, Isolated(risky.Risky(), risky.same, workers=1) as pool:
            before = await pool.evaluate(0, *acting("x"))
            app.names.get(name).exit(KILL)
            return before, await pool.evaluate(1, *acting("x"))

    before, after = asyncio.run(main())
    assert before.prediction.pid == after.prediction.pid


def test_a_pool_whose_keepers_are_killed_again_and_again_gives_up(risky):
    async def main():
        async with started(), Isolated(risky.Risky(), risky.same, workers=1) as pool:
            while pool._over is None:
                for child in await pool._tree.which_children():
                    child.ref.exit(KILL)
                await asyncio.sleep(0)
            await pool.evaluate(0, *acting("x"))

    with pytest.raises(ActorDown, match="isolation"):
        asyncio.run(main())


def test_an_application_says_when_it_is_stopping():
    async def main():
        app = started()
        seen = [app.stopping]
        async with app:
            seen.append(app.stopping)
            app.names.get("isolation").process.when_down(lambda _: seen.append(app.stopping))
        return [*seen, app.stopping]

    assert asyncio.run(main()) == [True, False, True, True]


def test_an_error_that_crashed_a_process_travels_itself():
    import pickle

    error = pickle.loads(pickle.dumps(ProcessCrashed("signal 11 (SIGSEGV)", -11)))
    assert isinstance(error, OtpyError)
    assert (str(error), error.status) == ("signal 11 (SIGSEGV)", -11)


# -- scripts ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import asyncio, os, signal, sys, time

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored below a shell that put us into the background
import otpy
from otpy.evaluate import parcels
from otpy.evaluate.isolation import Isolated

class Mine(otpy.Program):
    async def forward(self, act):
        if act == "spin":
            print("spinning", os.getpid(), flush=True)
            while True:
                pass
        return otpy.Prediction(act=Kind(act), name=__name__)

class Kind(str):
    pass

async def main(*acts):
    async with otpy.start(lm="openai/x", base_url="http://127.0.0.1:9/v1", api_key="none", cache=False):
        async with Isolated(Mine(), lambda example, prediction, trace=None: type(prediction.act) is Kind, 2) as pool:
            rows = [otpy.Example(act=act).with_inputs("act") for act in acts]
            return await asyncio.gather(*(pool.evaluate(index, row) for index, row in enumerate(rows)))
"""
GUARDED = """
if __name__ == "__main__":
    rows = asyncio.run(main(*sys.argv[1:]))
    print(*(f"{row.score} {type(row.prediction.act) is Kind} {row.prediction.name}" for row in rows))
"""


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return path


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def ran(*command, **options):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, timeout=60, check=False, env=environment(), **options,
    )  # fmt: skip


def test_what_a_script_defines_works_in_its_workers(tmp_path):
    done = ran(script(tmp_path, SCRIPT + GUARDED), "x")
    assert done.stdout == "1.0 True __mp_main__\n", done.stderr


def test_a_module_that_runs_as_a_script_works_too(tmp_path):
    script(tmp_path, SCRIPT + GUARDED)
    done = ran("-m", "script", "x", cwd=tmp_path)
    assert done.stdout == "1.0 True __mp_main__\n", done.stderr


def test_a_script_that_evaluates_while_it_is_imported_is_told_so(tmp_path):
    done = ran(script(tmp_path, SCRIPT + "asyncio.run(main('x'))"))
    assert done.returncode == 1
    assert 'put what the script does under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("given", [("-c", SCRIPT + GUARDED), ("-",)])
def test_what_is_defined_where_nobody_can_import_it_is_told_so(given):
    done = ran(*given, "x", input=SCRIPT + GUARDED)
    assert done.returncode == 1
    assert "something in it is defined in __main__" in done.stderr


def spinning(tmp_path):
    surroundings = environment() | {"TMPDIR": str(tmp_path)}  # one that is killed leaves its pipe there
    command = [sys.executable, script(tmp_path, SCRIPT + GUARDED), "spin", "spin"]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings, start_new_session=True
    )
    return parent, [int(parent.stderr.readline().split()[1]) for _ in range(2)]


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    parent, pids = spinning(tmp_path)
    assert all(map(alive, pids))
    parent.kill()
    parent.communicate(timeout=20)
    assert gone(pids)


def test_after_ctrl_c_nobody_is_left_and_only_the_parent_speaks(tmp_path):
    parent, pids = spinning(tmp_path)
    try:
        os.killpg(parent.pid, signal.SIGINT)
        printed, said = parent.communicate(timeout=20)
    finally:
        parent.kill()
    assert gone(pids, 0)
    assert printed == ""
    assert "isolated.py" not in said
    assert said.splitlines()[-1] == "KeyboardInterrupt"


# -- threads ----------------------------------------------------------------------------------------------------------


def threaded(program, metric, rows, *, workers=None, timeout=30.0, url="http://127.0.0.1:9/v1"):
    async def main():
        async with started(url), InThreads(program, metric, workers) as threads:
            return await asyncio.gather(*(threads.evaluate(index, row, timeout) for index, row in enumerate(rows)))

    return asyncio.run(main())


def test_in_threads_rows_that_block_block_only_themselves(risky):
    rows = threaded(risky.Blocking(), risky.same, acting("a", "b", "c"))  # they wait for each other
    assert [row.score for row in rows] == [1.0] * 3


def test_in_threads_a_blocked_row_fails_at_its_deadline_and_gives_its_place_to_the_next(risky):
    rows = threaded(risky.Blocking(), risky.same, acting("held", "held"), workers=1, timeout=0.1)
    assert [(row.reason, row.where) for row in rows] == [("timeout", "task")] * 2
    risky.held.set()


def test_in_threads_a_row_says_where_it_failed(risky):
    crash = otpy.Example(act="x", then="refuse").with_inputs("act")
    (program,) = threaded(risky.Risky(), risky.same, acting("refuse"))
    (metric,) = threaded(risky.Risky(), risky.risky_metric, [crash])
    assert (program.kind, program.where) == ("ValueError", "program")
    assert (metric.kind, metric.where) == ("ValueError", "metric")


def test_in_threads_questions_go_through_the_application(risky):
    with LoopbackLM(lambda _: {"answer": "a"}) as server:
        rows = [otpy.Example(question=str(n)).with_inputs("question") for n in range(5)]
        done = threaded(risky.Twice(), risky.asking_metric, rows, url=server.url)
    assert [(row.score, row.usage.requests) for row in done] == [(1.0, 2)] * 5


def test_in_threads_workers_are_checked():
    with pytest.raises(EvaluationError, match="workers=0; allowed: an integer >= 1, or None"):
        InThreads(otpy.Predict("a -> b"), otpy.exact_match("b"), workers=0)


# -- contracts with code in them -------------------------------------------------------------------------------------


class Even(otpy.Signature):
    """Say an even number."""

    question: str = otpy.InputField()
    number: int = otpy.OutputField()

    @pydantic.field_validator("number")
    @classmethod
    def is_even(cls, value):
        if value % 2:
            raise ValueError("it is odd")
        return value


def test_a_changed_copy_of_a_contract_arrives_with_its_validators():
    changed = Even.with_instructions("Say any even number.")
    arrived = parcels.unpickled(parcels.pickled(changed, "it"))
    assert arrived == changed
    with pytest.raises(otpy.errors.SignatureError, match="it is odd"):
        arrived.validate_outputs({"number": 3})


def test_validators_that_cannot_be_imported_are_refused_and_not_left_behind():
    class Here(otpy.Signature):
        """Say an even number."""

        question: str = otpy.InputField()
        number: int = otpy.OutputField()

        @pydantic.field_validator("number")
        @classmethod
        def is_even(cls, value):
            return value

    with pytest.raises(EvaluationError, match="validators of Here are in no class that can be imported"):
        parcels.pickled(Here, "the program")
