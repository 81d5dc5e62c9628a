"""`TemplateAdapter`: a conversation in one's own words, with the fields where one wants them."""

from __future__ import annotations

from dataclasses import KW_ONLY, InitVar, dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.prompting import Prompting
from otpy.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otpy.adapters.content import Pieces
    from otpy.adapters.reading import Reader
    from otpy.lm import OutputSchema
    from otpy.signatures import SignatureMeta

__all__ = ["TemplateAdapter"]

_MARKS: Final = ("instructions", "inputs", "outputs", "form")


@dataclass(frozen=True, slots=True, repr=False)
class TemplateAdapter(Prompting):
    r"""Puts the question by a template of the user's; the answer is read by another adapter.

    The system template may have the marks `{instructions}`, `{inputs}` and `{outputs}` (what is known of the fields)
    and `{form}` (outputs and how to write the answer, as the other adapter says it). The user template has every input
    by its name. A brace that is no mark is written twice, as in `str.format`.

    Args:
        system: The template of the system turn.
        user: The template of a question.
        answer: The adapter that says how the answer is written and reads it: `JSONAdapter()`, `ChatAdapter()`, ….
        signature: Check the marks against this contract at once; otherwise that is done when a program is made.
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: As in `Prompting`.
        native_reasoning: As in `Prompting`.

    Raises:
        SignatureError: If a template cannot be read, or has a mark that is unknown, or lacks an input.

    Example:
        >>> from otpy.adapters import TemplateAdapter
        >>> from otpy.signatures import Signature
        >>> qa = Signature("question, context -> answer", "Answer from the context.")
        >>> adapter = TemplateAdapter("{instructions}\n{form}", "Context: {context}\n\nQ: {question}", signature=qa)
        >>> print(adapter.question(qa, {"question": "Who?", "context": "Ada did it."}).content)
        Context: Ada did it.
        <BLANKLINE>
        Q: Who?
        >>> TemplateAdapter("{form}", "Q: {question}", signature=qa)
        Traceback (most recent call last):
        otpy.errors.SignatureError: TemplateAdapter: the user template lacks {context}; no model would see that input
    """

    system: str
    user: str
    _: KW_ONLY
    answer: Prompting = JSONAdapter()  # noqa: RUF009 - a frozen value
    signature: InitVar[SignatureMeta | None] = None

    def __post_init__(self, signature: SignatureMeta | None) -> None:
        """Read the templates."""
        Prompting.__post_init__(self)
        if not isinstance(self.answer, Prompting) or isinstance(self.answer, TemplateAdapter):
            raise SignatureError(f"TemplateAdapter(answer={self.answer!r:.80}): an adapter, such as JSONAdapter()")
        for name, template in (("system", self.system), ("user", self.user)):
            list(_pieces(name, template))
        unknown = [mark for mark in _marks("system", self.system) if mark not in _MARKS]
        if unknown:
            raise SignatureError(_unknown("system", unknown[0], _MARKS))
        if signature is not None:
            self.fits(signature)

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "template"

    def fits(self, signature: SignatureMeta) -> None:
        """Refuse a signature whose inputs are not those of the user template.

        Raises:
            SignatureError: If the template has a mark that is no input, or lacks one.
        """
        self.answer.fits(signature)
        marks, names = _marks("user", self.user), [field.name for field in self._inputs(signature)]
        for mark in marks:
            if mark not in names:
                raise SignatureError(_unknown("user", mark, names))
        for name in names:
            if name not in marks:
                what = f"the user template lacks {{{name}}}; no model would see that input"
                raise SignatureError(f"TemplateAdapter: {what}")

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema of the adapter that reads the answer."""
        written = self._native(signature).plain
        return None if written is None else self.answer.schema(written)

    def _system(self, signature: SignatureMeta) -> list[str]:
        written = self._native(signature).plain
        form = [] if written is None else self.answer._form(written)  # noqa: SLF001 - of the same family
        said = {
            "instructions": signature.instructions,
            "inputs": "\n".join(self._described(self._inputs(signature))),
            "outputs": "" if written is None else "\n".join(self._wanted(written).values()),
            "form": "\n".join(form),
        }
        return ["".join(text + said.get(mark, "") for text, mark in _pieces("system", self.system))]

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        pieces: list[Any] = []
        for text, mark in _pieces("user", self.user):
            pieces.append(text)
            if mark:
                pieces.extend(inputs.get(mark, (self.words.not_given,)))
        return tuple(pieces)

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:
        return self.answer._written(signature, data)  # noqa: SLF001 - of the same family

    def _read(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        return self.answer._read(signature, text)  # noqa: SLF001 - of the same family

    def _reader(self, signature: SignatureMeta) -> Reader:
        return self.answer._reader(signature)  # noqa: SLF001 - of the same family


def _pieces(which: str, template: object) -> Iterator[tuple[str, str]]:
    """The texts of a template, each with the mark behind it."""
    if not isinstance(template, str):
        raise SignatureError(f"TemplateAdapter({which}={template!r:.80}): a text with marks, as in '{{question}}'")
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise SignatureError(f"TemplateAdapter({which}=…): {error}; a brace that is no mark is written twice") from None
    for text, mark, form, conversion in pieces:
        if mark is not None and not (mark.isidentifier() and not form and conversion is None):
            shown = f"{{{mark}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
            raise SignatureError(
                f"TemplateAdapter({which}=…): the mark {shown}; a mark is a name alone, as {{question}}"
            )
        yield text, mark or ""


def _marks(which: str, template: str) -> list[str]:
    return [mark for _, mark in _pieces(which, template) if mark]


def _unknown(which: str, mark: str, known: Any) -> str:
    allowed = ", ".join(f"{{{name}}}" for name in known)
    return f"TemplateAdapter: the {which} template has {{{mark}}}; it may have {allowed}"
