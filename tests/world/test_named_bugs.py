# SPDX-License-Identifier: Apache-2.0
"""The losses of other backup engines, each as one fixed scenario over the real code; the docstring says whose it was and why.

Kinds 1 to 6 first, then bugs that concern what exists so far. Not here: maintenance that overlaps by host name (kopia 1087: an
incarnation is a random id, I12), duplicate places that a compaction frees (borg 9868, rustic 392: the collector's issue; that one
chunk may stand in several places is shown below), a validator that destroys (borg 3444: nothing here repairs).
"""

from __future__ import annotations

import pytest

from mover.errors import CodecFailed, SessionLost, StoreUnavailable
from mover.repository import record
from mover.repository.frame import FrameWriter
from mover.repository.keys import KeyRing, Kind
from mover.repository.names import parse_pack
from mover.repository.opening import latest_point
from mover.repository.reader import read_directory
from mover.repository.repository import Repository
from tests.world.collector import CollectorLost, Plan
from tests.world.scenarios import (
    LAPSE,
    about_to_commit,
    at,
    back_up,
    collect,
    collect_with,
    committing,
    finish,
    first_data_pack,
    storing,
    waiting,
)
from tests.world.wire import Fate
from tests.world.world import World

# -- 1. a stale lock, stolen from an owner who lives


def test_stale_lock_stolen_from_living_owner() -> None:
    """restic 2452, 3126; Oak 10006, 2847: a lock lapses, is removed, and its owner, who was asleep, writes on.

    Here the owner wakes after an adopter took over: nothing of it becomes visible, its error says so, and it does not try again.
    """
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        owner = world.run(world.writer("vm", "job"), until=storing)
        world.advance(LAPSE)
        adopter = world.run(world.writer("vm", "job"), until=storing)
        finish(world, owner)
        assert isinstance(owner.error, SessionLost)
        finish(world, adopter)
        assert world.points[adopter.process.point].process is adopter.process


def test_stale_lock_that_nobody_took_is_kept() -> None:
    """I4: a lapsed lease is not a lost one. An owner who slept, and whom nobody missed, goes on and commits."""
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        owner = world.run(world.writer("vm", "job"), until=storing)
        world.advance(10 * LAPSE)
        finish(world, owner)
        assert owner.error is None


def test_wrong_clocks_take_nothing() -> None:
    """restic 2452: refreshing went by a clock that nobody had tested. Here a worker's clock stands still, it renews nothing, its
    session is adopted, and it commits nothing; one whose clock runs 3 times too fast renews too often, and that is all."""
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        still = world.run(world.writer("vm", "still", clock=world.clock(rate=0.0, offset=1e9)), until=storing)
        fast = world.run(world.writer("vm", "fast", clock=world.clock(rate=3.0, offset=-1e9)), until=storing)
        for _ in range(6):
            world.advance(15)
            world.tick(still)
            world.tick(fast)
        adopter = world.run(world.writer("vm", "still"))
        finish(world, still, fast)
        assert isinstance(still.error, SessionLost)
        assert fast.error is None
        assert adopter.error is None


# -- 2. a listing that failed or was short, read as empty


def test_failed_or_short_listing_read_as_empty() -> None:
    """restic 4612: an error in a listing was swallowed, prune saw an empty repository.

    A collector whose listing of points ends early lacks points that the last verdict kept, and stops before it condemns.
    """
    with World() as world:
        points = [back_up(world, "vm", f"job{k}", [k, k + 1, k + 2]) for k in range(1, 6)]
        collect(world)
        collector = world.collector(Plan(condemn_all=True))
        collector.process.trusts_listings = False
        world.run(collector, until=at("list", "points/"))
        world.step(collector, Fate.SHORT)
        finish(world, collector)
        assert isinstance(collector.error, CollectorLost)
        assert not world.state().condemned_packs
        assert {name for name, point in world.points.items() if not point.expired} == set(points)


@pytest.mark.parametrize("fate", [Fate.SHORT, Fate.FAIL])
@pytest.mark.parametrize("number", [0, 1])
def test_short_listing_costs_a_session_space_only(number: int, fate: Fate) -> None:
    """The session's half of I6: a listing of the resource's points (0) or of the runs (1) that ends early or fails once."""
    with World() as world:
        back_up(world, "vm", "one", [1, 2, 3, 4])
        back_up(world, "vm2", "two", [5, 6])
        world.change("vm", [1, 2, 9, 5])
        listing = at("list", "points/", "" if number == 0 else "back up")
        writer = world.run(world.writer("vm", "three"), until=listing)
        world.step(writer, fate)
        finish(world, writer)
        assert writer.error is None


