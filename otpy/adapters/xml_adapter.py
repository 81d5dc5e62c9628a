"""`XMLAdapter`: every output in an element of its own, for models that were trained on tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.adapters.finding import read_object, without_thought
from otpy.adapters.prompting import Prompting
from otpy.adapters.sections import read_sections
from otpy.adapters.streaming import TagReader
from otpy.adapters.tags import OPENED, content_of, end_of, read_tags, write_tags
from otpy.errors import AdapterParseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.adapters.content import Pieces
    from otpy.adapters.reading import Reader
    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["XMLAdapter"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class XMLAdapter(Prompting):
    """Asks for one element a field; objects and lists are elements in it.

    Args:
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: As in `Prompting`.
        native_reasoning: As in `Prompting`.

    Example:
        >>> from otpy.adapters import XMLAdapter
        >>> from otpy.signatures import Signature
        >>> qa = Signature("question -> answer, years: list[int]", "Answer.")
        >>> print(XMLAdapter().render(qa, {"answer": "R&D", "years": [1815, 1852]}))
        <answer>R&amp;D</answer>
        <years><item>1815</item><item>1852</item></years>
        >>> XMLAdapter().parse(qa, "<answer>R&D</answer><years>[1815, 1852]</years>")
        {'answer': 'R&D', 'years': [1815, 1852]}
    """

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "xml"

    def _given(self, fields: Iterable[FieldSpec]) -> list[str]:
        return [self.words.inputs, *(f"- {line}" for line in self._described(fields))]

    def _form(self, signature: SignatureMeta) -> list[str]:
        lines = [self.words.outputs, *(f"- {text}" for text in self._wanted(signature).values())]
        lines += ["", self.words.answer_with_tags, ""]
        schema = signature.output_schema().schema.shared
        for name, part in schema["properties"].items():
            lines.append(f"<{name}>{_example(name, part, schema.get('$defs', {}))}</{name}>")
        return lines

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        """One element an input."""
        pieces: Pieces = ()
        for name, value in inputs.items():
            gap = "\n" if pieces else ""
            pieces = (*pieces, f"{gap}<{name}>", *value, f"</{name}>")
        return pieces

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:
        schema = signature.output_schema().schema.shared
        kinds, definitions = schema["properties"], schema.get("$defs", {})
        elements = (f"<{name}>{write_tags(value, kinds[name], definitions)}</{name}>" for name, value in data.items())
        return "\n".join(elements)

    def _read(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """The elements; or the JSON object that some models answer with whatever they are asked for."""
        said = without_thought(text) or ""
        schema = signature.output_schema().schema.shared
        kinds, definitions = schema["properties"], schema.get("$defs", {})
        sections = _sections(said, kinds)
        if not sections and said:
            try:
                return read_object(signature, said, text)
            except AdapterParseError:
                pass  # then it is told of the elements it was asked for
        missing = tuple(name for name in kinds if name not in sections)
        if missing:
            wanted = ", ".join(f"<{name}>…</{name}>" for name in missing)
            raise AdapterParseError(signature.__name__, text, missing, f"no element {wanted} in the answer")
        values = {name: read_tags(sections[name], kind, definitions) for name, kind in kinds.items()}
        plain = {name: content_of(content) for name, content in sections.items()}
        return read_sections(signature, values, plain, text)

    def _reader(self, signature: SignatureMeta) -> Reader:
        return TagReader(signature)


def _sections(text: str, kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The content of the first element of each name, none of them inside another."""
    sections: dict[str, str] = {}
    at = 0
    while opened := OPENED.search(text, at):
        at = opened.end()
        name = opened.group(1)
        if name not in kinds or name in sections:
            continue
        if opened.group(2):
            sections[name] = ""
            continue
        end = end_of(text, name, at, nested=kinds[name].get("type") != "string")
        if end is not None:
            sections[name], at = text[at : end.start()], end.end()
    return sections


def _example(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The form of an element's content."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "array" and "items" in schema:
        return "<item>…</item>"
    if "properties" in schema:
        return "".join(f"<{key}>{{{key}}}</{key}>" for key in schema["properties"])
    return f"{{{name}}}"
