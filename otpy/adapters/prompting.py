"""What our adapters share: where the words, the demos and the native parts of a conversation go. Pure.

An adapter of this family says four things: what the system turn holds, how inputs are laid out, how outputs are
written, and how they are read. Adapters of other families implement `Adapter` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.adapters.content import Pieces, joined, message, plain, shown
from otpy.adapters.native import is_history, native_fields
from otpy.adapters.wording import described, output_shapes
from otpy.adapters.words import ENGLISH, Words
from otpy.errors import SignatureError
from otpy.lm import Message, Text, ToolResult, ToolUse
from otpy.signatures.record import Record, Unfit
from otpy.types.history import History

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.adapters.native import NativeFields
    from otpy.adapters.reading import Reader
    from otpy.lm import OutputSchema, Part
    from otpy.signatures import FieldSpec, SignatureMeta
    from otpy.types.kind import Native

__all__ = ["Prompting"]

_PLACES: Final = ("turns", "inline")
_KINDS: Final[dict[tuple[bool, bool], frozenset[Native]]] = {
    (False, False): frozenset(),
    (True, False): frozenset({"tool_calls"}),
    (False, True): frozenset({"reasoning"}),
    (True, True): frozenset({"tool_calls", "reasoning"}),
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prompting:
    """The conversation of an adapter: a system turn, the demos, the question.

    Args:
        words: The phrases around the signature's own, in one language.
        demos: `"turns"` has each demo as a question and its answer, `"inline"` all of them in the system turn.
        native_tools: Whether tools are sent to the provider as such, and `ToolCalls` taken from the answer's own parts.
        native_reasoning: Whether `Reasoning` is what the provider shows of the model's thought.

    Raises:
        SignatureError: If one of them is not allowed.
    """

    words: Words = ENGLISH
    demos: Literal["turns", "inline"] = "turns"
    native_tools: bool = False
    native_reasoning: bool = False

    def __post_init__(self) -> None:
        """Check everything."""
        name = type(self).__name__
        if not isinstance(self.words, Words):
            raise SignatureError(f"{name}(words={self.words!r:.80}): a table of phrases, such as ENGLISH or GERMAN")
        if self.demos not in _PLACES:
            raise SignatureError(f"{name}(demos={self.demos!r}): allowed: 'turns', 'inline'")
        for option in ("native_tools", "native_reasoning"):
            if not isinstance(getattr(self, option), bool):
                raise SignatureError(f"{name}({option}={getattr(self, option)!r}): True or False")

    def __repr__(self) -> str:
        """Print what differs from the adapter as it comes."""
        given = ((field.name, field.default, getattr(self, field.name)) for field in fields(self))
        said = (f"{name}={_short(value)}" for name, default, value in given if value != default)
        return f"{type(self).__name__}({', '.join(said)})"

    @property
    def native(self) -> frozenset[Native]:
        """The parts of an answer that it reads beside the text."""
        return _KINDS[self.native_tools, self.native_reasoning]

    def _native(self, signature: SignatureMeta) -> NativeFields:
        return native_fields(self, signature)  # type: ignore[arg-type]  # what is missing, subclasses have

    # -- what subclasses say ---------------------------------------------------------------------------------------

    def _form(self, signature: SignatureMeta) -> list[str]:
        """The lines of the system turn that say what the outputs are, and how to write them."""
        raise NotImplementedError

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        """The inputs of one question."""
        raise NotImplementedError

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:
        """Outputs, as JSON data, in the way the model is to write them; in an incomplete demo some are no such data."""
        raise NotImplementedError

    def _read(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _reader(self, signature: SignatureMeta) -> Reader:
        raise NotImplementedError

    def fits(self, signature: SignatureMeta) -> None:
        """Refuse a signature that this adapter cannot put; a program asks when it is made.

        Args:
            signature: The contract.
        """

    # -- an adapter ------------------------------------------------------------------------------------------------

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the instructions and the demos, incomplete ones first.

        Raises:
            SignatureError: If a demo does not fit, or would have to be inline and is no text.
        """
        self.fits(signature)
        system = "\n".join(self._system(signature))
        names = {field.name for field in self._inputs(signature)} | signature.output_fields.keys()
        ordered = sorted(demos, key=lambda demo: names <= demo.keys())  # stable: incomplete ones come first
        if self.demos == "inline":
            return (Message("system", "\n".join([system, *self._inline(signature, ordered)])),)
        turns = [Message("system", system)]
        for demo in ordered:
            turns.extend(self.exchange(signature, demo))
        return tuple(turns)

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return the turn that asks.

        Raises:
            SignatureError: If an input is missing, or can't be shown.
        """
        return message("user", self._asked(signature, inputs, signature.dump_inputs(inputs)))

    def exchange(
        self, signature: SignatureMeta, values: Mapping[str, Any], *, demo: bool = True
    ) -> tuple[Message, ...]:
        """Return a question and its answer as they once were.

        Args:
            signature: The contract.
            values: Inputs and outputs by name; outputs that are not known are said to be so.
            demo: Whether it is to show the task, so that it must say where it is incomplete; a turn of a conversation
                is what it is.

        Raises:
            SignatureError: If a value does not fit its field.
        """
        asked, said, beside = self._told(signature, values, demo=demo)
        turns = [message("user", asked), message("assistant", (*said, *beside))]
        uses = [part for part in beside if isinstance(part, ToolUse)]
        if uses:  # providers refuse the use of a tool of which nothing came
            results = (ToolResult(use.id, use.name, self.words.not_given) for use in uses)
            turns.append(message("user", tuple(results)))
        return tuple(turns)

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:  # noqa: ARG002 - the adapters' signature
        """Return nothing: the answer is text."""
        return None

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return what the model should have said; nothing of what travels beside the text.

        Raises:
            SignatureError: If an output is missing, or can't be written.
        """
        written = self._native(signature).plain
        return "" if written is None else self._written(written, written.dump_outputs(outputs))

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the text of an answer.

        Raises:
            AdapterParseError: If it does not fulfil the signature.
        """
        written = self._native(signature).plain if self.native else signature
        return {} if written is None else self._read(written, text)

    def reader(self, signature: SignatureMeta) -> Reader:
        """Return a reader of one answer that arrives in pieces.

        Raises:
            SignatureError: If no output is written in the text.
        """
        written = self._native(signature).plain
        if written is None:
            raise SignatureError(f"{signature.__name__}: every output travels beside the text; there is none to read")
        return self._reader(written)

    # -- the words of a conversation -------------------------------------------------------------------------------

    def _system(self, signature: SignatureMeta) -> list[str]:
        written = self._native(signature).plain
        instructions = signature.instructions if written is None else written.instructions
        lines = [instructions, "", *self._given(self._inputs(signature))]
        return lines if written is None else [*lines, *self._form(written)]

    def _given(self, fields: Iterable[FieldSpec]) -> list[str]:
        """The lines of the system turn that say what the inputs are."""
        return [self.words.input.format(field=text) for text in self._described(fields)]

    def _described(self, fields: Iterable[FieldSpec]) -> list[str]:
        return [described(field, words=self.words) for field in fields]

    def _wanted(self, signature: SignatureMeta) -> dict[str, str]:
        """What is said of each output."""
        shapes = output_shapes(signature, self.words)
        return {name: described(field, shapes[name], self.words) for name, field in signature.output_fields.items()}

    def _inputs(self, signature: SignatureMeta) -> list[FieldSpec]:
        """The inputs that are shown in the text."""
        native = self._native(signature).inputs
        return [field for name, field in signature.input_fields.items() if name not in native and not is_history(field)]

    def _asked(self, signature: SignatureMeta, inputs: Mapping[str, Any], data: Mapping[str, Any]) -> Pieces:
        native = self._native(signature).inputs
        return self._layout(
            {
                name: shown(inputs[name], data[name])
                for name in signature.input_fields
                if name in data and name not in native and not isinstance(inputs[name], History)
            }
        )

    def _inline(self, signature: SignatureMeta, demos: Iterable[Mapping[str, Any]]) -> list[str]:
        lines: list[str] = []
        for number, demo in enumerate(demos, 1):
            asked, said, beside = self._told(signature, demo, demo=True)
            told = "\n".join(plain(pieces, f"demo {number}") for pieces in (asked, said, beside) if pieces)
            lines += ["", self.words.example.format(number=number), told]
        return lines

    def _told(
        self, signature: SignatureMeta, values: Mapping[str, Any], *, demo: bool
    ) -> tuple[Pieces, Pieces, tuple[Part, ...]]:
        """What was asked, what was said, and what came beside the text."""
        native = self._native(signature)
        known = _known(signature, values)
        asked = self._asked(signature, {name: value for name, (value, _) in known.items()}, _data(known))
        whole = {field.name for field in self._inputs(signature)} | signature.output_fields.keys()
        if demo and not whole <= known.keys():
            more = ("\n\n", *asked) if asked else ()
            asked = (self.words.incomplete, *more)
        said: Pieces = ()
        if native.plain is not None:
            names = native.plain.output_fields
            data = {name: _data(known).get(name, self.words.not_given) for name in names if demo or name in known}
            said = (self._written(native.plain, data),) if data else ()
        beside: list[Part] = []
        for name, _ in native.outputs:
            parts = known[name][0].parts() if name in known and known[name][0] is not None else ()
            beside += [part for part in parts if isinstance(part, ToolUse)]  # thoughts are not sent back without proof
        if not (joined(said) or beside):
            beside = [Text(self.words.nothing)]  # several providers refuse a turn without content
        return asked or (self.words.nothing,), said, tuple(beside)


def _short(value: object) -> str:
    return f"Words({value.language!r})" if isinstance(value, Words) else repr(value)


def _data(known: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {name: data for name, (_, data) in known.items()}


def _known(signature: SignatureMeta, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that are given, each with its value and the same as JSON data."""
    fields = signature.fields
    if values.keys() >= fields.keys():
        data = {**signature.dump_inputs(values), **signature.dump_outputs(values)}
        return {name: (values[name], data[name]) for name in fields}
    return {name: _dumped(field, values[name]) for name, field in fields.items() if name in values}


@lru_cache(maxsize=512)
def _record(field: FieldSpec) -> Record:
    return Record("demo", __name__, [field])


def _dumped(field: FieldSpec, value: Any) -> tuple[Any, Any]:
    """A value of a field, validated, and the same as JSON data."""
    record = _record(field)
    try:
        valid = record.validated({field.name: value})
        return valid[field.name], record.dumped(valid)[field.name]
    except Unfit as unfit:
        raise SignatureError(unfit.detail) from None
