"""The program that a `Port` starts, which ties itself to its parent and then becomes the program that was asked for.

    python -I -S leash.py PARENT LIFE STATUS LOCALE PROGRAM ARGUMENT…

Two ties, since neither is enough: on Linux the kernel kills the program when the thread that started it is gone
(`prctl(2)`, PR_SET_PDEATHSIG); and everywhere a watcher, a small process that waits for the end of the pipe LIFE, which
only the parent holds open, kills the program's whole group. A byte in the pipe lets the watcher go in peace. The pipe
STATUS is told the watcher's process id and, if the program cannot be run, the number of the error; its end means "run".

Because it *becomes* the program, process id, exit status and signals are the program's own. It imports next to nothing,
for it delays every start: no `signal`, whose enumerations take longer than all the rest.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as type checkers know it, without the time that `typing` takes
if TYPE_CHECKING:
    import signal
else:
    signal = __import__("_signal")  # what is beneath `signal`, without its enumerations

__all__: list[str] = []

_PR_SET_PDEATHSIG = 1


def _tie_to_parent(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only here

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


def _start_watcher(life: int, status: int) -> None:
    group = os.getpid()
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()  # what is sent to the group is not for the watcher
    if watcher := os.fork():
        os.write(status, f"{watcher} ".encode())
        os._exit(0)  # and so the program has no child that it did not start
    os.close(status)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    if not os.read(life, 1):
        try:  # noqa: SIM105 - contextlib alone would double the time that this program takes
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass  # nobody is left, or nobody that may be killed
    os._exit(0)


def _main() -> None:
    parent, life, status = map(int, sys.argv[1:4])
    locale, command = sys.argv[4], sys.argv[5:]
    for descriptor in (life, status):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - by position only
    _start_watcher(life, status)
    _tie_to_parent(parent)
    for ignored in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored stays so
        signal.signal(getattr(signal, ignored), signal.SIG_DFL)
    if locale:  # Python may have set it while starting (PEP 538)
        os.environ["LC_CTYPE"] = locale[1:]
    else:
        os.environ.pop("LC_CTYPE", None)
    try:
        os.execvp(command[0], command)  # noqa: S606 - running a command is its purpose
    except OSError as error:
        os.write(status, str(error.errno).encode())
        os._exit(127)


if __name__ == "__main__":
    _main()
