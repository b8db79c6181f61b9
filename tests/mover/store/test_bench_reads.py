# SPDX-License-Identifier: Apache-2.0
"""What a GB of range reads over TLS costs in processor time, beside the SDK's own download: why `azure_reads` exists.

The server is a process of its own, answers every range from memory and checks nothing. Printed with `pytest -s`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from azure.core.credentials import AzureSasCredential
from azure.storage.blob import BlobClient

from mover.store.azure import AzureBlobStore
from mover.store.azure_credentials import Sas
from tests.azurite import make_certificates

pytestmark = pytest.mark.bench

RANGE = 8 << 20
RANGES = 64  # half a GiB a run
THREADS = 2

# Answers are encrypted as a whole and sent in large pieces, as a busy network delivers them; record by record the
# client would be woken for every 16 KiB, and both sides of the comparison would cost more.
SERVER = """
import re, socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
body = memoryview(bytes(range(256)) * (1 << 15))
def serve(connection):
    near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(near, far, server_side=True)
    def until(call):
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                connection.sendall(far.read())
                if not (more := connection.recv(65536)):
                    raise SystemExit from None
                near.write(more)
    until(tls.do_handshake)
    request = b""
    while True:
        while b"\\r\\n\\r\\n" not in request:
            request += until(lambda: tls.read(65536))
        head, request = request.split(b"\\r\\n\\r\\n", 1)
        first, last = map(int, re.search(rb"(?i)range: bytes=(\\d+)-(\\d+)", head).groups())
        length = last - first + 1
        tls.write((
            "HTTP/1.1 206 Partial Content\\r\\nx-ms-version: 2021-12-02\\r\\nx-ms-blob-type: BlockBlob\\r\\n"
            "ETag: \\"1\\"\\r\\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\\r\\n"
            f"Content-Range: bytes {first}-{last}/10737418240\\r\\nContent-Length: {length}\\r\\n\\r\\n").encode())
        for at in range(0, length, 1 << 18):
            part, sent = body[at:min(at + (1 << 18), length)], 0
            while sent < len(part):
                sent += tls.write(part[sent:])
            connection.sendall(far.read())
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = make_certificates(tmp_path, ["account"])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.ca))
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, made.cert, made.key], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"https://127.0.0.1:{process.stdout.readline().strip()}/account/container"
        process.kill()


def cpu_seconds_a_gb(read: Callable[[int], None]) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(THREADS)))  # connections are made
        before = used()
        list(pool.map(read, range(RANGES)))
        return (used() - before) / (RANGES * RANGE / 1e9)


def test_range_reads_cost_at_most_three_quarters_of_the_sdk_s(server: str) -> None:
    store = AzureBlobStore(server, Sas("sig=x"))
    blob = BlobClient.from_blob_url(
        f"{server}/a", AzureSasCredential("sig=x"), max_single_get_size=RANGE, max_chunk_get_size=RANGE
    )
    buffers = [bytearray(RANGE) for _ in range(THREADS)]

    def ours(number: int) -> None:
        store.read_into("a", number * RANGE, memoryview(buffers[number % THREADS]))

    def stock(number: int) -> None:
        # As the SDK is meant to be used for a range.
        assert len(blob.download_blob(offset=number * RANGE, length=RANGE).readall()) == RANGE

    runs = [(cpu_seconds_a_gb(ours), cpu_seconds_a_gb(stock)) for _ in range(3)]
    mine, theirs = median(run[0] for run in runs), median(run[1] for run in runs)
    print(f"\nCPU seconds a GB of {RANGE >> 20} MiB ranges: azure_reads {mine:.2f}, download_blob {theirs:.2f}")
    store.close()
    blob.close()
    assert mine <= theirs * 0.75
