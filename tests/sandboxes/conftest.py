"""Engines that are there, and a loop in a thread on which their pools live."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from otpy.actors import Names, Node, names_context
from otpy.sandboxes import Bubblewrap, Limits, Monty, Pyodide, Sandbox, SandboxNotAvailable, pool
from otpy.supervisors import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(seconds=1.5, memory=128 * 2**20, output=10_000)


class Place:
    """A pool of one engine, and what is done there."""

    def __init__(self, node: Node, engine: Any) -> None:
        self.node, self.engine, self.names = node, engine, Names()
        self.node.run(self._start())

    async def _start(self) -> None:
        token = names_context.set(self.names)
        try:
            self.tree = await Supervisor.start([pool(self.engine)])
        finally:
            names_context.reset(token)
        self.desk: Any = self.names.get(("sandboxes", self.engine))

    def sandbox(self, **options: Any) -> Sandbox:
        return Sandbox(self.desk, **options)

    def run(self, *codes: str, **options: Any) -> list[Any]:
        """Run codes one after the other in a session of their own."""

        async def there() -> list[Any]:
            async with self.sandbox(**options) as sandbox:
                return [await sandbox.run(code) for code in codes]

        return self.node.run(there())


@contextlib.contextmanager
def placed(engine: Any) -> Iterator[Place]:
    try:
        engine.check()
    except SandboxNotAvailable as error:
        pytest.skip(str(error))
    node = Node("sandboxes").start()
    try:
        place = Place(node, engine)
        yield place
        node.run(_stop(place))
    finally:
        node.stop()


async def _stop(place: Place) -> None:
    await place.tree.stop()


QUICK = [Monty(limits=LIMITS), Bubblewrap(limits=LIMITS)]
SLOW = Pyodide(limits=LIMITS)


def called(engine: Any) -> str:
    return engine.name


@pytest.fixture(scope="module", params=QUICK, ids=called)
def quick(request) -> Iterator[Place]:
    """Each engine whose interpreters start in no time, for all tests."""
    with placed(request.param) as place:
        yield place


@pytest.fixture
def slow() -> Iterator[Place]:
    """The engine whose interpreters take seconds to start, for one test: none of them is left running behind it."""
    with placed(SLOW) as place:
        yield place


@pytest.fixture(params=[*QUICK, SLOW], ids=called)
def place(request) -> Iterator[Place]:
    """Each engine in turn, for one test."""
    with placed(request.param) as place:
        yield place


@pytest.fixture
def placing() -> Any:
    """Make a place for an engine with settings of a test's own."""
    return placed
