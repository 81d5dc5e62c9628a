"""The history, shown: in a terminal and in a notebook, exactly what was sent and received.

Whatever a model or a user wrote is shown as text: it cannot style the page, run in it, or move the terminal's cursor.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

from otpy.lm import Media, Reasoning, Text, ToolResult, ToolUse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpy.clients.history import Exchange
    from otpy.lm import Choice, LMRequest, Message, Part

__all__ = ["HistoryView", "as_html", "as_text"]

FOLD: Final = 4_000
"""Characters of one text that are shown in a terminal; the middle of a longer one is left out, and it says so."""
FOLD_HTML: Final = 1_000
"""Characters of one text that are shown at once on a page; a longer one is folded, and opens at a click."""
_STYLE: Final = {
    "box": "border:1px solid #8886;border-radius:6px;margin:8px 0;padding:6px 10px;font-size:13px",
    "head": "color:#888",
    "role": "font-weight:600;margin-top:6px",
    "text": "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0 6px;font-family:ui-monospace,monospace",
    "error": "color:#c33",
}


class HistoryView(Sequence["Exchange"]):
    """Some exchanges that print as text and show as a page in a notebook.

    Args:
        exchanges: The exchanges, oldest first.
        note: What is to be said below them, as that some are missing; a part of the view doesn't have it.

    Example:
        >>> from otpy.clients.history import Exchange
        >>> from otpy.clients.history_view import HistoryView
        >>> from otpy.lm import LMRequest, LMResponse, Message
        >>> HistoryView([Exchange(LMRequest((Message("user", "2 + 2?"),)), LMResponse("4"), client="default")])
        ---- 1  default
        [user]
        2 + 2?
        [answer]
        4
    """

    def __init__(self, exchanges: Iterable[Exchange], *, note: str = "") -> None:
        """Hold them."""
        self._exchanges, self.note = tuple(exchanges), note

    @overload
    def __getitem__(self, index: int) -> Exchange: ...
    @overload
    def __getitem__(self, index: slice) -> HistoryView: ...
    def __getitem__(self, index: int | slice) -> Exchange | HistoryView:
        """Return one of them, or a part."""
        if isinstance(index, slice):
            return HistoryView(self._exchanges[index])
        return self._exchanges[index]

    def __len__(self) -> int:
        """Count them."""
        return len(self._exchanges)

    def __repr__(self) -> str:
        """Show them as text."""
        if not self.note:
            return as_text(self._exchanges)
        return "\n".join([*([as_text(self._exchanges)] if self._exchanges else []), self.note])

    def _repr_html_(self) -> str:
        if not self.note:
            return as_html(self._exchanges)
        return (as_html(self._exchanges) if self._exchanges else "") + _div("head", self.note)


# -- what is shown, in either form ----------------------------------------------------------------------------------


def _head(exchange: Exchange) -> str:
    """Say in one line who was asked, when, and what it took."""
    whom = f"{exchange.route} → {exchange.client}" if exchange.route else exchange.client
    facts = [" ".join(filter(None, (whom, exchange.model)))]
    if exchange.began is not None:
        facts.append(exchange.began.isoformat(sep=" ", timespec="seconds"))
    if exchange.cached:
        facts.append("from the cache")
    elif exchange.seconds is not None:
        facts.append(f"{exchange.seconds:.2f} s")
    if exchange.attempts > 1:
        facts.append(f"{exchange.attempts} attempts")
    usage = exchange.usage
    if usage is not None and usage.total_tokens:
        more = [f"{usage.cached_tokens:,} cached"] if usage.cached_tokens else []
        more += [f"{usage.reasoning_tokens:,} reasoning"] if usage.reasoning_tokens else []
        facts.append(
            f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written"
            + (f" ({', '.join(more)})" if more else "")
        )
    if exchange.money is not None:
        facts.append(f"${exchange.money.normalize():f}")
    facts += [f"{name} {value}" for name, value in exchange.labels._asdict().items() if value and name in _WHOSE]
    return "  ".join(filter(None, facts))


_WHOSE: Final = ("run", "program", "predictor", "example")


def _sections(exchange: Exchange) -> list[tuple[str, str]]:
    """Return titles and texts, in the order in which they were said."""
    found = _parameters(exchange.request)
    for message in exchange.request.messages:
        found += [(message.role + title, text) for title, text in _message(message)]
    if exchange.error is not None:
        found.append(("error", f"{type(exchange.error).__name__}: {exchange.error}"))
    choices = () if exchange.response is None else exchange.response.choices
    for number, choice in enumerate(choices, 1):
        name = "answer" if len(choices) == 1 else f"answer {number}"
        found += [(name + title, text) for title, text in _choice(choice)]
    return found


def _parameters(request: LMRequest) -> list[tuple[str, str]]:
    names = ("model", "temperature", "top_p", "max_tokens", "stop", "n", "seed", "logprobs", "reasoning", "rollout")
    said = {name: getattr(request, name) for name in names}
    shown = {name: value for name, value in said.items() if value not in (None, (), 0) or name in _ZERO_MATTERS}
    shown = {name: value for name, value in shown.items() if value is not None and (name, value) != ("n", 1)}
    if request.extra != "{}":
        shown["extra"] = request.extra
    found: list[tuple[str, str]] = []
    if shown:
        found.append(("parameters", ", ".join(f"{name}={value!r}" for name, value in shown.items())))
    found += [(f"tool {tool.name}", f"{tool.description}\n{tool.parameters}") for tool in request.tools]
    if request.tools and request.tool_choice != "auto":
        found.append(("tool choice", request.tool_choice))
    if request.schema is not None:
        found.append((f"schema {request.schema.name}", str(request.schema.schema)))
    return found


_ZERO_MATTERS: Final = frozenset({"temperature", "top_p", "seed", "logprobs"})


def _message(message: Message) -> list[tuple[str, str]]:
    if isinstance(message.content, str):
        return [("", message.content)]
    return [_part(part) for part in message.content] or [("", "")]


def _choice(choice: Choice) -> list[tuple[str, str]]:
    why = "" if choice.finish_reason == "stop" else f" ({choice.finish_reason})"
    parts = [_part(part) for part in choice.parts] or [("", choice.text)]
    return [(title + why, text) for title, text in parts]


def _part(part: Part) -> tuple[str, str]:
    match part:
        case Text(text):
            return "", text
        case Reasoning(text):
            return ", reasoning", text or "(hidden by the provider)"
        case ToolUse(id_, name, arguments):
            return f", uses tool {name} ({id_})", str(arguments)
        case ToolResult(id_, name, content, is_error):
            return f", {'error' if is_error else 'result'} of tool {name} ({id_})", content
        case Media():
            return ", media", _medium(part)


def _medium(medium: Media) -> str:
    named = f" {medium.name!r}" if medium.name else ""
    if medium.data is not None:
        return f"({medium.kind}{named}, {medium.media_type}, {len(medium.data):,} bytes)"
    url = medium.url or ""
    if url.startswith("data:"):
        return f"({medium.kind}{named}, {medium.media_type}, {len(url):,} characters of data)"
    return f"({medium.kind}{named}, {medium.media_type}, at {url.partition('?')[0]})"


# -- as text ----------------------------------------------------------------------------------------------------------


def as_text(exchanges: Iterable[Exchange], *, fold: int | None = FOLD) -> str:
    """Return exchanges as text for a terminal.

    Args:
        exchanges: The exchanges, oldest first.
        fold: Characters of one text that are shown; `None` for all.
    """
    lines: list[str] = []
    for number, exchange in enumerate(exchanges, 1):
        lines.append(f"---- {number}  {_visible(_head(exchange))}".rstrip())
        for title, text in _sections(exchange):
            lines += [f"[{_visible(title)}]", _visible(_folded(text, fold))]
    return "\n".join(lines) or "(no requests yet)"


def _folded(text: str, fold: int | None) -> str:
    if fold is None or len(text) <= fold:
        return text
    half = fold // 2
    return f"{text[: fold - half]}\n… {len(text) - fold:,} characters left out …\n{text[len(text) - half :]}"


def _visible(text: str) -> str:
    r"""Show control characters instead of obeying them: `\x1b[2J` in an answer would empty the screen."""
    return text if text.isprintable() else "".join(map(_named, text))


def _named(char: str) -> str:
    if char in "\n\t" or char.isprintable():
        return char
    code = ord(char)
    if code < 0xA0:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if char in _TURNING or 0xD800 <= code < 0xE000 else char  # others join letters and emoji


_TURNING: Final = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that break lines or turn the direction in which what follows is written."""


