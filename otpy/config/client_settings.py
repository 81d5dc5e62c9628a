"""The settings of one client: a model, where it is, how it may be asked, and when to stop asking."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from otpy.config.providers import PROFILES, PROVIDERS
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BreakerSettings", "BudgetSettings", "ClientSettings", "Frozen", "RetrySettings", "RouteSettings", "wrong"]


LOCAL_TOKENS: Final = 1_024
"""Tokens that the answer of a local model may have, unless told otherwise."""


class Frozen(BaseModel):
    """Settings: checked when they are made, and never changed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True, allow_inf_nan=False
    )


class RetrySettings(Frozen):
    """How a failed request is tried again.

    Args:
        max_attempts: Attempts in all, at least 1.
        base: Seconds before the second attempt, before jitter; doubled each time.
        cap: Longest wait between attempts, in seconds.
        max_wait: If a provider asks for a longer wait than this, in seconds, the request fails instead.
        share: Retries there may be for each request of the last ten seconds; when everything fails, trying everything
            again only adds to the load.
        floor: Retries within ten seconds that are allowed in any case.
    """

    max_attempts: int = Field(default=5, ge=1)
    base: float = Field(default=0.5, gt=0)
    cap: float = Field(default=20.0, gt=0)
    max_wait: float = Field(default=120.0, ge=0)
    share: float = Field(default=0.2, ge=0)
    floor: int = Field(default=10, ge=0)


class BreakerSettings(Frozen):
    """When a client stops asking a provider that keeps failing.

    Args:
        fail_max: Failures in a row that open the circuit, at least 1.
        reset_timeout: Seconds until one trial request is let through.
    """

    fail_max: int = Field(default=5, ge=1)
    reset_timeout: float = Field(default=5.0, gt=0)


class BudgetSettings(Frozen):
    """Hard caps: the request that could pass one is refused before it is sent.

    Args:
        money: Dollars; a request whose price is not known is refused then.
        tokens: Tokens read and written.
        requests: Attempts that are sent.
    """

    money: Decimal | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    requests: int | None = Field(default=None, ge=0)

    @property
    def caps(self) -> dict[str, Any]:
        """The caps that are set, by kind."""
        return {kind: limit for kind in ("money", "tokens", "requests") if (limit := getattr(self, kind)) is not None}


class RouteSettings(Frozen):
    """Several clients under one name; exactly one of the arguments says how they are asked.

    Args:
        chain: One after the other, until one answers.
        split: By weight.
        hedged: The first, and the second as well if the first takes longer than 95 of 100 of its latest answers; the
            first answer wins. That is known after 50 answers, and at most one request in twenty is sent twice.
        cheapest: The cheapest that can do what is needed, then the next cheapest.
    """

    chain: tuple[str, ...] | None = None
    split: dict[str, float] | None = None
    hedged: tuple[str, str] | None = None
    cheapest: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(self.model_fields_set) != 1 or not self.members:
            raise ValueError("give one of chain, split, hedged, cheapest, with the names of clients")
        if len(set(self.members)) < len(self.members):
            raise ValueError("no client may be named twice")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """The clients, in the order given."""
        return tuple(self.chain or self.split or self.hedged or self.cheapest or ())


