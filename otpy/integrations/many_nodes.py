"""`ManyNodes`: an evaluation whose rows the nodes of a fleet work on; everything else is done as at home."""

from __future__ import annotations

import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from otpy.clients.running import running
from otpy.errors import EvaluationError
from otpy.evaluate.distributed import Afar
from otpy.evaluate.evaluate import Evaluate
from otpy.evaluate.nodes import Fleet, Home
from otpy.evaluate.source import Source
from otpy.integrations.node_tree import Job
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from otpy.application.app import Application
    from otpy.evaluate.journal import Journal
    from otpy.evaluate.ongoing import Ongoing
    from otpy.evaluate.row import Row
    from otpy.evaluate.rows import Apart
    from otpy.programs import Program

__all__ = ["Hands", "ManyNodes"]


class Hands(Fleet, Protocol):
    """A fleet that can be told what to do."""

    def work_on(self, job: Job) -> None:
        """Say what the nodes have to do."""
        ...


class ManyNodes(Evaluate):
    """`Evaluate` on many nodes; the application that runs here has the settings, the budget and the ledger.

    Args:
        fleet: The nodes.
        losses: How often a row may be lost with its node; then it has failed.
        patience: Seconds without any node after which it is given up.
        arguments: As of `Evaluate`; `max_concurrency` is each node's.
    """

    fleet: Hands
    losses: int
    patience: float

    def __init__(
        self,
        *arguments: Any,
        fleet: Hands,
        losses: int = 3,
        patience: float = 60.0,
        **options: Any,
    ) -> None:
        """Check everything."""
        super().__init__(*arguments, **options)
        if not isinstance(losses, int) or losses < 1:
            raise EvaluationError(f"losses={losses!r}; allowed: an integer >= 1")
        vars(self).update(fleet=fleet, losses=losses, patience=patience)

    def apart(self, program: Program) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - whose programs run elsewhere
        """Return nothing: rows are evaluated on the nodes, and apart there."""
        return contextlib.nullcontext()

    def _swarm(
        self,
        rows: Any,
        program: Program,
        ongoing: Ongoing,
        apart: Apart | None,  # noqa: ARG002 - the same
        journal: Journal | None,
    ) -> Any:
        application: Application = running()  # type: ignore[assignment]
        settings = application.settings
        if settings.recording.path is not None:
            raise EvaluationError("what many nodes ask cannot be recorded or replayed in one file; leave recording out")
        row = Evaluate(
            [Example()],
            metric=self.metric,
            max_concurrency=self.max_concurrency,
            timeout=self.timeout,
            isolation=self.isolation,
            workers=self.workers,
        )
        self.fleet.work_on(Job(program, row, ongoing.run, settings))
        home = Home(lambda: application.settings, application.book, application.traffic)
        items = Source(rows, program, self.n_runs, journal)
        return _Told(ongoing, items, self.fleet, home, losses=self.losses, patience=self.patience)


class _Told(Afar):
    """Rows on many nodes, of which their evaluation is told why it ends early."""

    def __init__(self, ongoing: Ongoing, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ongoing = ongoing

    async def __call__(self) -> AsyncGenerator[Row]:
        try:
            async with aclosing(super().__call__()) as ends:
                async for row in ends:
                    yield row
        except EvaluationError as error:
            if not len(self._ongoing.tally):
                raise
            raise self._ongoing.aborted(str(error)) from error

    def look_again(self) -> None:
        """Nothing: how many rows a node takes is its own matter."""
