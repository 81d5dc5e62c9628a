"""`Predict`: one question to one model, by the contract of a signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.adapters import Adapter, JSONAdapter, repair
from otpy.clients.running import running
from otpy.errors import AdapterParseError, ProgramError, SignatureError
from otpy.lm import LMRequest, Usage
from otpy.programs.program import Program
from otpy.programs.trace import record
from otpy.signatures import Example, Prediction, Signature, SignatureMeta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import Self

    from otpy.lm import Message, OutputSchema

__all__ = ["Predict"]

_CONFIG: Final = ("temperature", "max_tokens", "max_reasks", "rollout", "adapter")


class Predict(Program):
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

    signature: SignatureMeta
    client: str
    adapter: Adapter
    demos: tuple[Example, ...]
    max_reasks: int
    temperature: float | None
    max_tokens: int | None
    rollout: int

    def __init__(  # noqa: PLR0913 - each is a parameter of the question
        self,
        signature: SignatureMeta | str,
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
        if isinstance(signature, str):
            signature = Signature(signature)  # type: ignore[assignment]
        if not isinstance(signature, SignatureMeta) or signature is Signature:
            raise SignatureError(f"{signature!r} is no signature; give a Signature class or 'inputs -> outputs'")
        self.signature = signature
        self.client = client
        self.adapter = JSONAdapter() if adapter is None else adapter
        self.demos = tuple(_demo(signature, number, demo) for number, demo in enumerate(demos, 1))
        _check("max_reasks", max_reasks, "an integer >= 0", isinstance(max_reasks, int) and max_reasks >= 0)
        _check("max_tokens", max_tokens, "an integer >= 1, or None",
               max_tokens is None or (isinstance(max_tokens, int) and max_tokens >= 1))  # fmt: skip
        _check("temperature", temperature, "a number >= 0, or None",
               temperature is None or (isinstance(temperature, (int, float)) and temperature >= 0))  # fmt: skip
        _check("rollout", rollout, "an integer", isinstance(rollout, int))
        _check("client", client, "the name of a client", isinstance(client, str) and bool(client))
        self.max_reasks = max_reasks
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.rollout = rollout

    # -- calling ---------------------------------------------------------------------------------------------------

    async def forward(self, **inputs: Any) -> Prediction:
        """Ask, and ask again if the answer does not fulfil the signature."""
        signature, adapter = self.signature, self.adapter
        values = signature.validate_inputs(inputs)
        prefix, schema = self._prepared()
        messages = (*prefix, adapter.question(signature, values))
        application = running()
        attempts: list[str] = []
        usage = Usage()
        while True:
            response = await application.ask(
                self.client,
                LMRequest(messages, schema, self.temperature, self.max_tokens, rollout=self.rollout),
            )
            attempts.append(response.text)
            usage = usage + response.usage
            try:
                outputs = adapter.parse(signature, response.text)
            except AdapterParseError as error:
                error.attempts = tuple(attempts)
                if len(attempts) > self.max_reasks:
                    raise
                messages = (*messages, *repair(response.text, error))
                continue
            prediction = Prediction(outputs, usage=usage, attempts=tuple(attempts))
            record(self, values, prediction)
            return prediction

    def _prepared(self) -> tuple[tuple[Message, ...], OutputSchema | None]:
        """The part of the question that is the same for all inputs, made once."""
        prepared = self.__dict__.get("_prepared_prefix")
        if prepared is None:
            prepared = (self.adapter.prefix(self.signature, self.demos), self.adapter.schema(self.signature))
            object.__setattr__(self, "_prepared_prefix", prepared)
        return prepared  # type: ignore[no-any-return]

    def messages(self, **inputs: Any) -> tuple[Message, ...]:
        """Return the conversation that would be sent, without sending it.

        Raises:
            SignatureError: If the inputs are not those of the signature.
        """
        values = self.signature.validate_inputs(inputs)
        return (*self._prepared()[0], self.adapter.question(self.signature, values))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.signature.input_fields)

    # -- a value ---------------------------------------------------------------------------------------------------

    def _walk_self(self) -> Iterator[tuple[str, Predict]]:
        yield "self", self

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Return itself, under the path `"self"`."""
        return list(self._walk_self())

    def map_predictors(self, function: Callable[[str, Predict], Predict]) -> Self:
        """Return `function("self", self)`."""
        return function("self", self)  # type: ignore[return-value]

    def replace_demos(self, demos: Iterable[Mapping[str, Any]]) -> Predict:
        """Return a copy with these demos, checked."""
        return self.replace(demos=tuple(_demo(self.signature, number, demo) for number, demo in enumerate(demos, 1)))

    def configured(self, **config: Any) -> Predict:
        """Return a copy with other parameters, checked as in the constructor."""
        for name in config:
            if name not in _CONFIG:
                raise ProgramError(f"no parameter {name!r}; there are {', '.join(_CONFIG)}")
        return Predict(
            self.signature,
            client=self.client,
            demos=self.demos,
            **{**{name: getattr(self, name) for name in _CONFIG}, **config},
        )

    def dump_predictor(self) -> dict[str, Any]:
        """Return the contract, the demos and the parameters as JSON data."""
        return {
            "signature": self.signature.dump_state(),
            "demos": [
                {**self.signature.dump_inputs(demo), **self.signature.dump_outputs(demo)} for demo in self.demos
            ],
            "client": self.client,
            "adapter": self.adapter.name,
            "config": {
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "max_reasks": self.max_reasks,
                "rollout": self.rollout,
            },
        }

    def __repr__(self) -> str:
        """Print the signature and how many demos."""
        demos = f", {len(self.demos)} demos" if self.demos else ""
        return f"Predict({self.signature.signature!r}{demos})"


def _check(name: str, value: object, allowed: str, ok: bool) -> None:  # noqa: FBT001 - a test and its words
    if not ok or isinstance(value, bool):
        raise ProgramError(f"{name}={value!r}; allowed: {allowed}")


def _demo(signature: SignatureMeta, number: int, demo: Mapping[str, Any]) -> Example:
    """Keep the signature's fields of a demo, validated."""
    known = {name: demo[name] for name in signature.fields if name in demo}
    try:
        inputs = signature.validate_inputs({name: known[name] for name in signature.input_fields if name in known})
        outputs = signature.validate_outputs({name: known[name] for name in signature.output_fields if name in known})
    except SignatureError as error:
        raise SignatureError(f"demo {number}: {error}") from None
    return Example(inputs, **outputs).with_inputs(*inputs)