class ClientSettings(Frozen):
    """One client: a model, where it is, and how it may be asked.

    Args:
        model: `"provider/model"`, as in `"local/smollm2-135m"` or `"openai/gpt-x"`.
        base_url: Where the API is; known for the usual providers.
        api_key: The key; better kept in the environment.
        api_key_env: The environment variable that holds the key; known for the usual providers.
        temperature: For requests that say none; by default the provider's own, and 0 for a local model.
        max_tokens: For requests that say none; by default the provider's own bound, and 1,024 for a local model.
        timeout: Seconds for one attempt at a request.
        max_concurrency: Requests in flight at the same time; `None` for any number (of a local model, `parallel` + 1).
        min_concurrency: What an overloaded provider is asked at least; between the two the client finds its level.
        latency_tolerance: How many times the usual time per token is a sign that the provider queues, which lowers the
            level too; `None` to go by refusals alone.
        requests_per_minute: The provider's limit; `None` if it is not known, then it is learned from refusals.
        input_tokens_per_minute: Likewise, of tokens read, where the provider counts them apart.
        output_tokens_per_minute: Likewise, of tokens written.
        tokens_per_minute: Likewise, of tokens read and written.
        limits_storage: A Redis server, as `"redis://:password@host:6379/0"`, at which all clients of this model keep
            these limits together, on however many machines; needs the extra `redis`.
        parallel: Requests a local model's server works on at the same time. With one, all of them share the cached
            beginning of the prompt, which on a few cores is faster than several at once.
        cache: Whether answers are remembered.
        profile: How the server wants to be asked; known for the usual providers.
        retry: How a failed request is tried again.
        breaker: When to stop asking.
        budget: Hard caps on this client.
        input_price: Dollars per million tokens read, where the published prices do not apply, as for a model of one's
            own.
        output_price: Dollars per million tokens written.
        capabilities: What it can do, for `cheapest` routes: `"image"`, `"audio"`, `"file"`, `"tools"`, `"logprobs"`.
        context: The most tokens that a request and its answer may have, for the same.
    """

    model: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    max_concurrency: int | None = Field(default=None, ge=1)
    min_concurrency: int = Field(default=1, ge=1)
    latency_tolerance: float | None = Field(default=None, gt=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    input_tokens_per_minute: int | None = Field(default=None, ge=1)
    output_tokens_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    limits_storage: SecretStr | None = None
    parallel: int = Field(default=1, ge=1, le=64)
    cache: bool = True
    profile: str | None = None
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    budget: BudgetSettings = BudgetSettings()
    input_price: Decimal | None = Field(default=None, ge=0)
    output_price: Decimal | None = Field(default=None, ge=0)
    capabilities: tuple[str, ...] = ()
    context: int | None = Field(default=None, ge=1)

    @field_validator("model")
    @classmethod
    def _provider_and_model(cls, model: str) -> str:
        provider, _, name = model.partition("/")
        if not provider or not name:
            raise ValueError("write it as 'provider/model', as in 'local/smollm2-135m'")
        return model

    @field_validator("base_url")
    @classmethod
    def _address(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        try:
            parts = urlsplit(base_url)
            whole = (
                parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            whole = False
        else:
            whole = whole and parts.username is None and not parts.query and not parts.fragment
        if not whole or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
            raise ValueError("write it as http(s)://host[:port][/path]; a key belongs into api_key")
        return base_url.rstrip("/")

    @field_validator("limits_storage")
    @classmethod
    def _storage(cls, limits_storage: SecretStr | None) -> SecretStr | None:
        if limits_storage is None:
            return None
        try:
            parts = urlsplit(limits_storage.get_secret_value())
            whole = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        else:
            whole = whole or (parts.scheme == "redis+unix" and bool(parts.path))
        if not whole:
            raise ValueError("write it as redis://[:password@]host[:port][/number], or rediss:// with TLS")
        return limits_storage

    @field_validator("profile")
    @classmethod
    def _profile(cls, profile: str | None) -> str | None:
        if profile is not None and profile not in PROFILES:
            raise ValueError(f"allowed: {', '.join(PROFILES)}")
        return profile

    @field_validator("api_key")
    @classmethod
    def _key(cls, api_key: SecretStr | None) -> SecretStr | None:
        return None if api_key is None else _sendable(api_key.get_secret_value())

    @model_validator(mode="after")
    def _pairs_fit(self) -> Self:
        if (self.input_price is None) != (self.output_price is None):
            missing = "input_price" if self.input_price is None else "output_price"
            raise wrong(missing, "is missing; one price without the other says nothing of what a request costs")
        bounds = (self.requests_per_minute, *self.tokens_per_minute_by_kind.values())
        if self.limits_storage is not None and not any(bounds):
            raise wrong("limits_storage", "there is nothing to share; set requests_per_minute or tokens_per_minute")
        if self.limits_storage is not None and self.is_local:
            raise wrong("limits_storage", "a local model has its own server, which nobody else asks; leave it out")
        if self.max_concurrency is not None and self.min_concurrency > self.max_concurrency:
            raise wrong("min_concurrency", f"at most max_concurrency={self.max_concurrency}")
        return self

    @model_validator(mode="after")
    def _known_provider(self) -> Self:
        if self.provider not in PROVIDERS and self.base_url is None:
            raise wrong(
                "model",
                f"unknown provider {self.provider!r}; known: {', '.join(PROVIDERS)};"
                f" any other OpenAI-compatible server needs base_url",
            )
        if self.is_local:
            from otpy.config.local_models import LOCAL_MODELS, local_model  # noqa: PLC0415 - a table

            if local_model(self.model_name) is None:
                adapter = "; behind '+', the 12 digits of what was trained" if "+" in self.model_name else ""
                raise wrong("model", f"unknown local model; known: {', '.join(LOCAL_MODELS)}{adapter}")
            if self.base_url is not None:
                raise wrong("base_url", "a local model has its own server; leave it out")
        return self

    @property
    def provider(self) -> str:
        """The part of `model` before the slash."""
        return self.model.partition("/")[0]

    @property
    def model_name(self) -> str:
        """The part of `model` after the slash: the provider's own name of it."""
        return self.model.partition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether the model runs in a server of ours."""
        return self.provider == "local"

    @property
    def in_flight(self) -> int | None:
        """Requests that may be in flight: as set; a local model gets what its server works on, and one to come."""
        if not self.is_local:
            return self.max_concurrency
        return min(self.max_concurrency or self.parallel + 1, self.parallel + 1)

    @property
    def tokens_per_minute_by_kind(self) -> dict[str, int | None]:
        """The bounds on tokens, by the names that the limiter has for them."""
        kinds = ("input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute")
        return {kind: getattr(self, kind) for kind in kinds}

    @property
    def url(self) -> str | None:
        """Where the API is; `None` for a local model, whose server says where it came up."""
        return self.base_url or PROVIDERS.get(self.provider, (None, None, ""))[0]

    @property
    def effective_profile(self) -> str:
        """The profile, given or known."""
        if self.is_local:
            from otpy.config.local_models import local_model  # noqa: PLC0415 - a table

            if (model := local_model(self.model_name)) is not None and model.embeds:
                return "llama_cpp_embedder"
        return self.profile or (PROVIDERS[self.provider][2] if self.provider in PROVIDERS else "generic")

    @property
    def cache_context(self) -> tuple[str, ...]:
        """What, besides the request, decides an answer: part of every cache key."""
        where = "local" if self.is_local else str(self.url)
        return (self.model, where, repr(self.effective_temperature), repr(self.effective_max_tokens))

    @property
    def effective_temperature(self) -> float | None:
        """The temperature of requests that say none: what is set, and 0 for a local model, whose runs then repeat."""
        return 0.0 if self.temperature is None and self.is_local else self.temperature

    @property
    def effective_max_tokens(self) -> int | None:
        """The bound on answers of requests that say none: a small local model that has lost its way never ends."""
        return LOCAL_TOKENS if self.max_tokens is None and self.is_local else self.max_tokens

    def resolved_api_key(self, environ: Mapping[str, str] | None = None) -> SecretStr | None:
        """Return the key, from the settings or the environment.

        Raises:
            ConfigError: If the provider needs a key and there is none, or it cannot be sent; the message names the
                variable.
        """
        if self.api_key is not None:
            return self.api_key
        environ = os.environ if environ is None else environ
        variable = self.key_variable
        if variable is None:
            return None
        value = environ.get(variable)
        if not value:
            raise ConfigError(
                f"no API key for {self.model}: set the environment variable {variable}, or api_key= in the settings"
            )
        try:
            return _sendable(value)
        except ValueError as error:
            raise ConfigError(f"the API key for {self.model} in the environment variable {variable}: {error}") from None

    @property
    def key_variable(self) -> str | None:
        """The environment variable that may hold the key."""
        known = PROVIDERS.get(self.provider, (None, None, ""))
        return self.api_key_env or (known[1] if self.base_url in {None, known[0]} else None)

    @property
    def key_source(self) -> str:
        """Where the key is taken from, in words for an error."""
        if self.api_key is not None:
            return "api_key in the settings"
        if self.provider == "litellm":
            return "api_key in the settings, or the environment variable in which litellm looks for the provider's key"
        if self.key_variable is not None:
            return f"the environment variable {self.key_variable}"
        known = PROVIDERS.get(self.provider, (None, None, ""))[1]
        if known is not None and os.environ.get(known):
            return (
                f"whether the server wants a key: none was sent; {known} goes to {self.provider}'s own address alone:"
                f" set api_key_env={known!r} to send it to {self.base_url}"
            )
        return "whether the server wants a key: none was sent; set api_key, or name its variable in api_key_env"


def _sendable(key: str) -> SecretStr:
    """Refuse, without showing it, a key that no HTTP header can carry."""
    key = key.strip()
    if not key:
        raise ValueError("it is empty; leave it out if the server needs none")
    if not key.isascii() or not key.isprintable():
        raise ValueError("it holds a character that no HTTP header can carry; copy it again")
    return SecretStr(key)


def wrong(setting: str, why: str) -> PydanticCustomError:
    """Blame one setting for what shows only beside the others."""
    return PydanticCustomError("setting", "{why}", {"setting": setting, "why": why})
