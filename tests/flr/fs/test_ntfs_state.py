# SPDX-License-Identifier: Apache-2.0
"""What an NTFS volume says of itself: its log, its dirty flag, a sleeping Windows; and links that do not hold together."""

from __future__ import annotations

import struct

import pytest

from flr.errors import Corrupt
from flr.fs.base import Flag
from flr.fs.ntfs import log, record, reparse
from flr.fs.ntfs.reader import Ntfs
from tests.flr.corpus import windows
from tests.flr.fs.ntfs_plain import CLUSTER, attribute, find, place, plain


def test_links_that_do_not_hold_together() -> None:
    good = windows.symlink("x", "y", 1)
    for data in (good[:15], good[:8] + b"\xff\x00\x02\x00" + good[12:], good[:8] + b"\x00\x00\x03\x00" + good[12:]):
        with pytest.raises(Corrupt):
            reparse.target(data, "x")
    with pytest.raises(Corrupt, match="no target"):
        reparse.target(windows.symlink("", "", 1), "x")
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "special/point-symlink")
    at = attribute(sound, a.number, record.REPARSE)
    volume.put(at + 24 + 10, b"\xff\xff")
    fs = Ntfs(volume)
    assert find(fs, "special/point-symlink").flags & Flag.SUSPICIOUS
    with pytest.raises(Corrupt):
        fs.link(a.node)


def restart_page(lsn: int, in_use: int, flags: int, magic: bytes = b"RSTR", area: int = 48) -> bytes:
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIH", page, 0, magic, 30, 9, 0, 4096, 4096, area)
    struct.pack_into("<QHHHH", page, 48, lsn, 1, 0xFFFF, in_use, flags)
    struct.pack_into("<9H", page, 30, 7, *[0] * 8)
    for end in range(512, 4097, 512):
        page[end - 2 : end] = b"\x07\0"
    return bytes(page)


def test_the_log_says_whether_the_volume_was_closed() -> None:
    clean, busy = restart_page(10, 0xFFFF, 0), restart_page(20, 0, 0)
    flagged = restart_page(30, 0, 2)
    rest = bytes(8192)
    assert log.state(b"\xff" * 8192) == log.CLEAN
    assert log.state(clean + clean + rest) == log.CLEAN
    assert log.state(clean + busy + rest) == log.NOT_CLEAN
    assert log.state(busy + clean + rest) == log.NOT_CLEAN
    assert log.state(busy + flagged + rest) == log.CLEAN
    assert log.state(busy + b"X" * 4096 + rest) == log.NOT_CLEAN
    assert log.state(restart_page(0, 0, 0, b"CHKD") + rest) == log.CLEAN
    assert log.state(rest) == log.UNKNOWN
    assert log.state(restart_page(0, 0, 0, area=5000) + rest) == log.UNKNOWN
    assert "not replayed" in log.NOT_CLEAN


def test_a_volume_in_use_says_so() -> None:
    volume = plain()
    sound = Ntfs(volume)
    assert any("hibernates" in warning for warning in sound.warnings)
    where = sound.mft.stream(sound.mft.record(2), record.DATA)
    assert where is not None
    volume.put(where.spans[0].at * CLUSTER, restart_page(10, 0, 0) * 2)
    at = attribute(sound, 3, record.VOLUME_INFORMATION)
    volume.put(at + 24 + 10, b"\1")
    fs = Ntfs(volume)
    assert fs.about.journal == "not clean: changes of the last seconds may be missing; the log is not replayed"
    assert any(warning == f"the log is {fs.about.journal}" for warning in fs.warnings)
    assert any("marked dirty" in warning for warning in fs.warnings)


def test_what_is_damaged_of_a_volume_s_own_files_is_unknown_and_the_rest_is_read() -> None:
    volume = plain()
    sound = Ntfs(volume)
    for number in (2, 3, 6, find(sound, "HiberFil.sys").number):
        volume.put(place(sound, number), b"BAAD")
    fs = Ntfs(volume)
    assert fs.about.used is None
    assert fs.about.label == ""
    assert fs.about.journal == log.UNKNOWN
    assert len([warning for warning in fs.warnings if "is unknown" in warning]) == 5
    assert fs.read(find(fs, "small").node, 0, 10) == b"small"


def test_a_volume_whose_bitmap_is_large_does_not_tell_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flr.fs.ntfs.state.LARGEST_BITMAP", 100)
    assert Ntfs(plain()).about.used is None
