"""The providers that otpy does not speak, through the `litellm` package (the `litellm` extra).

Its place is the transport's: what a client has encoded as a chat completion goes to litellm instead of a server, and
what comes back is a chat completion again. So limits, breaker, retries, budget, ledger and deadlines are ours, and
litellm's retries, fallbacks, cache, callbacks and telemetry are switched off. The only room that knows litellm, which
takes seconds to import: that happens in a thread, when the first such client starts.

Source: docs.litellm.ai, "Exception Mapping", "Input Params", "Custom Callbacks"; measured with litellm 1.106.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.openai_errors import retry_after
from otpy.clients.transport import Transport, open_transport
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    ModelNotAvailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping

__all__ = ["NOWHERE", "LitellmTransport", "lm_error", "open_for"]

NOWHERE: Final = "litellm:"
"""The address of a provider that litellm finds by itself."""
INSTALL: Final = "pip install 'otpy-framework[litellm]' (in a checkout: pip install -e '.[litellm]')"
_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else its import fetches a list of prices
    "LITELLM_MODE": "PRODUCTION",  # else its import reads `.env` into the environment
}
_SWITCHED_OFF: Final[dict[str, Any]] = {
    "num_retries": 0, "max_retries": 0, "caching": False, "no-log": True, "fallbacks": None,
    "context_window_fallback_dict": {}, "mock_response": None, "drop_params": False,
}  # fmt: skip
_TOOLS_ARE_OURS: Final[dict[str, Any]] = {"_skip_mcp_handler": True}
"""Else it looks for tools that it would use by itself, and fails where the `mcp` package is not installed."""
_KINDS: Final[Mapping[str, type[LMError]]] = {
    "AuthenticationError": LMAuthError,
    "PermissionDeniedError": LMAuthError,
    "ContextWindowExceededError": LMContextWindowExceeded,
    "ContentPolicyViolationError": LMRefusal,
    "PaymentRequiredError": LMQuotaExceeded,
    "RateLimitError": LMStatusError,
    "NotFoundError": LMStatusError,
    "BadRequestError": LMRequestInvalid,
    "UnprocessableEntityError": LMRequestInvalid,
    "APIResponseValidationError": LMResponseInvalid,
    "APITimeoutError": LMTimeout,
    "Timeout": LMTimeout,
    "APIConnectionError": LMConnectionError,
    "APIStatusError": LMStatusError,
    "APIError": LMStatusError,
    "TypeError": LMRequestInvalid,
    "ValueError": LMRequestInvalid,
}
"""Our errors by the names of its exceptions and of those they derive from, which the `openai` package has."""
_BY_STATUS: Final[Mapping[Any, type[LMError]]] = {401: LMAuthError, 402: LMQuotaExceeded, 403: LMAuthError}
"""Where its classes are too broad."""
_PREFIX: Final = re.compile(r"(?:litellm\.)?(?:\w*(?:Error|Exception|Timeout)(?:: | - ))*")
"""What its messages begin with, often twice."""
_BROKEN: Final = frozenset({"ConnectError", "ReadError", "WriteError", "RemoteProtocolError", "ClientConnectorError"})
_QUOTA: Final = ("insufficient_quota", "exceeded your current quota", "billing_hard_limit_reached")
_users: Counter[int] = Counter()
"""Transports that are open, by event loop: the last one closes what litellm keeps for it."""


class LitellmTransport(Transport):
    """A POST of a chat completion, or of a request for embeddings, that litellm carries out.

    Args:
        library: The `litellm` module, or what stands in for it.
    """

    def __init__(self, library: Any) -> None:
        """Count it in; made on the loop that uses it."""
        self._library = library
        self._loop = id(asyncio.get_running_loop())
        self._closed = False
        _users[self._loop] += 1

    async def post(
        self,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Have a request carried out, and return the whole answer.

        Args:
            url: The server's address, or `NOWHERE`, and the path of a dialect.
            headers: The key is among them, if it is ours.
            body: What, as OpenAI writes it.
            timeout: Seconds for all of it.

        Returns:
            Status 200, headers with lower-case names, the answer as OpenAI writes it.

        Raises:
            LMError: The one that says what went wrong.
        """
        arguments = _arguments(url, headers, body, timeout)
        ask = self._library.aembedding if url.endswith("/embeddings") else self._library.acompletion
        with _in_our_words(timeout):
            async with asyncio.timeout(timeout):
                answer = await ask(**arguments)
            return 200, _headers_of(answer), answer.model_dump_json().encode()

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a deadline
    ) -> AsyncGenerator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Have a request carried out, and return the answer in the pieces in which it comes.

        Args:
            url: As in `post`.
            headers: As in `post`.
            body: As in `post`.
            timeout: Seconds until the first piece, and from each to the next.

        Returns:
            Status 200, headers with lower-case names, and events as OpenAI writes them; leaving the block early closes
            the connection.

        Raises:
            LMError: As `post`.
        """
        with _in_our_words(timeout):
            async with asyncio.timeout(timeout) as patience:
                answer = await self._library.acompletion(**_arguments(url, headers, body, timeout))
                try:
                    yield 200, _headers_of(answer), _events(answer, patience, timeout)
                finally:
                    await answer.aclose()

    async def aclose(self) -> None:
        """Close what litellm keeps open for this event loop, once nobody uses it any more."""
        if self._closed:
            return
        self._closed = True
        _users[self._loop] -= 1
        if _users[self._loop] > 0:
            return
        del _users[self._loop]
        with contextlib.suppress(ImportError, AttributeError):  # in a release that has none
            worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
            if worker._bound_loop is asyncio.get_running_loop():  # noqa: SLF001 - one for all loops
                await worker.stop()
        kept = getattr(getattr(self._library, "in_memory_llm_clients_cache", None), "cache_dict", {})
        for key in [key for key in kept if str(key).endswith(f"-{self._loop}")]:
            found = kept.pop(key)
            for inner in (found, getattr(found, "client", None)):
                close = getattr(inner, "aclose", None) or getattr(inner, "close", None)
                if close is not None:
                    with contextlib.suppress(Exception):  # it goes anyway
                        await close()
                    break


async def open_for(provider: str, base_url: str) -> Transport:
    """Open what carries requests to a provider: litellm for those that are asked through it, a connection otherwise.

    Args:
        provider: As in `"provider/model"`.
        base_url: Where the API is.

    Raises:
        ModelNotAvailable: If it takes litellm, and that is not installed; the message holds the command that gets it.
    """
    if provider != "litellm":
        return open_transport(base_url)
    if importlib.util.find_spec("litellm") is None:
        raise ModelNotAvailable(f"models of 'litellm/…' need the extra 'litellm': {INSTALL}")
    return LitellmTransport(await asyncio.to_thread(_load))


def _load() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    library: Any = importlib.import_module("litellm")
    library.suppress_debug_info = True  # it prints to stdout
    if hasattr(library, "telemetry"):
        library.telemetry = False
    return library


def _arguments(url: str, headers: tuple[tuple[str, str], ...], body: bytes, seconds: float) -> dict[str, Any]:
    where = url.removesuffix("/embeddings").removesuffix("/chat/completions")
    key = next((value.removeprefix("Bearer ") for name, value in headers if name == "authorization"), None)
    off = _SWITCHED_OFF if url.endswith("/embeddings") else _SWITCHED_OFF | _TOOLS_ARE_OURS
    return {
        **json.loads(body),
        **off,
        "api_base": None if where == NOWHERE else where,
        "api_key": key,
        "timeout": seconds,
    }


def _headers_of(answer: Any) -> dict[str, str]:
    hidden: Any = getattr(answer, "_hidden_params", None)
    return _plain(hidden and hidden.get("additional_headers"))


async def _events(answer: AsyncIterator[Any], patience: asyncio.Timeout, seconds: float) -> AsyncGenerator[bytes]:
    loop = asyncio.get_running_loop()
    async for chunk in answer:
        patience.reschedule(None)  # whoever reads may take as long as it likes
        yield b"data: " + chunk.model_dump_json(exclude_none=True).encode() + b"\n\n"
        patience.reschedule(loop.time() + seconds)
    yield b"data: [DONE]\n\n"


@contextlib.contextmanager
def _in_our_words(seconds: float) -> Generator[None]:
    try:
        yield
    except LMError:
        raise
    except TimeoutError:
        raise LMTimeout(
            f"no answer through litellm within {seconds:g} s; raise timeout if it may take longer"
        ) from None
    except Exception as error:
        raise lm_error(error) from error


def lm_error(error: Exception) -> LMError:
    """Return our error for one of litellm's.

    Args:
        error: What it raised.

    Example:
        >>> from otpy.clients.litellm_engine import lm_error
        >>> class RateLimitError(Exception):
        ...     status_code = 429
        >>> lm_error(RateLimitError("slow down"))
        LMStatusError('litellm: slow down')
    """
    names = [kind.__name__ for kind in type(error).__mro__]
    kind: type[LMError] = next((_KINDS[name] for name in names if name in _KINDS), LMResponseInvalid)
    status = getattr(error, "status_code", None)
    said = _PREFIX.sub("", str(error).partition("\n")[0])[:500] or names[0]
    chain = list(_chain(error))
    causes = {cause.__name__ for inner in chain for cause in type(inner).__mro__}
    if kind not in {LMContextWindowExceeded, LMRefusal}:
        kind = _BY_STATUS.get(status, kind)
    if "ImportError" in causes:
        kind, said = LMRequestInvalid, f"{said}; the provider takes a package that is not installed"
    elif kind in {LMStatusError, LMConnectionError} and causes & _BROKEN:
        kind, said = LMConnectionError, f"{said}; is the server running, and base_url right?"
    elif names[0] == "RateLimitError" and any(word in said for word in _QUOTA):
        kind = LMQuotaExceeded
    if kind in {LMConnectionError, LMTimeout, LMResponseInvalid} or not isinstance(status, int):
        status = None  # its own, and not the provider's
    return kind(f"litellm: {said}", status=status, retry_after=next(filter(None, map(_wait, chain)), None))


def _wait(error: BaseException) -> float | None:
    """The seconds that a provider asks us to wait; litellm keeps its headers on the exception or on those behind it."""
    return retry_after(
        _plain(getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None))
    )


def _plain(headers: Any) -> dict[str, str]:
    """Headers with lower-case names, and without what litellm puts before them."""
    said: Mapping[str, Any] = headers or {}
    return {name.lower().removeprefix("llm_provider-"): str(value) for name, value in said.items()}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
