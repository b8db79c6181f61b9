# SPDX-License-Identifier: Apache-2.0
"""The disk path beside its peers, in one run: backup, incremental, restore. Prints a table and writes it as JSON.

    benchmarks/disk_path.py [--from DIR] [--work DIR] [--tmpfs DIR] [--rounds 3] [--json FILE]

An ext4 image is made of the files of DIR (mkfs.ext4 -d; at least 5 GB, default /usr). Rounds are interleaved (every program
once, then again), the page cache is warmed before each program, the figure is the median. Every program is a process of its
own, measured by its rusage: CPU seconds are user and system together unless the column says "user". Peers: zstd, restic, borg
(all from the distribution), and a bare loop of read and BLAKE3. Ours is the command line as users run it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
PASSWORD = "benchmark"

LOOP = """
import os, sys
from blake3 import blake3
fd = os.open(sys.argv[1], os.O_RDONLY); size = os.fstat(fd).st_size; buffer = bytearray(1 << 20); at = 0
while at < size:
    try: start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError: break
    end = os.lseek(fd, start, os.SEEK_HOLE)
    for offset in range(start // (1 << 20) * (1 << 20), end, 1 << 20):
        count = os.preadv(fd, [buffer], offset)
        blake3(memoryview(buffer)[:count], key=bytes(32)).digest()
    at = -(-end // (1 << 20)) * (1 << 20)
"""


class Bench:
    def __init__(self, work: Path, tmpfs: Path, image: Path, rounds: int) -> None:
        self.work, self.tmpfs, self.image, self.rounds = work, tmpfs, image, rounds
        self.figures: dict[str, list[dict[str, float]]] = {}
        password = work / "password"
        password.write_text(PASSWORD)
        self.environ = {
            **os.environ,
            "DATA_MOVER_PASSWORD_FILE": str(password),
            "RESTIC_PASSWORD_FILE": str(password),
            "RESTIC_REPOSITORY": str(work / "restic"),
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(work / "borg-base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        self.environ.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # an installed program's modules are compiled once, not each time

    def run(self, name: str, *command: object, cwd: Path | None = None) -> str:
        """Run once and note what it cost under `name`; its standard output."""
        words = [str(word) for word in command]
        started = time.monotonic()
        with subprocess.Popen(
            words, env=self.environ, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            output = process.stdout.read()
            errors = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
        figure = {
            "wall": time.monotonic() - started,
            "cpu": usage.ru_utime + usage.ru_stime,
            "user": usage.ru_utime,
            "rss_mib": usage.ru_maxrss / 1024,
        }
        self.figures.setdefault(name, []).append(figure)
        print(f"  {name:36s} wall {figure['wall']:7.2f} s  cpu {figure['cpu']:7.2f} s", flush=True)
        return output.decode()

    def once(self, *command: object) -> None:
        subprocess.run([str(word) for word in command], env=self.environ, check=True, capture_output=True)

    def warm(self, *paths: Path) -> None:
        """Bring the image's data, or that of other files, into the page cache; holes cost nothing there."""
        for path in paths or (self.image,):
            self._warm(path)

    def _warm(self, path: Path) -> None:
        buffer = bytearray(1 << 22)
        with open(path, "rb", buffering=0) as file:
            size, end = os.fstat(file.fileno()).st_size, 0
            while end < size:
                try:
                    start = file.seek(end, os.SEEK_DATA)
                except OSError:
                    return
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                for offset in range(start, end, len(buffer)):
                    os.preadv(file.fileno(), [buffer], offset)

    def warm_repository(self, name: str) -> None:
        self.warm(*(path for path in (self.work / name).rglob("*") if path.is_file()))

    def mover(self, name: str, *arguments: object) -> str:
        return self.run(name, BIN / "data-mover", *arguments)

    # -- what is measured

    def backups(self) -> None:
        repository = self.work / "ours"
        url = f"file://{repository}"
        for _ in range(self.rounds):
            self.warm()
            self.run("zstd -1 -T2", "zstd", "-1", "-T2", "-q", "-f", self.image, "-o", self.work / "zstd.out")
            (self.work / "zstd.out").unlink()
            for name, option in (("ours, no decode check", ["--no-check"]), ("ours", [])):
                shutil.rmtree(repository, ignore_errors=True)
                self.once(BIN / "data-mover", "repo", "create", url)
                self.warm()
                self.mover(name, "backup", "--repository", url, "--resource", "vm", "--disk", self.image, *option)
            shutil.rmtree(self.work / "restic", ignore_errors=True)
            self.once("restic", "init")
            self.warm()
            self.run("restic backup", "restic", "backup", "--no-scan" if newer_restic() else "-q", self.image)
            shutil.rmtree(self.work / "borg", ignore_errors=True)
            self.once("borg", "init", "--encryption=repokey-blake2", self.work / "borg")
            self.warm()
            options = ["--compression=zstd,1", "--chunker-params=fixed,1048576"]
            self.run("borg create", "borg", "create", *options, f"{self.work / 'borg'}::one", self.image)

    def incrementals(self) -> None:
        url = f"file://{self.work / 'ours'}"
        changes = self.work / "changes.json"
        one = {"disk": self.image.name, "size": self.image.stat().st_size, "ranges": []}
        changes.write_text(json.dumps({**one, "snapshot": "s0", "base": None}))
        backup = ["backup", "--repository", url, "--resource", "vm", "--disk", self.image]
        self.warm()
        self.once(BIN / "data-mover", *backup, "--changes", changes)
        for number in range(self.rounds):
            changes.write_text(json.dumps({**one, "snapshot": f"s{number + 1}", "base": f"s{number}"}))
            self.mover("ours, nothing changed, change map", *backup, "--changes", changes)
            self.mover("data-mover points", "points", "--repository", url)
        for _ in range(self.rounds):
            self.warm()
            self.run("loop: read and BLAKE3", sys.executable, "-c", LOOP, self.image)
            self.mover("ours, nothing changed, compare", *backup)

    def restores(self) -> None:
        url = f"file://{self.work / 'ours'}"
        points = json.loads(
            subprocess.check_output([BIN / "data-mover", "points", "--repository", url, "--json"], env=self.environ)
        )
        point = points["points"][-1]["point"]
        for _ in range(self.rounds):
            ours, theirs = self.tmpfs / "ours.img", self.tmpfs / "restic"
            self.warm_repository("ours")
            self.mover("ours, restore", "restore", "--repository", url, "--point", point, "--to", ours)
            self.once("cmp", self.image, ours)
            ours.unlink()
            self.warm_repository("restic")
            self.run("restic restore", "restic", "restore", "latest", "-q", "--target", theirs)
            shutil.rmtree(theirs)

    # -- what is said

    def median(self, name: str, what: str) -> float:
        return statistics.median(figure[what] for figure in self.figures[name])

    def report(self) -> dict[str, object]:
        print(f"\n{'median of ' + str(self.rounds):38s} {'wall s':>8} {'cpu s':>8} {'user s':>8} {'MiB':>6}")
        for name in self.figures:
            row = [self.median(name, what) for what in ("wall", "cpu", "user", "rss_mib")]
            print(f"{name:38s} {row[0]:8.2f} {row[1]:8.2f} {row[2]:8.2f} {row[3]:6.0f}")
        m = self.median
        ratios = [
            ("CPU without the check / zstd", m("ours, no decode check", "cpu") / m("zstd -1 -T2", "cpu"), 1.0),
            ("CPU with the check / zstd", m("ours", "cpu") / m("zstd -1 -T2", "cpu"), 1.25),
            ("wall with the check / restic", m("ours", "wall") / m("restic backup", "wall"), 0.45),
            ("wall with the check / borg", m("ours", "wall") / m("borg create", "wall"), 0.6),
            ("peak memory, MiB", m("ours", "rss_mib"), 512.0),
            (
                "unchanged, change map: s beyond points",
                m("ours, nothing changed, change map", "wall") - m("data-mover points", "wall"),
                1.0,
            ),
            (
                "unchanged, compare: CPU / loop",
                m("ours, nothing changed, compare", "cpu") / m("loop: read and BLAKE3", "cpu"),
                1.25,
            ),
            ("restore user CPU / restic", m("ours, restore", "user") / m("restic restore", "user"), 0.5),
            ("restore wall / restic", m("ours, restore", "wall") / m("restic restore", "wall"), 0.6),
        ]
        print()
        for name, ratio, limit in ratios:
            print(f"{name:42s} {ratio:8.2f}   at most {limit:g}   {'holds' if ratio <= limit else 'DOES NOT HOLD'}")
        return {"figures": self.figures, "ratios": {name: [ratio, limit] for name, ratio, limit in ratios}}


def newer_restic() -> bool:
    return "--no-scan" in subprocess.run(["restic", "backup", "--help"], capture_output=True, text=True).stdout


def make_image(folder: Path, image: Path) -> None:
    if image.exists():
        return
    used = int(subprocess.check_output(["du", "-sxb", folder]).split()[0])
    if used < 5_000_000_000:
        sys.exit(f"{folder} holds {used} bytes: less than 5 GB; name a fuller folder with --from")
    print(f"making {image} of {folder} ({used / 1e9:.1f} GB)", flush=True)
    subprocess.run(["mkfs.ext4", "-q", "-d", folder, image, f"{int(used * 1.6) >> 20}M"], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("/usr"))
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/data-mover-bench"))
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    image = given.work / "disk.img"
    make_image(given.folder, image)
    bench = Bench(given.work, given.tmpfs, image, given.rounds)
    bench.backups()
    bench.incrementals()
    bench.restores()
    found = bench.report()
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
