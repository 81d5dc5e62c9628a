"""What a worker does: one attempt at one request, encode, send, decode, answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otpy.clients.dialects import codec
from otpy.clients.embeddings import codec_for
from otpy.clients.history import SHORTEST_KEY, without
from otpy.clients.profiles import PROFILES
from otpy.clients.transport import never_sent
from otpy.errors import LMAuthError, LMError, LMResponseInvalid, LMTimeout
from otpy.lm import StreamEnd
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pydantic import SecretStr

    from otpy.actors import Ref
    from otpy.clients.codec import Codec, Headers, Profile
    from otpy.clients.flights import Flight
    from otpy.clients.streaming import Sink
    from otpy.clients.transport import Transport
    from otpy.config.settings import ClientSettings
    from otpy.lm import LMRequest, LMResponse

__all__ = ["Deployment", "Job", "send"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where and how a client's requests are sent.

    Args:
        client: The client's name.
        model: The model's name, as the provider knows it.
        base_url: Where the API is.
        headers: With the key in them: never print this.
        key: The key, if there is one.
        timeout: Seconds for one attempt.
        temperature: For requests that say none.
        max_tokens: For requests that say none.
        profile: The server's habits.
        codec: Its dialect.
        key_source: Where the key came from, in words.
    """

    client: str
    model: str
    base_url: str
    headers: tuple[tuple[str, str], ...]
    key: SecretStr | None
    timeout: float
    temperature: float | None
    max_tokens: int | None
    profile: Profile
    codec: Codec
    key_source: str

    def __repr__(self) -> str:
        """Print it without the headers."""
        return f"Deployment({self.client!r}, {self.model!r}, {self.base_url!r})"

    @classmethod
    def of(cls, client: str, settings: ClientSettings, base_url: str, key: SecretStr | None) -> Deployment:
        """Read it from a client's settings.

        Args:
            client: The client's name.
            settings: Its settings.
            base_url: Where the API is; for a local model, where its server came up.
            key: The key, if it has one.
        """
        profile = PROFILES[settings.effective_profile]
        dialect = codec(profile.dialect)
        keys = () if key is None else dialect.key_headers(key.get_secret_value(), profile)
        return cls(
            client,
            settings.model_name,
            base_url.rstrip("/"),
            (("content-type", "application/json"), *keys),
            key,
            settings.timeout,
            settings.effective_temperature if profile.sampling else None,
            settings.effective_max_tokens or profile.most_tokens,
            profile,
            dialect,
            settings.key_source,
        )

    def filled(self, request: LMRequest, longest: int | None = None) -> LMRequest:
        """Return the request with what the client adds to those that do not say it.

        Args:
            request: What is asked.
            longest: Tokens an answer may have if neither the request nor the settings bound it.
        """
        temperature = self.temperature if request.temperature is None else request.temperature
        max_tokens = (self.max_tokens or longest) if request.max_tokens is None else request.max_tokens
        schema = request.schema
        if schema is not None and schema.optional and not self.profile.schema:
            schema = None
        if (temperature, max_tokens, schema) == (request.temperature, request.max_tokens, request.schema):
            return request
        return replace(request, temperature=temperature, max_tokens=max_tokens, schema=schema)


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs."""

    client: Ref[Any]
    deployment: Deployment
    transport: Transport
    flight: Flight


def send(job: Job) -> Coroutine[Any, Any, object]:
    """Send a request once; answer its callers, or leave the error to the client."""
    return _measured(job) if telemetry.listening else _attempt(job)


async def _measured(job: Job) -> None:
    where = job.deployment
    with telemetry.span(
        "otpy.client.request", client=where.client, model=where.model, attempt=job.flight.attempt
    ) as measured:
        outcome = await _attempt(job)
        measured.update({"error": outcome} if isinstance(outcome, LMError) else {"usage": outcome.usage})


async def _attempt(job: Job) -> LMResponse | LMError:
    where, flight = job.deployment, job.flight
    try:
        if flight.sink is None:
            response = _read(job, *await job.transport.post(*_encoded(job, stream=False)))
        else:
            response = await _stream(job, flight.sink)
    except LMError as error:
        _scrub(error, where.key)
        if isinstance(error, LMAuthError):
            error.args = (f"{error}; check {where.key_source}",)
        if error.status in {404, 405}:
            error.args = (f"{error} (asked: {where.base_url}, model {flight.filled.model or where.model!r})",)
        error.client, error.model = where.client, where.model
        flight.outcome = error
        if error.status in {None, 200} and not never_sent(error):  # it may have been answered, and the answer lost
            flight.charge.lost()
        else:
            flight.charge.refused()
        for caller in flight.callers:
            if error.retryable or job.client.is_alive():
                caller.delegate(job.client)  # it decides; if it has died, the caller asks the one that follows it
            else:
                caller.fail(error)
        return error
    flight.outcome = response
    flight.charge.answered(response.usage)
    answer, several = response, len(flight.callers) > 1
    for caller in flight.callers:
        first = several and caller.waiting
        caller.reply(answer)
        if first:
            answer = replace(response, cached=True)  # the others pay nothing
    return response


def _encoded(job: Job, *, stream: bool) -> tuple[str, tuple[tuple[str, str], ...], bytes, float]:
    where, request = job.deployment, job.flight.filled
    asked = codec_for(request, where.codec).encode(
        request, model=request.model or where.model, profile=where.profile, stream=stream
    )
    return where.base_url + asked.path, where.headers + asked.headers, asked.body, where.timeout


def _read(job: Job, status: int, headers: Headers, answer: bytes) -> LMResponse:
    dialect = codec_for(job.flight.filled, job.deployment.codec)
    job.flight.limits = dialect.read_limits(headers, time.time())
    key = job.deployment.key
    if status != 200:
        raise dialect.classify_error(status, headers, _hidden(answer, key))
    try:
        return dialect.decode(answer)
    except LMError:
        clean = _hidden(answer, key)
        if clean is answer:
            raise
        return dialect.decode(clean)  # the same error, of a body that may be quoted


async def _stream(job: Job, sink: Sink) -> LMResponse:
    dialect = job.deployment.codec
    async with job.transport.stream(*_encoded(job, stream=True)) as (status, headers, pieces):
        job.flight.limits = dialect.read_limits(headers, time.time())
        if status != 200:
            answer = b"".join([piece async for piece in pieces])
            raise dialect.classify_error(status, headers, _hidden(answer, job.deployment.key))
        now = asyncio.get_running_loop().time
        decoder, said = dialect.decode_stream(), now()
        async for piece in pieces:
            for event in decoder.feed(piece):
                if isinstance(event, StreamEnd):
                    return _last(sink, event)
                sink.put(event)
                said = now()
            if now() - said > job.deployment.timeout:
                raise LMTimeout(f"the stream has said nothing but that it is alive for {job.deployment.timeout:g} s")
        for event in decoder.close():
            if isinstance(event, StreamEnd):
                return _last(sink, event)
            sink.put(event)
    raise LMResponseInvalid("the stream ended without an answer", status=200)


def _last(sink: Sink, end: StreamEnd) -> LMResponse:
    sink.put(end)
    return end.response


def _hidden(answer: bytes, secret: SecretStr | None) -> bytes:
    """Take the key out of an answer before an error quotes the beginning of it, which may cut the key in two."""
    key = b"" if secret is None else secret.get_secret_value().encode()
    return answer.replace(key, b"***") if len(key) >= SHORTEST_KEY and key in answer else answer


def _scrub(error: LMError, secret: SecretStr | None) -> None:
    """Take the key out of an error, or the head of it: some servers repeat it in their answer."""
    key = "" if secret is None else secret.get_secret_value()
    if len(key) >= SHORTEST_KEY and (key[:SHORTEST_KEY] in str(error) or key[:SHORTEST_KEY] in error.body):
        error.args = (without(str(error), (key,)),)
        error.body = without(error.body, (key,))
