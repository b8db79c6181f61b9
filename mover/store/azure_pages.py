# SPDX-License-Identifier: Apache-2.0
"""Writes to page blobs: made, filled page by page with a checksum that the service checks, cleared, leased, marked.

One request a call, nothing repeated; each may be asked again with the same outcome, but for `create`.
Sources: Microsoft's "Put Page", "Put Blob", "Lease Blob", "Set Blob Properties" and "Set Blob Metadata".
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from mover.errors import StoreError
from mover.store.azure_reads import AzureReads

_EXTENSIONS = "azure.storage.extensions"  # in C, with the SDK's extra (it is locked)
_crc64: Any = (
    importlib.import_module(f"{_EXTENSIONS}.checksums").crc64 if importlib.util.find_spec(_EXTENSIONS) else None
)

PAGE = 512
MOST = 4 << 20
"""Bytes in one Put Page, Azure's most."""


class AzurePages(AzureReads):
    """`lease`: sent with every write once it is not empty."""

    lease = ""
    _wants_md5 = False

    def create(self, name: str, size: int, metadata: Mapping[str, str]) -> None:
        """A blob of zeros; `metadata` by their headers' names. ObjectExists when the name is taken."""
        headers = {
            "x-ms-blob-type": "PageBlob",
            "x-ms-blob-content-length": str(size),
            "If-None-Match": "*",
        }
        self._put(name, "", headers | dict(metadata), made=True)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """`data`: whole pages, at most MOST."""
        headers = {"x-ms-page-write": "update", "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}"}
        try:
            self._put(name, "comp=page", headers | checksum(data, md5=self._wants_md5), data=data, made=True)
        except StoreError as error:
            if self._wants_md5 or not _is_header_refused(error):
                raise
            self._wants_md5 = True  # a host that knows the older checksum only
            self.write(name, offset, data)

    def clear(self, name: str, offset: int, length: int) -> None:
        """Whole pages, as many as there are."""
        headers = {"x-ms-page-write": "clear", "x-ms-range": f"bytes={offset}-{offset + length - 1}"}
        try:
            self._put(name, "comp=page", headers, made=True)
        except StoreError as error:
            if not _is_header_refused(error):
                raise
            for at in range(offset, offset + length, MOST):  # a host that takes pages only: zeros are pages too
                self.write(name, at, bytes(min(MOST, offset + length - at)))

    def resize(self, name: str, size: int) -> None:
        self._put(name, "comp=properties", {"x-ms-blob-content-length": str(size)})

    def set_metadata(self, name: str, metadata: Mapping[str, str]) -> None:
        """All of it, by their headers' names: what is not named is gone."""
        self._put(name, "comp=metadata", dict(metadata))

    def acquire_lease(self, name: str, lease: str, seconds: int) -> None:
        """`lease`: a GUID of the caller's. LeaseConflict when another holder's is active."""
        headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": str(seconds), "x-ms-proposed-lease-id": lease}
        self._put(name, "comp=lease", headers, made=True)
        self.lease = lease

    def renew_lease(self, name: str) -> None:
        """LeaseConflict or LeaseLost when another holder has had one since it ended."""
        self._put(name, "comp=lease", {"x-ms-lease-action": "renew"})

    def release_lease(self, name: str) -> None:
        self._put(name, "comp=lease", {"x-ms-lease-action": "release"})

    def _put(self, name: str, query: str, headers: dict[str, str], *, data: bytes = b"", made: bool = False) -> None:
        """`made`: the service answers that something was made (201), not only that all is well (200)."""
        lease = {"x-ms-lease-id": self.lease} if self.lease else {}
        url = f"{self.object_url(name)}?{query}" if query else ""
        with self._ask(name, "PUT", headers | lease, url, data) as answer:
            if answer.status_code != (201 if made else 200) or "x-ms-request-id" not in answer.headers:
                what = f"the answer to a write is not the service's ({answer.status_code})"
                raise StoreError(what, name, "is a proxy in between?")


def _is_header_refused(error: StoreError) -> bool:
    return any(code in error.what for code in ("UnsupportedHeader", "InvalidHeaderValue"))


def checksum(data: bytes, *, md5: bool = False) -> dict[str, str]:
    """The header by which the service checks a body."""
    if md5 or _crc64 is None:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        return {"Content-MD5": base64.b64encode(digest).decode()}
    return {"x-ms-content-crc64": base64.b64encode(_crc64.compute(data, 0).to_bytes(8, "little")).decode()}
