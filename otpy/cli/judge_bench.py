"""Judging in a terminal: question after question, a key for each answer."""

from __future__ import annotations

import contextlib
import os
import pydoc
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.cli.failures import INTERRUPTED, Stopped
from otpy.cli.judge_shown import laid_out
from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from otpy.cli.screen import Screen
    from otpy.teleprompters.judgements import Judgements
    from otpy.teleprompters.questions import Question, Verdict

__all__ = ["Bench"]

_QUIT: Final = frozenset({"q", "Q", "\x04", ""})
"""Among them the end of the input."""


class Bench:
    """Where one person judges, question after question.

    Args:
        screen: Where it is shown.
        questions: The file.
        who: The person.
        show_label: Whether what is known of the right answer is shown.
        key: Waits for a key.
        line: Waits for a line.
        plain: Has the terminal give whole lines inside a block.
    """

    def __init__(
        self,
        screen: Screen,
        questions: Judgements,
        who: str,
        *,
        show_label: bool = False,
        key: Callable[[], str],
        line: Callable[[str], str] = input,
        plain: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Look at nothing yet."""
        self._screen, self._questions, self._who = screen, questions, who
        self._show_label, self._key, self._line, self._plain = show_label, key, line, plain
        self._passed: list[str] = []
        self._words = ""
        self.done = 0

    def work(self) -> None:
        """Ask until the judge has had enough."""
        interrupted = False
        try:
            while self._one(self._questions.claim(self._who, self._passed)):
                pass
        except (KeyboardInterrupt, EOFError):
            interrupted = True
        finally:
            self._questions.leave(self._who)
        said = f"{self.done} answered, {self._questions.standing(self._who).pending} left; what was answered is kept"
        if interrupted:
            raise Stopped(said, INTERRUPTED)
        self._screen.line(said)

    def _one(self, question: Question | None) -> bool:
        """Show a question and do what the judge says, until the next is due; false if there is to be none."""
        self._words = ""
        self._show(question)
        while True:
            pressed = self._key()
            if pressed == "\x03":
                raise KeyboardInterrupt
            if pressed in _QUIT:
                return False
            if pressed == "u":
                return self._undo()
            if question is None or self._settled(question, pressed):
                return True

    def _settled(self, question: Question, pressed: str) -> bool:
        """Do what a key says, and return whether that was all about this question for now."""
        if pressed == "s":
            self._passed = [key for key in self._passed if key != question.key] + [question.key]
            return True
        if (answer := self._answer(question, pressed)) is not None:
            self._keep(question, answer)
            return True
        if pressed == "?":
            self._help(question)
        elif pressed == "m":
            with self._plain():
                pydoc.pager("\n".join(self._lines(question, whole=True)))
            self._show(question)
        elif pressed == ("e" if question.kind == "instruction" else "f"):
            with self._plain():
                self._write(question)
        else:
            self._screen.line(f"no such key: {pressed!r}; ? shows them", "dim")
        return False

    def _answer(self, question: Question, pressed: str) -> dict[str, Any] | None:
        if question.kind == "instruction":
            decision = {"a": "approve", "v": "veto", "p": "pin"}.get(pressed)
            if decision is None:
                return None
            return {"decision": decision, **({"text": self._words} if self._words else {})}
        chosen = next((one.label for one in question.choices if one.key == pressed), None)
        return None if chosen is None else {"choice": chosen, "feedback": self._words}

    def _keep(self, question: Question, answer: dict[str, Any]) -> None:
        try:
            verdict = self._questions.answer(question.key, self._who, answer, hold=True)
        except TeleprompterError as error:
            self._screen.line(str(error), "red")  # if it is still open, it comes again
            return
        self.done += 1
        self._passed = [key for key in self._passed if key != question.key]
        self._screen.line(f"-> {_told(verdict)}", "green")

    def _undo(self) -> bool:
        try:
            question = self._questions.undo(self._who)
        except TeleprompterError as error:
            self._screen.line(str(error), "red")
            return True
        self.done = max(self.done - 1, 0)
        self._screen.line("taken back")
        return self._one(question)

    def _write(self, question: Question) -> None:
        """Take the judge's words; of an instruction, the text to use."""
        if question.kind == "instruction":
            self._words = _edited(self._words or question.shown["proposal"]["instruction"]) or self._words
            self._screen.line(f"the text to approve or pin now:\n{self._words}" if self._words else "as it was")
            return
        with contextlib.suppress(KeyboardInterrupt, EOFError):
            self._words = self._line("in words: ").strip()

    def _lines(self, question: Question, *, whole: bool = False) -> list[str]:
        columns, rows = shutil.get_terminal_size()
        height = None if whole else rows - 6
        return laid_out(question, width=columns - 2, height=height, show_label=self._show_label)

    def _show(self, question: Question | None) -> None:
        if question is None:
            self._screen.heading(
                "Nothing waits for you now. Any key looks again, u takes back your last answer, q quits."
            )
            return
        left = self._questions.standing(self._who).pending
        self._screen.heading(f"{question.text}   ({left} left)")
        if question.guidance:
            self._screen.line(question.guidance, "dim")
        for text in self._lines(question):
            self._screen.line(text, "" if text.startswith(" ") else "bold")
        self._screen.line(_keys(question), "dim")

    def _help(self, question: Question) -> None:
        self._screen.line(_keys(question))
        more = (
            "e opens the text in your editor ($EDITOR) first"
            if question.kind == "instruction"
            else "f writes words first, for the optimizer"
        )
        self._screen.line(f"{more}; s skips, u takes back your last answer, m shows all of it, q quits")


def _keys(question: Question) -> str:
    if question.kind == "instruction":
        return "a approve  e edit  v veto  p pin (this predictor keeps it)  s skip  u undo  ? help  q quit"
    return "  ".join([*(f"{one.key} {one.label}" for one in question.choices), "s skip  u undo  ? help  q quit"])


def _told(verdict: Verdict) -> str:
    words = f": {verdict.words}" if verdict.words and verdict.value is not None else ""
    return f"{verdict.choice}{words}"


def _edited(text: str) -> str | None:
    """Let the judge's editor have a text; `None` if it was left as it is, or there is no editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if sys.platform == "win32" else "vi")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "instruction.txt"
        path.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*shlex.split(command), str(path)], check=False)  # noqa: S603 - the user's own editor
        except OSError as error:
            print(f"otpy: the editor {command!r}: {error.strerror}; say EDITOR=…", file=sys.stderr)
            return None
        new = path.read_text(encoding="utf-8").strip()
    return new if done.returncode == 0 and new and new != text.strip() else None
