# SPDX-License-Identifier: Apache-2.0
"""A program that locks itself in as the parser does, and then tries to get out. Prints what it could do; a line for each attempt.

Run by `test_sandbox`, with a path of a file that it may read before.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from flr.parser import sandbox

PATH = sys.argv[1] if __name__ == "__main__" else ""
PARENT = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
sockets: list[socket.socket] = []


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.open(PATH, os.O_RDONLY),
    "open a file for writing": lambda: os.open(PATH, os.O_WRONLY),
    "make a file": lambda: os.open(PATH + ".new", os.O_CREAT | os.O_WRONLY),
    "list a folder": lambda: os.listdir("/"),
    "read a link": lambda: os.readlink("/proc/self/exe"),
    "stat a path": lambda: os.stat(PATH),
    "remove a file": lambda: os.unlink(PATH),
    "rename a file": lambda: os.rename(PATH, PATH + ".moved"),
    "mount": lambda: checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "a TCP socket": lambda: socket.socket(socket.AF_INET),
    "a UDP socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "a raw socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "connect a socket that is there": lambda: sockets[0].connect("\0nobody"),
    "fork": os.fork,
    "start a program": lambda: os.execv("/bin/true", ["true"]),
    "start a thread": lambda: threading.Thread(target=int).start(),
    "signal the parent": lambda: os.kill(PARENT, 0),
    "stop the parent": lambda: os.kill(PARENT, signal.SIGSTOP),
    "trace the parent": lambda: checked(libc.ptrace(16, PARENT, 0, 0)),
    "read the parent's memory": lambda: checked(libc.process_vm_readv(PARENT, None, 0, None, 0, 0)),
    "become root": lambda: os.setresuid(0, 0, 0),
    "a namespace": lambda: checked(libc.unshare(0x10000000)),
    "memory that executes": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "a filter of its own": lambda: checked(libc.prctl(22, 2, None, 0, 0)),
    "a key": lambda: checked(libc.syscall(248, b"user", b"x", b"y", 1, -1)),
    "a BPF program": lambda: checked(libc.syscall(321, 0, None, 0)),
    "io_uring": lambda: checked(libc.syscall(425, 1, None)),
    "more memory than it may have": lambda: len(bytearray(sandbox.MEMORY + (64 << 20))),
}


def main() -> None:
    sockets.append(socket.socket(socket.AF_UNIX))
    layers, missing = sandbox.lock(PARENT)
    print("layers", ",".join(layers), "missing", ";".join(missing))
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
        except (OSError, MemoryError, RuntimeError) as error:
            print("refused", name, type(error).__name__)
        else:
            print("DONE", name)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
