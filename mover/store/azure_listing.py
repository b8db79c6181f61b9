# SPDX-License-Identifier: Apache-2.0
"""Listings of blobs, page by page, read by ourselves: a page that is not a whole answer of the service is an error.

A short list that looks whole loses data (I6), so nothing is taken for granted: the document's root, its list and its
marker must be there, and names must ascend from page to page (accounts with a hierarchical namespace list in another
order). And it takes a seventh of the SDK's processor time: 0.25 instead of 1.9 s for a page of 5,000 names.
Source: Microsoft's "List Blobs" reference.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from urllib.parse import quote, urlencode

from mover.errors import StoreError
from mover.store.azure_errors import number
from mover.store.azure_location import ContainerLocation
from mover.store.azure_reads import AzureReads
from mover.store.base import NAME_PART, Entry

WHAT = "a listing"


def list_blobs(reads: AzureReads, location: ContainerLocation, prefix: str, page: int) -> Iterator[Entry]:
    """Entries whose names, below the location's folder, begin with `prefix`; `page` names a request."""
    fields = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(page)}
    if location.folder + prefix:
        fields["prefix"] = location.folder + prefix
    last = ""
    while True:
        body = reads.read_url(prefix, f"{location.container_url}?{urlencode(fields, quote_via=quote)}")
        blobs, marker = _parse(prefix, body)
        for blob in blobs:
            name, entry = _entry(prefix, location.folder, blob)
            if name <= last:
                raise StoreError(
                    "the store does not list names in ascending order",
                    name,
                    "an account with a hierarchical namespace cannot hold a repository",
                )
            last = name
            if entry is not None:
                yield entry
        if not marker:
            return
        fields["marker"] = marker


def _parse(prefix: str, body: bytes) -> tuple[ElementTree.Element, str]:
    root = document(body, "EnumerationResults", WHAT, prefix)
    blobs, marker = root.find("Blobs"), root.find("NextMarker")
    if blobs is None or marker is None:
        raise unreadable(WHAT, prefix)
    return blobs, marker.text or ""


def _entry(prefix: str, folder: str, blob: ElementTree.Element) -> tuple[str, Entry | None]:
    """The name, and the entry if the name is one of ours: in a folder that we share, others are somebody else's."""
    name, size = blob.findtext("Name") or "", blob.findtext("Properties/Content-Length") or ""
    if blob.tag != "Blob" or not name.startswith(folder + prefix) or number(size) is None:
        raise unreadable(WHAT, prefix)
    name = name[len(folder) :]
    if not all(map(NAME_PART.match, name.split("/"))):
        return name, None
    found = blob.find("Metadata")
    metadata = {} if found is None else {item.tag.lower(): item.text or "" for item in found}
    return name, Entry(name, int(size), metadata)


def document(body: bytes, tag: str, what: str, name: str) -> ElementTree.Element:
    """The root of an answer in XML, which must be a `tag`; otherwise StoreError: it is not `what` of `name`."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - from the store that we trust with everything else
    except ElementTree.ParseError:
        raise unreadable(what, name) from None
    if root.tag != tag:
        raise unreadable(what, name)
    return root


def unreadable(what: str, name: str) -> StoreError:
    return StoreError(f"the answer is not {what}", name, "is a proxy in between?")