def test_listing_that_fails_for_good_ends_the_command() -> None:
    """Neither empty nor half: StoreUnavailable, and nothing was begun."""
    with World() as world:
        world.change("vm", [1, 2])
        writer = world.run(world.writer("vm", "one"), until=at("list", "points/"))
        while not writer.done:
            world.step(writer, Fate.FAIL)
            world.advance(20)
        assert isinstance(writer.error, StoreUnavailable)
        assert not list(world.raw.list("points/"))


# -- 3. published after it was collected


def test_published_after_collected() -> None:
    """kopia 4769, PBS 14920, rustic: data uploaded, the marker late; the collector deletes the data, then the marker comes.

    A writer has stored its packs and not named them yet. A collector condemns everything, judges, and deletes what its verdict
    called gone: nothing under an open session's prefix is. If the session was aborted before, its commit does not happen.
    """
    with World() as world:
        world.change("vm", [1, 2, 3, 4, 5])
        writer = world.run(world.writer("vm", "job"), until=about_to_commit)
        for _ in range(2):
            collect_with(world, writer, condemn_all=True)
        finish(world, writer)
        assert writer.error is None

        late = world.run(world.writer("vm", "late"), until=about_to_commit)
        world.advance(LAPSE)
        collect(world, grace_over=True, condemn_all=True)
        collect(world)
        finish(world, late)
        assert isinstance(late.error, SessionLost)


def test_late_pack_upload_after_take_over() -> None:
    """A pack arrives when its session has long been adopted, committed, and its own incarnation's packs collected: it is garbage
    under a name that nobody else has, never somebody's data."""
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        world.change("vm", [5, 6, 7, 8])
        first = world.run(world.writer("vm", "job", version=0), until=storing)
        world.step(first, Fate.LATE)
        late = world.late[0]
        world.crash(first)
        world.advance(LAPSE)
        adopter = world.run(world.writer("vm", "job", version=1))
        assert adopter.error is None
        collect(world, condemn_all=True)
        world.deliver(late)
        stray = parse_pack(late.name.removeprefix("packs/"))
        collect(world)
        collect(world)
        collect(world)
        assert stray not in [parse_pack(e.name.removeprefix("packs/")) for e in world.raw.list("packs/")]
        world.verify_again()


# -- 4. one chunk in several places


def test_duplicate_locations() -> None:
    """borg 9868, rustic 392: two writers store the same chunk at once; the index kept one place and freed the pack of the other.

    Both places stay as long as a point names them; when one point and its pack go, the other reads on, and later sessions find
    the place that is left.
    """
    with World() as world:
        world.change("vm1", [1, 2])
        world.change("vm2", [1, 2])
        one = world.run(world.writer("vm1", "one"), until=storing)
        two = world.run(world.writer("vm2", "two"), until=storing)
        finish(world, one, two)
        packs = [first_data_pack(world, actor.process.point) for actor in (one, two)]
        assert read_directory(world.raw, packs[0])[0].chunk_id == read_directory(world.raw, packs[1])[0].chunk_id
        collect(world, one.process.point)
        collect(world)
        assert [entry.name for entry in world.raw.list("packs/") if entry.name == packs[0].object] == []
        back_up(world, "vm3", "three", [2, 1])
        world.verify_again()


# -- 5. order by name or by a clock


def test_order_by_name_or_mtime() -> None:
    """WAL-G 636, kopia 1587: the newest backup was found by name or by a time of modification, and the wrong ones were deleted.

    Points are ordered by the sequence that their records carry, whatever their names and the workers' clocks say.
    """
    with World() as world:
        names = []
        for k in range(1, 7):
            world.change("vm", [k, 2, 3])
            clock = world.clock(offset=-1e7 * k)  # every worker's clock is earlier than the one before
            names.append(world.run(world.writer("vm", f"job{k}", clock=clock)).process.point)
        assert names != sorted(names), "the scenario is not what it says"
        assert latest_point(world.raw, names[0].split("/")[1]) == (names[-1], 7)
        repository = Repository(world.raw, world.descriptor, world.keys)
        assert [point.name for point in repository.points("vm")] == names
        assert [point.header.parent for point in repository.points("vm")] == [None, *names[:-1]]


# -- 6. deduplicated against the dead


def test_dedupe_against_the_dead() -> None:
    """kopia's index blobs, bupstash's gc generation: an index, or a cache of it, says that a chunk exists, and it is deleted.

    A session that read the index before a collection does not refer to what died since; neither does one that reads it after.
    """
    with World() as world:
        point = back_up(world, "vm1", "one", [1, 2, 3, 4])
        world.change("vm2", [7, 8, 9, 1, 2])
        before = world.run(world.writer("vm2", "two"), until=storing)
        collect_with(world, before, expire=[point])
        after = world.run(world.writer("vm2", "three"), until=storing)
        collect_with(world, before, after)
        finish(world, before, after)
        assert before.error is None
        assert after.error is None
        collect(world)
        world.verify_again()


# -- and others


