# SPDX-License-Identifier: Apache-2.0
"""What an oracle is: another reader of file systems, behind the few questions that `truth.told` puts to ours.

An adapter asks its library as somebody would who trusts it, leaves out what the library marks as the file system's own files,
and names in `untold` the fields of Fact that it has no way to ask for. It repairs nothing: what is wrong shall be seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.flr.corpus.truth import Fact

EPOCH_1601 = 116444736000000000
"""1970 in NTFS's units of 100 ns since 1601."""


class Oracle(ABC):
    """`Any` is the library's own word for an entry."""

    untold: frozenset[str] = frozenset()

    @abstractmethod
    def root(self) -> Any: ...

    @abstractmethod
    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        """Whatever the library raises, after what it could list."""

    @abstractmethod
    def fact(self, path: bytes, node: Any) -> Fact:
        """Without link, attributes and content."""

    @abstractmethod
    def content(self, node: Any) -> Iterator[bytes]: ...

    def number(self, node: Any) -> int | None:
        """By which a folder is known again; None where there is no such number."""
        return None

    def link(self, node: Any) -> bytes:
        return b""

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        return {}


def nanoseconds(time: datetime) -> int:
    """Of a time without a zone, since 1970."""
    return (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def raw(text: str | bytes) -> bytes:
    """A name as bytes; unpaired surrogates are those of NTFS, or bytes that were no UTF-8."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
