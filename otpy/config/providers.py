"""What is known of model providers: where they are, which variable holds the key, how they want to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROFILES", "PROVIDERS"]

PROFILES: Final = (
    "generic",
    "openai",
    "openai_reasoning",
    "openai_responses",
    "azure",
    "llama_cpp",
    "llama_cpp_responses",
    "llama_cpp_messages",
    "llama_cpp_embedder",
    "vllm",
    "ollama",
    "anthropic",
    "anthropic_2023",
    "gemini",
    "litellm",
)
"""The habits of servers that a client may be told of; `otpy/clients/profiles.py` says what each means."""

PROVIDERS: Final[Mapping[str, tuple[str | None, str | None, str]]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "generic"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "generic"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", "generic"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "generic"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "generic"),
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta", "GEMINI_API_KEY", "gemini"),
    "ollama": ("http://127.0.0.1:11434/v1", None, "ollama"),
    "vllm": ("http://127.0.0.1:8000/v1", None, "vllm"),
    "llama_cpp": ("http://127.0.0.1:8080/v1", None, "llama_cpp"),
    "local": (None, None, "llama_cpp"),
    "litellm": ("litellm:", None, "litellm"),
}
"""What is known of a provider: where it is, which variable holds its key, how its server wants to be asked."""
