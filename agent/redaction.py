# SPDX-License-Identifier: Apache-2.0
"""The one place where secrets leave what a worker says: logs, events, records, bundles, exceptions.

Known secrets (each is learned when it is revealed or read from the environment) are replaced wherever they stand, also in Base64
and percent-encoded; so is what is a secret whatever it holds: signatures of SAS, account keys, bearer tokens, private keys.
In messages and records known secrets are looked for in what people write, not in ids and the protocol's words (`protocol.FREE`): a
password may be such a word, and a record whose state is hidden is a job that is lost.
Secrets under SHORTEST characters are not looked for: they would mangle every text. Thread-safe.
"""

from __future__ import annotations

import base64
import functools
import re
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar, get_args, get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Meta

from agent.errors import CommandRefused
from agent.protocol import FREE, decode_command, encode

T = TypeVar("T")

SHORTEST = 6
HIDDEN = "***"
_PATTERNS = (
    (re.compile(r"(?i)\b(sig=)[^&\s\"'<>\\]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(AccountKey=|SharedAccessSignature=)[^;\s\"'\\]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(Bearer |SharedKey [a-z0-9]+:)[A-Za-z0-9+/=._~-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)
_SECRET_NAMES = ("PASSWORD", "SAS", "CONNECTION_STRING", "ACCOUNT_KEY")
_HINT = re.compile(r"(?i)sig=|AccountKey|SharedAccess|Bearer |SharedKey |PRIVATE KEY")


class Redactor:
    """A structlog processor, too: `redactor(logger, name, event)`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._expression: re.Pattern[str] | None = None

    def learn(self, secret: str) -> None:
        """From now on this text is shown nowhere."""
        if len(secret) < SHORTEST:
            return
        forms = {secret, quote(secret, safe=""), quote(secret), base64.b64encode(secret.encode()).decode().rstrip("=")}
        forms |= {line for line in secret.splitlines() if len(line) >= SHORTEST}
        with self._lock:
            if forms <= self._known:
                return
            self._known |= forms
            longest_first = sorted(self._known, key=len, reverse=True)
            self._expression = re.compile("|".join(map(re.escape, longest_first)))

    def learn_environment(self, environ: Mapping[str, str]) -> None:
        """The values of the variables that hold secrets, and what is in the files that they name."""
        for name, value in environ.items():
            if name.startswith("DATA_MOVER_") and name.removesuffix("_FILE").endswith(_SECRET_NAMES):
                self._learn_setting(_first_bytes(value) if name.endswith("_FILE") else value)

    def _learn_setting(self, value: str) -> None:
        self.learn(value)
        for part in re.split("[;&?]", value):
            key, _, secret = part.partition("=")
            if key.lower() in ("sig", "accountkey", "sharedaccesssignature"):
                self.learn(secret)

    def text(self, text: str) -> str:
        if self._expression is not None:
            text = self._expression.sub(HIDDEN, text)
        return _without_shapes(text)

    def message(self, value: T) -> T:
        """A command, an event or a record, or a part of one, with its free text redacted. Bytes and keys stay."""
        found: T = self._part(value, free=False)
        return found

    def _part(self, value: Any, *, free: bool) -> Any:
        if isinstance(value, str):
            return self.text(value) if free else _without_shapes(value)
        if isinstance(value, tuple):
            return tuple(self._part(item, free=free) for item in value)
        if isinstance(value, dict):
            return {key: self._part(item, free=free) for key, item in value.items()}
        if isinstance(value, msgspec.Struct):
            texts = _free_fields(type(value))
            fields = {name: self._part(getattr(value, name), free=name in texts) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        if isinstance(value, msgspec.Raw):
            return self._kept_command(value)
        return value

    def _kept_command(self, body: msgspec.Raw) -> msgspec.Raw:
        """It was kept before its secrets were opened, and known."""
        try:
            return msgspec.Raw(encode(self.message(decode_command(bytes(body)))))
        except CommandRefused:
            return body  # null

    def value(self, value: Any) -> Any:
        """The same value with every text in it redacted; other types than the plain ones become redacted text."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool | int | float) or value is None:
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        if isinstance(value, bytes):
            return self.text(value.decode(errors="replace"))
        return self.text(str(value))

    def data(self, data: bytes) -> bytes:
        """JSON, value by value, so that it stays JSON whatever is hidden; or any text in UTF-8."""
        try:
            return msgspec.json.encode(self.value(msgspec.json.decode(data)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        return self.text(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    def __call__(self, logger: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: self.value(item) for key, item in event.items()}


def _without_shapes(text: str) -> str:
    """Without what is a secret by its shape."""
    if _HINT.search(text):
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
    return text


@functools.cache
def _free_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(kind, include_extras=True).items() if _is_free(hint))


def _is_free(hint: Any) -> bool:
    return any((isinstance(part, Meta) and part.extra == FREE) or _is_free(part) for part in get_args(hint))


def _first_bytes(path: str) -> str:
    """Of a file that holds a secret; what cannot be read holds none that we could show."""
    try:
        with open(path, "rb") as file:
            return file.read(16 * 1024).decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""
