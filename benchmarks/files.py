# SPDX-License-Identifier: Apache-2.0
"""File-level recovery beside bare libraries and beside a restore, in one run. Prints a table and writes it as JSON.

    benchmarks/files.py [--work DIR] [--rounds 3] [--entries 100000] [--peers PYTHON] [--json FILE]

Ours is what a session does: the parser in its locked-in process, disks by chunks, entries made of what it answers. The peers
(libfsext, libfsxfs) run in a process of their own on the whole image in the page cache, and read name, inode, mode, size, owner,
group, links and all four times of each entry, as ours does and more (allocation, device, flags, checksums). `listing` begins with
a cold cache: its chunks are fetched and cross the socket; `listing again` does not. Rounds are interleaved; the figure is the
median. Chunks are those that had to be fetched, on a cold cache. Needs root and loop devices, to fill the images.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from flr.session import Session  # noqa: E402
from flr.virtual.open import open_point, open_sources  # noqa: E402
from flr.walk import everything  # noqa: E402
from mover.disk.source import FileSource  # noqa: E402
from mover.repository.repository import Repository  # noqa: E402
from mover.store.local import LocalStore  # noqa: E402
from tests.flr.corpus.mounted import mounted, run  # noqa: E402

BIN = Path(sys.executable).parent
MIB = 1 << 20
STUDY = {"ext4": 34, "xfs": 52}
"""Chunks of 1 MiB that the study's own probe (ext4) and libfsxfs read for a cold listing of 100,000 entries."""
PEER = """
import sys, time, importlib
class File:
    def __init__(self, path):
        import mmap
        self.file = open(path, "rb"); self.data = mmap.mmap(self.file.fileno(), 0, prot=mmap.PROT_READ); self.at = 0
        self.size = len(self.data)
    def read(self, n=-1):
        data = self.data[self.at : self.at + n]; self.at += len(data); return data
    def seek(self, offset, whence=0):
        self.at = offset if whence == 0 else self.at + offset if whence == 1 else self.size + offset; return self.at
    def tell(self): return self.at
    def get_size(self): return self.size
volume = importlib.import_module(sys.argv[1]).volume()
volume.open_file_object(File(sys.argv[2]))
def attributes(e):
    return (e.name, e.inode_number, e.file_mode, e.size, e.owner_identifier, e.group_identifier, e.number_of_links,
            e.get_modification_time_as_integer(), e.get_inode_change_time_as_integer(), e.get_access_time_as_integer(),
            e.get_creation_time_as_integer())
began = time.perf_counter(); count = 0
if sys.argv[3] == "listing":
    for entry in volume.get_file_entry_by_path("/many").sub_file_entries:
        attributes(entry); count += 1
else:
    todo = [volume.get_root_directory()]
    while todo:
        for entry in todo.pop().sub_file_entries:
            found = attributes(entry); count += 1
            if found[2] & 0o170000 == 0o040000: todo.append(entry)
print(count, time.perf_counter() - began)
"""


