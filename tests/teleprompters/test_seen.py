"""A run is seen: how far it is, what it has cost, how long it will take at the most; in a terminal and a notebook."""

import asyncio
import dataclasses
import io
import re
import sys
import types
from decimal import Decimal

import pytest
import rich.console

import otpy
from otpy.errors import TeleprompterError
from otpy.teleprompters.display import Line, as_html, in_words, shown
from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
from otpy.teleprompters.status import Status
from otpy.testing import LoopbackLM
from tests.teleprompters.planted import METRIC, RIGHT, STUDENT, TRAIN, VAL, compiled, needs, word
from tests.teleprompters.tasks import TASKS

SEARCH = BootstrapFewShotWithRandomSearch(METRIC, max_labeled_demos=0, num_candidate_programs=4, max_concurrency=4)
SCRIPT = needs("plum")


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal would have shown."""
    written = io.StringIO()

    class Console(rich.console.Console):
        def __init__(self, **given):
            super().__init__(**{**given, "file": written, "stderr": False, "force_terminal": True, "width": 140})

    monkeypatch.setattr(rich.console, "Console", Console)
    return written


class Notebook:
    """IPython, as far as it is used."""

    def __init__(self):
        self.shown = []

    def modules(self):
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        kernel = type("ZMQInteractiveShell", (), {})()
        ipython.get_ipython, ipython.display = lambda: kernel, display
        display.HTML, display.display = str, self.display
        return {"IPython": ipython, "IPython.display": display}

    def display(self, what, display_id):
        assert display_id is True
        self.shown.append(what)
        return self

    def update(self, what):
        self.shown.append(what)


def started(script, watch, **options):
    """Start a search, look at it, and return what was seen and its outcome."""

    async def main():
        with LoopbackLM(script) as server:
            client = {"model": "openai/x", "base_url": server.url, "api_key": "none", "input_price": 1}
            client |= {"output_price": 1, "retry": {"max_attempts": 1}}
            async with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
                run = SEARCH.start(STUDENT, trainset=TRAIN, valset=VAL, **options)
                seen = await watch(run)
                return seen, await run.result(), run

    return asyncio.run(main())


class TestTheStatus:
    def test_tells_money_the_best_and_the_rest(self):
        async def watch(run):
            seen = [run.status()]
            while not run._task.done():
                await asyncio.sleep(0)
                if run.status().requests != seen[-1].requests:
                    seen.append(run.status())
            return [*seen, run.status()]

        seen, outcome, _ = started(SCRIPT, watch)
        assert (seen[0].rest, seen[0].best_name, seen[0].money) == (None, None, 0)
        running = [one for one in seen[1:-1] if one.state == "running"]
        assert all(one.rest > 0 for one in running)
        assert {"student"} <= {one.best_name for one in running}
        assert (seen[-1].state, seen[-1].rest) == ("done", 0.0)
        assert seen[-1].best == outcome.score
        assert seen[-1].money == outcome.money > 0

    def test_of_a_run_with_a_cap_is_no_longer_than_that(self):
        async def watch(run):
            return run._most

        assert started(SCRIPT, watch, max_requests=10)[0] == 10
        assert started(SCRIPT, watch)[0] == SEARCH.requests(len(TRAIN), len(VAL), 1)[1]

    def test_does_not_count_a_pause_for_the_pace(self):
        async def watch(run):
            while not run.status().requests:
                await asyncio.sleep(0)
            run.pause()
            run._paused_at -= 1_000
            run._began -= 1_000
            rest = run.status().rest
            run.resume()
            run.resume()
            return rest, run.status().rest

        (before, after), _, run = started(SCRIPT, watch)
        assert before < 500
        assert after < 500
        assert run._paused_for >= 1_000

    def test_is_told_in_words_and_on_a_page(self):
        status = Status("running", 1, 0.5, 7, 1_200, 1.0, Decimal(0), None, "a <b>\x1b[0m")
        assert in_words(status) == "1 candidate, best 50.0 % (a <b>\\x1b[0m), 7 requests, 1,200 tokens"
        assert "a &lt;b&gt;" in as_html("GEPA", status)

    @pytest.mark.parametrize(
        ("room", "words"),
        [
            (90, "3 candidates, best 75.0 % (trial 2), 60 requests, at most 1:05 left, 9,000 tokens, $0.0200"),
            (76, "3 candidates, best 75.0 % (trial 2), 60 requests, at most 1:05 left, $0.0200"),
            (67, "3 candidates, best 75.0 % (trial 2), 60 requests, at most 1:05 left"),
            (43, "best 75.0 %, 60 requests, at most 1:05 left"),
            (30, "best 75.0 %, at most 1:05 left"),
            (11, "best 75.0 %"),
            (8, "best 75…"),
        ],
    )
    def test_is_told_in_the_room_there_is_by_what_matters(self, room, words):
        status = Status("running", 3, 0.75, 60, 9_000, 5.0, Decimal("0.02"), 65.0, "trial 2")
        assert in_words(status, room) == words


class TestALine:
    def test_fits_with_one_estimate_and_ends_full_when_all_is_done_early(self, terminal):
        ends = iter(["running", "done"])
        last = Status("done", 3, 0.75, 60, 9_000, 5.0, Decimal("0.02"), 65.0, "trial 2")

        def status():
            return dataclasses.replace(last, state=next(ends, "done"))

        with Line(170, "BootstrapFewShotWithRandomSearch", status) as line:
            line._bar.console.width = 80
            terminal.truncate(0)
            line.look()
            line.look()
            (task,) = line._bar.tasks
            assert (task.completed, task.total) == (60, 60)
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).replace("\r", "\n").split("\n")
        assert max(map(len, lines)) < 80
        assert not any("-:--" in each or "0:00:" in each for each in lines)
        assert any(each.rstrip().endswith("done, best 75.0 %, 60 requests") for each in lines)

    @pytest.mark.parametrize("name", ["LabeledFewShot", "BootstrapFewShot", "KNNFewShot", "COPRO", "GEPA", "SIMBA"])
    def test_is_shown_by_every_optimizer(self, terminal, name):
        task = TASKS[name]
        optimizer = task.make(seed=0)
        more = {"valset": task.valset} if optimizer.uses_valset else {}
        compiled(optimizer, task.script(0), task.student, trainset=task.trainset, display_progress=True, **more)
        text = terminal.getvalue()
        assert name in text
        assert "candidate" in text

    def test_is_not_shown_unless_asked_for(self, terminal):
        compiled(SEARCH, SCRIPT)
        assert terminal.getvalue() == ""

    def test_may_be_asked_for_where_the_optimizer_is_made(self, terminal):
        bootstrap = otpy.BootstrapFewShot(METRIC, display_progress=True)
        compiled(bootstrap, lambda body: {"kind": RIGHT[word(body)]})
        assert "BootstrapFewShot" in terminal.getvalue()
        terminal.truncate(0)
        compiled(bootstrap, lambda body: {"kind": RIGHT[word(body)]}, display_progress=False)
        assert "BootstrapFewShot" not in terminal.getvalue()

    def test_that_cannot_be_drawn_stops_no_work(self, terminal, monkeypatch):
        monkeypatch.setattr(terminal, "write", lambda text: 1 / 0)
        program, _ = compiled(SEARCH, SCRIPT, display_progress=True)
        assert otpy.outcome_of(program).stopped == "done"

    def test_is_gone_when_the_run_has_failed(self, terminal):
        with pytest.raises(TeleprompterError, match="no example"):
            compiled(
                otpy.BootstrapFewShot(METRIC, max_labeled_demos=0), lambda body: {"kind": "?"}, display_progress=True
            )
        assert "failed" in terminal.getvalue()

    def test_is_asked_for_by_a_truth_value(self):
        with pytest.raises(TeleprompterError, match="display_progress='yes'; allowed: True or False"):
            compiled(SEARCH, SCRIPT, display_progress="yes")


class TestANotebook:
    def test_is_shown_an_output_that_changes(self, monkeypatch):
        notebook = Notebook()
        for name, module in notebook.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        compiled(SEARCH, SCRIPT, display_progress=True)
        assert len(notebook.shown) >= 2
        assert all("BootstrapFewShotWithRandomSearch" in page for page in notebook.shown)
        assert "done" in notebook.shown[-1]

    def test_whose_page_has_gone_stops_no_work(self, monkeypatch):
        notebook = Notebook()
        notebook.display = lambda what, display_id: 1 / 0
        for name, module in notebook.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        program, _ = compiled(SEARCH, SCRIPT, display_progress=True)
        assert otpy.outcome_of(program).stopped == "done"

    def test_shows_a_run_by_its_name(self):
        async def watch(run):
            return run._repr_html_()

        page, outcome, run = started(SCRIPT, watch)
        assert "0 candidates" in page
        assert run._repr_html_() == outcome._repr_html_()


def test_a_line_is_taken_away_when_whoever_shows_it_is_cancelled():
    async def main():
        task = asyncio.ensure_future(shown("X", None, lambda: Status("running", 0, None, 0, 0, 0.0)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(main())
