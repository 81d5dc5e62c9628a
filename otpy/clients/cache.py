"""`Cache`: the process that remembers answers, in memory and on disk.

Memory is read without asking (`peek`). The disk is touched only in a thread: look-ups that arrive together are one
query, writes are gathered for a moment. A disk that fails costs the disk, never an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Caller, Cast, GenServer, NoReply, whereis
from otpy.clients.cache_store import namespace_of
from otpy.config.manager import SettingsChanged, Subscribe
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import Reason
    from otpy.clients.cache_store import CacheStore
    from otpy.config.settings import Settings
    from otpy.lm import LMResponse

__all__ = ["Cache", "CacheGet", "CachePut", "CacheStats", "ClearCache"]


@dataclass(frozen=True, slots=True)
class CacheGet(Call["LMResponse | None"]):
    """Look an answer up, in memory and on disk."""

    key: str


@dataclass(frozen=True, slots=True)
class CachePut(Cast):
    """Remember an answer."""

    key: str
    response: LMResponse


@dataclass(frozen=True, slots=True)
class CacheStats(Call[dict[str, Any]]):
    """Ask for counts and sizes."""


@dataclass(frozen=True, slots=True)
class ClearCache(Call[int]):
    """Forget answers; the answer is how many were forgotten.

    Args:
        namespace: Only those of this one; `None` for all.
    """

    namespace: str | None = None


class Cache(GenServer):
    """The cache's process.

    Args (of `child_spec`):
        store: The memory and the file; it outlives this process, so a crash forgets nothing.
    """

    trap_exit = True

    async def init(self, store: CacheStore) -> None:
        """Take over the store."""
        self.store = store
        self.wanted: dict[str, list[Caller]] = {}
        self.unwritten: dict[str, LMResponse] = {}
        self.flushing: asyncio.Task[None] | None = None
        self.reported: str | None = None
        manager = whereis("config")
        if manager is not None:
            self._tune(await manager.call(Subscribe(self.ref)))

    def _tune(self, settings: Settings) -> None:
        cache = settings.cache
        self.store.retune(
            max_memory_entries=cache.max_memory_entries,
            max_bytes=cache.max_bytes,
            ttl=cache.ttl,
            namespace=cache.namespace,
        )

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `CacheGet`, `CacheStats` and `ClearCache`."""
        match request:
            case CacheGet(key):
                found = self.store.memory_get(key)
                if found is not None or not self.store.has_disk:
                    return found
                self.wanted.setdefault(key, []).append(caller)
                self._flush_soon()
                return NoReply()
            case CacheStats():
                return self._in_thread(self.store.stats)
            case ClearCache(namespace):
                for key in [key for key in self.unwritten if namespace is None or namespace_of(key) == namespace]:
                    del self.unwritten[key]
                return self._in_thread(lambda: self.store.clear(namespace))
            case _:
                return super().handle_call(request, caller)

    async def _in_thread(self, function: Any) -> Any:
        await self._flushed()
        result = await asyncio.to_thread(function)
        self._report()
        return result

    def _report(self) -> None:
        """Say what is wrong with the file, once."""
        warning = self.store.warning
        if warning is not None and warning != self.reported:
            telemetry.emit("otpy.cache.degraded", path=str(self.store.place), error=warning)
        self.reported = warning

    def handle_cast(self, message: Any) -> Any:
        """Remember answers, do what has gathered, and follow changed settings."""
        match message:
            case CachePut(key, response):
                self.store.memory_put(key, response)
                if self.store.has_disk:
                    self.unwritten[key] = response
                    self._flush_soon()
                return None
            case SettingsChanged(settings):
                self._tune(settings)
                return None
            case _:
                return super().handle_cast(message)

    def _flush_soon(self) -> None:
        """See to it in a task of its own: a file that somebody else holds must not hold up what is in memory."""
        if self.flushing is None:
            self.flushing = self.process.loop.create_task(self._flush())

    async def _flushed(self) -> None:
        while self.wanted or self.unwritten or self.flushing is not None:
            self._flush_soon()
            assert self.flushing is not None
            await asyncio.wait({self.flushing})

    async def _flush(self) -> None:
        """Look up and write what gathers, each time in one trip to the thread."""
        try:
            while self.wanted or self.unwritten:
                await asyncio.sleep(0)  # whatever else comes in this turn goes along
                wanted, self.wanted = self.wanted, {}
                unwritten, self.unwritten = self.unwritten, {}
                found: dict[str, LMResponse] = {}
                try:
                    found = await asyncio.to_thread(self._on_disk, list(wanted), unwritten)
                except Exception as error:  # noqa: BLE001 - whatever it is, it costs the disk and no answer
                    telemetry.emit("otpy.cache.degraded", path=str(self.store.place), error=str(error))
                finally:
                    for key, callers in wanted.items():
                        for caller in callers:
                            caller.reply(found.get(key))
                self._report()
        finally:
            self.flushing = None

    def _on_disk(self, keys: list[str], answers: dict[str, LMResponse]) -> dict[str, LMResponse]:
        if answers:
            self.store.disk_put_many(answers)
        return self.store.disk_get_many(keys) if keys else {}

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Write what has not been written."""
        await self._flushed()
        await asyncio.to_thread(self.store.close)

    def status(self) -> str:
        """Say how much is remembered in memory."""
        return f"{len(self.store)} in memory"
