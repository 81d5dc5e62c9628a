"""Keys as they are pressed: none is lost that is pressed while nobody waits for one yet."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Keys"]


class Keys:
    """The keys of a terminal, one at a time, from the beginning of the block to its end.

    Args:
        terminal: Its file descriptor; that of the standard input by default.
    """

    def __init__(self, terminal: int | None = None) -> None:
        """Take nothing yet."""
        self._terminal = terminal
        self._former: list[Any] | None = None

    @contextlib.contextmanager
    def taken(self) -> Generator[Keys]:
        """Have each key at once and unseen while the block lasts, Ctrl-C as any other."""
        self._take()
        try:
            yield self
        finally:
            self._give_back()

    @contextlib.contextmanager
    def plain(self) -> Generator[None]:
        """Have whole lines again inside the block, for whatever asks for them."""
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        if sys.platform == "win32":
            return
        import termios

        terminal = sys.stdin.fileno() if self._terminal is None else self._terminal
        self._former = termios.tcgetattr(terminal)
        now = termios.tcgetattr(terminal)
        now[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
        now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
        termios.tcsetattr(terminal, termios.TCSADRAIN, now)  # what has been pressed already is kept

    def _give_back(self) -> None:
        if sys.platform == "win32" or self._former is None:
            return
        import termios

        terminal = sys.stdin.fileno() if self._terminal is None else self._terminal
        termios.tcsetattr(terminal, termios.TCSADRAIN, self._former)
        self._former = None

    def key(self) -> str:
        """Wait for a key; an arrow and its like are one, and the end of the input is an empty text."""
        if sys.platform == "win32":
            return typer.getchar()
        terminal = sys.stdin.fileno() if self._terminal is None else self._terminal
        pressed = os.read(terminal, 1)
        if not pressed:
            return ""
        further = 3 if pressed >= b"\xf0" else 2 if pressed >= b"\xe0" else 1 if pressed >= b"\xc0" else 0
        for _ in range(further):
            pressed += os.read(terminal, 1)
        if pressed == b"\x1b":  # else what an arrow sends would be taken for answers
            while select.select([terminal], [], [], 0)[0] and (more := os.read(terminal, 1)):
                pressed += more
        return pressed.decode(errors="replace")
