# SPDX-License-Identifier: Apache-2.0
"""Images of NTFS, FAT and exFAT: made by mkntfs, mkfs.fat and mkfs.exfat, filled and told about by ntfs-3g, mtools and exfat-fuse.

None of these is our reader or libyal. What the tellers cannot tell stands beside what compares.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

import pytest

from tests.flr.corpus import cache, populate, truth
from tests.flr.corpus.mounted import Made, run
from tests.flr.corpus.populate import MIB, Populate

PACKAGES = {
    "mkntfs": "ntfs-3g", "ntfs-3g": "ntfs-3g", "mkfs.fat": "dosfstools", "mcopy": "mtools", "mkfs.exfat": "exfatprogs",
    "mount.exfat-fuse": "exfat-fuse", "wimcapture": "wimtools", "wiminfo": "wimtools",
}  # fmt: skip


def need(*programs: str) -> None:
    """Skips the test unless the programs are there, and FUSE where they mount."""
    missing = sorted({PACKAGES[program] for program in programs if which(program) is None})
    if missing:
        pytest.skip(f"needs the packages {', '.join(missing)}")
    if {"ntfs-3g", "mount.exfat-fuse"} & set(programs) and (os.geteuid() != 0 or not os.path.exists("/dev/fuse")):
        pytest.skip("needs root and FUSE")
    if "mount.exfat-fuse" in programs and not os.path.exists("/dev/loop-control"):
        pytest.skip("needs loop devices")


@contextmanager
def fuse(program: str, image: Path, options: str) -> Iterator[Path]:
    """The image mounted by a program of FUSE; exfat-fuse wants a loop device for it."""
    place = image.with_name(image.name + ".mnt")
    place.mkdir(exist_ok=True)
    device = run("losetup", "-f", "--show", image).strip() if program == "mount.exfat-fuse" else ""
    try:
        run(program, *(("-o", options) if options else ()), device or image, place)
        try:
            yield place
        finally:
            run("umount", place)
            place.rmdir()
    finally:
        if device:
            run("losetup", "-d", device)


# -- NTFS

OPTIONS = "streams_interface=xattr,compression"


def ntfs(
    name: str,
    size: int,
    fill: Callable[[Path], object],
    recipe: object = "",
    mkfs: Sequence[str] = (),
    patch: Callable[[Path], object] = lambda image: None,
    options: str = OPTIONS,
) -> Made:
    """The truth is read after `patch` has had the unmounted image."""
    need("mkntfs", "ntfs-3g")

    def make(folder: Path) -> None:
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        run("mkntfs", "-F", "-Q", "-q", "-L", "DATEN ü", "-p", "0", "-H", "16", "-S", "63", *mkfs, image)
        with fuse("ntfs-3g", image, options) as place:
            fill(place)
        patch(image)
        with fuse("ntfs-3g", image, "ro," + options) as place:
            truth.save(ntfs_truth(place), folder / "truth")

    sources = cache.source(populate.__file__, truth.__file__, __file__)
    return Made(cache.made(f"ntfs-{name}", (sources, size, mkfs, recipe, options), make))


TOLD = ("system.ntfs_acl", "system.ntfs_attrib", "system.ntfs_dos_name")


def ntfs_truth(root: Path) -> truth.Facts:
    """ntfs-3g's telling, with what it keeps in attributes of its own. It shows reparse points as links into its mount: what they
    hold is told instead, and of those that are no links neither size nor content."""
    facts = truth.kernel(root)
    for name, fact in facts.items():
        path = os.fsencode(root) + name
        # Its stat drops fractions of seconds before 1970.
        times = struct.unpack("<4Q", os.getxattr(path, "system.ntfs_times", follow_symlinks=False))
        fact.created, fact.modified, fact.accessed, fact.changed = (filetime(time) for time in times)
        for told in TOLD:
            try:
                fact.xattrs[told.encode()] = os.getxattr(path, told, follow_symlinks=False)
            except OSError:
                continue
        fact.links -= b"system.ntfs_dos_name" in fact.xattrs  # it counts a short name as another link; Windows does not
        try:
            data = os.getxattr(path, "system.ntfs_reparse_data", follow_symlinks=False)
        except OSError:
            continue
        tag, head = struct.unpack_from("<I", data)[0], {0xA000000C: 20, 0xA0000003: 16}
        fact.mode, fact.link, fact.size = stat.S_IFREG | 0o777, b"", 0
        if tag in head:
            at, length = struct.unpack_from("<HH", data, 8)
            fact.mode, fact.link = (
                stat.S_IFLNK | 0o777,
                data[head[tag] + at :][:length].decode("utf-16-le").encode(),
            )
            fact.size = len(fact.link)
        fact.xattrs[b"system.ntfs_reparse_data"] = data
    return facts


def filetime(value: int) -> int:
    return (value - 116444736000000000) * 100


def point(tag: int, data: bytes) -> bytes:
    return struct.pack("<IHH", tag, len(data), 0) + data


def symlink(substitute: str, shown: str, relative: int) -> bytes:
    one, two = substitute.encode("utf-16-le"), shown.encode("utf-16-le")
    return point(0xA000000C, struct.pack("<HHHHI", 0, len(one), len(one), len(two), relative) + one + two)


def junction(substitute: str, shown: str) -> bytes:
    one, two = substitute.encode("utf-16-le"), shown.encode("utf-16-le")
    return point(0xA0000003, struct.pack("<HHHH", 0, len(one), len(one) + 2, len(two)) + one + b"\0\0" + two + b"\0\0")


POINTS: dict[str, tuple[bytes, bytes | None]] = {
    "symlink": (symlink("hard1", "hard1", 1), b""),
    "symlink-absolute": (symlink("\\??\\C:\\Windows\\win.ini", "C:\\Windows\\win.ini", 0), b""),
    "symlink-up": (symlink("..\\..\\..\\x", "other print name", 1), b""),
    "symlink-folder": (symlink("..\\trée", "..\\trée", 1), None),
    "junction": (junction("\\??\\C:\\Users", "C:\\Users"), None),
    "mount-point": (junction("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\", ""), None),
    "wsl": (point(0xA000001D, struct.pack("<I", 2) + b"hard1"), b"w" * 10),
    "onedrive-here": (point(0x9000601A, bytes(16)), b"here" * 5000),
    "onedrive-away": (point(0x9000601A, bytes(16)), bytes(50000)),
    "file-sync-away": (point(0x8000001E, bytes(16)), bytes(50000)),
    "dedup": (point(0x80000013, bytes(64)), bytes(50000)),
    "appexec": (point(0x8000001B, struct.pack("<I", 3) + "x\0y\0z\0".encode("utf-16-le")), b""),
    "wim": (point(0x80000017, struct.pack("<IIII", 1, 1, 1, 0)), bytes(50000)),
}
"""By name: the reparse point, and the file's content (of zeros: nothing is stored), or None for a folder."""


