"""What a worker does: one attempt at one request, encode, send, decode, answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.clients import openai_chat
from otpy.errors import LMAuthError, LMError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors import Ref
    from otpy.clients.flights import Flight
    from otpy.clients.transport import Transport
    from otpy.config.settings import ClientSettings

__all__ = ["Deployment", "Job", "send"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where and how a client's requests are sent.

    Args:
        client: The client's name.
        model: The model's name, as the provider knows it.
        base_url: Where the API is.
        url: The address of the endpoint.
        headers: With the key in them: never print this.
        timeout: Seconds for one attempt.
        temperature: For requests that say none.
        max_tokens: For requests that say none.
        profile: The server's habits.
        key_source: Where the key came from, in words.
    """

    client: str
    model: str
    base_url: str
    url: str
    headers: tuple[tuple[str, str], ...]
    timeout: float
    temperature: float | None
    max_tokens: int | None
    profile: openai_chat.Profile
    key_source: str

    def __repr__(self) -> str:
        """Print it without the headers."""
        return f"Deployment({self.client!r}, {self.model!r}, {self.url!r})"

    @classmethod
    def of(cls, client: str, settings: ClientSettings, base_url: str) -> Deployment:
        """Read it from a client's settings.

        Args:
            client: The client's name.
            settings: Its settings.
            base_url: Where the API is; for a local model, where its server came up.
        """
        headers = [("content-type", "application/json")]
        key = settings.resolved_api_key()
        if key is not None:
            headers.append(("authorization", f"Bearer {key.get_secret_value()}"))
        return cls(
            client,
            settings.model_name,
            base_url,
            base_url.rstrip("/") + "/chat/completions",
            tuple(headers),
            settings.timeout,
            settings.effective_temperature,
            settings.max_tokens,
            openai_chat.PROFILES[settings.effective_profile],
            settings.key_source,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs."""

    client: Ref[Any]
    deployment: Deployment
    transport: Transport
    flight: Flight


async def send(job: Job) -> None:
    """Send a request once; answer its callers, or leave the error to the client."""
    where, flight = job.deployment, job.flight
    request = flight.request
    with telemetry.span(
        "otpy.client.request", client=where.client, model=where.model, attempt=flight.attempt
    ) as measured:
        try:
            body = openai_chat.encode(
                request,
                model=request.model or where.model,
                temperature=where.temperature,
                max_tokens=where.max_tokens,
                profile=where.profile,
            )
            status, headers, answer = await job.transport.post(where.url, where.headers, body, where.timeout)
            response = openai_chat.decode(status, headers, answer)
        except LMError as error:
            _scrub(error, where.headers)
            if isinstance(error, LMAuthError):
                error.args = (f"{error}; check {where.key_source}",)
            error.client, error.model = where.client, where.model
            measured["error"] = error
            flight.outcome = error
            for caller in flight.callers:
                if error.retryable or job.client.is_alive():
                    caller.delegate(job.client)  # it decides; if it has died, the caller asks the one that follows it
                else:
                    caller.fail(error)
            return
        measured["usage"] = response.usage
        flight.outcome = response
        for caller in flight.callers:
            caller.reply(response)


def _scrub(error: LMError, headers: tuple[tuple[str, str], ...]) -> None:
    """Take the key out of an error: some servers repeat it in their answer."""
    for name, value in headers:
        key = value.removeprefix("Bearer ")
        if name == "authorization" and len(key) > 3 and (key in str(error) or key in error.body):
            error.args = (str(error).replace(key, "***"),)
            error.body = error.body.replace(key, "***")