def test_retry_that_lies() -> None:
    """folo-rs 528: put-if-absent, its answer lost, tried again by the client: "exists", so the caller thinks that another did it.

    Every write of a whole backup loses its answer once, or its first try comes late; the backup ends well, all is written once.
    """
    writes = ("put", "create_record", "replace_record", "renew_lease")
    for fate in (Fate.LOSE, Fate.LATE):
        with World() as world:
            world.change("vm", [1, 2, 3, 4, 5])
            writer = world.writer("vm", "job", checkpoints=[2])
            struck = set()
            while not writer.done:
                strike = writer.at.what in writes and writer.at.name not in struck
                if strike:
                    struck.add(writer.at.name)
                world.step(writer, fate if strike else Fate.OK)
            assert writer.error is None
            assert len(struck) > 5
            while world.late:
                world.deliver(world.late[0])
            world.verify_again()


def test_retry_of_a_commit_after_a_take_over_lies_neither() -> None:
    """The commit comes late, after a take-over: it is refused, the retry finds another's write, and the writer says so."""
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        writer = world.run(world.writer("vm", "job"), until=committing)
        world.step(writer, Fate.LATE)
        world.advance(LAPSE)
        adopter = world.run(world.writer("vm", "job"), until=storing)
        world.deliver(world.late[0])
        finish(world, writer)
        assert isinstance(writer.error, SessionLost)
        finish(world, adopter)
        assert adopter.error is None


def test_codec_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """restic 4523, 4677: the compressor wrote what nothing could read. Here a frame is opened again before it is stored."""
    keys = KeyRing(b"k" * 32, {}, 0)
    writer = FrameWriter(keys)

    class Liar:
        def compress(self, raw: bytes) -> bytes:
            made = bytearray(honest.compress(raw))
            made[len(made) // 2] ^= 1
            return bytes(made)

    honest, writer._compressor = writer._compressor, Liar()  # type: ignore[assignment]
    with pytest.raises(CodecFailed):
        writer.write(Kind.DATA, b"hello " * 100)


def test_buffer_that_changes_after_it_was_hashed() -> None:
    """A bit that flips between hash and compression: comparing what comes out with the buffer would not see it, the id does."""
    keys = KeyRing(b"k" * 32, {}, 0)
    raw = bytearray(b"hello " * 100)
    chunk_id = keys.chunk_id(Kind.DATA, raw)
    raw[7] ^= 1
    with pytest.raises(CodecFailed):
        FrameWriter(keys).write(Kind.DATA, raw, chunk_id)


def test_marker_before_its_data() -> None:
    """restic 1589: an index upload was cancelled, its blobs were taken for saved. Here a failed run ends the checkpoint."""
    with World() as world:
        world.change("vm", [1, 2, 3, 4])
        writer = world.run(world.writer("vm", "job", checkpoints=[2]), until=at("put", "index/"))
        name = writer.at.name
        while not writer.done:
            world.step(writer, Fate.FAIL)
            world.advance(20)
        assert isinstance(writer.error, StoreUnavailable)
        found = world.raw.read_record(writer.process.point)
        assert record.decode_header(found.data, writer.process.point).runs == ()
        assert name not in [entry.name for entry in world.raw.list("index/")]


def test_keeper_ticks_after_the_commit() -> None:
    """Our own (found by a walk): the keeper saw a new generation after the commit and wrote the committed record again."""
    with World() as world:
        world.change("vm", [1, 2, 3])
        writer = world.run(world.writer("vm", "job"), until=at("release_lease", "points/"))
        etag = world.raw.read_record(writer.process.point).etag
        world.run(world.collector(Plan()))
        world.tick(writer)
        assert world.raw.read_record(writer.process.point).etag == etag
        finish(world, writer)
        assert writer.error is None


def test_hold_ended_before_it_was_leased() -> None:
    """Our own (found by a walk): a collector ended a hold that was not leased yet; its reader wrote it open again."""
    with World() as world:
        point = back_up(world, "vm", "one", [1, 2, 3])
        reader = world.run(world.reader(point), until=at("acquire_lease", "holds/"))
        collector = world.run(world.collector(Plan()), until=waiting)
        finish(world, reader, collector)
        assert reader.error is None
        assert {entry.metadata["state"] for entry in world.raw.list("holds/")} == {record.ENDED}
        assert len(list(world.raw.list("holds/"))) == 2


def test_job_issued_again_while_its_point_is_deleted() -> None:
    """Our own (found by a walk): create said "taken", the collector deleted the gone point, and reading it ended the command."""
    with World() as world:
        point = back_up(world, "vm", "one", [1, 2, 3])
        collect(world, point)
        writer = world.run(world.writer("vm", "one"), until=at("create_record", "points/"))
        world.step(writer)
        collect(world)
        finish(world, writer)
        assert writer.error is None
        assert not world.points[point].expired