class Windows(Populate):
    """`Populate`'s set as far as NTFS has it, and NTFS's own."""

    def ntfs(self, links: int) -> None:
        self.streams()
        self.points()
        self.cases()
        self.attributes()
        self.compressed()
        self.boundary()
        os.mkdir(self.path("links"))
        for i in range(links):
            os.link(self.path("special", "hard1"), self.path("links", f"a_quite_long_hard_link_name_number_{i:04d}"))

    def streams(self) -> None:
        self.write(self.path("special", "ads"), b"main")
        os.setxattr(self.path("special", "ads"), "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
        os.setxattr(self.path("special", "ads"), "user.big", b"Q" * 60000)
        os.setxattr(self.path("special", "ads"), "user.ünïcødé", b"u")
        os.mkdir(self.path("special", "ads-folder"))
        os.setxattr(self.path("special", "ads-folder"), "user.on a folder", b"on a folder")

    def points(self) -> None:
        for name, (data, content) in POINTS.items():
            path = self.path("special", f"point-{name}")
            if content is None:
                os.mkdir(path)
            elif content and not any(content):
                self.write(path, b"")
                os.truncate(path, len(content))
            else:
                self.write(path, content)
            os.setxattr(path, "system.ntfs_reparse_data", data)

    def cases(self) -> None:
        self.write(self.path("special", "case.txt"), b"lower")
        self.write(self.path("special", "CASE.TXT"), b"upper")
        self.write(self.path("special", "Long name with a short one.txt"), b"short")
        os.setxattr(self.path("special", "Long name with a short one.txt"), "system.ntfs_dos_name", b"LONGNA~1.TXT")

    def attributes(self) -> None:
        for name, value in {"hidden": 2, "system": 4, "read-only": 1, "all": 0x27, "not-indexed": 0x2000}.items():
            path = self.path("special", f"attribute-{name}")
            self.write(path)
            os.setxattr(path, "system.ntfs_attrib_be", struct.pack(">I", value | 0x20))
        path = self.path("special", "secured")
        self.write(path)
        sid = bytes.fromhex("010100000000000512000000")
        acl = struct.pack("<BBHHH", 2, 0, 28, 1, 0) + struct.pack("<BBHI", 0, 0, 20, 0x1F01FF) + sid
        owner = 20 + len(acl)
        head = struct.pack("<BBHIIII", 1, 0, 0x8004, owner, owner + len(sid), 0, 20)
        os.setxattr(path, "system.ntfs_acl", head + acl + sid + sid)

    def compressed(self) -> None:
        os.mkdir(self.path("packed"))
        os.setxattr(self.path("packed"), "system.ntfs_attrib_be", struct.pack(">I", 0x800))
        words = [self.random.randbytes(5).hex().encode() for _ in range(300)]
        prose = b" ".join(self.random.choice(words) for _ in range(60000))
        noise = self.random.randbytes(3_000_000)
        for name, data in {
            "prose": prose,
            "noise": noise,
            "zeros": bytes(1 << 20),
            "mixed": prose[:100_000] + bytes(1_000_000) + noise[:200_000] + prose[:70_001],
            "tiny": b"t" * 100,
            "one-unit": prose[:65536],
            "unit-and-one": prose[:65537],
            "below-a-cluster": prose[:4000],
        }.items():
            self.write(self.path("packed", name), data)
        with open(self.path("packed", "sparse"), "wb") as file:
            file.truncate(20 * MIB)
            file.seek(9 * MIB)
            file.write(prose)

    def boundary(self) -> None:
        """Around what fits into a record of 1 KiB or 4 KiB."""
        os.mkdir(self.path("boundary"))
        for size in (*range(600, 800, 7), *range(3600, 4000, 23)):
            self.write(self.path("boundary", f"{size}"), self.random.randbytes(size))


NTFS = frozenset({"names", "hard", "times"})


def ntfs_whole(name: str, mkfs: Sequence[str] = (), many: int = 1000, links: int = 803, size: int = 400 * MIB) -> Made:
    """With everything."""

    def fill(place: Path) -> None:
        filler = Windows(place, 1, NTFS, many=many)
        filler.all()
        filler.ntfs(links)

    return ntfs(name, size, fill, (many, links), mkfs)


def ntfs_of_many(count: int) -> Made:
    """A folder of several levels of index, and many small ones."""

    def fill(place: Path) -> None:
        filler = Populate(place, 1, NTFS, many=count)
        filler.folder_of_many()

    return ntfs("many", 400 * MIB, fill, count)


def ntfs_in_pieces() -> Made:
    """A full volume of small clusters whose MFT grew into the gaps between files: in so many pieces that it needs continuations."""

    def fill(place: Path) -> None:
        count = 0
        for name, size, most in (("fill", 1500, 1 << 20), ("tiny", 5, 1 << 20)):
            os.mkdir(place / name)
            made = 0
            try:
                while made < most:
                    (place / name / f"{made:06d}").write_bytes(b"%d " % made * (size // 5))
                    made += 1
            except OSError:
                pass  # it is full
            if not count:
                for i in range(0, made, 2):
                    os.unlink(place / name / f"{i:06d}")
                os.sync()
            count += made
        for name in ("fill", "tiny"):  # a file that could not be made whole
            last = max((place / name).iterdir())
            last.unlink()

    return ntfs("pieces", 12 * MIB, fill, "", ("-c", "512"))


def ntfs_plain() -> Made:
    """A few files, to be damaged by tests: contents of each kind, names to be changed, the file of a sleeping Windows."""

    def fill(place: Path) -> None:
        filler = Windows(place, 2, frozenset(), many=400)
        for name in ("small", "small2", "name-Q-s", "name-R-n", "name-S-u", "name-T-b", "Q", "QQ"):
            filler.write(filler.path(name), name.encode())
        filler.write(filler.path("large"), filler.random.randbytes(300_000))
        filler.folder_of_many()
        os.mkdir(filler.path("special"))
        filler.fragmented()
        filler.sparse()
        filler.streams()
        filler.cases()
        filler.points()
        filler.compressed()
        path = filler.path("packed", "with-a-packed-stream")
        filler.write(path, b"p")
        os.setxattr(path, "user.packed", b"stream of text, " * 4000)
        filler.write(filler.path("linked"), b"linked")
        os.mkdir(filler.path("links"))
        for i in range(300):
            os.link(filler.path("linked"), filler.path("links", f"a_quite_long_hard_link_name_number_{i:04d}"))
        filler.write(filler.path("HiberFil.sys"), b"HIBR" + bytes(5000))

    return ntfs("plain", 48 * MIB, fill)


def wof() -> tuple[Path, dict[bytes, bytes]]:
    """An image with files in each of WOF's compressions, the streams taken out of WIM archives; and their contents."""
    need("mkntfs", "ntfs-3g", "wimcapture", "wiminfo")
    words = random.Random(5)
    vocabulary = [words.randbytes(4).hex().encode() for _ in range(500)]
    files = {
        "a.txt": b" ".join(words.choice(vocabulary) for _ in range(90000)),
        "b.txt": b"\n".join(words.choice(vocabulary) * 3 for _ in range(3000)),
        "c.bin": words.randbytes(50000) + b"z" * 100000,
    }
    archives = {
        "x4k": (0, "xpress", 4096),
        "x8k": (2, "xpress", 8192),
        "x16k": (3, "xpress", 16384),
        "lzx": (1, "lzx", 32768),
    }

    def make(folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(64 * MIB)
        run("mkntfs", "-F", "-Q", "-q", "-p", "0", "-H", "16", "-S", "63", image)
        with fuse("ntfs-3g", image, "streams_interface=windows") as place:
            for short, (method, kind, chunk) in archives.items():
                archive = folder / f"{short}.wim"
                run("wimcapture", source, archive, f"--compress={kind}", f"--chunk-size={chunk}")
                for size, data in _blobs(archive):
                    for name, content in files.items():
                        if len(content) == size:
                            path = place / f"{short}-{name}"
                            path.write_bytes(b"")
                            Path(f"{path}:WofCompressedData").write_bytes(data)
                            os.truncate(path, size)
                            os.setxattr(
                                path,
                                "system.ntfs_reparse_data",
                                point(0x80000017, struct.pack("<IIII", 1, 2, 1, method)),
                            )

    place = cache.made("ntfs-wof", (cache.source(__file__),), make)
    contents = {f"{short}-{name}".encode(): data for short in archives for name, data in files.items()}
    return place / "image", contents


def _blobs(archive: Path) -> Iterator[tuple[int, bytes]]:
    """(uncompressed size, compressed bytes) of what a WIM holds."""
    raw = archive.read_bytes()
    for part in run("wiminfo", archive, "--blobs").split("\n\n"):
        facts = {k.strip().lower(): v.strip() for k, _, v in (line.partition("=") for line in part.splitlines()) if v}
        if {"offset in wim", "uncompressed size"} <= set(facts) or "offset" in " ".join(facts):
            at = next(int(v.split()[0], 0) for k, v in facts.items() if "offset" in k)
            packed = next(int(v.split()[0]) for k, v in facts.items() if k.startswith("compressed size"))
            size = next(int(v.split()[0]) for k, v in facts.items() if k.startswith("uncompressed size"))
            yield size, raw[at : at + packed]


# -- FAT and exFAT

FAT_NAMES = [
    "lower.txt", "UPPER.TXT", "Mixed.Txt", "lower2.TXT", "UPPER2.txt", "no-extension", "NOEXT", "a.b.c.d", "b" * 251 + ".txt",
    "ÄÖÜ.TXT",
    "long name that is cut.tiff", "long name that is also cut.tiff", "日本語の名前.txt", "thirteen-13.b", "x" * 26, "y" * 13,
]  # fmt: skip


class Fat(Populate):
    """What FAT and exFAT have."""

    def fat(self) -> None:
        os.mkdir(self.path("names"))
        for name in FAT_NAMES:
            self.write(self.path("names", name), name.encode())
        for year in (1980, 1999, 2024, 2099):  # later, both tools take 2100 for a leap year
            path = self.path("special", f"time-{year}")
            self.write(path)
            at = int(datetime(year, 2, 28, 23, 59, 58, tzinfo=UTC).timestamp()) * 10**9
            os.utime(path, ns=(at, at))


def fat(name: str, size: int, mkfs: Sequence[str], many: int = 500, big: int = 2 * MIB) -> Made:
    """Filled by mtools, and told about by what mtools takes out again. `mkfs` says which FAT."""
    need("mkfs.fat", "mcopy")

    def make(folder: Path) -> None:
        image, source, back = folder / "image", folder / "source", folder / "back"
        with open(image, "wb") as file:
            file.truncate(size)
        run("mkfs.fat", "-n", "DATEN", "-i", "1234ABCD", *mkfs, image)
        source.mkdir()
        filler = Fat(source, 1, frozenset(), many=many, big=big)
        filler.sparse = lambda: None  # type: ignore[method-assign]
        filler.dirty_free_space = lambda: None  # type: ignore[method-assign]
        filler.all()
        filler.fat()
        os.unlink(source / "odd" / "camelcase.txt")  # the same as CamelCase.TXT here
        environment = ("env", "LC_ALL=C.UTF-8", "TZ=UTC", "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1")
        # Every second of these is deleted again, and what comes then is in as many pieces.
        (folder / "holes").mkdir()
        for i in range(60):
            (folder / "holes" / f"hole{i:02d}").write_bytes(b"h" * 40_000)
        run(*environment, "mcopy", "-i", image, "-s", "-m", folder / "holes", "::/")
        run(*environment, "mdel", "-i", image, *[f"::/holes/hole{i:02d}" for i in range(0, 60, 2)])
        if "32" in mkfs:  # nobody knows where free clusters begin, so that the holes are taken first
            sector = int.from_bytes(image.read_bytes()[11:13], "little")
            with open(image, "r+b") as file:
                file.seek(sector + 492)
                file.write(b"\xff\xff\xff\xff")
        (folder / "in pieces").write_bytes(random.Random(3).randbytes(700_000))
        run(*environment, "mcopy", "-i", image, "-m", folder / "in pieces", "::/in pieces")
        run(*environment, "mcopy", "-i", image, "-s", "-m", *sorted(source.iterdir()), "::/")
        run(*environment, "mattrib", "-i", image, "+r", "+h", "+s", "::/names/UPPER.TXT")
        back.mkdir()
        run(*environment, "mcopy", "-i", image, "-s", "-m", "-n", "::/", back)
        facts = truth.kernel(back)
        truth.save(facts, folder / "truth")
        for done in (source, back, folder / "holes"):
            shutil.rmtree(done)

    sources = cache.source(populate.__file__, truth.__file__, __file__)
    return Made(cache.made(f"fat-{name}", (sources, size, mkfs, many, big), make))


def exfat(name: str, size: int, mkfs: Sequence[str] = (), many: int = 500) -> Made:
    """Filled and told about by exfat-fuse."""
    need("mkfs.exfat", "mount.exfat-fuse")

    def make(folder: Path) -> None:
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        run("mkfs.exfat", "-L", "DATEN ü", *mkfs, image)
        with fuse("mount.exfat-fuse", image, "") as place:
            filler = Fat(place, 1, frozenset(), many=many, big=2 * MIB)
            filler.sparse = lambda: None  # type: ignore[method-assign]
            filler.all()
            filler.fat()
            for i in range(4):
                filler.write(filler.path("special", f"hole{i}"), random.Random(i).randbytes(900_000))
            os.unlink(filler.path("special", "hole1"))
            filler.write(filler.path("special", "after-a-hole"), random.Random(9).randbytes(2_500_000))
        with fuse("mount.exfat-fuse", image, "ro") as place:
            truth.save(truth.kernel(place), folder / "truth")

    sources = cache.source(populate.__file__, truth.__file__, __file__)
    return Made(cache.made(f"exfat-{name}", (sources, size, mkfs, many), make))


def tool_output(*command: str | Path) -> bytes:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout
