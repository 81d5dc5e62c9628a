"""The way in: run a command, turn whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success, 1 something that went wrong in the world (a file, the network, a model), 2 a command that can't be
    carried out as typed, 130 Ctrl-C. With `--json` an error is one JSON object on stdout too. With `OTPY_DEBUG=1` in
    the environment errors keep their traceback.

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

    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    debugging = os.environ.get("OTPY_DEBUG", "0") not in {"", "0"}
    try:
        with contextlib.nullcontext() if debugging else noticed():
            status = app(args=arguments, prog_name="otpy", standalone_mode=False)
    except BaseException as error:
        if debugging:
            raise
        line, status = explained(error)
        print(f"otpy: {line}", file=sys.stderr)
        if as_json and not getattr(error, "shown", False):
            _print_error(line, status)
    else:
        # A KeyboardInterrupt that reaches the parser comes back as a status, with nothing said.
        if status == INTERRUPTED:
            line = "interrupted; nothing was kept"
            print(f"otpy: {line}", file=sys.stderr)
            if as_json:
                _print_error(line, status)
    return status if isinstance(status, int) else 0


def _print_error(line: str, status: int) -> None:
    print(json.dumps({"error": line, "status": status}), flush=True)
