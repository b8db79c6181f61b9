# SPDX-License-Identifier: Apache-2.0
"""Opening a job's session (I14, I4): a new one, the one that a worker left behind, or the answer that it is done or taken.

Not here: what a session does once it is open (`session`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mover.clock import Clock
from mover.errors import MoverError, ObjectNotFound, SessionEnded, SessionLost, StoreUnavailable
from mover.repository import record
from mover.repository.descriptor import Descriptor
from mover.repository.keys import KeyRing
from mover.repository.leased import LeasedRecord
from mover.repository.names import point_record, random_id
from mover.repository.session import Session, SessionSettings
from mover.store.base import Store


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer to a command delivered again: its point is committed already."""

    name: str
    header: record.Header


def latest_point(store: Store, resource: str) -> tuple[str | None, int]:
    """(name of the resource's newest committed point, the next sequence number)."""
    newest, newest_sequence, highest = None, -1, 0
    for entry in store.list(f"points/{resource}/"):
        state, sequence = entry.metadata.get("state"), entry.metadata.get("sequence", "")
        if state not in (record.OPEN, record.COMMITTED, record.ABORTED) or not sequence.isdecimal():
            try:  # metadata that was damaged: the record says it too
                header = record.decode_header(store.read_record(entry.name).data, entry.name)
            except StoreUnavailable:
                raise
            except MoverError:
                continue  # it is no parent, and whoever lists the points hears of it
            state, sequence = header.state, str(header.sequence)
        highest = max(highest, int(sequence))
        if state == record.COMMITTED and int(sequence) >= newest_sequence:
            newest, newest_sequence = entry.name, int(sequence)
    return newest, highest + 1


def open_session(
    store: Store,
    keys: KeyRing,
    clock: Clock,
    descriptor: Descriptor,
    *,
    resource: str,
    job: str,
    body: record.Body,
    flags: str = "",
    settings: SessionSettings | None = None,
) -> Session | Finished:
    """Open the session of this job: a new one, or the one that a worker left behind (adopted), or say that it is done.

    SessionBusy while another worker holds it, SessionLost when it was taken while it was opened, SessionEnded when it was
    aborted, OwnershipChanged.
    """
    name = point_record(resource, keys.point_id(job))
    parent, sequence = latest_point(store, resource)
    header = record.Header(
        kind="point",
        name=name,
        state=record.OPEN,
        resource=resource,
        incarnation=random_id(),
        write_id=random_id(),
        time=0.0,
        sequence=sequence,
        flags=flags,
        parent=parent if parent != name else None,
        owner_epoch=descriptor.owner_epoch,
        key_epoch=keys.epoch,
    )
    leased = LeasedRecord(store, keys, clock, header, body)
    while not leased.create():
        try:
            there = record.decode_header(store.read_record(name).data, name)
        except ObjectNotFound:
            continue  # deleted by the collector since: the name is free again
        if there.state == record.COMMITTED:
            return Finished(name, there)
        if there.state != record.OPEN:
            raise SessionEnded("this job was aborted", name)
        break
    try:
        found = leased.acquire()
    except ObjectNotFound:
        # ours for a while, then adopted, committed, expired and deleted by others while this worker slept
        raise SessionLost("the session's record is gone", name) from None
    there, there_body = record.decode(found.data, name, keys)
    if there.state != record.OPEN:
        leased.release()
        if there.state == record.COMMITTED:
            return Finished(name, there)
        raise SessionEnded("this job was aborted", name)
    resumed = None
    if there.write_id != header.write_id:
        leased.adopt(there, there_body)
        resumed = there
    session = Session(store, keys, clock, leased, settings or SessionSettings())
    session.resumed = resumed
    session.resumed_body = there_body if resumed else None
    leased.body = body  # written by `begin`: the same job may come with another source
    try:
        session.begin()
    except BaseException:
        session.close()
        raise
    return session
