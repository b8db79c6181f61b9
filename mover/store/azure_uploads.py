# SPDX-License-Identifier: Apache-2.0
"""The SDK's transport, with bodies that can be stopped on their way: a cancel must not wait for packs on a slow line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from azure.core.pipeline.transport import RequestsTransport

from mover.errors import Cancelled

PIECE = 1 << 20


class Body:
    """Bytes in pieces, until `cancel` is set: then Cancelled, and the server sees a body that ends too soon."""

    def __init__(self, data: bytes, cancel: threading.Event) -> None:
        self._data = memoryview(data)
        self._cancel = cancel

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, len(self._data), PIECE):
            if self._cancel.is_set():
                raise Cancelled("stopped while uploading", f"{start} of {len(self._data)} bytes")
            yield self._data[start : start + PIECE]


class UploadTransport(RequestsTransport):  # type: ignore[misc]
    """Bodies of more than PIECE bytes, which are packs, stop at `cancel`; records and leases always go out whole."""

    def __init__(self, cancel: threading.Event, **settings: Any) -> None:
        super().__init__(**settings)
        self._cancel = cancel

    def send(self, request: Any, **kwargs: Any) -> Any:
        if isinstance(request.data, bytes) and len(request.data) > PIECE:
            request.data = Body(request.data, self._cancel)
        return super().send(request, **kwargs)