# -- as HTML ----------------------------------------------------------------------------------------------------------


def as_html(exchanges: Iterable[Exchange], *, fold: int = FOLD_HTML) -> str:
    """Return exchanges as HTML for a notebook: no script, no style sheet, nothing that is fetched.

    Args:
        exchanges: The exchanges, oldest first.
        fold: Characters of one text that are shown at once; the rest opens at a click.
    """
    boxes: list[str] = []
    for number, exchange in enumerate(exchanges, 1):
        inner = [_div("head", f"{number}  {_head(exchange)}")]
        for title, text in _sections(exchange):
            error = title == "error"
            inner += [_div("role", title), _text(text, fold, "error" if error else "text")]
        boxes.append(f'<div style="{_STYLE["box"]}">{"".join(inner)}</div>')
    return "".join(boxes) or "<div>(no requests yet)</div>"


def _div(style: str, text: str) -> str:
    return f'<div style="{_STYLE[style]}">{_safe(text)}</div>'


def _text(text: str, fold: int, style: str) -> str:
    shown = _STYLE["text"] if style == "text" else f"{_STYLE['text']};{_STYLE[style]}"
    whole = f'<pre style="{shown}">\n{_safe(text)}</pre>'  # a page leaves out the first newline of a `pre`
    if len(text) <= fold:
        return whole
    summary = f"{_safe(text[: fold // 4])}… ({len(text):,} characters)"
    return f'<details><summary style="{shown}">{summary}</summary>{whole}</details>'


def _safe(text: str) -> str:
    return html.escape(_visible(text))
