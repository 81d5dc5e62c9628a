"""`Code`: a program text as a field, in a language or in any. Pure."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from otpy.errors import SignatureError
from otpy.lm import Text
from otpy.types.text import TextType
from otpy.types.values import allowed_values

if TYPE_CHECKING:
    import typing_extensions

    from otpy.lm import Part

    L = typing_extensions.TypeVar("L", bound=str, default=Any)
else:
    L = TypeVar("L")

__all__ = ["Code"]

_OPENED: Final = re.compile(r"^[ \t]*```[^\n]*\n", re.MULTILINE)
_CLOSED: Final = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
_LANGUAGE: Final = re.compile(r"[\w+#.-]+")


class Code(TextType, Generic[L]):
    r"""A program text; a fence of backticks around it, and whatever stands outside of it, is taken away.

    `Code["python"]` is the type of those in Python, so that the model is told the language; type checkers want
    `Code[Literal["python"]]`, which is the same.

    Args:
        code: The text.

    Example:
        >>> from otpy.types import Code
        >>> Code["python"]("Sure:\n```python\nprint(1)\n```").code
        'print(1)'
        >>> Code["python"].language, Code["python"] is Code["python"]
        ('python', True)
    """

    language: ClassVar[str] = ""
    """The language; empty if any will do."""

    code: str

    if TYPE_CHECKING:

        def __init__(self, code: str, /) -> None: ...  # noqa: D107 - as its base does, for the checkers

    @classmethod
    def read_text(cls, text: str) -> str:
        """Return what stands inside the first fence; all of it, if there is none."""
        opened = _OPENED.search(text)
        closed = opened and _CLOSED.search(text, opened.end())  # if the first has no end, none behind it has
        return text[opened.end() : closed.start()].removesuffix("\n") if opened and closed else text

    @classmethod
    def form(cls) -> str:
        """Return what the model is told of such a text."""
        return f"{cls.language} code".strip()

    def parts(self) -> tuple[Part, ...]:
        """Return the text, in a fence."""
        return (Text(f"```{self.language}\n{self.code}\n```"),)

    def __class_getitem__(cls, language: Any) -> Any:
        """Return the type of code in one language."""
        listed = allowed_values(language)
        name = listed[0] if len(listed) == 1 else language
        if not isinstance(name, str) or not _LANGUAGE.fullmatch(name):
            raise SignatureError(f"Code[{name!r}]; allowed: a language's name, as in Code['python']")
        return _in_language(name.lower())

    def __reduce__(self) -> Any:
        """Pickle it by its language, because its class has no name of its own."""
        return _code, (self.language, self.code)


@functools.cache
def _in_language(language: str) -> type[Code[Any]]:
    kind = type(
        f"Code[{language!r}]",
        (Code,),
        {
            "language": language,
            "__module__": __name__,
            "__doc__": Code.__doc__,
            "__annotations__": {"language": "ClassVar[str]"},
        },
    )
    return cast("type[Code[Any]]", kind)


def _code(language: str, code: str) -> Code[Any]:
    return (_in_language(language) if language else Code)(code)
