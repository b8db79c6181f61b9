# SPDX-License-Identifier: Apache-2.0
"""What a volume says of itself: name, size, what is used, and whether the guest had done with it.

What of this is damaged or not there is told as unknown, with a warning: the files may be whole. Format: libyal's NTFS
documentation, "Metadata files", "$VOLUME_INFORMATION".
"""

from __future__ import annotations

from collections.abc import Callable

from flr.blocks import Extent, Volume
from flr.errors import Corrupt, RecoveryError
from flr.fs.base import MOST_ENTRIES, About
from flr.fs.ntfs import content, log, reparse
from flr.fs.ntfs.boot import Geometry
from flr.fs.ntfs.index import Index
from flr.fs.ntfs.mft import Mft
from flr.fs.ntfs.record import DATA, VOLUME_INFORMATION, VOLUME_NAME

LOG_FILE, VOLUME_FILE, BITMAP_FILE = 2, 3, 6
LARGEST_BITMAP = 4 << 20
"""Bytes that are read to know how much is used: 128 GiB in clusters of 4 KiB. Of a larger volume that is not told."""
LOG_HEAD = 128 << 10
"""Bytes of the log: two restart pages of the largest size."""
DIRTY = 1
HIBERNATION = "hiberfil.sys".encode("utf-16-le")


class State:
    def __init__(
        self, volume: Volume, geometry: Geometry, mft: Mft, root: Callable[[], Index], warn: Callable[[str], None]
    ) -> None:
        self._volume = volume
        self._geometry = geometry
        self._mft = mft
        self._root = root
        self._warn = warn

    def about(self) -> About:
        g = self._geometry
        size = g.clusters * g.cluster
        about = About(kind="ntfs", uuid=f"{g.serial:016X}", size=size, block_size=g.cluster, journal=log.UNKNOWN)
        try:
            self._name(about)
        except RecoveryError as problem:
            self._unknown("the volume's name", problem)
        try:
            about.journal = log.state(self._head(LOG_FILE, LOG_HEAD))
        except RecoveryError as problem:
            self._unknown("the log", problem)
        if about.journal != log.CLEAN:
            self._warn(f"the log is {about.journal}")
        try:
            about.used = self._used()
        except RecoveryError as problem:
            self._unknown("how much is used", problem)
        try:
            self._look_for_hibernation()
        except RecoveryError as problem:
            self._unknown("whether Windows hibernates", problem)
        return about

    def _unknown(self, what: str, problem: RecoveryError) -> None:
        self._warn(f"{what} is unknown: {problem.what}: {problem.value}")

    def _name(self, about: About) -> None:
        record = self._mft.record(VOLUME_FILE)
        for attribute in record.find(VOLUME_NAME):
            about.label = reparse.text(attribute.value).decode("utf-8", "replace")
        for attribute in record.find(VOLUME_INFORMATION):
            if len(attribute.value) >= 12:
                about.version = f"{attribute.value[8]}.{attribute.value[9]}"
                if attribute.value[10] & DIRTY:
                    self._warn("the volume is marked dirty: Windows would check it at its next start")

    def _head(self, number: int, most: int) -> bytes:
        """The first bytes of a file that is not compressed."""
        found = self._mft.stream(self._mft.record(number), DATA)
        if found is None:
            raise Corrupt("a file has no content", f"record {number}")
        what = f"record {number}"
        return content.read(self._volume, found, 0, min(most, found.size), self._geometry.cluster, what)

    def _used(self) -> int | None:
        clusters, cluster = self._geometry.clusters, self._geometry.cluster
        size = -(-clusters // 8)
        if size > LARGEST_BITMAP:
            return None
        found = self._mft.stream(self._mft.record(BITMAP_FILE), DATA)
        if found is None or found.size < size:
            raise Corrupt("the bitmap of clusters is too short", f"for {clusters} clusters")
        what = f"record {BITMAP_FILE}"
        places = content.segments(found, 0, size, cluster, 64, what)
        self._volume.prefetch([(place.offset, place.length) for place in places if isinstance(place, Extent)])
        bits = int.from_bytes(content.read(self._volume, found, 0, size, cluster, what), "little")
        return (bits & ((1 << clusters) - 1)).bit_count() * cluster

    def _look_for_hibernation(self) -> None:
        index = self._root()
        cursor: int | None = 0
        while cursor is not None:
            names, cursor = index.names(cursor, MOST_ENTRIES)
            for name in names:
                if len(name.name) == len(HIBERNATION) and name.name.lower() == HIBERNATION:
                    if log.hibernated(self._head(name.number, 4096)):
                        self._warn(
                            "Windows hibernates in this volume (a fast start-up does so too): recent changes may be missing"
                        )
                    return
