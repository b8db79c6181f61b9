# SPDX-License-Identifier: Apache-2.0
"""Takes from this process, for good, everything that understanding a disk does not need. Called once, after all imports.

Layers: limits, another user, namespaces (network, mounts, IPC), Landlock, no_new_privs, a filter of system calls. Each is tried,
and what cannot be had is returned with why: under systemd the unit gives some of them instead (docs/decisions/0009), in a
container others are forbidden. The filter and no_new_privs are not optional. Sources: prctl(2), seccomp(2), landlock(7),
unshare(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Callable, Collection

MEMORY = 768 << 20
"""Bytes of address space beyond what the process has when it is locked in."""
CPU_SECONDS = 3600
"""Of the whole process; a request has the parent's watchdog."""
NOBODY = 65534

_CLONE = 0x10000000 | 0x40000000 | 0x00020000 | 0x08000000 | 0x04000000  # user, network, mounts, IPC, UTS
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _SET_DUMPABLE, _SET_PDEATHSIG = 38, 22, 4, 1
_SECCOMP_FILTER = 2
_KILL, _EPERM, _ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000

# name: (x86_64, aarch64)
ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "poll": (7, None), "ppoll": (271, 73), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "mremap": (25, 216), "madvise": (28, 233), "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "exit": (60, 93), "futex": (202, 98), "restart_syscall": (219, 128), "exit_group": (231, 94),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "getrandom": (318, 278),
    "setitimer": (38, 103),
    "sigaltstack": (131, 132), "sched_yield": (24, 124), "getrusage": (98, 165), "gettid": (186, 178), "getpid": (39, 172),
}  # fmt: skip
NOT_EXECUTABLE = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Allowed where the memory cannot be executed."""
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class NotLocked(RuntimeError):
    """A layer without which nothing is parsed could not be had."""


def lock(parent: int, given: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """The layers that hold, and those that do not, with why. NotLocked. `given` are those that whoever started this has given it
    already: systemd, by the parser's unit. From then on the process ends with the thread of process
    `parent` that started it."""
    holds: list[str] = []
    missing: list[str] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def layer(name: str, take: Callable[[], object]) -> None:
        if name in given:
            holds.append(name)
            return
        try:
            take()
        except OSError as error:
            missing.append(f"{name}: {error.strerror}")
        else:
            holds.append(name)

    if os.geteuid() == 0:
        layer("user", _become_nobody)
    layer("namespaces", lambda: _call(libc.unshare, _CLONE))
    layer("limits", _limit)
    layer("landlock", lambda: _landlock(libc))
    try:
        _call(libc.prctl, _SET_DUMPABLE, 0, 0, 0, 0)
        _call(libc.prctl, _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(libc.prctl, _SET_PDEATHSIG, 9, 0, 0, 0)  # last: the kernel forgets it when credentials change
        if os.getppid() != parent:
            raise NotLocked("the process that started this one is gone")
        _seccomp(libc)
    except OSError as error:
        raise NotLocked(f"the filter of system calls cannot be had: {error.strerror}") from None
    return [*holds, "no_new_privs", "seccomp"], missing


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _limit() -> None:
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, has + MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),  # Landlock and the namespaces need some until the filter ends all opening
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _landlock(libc: ctypes.CDLL) -> None:
    """A ruleset without rules: no path can be opened, made or changed, no TCP port bound or connected to."""
    create, restrict = 444, 446  # the same on every architecture
    version = _call(libc.syscall, create, None, ctypes.c_size_t(0), 1)
    files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("<QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _call(libc.syscall, create, attributes, ctypes.c_size_t(size), 0)
    try:
        _call(libc.prctl, _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(libc.syscall, restrict, rules, 0)
    finally:
        os.close(rules)


def program(machine: str) -> bytes:
    """The filter, in classic BPF: the architecture, then each allowed call, then EPERM. NotLocked for an unknown machine."""
    if machine not in _ARCHITECTURES:
        raise NotLocked(f"no filter of system calls is known for {machine}")
    column, audit = _ARCHITECTURES[machine]
    load, equal, at_least, bits, give = 0x20, 0x15, 0x35, 0x45, 0x06

    def word(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, k)

    made = [word(load, 4), word(equal, audit, 1, 0), word(give, _KILL), word(load, 0)]
    made += [word(at_least, 0x40000000, 0, 1), word(give, _KILL)]  # the x32 calls
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            made += [word(equal, number, 0, 1), word(give, _ALLOW)]
    for numbers in NOT_EXECUTABLE.values():  # their third argument has PROT_EXEC, 4
        made += [
            word(equal, numbers[column], 0, 4),
            word(load, 32),
            word(bits, 4, 0, 1),
            word(give, _EPERM),
            word(give, _ALLOW),
        ]
    made.append(word(give, _EPERM))
    return b"".join(made)


def _seccomp(libc: ctypes.CDLL) -> None:
    code = ctypes.create_string_buffer(program(platform.machine()))
    length = (len(code) - 1) // 8

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    whole = Program(length, ctypes.cast(code, ctypes.c_void_p))
    _call(libc.prctl, _SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(whole), 0, 0)
