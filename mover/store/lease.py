# SPDX-License-Identifier: Apache-2.0
"""Azure's lease rules as plain functions, for the stores that must imitate them (memory, local).

A lease is *active* until its time is over, then *lapsed*: it still stands on the record, names nobody as the writer,
and can be renewed until somebody else writes, leases or breaks (rule I4). A *broken* one stands there too, but can only
be released. Released, or ended by a write, it is None.
Source: the outcome tables of Microsoft's "Lease Blob" reference; the conformance suite runs them against Azurite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mover.errors import LeaseConflict, LeaseLost


@dataclass(frozen=True, slots=True)
class Lease:
    """`expires` is a moment on the store's own monotonic clock, in seconds."""

    id: str
    seconds: int
    expires: float
    broken: bool = False

    def active(self, now: float) -> bool:
        return not self.broken and now < self.expires


def is_active(lease: Lease | None, now: float) -> bool:
    return lease is not None and lease.active(now)


def after_write(name: str, lease: Lease | None, named: str | None, now: float) -> Lease | None:
    """The lease that stands after a write or deletion naming `named`; raises when that write is not allowed."""
    if named is None:
        if is_active(lease, now):
            raise LeaseConflict("another holder's lease is active", name)
        return None  # a write without a lease ends a lapsed one
    if lease is None or lease.id != named or not lease.active(now):
        raise LeaseLost("the lease named is not active on the record", name)
    return lease


def acquired(name: str, lease: Lease | None, new_id: str, seconds: int, now: float) -> Lease:
    if is_active(lease, now):
        raise LeaseConflict("another holder's lease is active", name)
    return Lease(new_id, seconds, now + seconds)


def renewed(name: str, lease: Lease | None, named: str, now: float) -> Lease:
    """Lapsed or not, as long as it is still this one that stands."""
    held = own(name, lease, named)
    if held.broken:
        raise LeaseLost("the lease named was broken", name)
    return replace(held, expires=now + held.seconds)


def own(name: str, lease: Lease | None, named: str) -> Lease:
    if lease is None or lease.id != named:
        raise LeaseLost("the lease named is no longer the record's", name)
    return lease


def broken(lease: Lease | None) -> Lease | None:
    return replace(lease, broken=True) if lease is not None else None
