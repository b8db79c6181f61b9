# SPDX-License-Identifier: Apache-2.0
"""A certificate for one session: ECDSA P-256, self-signed, for the worker's names and addresses, of a short life. Its key is made
here, is never in a file system and ends with the process; people compare the thumbprint, which reaches them on another way.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=2)
BEFORE = timedelta(minutes=10)
"""Of somebody's clock that is late."""


@dataclass(frozen=True)
class Certificate:
    """`context` serves TLS 1.2 and newer. Thumbprints are upper-case hexadecimal, of the DER form."""

    context: ssl.SSLContext
    sha256: str
    sha1: str
    names: tuple[str, ...]
    until: datetime


def make(names: Sequence[str], now: datetime) -> Certificate:
    """For these DNS names and addresses; the first one is what it is called."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    until = now + LIFE
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    der = made.public_bytes(serialization.Encoding.DER)
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(
        _context(pem),
        hashlib.sha256(der).hexdigest().upper(),
        hashlib.sha1(der, usedforsecurity=False).hexdigest().upper(),
        tuple(names),
        until,
    )


def own_names() -> list[str]:
    """What this machine is called and where it can be reached, as far as it knows; at least `localhost`."""
    found = dict.fromkeys(
        [socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    )  # nobody is asked: a resolver may be silent
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asked:
                asked.connect((probe, 9))  # sends nothing: the kernel only chooses its address
                found[asked.getsockname()[0].partition("%")[0]] = None
        except OSError:
            pass
    return [name for name in found if name]


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    place = os.memfd_create("certificate", os.MFD_CLOEXEC)  # OpenSSL takes keys from files only
    try:
        with open(place, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    return context
