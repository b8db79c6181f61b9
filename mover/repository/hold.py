# SPDX-License-Identifier: Apache-2.0
"""A reader's hold on a point (rules I7, I14).

While a hold is open its point cannot die; it commits nothing. A reader without the right to write reads without one
(`Unheld`), says so, and meets a vanished pack as PointGone.
"""

from __future__ import annotations

import msgspec

from mover.clock import Clock
from mover.errors import (
    AccessDenied,
    Damaged,
    MoverError,
    ObjectNotFound,
    PointGone,
    SessionBusy,
    SessionLost,
    StoreFull,
    UnsupportedFormat,
)
from mover.repository import record
from mover.repository.collector_state import read_state
from mover.repository.keys import KeyRing
from mover.repository.leased import POLL_SECONDS, LeasedRecord
from mover.repository.names import hold_record, random_id
from mover.store.base import Store

HOLD_ATTEMPTS = 3


class Hold:
    """One reader's session over one point. `open_hold` makes one."""

    def __init__(self, store: Store, clock: Clock, leased: LeasedRecord, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._leased = leased
        self._poll_seconds = poll_seconds
        self._polled_at = float("-inf")
        self._seen = 0

    held = True

    @property
    def name(self) -> str:
        return self._leased.name

    def begin(self) -> None:
        """gc/state first; a point found condemned or gone is given up; then the write that acknowledges."""
        state = read_state(self._store)
        point = self._leased.header.parent
        if point in state.condemned_points or point in state.gone_points:
            self.end()
            raise PointGone("the restore point is being deleted by retention", point)
        self._seen = state.generation
        self._polled_at = self._clock.monotonic()
        self._acknowledge()

    def tick(self) -> None:
        """Renew and acknowledge when due. SessionLost: the reader opens another hold or stops."""
        self._leased.renew_if_due()
        if self._clock.monotonic() - self._polled_at >= self._poll_seconds:
            self._polled_at = self._clock.monotonic()
            try:
                generation = read_state(self._store).generation
            except (Damaged, UnsupportedFormat):
                return  # no collector gets further than this either
            self._seen = max(self._seen, generation)
            if self._seen > self._leased.header.generation:  # also when the last write of it failed in passing
                self._acknowledge()

    def _acknowledge(self) -> None:
        self._leased.write(lambda old: msgspec.structs.replace(old, generation=self._seen))

    def end(self) -> None:
        """Let the point go. Errors are passed over: a hold that is not ended lapses."""
        try:
            self._leased.write(lambda old: msgspec.structs.replace(old, state=record.ENDED))
        except MoverError:
            pass
        self._leased.release()


class Unheld:
    """Stands in for a hold where there can be none; `why` says so."""

    held = False
    name = ""

    def __init__(self, why: str) -> None:
        self.why = why

    def tick(self) -> None:
        """Nothing to keep."""

    def end(self) -> None:
        """Nothing to let go."""


def _header(keys: KeyRing, point: str, owner_epoch: int) -> record.Header:
    return record.Header(
        kind="hold",
        name=hold_record(random_id()),
        state=record.OPEN,
        resource=point.split("/")[1],
        incarnation=random_id(),
        write_id=random_id(),
        time=0.0,
        parent=point,
        owner_epoch=owner_epoch,
        key_epoch=keys.epoch,
    )


def open_hold(store: Store, keys: KeyRing, clock: Clock, point: str, owner_epoch: int) -> Hold | Unheld:
    """A hold on the point; Unheld when the store does not let us write, or when gc/state is damaged (nothing is deleted
    then, and what can be restored shall be); PointGone when retention was first."""
    for attempt in range(1, HOLD_ATTEMPTS + 1):
        leased = LeasedRecord(store, keys, clock, _header(keys, point, owner_epoch), record.Body())
        try:
            leased.create()
            found = leased.acquire()
        except AccessDenied:
            return Unheld("the repository may only be read")
        except StoreFull:
            return Unheld("the repository has no space left for a hold")
        except (ObjectNotFound, SessionBusy):
            # ended and deleted by a collector before it was leased, or leased by a request whose answer was lost
            if attempt == HOLD_ATTEMPTS:
                raise
            continue
        if record.decode_header(found.data, leased.name).state == record.OPEN:
            break
        leased.release()  # a collector ended it before it was leased; what has ended stays so (I7: another one, or stop)
    else:
        raise SessionLost("a hold was ended as often as it was opened", point)
    hold = Hold(store, clock, leased)
    try:
        hold.begin()
    except (Damaged, UnsupportedFormat) as error:
        hold.end()
        return Unheld(str(error))
    return hold
