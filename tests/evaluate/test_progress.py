"""Progress is seen in a terminal, silent elsewhere, and never in the way of the work."""

from __future__ import annotations

import pytest

from otpy.clock import ManualClock
from otpy.evaluate.progress import Progress


@pytest.fixture
def terminal(monkeypatch):
    """Make rich take standard error for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def work(progress, clock=None):
    with progress:
        for score in (1.0, 0.0, 1.0):
            progress.scored(score)
        if clock is not None:
            clock.advance(2.0)
        progress.fail()


def test_a_terminal_shows_how_many_the_score_the_rate_and_the_failures(terminal, capfd):
    clock = ManualClock()
    work(Progress(4, "evaluating", clock=clock), clock)
    shown = capfd.readouterr().err
    for words in ("evaluating", "4/4", "50.0 %", "2.0/s", "1 failed"):
        assert words in shown


def test_a_pipe_shows_nothing(monkeypatch, capfd):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    work(Progress(4, "evaluating"))
    assert capfd.readouterr() == ("", "")


def test_nothing_is_shown_unless_wanted(terminal, capfd):
    work(Progress(4, "evaluating", shown=False))
    assert capfd.readouterr() == ("", "")


def test_a_second_bar_at_the_same_time_does_not_stop_the_work(terminal, capfd):
    with Progress(1, "outer") as outer:
        inner = Progress(4, "inner")
        work(inner)
        outer.scored(1.0)
    assert (inner.done, inner.failed, outer.done) == (4, 1, 1)


def test_a_terminal_that_has_gone_does_not_stop_the_work(terminal, monkeypatch):
    class Gone:
        def write(self, _):
            raise BrokenPipeError

        flush = isatty = fileno = lambda self: True

    monkeypatch.setattr("sys.stderr", Gone())
    progress = Progress(4, "evaluating")
    work(progress)
    assert progress.done == 4


def test_an_error_in_the_work_passes_through(terminal, capfd):
    with pytest.raises(KeyError), Progress(4, "evaluating"):
        raise KeyError
