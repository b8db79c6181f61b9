# SPDX-License-Identifier: Apache-2.0
"""Fixed schedules over the real code: each brings a world to the point where one rule is all that stands before a loss.

With all rules on a scenario ends well; with its rule broken (`mutants`) the world sees the loss. `test_mutants` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mover.errors import MoverError
from mover.repository import record
from mover.repository.descriptor import Descriptor
from mover.repository.frame import HEADER_SIZE
from mover.repository.names import DESCRIPTOR, PackName, parse_pack, point_record, random_id
from mover.repository.reader import read_directory
from tests.world.baton import Actor
from tests.world.collector import Plan
from tests.world.wire import Fate
from tests.world.world import Violation, World

Scenario = Callable[[World], None]
LAPSE = 61.0  # seconds: one more than a lease


def at(what: str, prefix: str = "", stage: str = "") -> Callable[[Actor], bool]:
    """Where to stop an actor: before such a request, in a stage of its backup or restore."""

    def there(actor: Actor) -> bool:
        return (
            actor.at.what == what
            and actor.at.name.startswith(prefix)
            and (not stage or actor.process.stage.startswith(stage))
        )

    return there


waiting = at("wait")
committing = at("replace_record", "points/", "commit")
storing = at("put", "packs/")
about_to_commit = at("put", "packs/", "commit")
judging_from = at("replace_record", "gc/state")


def back_up(world: World, resource: str, job: str, content: Sequence[int]) -> str:
    """A point without ado; its record's name."""
    world.change(resource, content)
    writer = world.run(world.writer(resource, job))
    assert writer.error is None
    return writer.process.point


def collect(world: World, *expire: str, **plan: bool) -> Actor:
    """A collector's whole run."""
    collector = world.run(world.collector(Plan(frozenset(expire), **plan)))
    assert collector.error is None, collector.error
    return collector


def collect_with(world: World, *others: Actor, expire: Sequence[str] = (), condemn_all: bool = False) -> None:
    """A collector's whole run while the keepers of the others acknowledge."""
    collector = world.collector(Plan(frozenset(expire), condemn_all=condemn_all))
    while not collector.done:
        world.step(collector)
        if waiting(collector):
            for other in others:
                if not other.done:
                    world.tick(other)
    assert collector.error is None, collector.error


def finish(world: World, *actors: Actor) -> None:
    for actor in actors:
        world.run(actor)


# -- I1, I2


def zombie_commits(world: World) -> None:
    """A writer is silent for longer than its lease, another adopts its session, and then the first one commits."""
    world.change("vm", [1, 2, 3])
    zombie = world.run(world.writer("vm", "job"), until=about_to_commit)
    world.advance(LAPSE)
    adopter = world.run(world.writer("vm", "job"), until=storing)
    finish(world, zombie, adopter)
    assert adopter.error is None


def zombie_commits_what_was_collected(world: World) -> None:
    """As before, but a collector aborted the session, and its packs are deleted when the first one commits."""
    world.change("vm", [1, 2, 3])
    zombie = world.run(world.writer("vm", "job"), until=about_to_commit)
    world.advance(LAPSE)
    collect(world, grace_over=True)
    collect(world)
    collect(world)
    finish(world, zombie)
    assert zombie.error is not None


def two_backups(world: World) -> None:
    """Nothing but two backups, one after the other."""
    back_up(world, "vm", "one", [1, 2, 3])
    back_up(world, "vm", "two", [1, 4, 3, 5])


def dedupe_against_a_checkpoint(world: World) -> None:
    """One session checkpoints half a pack and crashes; another finds the chunk in the checkpoint's run."""
    world.change("vm1", [1, 2, 3])
    first = world.writer("vm1", "one", checkpoints=[1])
    world.run(first, until=at("replace_record", "points/", "back up"))
    world.step(first)
    world.crash(first)
    back_up(world, "vm2", "two", [1, 5])


def dedupe_against_the_gone(world: World) -> None:
    """A point and its packs are gone and not deleted yet; the catalog's run still speaks of them."""
    point = back_up(world, "vm1", "one", [1, 2, 3])
    collect(world, point)
    back_up(world, "vm2", "two", [1, 2, 3])
    collect(world)


# -- I7


def point_expires_under_a_reader(world: World) -> None:
    """A reader holds a point; a collector expires it, the reader's keeper acknowledges; the next run deletes."""
    point = back_up(world, "vm", "one", [1, 2, 3])
    reader = world.run(world.reader(point), until=at("read_into", "packs/", "restore"))
    collect_with(world, reader, expire=[point])
    collect_with(world, reader)
    finish(world, reader)
    assert reader.error is None


def hold_is_made_beside_a_verdict(world: World) -> None:
    """A reader comes while a collector condemns and judges; it makes its hold after the collector looked for holds."""
    point = back_up(world, "vm", "one", [1, 2, 3])
    reader = world.run(world.reader(point), until=at("create_record", "holds/"))
    collect(world, point)
    world.run(reader, until=at("read_into", "packs/", "restore"))
    collect_with(world, reader)
    finish(world, reader)


