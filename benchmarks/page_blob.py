# SPDX-License-Identifier: Apache-2.0
"""Page blobs over TLS, on Azurite and in fragments, beside their peers, in one run. Prints a table and writes it as JSON.

    benchmarks/page_blob.py [--image FILE | --mib 2048] [--work DIR] [--rounds 3] [--json FILE] [reads|azurite|fragments|limits]

reads       a page blob that a static TLS file server (nginx) serves: `PageBlobSource` beside the stock SDK's `download_blob`; and a
            whole backup of it beside that of the same image as a local file. CPU of the reading process alone.
azurite     a page blob on Azurite: backup to a repository on Azurite and restore to a page blob, beside azcopy down and up.
fragments   a page blob of 1 TiB in 200,000 ranges, and its incremental of 20,000, from a server that answers as Azure does.
limits      disks of 128 MiB, each with a limit of 16 MiB/s of its own as Azure's have, at a server of this file's: one and four of
            them backed up, and restored.

The image is ext4, made of the first files of /usr that fit, unless one is named. Figures are medians of interleaved rounds; CPU
seconds are user and system together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

BIN = Path(sys.executable).parent
MIB, GB = 1 << 20, 1e9
LIMITED, LIMIT = 128 * MIB, 16 * MIB
NGINX = """
worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.err;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; default_type application/octet-stream;
  add_header x-ms-blob-type PageBlob; add_header x-ms-version 2021-12-02;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem; root {work}/www;
    if ($arg_comp = pagelist) {{ rewrite ^ /list last; }}
    location = /list {{ proxy_set_header If-Match ""; proxy_pass http://127.0.0.1:{list_port}/list; }}
  }}
  server {{ listen 127.0.0.1:{list_port}; root {work}/www; }}
}}
"""


class Bench:
    def __init__(self, work: Path, image: Path, rounds: int) -> None:
        self.work, self.image, self.rounds = work, image, rounds
        self.size = image.stat().st_size
        self.figures: dict[str, list[dict[str, float]]] = {}
        self.checks: list[tuple[str, float, float]] = []
        self.environ = os.environ | {"REQUESTS_CA_BUNDLE": str(work / "cert.pem")}
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, name: str, *command: object, env: dict[str, str] | None = None) -> str:
        """Run once and note what it cost under `name`; its standard output."""
        words = [str(word) for word in command]
        started = time.monotonic()
        output, errors = self.work / "stdout", self.work / "stderr"
        with open(output, "wb") as out, open(errors, "wb") as err:
            process = subprocess.Popen(words, env=self.environ | (env or {}), stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(
                f"{words[0]} ended with {process.returncode}:\n{errors.read_text()[-2000:]}{output.read_text()[-500:]}"
            )
        self.note(name, time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
        return output.read_text()

    def child(self, name: str, which: str, url: str) -> None:
        """A process of this file's, measured by itself: the start of Python and its imports are no part of reading."""
        words = [sys.executable, __file__, "--child", which, url]
        found = json.loads(subprocess.run(words, env=self.environ, check=True, capture_output=True, text=True).stdout)
        self.note(name, **found)

    def note(self, name: str, wall: float, cpu: float, rss: float) -> None:
        self.figures.setdefault(name, []).append({"wall": wall, "cpu": cpu, "rss_mib": rss})
        print(f"  {name:44s} wall {wall:8.2f} s  cpu {cpu:8.2f} s  {rss:6.0f} MiB", flush=True)

    def mover(self, name: str, *words: object, env: dict[str, str] | None = None) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.run(name, BIN / "data-mover", *words, "--json", env=env))
        return found

    def repository(self, name: str) -> str:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([BIN / "data-mover", "repo", "create", folder.as_uri()], check=True, capture_output=True)
        return folder.as_uri()

    def median(self, name: str, what: str) -> float:
        return statistics.median(figure[what] for figure in self.figures[name])

    def check(self, name: str, value: float, limit: float) -> None:
        self.checks.append((name, value, limit))

    # -- reads

    def reads(self) -> None:
        data = sum(end - start for start, end in data_of(self.image))
        with nginx(self.work, self.image) as url:
            os.environ["REQUESTS_CA_BUNDLE"] = str(self.work / "cert.pem")
            place = self.work / "url"
            place.write_text(url)
            for _ in range(self.rounds):
                for name in ("sdk", "ours"):
                    self.child(f"read: {name}", name, url)
                for name, disk in (("TLS", f"os=@{place}"), ("file", f"os={self.image}")):
                    repository = self.repository("reads")
                    self.mover(
                        f"backup: {name}", "backup", "--repository", repository, "--resource", "vm", "--disk", disk
                    )
        per_gb = {name: self.median(f"read: {name}", "cpu") / (data / GB) for name in ("sdk", "ours")}
        print(f"CPU seconds a GB: ours {per_gb['ours']:.2f}, the SDK's download_blob {per_gb['sdk']:.2f}")
        self.check("TLS read: CPU / the SDK's", per_gb["ours"] / per_gb["sdk"], 0.45)
        for name in ("TLS", "file"):
            cpu, wall = (self.median(f"backup: {name}", what) for what in ("cpu", "wall"))
            print(f"backup from {name}: {cpu / (data / GB):.2f} CPU seconds a GB, {data / wall / 1e6:.0f} MB/s")

    # -- azurite

    def azurite(self) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.azure.azcopy import copy
        from tests.azurite import Azurite

        work = self.work / "azurite"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with Azurite(work / "data") as server:
            container, sas = f"{server.blob_url}/bench", container_of(server)
            source = f"{container}/disk?{sas}"
            copy(str(self.image), source, "LocalBlob", work, "--blob-type", "PageBlob")
            urls = {name: work / name for name in ("source", "target")}
            urls["source"].write_text(source)
            for number in range(self.rounds):
                env = {"DATA_MOVER_SAS": sas, "DATA_MOVER_REPOSITORY": f"{container}/repository-{number}"}
                words = [BIN / "data-mover", "repo", "create", env["DATA_MOVER_REPOSITORY"]]
                subprocess.run(words, env=self.environ | env, check=True, capture_output=True)
                backup = ("backup", "--resource", "vm", "--disk", f"os=@{urls['source']}")
                point = self.mover("Azurite: backup", *backup, env=env)["point"]
                urls["target"].write_text(f"{container}/restored-{number}?{sas}")
                self.mover("Azurite: restore", "restore", "--point", point, "--to", f"@{urls['target']}", env=env)
                self.azcopy("azcopy down", source, str(work / "down"), "BlobLocal", work)
                same = subprocess.run(["cmp", work / "down", self.image]).returncode == 0
                self.azcopy("azcopy up", str(work / "down"), f"{container}/up-{number}?{sas}", "LocalBlob", work)
                copy(f"{container}/restored-{number}?{sas}", str(work / "restored"), "BlobLocal", work)
                if not same or subprocess.run(["cmp", work / "restored", self.image]).returncode:
                    sys.exit("azcopy does not read back what was restored")
                for name in ("down", "restored"):
                    (work / name).unlink()

    def azcopy(self, name: str, source: str, target: str, from_to: str, folder: Path) -> None:
        from tests.azure.azcopy import BINARY

        words = ["--blob-type", "PageBlob"] if from_to == "LocalBlob" else []
        env = {"AZCOPY_LOG_LOCATION": str(folder), "AZCOPY_JOB_PLAN_LOCATION": str(folder)}
        self.run(name, BINARY, "copy", source, target, "--from-to", from_to, *words, env=env)

    # -- fragments

    def fragments(self) -> None:
        server = subprocess.Popen([sys.executable, __file__, "--child", "fragments"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            repository = self.repository("fragments")
            urls = [self.work / "first", self.work / "second"]
            urls[0].write_text(f"{base}/md-1/first/abcd?sig=x")
            urls[1].write_text(f"{base}/md-2/second/abcd?sig=x")
            words = ("backup", "--repository", repository, "--resource", "vm", "--disk-identity", "d")
            full = self.mover("fragments: full", *words, "--disk", f"os=@{urls[0]}", "--snapshot-id", "s1")
            more = ("--previous-snapshot", f"@{urls[0]}", "--previous-snapshot-id", "s1")
            step = self.mover(
                "fragments: incremental", *words, "--disk", f"os=@{urls[1]}", "--snapshot-id", "s2", *more
            )
            for name, said in (("full", full), ("incremental", step)):
                figures, calls = said["statistics"], said["api_calls"]
                count = sum(one["calls"] for classes in calls.values() for one in classes.values())
                print(
                    f"{name}: {figures['source_requests']:.0f} requests to the blob, {count} to the repository; "
                    f"read {figures['read'] / GB:.1f} GB of blocks, new {figures['new'] / GB:.1f} GB, notes {said['notes']}"
                )
        finally:
            server.kill()

    # -- limits

    def limits(self) -> None:
        with open(self.image, "rb") as file:  # what the server has read is in memory
            assert file.seek(0, os.SEEK_END) >= 4 * LIMITED
        words = [sys.executable, __file__, "--child", "limits", str(self.image)]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            for kind in ("source", "target"):
                for number in range(4):
                    (self.work / f"{kind}-{number}").write_text(f"{base}/{kind}/c/{number}?sig=x")
            for round_ in range(self.rounds):
                for count in (1, 4):
                    repository = self.repository("limits")
                    disks = [word for n in range(count) for word in ("--disk", f"d{n}=@{self.work / f'source-{n}'}")]
                    words = ["--repository", repository, "--resource", f"vm{round_}"]
                    point = self.mover(f"limits: backup of {count}", "backup", *words, *disks)["point"]
                    to = [word for n in range(count) for word in ("--to", f"d{n}=@{self.work / f'target-{n}'}")]
                    words = ["--repository", repository, "--point", point, "--all-disks", "--in-place"]
                    self.mover(f"limits: restore of {count}", "restore", *words, *to)
        finally:
            server.kill()
        for what in ("backup", "restore"):
            one, four = (self.median(f"limits: {what} of {count}", "wall") for count in (1, 4))
            self.check(f"{what} of four limited disks / of one", four / one, 1.5)

    # -- what is said

    def report(self) -> dict[str, object]:
        print(f"\n{'median':46s} {'wall s':>8} {'cpu s':>8} {'MiB':>6}")
        for name in self.figures:
            wall, cpu, rss = (self.median(name, what) for what in ("wall", "cpu", "rss_mib"))
            print(f"{name:46s} {wall:8.2f} {cpu:8.2f} {rss:6.0f}")
        for name, value, limit in self.checks:
            print(f"{name:42s} {value:8.2f}   at most {limit:g}   {'holds' if value <= limit else 'DOES NOT HOLD'}")
        return {
            "size": self.size,
            "figures": self.figures,
            "ratios": {name: [value, limit] for name, value, limit in self.checks},
        }


def data_of(path: Path) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data."""
    with open(path, "rb", buffering=0) as file:
        size, end = path.stat().st_size, 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, end


@contextmanager
def nginx(work: Path, image: Path) -> Iterator[str]:
    """The URL of the image as a page blob whose page list is where the file has data."""
    folder = work / "www/account/container"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "disk").unlink(missing_ok=True)
    os.link(image, folder / "disk")
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    words += ["-keyout", work / "key.pem", "-out", work / "cert.pem", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*words, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    ranges = "".join(
        f"<PageRange><Start>{low}</Start><End>{high - 1}</End></PageRange>" for low, high in data_of(image)
    )
    (work / "www/list").write_text(f"<PageList>{ranges}</PageList>")
    port = 18443
    (work / "nginx.conf").write_text(NGINX.format(work=work, port=port, list_port=port + 1))
    process = subprocess.Popen(["nginx", "-p", work, "-c", work / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        url = f"https://127.0.0.1:{port}/account/container/disk?sig=x"
        reach = [
            "curl",
            "-s",
            "--retry",
            "20",
            "--retry-connrefused",
            "--retry-delay",
            "1",
            "-o",
            "/dev/null",
            "--cacert",
        ]
        subprocess.run([*reach, work / "cert.pem", "-I", url], check=True)
        yield url
    finally:
        process.terminate()
        process.wait()


def container_of(server: object) -> str:
    """A container `bench` of an Azurite; a SAS for it."""
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

    with BlobServiceClient(server.blob_url, server.account_key) as service:  # type: ignore[attr-defined]
        service.create_container("bench")
    return generate_container_sas(
        server.account_name, "bench", server.account_key,  # type: ignore[attr-defined]
        permission=ContainerSasPermissions.from_string("rwlcd"), expiry=datetime.now(UTC) + timedelta(hours=8),
    )  # fmt: skip


# -- the processes that are measured, or that serve -----------------------------------------------------------------


class Sink:
    """Takes everything and keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def child_sdk(url: str) -> None:
    """As the SDK downloads a page blob by itself: one request for its page list, then its ranges, one at a time."""
    from azure.storage.blob import BlobClient

    def range_header(request: object) -> None:  # a file server knows the standard's header only
        headers = request.http_request.headers  # type: ignore[attr-defined]
        if "x-ms-range" in headers:
            headers["Range"] = headers["x-ms-range"]

    with BlobClient.from_blob_url(url) as blob:
        blob.download_blob(raw_request_hook=range_header).readinto(Sink())  # type: ignore[arg-type]


def child_ours(url: str) -> None:
    """As a backup reads: ranges of 8 MiB into buffers that are there, several at a time."""
    from mover.disk.page_blob import PageBlob
    from mover.disk.page_source import PageBlobSource

    source = PageBlobSource(PageBlob(url))
    local = threading.local()

    def read(part: tuple[int, int]) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(8 * MIB))
        source.read_into(part[0], [local.buffer[: part[1] - part[0]]])

    parts = [
        (at, min(at + 8 * MIB, start + length))
        for start, length in source.extents()
        for at in range(start, start + length, 8 * MIB)
    ]
    with ThreadPoolExecutor(source.in_flight) as pool:
        list(pool.map(read, parts))
    source.close()


class Azurish(BaseHTTPRequestHandler):
    """What the servers of this file have in common."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        kept = {"x-ms-blob-type": "PageBlob", "ETag": '"1"', "x-ms-request-id": "1", "Content-Length": str(len(body))}
        for name, value in (kept | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def serve(handler: type[Azurish]) -> None:
    """For ever; the port is printed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


def child_fragments() -> None:
    """A blob of 1 TiB: 200,000 pages of 4 KiB scattered over it; in its second state 20,000 of them have changed."""
    import random

    size, results = 1 << 40, 10_000
    places = sorted(random.Random(1).sample(range(size // 4096), 200_000))
    changed = set(random.Random(2).sample(places, 20_000))

    class Handler(Azurish):
        def do_HEAD(self) -> None:
            self.answer(200, b"", {"Content-Length": str(size)})

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            fields = parse_qs(split.query)
            asked = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
            low, high = map(int, re.findall(r"\d+", asked))
            second = split.path.startswith("/md-2")
            first, end = bisect(places, low), bisect(places, high + 1)
            if fields.get("comp") != ["pagelist"]:
                body = bytearray(high + 1 - low)
                for place in places[max(0, first - 1) : end]:
                    at = place * 4096 - low
                    page = (place * 2 + (second and place in changed)).to_bytes(8, "little") * 512
                    if -4096 < at < len(body):
                        body[max(at, 0) : at + 4096] = page[max(-at, 0) :][: len(body) - max(at, 0)]
                self.answer(206, bytes(body), {"Content-Range": f"bytes {low}-{high}/{size}"})
                return
            found = places[first:end]
            if "x-ms-previous-snapshot-url" in self.headers:
                found = [place for place in found if place in changed]
            skip = int(fields.get("marker", ["0"])[0])
            shown = found[skip : skip + results]
            text = "".join(
                f"<PageRange><Start>{at * 4096}</Start><End>{at * 4096 + 4095}</End></PageRange>" for at in shown
            )
            marker = str(skip + results) if len(found) > skip + results else ""
            self.answer(200, f"<PageList>{text}<NextMarker>{marker}</NextMarker></PageList>".encode(), {})

    def bisect(places: list[int], offset: int) -> int:
        import bisect

        return bisect.bisect_left(places, -(-offset // 4096))

    serve(Handler)


def child_limits(image: str) -> None:
    """Page blobs, each answering so many bytes a second whoever asks: `source/c/N` are parts of the image, `target/c/N` take any
    page and forget it."""
    contents: list[bytes] = []
    with open(image, "rb") as file:
        contents = [file.read(LIMITED) for _ in range(4)]
    lock = threading.Lock()
    free: dict[str, float] = {}

    def take(path: str, size: int) -> None:
        with lock:
            until = free[path] = max(time.monotonic(), free.get(path, 0.0)) + size / LIMIT
        time.sleep(max(0.0, until - time.monotonic()))

    class Handler(Azurish):
        def do_HEAD(self) -> None:
            self.answer(200, b"", {"Content-Length": str(LIMITED)})

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            is_source = "/source/" in split.path
            if parse_qs(split.query).get("comp") == ["pagelist"]:
                low, high = map(int, re.findall(r"\d+", self.headers["x-ms-range"]))
                text = f"<PageRange><Start>{low}</Start><End>{high}</End></PageRange>" if is_source else ""
                self.answer(200, f"<PageList>{text}<NextMarker/></PageList>".encode(), {})
                return
            low, high = map(int, re.findall(r"\d+", self.headers["Range"]))
            take(split.path, high + 1 - low)
            body = contents[int(split.path[-1])][low : high + 1] if is_source else bytes(high + 1 - low)
            self.answer(206, body, {"Content-Range": f"bytes {low}-{high}/{LIMITED}"})

        def do_PUT(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            self.rfile.read(size)
            take(urlsplit(self.path).path, size)
            said = self.headers.get("x-ms-lease-action")
            is_ok = "comp=metadata" in self.path or said in ("renew", "release")
            self.answer(200 if is_ok else 201, b"", {})

    serve(Handler)


def make_image(image: Path, mib: int) -> None:
    """An ext4 image of so many MiB, of files of /usr."""
    folder = image.with_suffix(".files")
    folder.mkdir(parents=True, exist_ok=True)
    left = mib * MIB * 3 // 4
    for path in sorted(Path("/usr").rglob("*")):
        if path.is_symlink() or not path.is_file() or (size := path.stat().st_size) > left:
            continue
        shutil.copyfile(path, folder / f"{left}-{path.name}"[-200:])
        left -= size
        if left < MIB:
            break
    subprocess.run(["mkfs.ext4", "-q", "-d", folder, image, f"{mib}M"], check=True)
    shutil.rmtree(folder)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        servers = {"fragments": child_fragments, "limits": child_limits}
        children: dict[str, Callable[..., None]] = {"sdk": child_sdk, "ours": child_ours, **servers}
        import mover.disk.page_source  # noqa: F401 - what is measured begins behind the imports

        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        children[sys.argv[2]](*sys.argv[3:])
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss / 1024}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["reads", "azurite", "fragments", "limits"])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/data-mover-page-blobs"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    image = given.image or given.work / f"disk-{given.mib}.img"
    if not image.exists():
        make_image(image, given.mib)
    bench = Bench(given.work, image, given.rounds)
    for part in given.parts:
        print(f"{part}:", flush=True)
        getattr(bench, part)()
    found = bench.report()
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
