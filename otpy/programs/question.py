"""One question of a predictor: asked, read, and asked again with what is wrong, until its answer will do."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters import ENGLISH, TwoStepAdapter, answered, asked, repair
from otpy.clients.history import over
from otpy.clients.running import running
from otpy.clients.streaming import Sink
from otpy.errors import AdapterParseError, ConstraintNotMet
from otpy.lm import LMRequest, LMResponse, ReasoningDelta, StreamEnd, TextDelta, Usage
from otpy.programs.abilities import lacks
from otpy.programs.constraints import unmet
from otpy.programs.rollouts import SEVERAL, beyond
from otpy.programs.streaming import FieldEnd, FieldsVoid, FieldText, ThoughtText, listening
from otpy.programs.trace import asking, begun, place_of, record, relabelled, signed, spent
from otpy.signatures import Prediction
from otpy.signatures.decisions import weigh
from otpy.signatures.example import among, came_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.adapters import FieldEvent
    from otpy.clients.running import Running
    from otpy.lm import Message, OutputSchema, Tool
    from otpy.programs.predict import Predict
    from otpy.programs.streaming import Listener

__all__ = ["Question"]

_NOTHING: Final = Usage()


class Question:
    """One question of a predictor.

    Args:
        predictor: Who asks.
        values: The inputs, validated.
    """

    __slots__ = (
        "_asked", "_attempts", "_best", "_error", "_heard", "_numbers", "_place", "_predictor", "_usage", "_values",
    )  # fmt: skip

    def __init__(self, predictor: Predict, values: Mapping[str, Any]) -> None:
        """Ask nothing yet."""
        self._predictor, self._values, self._place = predictor, values, begun()
        self._attempts: list[str] = []
        self._numbers: list[int] = []
        self._usage = _NOTHING
        self._error: AdapterParseError | None = None
        self._best: list[tuple[dict[str, Any], tuple[str, ...]]] = []
        self._asked = 0
        self._heard: _Hearing | None = None

    async def answer(self) -> Prediction:  # noqa: PLR0912 - one thing after the other
        """Ask, as often as the predictor may.

        Raises:
            AdapterParseError: If no answer fulfils the contract.
            ClientError: If the model could not be asked.
        """
        predictor = self._predictor
        adapter, signature, application = predictor.adapter, predictor.signature, running()
        prefix, schema, native, logprobs = predictor.prepared()
        messages = (*prefix, *asked(adapter, signature, self._values))
        extract = adapter if isinstance(adapter, TwoStepAdapter) else None
        client = predictor.client
        tools = native.tools(self._values) if native.inputs else ()
        if logprobs is not None and lacks(client, "logprobs"):
            logprobs = None
        said = signed(predictor)
        try:
            while True:
                request = self._request(messages, schema, tools, logprobs)
                self._numbers.append(asking(request))
                try:
                    listener, early = listening(), predictor.early
                    if predictor.n > 1 and lacks(client, "n"):
                        response: LMResponse | None = await _one_by_one(application, client, request)
                    elif listener is None and not early:
                        response = await application.ask(client, request)
                    else:
                        response = await self._streamed(application, client, request, listener, told=extract is None)
                finally:
                    over(request)
                if response is None:  # it was left early, and why is known
                    self._asked += 1
                    text = self._attempts[-1]
                else:
                    self._paid(response)
                    text = response.text
                    if extract is not None:
                        messages, schema = extract.second(signature, text), extract.second_schema(signature)
                        client, extract, tools, logprobs = extract.client, None, (), None
                        continue
                    self._asked += 1
                    self._attempts += [text, *(choice.text for choice in response.others)]
                    self._read(response)
                if (self._best and not self._best[0][1]) or self._asked > predictor.max_reasks:
                    return self._prediction()
                assert self._error is not None
                if self._heard is not None:
                    await self._heard.void()
                messages = (*messages, *repair(text, self._error, getattr(adapter, "words", ENGLISH)))
        finally:
            if said is not None:
                relabelled(said)

    def _request(
        self,
        messages: tuple[Message, ...],
        schema: OutputSchema | None,
        tools: tuple[Tool, ...],
        logprobs: int | None,
    ) -> LMRequest:
        predictor = self._predictor
        return LMRequest(
            messages,
            schema,
            predictor.temperature,
            predictor.max_tokens,
            predictor.stop,
            rollout=predictor.rollout + beyond(),
            tools=tools,
            n=predictor.n,
            logprobs=logprobs,
            reasoning=predictor.reasoning,
            top_p=predictor.top_p,
            seed=predictor.seed,
        )

    def _paid(self, response: LMResponse) -> None:
        """Charge for an answer."""
        paid = _NOTHING if response.cached else response.usage
        self._usage = paid if self._usage is _NOTHING else self._usage + paid
        spent(paid)

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _streamed(
        self, application: Running, client: str, request: LMRequest, listener: Listener | None, *, told: bool
    ) -> LMResponse | None:
        predictor = self._predictor
        make: Any = getattr(predictor.adapter, "reader", None) if told else None
        reader = None if make is None else make(predictor.signature)
        if self._heard is None:
            self._heard = _Hearing(self, place_of(predictor), listener)
        hearing = self._heard
        text = ""
        events = Sink().read(lambda sink: application.ask(client, request, sink))
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, TextDelta) and not event.choice:
                    text += event.text
                    for read in reader.feed(event.text) if reader is not None else ():
                        if await hearing.heard(read, text):
                            return None
                elif isinstance(event, ReasoningDelta) and not event.choice and listener is not None:
                    await listener.put(ThoughtText(hearing.path, event.text, hearing.call))
                elif isinstance(event, StreamEnd):
                    for read in reader.close() if reader is not None else ():
                        await hearing.heard(read, text)
                    return event.response
        raise AssertionError("a stream has ended without its end")  # pragma: no cover - `Sink.read` never does

    @property
    def is_last(self) -> bool:
        """Whether the answer that is being written is the last that is asked for."""
        return self._asked >= self._predictor.max_reasks

    def refused(self, text: str, field: str, complaint: str) -> None:
        """Note that what is being written will not do.

        Args:
            text: The answer so far.
            field: The output.
            complaint: What is wrong with it.
        """
        self._attempts.append(text)
        self._error = ConstraintNotMet(self._predictor.signature.__name__, text, (field,), complaint)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, response: LMResponse) -> None:
        """Take in the answers that will do, best first; else why they will not."""
        found: list[tuple[dict[str, Any], tuple[str, ...]]]
        if not response.others:  # nearly always
            try:
                found = [self._outputs(response)]
            except AdapterParseError as problem:
                self._error = self._explained(problem, response)
                return
        else:
            found = []
            error: AdapterParseError | None = None
            for one in _each(response):
                try:
                    found.append(self._outputs(one))
                except AdapterParseError as problem:
                    error = error or self._explained(problem, one)
            if not found:
                self._error = error
                return
            found.sort(key=lambda answer: len(answer[1]))  # stable: the first of those that will do best
        if not self._best or len(found[0][1]) < len(self._best[0][1]):
            self._best = found
        if shoulds := found[0][1]:
            self._error = ConstraintNotMet(self._predictor.signature.__name__, response.text, (), "; ".join(shoulds))

    def _outputs(self, response: LMResponse) -> tuple[dict[str, Any], tuple[str, ...]]:
        predictor = self._predictor
        signature = predictor.signature
        _, _, native, logprobs = predictor.prepared()
        if native.outputs:
            outputs = answered(predictor.adapter, signature, response)
        else:
            outputs = predictor.adapter.parse(signature, response.text)
        if logprobs is not None and response.logprobs:
            outputs = weigh(outputs, response.text, response.logprobs)
        if not predictor.constraints:
            return outputs, ()
        musts, shoulds = unmet(predictor.constraints, {**self._values, **outputs})
        if musts:
            raise ConstraintNotMet(signature.__name__, response.text, (), "; ".join((*musts, *shoulds)))
        return outputs, shoulds

    def _explained(self, error: AdapterParseError, response: LMResponse) -> AdapterParseError:
        """Add to an error what the adapter cannot know: that the answer was cut off, or refused."""
        if response.finish_reason == "length":
            more = "the answer was cut off at its longest, max_tokens would have to be larger"
        elif response.finish_reason in {"refusal", "content_filter"}:
            more = f"the provider refuses to have this answered ({response.finish_reason})"
        else:
            return error
        return type(error)(error.signature, error.text, error.missing, f"{error.detail}; {more}")

    def _prediction(self) -> Prediction:
        attempts, numbers = tuple(self._attempts), tuple(self._numbers)
        if not self._best:
            error = self._error
            assert error is not None
            vars(error).update(attempts=attempts, usage=self._usage, exchanges=numbers)
            raise error from None
        made = [
            came_of(Prediction(outputs, usage=self._usage, attempts=attempts, unmet=shoulds), numbers)
            for outputs, shoulds in self._best
        ]
        prediction = among(made) if len(made) > 1 else made[0]
        record(self._predictor, self._values, prediction, self._place)
        return prediction


class _Hearing:
    """What is heard of an answer while it is written: passed on, and checked where that can be done early."""

    def __init__(self, question: Question, path: str | None, listener: Listener | None) -> None:
        self._question, self.path, self._listener = question, path, listener
        self.call = 0 if listener is None else listener.number()
        self._texts: dict[str, str] = {}
        self._told: dict[str, None] = {}
        self._early = question._predictor.early  # noqa: SLF001 - a part of it

    async def heard(self, event: FieldEvent, text: str) -> bool:
        """Take in what was read; returns whether that is the end of this answer."""
        names = getattr(event, "names", None)
        if names is not None:
            await self.void(names)
            return False
        told: Any = event
        self._told[told.name] = None
        if not hasattr(event, "text"):
            await self._tell(FieldEnd(self.path, told.name, told.raw, self.call))
            return False
        await self._tell(FieldText(self.path, told.name, told.text, self.call))
        so_far = self._texts[told.name] = self._texts.get(told.name, "") + told.text
        for constraint in self._early:
            if not constraint.must and self._question.is_last:
                continue  # what it is then is taken
            if constraint.field == told.name and (complaint := constraint.of(so_far)) is not None:
                self._question.refused(text, told.name, complaint)
                return True
        return False

    async def void(self, names: tuple[str, ...] | None = None) -> None:
        """Take back what was told of outputs, by default of all."""
        void = tuple(self._told) if names is None else names
        for name in void:
            self._texts.pop(name, None)
            self._told.pop(name, None)
        if void:
            await self._tell(FieldsVoid(self.path, void, self.call))

    async def _tell(self, event: FieldText | FieldEnd | FieldsVoid) -> None:
        if self._listener is not None:
            await self._listener.put(event)


async def _one_by_one(application: Running, client: str, request: LMRequest) -> LMResponse:
    """Ask as often as answers are wanted, of a model that gives one at a time."""
    several = (replace(request, n=1, rollout=request.rollout + number * SEVERAL) for number in range(request.n))
    answers = await asyncio.gather(*(application.ask(client, one) for one in several))
    paid = sum((answer.usage for answer in answers if not answer.cached), Usage())
    choices = tuple(choice for answer in answers for choice in answer.choices)
    return LMResponse.of(choices, model=answers[0].model, usage=paid)


def _each(response: LMResponse) -> list[LMResponse]:
    """The answers to one request, each as if it were the only one."""
    return [LMResponse.of((choice,), model=response.model, usage=response.usage) for choice in response.choices]
