# SPDX-License-Identifier: Apache-2.0
"""Who may come in: a token that is used once, the session that it is exchanged for, and how often somebody may try.

Only hashes of tokens and sessions are kept, and they are compared in constant time. Addresses are locked out one by one: a token
cannot be guessed, and a lock for everybody would let anybody keep the owner out. Safe for many threads.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict

from mover.clock import Clock

TOKEN_BYTES = 32
FIRST_USE_SECONDS = 600.0
"""A token that nobody used by then is worth nothing; the session's owner makes another one."""
TRIES, TRIES_SECONDS = 5, 60.0
"""Failed ones of one address, and in which time."""
LOCKED_SECONDS = 300.0
MOST_ADDRESSES = 10_000
MOST_SESSIONS = 8


class Refused(Exception):
    """Of a try to come in. `wait` is seconds until the next one is looked at, 0 if it is now."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait


class Access:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[bytes, float] = {}
        self._sessions: OrderedDict[bytes, None] = OrderedDict()
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._locked: OrderedDict[str, float] = OrderedDict()
        self.failures = 0

    def new_token(self) -> str:
        """For one person, to be used once within FIRST_USE_SECONDS. Who made one before is not locked out by it."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            now = self._clock.monotonic()
            self._tokens = {known: until for known, until in self._tokens.items() if until > now}
            self._tokens[_hash(token)] = now + FIRST_USE_SECONDS
        return token

    def exchange(self, token: str, address: str) -> str:
        """The session's secret. Refused."""
        with self._lock:
            now = self._clock.monotonic()
            self._may_try(address, now)
            given = _hash(token)
            found = None
            for known, until in self._tokens.items():
                if hmac.compare_digest(known, given) and until > now:
                    found = known
            if found is None:
                self._fails(address, now)
                raise Refused("this link was used already, or is too old, or is not one of this session")
            del self._tokens[found]
            self._failed.pop(address, None)
            secret = secrets.token_urlsafe(TOKEN_BYTES)
            self._sessions[_hash(secret)] = None
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
            return secret

    def knows(self, secret: str) -> bool:
        given = _hash(secret)
        with self._lock:
            found = False
            for known in self._sessions:
                found |= hmac.compare_digest(known, given)
            return found

    def end(self, secret: str) -> None:
        """Signs out."""
        with self._lock:
            self._sessions.pop(_hash(secret), None)

    def end_all(self) -> None:
        with self._lock:
            self._sessions.clear()
            self._tokens.clear()

    def _may_try(self, address: str, now: float) -> None:
        until = self._locked.get(address, 0.0)
        if until > now:
            raise Refused("too many failed tries from your address", until - now)

    def _fails(self, address: str, now: float) -> None:
        self.failures += 1
        tries = [when for when in self._failed.pop(address, []) if when > now - TRIES_SECONDS] + [now]
        if len(tries) >= TRIES:
            self._locked.pop(address, None)
            self._locked[address] = now + LOCKED_SECONDS
        else:
            self._failed[address] = tries
        for table in (self._failed, self._locked):
            while len(table) > MOST_ADDRESSES:
                table.popitem(last=False)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
