"""The way in: run a command, turn whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success, 1 something that went wrong in the world (a file, the network, a model), 2 a command that can't be
    carried out as typed, 130 Ctrl-C. With `OTPY_DEBUG=1` in the environment errors keep their traceback.

    Args:
        arguments: What follows the command's name; `None` takes them from the operating system.

    Example:
        >>> from otpy.cli.main import main
        >>> main(["models", "path", "no-such-model"])  # says why on stderr
        2
    """
    from otpy.cli.commands import app
    from otpy.cli.failures import INTERRUPTED, explained
    from otpy.cli.notices import noticed

    debugging = os.environ.get("OTPY_DEBUG", "0") not in {"", "0"}
    try:
        with contextlib.nullcontext() if debugging else noticed():
            status = app(args=arguments, prog_name="otpy", standalone_mode=False)
    except BaseException as error:
        if debugging:
            raise
        line, status = explained(error)
        print(f"otpy: {line}", file=sys.stderr)
    else:
        # A KeyboardInterrupt that reaches the parser comes back as a status, with nothing said.
        if status == INTERRUPTED:
            print("otpy: interrupted; nothing was kept", file=sys.stderr)
    return status if isinstance(status, int) else 0
