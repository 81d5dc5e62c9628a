"""The phrases an adapter puts around a signature, as a table: a prompt is in one language from end to end. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENGLISH", "GERMAN", "LANGUAGES", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    """Every phrase that adapters use, in one language.

    What stands in braces is filled in; a table whose phrases lack one of those marks, or have others, is refused.

    Args:
        language: Its code, by which saved programs know it, as in `"de"`.

    Raises:
        SignatureError: If a phrase is no text, or has other marks than the English one.

    Example:
        >>> from otpy.adapters import GERMAN, JSONAdapter
        >>> from otpy.signatures import Signature
        >>> adapter = JSONAdapter(words=GERMAN)
        >>> print(adapter.prefix(Signature("frage -> antwort: int", "Beantworte die Frage."), ())[0].content)
        Beantworte die Frage.
        <BLANKLINE>
        Eingabe `frage`
        Ausgabe `antwort`: ganze Zahl
        Antworte mit einem JSON-Objekt mit dem Schlüssel "antwort".
    """

    language: str = "en"

    input: str = "Input {field}"
    output: str = "Output {field}"
    inputs: str = "Inputs:"
    outputs: str = "Outputs:"
    example: str = "Example {number}"

    answer_with_key: str = "Answer with a JSON object with the key {names}."
    answer_with_keys: str = "Answer with a JSON object with the keys {names}."
    answer_with_sections: str = "Answer with one section for each output, in this order and form:"
    answer_with_tags: str = "Answer with one element for each output, in this order and form:"
    answer_with_shape: str = "Answer with a JSON object of this form:"
    answer_freely: str = "Answer in your own words, and say each of these things:"

    extract: str = "Take the outputs from an answer that was given to this task: {task}"
    the_answer: str = "the answer to read"

    incomplete: str = "This example is incomplete: not every field is given."
    not_given: str = "(not given in this example)"
    nothing: str = "(nothing)"
    again: str = "That does not fit: {detail}. Answer again."

    one_of: str = "one of {values}"
    either: str = " or "
    both: str = " and "
    text: str = "text"
    integer: str = "integer"
    number: str = "number"
    boolean: str = "true or false"
    null: str = "null"
    anything: str = "any JSON"

    gt: str = "greater than {}"
    ge: str = "at least {}"
    lt: str = "less than {}"
    le: str = "at most {}"
    multiple_of: str = "a multiple of {}"
    min_length: str = "of length at least {}"
    max_length: str = "of length at most {}"
    pattern: str = "matching {}"

    def __post_init__(self) -> None:
        """Refuse a phrase that would lose what is to be said in it."""
        for field in fields(self):
            phrase: Any = getattr(self, field.name)
            if not isinstance(phrase, str):
                raise SignatureError(f"Words.{field.name}={phrase!r}: a text")
            wanted = _marks(str(field.default))
            if field.name != "language" and _marks(phrase) != wanted:
                what = f"the marks {', '.join(wanted)}" if wanted else "no braces"
                raise SignatureError(f"Words.{field.name}={phrase!r}: it must have {what}, as in {field.default!r}")

    def constraints(self, constraints: tuple[tuple[str, Any], ...]) -> str:
        """Return a field's constraints in words.

        Args:
            constraints: Pairs such as `("ge", 0)`.
        """
        return ", ".join(str(getattr(self, name)).format(value) for name, value in constraints)

    def state(self) -> str | dict[str, str]:
        """Return its language if it is one of ours, else every phrase, as JSON data."""
        if LANGUAGES.get(self.language) == self:
            return self.language
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: str | Mapping[str, str]) -> Words:
        """Return the table that `state` described.

        Raises:
            SignatureError: If the language is none of ours, or a phrase is unknown.
        """
        if isinstance(state, str):
            if state not in LANGUAGES:
                raise SignatureError(f"words={state!r}: allowed: {', '.join(LANGUAGES)}, or a table of phrases")
            return LANGUAGES[state]
        unknown = state.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise SignatureError(f"Words({min(unknown)}=…): no such phrase")
        return cls(**state)


def _marks(phrase: str) -> list[str]:
    """The marks of a phrase, `{values}` and the like, sorted."""
    return sorted(piece.partition("}")[0].join("{}") for piece in phrase.split("{")[1:])


ENGLISH: Final = Words()
"""The phrases of an English prompt; the default."""

GERMAN: Final = Words(
    language="de",
    input="Eingabe {field}",
    output="Ausgabe {field}",
    inputs="Eingaben:",
    outputs="Ausgaben:",
    example="Beispiel {number}",
    answer_with_key="Antworte mit einem JSON-Objekt mit dem Schlüssel {names}.",
    answer_with_keys="Antworte mit einem JSON-Objekt mit den Schlüsseln {names}.",
    answer_with_sections="Antworte mit einem Abschnitt für jede Ausgabe, in dieser Reihenfolge und Form:",
    answer_with_tags="Antworte mit einem Element für jede Ausgabe, in dieser Reihenfolge und Form:",
    answer_with_shape="Antworte mit einem JSON-Objekt dieser Form:",
    answer_freely="Antworte in eigenen Worten, und sage dabei all dies:",
    extract="Entnimm die Ausgaben einer Antwort, die auf diese Aufgabe gegeben wurde: {task}",
    the_answer="die Antwort, die zu lesen ist",
    incomplete="Dieses Beispiel ist unvollständig: nicht jedes Feld ist gegeben.",
    not_given="(in diesem Beispiel nicht gegeben)",
    nothing="(nichts)",
    again="Das passt nicht: {detail}. Antworte noch einmal.",
    one_of="eines von {values}",
    either=" oder ",
    both=" und ",
    text="Text",
    integer="ganze Zahl",
    number="Zahl",
    boolean="true oder false",
    null="null",
    anything="beliebiges JSON",
    gt="größer als {}",
    ge="mindestens {}",
    lt="kleiner als {}",
    le="höchstens {}",
    multiple_of="ein Vielfaches von {}",
    min_length="mindestens {} lang",
    max_length="höchstens {} lang",
    pattern="passend zu {}",
)
"""The phrases of a German prompt."""

LANGUAGES: Final[dict[str, Words]] = {words.language: words for words in (ENGLISH, GERMAN)}
"""The tables that come with otpy, by language."""
