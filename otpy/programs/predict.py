"""`Predict`: one question to one model, by the contract of a signature."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Generic, Self, cast

from otpy.adapters import Adapter, JSONAdapter, adapter_of, asked, native_fields, state_of
from otpy.adapters.prompting import Prompting
from otpy.errors import ProgramError, SignatureError
from otpy.programs.constraints import checked_constraints
from otpy.programs.demos import demos_of, dumped_demo, read_demo
from otpy.programs.parameters import UnknownParameter
from otpy.programs.program import Program
from otpy.programs.question import Question
from otpy.signatures import Signature, SignatureMeta
from otpy.signatures.decisions import logprobs_for
from otpy.signatures.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from otpy.adapters import NativeFields
    from otpy.lm import Message, OutputSchema
    from otpy.programs.constraints import Constraint
    from otpy.signatures import Example, Prediction

__all__ = ["Predict"]

_FURTHER: Final[Mapping[str, Any]] = {"n": 1, "top_p": None, "seed": None, "stop": (), "reasoning": None}
_CONFIG: Final = (
    *("client", "adapter", "max_reasks", "temperature", "max_tokens", "rollout"),
    *(*_FURTHER, "constraints"),
)

_USUAL: Final[Mapping[str, Any]] = {
    "client": "default",
    "adapter": JSONAdapter(),
    "max_reasks": 1,
    "temperature": None,
    "max_tokens": None,
    "rollout": 0,
    **_FURTHER,
    "constraints": (),
}


class Predict(Program, Generic[Returned]):
    """Asks a model to fill the outputs of a signature.

    Args:
        signature: A `Signature` class, or a string form such as `"question -> answer"`.
        client: The name of the client to ask.
        adapter: How to put the question; `JSONAdapter()` unless told otherwise.
        demos: Examples of the task, each with fields of the signature; those that lack some come first, and say so.
        max_reasks: How often a model whose answer does not fulfil the signature is told so and asked again.
        temperature: Sampling temperature; the client's own if `None`.
        max_tokens: Longest answer, in tokens; the client's own if `None`.
        rollout: Another number is another asking of the same thing: it gets past the cache, and is not sent.
        n: How many answers to ask for at once; those that will do are the prediction's `completions`.
        top_p: Nucleus sampling; the provider's own if `None`.
        seed: For sampling that repeats, where the provider can.
        stop: Texts that end an answer.
        reasoning: How hard to think, in the provider's words (`"low"`, `"high"`); the provider's own if `None`.
        constraints: What an answer must be (`Assert`) and should be (`Suggest`), beyond its types.

    Raises:
        SignatureError: If the signature cannot be read, or a demo or the adapter does not fit it.
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
    n: int
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...]
    reasoning: str | None
    constraints: tuple[Constraint, ...]

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
        n: int = 1,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Iterable[str] = (),
        reasoning: str | None = None,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        """Check everything."""
        self.signature = _contract(signature)
        self.client = client
        self.adapter = JSONAdapter() if adapter is None else adapter
        self.demos = demos_of(self.signature, demos)
        self.max_reasks = max_reasks
        self.max_tokens = max_tokens
        self.rollout = rollout
        self.n, self.seed, self.reasoning = n, seed, reasoning
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        self.constraints = checked_constraints(constraints, self.signature)
        _check("client", client, "the name of a client", ok=_name(client))
        _check("adapter", self.adapter, "an Adapter, such as JSONAdapter() or ChatAdapter()", ok=_adapter(self.adapter))
        _check("max_reasks", max_reasks, "an integer >= 0", ok=_integer(max_reasks, 0))
        _check("max_tokens", max_tokens, "an integer >= 1, or None", ok=max_tokens is None or _integer(max_tokens, 1))
        _check("temperature", temperature, "a number >= 0, or None", ok=temperature is None or _number(temperature))
        _check("rollout", rollout, "an integer >= 0", ok=_integer(rollout, 0))
        _check("n", n, "an integer >= 1", ok=_integer(n, 1))
        _check("top_p", top_p, "a number from 0 to 1, or None", ok=top_p is None or (_number(top_p) and top_p <= 1))
        _check("seed", seed, "an integer, or None", ok=seed is None or type(seed) is int)
        _check("stop", stop, "texts", ok=all(isinstance(cast("Any", text), str) and text for text in self.stop))
        _check("reasoning", reasoning, "a text, as 'low', or None", ok=reasoning is None or _name(reasoning))
        self.temperature, self.top_p = _float(temperature), _float(top_p)
        if isinstance(self.adapter, Prompting):
            self.adapter.fits(self.signature)

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
        return await Question(self, self.signature.validate_inputs(inputs)).answer()

    def prepared(self) -> tuple[tuple[Message, ...], OutputSchema | None, NativeFields, int | None]:
        """Return what is the same for all inputs: how a question begins, its schema, what travels beside its text.

        The last is how many alternatives a token are asked for, if an output is a decision.
        """
        made: tuple[tuple[Message, ...], OutputSchema | None, NativeFields, int | None] | None
        made = self._memo.get("prepared")
        if made is None:
            adapter, signature = self.adapter, self.signature
            made = self._memo["prepared"] = (
                adapter.prefix(signature, self.demos),
                adapter.schema(signature),
                native_fields(adapter, signature),
                logprobs_for(signature),
            )
        return made

    @property
    def early(self) -> tuple[Constraint, ...]:
        """The constraints that are checked while an answer is being written."""
        return tuple(constraint for constraint in self.constraints if constraint.early) if self.constraints else ()

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
        return (*self.prepared()[0], *asked(self.adapter, self.signature, values))

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
        return self.replace(demos=demos_of(self.signature, demos))

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
            "demos": [dumped_demo(signature, demo) for demo in self.demos],
            "client": self.client,
            "adapter": state_of(self.adapter),
            "config": {
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "max_reasks": self.max_reasks,
                "rollout": self.rollout,
                **{name: value for name, usual in _FURTHER.items() if (value := getattr(self, name)) != usual},
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
            demos = [read_demo(signature, demo) for demo in saved["demos"]]
            config: dict[str, Any] = {**saved["config"], "constraints": self.constraints}
            filled = Predict(signature, client=saved["client"], adapter=adapter, demos=demos, **config)
        except (KeyError, TypeError, AttributeError, UnknownParameter) as error:
            raise ProgramError(f"{where}: not a saved predictor: {error!r}") from error
        return self.replace(**vars(filled))

    def _adapter_called(self, state: Any, where: str) -> Adapter:
        try:
            return adapter_of(state, self.adapter)
        except SignatureError as error:
            raise ProgramError(f"{where}: {error}") from None

    def __repr__(self) -> str:
        """Print the signature, how many demos, and the parameters that are not as they come."""
        demos = f", {len(self.demos)} demos" if self.demos else ""
        given = (f", {name}={getattr(self, name)!r}" for name, usual in _USUAL.items() if getattr(self, name) != usual)
        return f"{type(self).__name__}({self.signature.signature!r}{demos}{''.join(given)})"

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
    return isinstance(value, Adapter) and not isinstance(value, type)


def _integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _float(value: float | None) -> float | None:
    """One form of a number, as 1 and 1.0, 0.0 and -0.0 are equal and have to be written and hashed alike."""
    return None if value is None else float(value) + 0.0


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
