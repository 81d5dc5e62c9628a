"""One fine-tuning job at a provider, from the upload to the new model: what was begun is known before it is waited for.

Whatever is made at the provider is looked for there before it is made, so that an answer that was lost, or a kill
between the answer and the note of it, makes nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otpy.clients import openai_errors
from otpy.clients.history import SHORTEST_KEY, without
from otpy.errors import LMError, LMResponseInvalid, TeleprompterError
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports
from otpy.training.openai_files import Plan, files_in, id_in, job_in, jobs_in, metrics_in
from otpy.training.trainer import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import SecretStr

    from otpy.clients.transport import Transport
    from otpy.training.openai_files import JobState, Page, Sent
    from otpy.training.trainer import Memory

__all__ = ["Course", "Provider"]

logger = reports("otpy.training")

FIRST_LOOK: Final = 1.0
LONGEST_LOOK: Final = 30.0
"""Seconds between looks at a job, from the first to the longest."""
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds between tries while the provider is out, from the first to the longest."""
TRIES: Final = 4
"""Tries at somebody who has never answered, or whose answers make no sense, until that is an error."""
PAGES: Final = 100
"""Pages of a list that are looked through."""
SLOWEST: Final = 100_000.0
"""Bytes a second that an upload makes at least."""


class Provider:
    """Where requests are sent, and with which key.

    Args:
        base_url: Where the API is.
        transport: Carries them.
        headers: With the key in them; never printed.
        key: The key, to be taken out of whatever is said.
        timeout: Seconds for one request.
        key_source: Where the key came from, in words.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        base_url: str,
        transport: Transport,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        key: SecretStr | None = None,
        timeout: float = 120.0,
        key_source: str = "",
    ) -> None:
        """Know where."""
        self.base_url, self.transport, self.timeout = base_url.rstrip("/"), transport, timeout
        self.key_source = key_source
        self._headers = headers
        self._key = "" if key is None else key.get_secret_value()

    def __repr__(self) -> str:
        """Print it without what is secret."""
        return f"Provider({self.where!r})"

    @property
    def where(self) -> str:
        """Its host, for messages."""
        return urlsplit(self.base_url).netloc

    async def ask(self, sent: Sent) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            LMError: If there is none; without the key in it.
        """
        headers = (("content-type", sent.content_type), *self._headers)
        try:
            if sent.method == "GET":
                status, said, body = await self.transport.get(self.base_url + sent.path, self._headers, self.timeout)
            else:
                timeout = max(self.timeout, len(sent.body) / SLOWEST)
                status, said, body = await self.transport.post(self.base_url + sent.path, headers, sent.body, timeout)
            if status != 200:
                if self._hides:
                    body = body.replace(self._key.encode(), b"***")
                raise openai_errors.classify_error(status, said, body)
        except LMError as error:
            if self._hides and self._key[:SHORTEST_KEY] in f"{error}{error.body}":
                error.args = (without(str(error), (self._key,)),)
                error.body = without(error.body, (self._key,))
            if error.status in {401, 403} and self.key_source:
                error.args = (f"{error}; check {self.key_source}",)
            raise
        return body

    @property
    def _hides(self) -> bool:
        return len(self._key) >= SHORTEST_KEY


