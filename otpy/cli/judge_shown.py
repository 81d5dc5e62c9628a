"""How a question to people is laid out as text: wrapped, cut where it is long, and harmless to a terminal."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from otpy.cli.screen import harmless

if TYPE_CHECKING:
    from otpy.teleprompters.questions import Question

__all__ = ["laid_out", "parts_of", "value_text"]


def value_text(value: Any) -> str:
    """Return a value as text: a text as it is, other things as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def parts_of(question: Question, *, show_label: bool) -> list[tuple[str, str, str]]:
    """Return what is shown with a question: what it is part of, its name, and its text.

    Args:
        question: The question.
        show_label: Whether what is known of the right answer is among it.
    """
    shown: dict[str, Any] = dict(question.shown)
    if show_label and question.label:
        shown["label"] = question.label
    return [(part, name, value_text(value)) for part, values in shown.items() for name, value in values.items()]


def laid_out(question: Question, *, width: int, height: int | None, show_label: bool) -> list[str]:
    r"""Return a question as lines.

    Args:
        question: The question.
        width: Letters in a line.
        height: Lines that it may take, about; `None` for all of it.
        show_label: Whether what is known of the right answer is shown.

    Example:
        >>> from otpy.cli.judge_shown import laid_out
        >>> from otpy.teleprompters.questions import about_score, choices_of
        >>> question = about_score(
        ...     "Good?", choices=choices_of(None, None), inputs={"word": "saw"}, outputs={"kind": "tool"}, label=None
        ... )
        >>> print("\n".join(laid_out(question, width=80, height=None, show_label=False)))
        inputs
          word: saw
        outputs
          kind: tool
    """
    parts = parts_of(question, show_label=show_label)
    most = None if height is None else max(4, height // max(len(parts), 1) - 1)
    lines: list[str] = []
    before = None
    for part, name, text in parts:
        if part != before:
            lines.append(part)
            before = part
        lines += _cut(_wrapped(f"{name}: {text}", width), most)
    return [harmless(line) for line in lines]


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for number, line in enumerate(text.expandtabs(4).split("\n")):
        indent = "  " if not number else "    "
        lines += textwrap.wrap(
            line, max(width, 20), initial_indent=indent, subsequent_indent="    ", drop_whitespace=False
        ) or [""]
    return lines


def _cut(lines: list[str], most: int | None) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"    … {len(lines) - most + 1} lines more: m shows all"]
