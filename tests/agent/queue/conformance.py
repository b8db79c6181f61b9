# SPDX-License-Identifier: Apache-2.0
"""What every queue must do (`agent.queue.base`). A subclass gives the fixture `place`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import QueueMissing, StaleReceipt
from agent.queue.base import MAX_BODY, Message, Queue, QueueService
from mover.errors import UsageError


@dataclass
class Place:
    """`make(name)`: a queue of that name, made. `other()`: the same service as another process would have it. `lapse(seconds,
    condition)`: let so much of the service's time pass, until the condition holds."""

    service: QueueService
    make: Callable[[], Queue]
    other: Callable[[], QueueService]
    lapse: Callable[[float, Callable[[], object]], None]


def drain(queue: Queue) -> list[Message]:
    found = []
    while (message := queue.take(60)) is not None:
        found.append(message)
    return found


class Conformance:
    def test_what_is_put_is_taken_with_its_bytes(self, place: Place) -> None:
        queue = place.make()
        bodies = [b"", b"\0\xff" * 10, "ü{}".encode(), bytes(range(256)), b"x" * MAX_BODY]
        ids = [queue.put(body) for body in bodies]
        found = drain(queue)
        assert sorted((m.id, m.body) for m in found) == sorted(zip(ids, bodies, strict=True))
        assert {m.deliveries for m in found} == {1}
        assert queue.take(60) is None
        assert queue.length() == len(bodies)

    def test_one_byte_too_many_is_refused(self, place: Place) -> None:
        queue = place.make()
        with pytest.raises(UsageError, match="too large"):
            queue.put(bytes(MAX_BODY + 1))
        assert queue.take(60) is None

    def test_of_many_takers_one_gets_a_message(self, place: Place) -> None:
        queue = place.make()
        ids = {queue.put(b"%d" % k) for k in range(24)}
        names = [place.other().queue(queue.name) for _ in range(4)]
        start = threading.Barrier(4)

        def take(mine: Queue) -> list[str]:
            start.wait()
            return [message.id for message in drain(mine)]

        with ThreadPoolExecutor(4) as pool:
            taken = [message for found in pool.map(take, names) for message in found]
        assert sorted(taken) == sorted(ids)

    def test_a_taker_that_dies_gives_the_message_to_the_next(self, place: Place) -> None:
        queue = place.make()
        put = queue.put(b"body")
        first = queue.take(1)
        assert first is not None
        assert queue.take(60) is None
        found: list[Message] = []
        place.lapse(1, lambda: found or (found.extend(drain(queue)) or found))
        (second,) = found
        assert (second.id, second.body, second.deliveries) == (put, b"body", 2)
        assert second.receipt != first.receipt
        assert second.inserted == first.inserted
        for use in (lambda: queue.renew(first, 60), lambda: queue.release(first), lambda: queue.delete(first)):
            with pytest.raises(StaleReceipt):
                use()
        assert queue.take(60) is None, "a stale receipt shows nothing"
        queue.delete(second)
        assert queue.length() == 0

    def test_a_renewal_keeps_it_and_changes_the_receipt(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        first = queue.take(60)
        assert first is not None
        second = queue.renew(first, 60)
        assert (second.id, second.body, second.deliveries) == (first.id, first.body, first.deliveries)
        assert second.receipt != first.receipt
        with pytest.raises(StaleReceipt):
            queue.renew(first, 60)
        with pytest.raises(StaleReceipt):
            queue.delete(first)
        assert queue.take(60) is None
        queue.delete(queue.renew(second, 60))
        assert queue.length() == 0

    def test_a_renewal_counts_from_now(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        first = queue.take(60)
        assert first is not None
        queue.renew(first, 1)
        place.lapse(1, lambda: queue.take(60) is not None)

    def test_what_is_given_back_shows_again(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        first = queue.take(60)
        assert first is not None
        queue.release(first)
        second = queue.take(60)
        assert second is not None
        assert second.deliveries == 2
        with pytest.raises(StaleReceipt):
            queue.delete(first)
        queue.release(second, 1)
        place.lapse(1, lambda: queue.take(60) is not None)

    def test_what_is_delayed_shows_later(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"later", delay=1)
        assert queue.length() == 1
        place.lapse(1, lambda: queue.take(60) is not None)

    def test_what_is_deleted_is_gone(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        message = queue.take(1)
        assert message is not None
        queue.delete(message)
        for use in (lambda: queue.delete(message), lambda: queue.release(message), lambda: queue.renew(message, 60)):
            with pytest.raises(StaleReceipt):
                use()
        assert queue.length() == 0

    def test_what_has_expired_is_not_given_out(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"short", ttl=1)
        queue.put(b"long", ttl=3600)
        queue.put(b"for ever")
        place.lapse(1, lambda: {w.body for w in queue.peek(32)} == {b"long", b"for ever"})
        assert {m.body for m in drain(queue)} == {b"long", b"for ever"}

    def test_peeking_changes_nothing(self, place: Place) -> None:
        queue = place.make()
        ids = [queue.put(b"%d" % k) for k in range(5)]
        for _ in range(2):
            assert [(w.id, w.deliveries) for w in queue.peek(3)] == [(name, 0) for name in ids[:3]]
        taken = queue.take(60)
        assert taken is not None
        assert taken.deliveries == 1
        assert len(queue.peek(32)) == 4
        queue.release(taken)
        assert sorted(w.deliveries for w in queue.peek(32)) == [0, 0, 0, 0, 1]

    def test_queues_are_apart(self, place: Place) -> None:
        one, two = place.make(), place.make()
        one.put(b"one")
        assert two.take(60) is None
        message = one.take(60)
        assert message is not None
        with pytest.raises(StaleReceipt):
            two.delete(message)
        one.delete(message)

    def test_making_a_queue_again_keeps_it(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        queue.ensure()
        place.other().queue(queue.name).ensure()
        assert queue.length() == 1

    def test_a_queue_that_is_not_there_is_told(self, place: Place) -> None:
        queue = place.service.queue("nobody-made-this")
        message = Message("1", "r", b"", 1, 0.0)
        for use in (
            lambda: queue.put(b""),
            lambda: queue.take(60),
            lambda: queue.peek(1),
            queue.length,
            lambda: queue.renew(message, 60),
            lambda: queue.delete(message),
        ):
            with pytest.raises(QueueMissing, match="nobody-made-this"):
                use()

    @pytest.mark.parametrize("name", ["", "ab", "A" * 5, "a--b", "-ab", "ab-", "a_b", "a" * 64, "a/b", "ü" * 4])
    def test_what_cannot_be_a_name_is_refused(self, place: Place, name: str) -> None:
        with pytest.raises(UsageError, match="not a queue's name"):
            place.service.queue(name)

    @pytest.mark.parametrize("seconds", [0, 0.5, 8 * 24 * 3600, float("nan")])
    def test_a_visibility_out_of_bounds_is_refused(self, place: Place, seconds: float) -> None:
        with pytest.raises(UsageError, match="visibility"):
            place.make().take(seconds)

    def test_any_bytes_survive(self, place: Place) -> None:
        queue = place.make()

        @given(st.binary(max_size=2000))
        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        def survive(body: bytes) -> None:
            queue.put(body)
            message = queue.take(60)
            assert message is not None
            queue.delete(message)
            assert message.body == body

        survive()

    def test_the_service_has_a_time(self, place: Place) -> None:
        queue = place.make()
        queue.put(b"body")
        message = queue.take(60)
        assert message is not None
        assert abs(message.inserted - place.service.now()) < 60
        assert place.other().now() == pytest.approx(place.service.now(), abs=60)

    def test_it_says_where_it_is_without_secrets(self, place: Place) -> None:
        for shown in (place.service.where, repr(place.service), str(place.service)):
            assert "key" not in shown.lower()
            assert "sig=" not in shown
