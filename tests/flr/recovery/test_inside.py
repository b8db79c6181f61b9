# SPDX-License-Identifier: Apache-2.0
"""What chosen folders have in them is counted in the background, once each."""

from __future__ import annotations

import stat

from flr.recovery.basket import Basket
from flr.recovery.inside import Counter
from flr.recovery.recovery import Recovery
from flr.walk import walk
from tests.agent.waiting import wait_for
from tests.flr.corpus.catalogue import sample
from tests.flr.web.serving import disks


def test_a_folder_has_what_a_walk_finds() -> None:
    with Recovery(disks([sample("fat32").image])) as recovery:
        counter = Counter(recovery)
        items = Basket(recovery).look([("disks", "0", b"/")])
        inside = counter.of(items[0])
        wait_for(lambda: inside.done)
        with recovery.using("disks") as opened:
            found = [
                entry.attributes
                for part in walk(opened.session, "0", items[0].found, b"/", lambda path, error: None)
                if part.first
                for entry in opened.session.folder("0", part.folder.node)
                if entry.attributes is not None and stat.S_ISREG(entry.attributes.mode)
            ]
        assert len(found) > 50
        assert (inside.files, inside.bytes, inside.unread) == (len(found), sum(one.size for one in found), 0)
        assert counter.of(items[0]) is inside
        counter.close()


def test_it_ends_in_the_middle() -> None:
    with Recovery(disks([sample("fat32").image])) as recovery:
        counter = Counter(recovery)
        items = Basket(recovery).look([("disks", "0", b"/")])
        for _ in range(3):
            counter.of(items[0])
        counter.close()
        counter = Counter(recovery)
        counter.close()
