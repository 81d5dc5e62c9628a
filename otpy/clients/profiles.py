"""The habits of the usual deployments, as far as they are documented or were measured; settings choose one by name.

A name of a model says nothing about any of this, so none is ever looked at.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.codec import Profile
from otpy.errors import LMRequestInvalid
from otpy.lm import Media

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.lm import LMRequest

__all__ = ["PROFILES", "check", "unsayable"]

PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        # Any compatible server: what the whole dialect has, in its older words. Source: OpenAI API reference, "Chat".
        Profile("generic"),
        # `max_tokens` is deprecated there, and refused for reasoning models. Source: OpenAI API reference, "Chat".
        Profile("openai", max_tokens="max_completion_tokens"),
        # Deployments of models that think first refuse sampling parameters: OpenAI, guide "Reasoning models".
        Profile("openai_reasoning", max_tokens="max_completion_tokens", sampling=False),
        # No `stop`, `seed` or `n` in the whole dialect. Source: OpenAI API reference, "Responses".
        Profile("openai_responses", "openai_responses", max_tokens="max_output_tokens", lacks=("n",)),
        # The v1 API (`https://….openai.azure.com/openai/v1/`): OpenAI's words, deployments for models, the key as a
        # bearer's. Source: learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle.
        Profile("azure", max_tokens="max_completion_tokens"),
        # `cache_prompt` and `reasoning_content`: llama.cpp, tools/server/README.md. `tool_choice`: a tool's name is
        # taken for "auto" (github.com/ggml-org/llama.cpp/pull/26849) and "required" is not enforced for every template
        # (…/issues/27217); measured with xllamacpp 2026.10 and SmolLM2: plain text comes back for both.
        Profile("llama_cpp", extra=(("cache_prompt", True),), lacks=("tool_choice", "file", "n"),
                reasoning="reasoning_content"),
        # Measured with xllamacpp 2026.10: `text.format` and `top_logprobs` are ignored or refused, of the parts only
        # text and images are taken, and thoughts are taken back as `content`.
        Profile("llama_cpp_responses", "openai_responses", max_tokens="max_output_tokens", schema=False,
                lacks=("tool_choice", "logprobs", "audio", "file"), reasoning="content"),
        # Source: docs.vllm.ai, "OpenAI-Compatible Server", "Reasoning Outputs", "Structured Outputs".
        Profile("vllm", lacks=("file",), reasoning="reasoning"),
        # Source: github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx, which lists what is missing.
        Profile("ollama", lacks=("n", "tool_choice", "image_url", "audio", "file"), reasoning="reasoning"),
        # Sampling parameters are refused since version 2026-10-21, and a bound is demanded. Source:
        # platform.claude.com/docs/en/api/versioning; the smallest of the models that are left can write 4,096 tokens.
        Profile("anthropic", "anthropic", sampling=False, version="2026-10-21", most_tokens=8192,
                lacks=("embeddings", "logprobs", "n")),
        Profile("anthropic_2023", "anthropic", version="2023-06-01", most_tokens=4096,
                lacks=("embeddings", "logprobs", "n")),
        # Measured with xllamacpp 2026.10: sampling parameters are taken in any version; `output_config.format`,
        # `tool_choice` and documents are ignored.
        Profile("llama_cpp_messages", "anthropic", schema=False, version="2026-10-21", most_tokens=4096,
                lacks=("tool_choice", "file", "logprobs", "n")),
        # The server of a model that makes vectors: a conversation fails there. Measured with xllamacpp 2026.10.
        Profile("llama_cpp_embedder", lacks=("messages",)),
        # Any provider that the `litellm` package speaks; it refuses what the provider has no way to say.
        Profile("litellm"),
        # Source: ai.google.dev/api/generate-content. Embeddings are at its OpenAI-compatible address,
        # `…/v1beta/openai`, for a client with that `base_url` and the profile "generic".
        Profile("gemini", "gemini", max_tokens="maxOutputTokens", lacks=("embeddings",)),
    )
}  # fmt: skip
"""By name."""

_SAMPLING: Final = ("temperature", "top_p", "seed")
_PLAIN: Final[Mapping[str, Any]] = {
    "temperature": None, "top_p": None, "seed": None, "n": 1, "stop": (), "logprobs": None, "reasoning": None,
    "tools": (), "schema": None,
}  # fmt: skip
"""What a request says that does not say anything."""


def check(request: LMRequest, profile: Profile, *lacks: str) -> None:
    """Refuse a request that a deployment would refuse, or take and ignore.

    Args:
        request: What is asked.
        profile: The deployment's habits.
        lacks: What its dialect lacks, as in `Profile.lacks`.

    Raises:
        LMRequestInvalid: If there is no way to say it; the message names what.

    Example:
        >>> from otpy.clients.profiles import PROFILES, check
        >>> from otpy.lm import LMRequest
        >>> check(LMRequest((), n=2), PROFILES["ollama"])
        Traceback (most recent call last):
            ...
        otpy.errors.LMRequestInvalid: n=2: the profile 'ollama' has no way to say this; leave it out, or choose a ...
    """
    missing = _missing(lacks, profile.lacks, profile.sampling, profile.schema)
    if "messages" in missing:
        raise unsayable("a conversation", profile)
    for name in missing & _PLAIN.keys():
        value = getattr(request, name)
        if value != _PLAIN[name]:
            raise unsayable(f"{name}={value!r}", profile)
    names = [tool.name for tool in request.tools]
    choice = request.tool_choice
    if choice != "auto" and choice not in {"none", *names, *(("any",) if names else ())}:
        allowed = ", ".join(map(repr, ("auto", "any", "none", *names)))
        raise LMRequestInvalid(f"tool_choice={choice!r}: allowed with {len(names)} tools are {allowed}")
    if choice not in {"auto", "none"} and "tool_choice" in missing:
        raise unsayable(f"tool_choice={choice!r}", profile)
    for message in request.messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, Media) and {part.kind, f"{part.kind}_url" if part.url else part.kind} & missing:
                raise unsayable(repr(part), profile)


@cache
def _missing(dialect: tuple[str, ...], lacks: tuple[str, ...], sampling: bool, schema: bool) -> frozenset[str]:  # noqa: FBT001 - the profile's
    return frozenset((*dialect, *lacks, *(() if sampling else _SAMPLING), *(() if schema else ("schema",))))


def unsayable(what: str, profile: Profile) -> LMRequestInvalid:
    """Return the error for what a deployment has no way to say.

    Args:
        what: The offending piece of the request.
        profile: The deployment's habits.
    """
    return LMRequestInvalid(
        f"{what[:200]}: the profile {profile.name!r} has no way to say this; leave it out, or choose a client whose"
        " profile has"
    )