def dying_point_is_asked_for(world: World) -> None:
    """A reader makes its hold between a collector's last reading and its verdict: the point is condemned, not gone."""
    point = back_up(world, "vm", "one", [1, 2, 3])
    collector = world.collector(Plan(frozenset({point})))
    world.run(collector, until=lambda actor: judging_from(actor) and point in world.state().condemned_points)
    reader = world.run(world.reader(point), until=at("read_into", "packs/", "restore"))
    finish(world, collector)
    collect_with(world, reader)
    finish(world, reader)


# -- I11, I12


def answer_to_a_commit_is_lost(world: World) -> None:
    """The commit is carried out, its answer lost; the writer asks again."""
    world.change("vm", [1, 2, 3])
    writer = world.run(world.writer("vm", "job"), until=committing)
    world.step(writer, Fate.LOSE)
    finish(world, writer)
    assert writer.error is None


def pack_arrives_after_a_take_over(world: World) -> None:
    """A writer's pack is on its way when the writer dies; it arrives when the adopter, whose disk has changed, stores its own."""
    world.change("vm", [1, 2, 3])
    world.change("vm", [4, 5, 6])
    first = world.run(world.writer("vm", "job", version=0), until=storing)
    world.step(first, Fate.LATE)
    world.crash(first)
    world.advance(LAPSE)
    adopter = world.run(world.writer("vm", "job", version=1), until=storing)
    world.deliver(world.late[0])
    finish(world, adopter)
    assert adopter.error is None


# -- I13, I14


def used_pack_loses_its_point(world: World) -> None:
    """A session found its chunks in another point's packs; that point expires before the session commits."""
    point = back_up(world, "vm1", "one", [1, 2, 3, 4])
    world.change("vm2", [1, 2, 8, 9])
    writer = world.run(world.writer("vm2", "two"), until=storing)
    collect_with(world, writer, expire=[point])
    finish(world, writer)
    assert writer.error is None
    collect(world)


def adopters_used_pack_loses_its_point(world: World) -> None:
    """As before, but the one who found the chunks crashed after a checkpoint, and an adopter goes on from there."""
    point = back_up(world, "vm1", "one", [1, 2, 3, 4])
    world.change("vm2", [1, 2, 8, 9])
    first = world.writer("vm2", "two", checkpoints=[2])
    world.run(first, until=at("replace_record", "points/", "back up"))
    world.step(first)
    world.crash(first)
    world.advance(LAPSE)
    adopter = world.run(world.writer("vm2", "two"), until=storing)
    collect_with(world, adopter, expire=[point])
    finish(world, adopter)
    assert adopter.error is None
    collect(world)


def parent_expires_under_its_child(world: World) -> None:
    """An incremental takes pages and blocks from its parent; the parent expires before the incremental commits."""
    parent = back_up(world, "vm", "one", [1, 2, 3, 4])
    world.change("vm", [1, 2, 3, 9])
    writer = world.run(world.writer("vm", "two"), until=storing)
    collect_with(world, writer, expire=[parent])
    finish(world, writer)
    assert writer.error is None
    collect(world)


def parent_is_gone_before_the_record(world: World) -> None:
    """A writer has chosen its parent; a whole collection passes before it creates its record."""
    parent = back_up(world, "vm", "one", [1, 2, 3, 4])
    world.change("vm", [1, 2, 3, 9])
    writer = world.run(world.writer("vm", "two"), until=at("create_record", "points/"))
    collect(world, parent)
    finish(world, writer)
    assert writer.error is None
    collect(world)


def parent_is_condemned_when_the_session_opens(world: World) -> None:
    """A whole backup between a collector's last reading and its verdict on the parent."""
    parent = back_up(world, "vm", "one", [1, 2, 3, 4])
    collector = world.collector(Plan(frozenset({parent})))
    world.run(collector, until=lambda actor: judging_from(actor) and parent in world.state().condemned_points)
    back_up(world, "vm", "two", [1, 2, 3, 9])
    finish(world, collector)
    collect(world)


def chunk_is_found_while_acknowledging(world: World) -> None:
    """A keeper acknowledges a generation; while its write is on the way, the worker looks up a chunk of a condemned pack."""
    point = back_up(world, "vm1", "one", [1, 2, 3, 4])
    world.change("vm2", [7, 8, 9, 1, 2])
    writer = world.run(world.writer("vm2", "two"), until=storing)  # 7 and 8; 9 is next, then 1 and 2
    collector = world.run(world.collector(Plan(frozenset({point}))), until=waiting)
    world.tick(writer, until=at("replace_record", "points/"))
    world.run(writer, until=lambda actor: actor.at.what == "lock" or committing(actor))
    world.tick(writer)
    finish(world, collector)
    finish(world, writer)
    assert writer.error is None
    collect(world)


def chunk_is_found_after_acknowledging(world: World) -> None:
    """As before, but the chunk is looked up after the acknowledgement and the verdict."""
    point = back_up(world, "vm1", "one", [1, 2, 3, 4])
    world.change("vm2", [7, 8, 9, 1, 2])
    writer = world.run(world.writer("vm2", "two"), until=storing)
    collect_with(world, writer, expire=[point])
    finish(world, writer)
    assert writer.error is None
    collect(world)


