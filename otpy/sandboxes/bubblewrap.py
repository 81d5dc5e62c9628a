"""`Bubblewrap`: CPython itself, at full speed and with all its library, behind namespaces of the Linux kernel.

It sees no network, no other process, no environment and of the file system only Python's own library; it can write
nowhere but to a small `/tmp` in memory. What the namespaces leave open, `confined` closes.

Source: https://github.com/containers/bubblewrap.
"""

from __future__ import annotations

import os
import platform
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

__all__ = ["Bubblewrap"]

_HERE: Final = Path(__file__).parent
_MACHINES: Final = ("x86_64", "aarch64")
"""Where `confined` knows the numbers of the system calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubblewrap:
    """For code that needs the whole of Python, or packages such as numpy. Linux only.

    Args:
        limits: What the code may use up; memory is that of its address space.
        sessions: Interpreters at the same time; who comes later waits.
        warm: Interpreters started ahead.
        readable: Directories and files that the code may read, by the same names.
        packages: Directories of packages, such as a `site-packages`, that it may read and import from; with the
            same version of Python as this one.

    Example:
        >>> from otpy.sandboxes import Bubblewrap
        >>> Bubblewrap(readable=("/srv/data",)).name
        'bubblewrap'
    """

    name: ClassVar[str] = "bubblewrap"

    limits: Limits = field(default_factory=Limits)
    sessions: int = 16
    warm: int = 0
    readable: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def check(self) -> None:
        """Look for the program."""
        another = "or choose another: sandbox='monty', sandbox='pyodide'"
        if sys.platform != "linux" or platform.machine() not in _MACHINES:
            raise SandboxNotAvailable(
                f"the sandbox 'bubblewrap' needs Linux on {' or '.join(_MACHINES)}, this is {sys.platform} on"
                f" {platform.machine()}; next: {another}"
            )
        if shutil.which("bwrap") is None:
            raise SandboxNotAvailable(
                "the sandbox 'bubblewrap' needs the program bwrap; next: apt-get install bubblewrap (or your system's"
                f" way), {another}"
            )
        for path in (*self.readable, *self.packages):
            if not Path(path).is_absolute() or not Path(path).exists():
                raise SandboxNotAvailable(f"Bubblewrap: {path!r} is no absolute path of anything that there is")

    async def open(self) -> Interpreter:
        """Start the program."""
        self.check()
        return await opened(self.name, self.command(), self.limits, self_ref())

    def command(self) -> list[str]:
        """Return the program that is started, with its arguments."""
        bwrap = shutil.which("bwrap") or "bwrap"
        confined = "--unshare-all --die-with-parent --new-session --clearenv --cap-drop ALL --uid 65534 --gid 65534"
        options = [*confined.split(), "--hostname", "sandbox"]
        options += ["--size", str(self.limits.memory), "--tmpfs", "/tmp"]  # noqa: S108 - the sandbox's own
        for path in (*_python(), *self.readable, *self.packages):
            options += ["--ro-bind", path, path]
        for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
            if Path(path).is_symlink():
                options += ["--symlink", str(Path(path).readlink()), path]
            elif Path(path).is_dir():
                options += ["--ro-bind", path, path]
        for name in ("inside.py", "confined.py"):
            options += ["--ro-bind", str(_HERE / name), f"/otpy/{name}"]
        for device in ("/dev/null", "/dev/urandom"):
            options += ["--dev-bind", device, device]
        options += ["--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108 - the sandbox's own
        python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-X", "utf8", "/otpy/confined.py"]
        return [bwrap, *options, *python, str(self.limits.memory), str(self.limits.output), *self.packages]


def _python() -> list[str]:
    """Return what the interpreter needs of itself: the program, its library and, if it has one, the shared object."""
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    shared = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
    found = [os.path.realpath(sys.executable), paths["stdlib"], paths["platstdlib"]]
    return list(dict.fromkeys([*found, *([str(shared)] if shared.exists() else [])]))
