"""What bubblewrap starts: it gives up what it does not need, for good, and then takes the code.

    python -I -S confined.py MEMORY OUTPUT [PACKAGES…]

Beyond the namespaces that bubblewrap has made: limits that cannot be raised again, and a filter of system calls
(`seccomp(2)`) without which one process could become many, or keep what it hoards where no limit counts it. With it
there is no other program, no other process, no socket and no memory outside the address space.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

__all__: list[str] = []

_THREADS_ONLY = "clone"
_UNKNOWN = "clone3"  # the C library then uses clone, whose flags can be looked at
# fmt: off
_CALLS = {  # linux/arch/x86/entry/syscalls/syscall_64.tbl, linux/include/uapi/asm-generic/unistd.h
    "x86_64": (0xC000003E, {
        "clone": 56, "clone3": 435, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "ptrace": 101,
        "socket": 41, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        "io_uring_setup": 425, "bpf": 321, "keyctl": 250, "add_key": 248, "request_key": 249, "userfaultfd": 323,
        "perf_event_open": 298, "process_vm_readv": 310, "process_vm_writev": 311, "personality": 135,
        "open_by_handle_at": 304, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_getfd": 438,
    }),
    "aarch64": (0xC00000B7, {
        "clone": 220, "clone3": 435, "execve": 221, "execveat": 281, "ptrace": 117,
        "socket": 198, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "memfd_create": 279, "memfd_secret": 447, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
        "io_uring_setup": 425, "bpf": 280, "keyctl": 219, "add_key": 217, "request_key": 218, "userfaultfd": 282,
        "perf_event_open": 241, "process_vm_readv": 270, "process_vm_writev": 271, "personality": 92,
        "open_by_handle_at": 265, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_getfd": 438,
    }),
}
# fmt: on
_LOAD, _EQUAL, _ANY_BIT, _ABOVE, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_CLONE_THREAD = 0x10000
_OWN = 96 * 2**20  # bytes of address space that the interpreter itself takes


def _filter(machine: str) -> bytes:
    """Write the filter as a program for the kernel: no call on the list, whatever its arguments."""
    architecture, calls = _CALLS[machine]

    def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    program = [step(_LOAD, 4), step(_EQUAL, architecture, 1, 0), step(_RETURN, _KILL), step(_LOAD, 0)]
    program += [step(_ABOVE, 0x40000000, 0, 1), step(_RETURN, _ERROR | _EPERM)]  # x32, the same calls by other numbers
    for name, number in calls.items():
        if name == _THREADS_ONLY:
            program += [step(_EQUAL, number, 0, 4), step(_LOAD, 16), step(_ANY_BIT, _CLONE_THREAD, 1, 0)]
            program += [step(_RETURN, _ERROR | _EPERM), step(_RETURN, _ALLOW)]
        else:
            program += [step(_EQUAL, number, 0, 1), step(_RETURN, _ERROR | (_ENOSYS if name == _UNKNOWN else _EPERM))]
    return b"".join([*program, step(_RETURN, _ALLOW)])


def _confine(memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory + _OWN),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    program = _filter(platform.machine())
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(steps))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def _main() -> None:
    memory, output, *packages = sys.argv[1:]
    sys.path[:0] = ["/otpy"]
    from inside import serve  # type: ignore[import-not-found]  # noqa: PLC0415 - it is there only in the sandbox

    sys.path[:1] = packages
    lines, out = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)

    def send(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    _confine(int(memory))
    serve(lines.readline, send, int(output))


if __name__ == "__main__":
    _main()