def pack_is_deleted_and_forgotten(world: World) -> None:
    """A session has read the index; three collections later a pack in it is condemned, gone, deleted and out of `gone`."""
    point = back_up(world, "vm1", "one", [1, 2, 3, 4])
    world.change("vm2", [7, 8, 9, 1, 2])
    writer = world.run(world.writer("vm2", "two"), until=storing)
    collect_with(world, writer, expire=[point])
    back_up(world, "vm3", "three", [11])  # something to fold, so that the catalog is written anew
    collect_with(world, writer)
    collect_with(world, writer)
    world.tick(writer)
    assert not world.state().gone_packs, "the scenario is not what it says"
    finish(world, writer)
    assert writer.error is None


# -- I8, I10: the reading half


def first_data_pack(world: World, point: str) -> PackName:
    names = [entry.name for entry in world.raw.list(f"packs/{'-'.join(point.split('/')[1:])}/")]
    return parse_pack(next(name for name in names if name.endswith("-0")).removeprefix("packs/"))


def chunk_rots_and_is_wanted_by_another(world: World) -> None:
    """A frame rots and is quarantined; another disk has the same block."""
    pack = first_data_pack(world, back_up(world, "vm1", "one", [1, 2, 3]))
    world.corrupt(pack, 0)
    world.decree(quarantine=frozenset({(pack, 0)}))
    back_up(world, "vm2", "two", [1, 2, 5])


def chunk_rots_and_the_next_backup_heals_it(world: World) -> None:
    """A frame rots and is quarantined; the disk's next backup, whose change map does not name the block, stores it again."""
    pack = first_data_pack(world, back_up(world, "vm", "one", [1, 2, 3, 4]))
    world.corrupt(pack, 0)
    world.decree(quarantine=frozenset({(pack, 0)}))
    back_up(world, "vm", "two", [1, 2, 3, 5])


def chunk_rots_while_a_session_uses_it(world: World) -> None:
    """A session refers to a frame; it rots and is quarantined before the session commits."""
    pack = first_data_pack(world, back_up(world, "vm1", "one", [1, 2, 3]))
    world.change("vm2", [1, 2, 7, 8, 9])
    writer = world.run(world.writer("vm2", "two"), until=storing)
    world.corrupt(pack, 0)
    world.decree(quarantine=frozenset({(pack, 0)}))
    finish(world, writer)
    assert writer.error is None


def frames_are_moved(world: World) -> None:
    """A collector has copied a pack's frames, published the forward and deleted the pack: twice, one after the other."""
    point = back_up(world, "vm", "one", [1, 2, 3])
    pack = first_data_pack(world, point)
    for n in range(2):
        copy = PackName(bytes(47) + bytes([n]), 0)
        size = world.raw.size(pack.object)
        entries = read_directory(world.raw, pack)
        assert entries[0].length > HEADER_SIZE
        world.raw.put(copy.object, [world.raw.read(pack.object, 0, size)])
        world.decree(forwards={**world.state().forwards, pack: (copy,)}, gone_packs=world.state().gone_packs | {pack})
        world.raw.delete(pack.object)
        pack = copy
    world.verify_again()
    reader = world.run(world.reader(point))
    assert reader.error is None


def new_owner(world: World) -> None:
    """A worker of the old owner is about to create its record; meanwhile another appliance takes ownership, all of it."""
    world.change("vm", [1, 2, 3])
    writer = world.run(world.writer("vm", "job"), until=at("create_record", "points/"))
    found = world.raw.read_record(DESCRIPTOR)
    descriptor = replace(Descriptor.decode(found.data), owner_epoch=2, write_id=random_id())
    world.raw.replace_record(DESCRIPTOR, descriptor.encode(), {}, etag=found.etag, lease=None)
    world.owner_epoch = 2
    finish(world, writer)
    name = writer.process.point
    try:
        header = record.decode_header(world.raw.read_record(name).data, name)
    except MoverError:
        return
    if header.state == record.COMMITTED:
        raise Violation(f"{point_record('*', '*')} of the old owner was committed under the new one")


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        zombie_commits,
        zombie_commits_what_was_collected,
        two_backups,
        dedupe_against_a_checkpoint,
        dedupe_against_the_gone,
        point_expires_under_a_reader,
        hold_is_made_beside_a_verdict,
        dying_point_is_asked_for,
        answer_to_a_commit_is_lost,
        pack_arrives_after_a_take_over,
        used_pack_loses_its_point,
        adopters_used_pack_loses_its_point,
        parent_expires_under_its_child,
        parent_is_gone_before_the_record,
        parent_is_condemned_when_the_session_opens,
        chunk_is_found_while_acknowledging,
        chunk_is_found_after_acknowledging,
        pack_is_deleted_and_forgotten,
        chunk_rots_and_is_wanted_by_another,
        chunk_rots_and_the_next_backup_heals_it,
        chunk_rots_while_a_session_uses_it,
        frames_are_moved,
        new_owner,
    )
}