class Bench:
    def __init__(self, work: Path, rounds: int, entries: int, peers: str) -> None:
        self.work, self.rounds, self.entries, self.peers = work, rounds, entries, peers
        self.found: dict[str, float] = {}

    def image(self, name: str, size: int, mkfs: list[str], fill: Callable[[Path], None]) -> Path:
        path = self.work / name
        with open(path, "wb") as file:
            file.truncate(size)
        run(*mkfs, path)
        with mounted(path) as place:
            fill(place)
        return path

    def fill(self, place: Path) -> None:
        """A folder of many, and a tree of as many in small folders."""
        (place / "many").mkdir()
        for k in range(self.entries):
            (place / "many" / f"file_{k:06d}_with_a_name.txt").touch()
        for k in range(self.entries // 50):
            folder = place / "tree" / f"{k % 40}" / f"{k}"
            folder.mkdir(parents=True)
            for j in range(10):
                (folder / f"name {j}").write_bytes(b"x" * j)

    def peer(self, module: str, image: Path, what: str) -> tuple[int, float]:
        done = subprocess.run([self.peers, "-c", PEER, module, str(image), what], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{self.peers} has no {module}: {done.stderr.strip().splitlines()[-1]}")
        count, seconds = done.stdout.split()
        return int(count), float(seconds)

    def ours(self, image: Path, what: str) -> tuple[int, float, int]:
        """(entries, seconds, chunks)"""
        with open_sources([FileSource(str(image))]) as disks, Session(disks) as session:
            root = session.open("0").root
            many = session.find("0", b"/many").node
            cache = disks[0].cache
            before = cache.misses
            began = time.perf_counter()
            if what == "listing":
                count = sum(1 for _ in session.folder("0", many))
            elif what == "listing again":
                sum(1 for _ in session.folder("0", many))
                began = time.perf_counter()
                count = sum(1 for _ in session.folder("0", many))
            else:
                start = session.attributes("0", root)
                count = sum(len(table.names) for _, table in everything(session, "0", start, b"/", _raise))
            return count, time.perf_counter() - began, cache.misses - before

    def listings(self) -> None:
        for kind, mkfs, module in (
            ("ext4", ["mkfs.ext4", "-q", "-b", "4096", "-N", str(3 * self.entries)], "pyfsext"),
            ("xfs", ["mkfs.xfs", "-q"], "pyfsxfs"),
        ):
            image = self.image(kind, 1024 * MIB, mkfs, self.fill)
            for what in ("listing", "listing again", "walk"):
                peers, ours, chunks = [], [], []
                for _ in range(self.rounds):
                    count, seconds = self.peer(module, image, what.removesuffix(" again"))
                    peers.append(count / seconds)
                    count, seconds, misses = self.ours(image, what)
                    ours.append(count / seconds)
                    chunks.append(misses)
                peer, rate = statistics.median(peers), statistics.median(ours)
                self.found[f"{kind} {what}, ours, entries/s"] = round(rate)
                self.found[f"{kind} {what}, {module[2:].join(('lib', ''))}, entries/s"] = round(peer)
                self.found[f"{kind} {what}, ours / the library"] = round(rate / peer, 2)
                if what == "listing":
                    self.found[f"{kind} listing, chunks (the study: {STUDY[kind]})"] = chunks[0]
            image.unlink()

    def repository(self) -> None:
        """A disk of 64 GiB with a large file and the folders; listed first, read sequentially, restored."""
        content = self.work / "content"
        chance = random.Random(1)
        size = 1024 * MIB

        def fill(place: Path) -> None:
            self.fill(place)
            with open(place / "large", "wb") as file:
                for _ in range(size // MIB):
                    file.write(chance.randbytes(MIB))

        image = self.image("disk", 64 << 30, ["mkfs.ext4", "-q", "-b", "4096"], fill)
        store = self.work / "repository"
        Repository.create(LocalStore(store))
        url = store.as_uri()
        self.tool("backup", "--repository", url, "--resource", "vm", "--disk", str(image))
        image.unlink()
        content.unlink(missing_ok=True)
        repository = Repository.open(LocalStore(store))
        point = next(repository.points())
        firsts, chunks = [], []
        for _ in range(self.rounds):
            began = time.perf_counter()
            with open_point(repository, point, print) as disks, Session(disks) as session:
                session.entries("0", session.open("0").root)
                firsts.append(time.perf_counter() - began)
                chunks.append(disks[0].cache.misses)
        self.found["64 GiB in a repository: first listing, s"] = round(statistics.median(firsts), 2)
        self.found["64 GiB in a repository: first listing, chunks"] = chunks[0]
        cats, restores = [], []
        for _ in range(self.rounds):
            began = time.perf_counter()
            self.tool("files", "cat", "--repository", url, "--point", point.id, "/large", to=subprocess.DEVNULL)
            cats.append(time.perf_counter() - began)
            target = self.work / "restored"
            began = time.perf_counter()
            self.tool("restore", "--repository", url, "--point", point.id, "--to", str(target))
            restores.append(time.perf_counter() - began)
            data = target.stat().st_blocks * 512
            target.unlink()
        cat, restore = size / statistics.median(cats), data / statistics.median(restores)
        self.found["sequential read of 1 GiB, MB/s"] = round(cat / 1e6)
        self.found["restore of its disk, MB/s of data"] = round(restore / 1e6)
        self.found["sequential read / restore"] = round(cat / restore, 2)

    def tool(self, *words: str, to: int = subprocess.PIPE) -> None:
        done = subprocess.run([str(BIN / "data-mover"), *words], stdout=to, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{words}: {done.stderr}")


def _raise(path: bytes, error: Exception) -> None:
    raise error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument(
        "--peers", default=str(ROOT / ".oracles" / "bin" / "python"), help="a Python that has the libraries"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = arguments.work / f"data-mover-files-{os.getpid()}"
    work.mkdir(mode=0o700)
    try:
        bench = Bench(work, arguments.rounds, arguments.entries, arguments.peers)
        bench.listings()
        bench.repository()
    finally:
        shutil.rmtree(work)
    for name, value in bench.found.items():
        print(f"{name:60} {value:>12}")
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.found, indent=1) + "\n")


if __name__ == "__main__":
    main()
