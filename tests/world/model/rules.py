# SPDX-License-Identifier: Apache-2.0
"""The switches: each takes one rule of docs/concurrency.md away, and each must then cost somebody's data.

A switch that could be off without a loss would stand for a rule that nobody needs, or for a model that cannot see. The
comment says what holds while the switch is on and, after "off", what is done instead.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Rules:
    """All in force unless named."""

    # I1: the write that commits names the lease. Off: a former holder's commit is obeyed, even on an aborted session.
    fenced_commit: bool = True
    # I14: a session creates its blob, then reads gc/state. Off: it reads gc/state first.
    blob_before_gc: bool = True
    # I14: gc/state is read before the parent and the index. Off: after them.
    gc_before_rest: bool = True
    # I14: to acknowledge, condemned packs leave the dedupe view, then the used packs are listed. Off: listed first.
    switch_before_ack: bool = True
    # I14: what was condemned once stays out of a session's dedupe view. Off: only what is condemned now stays out.
    absent_grows: bool = True
    # I13: every write names all packs that the session refers to. Off: only those that are condemned, only when asked.
    used_complete: bool = True
    # I3c, I7: a point that an open session or a hold names is not expired. Off: it is.
    pins_parent: bool = True
    # I14: a parent that the first acknowledgement finds condemned or gone is dropped. Off: it is used.
    drop_condemned_parent: bool = True
    # I3a: a point is condemned and judged like a pack. Off: the collector looks who uses it, then deletes it.
    condemn_points: bool = True
    # I4: a collector acknowledges for a lapsed session only if that has acknowledged itself. Off: for any.
    ack_after_own: bool = True
    # I3b, I4: a lapsed session counts as open. Off: the collector passes it by.
    lapsed_counts: bool = True
    # I3b, I3c: after the acknowledgements everything is read again. Off: the first reading decides.
    second_mark: bool = True
    # I3c: the verdict is a conditional write of gc/state. Off: a collector that lost gc/state goes on to delete.
    verdict_fenced: bool = True
    # I5: a pack that gc/state calls gone does not count, whatever an index says. Off: only what is condemned does not.
    gone_list: bool = True
    # I2, I5: a pack stays in `gone` until no run that counts mentions it. Off: until it is deleted.
    fold_runs: bool = True
    # I3c: what a point reaches through a forward is reached. Off: only what its summary names.
    fwd_live: bool = True
    # I7, I8: a reader that misses a place reads gc/state's forwards anew. Off: it gives the place up.
    fwd_read: bool = True
    # I15: compaction copies after the verdict what kept points reach then. Off: when it condemns.
    copy_after_freeze: bool = True
    # I15: a pack that an open session lists is not compacted. Off: it is.
    comp_acquit: bool = True
    # I8: a quarantined place whose chunk lies elsewhere gets a forward in the write that condemns. Off: it gets none.
    heal_fwd: bool = True
    # I5: packs of an aborted session die by verdict. Off: the collector deletes them at once.
    orphan_path: bool = True
    # I3: what is gone is the point that was judged. Off: whatever bears its name, made by its job issued again included.
    gone_is_this_one: bool = True

    def without(self, *names: str) -> Rules:
        """These rules less those named; a name that is none of them is a TypeError."""
        return replace(self, **dict.fromkeys(names, False))


SWITCHES = tuple(field.name for field in fields(Rules))
