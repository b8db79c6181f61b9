# SPDX-License-Identifier: Apache-2.0
"""Fills a mounted file system with what is ordinary, at a boundary, or odd. The same seed makes the same content.

What a file system refuses (a name, an attribute) is passed over and returned, so that a recipe can say what it expects.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

UNIX = frozenset({"names", "falloc", "hard", "links", "xattrs", "nodes", "times"})
MIB = 1 << 20

NAMES = [
    "ünïcødé-日本語-😀.txt", "e\u0301-nfd.txt", "é-nfc.txt", "empty", "-rf", "semi;colon&amp.txt", "it's.txt", "100%25.txt",
    "a" * 200 + ".txt", "日" * 80, " leading", "rlo-\u202ecod.exe", "dots..dots", "CamelCase.TXT", "camelcase.txt", "$MFTx",
    "~tilde", "...x",
]  # fmt: skip
UNIX_NAMES = [
    b"new\nline.txt", b"tab\there", b'quo"te`$(id)', b"back\\slash", b"..\\..\\evil.txt", b"trailing ", b"trailing.", b"CON",
    b"c:evil", b"*star?", b"a" * 255, b"ctrl-\x01\x1b[31m", b"...", b"<b>x.html", b"invalid-\xff\xfe-utf8.bin", b"caf\xe9.txt",
    b"\x80", b"surr-\xed\xa0\x80.txt",
]  # fmt: skip
SIZES = [
    0, 1, 59, 60, 61, 150, 155, 156, 157, 511, 512, 700, 1023, 1024, 1025, 4095, 4096, 4097, 12288, 12289, 65535, 65536, 65537,
    274432, 274433,
]  # fmt: skip


class Populate:
    def __init__(
        self, root: Path, seed: int, features: frozenset[str] = UNIX, many: int = 1000, big: int = 8 * MIB
    ) -> None:
        self.root = os.fsencode(root)
        self.random = random.Random(seed)
        self.features = features
        self.many = many
        self.big = big
        self.refused: list[str] = []

    def path(self, *parts: str | bytes) -> bytes:
        return os.path.join(self.root, *[os.fsencode(part) for part in parts])

    def write(self, path: bytes, data: bytes = b"x\n") -> None:
        with open(path, "wb") as file:
            file.write(data)

    def try_to(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.refused.append(f"{what}: {error.strerror}")

    def all(self) -> list[str]:
        """Returns what was refused."""
        self.dirty_free_space()
        self.folder_of_many()
        self.tree()
        self.names()
        os.mkdir(self.path("special"))
        self.sizes()
        self.sparse()
        self.fragmented()
        self.deep()
        for feature in ("falloc", "hard", "links", "xattrs", "nodes", "times"):
            if feature in self.features:
                getattr(self, feature)()
        self.write(self.path("special", "deleted"), b"gone" * 10000)
        os.unlink(self.path("special", "deleted"))
        os.sync()
        return self.refused

    def dirty_free_space(self) -> None:
        """What is never written must not read as what stood there before."""
        self.write(self.path("AA"), b"\xaa" * self.big * 4)
        os.sync()
        os.unlink(self.path("AA"))
        os.sync()

    def folder_of_many(self) -> None:
        os.mkdir(self.path("many"))
        for i in range(self.many):
            self.write(self.path("many", f"file_{i:06d}_with_a_name.txt"), b"content %d\n" % i if i % 10 == 0 else b"")
        for i in range(0, self.many, 7):  # gaps in the folder
            os.unlink(self.path("many", f"file_{i:06d}_with_a_name.txt"))

    def tree(self) -> None:
        self.write(self.path("big.bin"), self.random.randbytes(self.big))
        for i in range(5):
            for j in range(5):
                os.makedirs(self.path("tree", f"a{i}", f"b{j}"))
                for k in range(4):
                    data = self.random.randbytes(self.random.randrange(20000))
                    self.write(self.path("tree", f"a{i}", f"b{j}", f"file {k}"), data)

    def names(self) -> None:
        os.mkdir(self.path("odd"))
        names = [name.encode() for name in NAMES] + (UNIX_NAMES if "names" in self.features else [])
        for name in names:
            self.try_to(f"name {name!r}", lambda name=name: self.write(self.path("odd", name), name))  # type: ignore[misc]

    def sizes(self) -> None:
        for size in SIZES:
            self.write(self.path("special", f"size_{size}"), self.random.randbytes(size))

    def sparse(self) -> None:
        with open(self.path("special", "sparse"), "wb") as file:
            file.truncate(300 * MIB)
            for at in (0, 10 * MIB + 123, 69 * MIB, 150 * MIB, 299 * MIB):
                file.seek(at)
                file.write(b"DATA%012d" % at * 100)
        with open(self.path("special", "only-hole"), "wb") as file:
            file.truncate(5 * MIB + 1)

    def fragmented(self) -> None:
        files = [os.open(self.path("special", f"fragmented{i}"), os.O_CREAT | os.O_WRONLY) for i in range(2)]
        for i in range(400):
            for j, fd in enumerate(files):
                os.write(fd, b"%d-%06d;" % (j, i) * 400)
                os.fdatasync(fd) if i % 4 == 0 else None
        for fd in files:
            os.close(fd)

    def deep(self) -> None:
        os.makedirs(self.path("special", *[f"d{i:02d}" for i in range(60)]))
        self.write(self.path("special", *[f"d{i:02d}" for i in range(60)], "deep.txt"), b"deep")

    def falloc(self) -> None:
        fd = os.open(self.path("special", "fallocated"), os.O_CREAT | os.O_RDWR)
        self.try_to("fallocate", lambda: os.posix_fallocate(fd, 0, 8 * MIB))
        os.pwrite(fd, b"WRITTEN!" * 131072, 3 * MIB)
        os.close(fd)

    def hard(self) -> None:
        self.write(self.path("special", "hard1"), b"hard linked")
        os.link(self.path("special", "hard1"), self.path("special", "hard2"))
        os.link(self.path("special", "hard1"), self.path("odd", "hard3"))

    def links(self) -> None:
        targets = {
            "short": b"hard1", "dangling": b"/no/such", "absolute": b"/etc/passwd", "up": b"../../../../../../etc/shadow",
            "loop-a": b"link-loop-b", "loop-b": b"link-loop-a", "folder": b"../tree", "long": b"x/" * 100 + b"t",
            "59": b"y" * 59, "60": b"y" * 60, "61": b"y" * 61, "300": b"w" * 300, "1023": b"v/" * 511 + b"v", "3800": b"z/" * 1900,
            "bytes": b"caf\xe9",
        }  # fmt: skip
        for name, target in targets.items():
            self.try_to(f"link {name}", lambda n=name, t=target: os.symlink(t, self.path("special", f"link-{n}")))  # type: ignore[misc]

    def xattrs(self) -> None:
        few, many = self.path("special", "xattrs"), self.path("special", "xattrs-many")
        self.write(few, b"xa")
        self.write(many, b"many")
        acl = struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", *entry)
            for entry in (
                (1, 6, 0xFFFFFFFF), (2, 7, 1000), (4, 4, 0xFFFFFFFF), (8, 4, 50), (0x10, 7, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF)
            )
        )  # fmt: skip
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
        for path, name, value in [
            (few, "user.small", b"v1"),
            (few, "user.empty", b""),
            (few, "user.binary", bytes(range(256))),
            (few, "security.capability", capability),
            (few, "security.selinux", b"system_u:object_r:etc_t:s0\0"),
            (few, "trusted.ours", b"only root sees it"),
            (few, "system.posix_acl_access", acl),
            (self.path("special"), "system.posix_acl_default", acl),
            (self.path("special"), "user.on-a-folder", b"yes"),
            (self.path("special", "link-short"), "trusted.on-a-link", b"yes"),
            *[(many, f"user.number-{i:03d}", self.random.randbytes(i)) for i in range(60)],
        ]:
            self.try_to(f"xattr {name}", lambda p=path, n=name, v=value: os.setxattr(p, n, v, follow_symlinks=False))  # type: ignore[misc]
        for size in (3000, 4000, 20000, 60000):
            path = self.path("special", f"xattr-{size}")
            self.write(path)
            value = self.random.randbytes(size)
            self.try_to(f"xattr of {size}", lambda p=path, v=value: os.setxattr(p, "user.big", v))  # type: ignore[misc]

    def nodes(self) -> None:
        os.mkfifo(self.path("special", "fifo"))
        os.mknod(self.path("special", "character"), 0o20666, os.makedev(1, 3))
        os.mknod(self.path("special", "block"), 0o60660, os.makedev(259, 70000))
        large = self.path("special", "block-large")
        self.try_to("a large device number", lambda: os.mknod(large, 0o60660, os.makedev(4000, 1048575)))
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(".", os.O_RDONLY)
            os.chdir(self.path("special"))
            server.bind("socket")
            os.fchdir(here)
            os.close(here)
        suid = self.path("special", "suid")
        self.write(suid, b"s")
        os.chown(suid, 1000, 100000)
        os.chmod(suid, 0o6755)
        self.write(self.path("special", "owner-large"))
        os.chown(self.path("special", "owner-large"), 3_000_000_000, 4_000_000_000)
        os.chmod(self.path("special", "owner-large"), 0)

    def times(self) -> None:
        second = 10**9
        for name, at in {
            "1902": -2145916800 * second + 1,
            "1960": -315619200 * second - 500_000_000,
            "1970": -1,
            "2037": 2145916800 * second + 999_999_999,
            "2039": 2177452800 * second + 5,
            "2100": 4102444800 * second + 123_456_789,
            "2300": 10413792000 * second + 7,
        }.items():
            path = self.path("special", f"time-{name}")
            self.write(path)
            self.try_to(f"time {name}", lambda p=path, t=at: os.utime(p, ns=(t + 1, t)))  # type: ignore[misc]
