"""`Application`: the root of the tree, and what programs find when they look for somebody to ask.

```
Application        rest_for_one: children in order of need
├─ isolation       worker processes of evaluations, and sandboxes; first, so that no restart of the others is theirs
├─ config          the one frozen Settings, and who wants to hear of changes
├─ cache           memory and SQLite
├─ clients         one subtree a client
├─ tasks           one temporary task per example
├─ teleprompters   one process per optimization
└─ recorder        what is recorded and replayed, if anything is; last, since its crash is nobody else's
```
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.actors import SHUTDOWN, Names, Node, names_context
from otpy.application.closing import Closing
from otpy.application.coming_up import caps_of, innermost
from otpy.application.embedding import Embedding
from otpy.application.growing import Growing
from otpy.application.keeping import Keeping
from otpy.application.looking import Looking
from otpy.application.threads import Threads
from otpy.clients import asking
from otpy.clients.book import Book
from otpy.clients.cache import Cache
from otpy.clients.cache_store import CacheStore
from otpy.clients.embeddings import told
from otpy.clients.history import History
from otpy.clients.ledger import Ledger
from otpy.clients.recorder import Recorder
from otpy.clients.routed import Routers
from otpy.clients.running import entered
from otpy.clients.streaming import Sink
from otpy.clients.tape import Recording
from otpy.clients.traffic import Traffic
from otpy.clients.tree import client_tree, clients_tree
from otpy.config.manager import Change, ConfigManager, SettingsBox
from otpy.errors import ActorDown, NoApplication, ProgramError, StartFailed
from otpy.supervisors import (
    REST_FOR_ONE,
    DynamicSupervisor,
    DynamicSupervisorRef,
    Supervisor,
    SupervisorRef,
    TaskSupervisor,
    TaskSupervisorRef,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from otpy.config.settings import Settings
    from otpy.lm import LMRequest, LMResponse, StreamEvent
    from otpy.supervisors import Branch

__all__ = ["Application"]

T = TypeVar("T")

WORKER_THREADS: Final = 256
"""Threads for programs whose `forward` is synchronous; each waits for a model most of its time."""


class Application(Looking, Embedding, Growing):
    """A running supervision tree: made by `otpy.start`, entered by `with` or `async with`.

    Under `with`, the tree runs on an event loop in a thread of its own, so that programs can be called from synchronous
    code. Under `async with` it runs on the caller's loop.

    Args:
        settings: Everything that can be set.
        name: For messages and the printed tree.
    """

    def __init__(self, settings: Settings, name: str = "otpy") -> None:
        """Prepare; entering starts it."""
        self.name = name
        self._box = SettingsBox(settings)
        self._names = Names()
        self._root: SupervisorRef | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._node: Node | None = None
        self._threads = Threads(WORKER_THREADS, f"{name}-program")
        self._entered: AbstractContextManager[None] | None = None
        self._history = History(settings.history)
        self._routers = Routers()
        self._traffic = Traffic()
        self._client = None

    # -- start and stop --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start the tree on a loop of its own; from here on, programs find it."""
        self._prepare()
        self._node = Node(self.name).start()
        try:
            self._node.run(self._start())
        except BaseException:
            self._node.stop()
            self._close_threads()
            raise
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the tree in reverse order, within its children's deadlines."""
        assert self._node is not None
        closing = Closing(self._node)
        try:
            with closing:
                self._leave()
                self._node.run(self._stop())
        finally:
            self._node.stop(wait=closing.answered)  # else Ctrl-C has ended the wait for whoever blocks the loop
            self._close_threads()

    async def __aenter__(self) -> Self:
        """Start the tree on the running loop; from here on, programs find it."""
        self._prepare()
        try:
            await self._start()
        except BaseException:
            self._close_threads()
            raise
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the tree in reverse order, within its children's deadlines."""
        try:
            self._leave()
        finally:
            await self._stop()
            self._close_threads()

    def _prepare(self) -> None:
        if self._root is not None:
            raise ProgramError(f"application {self.name!r} has been started already; make a new one")
        self._threads = Threads(WORKER_THREADS, f"{self.name}-program")

    def _enter(self) -> None:
        self._entered = entered(self)
        self._entered.__enter__()

    def _leave(self) -> None:
        if self._entered is not None:
            self._entered.__exit__(None, None, None)
            self._entered = None

    def _close_threads(self) -> None:
        self._threads.close()

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = self._box.current
        self._book = Book(caps_of(settings))
        self._keeping = Keeping(self._history, self._box, self.book)
        children = [
            DynamicSupervisor.child_spec(id="isolation", name="isolation"),
            ConfigManager.child_spec(self._box, id="config", name="config"),
        ]
        store = None
        if settings.cache.enabled:
            store = CacheStore(settings.cache.resolved_path(), max_memory_entries=settings.cache.max_memory_entries)
            children.append(Cache.child_spec(store, id="cache", name="cache"))
        children.append(Ledger.child_spec(self.book, id="ledger", name="ledger"))
        if settings.recording.path is None or settings.recording.mode != "replay":  # else nobody is ever asked
            children.append(clients_tree(self._box, store, self.book, self._traffic))
            self._client = lambda name: client_tree(name, self._box, store, self.book, self._traffic)
        children += [
            TaskSupervisor.child_spec(id="tasks", name="tasks"),
            DynamicSupervisor.child_spec(id="teleprompters", name="teleprompters"),
        ]
        if settings.recording.path is not None:
            recording = await asyncio.to_thread(Recording, settings.recording.path, settings.recording.mode)
            children.append(Recorder.child_spec(recording, id="recorder", name="recorder"))
        token = names_context.set(self._names)
        try:
            with entered(self):
                root = await Supervisor.start(children, strategy=REST_FOR_ONE, name=self.name)
            self._root = root
            root.process.when_down(lambda _: self._names.close())
        except StartFailed as failed:
            raise innermost(failed) from failed
        finally:
            names_context.reset(token)

    async def _stop(self) -> None:
        if self._root is not None and self._root.is_alive():
            await self._root.stop(SHUTDOWN)

    def activate(self) -> AbstractContextManager[None]:
        """Make programs called in the block use this application, in a thread that belongs to none."""
        return entered(self)

    # -- what programs need of it ----------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self._box.current

    @property
    def names(self) -> Names:
        """The names of the application's processes."""
        return self._names

    @property
    def traffic(self) -> Traffic:
        """What goes through the clients at this moment."""
        return self._traffic

    @property
    def book(self) -> Book:
        """What was asked and what it took; to be read on the application's loop, `spent` is for everywhere."""
        return self._book

    @property
    def stopping(self) -> bool:
        """Whether its tree is being taken down, or is: what then ends has not failed by itself."""
        root: Any = None if self._root is None else self._root.process
        return root is None or not root.alive or root.stopping is not None

    @property
    def tasks(self) -> TaskSupervisorRef:
        """The supervisor of one-example tasks."""
        return self._child("tasks")  # type: ignore[no-any-return]

    @property
    def teleprompters(self) -> DynamicSupervisorRef:
        """The supervisor of optimizations."""
        return self._child("teleprompters")  # type: ignore[no-any-return]

    def _child(self, name: str) -> Any:
        if self._root is None or not self._root.is_alive():
            raise NoApplication(f"application {self.name!r} is not running")
        return self._names.get(name)

    async def stream(self, request: LMRequest, *, client: str = "default") -> AsyncGenerator[StreamEvent]:
        """Ask a model and yield its answer while it is being written, on any event loop.

        The last event is a `StreamEnd` with the whole answer, and there always is one; an answer from the cache is that
        alone. Leaving the iteration early closes the connection to the provider.

        Args:
            request: What to ask.
            client: Which client.

        Raises:
            ClientError: As for any request; a stream that was cut raises behind the events that there were, and is not
                tried again once there has been one.

        Example:
            >>> import asyncio, otpy
            >>> from otpy.lm import LMRequest, Message, TextDelta
            >>> from otpy.testing import FakeProvider
            >>> async def main(url):
            ...     async with otpy.start(lm="openai/fake", base_url=url, api_key="none", cache=False) as app:
            ...         async for event in app.stream(LMRequest((Message("user", "hi"),))):
            ...             if isinstance(event, TextDelta):
            ...                 print(event.text, end="|")
            >>> with FakeProvider("Good day to you") as fake:
            ...     asyncio.run(main(fake.url("openai_chat")))
            Good |day |to |you|
        """
        async with contextlib.aclosing(Sink().read(lambda sink: self.ask(client, request, sink))) as events:
            async for event in events:
                yield event

    async def ask(self, client: str, request: LMRequest, sink: Sink | None = None) -> LMResponse:
        """Send a request through the client process of this name; errors as in `otpy.clients.asking.ask`."""
        if self._root is None or not self._root.is_alive():
            reason = None if self._root is None else self._root.exit_reason
            raise ActorDown(f"application {self.name!r}", reason)
        if asyncio.get_running_loop() is not self._loop:
            assert self._loop is not None
            question = self.ask(client, request, sink)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._loop))
        began = self._keeping.begin()
        response, problem = None, None
        try:
            response = await asking.ask(self._names, self._box, client, request, sink=sink, routers=self._routers)
        except Exception as error:
            problem = error
            raise
        else:
            return response
        finally:
            if response is not None or problem is not None:
                self._keeping.end(client, request, told(request, response), problem, began)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop and wait for it, from another thread.

        Raises:
            ProgramError: On the loop's own thread; `await` there.
        """
        if self.on_loop():
            coroutine.close()
            raise ProgramError(
                "this would wait for itself: on an event loop use the asynchronous form, `await program.acall(...)`,"
                " `evaluate.acall`, `teleprompter.acompile`, `app.achange`, `app.aclient_status`, `app.acache_stats`"
            )
        if self._root is None or not self._root.is_alive():
            coroutine.close()
            raise NoApplication(f"application {self.name!r} is not running; use it inside its `with` block")
        if self._node is not None:
            return self._node.run(coroutine)
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a blocking function in a worker thread, with the caller's context."""
        return await self._threads.run(function)

    def on_loop(self) -> bool:
        """Whether the calling thread runs the application's loop."""
        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop() is self._loop
        return False

    # -- looking in ------------------------------------------------------------------------------------------------

    def tree(self) -> Branch:
        """Return the supervision tree as data."""
        if self._root is None:
            raise NoApplication(f"application {self.name!r} has not been started")
        return self._root.tree()

    def render(self) -> str:
        """Return the supervision tree as text."""
        if self._root is None:
            return f"{self.name}  not started"
        return self._root.render()

    def _call(self, name: object, request: Any) -> Any:
        async def ask() -> Any:
            return await self._names.get(name).call(request, None)

        return ask()

    async def _here(self, function: Callable[[], T]) -> T:
        """Call a function on the application's loop, where its state is safe to read."""
        if self.on_loop():
            return function()
        if self._loop is None or self._root is None or not self._root.is_alive():
            raise NoApplication(f"application {self.name!r} is not running")

        async def there() -> T:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._loop))

    async def achange(self, **changes: Any) -> Settings:
        """Change settings while running, as `change` does, in async code."""
        nested = {path.replace("__", "."): value for path, value in changes.items()}
        return await self._call("config", Change(nested))  # type: ignore[no-any-return]

    def change(self, **changes: Any) -> Settings:
        """Change settings while running: validated whole, then swapped, and subscribers are told.

        Args:
            changes: Paths and values; in keyword form `__` stands for the dot, as in
                `app.change(clients__default__temperature=0.7)`.

        Raises:
            ConfigError: If the result would not hold together; nothing has changed then.
        """
        return self.run(self.achange(**changes))

    def __repr__(self) -> str:
        """Name it and say whether it runs."""
        state = "running" if self._root is not None and self._root.is_alive() else "not running"
        return f"<Application {self.name!r}, {state}>"

    def _repr_html_(self) -> str:
        """Show the tree in a notebook."""
        import html  # noqa: PLC0415 - only notebooks need it

        return f"<pre>{html.escape(self.render())}</pre>"