class Course:
    """A job's course; run again with the same memory, it goes on with the same file and the same job.

    Args:
        provider: Where.
        plan: What.
        memory: Keeps the file's and the job's id, before anything is waited for.
        told: Called with how far it is.
    """

    def __init__(
        self, provider: Provider, plan: Plan, memory: Memory, told: Callable[[Progress], object] = lambda _: None
    ) -> None:
        """Begin nothing."""
        self.provider, self.plan, self.memory, self.told = provider, plan, memory, told
        self._file_fact, self._job_fact = f"fine-tuning/{plan.key}/file", f"fine-tuning/{plan.key}/job"
        self._answered = False
        self._events = True

    async def run(self) -> str:
        """Return the new model's name.

        Raises:
            TeleprompterError: If the job failed, or was cancelled at the provider; with the provider's words.
            LMError: If the provider cannot be asked, for a reason that does not pass.
        """
        state = await self._begun()
        wait = FIRST_LOOK
        while not state.ended:
            await self._tell(state)
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, LONGEST_LOOK)
            state = job_in(await self._patiently(Plan.job(state.id), job_in))
        if state.status != "succeeded":
            await self._refuse(state)
        assert state.model is not None
        await self._tell(state)
        return state.model

    async def _begun(self) -> JobState:
        """Return the job of this plan: the one that is known, or found, or made now."""
        fact: dict[str, Any] | None = self.memory.get(self._job_fact)
        if fact is not None:
            known = job_in(await self._patiently(Plan.job(fact["id"]), job_in))
            if not fact.get("cancelled"):
                return known
            if known.status not in {"failed", "cancelled"}:  # it was too late, or could not be done
                await self._know(known)
                return known
            await self.memory.put(self._job_fact, None)
        file: str | None = self.memory.get(self._file_fact)
        if file is None:
            self.told(Progress("uploading"))
            file = str(await self._made(self._found_file, self._uploaded))
            await self.memory.put(self._file_fact, file)
        at = file
        try:
            state: JobState = await self._made(self.found, lambda: self._created(at))
        except LMError:
            await self.memory.put(self._file_fact, None)  # it may be the file, which may be gone: look again next time
            raise
        await self._know(state)
        return state

    async def _know(self, state: JobState) -> None:
        await self.memory.put(self._job_fact, {"id": state.id})

    async def _made(self, look: Callable[[], Awaitable[Any]], make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what is there, or make it; what may have been made in vain is looked for before each try."""

        async def once() -> Any:
            found = await look()
            return await make() if found is None else found

        return await self._through(once)

    async def _uploaded(self) -> str:
        return id_in(await self.provider.ask(self.plan.upload()), "a file")

    async def _created(self, file: str) -> JobState:
        return job_in(await self.provider.ask(self.plan.create(file)))

    async def _found_file(self) -> str | None:
        files: list[tuple[str | None, str]] = await self._listed(self.plan.list_files, files_in)
        return next((id_ for name, id_ in files if name == self.plan.file_name), None)

    async def found(self) -> JobState | None:
        """Return this plan's job if the provider has one that has not failed."""
        return self.plan.own_job(tuple(await self._listed(self.plan.list_jobs, jobs_in)))

    async def _listed(self, request: Callable[[str | None], Sent], read: Callable[[bytes], Page]) -> list[Any]:
        items: list[Any] = []
        after: str | None = None
        for _ in range(PAGES):
            page = read(await self.provider.ask(request(after)))
            items += page.items
            after = page.after
            if after is None:
                return items
        raise TeleprompterError(
            f"{self.provider.where} lists more than {len(items)} jobs or files; remove old ones, as it cannot be told"
            " whether this was begun before"
        )

    # -- patience --------------------------------------------------------------------------------------------------

    async def _patiently(self, sent: Sent, read: Callable[[bytes], Any]) -> bytes:
        async def once() -> bytes:
            body = await self.provider.ask(sent)
            read(body)
            return body

        found: bytes = await self._through(once)
        return found

    async def _through(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something, and again while the provider is out, or says: later."""
        wait, odd = FIRST_WAIT, 0
        known = self._answered or self.memory.get(self._file_fact) is not None
        while True:
            try:
                result = await work()
            except LMError as error:
                if isinstance(error, LMResponseInvalid) or (error.status is None and not known):
                    odd += 1
                else:
                    known = known or error.status is not None
                if not error.retryable or odd >= TRIES:
                    raise
                wait = max(wait, error.retry_after or 0.0)
                if telemetry.listening:
                    telemetry.emit("otpy.training.waiting", where=self.provider.where, seconds=wait, error=error)
            else:
                self._answered = True
                return result
            self.told(Progress("waiting"))
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    # -- telling ---------------------------------------------------------------------------------------------------

    async def _tell(self, state: JobState) -> None:
        step, steps, figures = 0, None, dict[str, float]()
        if self._events:
            try:
                step, steps, figures, _ = metrics_in(await self.provider.ask(Plan.events(state.id)))
            except LMError as error:  # they are for show
                self._events = error.retryable
        self.told(Progress(state.status.replace("_", " "), step, steps, figures))

    async def _refuse(self, state: JobState) -> None:
        """Say why there is no model; the same call again is to begin another job."""
        words = state.error
        if not words:
            with contextlib.suppress(LMError):
                words = metrics_in(await self.provider.ask(Plan.events(state.id)))[3]
        await self.memory.put(self._job_fact, None)
        what = "has failed" if state.status == "failed" else "was cancelled at the provider, not by this run"
        raise TeleprompterError(
            f"the fine-tuning job {state.id} at {self.provider.where} {what}: {words or 'it gives no reason'};"
            " the same call again begins another"
        )

    # -- the end that was asked for --------------------------------------------------------------------------------

    async def cancel(self) -> str | None:
        """Ask the provider to end the job, if there is one; returns why that could not be done, if so.

        A job that was just being made, and whose id is not known, is looked for.
        """
        fact: dict[str, Any] | None = self.memory.get(self._job_fact)
        job = None if fact is None else fact["id"]
        try:
            if job is None and self.memory.get(self._file_fact) is not None:
                found = await self.found()
                job = None if found is None else found.id
            if job is None:
                return None
            with contextlib.suppress(TeleprompterError):  # what cannot be written has been told of already
                await self.memory.put(self._job_fact, {"id": job, "cancelled": True})
            await self.provider.ask(Plan.cancel(job))
        except LMError as error:
            state = None
            with contextlib.suppress(LMError):
                state = None if job is None else job_in(await self.provider.ask(Plan.job(job)))
            if state is not None and state.ended:
                return None
            return f"the fine-tuning job {job or 'of this run, if there is one,'} could not be cancelled: {error}"
        return None

    def left(self, why: str) -> None:
        """Say that a job goes on that nobody wants any more.

        Args:
            why: What `cancel` returned.
        """
        logger.error("%s; at %s it may go on, and cost money: cancel it there", why, self.provider.where)
        telemetry.emit("otpy.training.not_cancelled", where=self.provider.where, reason=why)
