"""Which application a program talks to: found by context, never by accident.

A running application puts itself into a context variable, which tasks, supervised processes and our own worker threads
inherit. A thread made by somebody else inherits nothing: there, the only application running in this OS process is
taken, and if there are several the caller must say which. So two applications in one process never mix.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from otpy.errors import NoApplication

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otpy.actors import Names
    from otpy.clients.book import Book
    from otpy.clients.streaming import Sink
    from otpy.clients.traffic import Traffic
    from otpy.config.client_settings import ClientSettings
    from otpy.config.settings import Settings
    from otpy.lm import LMRequest, LMResponse
    from otpy.supervisors import DynamicSupervisorRef, TaskSupervisorRef

__all__ = ["Running", "entered", "running"]

T = TypeVar("T")


class Running(Protocol):
    """What programs, evaluations and teleprompters need of the application they run in."""

    @property
    def name(self) -> str:
        """The application's name, for messages."""
        ...

    @property
    def tasks(self) -> TaskSupervisorRef:
        """The supervisor of one-example tasks."""
        ...

    @property
    def names(self) -> Names:
        """The names of the application's processes."""
        ...

    @property
    def teleprompters(self) -> DynamicSupervisorRef:
        """The supervisor of optimizations."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What goes through its clients at this moment."""
        ...

    @property
    def book(self) -> Book:
        """What was asked and what it took."""
        ...

    @property
    def settings(self) -> Settings:
        """Its settings at this moment."""
        ...

    async def ask(self, client: str, request: LMRequest, sink: Sink | None = None) -> LMResponse:
        """Send a request through the client process of this name, on the application's loop or any other.

        Args:
            client: The name.
            request: The request.
            sink: Where the pieces of the answer go as they come; it is not used if the answer comes whole.
        """
        ...

    async def aadd_client(self, name: str, **settings: Any) -> ClientSettings:
        """Take in a further client, on the application's loop; one that is there already is no error.

        Args:
            name: What programs call it.
            settings: What it is.
        """
        ...

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it, from a thread that is not the loop's."""
        ...

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a blocking function in a worker thread of the application, with the caller's context."""
        ...

    def on_loop(self) -> bool:
        """Whether the calling thread is the one that runs the application's loop."""
        ...


_current: ContextVar[Running | None] = ContextVar("otpy_application", default=None)
_all: list[Running] = []


def running() -> Running:
    """Return the application that the calling code runs in.

    Raises:
        NoApplication: If none is running, or several are and the context does not say which.
    """
    found = _current.get()
    if found is not None:
        for application in _all:
            if application is found:
                return found
    there = list({id(application): application for application in _all}.values())
    if len(there) == 1:
        return there[0]
    if not there:
        if found is not None:
            raise NoApplication(
                f"application {found.name!r} has stopped, and what runs in it ends with it; to go on, start one:"
                ' `with otpy.start(lm="local/smollm2-135m"): program(...)`'
            )
        raise NoApplication
    names = ", ".join(repr(application.name) for application in there)
    raise NoApplication(
        f"{len(there)} applications are running ({names}) and this thread belongs to none of them;"
        " call the program inside `with app.activate():`"
    )


@contextlib.contextmanager
def entered(application: Running) -> Generator[None]:
    """Make `application` the one that `running()` finds inside the block.

    Args:
        application: The application; it is also offered to threads without a context while the block lasts.
    """
    token = _current.set(application)
    _all.append(application)
    try:
        yield
    finally:
        _all.remove(application)
        with contextlib.suppress(ValueError):  # left in another context than it was entered in, as fixtures do
            _current.reset(token)
