"""`Predict`: one question to one model, by the contract of a signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Self

from otpy.adapters import ADAPTERS, Adapter, JSONAdapter, repair
from otpy.clients.history import over
from otpy.clients.running import running
from otpy.errors import AdapterParseError, ProgramError, SignatureError
from otpy.lm import LMRequest, Usage
from otpy.programs.program import Program
from otpy.programs.trace import asking, record, relabelled, signed, spent
from otpy.signatures import Example, Prediction, Signature, SignatureMeta
from otpy.signatures.example import came_of
from otpy.signatures.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from otpy.lm import LMResponse, Message, OutputSchema

__all__ = ["Predict"]

_NOTHING: Final = Usage()
_CONFIG: Final = ("client", "adapter", "max_reasks", "temperature", "max_tokens", "rollout")


class Predict(Program, Generic[Returned]):
    """Asks a model to fill the outputs of a signature.

    Args:
        signature: A `Signature` class, or a string form such as `"question -> answer"`.
        client: The name of the client to ask.
        adapter: How to put the question; `JSONAdapter()` unless told otherwise.
        demos: Examples of the task, each with every field of the signature.
        max_reasks: How often a model whose answer does not fulfil the signature is told so and asked again.
        temperature: Sampling temperature; the client's own if `None`.
        max_tokens: Longest answer, in tokens; the client's own if `None`.
        rollout: Another number is another asking of the same thing: it gets past the cache, and is not sent.

    Raises:
        SignatureError: If the signature cannot be read, or a demo does not fit it.
        ProgramError: If a parameter is out of range.

    Example:
        >>> from otpy.programs import Predict
        >>> Predict("question -> answer").signature.signature
        'question: str -> answer: str'
    """

    __slots__ = ()

    signature: type[Signature]
    client: str
    adapter: Adapter
    demos: tuple[Example, ...]
    max_reasks: int
    temperature: float | None
    max_tokens: int | None
    rollout: int

    def __init__(  # noqa: PLR0913 - each is a parameter of the question
        self,
        signature: type[Returned] | str,
        *,
        client: str = "default",
        adapter: Adapter | None = None,
        demos: Iterable[Mapping[str, Any]] = (),
        max_reasks: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        rollout: int = 0,
    ) -> None:
        """Check everything."""
        self.signature = _contract(signature)
        self.client = client
        self.adapter = JSONAdapter() if adapter is None else adapter
        self.demos = _demos(self.signature, demos)
        self.max_reasks = max_reasks
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.rollout = rollout
        _check("client", client, "the name of a client", ok=_name(client))
        _check("adapter", self.adapter, "an Adapter, such as JSONAdapter() or ChatAdapter()", ok=_adapter(self.adapter))
        _check("max_reasks", max_reasks, "an integer >= 0", ok=_integer(max_reasks, 0))
        _check("max_tokens", max_tokens, "an integer >= 1, or None", ok=max_tokens is None or _integer(max_tokens, 1))
        _check("temperature", temperature, "a number >= 0, or None", ok=temperature is None or _number(temperature))
        _check("rollout", rollout, "an integer >= 0", ok=_integer(rollout, 0))

    # -- calling ---------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **inputs: Any) -> Returned: ...  # noqa: D102 - as any program's

    def acall(  # pyright: ignore[reportIncompatibleMethodOverride] - `async def` without a coroutine more
        self, *args: Any, **inputs: Any
    ) -> Coroutine[Any, Any, Returned]:
        """Ask, in asynchronous code; arguments and errors as for a plain call."""
        if args:
            self._refuse(args, inputs)
        return self.forward(**inputs)  # type: ignore[return-value]  # to the checkers, a prediction is its signature

    async def forward(self, **inputs: Any) -> Prediction:
        """Ask, and ask again if the answer does not fulfil the signature."""
        values = self.signature.validate_inputs(inputs)
        prefix, schema = self._prepared()
        messages = (*prefix, self.adapter.question(self.signature, values))
        application = running()
        said = signed(self)
        attempts: list[str] = []
        numbers: list[int] = []
        usage = Usage()
        try:
            while True:
                request = LMRequest(messages, schema, self.temperature, self.max_tokens, rollout=self.rollout)
                numbers.append(asking(request))
                try:
                    response = await application.ask(self.client, request)
                finally:
                    over(request)
                attempts.append(response.text)
                paid = _NOTHING if response.cached else response.usage
                usage = usage + paid if len(attempts) > 1 else paid
                spent(paid)
                try:
                    outputs = self.adapter.parse(self.signature, response.text)
                except AdapterParseError as found:
                    error = _explained(found, response, attempts, usage)
                    if len(attempts) > self.max_reasks:
                        vars(error)["exchanges"] = tuple(numbers)
                        raise error from None
                    messages = (*messages, *repair(response.text, error))
                    continue
                prediction = came_of(Prediction(outputs, usage=usage, attempts=tuple(attempts)), tuple(numbers))
                record(self, values, prediction)
                return prediction
        finally:
            if said is not None:
                relabelled(said)

    def _prepared(self) -> tuple[tuple[Message, ...], OutputSchema | None]:
        """The part of the question that is the same for all inputs, made once."""
        prepared: tuple[tuple[Message, ...], OutputSchema | None] | None = self._memo.get("prepared")
        if prepared is None:
            prepared = (self.adapter.prefix(self.signature, self.demos), self.adapter.schema(self.signature))
            self._memo["prepared"] = prepared
        return prepared

    def messages(self, **inputs: Any) -> tuple[Message, ...]:
        """Return the conversation that would be sent, without sending it.

        Raises:
            SignatureError: If the inputs are not those of the signature.

        Example:
            >>> from otpy.programs import Predict
            >>> for message in Predict("question -> answer: int").messages(question="2 + 2?"):
            ...     print(f"{message.role}: {message.content}")
            system: Given the fields `question`, produce the fields `answer`.
            <BLANKLINE>
            Input `question`
            Output `answer`: integer
            Answer with a JSON object with the key "answer".
            user: question: 2 + 2?
        """
        values = self.signature.validate_inputs(inputs)
        return (*self._prepared()[0], self.adapter.question(self.signature, values))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)

    # -- a value ---------------------------------------------------------------------------------------------------

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Return itself, under the path `"self"`."""
        return [("self", self)]

    def map_predictors(self, function: Callable[[str, Predict], Predict]) -> Self:
        """Return `function("self", self)`."""
        return function("self", self)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def replace_demos(self, demos: Iterable[Mapping[str, Any]]) -> Self:
        """Return a copy with these demos, checked.

        Raises:
            SignatureError: If a demo lacks a field or has an invalid value.
        """
        return self.replace(demos=_demos(self.signature, demos))

    def configured(self, **config: Any) -> Self:
        """Return a copy with other parameters, checked as in the constructor.

        Raises:
            ProgramError: If there is no such parameter, or a value is out of range.
        """
        for name in config:
            if name not in _CONFIG:
                raise ProgramError(f"no parameter {name!r}; there are {', '.join(_CONFIG)}")
        checked = Predict(self.signature, **{**{name: getattr(self, name) for name in _CONFIG}, **config})
        return self.replace(**{name: getattr(checked, name) for name in _CONFIG})

    def dump_predictor(self) -> dict[str, Any]:
        """Return the contract, the demos and the parameters as JSON data."""
        signature = self.signature
        return {
            "signature": signature.dump_state(),
            "demos": [{**signature.dump_inputs(demo), **signature.dump_outputs(demo)} for demo in self.demos],
            "client": self.client,
            "adapter": self.adapter.name,
            "config": {
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "max_reasks": self.max_reasks,
                "rollout": self.rollout,
            },
        }

    def filled(self, saved: Mapping[str, Any], where: str) -> Self:
        """Return a copy with what `dump_predictor` once returned; fields are matched by name.

        Args:
            saved: What it returned.
            where: The file and the path, for messages.

        Raises:
            ProgramError: If it is for other fields, or needs an adapter that is not known.
            SignatureError: If a demo in it does not fit.
        """
        try:
            contract, adapter = saved["signature"], self._adapter_called(saved["adapter"], where)
            _same_fields(self.signature, contract["fields"], where)
            signature = self.signature
            for field in contract["fields"]:
                if field["desc"] != signature.fields[field["name"]].desc:
                    signature = signature.with_updated_field(field["name"], desc=field["desc"])
            if contract["instructions"] != signature.instructions:
                signature = signature.with_instructions(contract["instructions"])
            demos = [signature.read_json(demo) for demo in saved["demos"]]
            filled = Predict(signature, client=saved["client"], adapter=adapter, demos=demos, **saved["config"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ProgramError(f"{where}: not a saved predictor: {error!r}") from error
        return self.replace(**vars(filled))

    def _adapter_called(self, name: str, where: str) -> Adapter:
        known = {**ADAPTERS, self.adapter.name: self.adapter}
        if name not in known:
            raise ProgramError(f"{where}: unknown adapter {name!r}; known: {', '.join(known)}")
        return known[name]

    def __repr__(self) -> str:
        """Print the signature and how many demos."""
        demos = f", {len(self.demos)} demos" if self.demos else ""
        return f"Predict({self.signature.signature!r}{demos})"

    def _line(self) -> str:
        demos = f"  {len(self.demos)} demos" if self.demos else ""
        return f"Predict  {self.signature.signature}{demos}"


def _contract(signature: object) -> type[Signature]:
    if isinstance(signature, str):
        return Signature(signature)
    if isinstance(signature, SignatureMeta) and signature is not Signature:
        return signature  # type: ignore[return-value]
    raise SignatureError(f"{signature!r} is no signature; give a Signature class or 'inputs -> outputs'")


def _check(name: str, value: object, allowed: str, *, ok: bool) -> None:
    if not ok:
        raise ProgramError(f"{name}={value!r}; allowed: {allowed}")


def _name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _adapter(value: object) -> bool:
    return isinstance(value, Adapter)


def _integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _explained(error: AdapterParseError, response: LMResponse, attempts: list[str], usage: Usage) -> AdapterParseError:
    """Add to an error what the adapter cannot know: that the answer was cut off, and what was said before."""
    if response.finish_reason == "length":
        detail = f"{error.detail}; the answer was cut off at its longest, max_tokens would have to be larger"
        error = AdapterParseError(error.signature, error.text, error.missing, detail)
    elif response.finish_reason in {"refusal", "content_filter"}:
        detail = f"{error.detail}; the provider refuses to have this answered ({response.finish_reason})"
        error = AdapterParseError(error.signature, error.text, error.missing, detail)
    vars(error).update(attempts=tuple(attempts), usage=usage)
    return error


def _demos(signature: type[Signature], demos: Iterable[Mapping[str, Any]]) -> tuple[Example, ...]:
    return tuple(_demo(signature, number, demo) for number, demo in enumerate(demos, 1))


def _demo(signature: type[Signature], number: int, demo: Mapping[str, Any]) -> Example:
    """Keep the signature's fields of a demo, validated, if they can also be written as JSON and read again."""
    try:
        inputs = signature.validate_inputs({name: demo[name] for name in signature.input_fields if name in demo})
        outputs = signature.validate_outputs({name: demo[name] for name in signature.output_fields if name in demo})
        signature.read_json({**signature.dump_inputs(inputs), **signature.dump_outputs(outputs)})
    except SignatureError as error:
        raise SignatureError(f"demo {number}: {error}") from None
    return Example(inputs, **outputs).with_inputs(*inputs)


def _same_fields(signature: type[Signature], saved: Iterable[Mapping[str, Any]], where: str) -> None:
    """Refuse a contract with other fields, types, sides or constraints."""
    own = {field.name: _words(field.side, field.type, dict(field.constraints)) for field in signature.fields.values()}
    theirs = {field["name"]: _words(field["side"], field["type"], field.get("constraints", {})) for field in saved}
    details = [
        f"{name}: {theirs.get(name, 'absent')} in the file, {own.get(name, 'absent')} in the program"
        for name in dict.fromkeys([*own, *theirs])
        if own.get(name) != theirs.get(name)
    ]
    if details:
        raise ProgramError(f"{where}: the fields differ: {'; '.join(details)}")


def _words(side: str, kind: str, constraints: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{name}={value!r}" for name, value in constraints.items())
    return f"{side} {kind} ({limits})" if limits else f"{side} {kind}"
