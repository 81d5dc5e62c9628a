"""A language-model provider for tests: four dialects on a free loopback port, answering and failing by script.

It is a real HTTP server in a thread of its own, with an event loop of its own and no thread a request: ten thousand
requests in flight are ten thousand waiting tasks. It counts what it does, exactly.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from otpy.clients.openai_errors import object_in
from otpy.testing.fake_answers import Said
from otpy.testing.fake_dialects import DIALECTS, place_of, prompt_of
from otpy.testing.fake_replies import Reply, reply_with, wrong
from otpy.testing.fake_script import FakeRequest, Fault, Say, tokens_in
from otpy.testing.fake_server import Departure, FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from otpy.testing.fake_dialects import Place
    from otpy.testing.fake_script import Answer, HiddenLimits, Script

__all__ = ["Counts", "Departure", "FakeProvider"]


@dataclass(slots=True)
class Counts:
    """What a fake provider has done.

    Args:
        requests: Requests that came.
        statuses: Answers by HTTP status, those that were cut included.
        faults: Faults by kind; `"status"` for all errors, those of limits and of wrong requests included.
        input_tokens: Tokens of all requests that were answered in full: what a provider would charge for. Full is what
            has left here; whoever closes without reading it is charged.
        output_tokens: Tokens of their answers.
        lost_input_tokens: Tokens of the requests whose answers were begun or due, but did not arrive in full, or as
            garbage.
        lost_output_tokens: Tokens of those answers, all of them.
        departures: Clients that left too early.
        in_flight: Requests being answered now.
        peak_in_flight: The most there have been at once.
        connections: Connections that were opened.
    """

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    faults: Counter[str] = field(default_factory=Counter[str])
    input_tokens: int = 0
    output_tokens: int = 0
    lost_input_tokens: int = 0
    lost_output_tokens: int = 0
    departures: list[Departure] = field(default_factory=list[Departure])
    in_flight: int = 0
    peak_in_flight: int = 0
    connections: int = 0


class FakeProvider:
    """A provider that answers what a script says, in OpenAI's, Anthropic's and Gemini's words.

    A token is a word; see `tokens_in`, `prompt_of` and `Said.written` for which words count.

    Args:
        script: Gets every request and returns an answer or a fault; or the answer to all of them. It may be replaced
            at any time.
        limits: Limits that are enforced, and told of in the headers of the dialect.
        key: The API key that is wanted; `None` for any or none.
        port: The port; 0 for a free one.
        keep: How many of the last requests `requests` holds.

    Example:
        >>> import json, urllib.request
        >>> from otpy.testing.fake_provider import FakeProvider
        >>> from otpy.testing.fake_script import Say
        >>> body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Where is it?"}]}).encode()
        >>> with FakeProvider(Say("In Paris.")) as fake:
        ...     with urllib.request.urlopen(fake.url("openai_chat") + "/chat/completions", body) as answer:
        ...         print(json.load(answer)["choices"][0]["message"]["content"])
        ...     print(fake.counts.input_tokens, fake.counts.output_tokens)
        In Paris.
        3 2
    """

    def __init__(
        self,
        script: Script = "ok",
        *,
        limits: HiddenLimits | None = None,
        key: str | None = None,
        port: int = 0,
        keep: int = 1000,
    ) -> None:
        """Prepare; entering starts it."""
        self.script = script
        self._limits, self._key = limits, key
        self._requests: deque[FakeRequest] = deque(maxlen=keep)
        self._counts = Counts()
        self._changed = threading.Condition()
        self._server = FakeServer(self, port)

    # -- from outside -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start listening."""
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and drop what is connected."""
        self._server.stop()

    def url(self, dialect: str = "") -> str:
        """Return the base URL for a dialect; without one, what comes before all paths.

        Raises:
            ValueError: If there is no such dialect.
        """
        if dialect and dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {dialect!r}; known: {', '.join(DIALECTS)}")
        return f"http://127.0.0.1:{self._server.port}" + (DIALECTS[dialect].base if dialect else "")

    @property
    def counts(self) -> Counts:
        """What it has done so far: a copy, which stays as it is."""
        with self._changed:
            return copy.deepcopy(self._counts)

    @property
    def requests(self) -> tuple[FakeRequest, ...]:
        """The last requests, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def wait_for(self, wanted: Callable[[Counts], object], seconds: float = 10.0) -> None:
        """Return when its counts are as wanted.

        Args:
            wanted: Whether they are; it may look at the counts, not keep them.
            seconds: How long to wait.

        Raises:
            TimeoutError: If they are not within the time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: wanted(self._counts), seconds):
                raise TimeoutError(f"after {seconds:g} s the fake provider has counted {self._counts}")

    def release(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self._server.release()

    async def exchange(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer without a socket, in the time of the running event loop, which may be virtual.

        Departures are told in that time, too.

        Args:
            target: Path and query.
            headers: Headers of the request.
            body: Its body.

        Returns:
            What would be sent; whoever calls makes a broken connection of one that `breaks`.

        Raises:
            ValueError: If the script wants the answer to be held: only a server can.
        """
        time, sent = asyncio.get_running_loop().time, False
        reply, started = self.begin(target, headers, body), time()
        try:
            if reply.say.hold:
                raise ValueError("without a socket nothing can be held; give the answer a `delay`")
            await asyncio.sleep(reply.say.delay + reply.say.drip * len(reply.pieces))
            self.head(reply)
            sent = True
        finally:
            now = time()
            self.end(reply, None if sent else Departure(reply.number, now, now - started, 0), sent=sent)
        return reply

    # -- what is answered ---------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """Count a connection."""
        with self._changed:
            self._counts.connections += 1

    def begin(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Count a request, and return what is to be sent; it is in flight until its `end`.

        Args:
            target: Path and query.
            headers: Headers of the request.
            body: Its body.
        """
        with self._changed:
            counts = self._counts
            counts.requests += 1
            counts.in_flight += 1
            counts.peak_in_flight = max(counts.peak_in_flight, counts.in_flight)
            number = counts.requests
            self._changed.notify_all()
        place = place_of(target)
        lower = {name.lower(): value for name, value in headers.items()}
        try:
            reply = self._reply(place, number, lower, body)
        except Exception as error:  # noqa: BLE001 - a script's mistake is the test's news, not the server's end
            reply = wrong(place.dialect, 500, f"the script raised {error!r}")
        reply = replace(reply, number=number)
        if self._limits is None or not reply.status:
            return reply
        told = place.dialect.limits(self._limits.state(), self._limits.now())
        return replace(reply, headers=(*reply.headers, *told))

    def _reply(self, place: Place, number: int, headers: dict[str, str], body: bytes) -> Reply:
        dialect = place.dialect
        if not place.known:
            return wrong(dialect, 404, "there is nothing at this address")
        if self._key is not None and not dialect.accepts(headers, self._key):
            return wrong(dialect, dialect.bad_key, "API key not valid. Please pass a valid API key.")
        try:
            tree: Any = json.loads(body)
            if missing := [name for name in dialect.required if name not in tree]:
                return wrong(dialect, 400, f"missing: {', '.join(missing)}")
            model, stream = place.model or str(tree["model"]), place.stream or bool(tree.get("stream"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            return wrong(dialect, 400, f"the body is no JSON object: {error}")
        prompt = prompt_of(tree)
        request = FakeRequest(number, dialect.name, model, stream, prompt, tree, headers)
        with self._changed:
            self._requests.append(request)
        told: Answer = self.script(request) if callable(self.script) else self.script
        answer = Say(told) if isinstance(told, str) else told
        said = self._said(request, answer.say if isinstance(answer, Fault) else answer)
        if self._limits is not None:
            wait = self._limits.admit(said.read, said.written if isinstance(answer, Say) else 0)
            if wait:
                return wrong(dialect, 429, "too many requests or tokens a minute", wait)
        return reply_with(answer, dialect, said, stream=stream)

    @staticmethod
    def _said(request: FakeRequest, say: Say) -> Said:
        body = request.body
        if request.dialect == "embeddings":
            say = replace(say, text="", reasoning="", tools=())
        chat = request.dialect == "openai_chat"
        n = object_in(body if chat else body.get("generationConfig")).get("n" if chat else "candidateCount")
        usage = bool(object_in(body.get("stream_options")).get("include_usage"))
        read = tokens_in(request.prompt)
        return Said(say, f"fake{request.number}", request.model, read, n if isinstance(n, int) else 1, usage, body)

    def head(self, reply: Reply) -> None:
        """Count what goes out now."""
        with self._changed:
            if reply.status:
                self._counts.statuses[reply.status] += 1
            if reply.fault:
                self._counts.faults[reply.fault] += 1

    def end(self, reply: Reply, departure: Departure | None, *, sent: bool) -> None:
        """Count what has become of an answer.

        Args:
            reply: The answer.
            departure: Who left before it was whole.
            sent: Whether all of it was sent, or broken off as it was meant to be.
        """
        with self._changed:
            counts = self._counts
            counts.in_flight -= 1
            if departure is not None:
                counts.departures.append(departure)
            if sent and not reply.fault:
                counts.input_tokens += reply.read
                counts.output_tokens += reply.written
            else:
                counts.lost_input_tokens += reply.read
                counts.lost_output_tokens += reply.written
            self._changed.notify_all()
