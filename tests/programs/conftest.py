"""An application that is nothing but a loop and a script: programs cannot tell the difference."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import threading
from contextvars import copy_context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from otpy.clients.running import entered
from otpy.lm import LMResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otpy.lm import LMRequest


def answered(text: Any, finish_reason: str = "stop") -> LMResponse:
    said = text if isinstance(text, str) else json.dumps(text)
    return LMResponse(said, usage=Usage(10, 2, requests=1), finish_reason=finish_reason)


@dataclass
class Scripted:
    """Answers by a function of the request; its loop runs in a thread of its own, or is the one it is entered on."""

    answer: Callable[[LMRequest], Any]
    name: str = "scripted"
    threads: int = 4
    asked: list[tuple[str, LMRequest]] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    used: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(self.threads)

    async def ask(self, client: str, request: LMRequest, sink: object = None) -> LMResponse:
        question = self._ask(client, request)
        if self.loop is None or asyncio.get_running_loop() is self.loop:
            return await question
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self.loop))

    async def _ask(self, client: str, request: LMRequest) -> LMResponse:
        self.asked.append((client, request))
        await asyncio.sleep(0)
        said = self.answer(request)
        if isinstance(said, BaseException):
            raise said
        return said if isinstance(said, LMResponse) else answered(said)

    def run(self, coroutine: Any) -> Any:
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        def noted() -> Any:
            self.used.add(threading.get_ident())
            return function()

        call = functools.partial(copy_context().run, noted)
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)

    def on_loop(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop() is self.loop
        return False

    @contextlib.contextmanager
    def here(self) -> Iterator[Scripted]:
        """Be the application of the loop that runs here."""
        self.loop = asyncio.get_running_loop()
        with entered(self):  # type: ignore[arg-type]
            yield self
        self.pool.shutdown()


@contextlib.contextmanager
def started(answer: Callable[[LMRequest], Any], **options: Any) -> Iterator[Scripted]:
    """Run an application in a thread, for synchronous code."""
    application = Scripted(answer, **options)
    application.loop = loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with entered(application):  # type: ignore[arg-type]
            yield application
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        application.pool.shutdown()


def the_schema(request: LMRequest) -> dict[str, Any]:
    assert request.schema is not None
    return request.schema.schema.value


def echo(request: LMRequest) -> dict[str, Any]:
    """Fill every output with the end of the question."""
    said = request.messages[-1].content.rpartition(": ")[2]
    return dict.fromkeys(the_schema(request)["properties"], said)


@pytest.fixture
def play() -> SimpleNamespace:
    """What tests of programs are written with; a conftest cannot be imported."""
    return SimpleNamespace(started=started, Scripted=Scripted, answered=answered, echo=echo)
