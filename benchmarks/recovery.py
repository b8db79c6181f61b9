# SPDX-License-Identifier: Apache-2.0
"""The recovery browser as a person and a download meet it, beside the engine alone and beside `restic mount` and `borg mount`.

    benchmarks/recovery.py [--work DIR] [--rounds 3] [--json FILE]

One image of ext4 (100,000 entries in a folder, 1,000 small files, one of 2 GiB) is served by `data-mover flr` in a process of its
own. Times to the first byte are of requests over one connection; paint and jumps are a headless Chromium's. Downloads are curl's,
over TLS; beside them the same bytes come through the engine in this process (`engine`). Restores go back to this machine, through
the restore tool and over OpenSSH on loopback. The peers list the same folder by `ls -l` on their mounts, of the same files backed
up by them. Needs root, loop devices and FUSE; what is missing is left out and said.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from flr.blocks import Hole  # noqa: E402
from flr.recovery.audit import Audit  # noqa: E402
from flr.recovery.desk import Desk  # noqa: E402
from flr.recovery.life import Life  # noqa: E402
from flr.restore.restoration import Wish  # noqa: E402
from flr.session import Session  # noqa: E402
from flr.virtual.open import open_sources  # noqa: E402
from mover.clock import SYSTEM  # noqa: E402
from mover.disk.source import FileSource  # noqa: E402
from tests.flr.corpus.mounted import mounted, run  # noqa: E402
from tests.flr.restore.lost import points  # noqa: E402
from tests.flr.restore.ways import SSHD, Sshd, by_sftp, by_tool_here  # noqa: E402

BIN = Path(sys.executable).parent
ENTRIES, FEW, LARGE = 100_000, 1000, 2 << 30
ASKED = {"x-recovery": "1", "content-type": "application/json"}


def fill(place: Path) -> None:
    (place / "many").mkdir()
    for k in range(ENTRIES):
        (place / "many" / f"file {k} of many.txt").touch()
    chance = random.Random(1)
    (place / "few").mkdir()
    for k in range(FEW):
        (place / "few" / f"document {k}").write_bytes(chance.randbytes(chance.randrange(200_000)))
    with open(place / "large", "wb") as file:
        for _ in range(LARGE >> 20):
            file.write(chance.randbytes(1 << 20))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Served:
    """`data-mover flr` over the image, and a client that is signed in."""

    def __init__(self, image: Path) -> None:
        words = [str(BIN / "data-mover"), "flr", "--image", str(image), "--json"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline())
        self.address, _, token = self.told["link"].partition("/#t=")
        self.client = httpx.Client(base_url=self.address, verify=False, trust_env=False, timeout=120, headers=ASKED)
        self.client.post("/api/sign-in", json={"token": token}).raise_for_status()

    def list(self, **more: Any) -> Any:
        place = {"point": "disks", "volume": "0", "path": "/many", **more}
        return self.client.get("/api/list", params=place).raise_for_status().json()

    def until_complete(self) -> None:
        while not self.list(count=1)["complete"]:
            pass

    def download(self, path: str, form: str) -> tuple[int, float]:
        """(bytes, seconds) of curl."""
        items = [{"point": "disks", "volume": "0", "path": path}]
        made = self.client.post("/api/downloads/make", json={"form": form, "items": items}).json()
        while made["state"] == "preparing":
            made = self.client.get("/api/downloads").json()["downloads"][0]
        cookie = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())
        words = ["curl", "-sk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", "-K", "-"]
        done = subprocess.run(
            [*words, self.address + made["url"]],
            input=f'header = "Cookie: {cookie}"',
            capture_output=True,
            text=True,
            check=True,
        )
        size, seconds = done.stdout.split()
        return int(size), float(seconds)

    def resident(self) -> tuple[int, int]:
        """MiB of the server and of its parser."""
        found = []
        parser = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        for pid in (self.process.pid, *map(int, parser[:1])):
            status = Path(f"/proc/{pid}/status").read_text()
            found.append(int(status.partition("VmRSS:")[2].split()[0]) >> 10)
        return found[0], found[1]

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait()


class Bench:
    def __init__(self, work: Path, rounds: int) -> None:
        self.work, self.rounds = work, rounds
        self.found: dict[str, float] = {}

    def note(self, name: str, values: list[float], digits: int = 3) -> None:
        self.found[name] = round(statistics.median(values), digits)

    def served(self, image: Path) -> None:
        firsts, wholes, pages, sorts = [], [], [], []
        for _ in range(self.rounds):
            served = Served(image)
            firsts.append(timed(lambda served=served: served.list(count=200)))
            wholes.append(firsts[-1] + timed(served.until_complete))
            pages.append(
                statistics.median(timed(lambda served=served, k=k: served.list(offset=k * 1900)) for k in range(50))
            )
            sorts.append(timed(lambda served=served: served.list(sort="modified", order="down")))
            served.close()
        self.note("100,000 entries: first rows, cold, s", firsts)
        self.note("100,000 entries: all of them there, cold, s", wholes)
        self.note("100,000 entries: a page of 200 rows, s", pages, 4)
        self.note("100,000 entries: sorted by time, s", sorts)

    def painted(self, image: Path) -> None:
        chromium = shutil.which("chromium")
        if chromium is None:
            print("no Chromium: neither paint nor jumps are measured", file=sys.stderr)
            return
        served = Served(image)
        secret = {
            "name": "__Host-recovery",
            "value": served.client.cookies["__Host-recovery"],
            "url": served.address,
            "secure": True,
        }
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--no-proxy-server"])
            paints, jumps = [], []
            for _ in range(self.rounds):
                context = browser.new_context(
                    ignore_https_errors=True, bypass_csp=True, viewport={"width": 1440, "height": 900}
                )
                context.add_cookies([secret])  # type: ignore[list-item]
                page = context.new_page()
                began = time.perf_counter()
                page.goto(f"{served.address}/#/disks/0/many")
                page.wait_for_selector(".files .rows .title")
                paints.append(time.perf_counter() - began)
                page.wait_for_function("document.querySelector('.foot .state').textContent.startsWith('100,000')")
                tall = page.evaluate("document.querySelector('.files .rows .row').getBoundingClientRect().height")
                for k in range(20):
                    at = (k * 37_507) % ENTRIES
                    began = time.perf_counter()
                    page.evaluate(f"document.querySelector('.files .view').scrollTop = {at} * {tall}")
                    page.wait_for_function(
                        f"document.querySelector('.files .rows').textContent.includes('file {at} of')"
                    )
                    jumps.append(time.perf_counter() - began)
                context.close()
            browser.close()
        served.close()
        self.note("100,000 entries: page loaded to first rows, warm server, s", paints)
        self.note("100,000 entries: jump to any row, s", jumps, 4)

    def downloads(self, image: Path) -> None:
        served = Served(image)
        rates: dict[str, list[float]] = {}
        for _ in range(self.rounds):
            for name, path, form in (
                ("1,000 files", "/few", "zip"),
                ("2 GiB", "/large", "zip"),
                ("2 GiB", "/large", "file"),
            ):
                size, seconds = served.download(path, form)
                rates.setdefault(f"{name} as a {form} over TLS, MB/s", []).append(size / seconds / 1e6)
            rates.setdefault("2 GiB through the engine, MB/s", []).append(LARGE / self.engine(image, b"/large") / 1e6)
        server, parser = served.resident()
        served.close()
        for name, values in rates.items():
            self.note(name, values, 0)
        self.found["2 GiB: file over TLS / engine"] = round(
            self.found["2 GiB as a file over TLS, MB/s"] / self.found["2 GiB through the engine, MB/s"], 2
        )
        self.found["after all that, server resident, MiB"] = server
        self.found["after all that, parser resident, MiB"] = parser

    @staticmethod
    def engine(image: Path, path: bytes) -> float:
        with open_sources([FileSource(str(image))]) as disks, Session(disks) as session:
            found = session.find("0", path)
            return timed(
                lambda: sum(
                    piece.length if isinstance(piece, Hole) else len(piece)
                    for piece in session.content("0", found.node, found.size)
                )
            )

    def restores(self, image: Path) -> None:
        """To this machine, through the restore tool by a folder and over OpenSSH on loopback."""
        folder = self.work / "ways"
        folder.mkdir()
        ways = [("restore tool", by_tool_here(folder))]
        if SSHD is None:
            print("no OpenSSH server: left out", file=sys.stderr)
        else:
            server = Sshd(folder)
            ways.append(("SFTP", by_sftp(server)))
        rates: dict[str, list[float]] = {}
        for name, way in ways:
            with way as target, Desk(points(image), Life(SYSTEM), Audit(SYSTEM), target=target) as desk:
                for _ in range(self.rounds):
                    for what, path, least in (("1,000 files", b"/few", FEW), ("2 GiB", b"/large", 1)):
                        seconds = self.restored(desk, path, folder / "out", least)
                        unit, count = ("files/s", FEW) if least > 1 else ("MB/s", LARGE / 1e6)
                        rates.setdefault(f"{what} back by {name}, {unit}", []).append(count / seconds)
        if SSHD is not None:
            server.close()
        for name, values in rates.items():
            self.note(name, values, 0)

    @staticmethod
    def restored(desk: Desk, path: bytes, out: Path, least: int) -> float:
        restores, _ = desk.restores()
        assert restores is not None
        items = tuple(desk.basket.look([("disks", "0", path)]))
        began = time.perf_counter()
        made = restores.start(Wish(items, "keep", bytes(out)), lambda *told: None)
        made.over.wait()
        seconds = time.perf_counter() - began
        assert made.error is None, made.error
        assert sum(file.is_file() for file in out.rglob("*")) == least
        shutil.rmtree(out)
        return seconds

    def peers(self, image: Path) -> None:
        with mounted(image, "ro") as source:
            self.peer(
                "restic",
                [["restic", "init"], ["restic", "backup", str(source / "many")]],
                lambda at: ["restic", "mount", str(at)],
                {"RESTIC_REPOSITORY": str(self.work / "restic"), "RESTIC_PASSWORD": "x"},
                f"snapshots/latest{source}/many",
            )
            repository = str(self.work / "borg")
            self.peer(
                "borg",
                [
                    ["borg", "init", "-e", "none", repository],
                    ["borg", "create", f"{repository}::a", str(source / "many")],
                ],
                lambda at: ["borg", "mount", "-f", f"{repository}::a", str(at)],
                {"BORG_BASE_DIR": str(self.work / "borg-home")},
                f"{source}/many".lstrip("/"),
            )

    def peer(
        self,
        name: str,
        before: list[list[str]],
        mount: Callable[[Path], list[str]],
        environ: dict[str, str],
        folder: str,
    ) -> None:
        if shutil.which(name) is None:
            print(f"no {name}: left out", file=sys.stderr)
            return
        env = os.environ | environ
        for words in before:
            subprocess.run(words, env=env, check=True, capture_output=True)
        at = self.work / f"{name}-mount"
        at.mkdir()
        seconds = []
        for _ in range(self.rounds):
            began = time.perf_counter()
            process = subprocess.Popen(mount(at), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (at / folder).exists():
                if process.poll() is not None:
                    print(f"{name} mount does not work here: left out", file=sys.stderr)
                    return
                time.sleep(0.01)
            listed = subprocess.run(["ls", "-l", at / folder], capture_output=True, check=True).stdout
            seconds.append(time.perf_counter() - began)
            assert listed.count(b"\n") > ENTRIES
            process.terminate()
            process.wait()
            subprocess.run(["umount", "-q", at], check=False)
        self.note(f"{name} mount: from mount to all of them listed, s", seconds)


@contextmanager
def image_in(work: Path) -> Iterator[Path]:
    path = work / "guest.img"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    run("mkfs.ext4", "-q", "-N", str(2 * ENTRIES), path)
    with mounted(path) as place:
        fill(place)
    yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = arguments.work / f"data-mover-recovery-{os.getpid()}"
    work.mkdir(mode=0o700)
    try:
        with image_in(work) as image:
            bench = Bench(work, arguments.rounds)
            for part in (bench.served, bench.painted, bench.downloads, bench.restores, bench.peers):
                part(image)
    finally:
        shutil.rmtree(work)
    for name, value in bench.found.items():
        print(f"{name:60} {value:>12}")
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.found, indent=1) + "\n")


if __name__ == "__main__":
    main()
