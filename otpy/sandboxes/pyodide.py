"""`Pyodide`: CPython compiled to WebAssembly, on Deno without any permission; wherever Deno runs.

It has a memory and a file system of its own, and between it and ours are two walls: WebAssembly's, and Deno's, which
gives the process no file, no network, no environment and no other process. It is slower than the other engines, and
takes seconds to come up: keep some `warm`.

Source: https://pyodide.org, https://docs.deno.com/runtime/fundamentals/security/.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from otpy.actors import self_ref
from otpy.sandboxes.engine import Limits, SandboxNotAvailable
from otpy.sandboxes.lines import opened

if TYPE_CHECKING:
    from otpy.sandboxes.engine import Interpreter

__all__ = ["Pyodide"]

_HERE: Final = Path(__file__).parent
_LIMITED: Final = (
    "import os,resource,sys;n=int(sys.argv[1]);resource.setrlimit(resource.RLIMIT_DATA,(n,n));"
    "resource.setrlimit(resource.RLIMIT_CORE,(0,0));os.execv(sys.argv[2],sys.argv[2:])"
)
_OWN: Final = 1 << 30
"""Bytes that Deno and the compiled Python take themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyodide:
    """For code that needs the whole of Python on any system.

    Args:
        limits: What the code may use up; memory is that of Python, which takes some 30 MB itself.
        sessions: Interpreters at the same time, about 250 MB each; who comes later waits.
        warm: Interpreters started ahead.
        path: The directory of the npm package `pyodide`; if `None`, what the environment variable `PYODIDE_PATH` says,
            or else `node_modules/pyodide`. Nothing is ever fetched.

    Example:
        >>> from otpy.sandboxes import Pyodide
        >>> Pyodide(path="/srv/node_modules/pyodide", warm=1).name
        'pyodide'
    """

    name: ClassVar[str] = "pyodide"

    limits: Limits = field(default_factory=Limits)
    sessions: int = 4
    warm: int = 0
    path: str | None = None

    def check(self) -> None:
        """Look for Deno and for the package."""
        self.command()

    async def open(self) -> Interpreter:
        """Start Deno, and load Python in it."""
        return await opened(self.name, self.command(), self.limits, self_ref())

    def command(self) -> list[str]:
        """Return the program that is started, with its arguments.

        Raises:
            SandboxNotAvailable: If a part of it is not there.
        """
        another = "or choose another: sandbox='monty', sandbox='bubblewrap'"
        deno = _deno()
        if deno is None:
            raise SandboxNotAvailable(
                f"the sandbox 'pyodide' needs Deno; next: pip install 'otpy-framework[pyodide]' (or deno), {another}"
            )
        directory = Path(self.path or os.environ.get("PYODIDE_PATH") or "node_modules/pyodide").resolve()
        if not (directory / "pyodide.mjs").is_file():
            raise SandboxNotAvailable(
                f"the sandbox 'pyodide' finds no pyodide.mjs in {directory}; next: `npm install pyodide`, and"
                f" Pyodide(path='…/node_modules/pyodide') or the environment variable PYODIDE_PATH, {another}"
            )
        host, inside, limits = str(_HERE / "pyodide_host.mjs"), str(_HERE / "inside.py"), self.limits
        options = ["--no-prompt", "--no-remote", "--no-npm", "--no-config", "--no-lock", "--cached-only", "--quiet"]
        options.append(f"--allow-read={directory},{host},{inside}")
        run = [deno, "run", *options, host, str(directory), inside, str(limits.memory), str(limits.output)]
        if sys.platform != "linux":
            return run
        return [sys.executable, "-I", "-S", "-c", _LIMITED, str(limits.memory + _OWN), *run]


def _deno() -> str | None:
    """Return where Deno is: in the path, or where its wheel has put it."""
    if found := shutil.which("deno"):
        return found
    if importlib.util.find_spec("deno") is None:
        return None
    beside = Path(sysconfig.get_path("scripts")) / ("deno.exe" if sys.platform == "win32" else "deno")
    return str(beside) if beside.is_file() else None
