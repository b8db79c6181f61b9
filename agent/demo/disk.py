# SPDX-License-Identifier: Apache-2.0
"""The demo's disk: an ext4 image made of this machine's files, and changes to it as a guest would make them.

mke2fs and debugfs write the file system, so what changes is what really changes: directories, bitmaps, inode tables, journal
and data. No root rights and no mounting are needed.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from mover.errors import MoverError, UsageError

MIB = 1024 * 1024
TREES = ("/usr/lib/python3*", "/usr/share/doc", "/usr/share", "/usr/lib")
WANTED, LEAST = 320 * MIB, 8 * MIB
"""Bytes of files to gather, and what a demo cannot do without."""
SMALLEST, LARGEST = 16 * 1024, 48 * MIB
"""Of a file that is taken: thousands of small ones would take most of the demo's time to copy."""
DATABASE, DATABASE_SIZE = "database.bin", 32 * MIB
NEW = 384 * MIB
"""Bytes that the third backup adds: two packs on their way and one being filled take 192 MiB at once, the rest makes a middle."""
ROOM = NEW + 144 * MIB
BLOCK = 4096


class ToolFailed(MoverError):
    """A program of e2fsprogs ended with an error."""


def tool(name: str) -> str:
    """Its path; /usr/sbin is looked in too, since it is not in everybody's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise UsageError("the demo needs e2fsprogs", f"{name} was not found", "apt-get install e2fsprogs")
    return found


def run_tool(*words: str, accept: tuple[int, ...] = (0,), text: str | None = None) -> str:
    done = subprocess.run(
        [tool(words[0]), *words[1:]],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        input=text,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode not in accept:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ToolFailed(
            f"{words[0]} ended with {done.returncode}", said[-1] if said else "", "run the demo again with --keep"
        )
    return done.stdout


def check_tools() -> None:
    for name in ("mke2fs", "debugfs", "e2fsck"):
        tool(name)


class DemoDisk:
    """One image file; what changes in it is drawn from a seed, so two demos on one machine change the same places."""

    def __init__(self, image: Path, scratch: Path) -> None:
        self.image = image
        self._scratch = scratch
        self._random = random.Random(20)  # noqa: S311 - test data
        self._files: list[str] = []

    def make(self) -> tuple[int, int]:
        """Gather files and make the image of them; (number of files, their bytes)."""
        tree = self._scratch / "files"
        tree.mkdir()
        total = self._gather(tree)
        if total < LEAST:
            raise UsageError("this machine has too few files for a demo", f"{total} bytes below {', '.join(TREES)}")
        (tree / DATABASE).write_bytes(self._random.randbytes(DATABASE_SIZE // 2).hex().encode())
        size = (total * 5 // 4 + DATABASE_SIZE + ROOM) // MIB * MIB
        with self.image.open("xb") as file:
            file.truncate(size)
        run_tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-d", str(tree), str(self.image))
        shutil.rmtree(tree)
        return len(self._files) + 1, total + DATABASE_SIZE

    def _gather(self, tree: Path) -> int:
        total = 0
        for source in _files_of_this_machine():
            size = source.stat().st_size
            if not SMALLEST <= size <= LARGEST or total + size > WANTED:
                continue
            target = tree / source.relative_to("/")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            except OSError:
                continue  # not ours to read, or it vanished: another one will do
            self._files.append(str(source))
            total += size
            if total > WANTED - MIB:
                break
        return total

    def change(self) -> None:
        """A day's work: files deleted, files added, and a database that was written to in 100 places."""
        self._random.shuffle(self._files)
        script = [f'rm "{name}"' for name in self._files[:20]]
        for number in range(5):
            new = self._scratch / f"new-{number}"
            new.write_bytes(self._random.randbytes(MIB // 2).hex().encode())
            script.append(f'write "{new}" new-{number}.txt')
        self._debugfs(script)
        with self.image.open("r+b") as file:
            for block in self._random.sample(self._blocks_of(DATABASE), 100):
                file.seek(block * BLOCK)
                file.write(self._random.randbytes(BLOCK // 2).hex().encode())

    def grow(self) -> None:
        """Much new data that does not compress, so that its backup takes a while."""
        new = self._scratch / "dump"
        with new.open("wb") as file:
            for _ in range(NEW // MIB // 32):
                file.write(os.urandom(32 * MIB))
        self._debugfs([f'write "{new}" dump.bin'])
        new.unlink()

    def _debugfs(self, script: list[str]) -> None:
        run_tool("debugfs", "-w", "-f", "-", str(self.image), text="\n".join(script) + "\n")

    def _blocks_of(self, name: str) -> list[int]:
        """Where the file's content stands in the image, in blocks of the file system."""
        return [int(word) for word in run_tool("debugfs", "-R", f"blocks /{name}", str(self.image)).split()]

    def in_use(self) -> int:
        """Bytes of the image that are allocated."""
        return self.image.stat().st_blocks * 512


def _files_of_this_machine() -> Iterator[Path]:
    seen: set[Path] = set()
    for pattern in TREES:
        for tree in sorted(Path("/").glob(pattern.lstrip("/"))):
            for folder, folders, names in os.walk(tree):
                folders.sort()
                for name in sorted(names):
                    path = Path(folder, name)
                    if path in seen or not _plain(path):
                        continue
                    seen.add(path)
                    yield path


def _plain(path: Path) -> bool:
    """A readable regular file whose name debugfs can be told."""
    try:
        return (
            stat.S_ISREG(path.lstat().st_mode)
            and os.access(path, os.R_OK)
            and str(path).isprintable()
            and '"' not in str(path)
        )
    except OSError:
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sound(image: Path) -> bool:
    """Whether e2fsck finds nothing to repair. Exit codes 1 and up mean that it would."""
    try:
        run_tool("e2fsck", "-fn", str(image))
    except ToolFailed:
        return False
    return True
