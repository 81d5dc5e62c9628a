"""An evaluation that is under way: what has come so far, when it has to stop, and how it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import EvaluationAborted, EvaluationError, NoApplication, NotRegistered
from otpy.evaluate.journal_file import JournalError
from otpy.evaluate.result import EvaluationResult
from otpy.evaluate.row import Failed, Row
from otpy.evaluate.source import Unreadable
from otpy.evaluate.tally import OnFailure, Tally
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from decimal import Decimal

    from otpy.clients.running import Running
    from otpy.evaluate.recorded import Recorded

__all__ = ["Live", "Ongoing", "explained", "told", "too_many", "words"]

LIVE_SECONDS: Final = 0.5
"""Seconds between two events of progress."""
ENOUGH: Final = 100
"""Rows after which a share of failures says something, where nobody knows how many rows there will be."""


@dataclass(frozen=True, slots=True)
class Live:
    """How an evaluation goes.

    Args:
        done: Rows that have ended.
        total: Rows there are; `None` if nobody knows.
        failed: Those of `done` that failed.
        score: The mean so far; `None` before there is one.
        rate: Rows a second, over all of it.
        rows_in_flight: Rows that are under way.
        in_flight: Requests at the providers, of everybody.
        waiting: Requests that wait for their turn, of everybody.
        refused: How often a provider has said 429 since it began.
        money: Dollars spent so far, as far as prices are known.
        seconds: How long it has taken.
        seconds_left: How long the rest takes at this rate; `None` if that is not known.
        money_left: What the rest costs at this price.
    """

    done: int
    total: int | None
    failed: int
    score: float | None
    rate: float
    rows_in_flight: int
    in_flight: int
    waiting: int
    refused: int
    money: Decimal | None
    seconds: float
    seconds_left: float | None
    money_left: Decimal | None


class Ongoing:
    """One run of an evaluation.

    Args:
        run: What the ledger calls it.
        metric: The metric's name.
        total: Rows there are, repeats counted; `None` if nobody knows.
        failure_score: What a failed row counts for.
        on_failure: `"score"`, `"exclude"` or `"raise"`.
        max_failures: A number, or a share below 1; `None` for any.
        keep: `"all"` rows, or those that `"failed"`.
        application: Where it runs.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        *,
        run: str,
        metric: str,
        total: int | None,
        failure_score: float,
        on_failure: str,
        max_failures: float | None,
        keep: str,
        application: Running,
    ) -> None:
        """Begin."""
        self.run, self._metric, self.total = run, metric, total
        self._failure_score, self._on_failure = failure_score, on_failure
        self._max_failures, self._keep = max_failures, keep
        self._application, self._refused = application, application.traffic.refused
        self._began = time.perf_counter()
        self.rows: list[Row] = []
        self.swarm: Any = None
        """What runs the rows, as soon as it does."""
        self.recorded: Recorded | None = None
        """What writes them into the journal, if there is one."""
        self._counted: OnFailure = "exclude" if on_failure == "exclude" else "score"
        self.tally = Tally(failure_score, self._counted)

    def add(self, row: Row) -> None:
        """Take a row's fate in.

        Args:
            row: The fate.
        """
        self.tally.add(row)
        if self._keep == "all" or isinstance(row, Failed):
            self.rows.append(row)
        if telemetry.listening:
            telemetry.emit("otpy.evaluate.row", index=row.index, outcome=row)

    def over(self, row: Row) -> str | None:
        """Return why the evaluation has to stop after this row, if it has to.

        Args:
            row: The last one.
        """
        if not isinstance(row, Failed):
            return None
        what = f"row {row.index}, {row.explanation}"
        if self._on_failure == "raise":
            return f"{what}, failed ({row.where}), and on_failure is 'raise'"
        if too_many(self.tally.failed, len(self.tally), self.total, self._max_failures):
            return f"{self._failures()}; the last: {what}"
        return None

    def over_in_the_end(self) -> str | None:
        """Return why too many rows have failed, now that it is known how many there are, if so."""
        done = len(self.tally)
        return self._failures() if too_many(self.tally.failed, done, done, self._max_failures) else None

    def _failures(self) -> str:
        failed = self.tally.failed
        return f"{failed} row{'s' if failed > 1 else ''} failed, more than max_failures={self._max_failures}"

    def result(self) -> EvaluationResult:
        """Return what there is so far."""
        rows = tuple(sorted(self.rows, key=lambda row: (row.index, row.repeat)))
        total = len(self.tally) if self.total is None else self.total
        return EvaluationResult(
            rows,
            time.perf_counter() - self._began,
            self._failure_score,
            self._metric,
            total,
            self.run,
            self._counted,
            self.tally,
        )

    def aborted(self, why: str) -> EvaluationAborted:
        """Return the error that ends it, with what there is so far.

        Args:
            why: Why.
        """
        result = self.result()
        return EvaluationAborted(f"{why}: {result}", result)

    def live(self) -> Live:
        """Return how it goes."""
        tally, traffic, total = self.tally, self._application.traffic, self.total
        seconds, done = time.perf_counter() - self._began, len(self.tally)
        left = None if total is None or not done else total - done
        money = tally.money
        return Live(
            done,
            total,
            tally.failed,
            tally.running_mean,
            done / seconds if seconds > 0 else 0.0,
            0 if self.swarm is None else self.swarm.under_way,
            traffic.in_flight,
            traffic.waiting,
            traffic.refused - self._refused,
            money,
            seconds,
            None if left is None else seconds * left / done,
            None if left is None or money is None else money * left / done,
        )


def too_many(failed: int, done: int, total: int | None, most: Any) -> bool:
    """Return whether too many rows have failed.

    Args:
        failed: Rows that failed.
        done: Rows that have ended.
        total: Rows there are, if that is known.
        most: How many may fail; below 1 a share of all rows, or of at least 100 that have ended if nobody knows how
            many there will be. `None` for any.

    Example:
        >>> from otpy.evaluate.ongoing import too_many
        >>> too_many(3, 10, 100, 2), too_many(10, 50, 100, 0.1), too_many(11, 50, 100, 0.1), too_many(9, 10, None, 0.1)
        (True, False, True, False)
    """
    if most is None:
        return False
    if isinstance(most, int):
        return failed > most
    if total is None:
        return done >= ENOUGH and failed > most * done
    return bool(failed > most * total)


@contextlib.contextmanager
def explained(ongoing: Ongoing) -> Generator[None]:
    """Say why it ends early, with what is done."""
    try:
        yield
    except (NoApplication, NotRegistered) as error:
        if isinstance(error, NoApplication) and not len(ongoing.tally):
            raise
        raise ongoing.aborted("the application has stopped") from error
    except JournalError as error:
        if not len(ongoing.tally):
            raise
        raise ongoing.aborted(str(error)) from error
    except Unreadable as unreadable:
        cause = unreadable.error
        ours = isinstance(cause, EvaluationError)
        if ours and not len(ongoing.tally):
            raise cause from None
        said = str(cause) if ours else f"{type(cause).__name__}: {cause}"
        raise ongoing.aborted(f"the devset raised {said}") from cause


@contextlib.contextmanager
def told(ongoing: Ongoing, listener: Callable[[Live], object] | None = None) -> Generator[None]:
    """Tell whoever listens how it goes, now and then and at the end; a listener that raises is not called again."""
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()

    def tell() -> None:
        if telemetry.listening:
            telemetry.emit("otpy.evaluate.progress", run=ongoing.run, **asdict(ongoing.live()))

    def again() -> None:
        tell()
        timers[:] = [loop.call_later(LIVE_SECONDS, again)]

    def hear(_: str, fields: dict[str, Any]) -> None:
        if listener is not None and fields["run"] == ongoing.run:
            listener(Live(**{name: value for name, value in fields.items() if name != "run"}))

    listening = telemetry.attached(f"progress of {ongoing.run}", hear, "otpy.evaluate.progress")
    with contextlib.nullcontext() if listener is None else listening:
        timers.append(loop.call_later(LIVE_SECONDS, again))
        try:
            yield
        finally:
            timers[0].cancel()
            tell()


def words(ongoing: Ongoing) -> str:
    """What a progress bar says beside the score."""
    live = ongoing.live()
    money = "" if not live.money else f", ${live.money:.4f}"
    refused = f", {live.refused} × 429" if live.refused else ""  # noqa: RUF001 - a multiplication sign
    return f", {live.rows_in_flight} rows and {live.in_flight} requests in flight{refused}{money}"
