"""`Reasoning`: what a model thought before it answered, as a field. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from otpy.types.text import TextType

if TYPE_CHECKING:
    from otpy.types.kind import Native

__all__ = ["Reasoning"]


class Reasoning(TextType):
    """What the model thought: its own reasoning where the provider shows it, else a text that it was asked to write.

    It behaves as the text it is: it is equal to it, and has its methods.

    Args:
        text: The thought.

    Example:
        >>> from otpy.types import Reasoning
        >>> thought = Reasoning("Two and two. Four.")
        >>> thought == "Two and two. Four.", thought.split(". "), "Four" in thought, len(thought)
        (True, ['Two and two', 'Four.'], True, 18)
    """

    native: ClassVar[Native | None] = "reasoning"

    text: str

    if TYPE_CHECKING:

        def __init__(self, text: str, /) -> None: ...  # noqa: D107 - as its base does, for the checkers

    def __eq__(self, other: object) -> bool:
        """Whether the text is the same."""
        if isinstance(other, (str, Reasoning)):
            return self.text == str(other)
        return NotImplemented

    def __hash__(self) -> int:
        """As the text."""
        return hash(self.text)

    def __len__(self) -> int:
        """Count the characters."""
        return len(self.text)

    def __contains__(self, piece: str) -> bool:
        """Whether a piece of text stands in it."""
        return piece in self.text

    def __getitem__(self, where: int | slice) -> str:
        """Return a piece."""
        return self.text[where]

    def __add__(self, other: object) -> str:
        """Return the text with another behind it."""
        return self.text + str(other) if isinstance(other, (str, Reasoning)) else NotImplemented

    def __radd__(self, other: object) -> str:
        """Return the text with another before it."""
        return other + self.text if isinstance(other, str) else NotImplemented

    def __format__(self, spec: str) -> str:
        """Format the text."""
        return format(self.text, spec)

    def __getattr__(self, name: str) -> Any:
        """Return a method of the text."""
        if not name.startswith("_") and hasattr(str, name):
            return getattr(self.text, name)
        raise AttributeError(f"Reasoning has no {name!r}; it has .text, and what a text has")
