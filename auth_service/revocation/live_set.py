"""The live set: everything that is revoked and still matters, in memory. Verifiers hear of it through the feed."""

import heapq
import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from auth_service.metrics import FEED_ENTRIES, FEED_ENTRIES_HEARD
from auth_service.revocation.frame_log import FrameLog
from auth_service.verifier.revocations import Entry, Kind, revocation_id

BATCH = 500
"""Entries in one frame of the feed, at most."""

Source = Literal["own", "stream", "journal"]


class LiveSet:
    """Grows by what is new, whoever tells it and however often; shrinks by time alone.

    `log` holds what was new, as frames of the feed, in the order in which it came.
    """

    def __init__(self, log: FrameLog | None = None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.log = log or FrameLog()
        self._monotonic = monotonic
        self._expiries: dict[tuple[Kind, str], float] = {}
        self._next_to_expire: list[tuple[float, tuple[Kind, str]]] = []
        self._unconfirmed: dict[tuple[Kind, str], tuple[Source, float]] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._expiries)

    def add(self, entries: Iterable[Entry], *, source: Source) -> None:
        """Take in `entries`. What is known, or past its time, changes nothing."""
        fresh: list[Entry] = []
        heard = source, self._monotonic()
        for entry in entries:
            kind, identifier, expires_at = entry
            key = kind, identifier
            if expires_at > self._now and key not in self._expiries:
                self._expiries[key] = expires_at
                heapq.heappush(self._next_to_expire, (expires_at, key))
                self._unconfirmed[key] = heard
                fresh.append(entry)
        for start in range(0, len(fresh), BATCH):
            self.log.append(frame("revoke", fresh[start : start + BATCH]))
        if fresh:
            FEED_ENTRIES_HEARD.labels(source=source).inc(len(fresh))
            FEED_ENTRIES.set(len(self))

    def expire(self, now: datetime) -> bool:
        """Drop what need not be known any longer at `now`, by the one clock: a batch. True if there may be more."""
        self._now = now.timestamp()
        for _ in range(BATCH):
            if not self._next_to_expire or self._next_to_expire[0][0] > self._now:
                break
            _, key = heapq.heappop(self._next_to_expire)
            del self._expiries[key]
            self._unconfirmed.pop(key, None)
        else:
            return True
        FEED_ENTRIES.set(len(self))
        return False

    def confirm(self, entry: Entry) -> tuple[Source, float] | None:
        """What told of `entry` first and when, on a monotonic clock; once, then None. For whoever sees it in the
        journal, and so knows since when it is revoked."""
        kind, identifier, _ = entry
        return self._unconfirmed.pop((kind, identifier), None)

    def holds(self, kind: Kind, claim: str) -> bool:
        """Whether the claim's value is known to be revoked."""
        return (kind, revocation_id(claim)) in self._expiries

    def entries(self) -> list[Entry]:
        """A copy of the set as it is now, in no order."""
        return [(kind, identifier, expires_at) for (kind, identifier), expires_at in self._expiries.items()]


def frame(event: str, data: object) -> bytes:
    """One server-sent event (WHATWG HTML §9.2) with JSON for its data."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")
